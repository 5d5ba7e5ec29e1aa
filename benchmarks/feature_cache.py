"""How much faster the epochs are that find the tower's features in the cache.

python -m kanoclip.benchmarks.feature_cache --backbone vit-l-14-336
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from kanoclip.benchmarks.results import write_result

EXAMPLES = Path(__file__).parents[1] / "examples" / "hazelnut_toy"


def train(arguments: list[str], output: Path) -> list[dict[str, Any]]:
    """Runs `kanoclip-train` and returns the records of its epochs."""
    command = [sys.executable, "-m", "kanoclip.runtime.cli.main", "train", *arguments, "--output", str(output)]
    subprocess.run(command, check=True)
    records: list[dict[str, Any]] = json.loads(output.with_suffix(".json").read_text())["training"]["epochs"]
    return records


@click.command()
@click.option("--backbone", default="vit-l-14-336", show_default=True, help="With seeded weights: speed is the same.")
@click.option("--root", type=click.Path(path_type=Path), default=EXAMPLES, help="MVTec tree. Default: the examples.")
@click.option("--epochs", type=click.IntRange(min=2), default=4, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the figures.")
def main(backbone: str, root: Path, epochs: int, output: Path | None) -> None:
    """Trains with an empty cache: the first epoch fills it, the others read it."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        arguments = ["--dataset", "mvtec", "--root", str(root), "--backbone", backbone, "--weights", "none"]
        arguments += ["--cache", str(folder / "cache"), "--epochs", str(epochs)]
        records = train(arguments, folder / "c.safetensors")
        stored = sum(path.stat().st_size for path in folder.glob("cache/*/*.npy"))
    later = [record["seconds"] for record in records[1:]]
    result = {
        "backbone": backbone,
        "pictures": records[0]["pictures"],
        "from_cache": [record["from_cache"] for record in records],
        "seconds": [record["seconds"] for record in records],
        "first_epoch_over_later_ones": [records[0]["seconds"] / seconds for seconds in later],
        "cache_bytes": stored,
    }
    click.echo(json.dumps(result, indent=2))
    if output is not None:
        write_result(output, result)


if __name__ == "__main__":
    main()
