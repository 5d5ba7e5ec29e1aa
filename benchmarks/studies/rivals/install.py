"""Bytes that an installation takes: the runtime with OpenVINO against anomalib, each in a fresh environment.

    python -m kanoclip.benchmarks.studies.rivals.install --output rivals-install.json

It downloads some gigabytes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from time import perf_counter

import click

from kanoclip.benchmarks.studies.results import write_result

ROOT = Path(__file__).resolve().parents[3]
CASES = {
    "KAnoCLIP runtime": (f"{ROOT}[cpu]",),
    "KAnoCLIP runtime with OpenVINO": (f"{ROOT}[cpu,openvino]",),
    "anomalib": ("anomalib",),
    "anomalib with OpenVINO": ("anomalib", "openvino"),
}


def installed(requirements: tuple[str, ...], folder: Path) -> tuple[int, float]:
    """Bytes of a fresh environment less those of an empty one, and the seconds that pip took."""
    venv.create(folder, with_pip=True)
    empty = _bytes(folder)
    began = perf_counter()
    subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", *requirements], check=True)
    return _bytes(folder) - empty, perf_counter() - began


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(CASES)), help="Not all of them; repeatable.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the figures.")
def main(only: tuple[str, ...], output: Path | None) -> None:
    """Install each into an environment of its own and count."""
    rows = {}
    for title in only or CASES:
        with tempfile.TemporaryDirectory(prefix="kanoclip-install-") as scratch:
            size, seconds = installed(CASES[title], Path(scratch, "venv"))
        rows[title] = {"bytes": size, "seconds": seconds}
        click.echo(f"{title}: {size / 1e9:.2f} GB in {seconds:.0f} s")
    if output is not None:
        write_result(output, {"python": sys.version.split()[0], "rows": rows})


if __name__ == "__main__":
    main()
