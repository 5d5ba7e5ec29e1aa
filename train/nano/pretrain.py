"""Contrastive and dense pretraining of a small CLIP on generated pictures.

python -m kanoclip.train.nano.pretrain --output nano-clip.safetensors
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import click
import cv2
import open_clip
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from kanoclip.runtime.errors import TrainingError
from kanoclip.runtime.files import replace_file
from kanoclip.train.backbones import get_backbone
from kanoclip.train.model.clip_vv import ClipVV
from kanoclip.train.model.kanoclip import to_pixels
from kanoclip.train.model.text import TextEncoder
from kanoclip.train.nano.scene import Recipe, Scene, generate

_TAU = 0.07
_NORMAL = ("a photo of a normal {}", "a photo of a flawless {}", "a perfect {}", "a {} without defect")
_ABNORMAL = ("a photo of an abnormal {}", "a photo of a damaged {}", "a defective {}", "a {} with a defect")


@dataclass(frozen=True)
class PretrainConfig:
    """What decides a run.

    Attributes:
        backbone: Registry's name; its architecture is trained from nothing.
        image_size: Side of the pictures in pixels; positional embeddings are resized to the backbone's own at the end.
        steps: Optimisation steps.
        batch_size: Pictures in a step.
        lr: Peak learning rate of AdamW.
        weight_decay: Of matrices; vectors have none.
        warmup_steps: Linear warm-up; a cosine to a hundredth of the peak follows.
        dense_weight: Of the pixel objective beside the contrastive one.
        seed: Of first values and pictures.
    """

    backbone: str = "nano"
    image_size: int = 192
    steps: int = 4000
    batch_size: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup_steps: int = 200
    dense_weight: float = 2.0
    seed: int = 0


class Pictures(Dataset[Scene]):
    """The generated pictures of a run, by number."""

    def __init__(self, recipe: Recipe, seed: int, length: int) -> None:
        """The first `length` pictures of a recipe and seed."""
        self.recipe, self.seed, self.length = recipe, seed, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Scene:
        """Picture `index`."""
        cv2.setNumThreads(1)
        return generate(self.recipe, self.seed, index)


class Pretraining(nn.Module):
    """A CLIP whose tower is read as CLIP-VV reads it, and the objectives."""

    def __init__(self, config: PretrainConfig) -> None:
        """Builds the backbone with first values of the seed."""
        super().__init__()
        torch.manual_seed(config.seed)
        architecture = get_backbone(config.backbone).architecture()
        architecture["vision_cfg"]["image_size"] = config.image_size
        self.config = config
        self.clip = open_clip.CLIP(**architecture)
        size = (config.image_size, config.image_size)
        self.tower = ClipVV(self.clip.visual, size)
        self.text = TextEncoder(self.clip)
        # Both took the CLIP over frozen; here it is what learns. The last block's projections are views of the CLIP's
        # own storage, so that its state dict follows.
        self.requires_grad_(True)
        self.scale = nn.Parameter(torch.tensor(math.log(1 / _TAU)))

    def forward(
        self, frames: Tensor, masks: Tensor, words: Sequence[str], captions: Sequence[str], step: int
    ) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            frames: uint8 [B, H, W, 3], BGR.
            masks: 1 for anomalous pixels, uint8 [B, H, W].
            words: Each picture's subject.
            captions: Each picture's caption.
            step: Decides the template of the two states.
        """
        image = self.tower(to_pixels(frames))
        global_token = F.normalize(image.global_token.float(), dim=-1)
        labels = masks.flatten(1).amax(1).float()
        # Equal captions are positives of each other.
        unique = sorted(set(captions))
        index = torch.tensor([unique.index(caption) for caption in captions])
        logits = global_token @ self._encode(unique).T * self.scale.exp().clamp(max=100)
        by_image = F.cross_entropy(logits, index)
        same = (index[None] == torch.arange(len(unique))[:, None]).float()
        by_text = -(torch.log_softmax(logits.T, dim=-1) * same).sum(1).div(same.sum(1)).mean()
        subjects = sorted(set(words))
        states = self._states(subjects, step)[torch.tensor([subjects.index(word) for word in words])]
        direction = states[:, 1] - states[:, 0]
        verdict = (global_token * direction).sum(-1) / _TAU
        cells = F.adaptive_avg_pool2d(masks.float()[:, None], self.tower.grid)[:, 0]
        target = (cells > 0.08).float()
        dense = frames.new_zeros((), dtype=torch.float32)
        for stage in image.patches:
            patches = F.normalize(stage.float(), dim=-1)
            score = (patches * direction[:, None]).sum(-1).reshape(-1, *self.tower.grid) / _TAU
            dense = dense + _segmentation(score, target)
        parts = {
            "contrastive": (by_image + by_text) / 2,
            "verdict": F.binary_cross_entropy_with_logits(verdict, labels),
            "dense": dense / len(image.patches),
        }
        total = parts["contrastive"] * 0.5 + parts["verdict"] * 0.5 + self.config.dense_weight * parts["dense"]
        return {"loss": total, **{name: value.detach() for name, value in parts.items()}}

    def _encode(self, texts: Sequence[str]) -> Tensor:
        return F.normalize(self.text.encode(texts).float(), dim=-1)

    def _states(self, subjects: Sequence[str], step: int) -> Tensor:
        """[subjects, 2, C]: normal and abnormal, by each of the templates in turn."""
        pick = step % len(_NORMAL)
        texts = [template.replace("{}", word) for word in subjects for template in (_NORMAL[pick], _ABNORMAL[pick])]
        features = self._encode(texts)
        return features.reshape(len(subjects), 2, features.shape[-1])


def _segmentation(score: Tensor, target: Tensor) -> Tensor:
    """Focal and dice of logits [B, rows, columns] against cells of 0 and 1."""
    probability = score.sigmoid()
    right = torch.where(target > 0, probability, 1 - probability).clamp(1e-6, 1)
    focal = (-((1 - right) ** 2) * right.log() * torch.where(target > 0, 3.0, 1.0)).mean()
    common, total = (probability * target).sum((1, 2)), probability.sum((1, 2)) + target.sum((1, 2))
    return 4 * focal + (1 - (2 * common + 1) / (total + 1)).mean()


def _collate(scenes: list[Scene]) -> tuple[Tensor, Tensor, list[str], list[str]]:
    frames = torch.stack([torch.from_numpy(scene.image) for scene in scenes])
    masks = torch.stack([torch.from_numpy(scene.mask) for scene in scenes]).to(torch.uint8)
    return frames, masks, [scene.words for scene in scenes], [scene.caption for scene in scenes]


def _rate(step: int, config: PretrainConfig) -> float:
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    share = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share))


def _parameters(model: Pretraining, weight_decay: float) -> list[dict[str, Any]]:
    seen: dict[int, Tensor] = {}
    for parameter in [*model.tower.parameters(), *model.text.parameters(), model.scale]:
        seen[id(parameter)] = parameter
    matrices = [p for p in seen.values() if p.ndim > 1]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": [p for p in seen.values() if p.ndim <= 1], "weight_decay": 0.0},
    ]


def pretrain(config: PretrainConfig, output: Path, workers: int, save_minutes: float) -> Iterator[dict[str, Any]]:
    """Trains, going on from OUTPUT's state where there is one; yields a record every 20 steps.

    Args:
        config: Of the run.
        output: Weights to write at the end, `.safetensors`, with the names of open_clip.
        workers: Processes that draw pictures.
        save_minutes: Between saved states.

    Raises:
        TrainingError: The state is of another run.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = Pretraining(config).to(device)
    optimizer = torch.optim.AdamW(_parameters(model, config.weight_decay), lr=config.lr, betas=(0.9, 0.98))
    state = output.with_suffix(".state.safetensors")
    start = _load(state, config, model, optimizer) if state.exists() else 0
    recipe = Recipe(size=config.image_size)
    numbers = range(start * config.batch_size, config.steps * config.batch_size)
    loader = DataLoader(
        Pictures(recipe, config.seed, config.steps * config.batch_size),
        batch_size=config.batch_size,
        sampler=list(numbers),
        num_workers=workers,
        collate_fn=_collate,
        prefetch_factor=3 if workers else None,
    )
    sums: dict[str, float] = {}
    saved_at, count, started = monotonic(), 0, monotonic()
    for step, (frames, masks, words, captions) in enumerate(loader, start=start):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * _rate(step, config)
        with torch.autocast(device.type, torch.bfloat16):
            parts = model(frames.to(device), masks.to(device), words, captions, step)
        if not bool(parts["loss"].isfinite()):
            raise TrainingError(f"the loss is no number any more at step {step}: lower --lr; {state} is the last state")
        parts["loss"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for name, value in parts.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
        count += 1
        if count == 20 or step + 1 == config.steps:
            yield {
                "step": step + 1,
                **{name: value / count for name, value in sums.items()},
                "pictures_per_second": count * config.batch_size / (monotonic() - started),
            }
            sums, count, started = {}, 0, monotonic()
        if monotonic() - saved_at > save_minutes * 60:
            _save(state, config, model, optimizer, step + 1)
            saved_at = monotonic()
    _write(output, config, model)
    state.unlink(missing_ok=True)


def _save(path: Path, config: PretrainConfig, model: Pretraining, optimizer: torch.optim.Optimizer, step: int) -> None:
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": torch.as_tensor(value) for key, value in values.items()}
    record = json.dumps({"config": asdict(config), "step": step})
    replace_file(path, save({key: value.detach().cpu().clone() for key, value in tensors.items()}, {"state": record}))


def _load(path: Path, config: PretrainConfig, model: Pretraining, optimizer: torch.optim.Optimizer) -> int:
    with safe_open(path, framework="pt") as file:
        record = json.loads(file.metadata()["state"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    if record["config"] != asdict(config):
        raise TrainingError(f"{path} is of a run with other settings: give the same ones, or remove it")
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value.copy_(tensors[f"model/{name}"])
    state = optimizer.state_dict()
    for key, value in tensors.items():
        kind, _, rest = key.partition("/")
        if kind == "optimizer":
            index, _, name = rest.partition("/")
            state["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(state)
    return int(record["step"])


def _write(path: Path, config: PretrainConfig, model: Pretraining) -> None:
    """Writes the CLIP's weights at the backbone's own image size."""
    from kanoclip.train.model.clip_vv import resize_positional_embedding

    weights = {name: value.detach().cpu().clone() for name, value in model.clip.state_dict().items()}
    architecture = get_backbone(config.backbone).architecture()
    patch, native = architecture["vision_cfg"]["patch_size"], architecture["vision_cfg"]["image_size"]
    old, new = (config.image_size // patch,) * 2, (native // patch,) * 2
    name = "visual.positional_embedding"
    weights[name] = resize_positional_embedding(model.tower.positional_embedding.detach().cpu(), old, new)
    weights["logit_scale"] = model.scale.detach().cpu().clone()
    replace_file(path, save({key: value.contiguous() for key, value in weights.items()}))


@click.command()
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Weights to write (.safetensors).")
@click.option("--backbone", default="nano", show_default=True)
@click.option("--image-size", default=192, show_default=True)
@click.option("--steps", default=4000, show_default=True)
@click.option("--batch-size", default=32, show_default=True)
@click.option("--lr", default=1e-3, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option("--save-minutes", default=5.0, show_default=True)
def main(
    output: Path,
    backbone: str,
    image_size: int,
    steps: int,
    batch_size: int,
    lr: float,
    seed: int,
    workers: int,
    save_minutes: float,
) -> None:
    """Pretrain a small CLIP; the same command goes on after a stop."""
    config = PretrainConfig(backbone, image_size, steps, batch_size, lr, seed=seed)
    for record in pretrain(config, output, workers, save_minutes):
        click.echo(json.dumps(record))


if __name__ == "__main__":
    main()
