"""A stem ready for use: the published trunk, and the statistics that its tokens and descriptors are standardised by.

python -m kanoclip.train.nano.stem_statistics --trunk lite1.safetensors --photos DIR --output stem.safetensors
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from kanoclip.runtime.errors import KanoclipError, TrainingError
from kanoclip.runtime.system.paths import replace_file
from kanoclip.train.backbones import get_backbone, seeded_clip
from kanoclip.train.model.stem.stem import PATCH, SCALE, SHIFT, ConvStem
from kanoclip.train.nano.scenes.photos import Photos
from kanoclip.train.nano.scenes.scene import Recipe, generate

IMAGES = 1000
"""Generated images and photographs, half each, that the statistics are taken from."""
_BATCH = 25
_FLOOR = 1e-3
"""Added to each deviation: a channel that never moves must not be divided by nothing."""


def trunk_pixels(frames: npt.NDArray[np.uint8]) -> Tensor:
    """Frames as the camera gives them, uint8 [B, H, W, 3] in BGR -> (RGB - 127) / 128, float32 [B, 3, H, W]."""
    rgb = torch.from_numpy(np.ascontiguousarray(frames[..., ::-1].transpose(0, 3, 1, 2)))
    return (rgb.float() - SHIFT) / SCALE


def new_stem(backbone: str = "nano") -> ConvStem:
    """The stem of a backbone with first values.

    Raises:
        TrainingError: The backbone has none.
    """
    stem = seeded_clip(get_backbone(backbone)).visual.conv1
    if not isinstance(stem, ConvStem):
        raise TrainingError(f"{backbone} has no convolutional stem: nano has one")
    return stem


def load_stem(path: Path) -> ConvStem:
    """A stem from what `main` wrote: trunk and statistics; its projection has first values.

    Raises:
        TrainingError: The file is missing, cut, or of another variant.
    """
    stem = new_stem()
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path} is no stem ({error}): python -m kanoclip.train.nano.make makes it") from error
    wanted = {name: value for name, value in stem.state_dict().items() if not name.startswith("token_project.")}
    wrong = sorted(set(tensors) ^ set(wanted))
    wrong += [name for name in wanted if name in tensors and tensors[name].shape != wanted[name].shape]
    if wrong:
        raise TrainingError(f"{path} is a stem of another variant ({wrong[0]}): remove it, and it is made again")
    stem.load_state_dict({**stem.state_dict(), **tensors})
    return stem.eval()


@torch.inference_mode()
def set_statistics(stem: ConvStem, photos: Photos | None, seed: int, images: int = IMAGES) -> None:
    """Measures what a stem's stages hold on generated images and photographs, and writes it into the stem.

    Tokens: mean and deviation of each channel. Descriptors: the same, and the directions of the coarse stage that
    hold most of its variance, as many as the descriptor has room for.
    """
    sums: list[Tensor] = []
    coarse: list[Tensor] = []
    fine: list[Tensor] = []
    recipe = Recipe(size=PATCH * stem.grid[0])
    for start in range(0, images, _BATCH):
        frames = [generate(recipe, seed, i, photos).image for i in range(start, min(start + _BATCH, images))]
        features = stem.read_scaled(trunk_pixels(np.stack(frames)))
        sums.append(_moments(stem.gather(features).flatten(0, 1)))
        fine.append(torch.cat([_moments(_rows(part)) for part in (features.fine, features.middle)], dim=1))
        coarse.append(_rows(features.coarse))
    mean, std = _spread(torch.stack(sums).mean(0))
    stem.mean.copy_(mean)
    stem.std.copy_(std)
    rows = torch.cat(coarse)
    deep_mean, deep_std = rows.mean(0), rows.std(0) + _FLOOR
    shallow_mean, shallow_std = _spread(torch.stack(fine).mean(0))
    stem.descriptor_mean.copy_(torch.cat([shallow_mean, deep_mean]))
    stem.descriptor_std.copy_(torch.cat([shallow_std, deep_std]))
    standardised = (rows - deep_mean) / deep_std
    _, vectors = torch.linalg.eigh(standardised.T @ standardised)  # in rising order of variance
    stem.descriptor_basis.copy_(vectors.flip(1)[:, : stem.descriptor_basis.shape[0]].T)


def _rows(part: Tensor) -> Tensor:
    """[B, C, H, W] -> [B H W, C]."""
    return part.permute(0, 2, 3, 1).flatten(0, 2)


def _moments(rows: Tensor) -> Tensor:
    """Mean and mean square of each channel, float64 [2, C]."""
    return torch.stack([rows.double().mean(0), rows.double().square().mean(0)])


def _spread(moments: Tensor) -> tuple[Tensor, Tensor]:
    mean, square = moments
    return mean.float(), ((square - mean.square()).clamp(min=0).sqrt() + _FLOOR).float()


@click.command()
@click.option("--trunk", type=click.Path(path_type=Path), required=True, help="What stem_weights wrote.")
@click.option("--photos", type=click.Path(path_type=Path), help="Folder of photographs.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Stem to write (.safetensors).")
@click.option("--seed", default=500, show_default=True)
@click.option("--images", default=IMAGES, show_default=True)
def main(trunk: Path, photos: Path | None, output: Path, seed: int, images: int) -> None:
    """Measure the statistics of a stem and write it whole."""
    try:
        stem = new_stem()
        try:
            stem.trunk.load_state_dict(load_file(trunk))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise TrainingError(
                f"{trunk} is no trunk of this variant: kanoclip.train.nano.stem_weights makes it"
            ) from error
        set_statistics(stem, Photos.from_folder(photos) if photos is not None else None, seed, images)
    except KanoclipError as error:
        raise click.ClickException(str(error)) from error
    saved = {name: value for name, value in stem.state_dict().items() if not name.startswith("token_project.")}
    replace_file(output, save({name: value.contiguous() for name, value in saved.items()}))
    click.echo(f"{output}: statistics of {images} images")


if __name__ == "__main__":
    main()
