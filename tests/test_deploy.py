"""What docs/deploy, jetson.md and service.md say must be true of this project: files, extras, commands and versions."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click
import pytest
from health_server import serve_health
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from kanoclip.runtime.cli.main import load_command
from kanoclip.runtime.cli.run_options.fields import options_of
from kanoclip.runtime.cli.run_options.line_file import GROUPS, read_line
from kanoclip.runtime.cli.run_options.sinks.by_type import SINKS
from kanoclip.runtime.detect.settings.settings_file import read_settings
from kanoclip.runtime.engines.tensorrt.flavour import _OLDEST, FULL
from kanoclip.runtime.service.health import Health
from kanoclip.runtime.service.liveness import STUCK_S
from kanoclip.runtime.stream.sink_worker import SINK_GRACE_S
from kanoclip.runtime.stream.supervision.main_thread import SOURCE_GRACE_S

tomllib = pytest.importorskip("tomllib", reason="reads pyproject.toml with Python 3.11's own parser")

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "docs" / "deploy"
PAGE = (ROOT / "docs" / "jetson.md").read_text()
SERVICE_PAGE = (ROOT / "docs" / "service.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGE_DIRS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"].values()
EXTRAS = PROJECT["optional-dependencies"]
REQUIRED = {}
"""For each package what its extras allow, one CUDA's or the other's."""
for line in [*PROJECT["dependencies"], *EXTRAS["cpu"], *EXTRAS["gpu-cu12"], *EXTRAS["gpu-cu13"]]:
    REQUIRED.setdefault(Requirement(line).name, []).append(Requirement(line).specifier)
REQUIRED["tensorrt"] = [SpecifierSet(f">={'.'.join(map(str, _OLDEST[FULL]))}")]  # JetPack's
DOCKERFILES = sorted(DEPLOY.glob("Dockerfile.*"))
UNIT = DEPLOY / "kanoclip.service"
DEFAULTS = DEPLOY / "kanoclip.default"
LINE = DEPLOY / "line.toml"


def instructions(path):
    """[(instruction, rest of the line)] of a Dockerfile, continued lines joined."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def stages(path):
    """The instructions of each stage; what comes before the first FROM is left out."""
    found = []
    for name, rest in instructions(path):
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append((name, rest))
    return found


def accepts(command):
    """Whether a command line of ours is one: its program exists and click takes its arguments."""
    program, *arguments = command
    assert program in PROJECT["scripts"], program
    parsed = load_command(program.removeprefix("kanoclip-"))
    try:
        parsed.make_context(program, arguments)
    except click.ClickException as error:
        raise AssertionError(f"{shlex.join(command)}: {error.format_message()}") from error


def test_there_is_one_for_each_platform():
    assert [path.suffix for path in DOCKERFILES] == [".cpu", ".jetpack6", ".jetpack7", ".x86"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.suffix)
class TestDockerfiles:
    def test_only_known_instructions_in_stages_with_pinned_bases(self, path):
        known = {"ARG", "FROM", "RUN", "WORKDIR", "COPY", "ENV", "VOLUME", "USER", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
        assert {name for name, _ in instructions(path)} <= known
        arguments = dict(rest.split("=", 1) for name, rest in instructions(path) if name == "ARG")
        names = set()
        for name, rest in instructions(path):
            if name != "FROM":
                continue
            image, *alias = rest.split()
            image = re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], image)
            if image not in names:
                assert re.fullmatch(r"[\w./-]+:\w*\d+\.\d+[\w.-]*", image), image
                assert image in PAGE or path.suffix == ".x86"
            names.update(alias[1:])
        assert len(stages(path)) >= 2

    def test_what_is_copied_exists_and_is_enough_to_install(self, path):
        copied = set()
        ignored = (ROOT / ".dockerignore").read_text().splitlines()
        for name, rest in instructions(path):
            if name == "COPY" and "--from" not in rest:
                for source in (word for word in rest.split()[:-1] if not word.startswith("--")):
                    assert (ROOT / source).exists(), source
                    parts = source.rstrip("/").split("/")
                    allowed = ["!" + "/".join(parts[: n + 1]) + end for n in range(len(parts)) for end in ("", "/")]
                    assert set(allowed) & set(ignored), f".dockerignore hides {source}"
                    copied.add(source.rstrip("/"))
        assert set(PACKAGE_DIRS) | {"pyproject.toml", PROJECT["readme"]} <= copied
        assert {file.split("/")[0] for file in PROJECT["license-files"]} <= copied

    def test_the_extras_and_the_constraints_are_ours(self, path):
        (install,) = [rest for name, rest in instructions(path) if name == "RUN" and "pip install" in rest]
        (extra,) = re.findall(r"'\.\[([\w-]+)\]'", install)
        assert extra in EXTRAS
        assert any(f"constraints-{path.suffix[1:]}.txt constraints.txt" in rest for _, rest in instructions(path))
        assert any(f"lock-{path.suffix[1:]}.txt lock.txt" in rest for _, rest in instructions(path))
        assert "--require-hashes" in install.partition(" -c ")[0]
        for other in install.rpartition("'")[2].split():
            assert other in REQUIRED

    def test_the_last_stage_runs_our_commands_and_not_as_root(self, path):
        last = dict(stages(path)[-1])
        assert last["USER"] == "10001"
        accepts([*json.loads(last["ENTRYPOINT"]), *json.loads(last["CMD"])])
        assert re.search(r" KANOCLIP_HEALTH=127\.0\.0\.1:\d+ ", last["ENV"])
        health = last["HEALTHCHECK"]
        assert json.loads(health[health.index("CMD") + 3 :]) == ["kanoclip-healthy"]
        assert any(
            name == "COPY" and rest.endswith(" /usr/local/bin/kanoclip-healthy") for name, rest in stages(path)[-1]
        )


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.suffix)
def test_h264_has_its_parser_in_every_image(path):
    """`h264parse` is one of the bad plugins; without it the encoder's trial fails, and videos are MPEG-4."""
    (installed,) = [rest for name, rest in stages(path)[-1] if name == "RUN" and "gstreamer1.0-tools" in rest]
    assert "gstreamer1.0-plugins-bad" in installed.split()
    assert "gstreamer1.0-plugins-bad" in PAGE


def test_the_unit_makes_the_gpus_nodes_first():
    """On a PC without a display nothing else does: the first start after a boot would find no GPU."""
    assert "\nExecStartPre=+-/usr/bin/nvidia-modprobe -c0 -u\n" in UNIT.read_text()


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("lock-*.txt")), ids=lambda path: path.stem)
def test_every_package_of_an_image_is_there_with_hashes(path):
    """Of what the project needs and what the constraints pin; TensorRT alone comes from NVIDIA's own index."""
    packages = re.split(r"^(?=[a-z0-9])", path.read_text(), flags=re.MULTILINE)[1:]
    pinned = dict(re.match(r"([\w.-]+)==([\w.]+)", package).groups() for package in packages)
    assert all("--hash=sha256:" in package for package in packages)
    constraints = (DEPLOY / path.name.replace("lock", "constraints")).read_text().splitlines()
    for name, version in (line.split("==") for line in constraints if line and not line.startswith("#")):
        assert name.startswith("tensorrt") or pinned[name] == version
    core = {re.match(r"[\w.-]+", one)[0].lower() for one in PROJECT["dependencies"] if "python_version" not in one}
    assert core <= set(pinned)


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("constraints-*.txt")), ids=lambda path: path.stem)
def test_constraints_are_versions_that_the_project_allows_and_the_page_names(path):
    pins = [Requirement(line) for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert pins
    for pin in pins:
        ((operator, version),) = [(part.operator, part.version) for part in pin.specifier]
        assert operator == "=="
        assert any(allowed.contains(version) for allowed in REQUIRED[pin.name]), pin
        assert re.search(rf"\b{re.escape(version)}\b", PAGE), pin


def tables():
    """The page's tables: (header, rows), cells without back quotes."""
    for block in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE):
        header, _, *rows = ([cell.strip(" `") for cell in line.strip("|").split("|")] for line in block.splitlines())
        yield header, rows


def test_the_tables_name_only_versions_that_the_project_allows():
    names = {"onnxruntime", "onnxruntime-gpu", "cuda-python", "TensorRT"}
    checked = 0
    for header, rows in tables():
        for row in rows:
            assert len(row) == len(header), row
            for title, cell in zip(header, row, strict=True):
                if title not in names | {"Python"}:
                    continue
                python = [SpecifierSet(PROJECT["requires-python"])]
                allowed = python if title == "Python" else REQUIRED[title.lower()]
                versions = re.findall(r"\d+\.\d+[.\w]*", cell)
                assert versions, (title, cell)
                for version in versions:
                    assert any(one.contains(version) for one in allowed), (title, version)
                    checked += 1
    assert checked > 30


def commands_of_the_pages():
    """Our own command lines in the pages' code blocks, continued lines joined and comments cut."""
    for block in re.findall(r"```sh\n(.*?)```", PAGE + SERVICE_PAGE, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:3] == ["sudo", "-u", "kanoclip"]:
                words = [words[3].removeprefix("/opt/kanoclip/bin/"), *words[4:]]
            if words and words[0].startswith("kanoclip-"):
                yield words
            elif "kanoclip:jetpack6" in words and words[1] == "run":
                program = words[words.index("--entrypoint") + 1] if "--entrypoint" in words else "kanoclip-run"
                yield [program, *words[words.index("kanoclip:jetpack6") + 1 :]]


def test_the_pages_commands_are_accepted():
    commands = list(commands_of_the_pages())
    assert len(commands) >= 10
    for command in commands:
        accepts(command)


def test_the_pages_files_and_links_exist():
    for name in re.findall(r"docs/deploy/[\w.-]+\w", PAGE + SERVICE_PAGE):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"tests/[\w/.]+\w", PAGE + SERVICE_PAGE):
        assert (ROOT / name).exists(), name
    for page in (PAGE, SERVICE_PAGE):
        for name, _, anchor in (link.partition("#") for link in re.findall(r"\]\(([^)]+)\)", page)):
            if "://" in name:
                continue
            target = (ROOT / "docs" / name).read_text() if name else page
            headings = [
                re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()) for line in target.splitlines() if line[:1] == "#"
            ]
            assert not anchor or anchor in [heading.replace(" ", "-") for heading in headings], (name, anchor)
    assert "docs/jetson.md" in (ROOT / "README.md").read_text()


def unit():
    """{section: [(key, value)]}; keys may repeat."""
    found, section = {}, ""
    for line in UNIT.read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
            found[section] = []
        elif line and not line.startswith("#"):
            key, separator, value = line.partition("=")
            assert separator and re.fullmatch(r"[A-Z]\w+", key), line
            found[section].append((key, value))
    return found


def defaults(text):
    """{name: value} as systemd reads an EnvironmentFile; quotes inside of a value stay."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def started_with(environment):
    """The command line that systemd makes of ExecStart: ${NAME} is one word, $NAME is as many as it has, by quotes."""
    service = unit()["Service"]
    ((_, line),) = [pair for pair in service if pair[0] == "ExecStart"]
    values = {}
    for key, value in service:
        if key == "Environment":
            values.update(word.split("=", 1) for word in shlex.split(value))
    values |= environment
    words = []
    for word in line.split():
        whole = re.fullmatch(r"\$\{(\w+)\}", word)
        split = re.fullmatch(r"\$(\w+)", word)
        words += [values[whole[1]]] if whole else shlex.split(values[split[1]]) if split else [word]
    assert Path(words[0]).parent == Path("/opt/kanoclip/bin")
    return [Path(words[0]).name, *words[1:]]


def test_the_unit_starts_a_command_that_exists_with_flags_that_it_takes():
    accepts(started_with({}))
    accepts(started_with({"KANOCLIP_OPTIONS": "--class object --threshold 0.6 --backend auto"}))
    command = started_with({})
    assert command[command.index("--config") + 1] == "/etc/kanoclip/line.toml"


def test_the_defaults_are_accepted_and_so_is_each_of_their_alternatives():
    text = DEFAULTS.read_text()
    assert {"KANOCLIP_OPTIONS"} == defaults(text).keys()
    accepts(started_with(defaults(text)))
    others = [value for name, value in re.findall(r"^#(\w+)=(.+)$", text, re.MULTILINE) if name == "KANOCLIP_OPTIONS"]
    assert len(others) >= 2
    for value in others:
        accepts(started_with({"KANOCLIP_OPTIONS": value}))
    assert "gst://v4l2src device=/dev/video0 ! image/jpeg,width=1920,height=1080 ! jpegdec" in started_with(
        next({"KANOCLIP_OPTIONS": value} for value in others if "gst://" in value)
    )


def alternatives(text):
    """The file with each key in comments in its place, alone; and with each table in comments as a whole."""
    blocks = text.split("\n\n")
    for number, block in enumerate(blocks):
        lines = block.splitlines()
        if lines[0].startswith("#["):
            kinds = [re.sub("^#", "", block, flags=re.MULTILINE)]
        else:
            found = [(n, line) for n, line in enumerate(lines) if re.match(r"#\w+ = ", line)]
            # An address stands for the one that is there.
            kinds = [
                "\n".join(
                    [*(one for one in lines[:n] if not (line[1:4] in ("cam", "url") and one[:3] == "cam")), line[1:]]
                )
                for n, line in found
            ]
        yield from ("\n\n".join([*blocks[:number], kind, *blocks[number + 1 :]]) for kind in kinds)


def test_the_line_s_file_is_accepted_and_so_is_each_of_its_alternatives(tmp_path):
    (tmp_path / "belt.json").write_text('{"units": "relative", "keep": [[[0, 0], [1, 0], [1, 1]]]}')
    line = read_line(LINE)
    assert line.sources[0].camera == "/dev/video0" and len(line.sinks) == 2
    texts = list(alternatives(LINE.read_text()))
    assert len(texts) >= 18
    for number, text in enumerate(texts):
        path = tmp_path / f"{number}.toml"
        path.write_text(text)
        read_settings(path)
        assert replace(read_line(path), path=line.path) != line or "[decision]" in text


def test_the_page_s_example_and_its_table_of_keys_are_right(tmp_path):
    (example,) = re.findall(r"```toml\n(.*?)```", SERVICE_PAGE, re.DOTALL)
    path = tmp_path / "line.toml"
    path.write_text(example)
    assert len(read_line(path).sinks) == 1
    rows = re.findall(r"^\|(?: `\[.*?)? \| (.*) \|$", SERVICE_PAGE, re.MULTILINE)
    named = {key for cell in rows for key in re.findall(r"`(\w+)`", cell)}
    assert named == {one.key for group in GROUPS for one in options_of(group).values()} | set(SINKS)


def test_the_unit_speaks_with_systemd():
    service = dict(unit()["Service"])
    assert (service["Type"], service["NotifyAccess"]) == ("notify", "main")
    assert int(service["WatchdogSec"]) >= 2 * STUCK_S and service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert int(service["TimeoutStopSec"]) > SINK_GRACE_S + SOURCE_GRACE_S + 5
    assert any(key == "Environment" and "PYTHONFAULTHANDLER=1" in value for key, value in unit()["Service"])


def test_the_unit_restarts_writes_only_where_it_may_and_keeps_the_gpu():
    service = dict(unit()["Service"])
    assert service["Restart"] == "always" and service["RestartPreventExitStatus"] == "2"
    assert service["ProtectSystem"] == "strict" and service["StateDirectory"] == service["CacheDirectory"] == "kanoclip"
    assert service["SupplementaryGroups"] == "video render"
    assert "MemoryMax" in service and service["CapabilityBoundingSet"] == ""
    # Each of these hides the GPU or the camera service's socket.
    assert not {"DynamicUser", "PrivateTmp", "PrivateDevices", "DeviceAllow", "ProtectClock"} & service.keys()
    assert "/home" not in UNIT.read_text() and "/work" not in UNIT.read_text()


@pytest.mark.programs("systemd-analyze")
def test_systemd_accepts_the_unit(tmp_path):
    # It looks for the program, so give it one that is here.
    program = sys.executable
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/kanoclip/bin/kanoclip-run", program))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, timeout=60
    )
    known = ("Unknown key 'RestartSteps'", "Unknown key 'RestartMaxDelaySec'", "Unknown key name 'RestartSteps'")
    known += ("Unknown key name 'RestartMaxDelaySec'",)  # of systemd 254; older ones ignore them
    lines = [line for line in done.stderr.splitlines() if UNIT.name in line and not any(k in line for k in known)]
    if "Failed to connect" in done.stderr or "Failed to initialize" in done.stderr:
        pytest.skip("systemd-analyze does not work here")
    assert (done.returncode, lines) == (0, [])


def test_healthy_is_who_says_so(tmp_path):
    script = str(DEPLOY / "healthcheck.sh")

    def check(address, *arguments):
        environment = {"PATH": os.environ["PATH"], **({"KANOCLIP_HEALTH": address} if address else {})}
        return subprocess.run(["sh", script, *arguments], env=environment, capture_output=True, text=True, timeout=30)

    with serve_health(Health(), ("127.0.0.1", 0)) as (host, port):
        done = check(f"{host}:{port}")
        assert (done.returncode, json.loads(done.stdout)["status"]) == (0, "alive")
        assert check(f"0.0.0.0:{port}", "healthz").returncode == 0
        done = check(f"{host}:{port}", "readyz")
        assert (done.returncode, json.loads(done.stdout)["reasons"]) == (1, ["the engine is being loaded"])
    assert check(f"{host}:{port}").returncode == 1
    assert check("nonsense").returncode == 1
    unset = check(None)
    assert unset.returncode != 0 and "KANOCLIP_HEALTH" in unset.stderr
