"""What pip would install for each extra and each Python, as a table: bounds that contradict each other show here.

    python -m kanoclip.benchmarks.studies.extras --pyproject pyproject.toml --output docs/extras.md

Nothing is installed and no wheel is downloaded: `pip install --dry-run` resolves for another Python by the index's
metadata. TensorRT's own packages are stubs that fetch their wheels from NVIDIA's index: their bindings, which are
wheels, stand for them.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from packaging.markers import default_environment
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
STUBS = {
    "tensorrt-cu12": "tensorrt-cu12-bindings",
    "tensorrt-cu13": "tensorrt-cu13-bindings",
    "tensorrt-rtx": "tensorrt-rtx-cu13-bindings",
}
SHOWN = (
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    *STUBS.values(),
    "cuda-python",
    "nvidia-cudnn-cu12",
    "nvidia-cudnn-cu13",
    "torch",
    "onnx",
)
"""What a cell names with its version; the rest is counted."""
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Resolved:
    """What pip came to.

    Attributes:
        packages: Versions by name; empty where there is no solution.
        reason: pip's own last line then.
    """

    packages: dict[str, str]
    reason: str = ""

    def cell(self) -> str:
        """For a table."""
        if not self.packages:
            return f"**no**: {self.reason}"
        named = [f"{name} {self.packages[name]}" for name in SHOWN if name in self.packages]
        rest = len(self.packages) - len(named)
        return ", ".join([*named, f"{rest} more" if named else f"{rest} packages"])


def read_project(path: Path) -> dict[str, Any]:
    """The table `[project]` of a pyproject.toml."""
    project: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    return project


def requirements(project: dict[str, Any], extra: str, python: str) -> list[str]:
    """What an extra asks for on Linux on x86-64, the core's dependencies included; extras of the project's own opened.

    Args:
        project: Of `read_project`.
        extra: Its name.
        python: Such as `3.10`.
    """
    environment = {name: str(value) for name, value in default_environment().items()}
    environment |= {"python_version": python, "python_full_version": f"{python}.0"}
    environment |= {"platform_machine": "x86_64", "sys_platform": "linux", "platform_system": "Linux"}

    def opened(lines: Sequence[str]) -> Iterator[str]:
        for line in lines:
            wanted = Requirement(line)
            if wanted.marker is not None and not wanted.marker.evaluate(environment):
                continue
            if wanted.name == project["name"]:
                for name in sorted(wanted.extras):
                    yield from opened(project["optional-dependencies"][name])
                continue
            wanted.marker = None
            wanted.name = STUBS.get(wanted.name, wanted.name)
            yield str(wanted)

    return [*opened(project["dependencies"]), *opened(project["optional-dependencies"][extra])]


def resolve(wanted: Sequence[str], python: str) -> Resolved:
    """What pip would install of wheels alone into an empty folder, for another Python on a machine such as this one."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--dry-run",
            "--ignore-installed",
            "--quiet",
            "--report",
            "-",
        ]
        command += ["--python-version", python, "--only-binary=:all:", "--target", folder, "--no-cache-dir"]
        try:
            done = subprocess.run([*command, *wanted], capture_output=True, text=True, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return Resolved({}, f"pip did not come to an end within {TIMEOUT_S:.0f} s")
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or ["no reason given"]
        return Resolved({}, lines[-1].removeprefix("ERROR: "))
    found = [one["metadata"] for one in json.loads(done.stdout)["install"]]
    return Resolved({_normal(one["name"]): str(one["version"]) for one in found})


def table(found: dict[str, dict[str, Resolved]]) -> str:
    """Markdown: a heading for each extra, a line for each Python."""
    lines: list[str] = []
    for extra, by_python in found.items():
        lines += [f"## `{extra}`", "", "| Python | |", "|---|---|"]
        lines += [f"| {python} | {resolved.cell()} |" for python, resolved in by_python.items()]
        lines.append("")
    return "\n".join(lines)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@click.command()
@click.option("--pyproject", type=click.Path(path_type=Path), default=Path("pyproject.toml"), show_default=True)
@click.option("--extra", "extras", multiple=True, help="Repeatable. Default: all but `dev`.")
@click.option("--python", "pythons", multiple=True, default=PYTHONS, show_default=True, help="Repeatable.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="A Markdown file; what stands before the first ## stays."
)
def main(pyproject: Path, extras: tuple[str, ...], pythons: tuple[str, ...], output: Path | None) -> None:
    """Resolve and count; exit code 1 where an extra has no solution."""
    project = read_project(pyproject)
    found: dict[str, dict[str, Resolved]] = {}
    for extra in extras or [name for name in project["optional-dependencies"] if name != "dev"]:
        found[extra] = {python: resolve(requirements(project, extra, python), python) for python in pythons}
        click.echo(table({extra: found[extra]}))
        if output is not None:
            head = output.read_text(encoding="utf-8").partition("\n## ")[0].rstrip() if output.is_file() else "# Extras"
            output.write_text(f"{head}\n\n{table(found)}", encoding="utf-8")
    if any(not one.packages for by_python in found.values() for one in by_python.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
