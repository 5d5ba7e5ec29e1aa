"""A contact sheet of generated images, masks outlined: `python -m kanoclip.train.nano.scenes.sheet --output FILE`."""

from __future__ import annotations

from pathlib import Path

import click
import cv2
import numpy as np

from kanoclip.runtime.system.paths import replace_file
from kanoclip.runtime.types import Image
from kanoclip.train.nano.scenes.scene import Recipe, Scene, generate

_TILE = 150
_LINE = 16


def tile(scene: Scene) -> Image:
    """An image with the outline of its mask, its subject and defect below."""
    image = scene.image.copy()
    outlines, _ = cv2.findContours(scene.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, outlines, -1, (60, 60, 255), 1)
    canvas = np.full((_TILE + _LINE, _TILE, 3), 250, np.uint8)
    canvas[:_TILE] = cv2.resize(image, (_TILE, _TILE), interpolation=cv2.INTER_AREA)
    text = f"{scene.subject}: {scene.defect}"
    cv2.putText(canvas, text, (3, _TILE + 12), cv2.FONT_HERSHEY_SIMPLEX, 0.33, (40, 40, 40), 1, cv2.LINE_AA)
    return canvas


def sheet(recipe: Recipe, seed: int, rows: int, columns: int) -> Image:
    """The first rows x columns images of a recipe and a seed: uint8 [H, W, 3]."""
    tiles = [tile(generate(recipe, seed, index)) for index in range(rows * columns)]
    return np.vstack([np.hstack(tiles[row * columns : (row + 1) * columns]) for row in range(rows)])


@click.command()
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Image to write (.jpg, .png).")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--rows", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--columns", type=click.IntRange(min=1), default=10, show_default=True)
def main(output: Path, seed: int, rows: int, columns: int) -> None:
    """Draw the first images of a seed, for a person to look at."""
    _, content = cv2.imencode(output.suffix, sheet(Recipe(), seed, rows, columns), [cv2.IMWRITE_JPEG_QUALITY, 82])
    replace_file(output, content.tobytes())


if __name__ == "__main__":
    main()
