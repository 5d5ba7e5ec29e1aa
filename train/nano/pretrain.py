"""Contrastive and dense pretraining of a small CLIP on generated pictures.

python -m kanoclip.train.nano.pretrain --output nano-clip.safetensors
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import Any

import click
import cv2
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset

from kanoclip.runtime.errors import TrainingError
from kanoclip.runtime.files import replace_file
from kanoclip.runtime.metrics import image_auroc
from kanoclip.train.backbones import get_backbone
from kanoclip.train.model.clip_vv import resize_positional_embedding
from kanoclip.train.nano.objective import Losses, PretrainConfig, Pretraining
from kanoclip.train.nano.optimizers import Optimizers, learning
from kanoclip.train.nano.photos import Photos
from kanoclip.train.nano.scene import Recipe, Scene, generate

_WINDOW = 20
"""Steps that a record sums up."""


class Pictures(Dataset[Scene]):
    """The generated pictures of a run, by number."""

    def __init__(self, recipe: Recipe, seed: int, length: int, photos: Photos | None = None) -> None:
        """The first `length` pictures of a recipe and seed."""
        self.recipe, self.seed, self.length, self.photos = recipe, seed, length, photos

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Scene:
        """Picture `index`."""
        cv2.setNumThreads(1)
        return generate(self.recipe, self.seed, index, self.photos)


def _collate(scenes: list[Scene]) -> tuple[Tensor, Tensor, list[str], list[str]]:
    frames = torch.stack([torch.from_numpy(scene.image) for scene in scenes])
    masks = torch.stack([torch.from_numpy(scene.mask) for scene in scenes]).to(torch.uint8)
    return frames, masks, [scene.words for scene in scenes], [scene.caption for scene in scenes]


def _rate(step: int, config: PretrainConfig) -> float:
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    falling = config.decay * config.steps
    return min(1.0, (config.steps - step) / falling) if falling > 0 else 1.0


class _Window:
    """Sums of some steps, and how well their pictures were told apart."""

    def __init__(self) -> None:
        self.count, self.started = 0, monotonic()
        self.sums: dict[str, float] = {}
        self.scores: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, losses: Losses) -> None:
        for name, value in {"loss": losses.total, **losses.parts}.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())
        self.scores.append((losses.cells.cpu(), losses.verdicts.cpu(), losses.target.cpu()))
        self.count += 1

    def record(self, step: int) -> dict[str, Any]:
        cells, verdicts, target = (torch.cat(part).numpy() for part in zip(*self.scores, strict=True))
        return {
            "step": step,
            **{name: round(value / self.count, 4) for name, value in self.sums.items()},
            "image_auroc": round(image_auroc(target.any((1, 2)), verdicts), 4),
            "cell_auroc": round(image_auroc(target.ravel() > 0, cells.ravel()), 4),
            "pictures_per_second": round(len(cells) / (monotonic() - self.started), 1),
        }


def pretrain(
    config: PretrainConfig,
    output: Path,
    *,
    initial: Path | None = None,
    photos: Photos | None = None,
    workers: int = 1,
    save_minutes: float = 5.0,
    compiled: bool = False,
) -> Iterator[dict[str, Any]]:
    """Trains, going on from OUTPUT's state where there is one; yields a record every 20 steps.

    Args:
        config: Of the run.
        output: Weights to write at the end, `.safetensors`, with the names of open_clip.
        initial: Weights of an earlier run to begin with, those of `config.initial`.
        photos: Where `config.photos`.
        workers: Processes that draw pictures.
        save_minutes: Between saved states.
        compiled: Compile the image tower: 1.5 times as fast on 2 cores after a minute, but it needs a C++ compiler.

    Raises:
        TrainingError: The state is of another run, or the loss is no number.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = Pretraining(config, load_file(initial) if initial is not None else None).to(device)
    optimizers = Optimizers(model)
    if compiled:
        model.tower.compile(dynamic=False)
    state = output.with_suffix(".state.safetensors")
    start = _load(state, config, model, optimizers) if state.exists() else 0
    loader = DataLoader(
        Pictures(Recipe(size=config.image_size), config.seed, config.steps * config.batch_size, photos),
        batch_size=config.batch_size,
        sampler=range(start * config.batch_size, config.steps * config.batch_size),
        num_workers=workers,
        # A fork of a process in which OpenCV has threads can wait for ever.
        multiprocessing_context="spawn" if workers else None,
        collate_fn=_collate,
        prefetch_factor=3 if workers else None,
    )
    window, saved_at = _Window(), monotonic()
    for step, (frames, masks, words, captions) in enumerate(loader, start=start):
        # On a CPU the fused attention's backward pass takes three times as long as the one that is written out.
        attention = SDPBackend.MATH if device.type == "cpu" else SDPBackend.FLASH_ATTENTION
        with torch.autocast(device.type, torch.bfloat16), sdpa_kernel(attention):
            losses = model(frames.to(device), masks.to(device), words, captions, step)
            if not bool(losses.total.isfinite()):
                raise TrainingError(f"the loss is no number at step {step}: lower --lr; {state} is the last state")
            losses.total.backward()
        nn.utils.clip_grad_norm_([parameter for _, parameter in learning(model)], 1.0)
        optimizers.step(config.lr * _rate(step, config))
        window.add(losses)
        if window.count == _WINDOW or step + 1 == config.steps:
            yield window.record(step + 1)
            window = _Window()
        if monotonic() - saved_at > save_minutes * 60:
            _save(state, config, model, optimizers, step + 1)
            saved_at = monotonic()
    _write(output, config, model)
    state.unlink(missing_ok=True)


def _save(path: Path, config: PretrainConfig, model: Pretraining, optimizers: Optimizers, step: int) -> None:
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()} | optimizers.state()
    record = json.dumps({"config": asdict(config), "step": step})
    replace_file(path, save({key: value.detach().cpu().clone() for key, value in tensors.items()}, {"state": record}))


def _load(path: Path, config: PretrainConfig, model: Pretraining, optimizers: Optimizers) -> int:
    with safe_open(path, framework="pt") as file:
        record = json.loads(file.metadata()["state"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    known = asdict(config)
    if config.decay == 0:  # the steps decide nothing but the end
        known["steps"] = record["config"]["steps"]
    if record["config"] != known:
        raise TrainingError(f"{path} is of a run with other settings: give the same ones, or remove it")
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value.copy_(tensors[f"model/{name}"])
    optimizers.load(tensors)
    return int(record["step"])


def _write(path: Path, config: PretrainConfig, model: Pretraining) -> None:
    """Writes the CLIP's weights at the backbone's own image size."""
    weights = {name: value.detach().cpu().clone() for name, value in model.clip.state_dict().items()}
    architecture = get_backbone(config.backbone).architecture()
    patch, native = architecture["vision_cfg"]["patch_size"], architecture["vision_cfg"]["image_size"]
    old, new = (config.image_size // patch,) * 2, (native // patch,) * 2
    name = "visual.positional_embedding"
    weights[name] = resize_positional_embedding(model.tower.positional_embedding.detach().cpu(), old, new)
    weights["logit_scale"] = model.scale.detach().cpu().clone()
    weights["token_embedding.weight"] = model.vocabulary.whole().cpu()
    replace_file(path, save({key: value.contiguous() for key, value in weights.items()}))


@click.command()
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Weights to write (.safetensors).")
@click.option("--initial", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Weights to begin with.")
@click.option("--photos", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of photographs.")
@click.option("--backbone", default="nano", show_default=True)
@click.option("--image-size", default=160, show_default=True)
@click.option("--steps", default=4000, show_default=True)
@click.option("--batch-size", default=32, show_default=True)
@click.option("--lr", default=1e-3, show_default=True)
@click.option("--warmup-steps", default=200, show_default=True)
@click.option("--decay", default=0.2, show_default=True, help="Share of the steps in which the rate falls to zero.")
@click.option("--optimizer", type=click.Choice(["muon", "adamw"]), default="muon", show_default=True)
@click.option("--prepared/--plain", default=True, show_default=True, help="First values of the image tower.")
@click.option("--seed", default=0, show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option("--save-minutes", default=5.0, show_default=True)
@click.option("--compile", "compiled", is_flag=True, help="Compile the image tower; needs a C++ compiler.")
def main(
    output: Path,
    initial: Path | None,
    photos: Path | None,
    workers: int,
    save_minutes: float,
    compiled: bool,
    **settings: Any,
) -> None:
    """Pretrain a small CLIP; the same command goes on after a stop."""
    digest = hashlib.sha256(initial.read_bytes()).hexdigest() if initial is not None else ""
    config = PretrainConfig(**settings, initial=digest, photos=photos is not None)
    taken = Photos(photos) if photos is not None else None
    run = {"initial": initial, "photos": taken, "workers": workers, "save_minutes": save_minutes, "compiled": compiled}
    for record in pretrain(config, output, **run):
        click.echo(json.dumps(record))


if __name__ == "__main__":
    main()
