"""TensorRT-RTX engines of every precision for every generation of GPU, built ahead of time on a machine without one.

    python -m kanoclip.benchmarks.studies.graphs.engines --output engines-nano.json
    python -m kanoclip.benchmarks.studies.graphs.engines --backbone vit-l-14-336 --output engines-vit-l.json

Each export is the installed command in a process of its own, parity gate included. Weights of the packaged model, or
seeded ones, which decide nothing about how a graph is built.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from kanoclip.benchmarks.studies.graphs.vit_l import measured
from kanoclip.benchmarks.studies.results import write_result
from kanoclip.benchmarks.studies.streams.run_overhead import example_photographs
from kanoclip.export.checks import QUANTISED
from kanoclip.export.engine import TURING

AMPERE_ON = ("8.0", "8.6", "8.9", "12.0")
TARGETS = {
    "fp32": AMPERE_ON,
    "fp16": (TURING, *AMPERE_ON),
    "bf16": AMPERE_ON,
    "int8": AMPERE_ON,
    "fp8": ("8.9", "12.0"),
}


def build(backbone: str, precision: str, folder: Path) -> list[dict[str, Any]]:
    """Exports one precision with its engines; a row for each engine."""
    bundle = folder / f"{precision}.kanoclip"
    command = [sys.executable, "-m", "kanoclip.runtime.cli.main", "export", f"--{precision}", "--output", str(bundle)]
    command += ["--json", "--engine", "tensorrt-rtx", "--compute-capability", ",".join(TARGETS[precision])]
    good = example_photographs()[-1].parent
    if backbone != "nano":
        # On good images only: which of a few images random weights like more is no matter of precision.
        command += ["--backbone", backbone, "--weights", "none", "--parity-images", str(good), "--parity-limit", "2"]
    if precision in QUANTISED:
        command += ["--calibration-images", str(good)]
    printed, cost = measured(command)
    manifest = json.loads(printed)
    return [
        {
            "precision": precision,
            "compute_capabilities": engine["compute_capabilities"],
            "engine_mb": manifest["files"][engine["file"]]["size"] / 1e6,
            "attention_blocks": manifest["parity"]["attention_blocks"],
            "fused": manifest["parity"]["fused_attention"][Path(engine["file"]).name],
            "map_drift": manifest["parity"]["map_drift"],
            "quantisation": manifest["parity"]["quantisation"],
            "export": cost,
        }
        for engine in manifest["engines"]
    ]


@click.command()
@click.option("--backbone", default="nano", show_default=True)
@click.option("--precision", "precisions", multiple=True, type=click.Choice(list(TARGETS)), help="Repeatable. All.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(backbone: str, precisions: tuple[str, ...], output: Path | None) -> None:
    """Build and count."""
    rows: list[dict[str, Any]] = []
    for precision in precisions or tuple(TARGETS):
        with tempfile.TemporaryDirectory() as folder:  # one at a time: a large model's engines take gigabytes
            rows += build(backbone, precision, Path(folder))
        click.echo("\n".join(json.dumps(row) for row in rows if row["precision"] == precision))
        if output is not None:  # after each one: a large model takes long
            write_result(output, {"backbone": backbone, "engines": rows})


if __name__ == "__main__":
    main()
