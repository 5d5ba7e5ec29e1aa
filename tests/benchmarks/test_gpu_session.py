"""The script for a machine with a GPU, as far as one without can show: what it would start is started so."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from kanoclip.runtime.cli.main import load_command

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu_session.sh"


@pytest.fixture(scope="module")
def steps():
    done = subprocess.run([SCRIPT, "--dry-run", "nowhere/at-all"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == "" and not (ROOT / "nowhere").exists()
    lines = [re.fullmatch(r"([\w-]+) \(at most (\d+) s\): (.*)", line) for line in done.stdout.splitlines()]
    assert all(lines)
    return {one[1]: (int(one[2]), one[3]) for one in lines}


def test_every_command_is_one_that_this_version_knows(steps):
    known = 0
    for name, (_, line) in steps.items():
        program, *arguments = shlex.split(line)
        command = Path(program).name.removeprefix("kanoclip-")
        if Path(program).name.startswith("kanoclip-"):
            load_command(command).make_context(command, arguments).close()  # refuses what it does not know
            known += 1
        elif arguments[:1] == ["-m"] and arguments[1] != "pytest":
            module = ROOT.joinpath(*arguments[1].removeprefix("kanoclip.").split(".")).with_suffix(".py")
            assert module.is_file(), name
    assert known >= 16


def test_it_tests_builds_compares_and_measures(steps):
    assert {"install", "tests", "bench", "report"} < set(steps)
    for backend in ("tensorrt", "tensorrt-rtx", "onnxruntime", "onnxruntime-tensorrt"):
        for bundle in ("fp32", "fp16", "static"):
            assert f"doctor-{backend}-{bundle}" in steps
    folder = re.search(r"-m gpu .* (tests/\S+)$", steps["tests"][1])[1]
    marked = [path for path in (ROOT / "tests").rglob("*.py") if "pytest.mark.gpu" in path.read_text()]
    marked.remove(Path(__file__))
    assert marked and all(path.is_relative_to(ROOT / folder) for path in marked)


def test_no_command_outlives_the_time_of_all():
    found = re.search(r"^whole=(\d+)", SCRIPT.read_text(), re.M)
    assert found is not None and int(found[1]) < 8 * 60


def test_shellcheck_has_nothing_to_say():
    shellcheck = shutil.which("shellcheck") or pytest.skip("shellcheck is not installed")
    done = subprocess.run([shellcheck, SCRIPT], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
