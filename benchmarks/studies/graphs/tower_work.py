"""Where the products of a model go, beside those of its image tower as its maker runs it.

python -m kanoclip.benchmarks.studies.graphs.tower_work siglip2-b-16 pe-core-t-16-384
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

import click
import torch
from torch.utils.flop_counter import FlopCounterMode

from kanoclip.runtime.errors import CheckpointError, KanoclipError
from kanoclip.train.backbones import empty_clip, get_backbone
from kanoclip.train.model.kanoclip import KAnoCLIP, ModelConfig
from kanoclip.train.model.layers import attention, split_heads
from kanoclip.train.model.towers.clip_vv import STAGES


@dataclass(frozen=True)
class TowerWork:
    """Operations of one image in products and convolutions, multiply and add counted as two.

    Attributes:
        plain: The image tower as its maker runs it.
        original: The original path, its global feature included.
        vv_attention: V-V attention of all blocks of the local-aware path.
        vv_projection: Their `Project_l` (eq. 8).
        pooling: The pooling head's answer to every patch of the four stages; 0 in a tower with a class token.
        joint: The projection of the four stages into the joint space.
        head: Bi-CMCI, Conv-Adapter, map and score.
    """

    plain: int
    original: int
    vv_attention: int
    vv_projection: int
    pooling: int
    joint: int
    head: int

    @property
    def ratio(self) -> float:
        """The whole model against the plain tower."""
        return sum(astuple(self)[1:]) / self.plain


def tower_work(name: str) -> TowerWork:
    """Counts a backbone of the registry at its native size, on tensors without values.

    Raises:
        CheckpointError: There is no such backbone, or it has a stem.
    """
    backbone = get_backbone(name)
    if backbone.packaged is not None:
        raise CheckpointError(f"{name} has a stem, which its maker's tower knows nothing of: see graphs.flops")
    with torch.device("meta"):
        clip = empty_clip(backbone).requires_grad_(False)
        model = KAnoCLIP(clip, ModelConfig(name, backbone.native_size)).requires_grad_(False)
        tower, head = model.tower, model.head
        pixels = torch.zeros(1, 3, *backbone.native_size)
        text = torch.zeros(1, 2, tower.joint_width)
        plain = _count(lambda: clip.visual(pixels))
        whole = _count(lambda: model(pixels, text))
        features = tower(pixels)
        cells = tower.grid[0] * tower.grid[1]
        in_head = _count(lambda: head(features, text, head.text_states(text)))
        blocks = [*tower.blocks, *([tower.final] if tower.final is not None else [])][tower.vv_start - 1 :]
        v = split_heads(torch.zeros(1, tower.prefix + cells, tower.width), blocks[0].heads)
        attended = len(blocks) * _count(lambda: attention(v, v, v))
        projected = len(blocks) * _count(lambda: blocks[0].project(v))
        patches = torch.zeros(1, cells, tower.width)
        pool = tower.pool
        alone = 0 if pool is None else STAGES * _count(lambda: pool.each(patches))
        joint = STAGES * _count(lambda: tower.project(patches)) - alone
    rest = whole - in_head - attended - projected - alone - joint
    return TowerWork(plain, rest, attended, projected, alone, joint, in_head)


def markdown(found: Sequence[tuple[str, TowerWork]]) -> list[str]:
    """A table of the parts, each a share of the plain tower."""
    names = [field.name for field in fields(TowerWork)][1:]
    lines = ["| backbone | " + " | ".join(names) + " | whole |", "|---|" + "---|" * (len(names) + 1)]
    for name, work in found:
        shares = [f"{part / work.plain:.3f}" for part in astuple(work)[1:]]
        lines.append(f"| `{name}` | " + " | ".join(shares) + f" | {work.ratio:.2f} |")
    return lines


def _count(run: Callable[[], Any]) -> int:
    chatter = logging.getLogger("torch.utils.flop_counter")
    chatter.setLevel(logging.ERROR)
    counter = FlopCounterMode(display=False)
    with counter:
        run()
    return int(counter.get_total_flops())


@click.command()
@click.argument("names", nargs=-1, required=True)
def main(names: tuple[str, ...]) -> None:
    """Count the products of the backbones NAMES."""
    try:
        found = [(name, tower_work(name)) for name in names]
    except KanoclipError as error:
        raise click.UsageError(str(error)) from error
    click.echo("\n".join(markdown(found)))


if __name__ == "__main__":
    main()
