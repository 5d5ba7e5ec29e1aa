"""What `kanoclip-export` prints for a person, on standard error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from kanoclip.runtime.bundle.manifest.schema import Manifest
from kanoclip.runtime.cli.terminal.console import Console

if TYPE_CHECKING:
    from kanoclip.train.weights.listing import Listed


def print_summary(console: Console, output: Path, manifest: Manifest) -> None:
    """Prints what was written, what it costs in accuracy, and how well its engines are built."""
    parity: Any = manifest.parity
    tiles = manifest.tiles
    size = sum(entry.size for entry in manifest.files.values())
    console.print(
        f"wrote {output} ({manifest.model.backbone}, {manifest.precision}, {size / 1e6:.1f} MB, "
        f"classes: {', '.join(manifest.classes)}{'' if tiles is None else f', tiles: {tiles.title}'})",
        highlight=False,
        markup=False,
    )
    console.print(
        f"weights: {manifest.model.weights}; licence: {manifest.model.licence or 'none'}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    console.print(
        f"parity with torch on {parity['pictures']} {'images' if tiles is None else 'tiles'}: "
        f"map {parity['map_drift']:.1e}, score {parity['score_drift']:.1e}; "
        f"{parity['attention_blocks']} fusable attention blocks",
        highlight=False,
    )
    _print_accuracy(console, parity)
    for engine in manifest.engines:
        fused = parity["fused_attention"].get(Path(engine.file).name)
        counted = f"{fused} of {parity['attention_blocks']} attention blocks fused"
        console.print(
            f"engine {engine.file} for {engine.device or ', '.join(engine.compute_capabilities)}: "
            + (counted if fused is not None else "kanoclip-doctor compares it with the graph"),
            highlight=False,
            style="yellow" if fused is not None and fused < parity["attention_blocks"] else None,
        )
    thresholds = manifest.thresholds
    console.print(f"thresholds: {thresholds.origin}", highlight=False, markup=False)
    if not thresholds.of_the_part:
        console.print(
            f"next: good images of your part set them: kanoclip-learn {output} --source good/",
            highlight=False,
            markup=False,
        )
    if not manifest.model.trained:
        console.print(
            "warning: UNTRAINED: the weights are "
            + ("seeded random numbers" if manifest.model.weights.startswith("seeded") else "CLIP's, the head untrained")
            + ". Maps and scores of this bundle mean nothing.",
            style="yellow",
            highlight=False,
        )


def print_backbones(console: Console, backbones: Sequence[Listed], unsuited: Mapping[str, str]) -> None:
    """Prints `--list-backbones`: a line each, and below them what is refused.

    Args:
        console: A wide one: a name that is cut off could not be given to --backbone.
        backbones: The lines.
        unsuited: Towers that are refused, with the reason.
    """
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("backbone", no_wrap=True)
    for heading in ("px", "image M", "text M", "GFLOPs"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("licence", "weights", "about"):
        table.add_column(heading, no_wrap=True)
    for one in backbones:
        table.add_row(
            one.name,
            str(one.size),
            f"{one.image_weights / 1e6:.1f}",
            f"{one.text_weights / 1e6:.1f}",
            f"{one.flops / 1e9:.1f}",
            f"{one.licence}, research only" if one.research_only else one.licence,
            one.weights,
            one.about.partition(";")[0],
        )
    console.print(table)
    console.print(
        "image M, text M: millions of weights, of which the image tower's ship; GFLOPs: the image tower's, one image.",
        highlight=False,
        soft_wrap=True,
    )
    for name, reason in unsuited.items():
        console.print(f"not supported: {name}: {reason}", highlight=False, markup=False, soft_wrap=True)


def _print_accuracy(console: Console, parity: Any) -> None:
    """What the precision costs: AUROC where labels are known; and what a quantised graph left alone."""
    if parity["auroc_torch"] is not None:
        console.print(
            f"image AUROC on these: {parity['auroc_torch']:.3f} in torch, {parity['auroc_graph']:.3f} in the graph",
            highlight=False,
        )
    if (choice := parity["quantisation"]) is not None:
        stages = choice["stages"]
        stem = f"the first {choice['stages_unquantised']} of {stages} stages of the stem and " if stages else ""
        console.print(
            f"{choice['layers']} layers quantised, {stem}the first {choice['blocks_unquantised']} of "
            f"{choice['blocks']} blocks left alone: map {choice['map_drift']:.1e} from the plain one on "
            f"{choice['pictures']} calibration images (target {choice['target']:.0e})",
            highlight=False,
            style="yellow" if choice["map_drift"] > choice["target"] else None,
        )
