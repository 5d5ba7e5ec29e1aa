"""Contrastive and dense pretraining of what follows the stem, on images that `tokens` has drawn.

python -m kanoclip.train.nano.pretrain --tokens DIR --stem stem.safetensors --output nano-clip.safetensors
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
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from kanoclip.runtime.errors import TrainingError
from kanoclip.runtime.metrics import image_auroc
from kanoclip.runtime.system.installed import own_commit
from kanoclip.runtime.system.paths import replace_file
from kanoclip.train.nano.pretraining.objective import Losses, PretrainConfig, Pretraining
from kanoclip.train.nano.pretraining.optimizers import Optimizers, learning
from kanoclip.train.nano.stem_statistics import load_stem
from kanoclip.train.nano.tokens import TokenFiles

_WINDOW = 20
"""Steps that a record sums up."""


def _rate(step: int, config: PretrainConfig) -> float:
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    falling = config.decay * config.steps
    return min(1.0, (config.steps - step) / falling) if falling > 0 else 1.0


class _Window:
    """Sums of some steps, and how well their images were told apart."""

    def __init__(self) -> None:
        self.count, self.started = 0, monotonic()
        self.sums: dict[str, float] = {}
        self.scores: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, losses: Losses) -> None:
        for name, value in {"loss": losses.total, **losses.parts}.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())
        self.scores.append((losses.cells.cpu(), losses.scores.cpu(), losses.target.cpu()))
        self.count += 1

    def record(self, step: int) -> dict[str, Any]:
        cells, scores, target = (torch.cat(part).numpy() for part in zip(*self.scores, strict=True))
        return {
            "step": step,
            **{name: round(value / self.count, 4) for name, value in self.sums.items()},
            "image_auroc": round(image_auroc(target.any((1, 2)), scores), 4),
            "cell_auroc": round(image_auroc(target.ravel() > 0, cells.ravel()), 4),
            "images_per_second": round(len(cells) / (monotonic() - self.started), 1),
        }


def pretrain(
    config: PretrainConfig,
    output: Path,
    stem: dict[str, Tensor],
    tokens: TokenFiles,
    *,
    save_minutes: float = 5.0,
) -> Iterator[dict[str, Any]]:
    """Trains, going on from OUTPUT's state where there is one; yields a record every 20 steps.

    Args:
        config: Of the run.
        output: Weights to write at the end, `.safetensors`, with the names of open_clip.
        stem: Trunk and statistics.
        tokens: The drawn images.
        save_minutes: Between saved states.

    Raises:
        TrainingError: The state is of another run or another commit, or the loss is no number.
    """
    torch.set_flush_denormal(True)
    model = Pretraining(config, stem)
    optimizers = Optimizers(model)
    state = output.with_suffix(".state.safetensors")
    start = _load(state, config, model, optimizers) if state.exists() else 0
    window, saved_at = _Window(), monotonic()
    for step in range(start, config.steps):
        rng = np.random.default_rng((config.seed, step, 1))
        batch = tokens.batch(np.sort(rng.integers(0, len(tokens), config.batch_size)).tolist())
        with torch.autocast("cpu", torch.bfloat16):
            losses = model(batch, step)
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
    _write(output, model)
    state.unlink(missing_ok=True)


def _save(path: Path, config: PretrainConfig, model: Pretraining, optimizers: Optimizers, step: int) -> None:
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()} | optimizers.state()
    record = json.dumps({"config": asdict(config), "step": step, "commit": own_commit()})
    replace_file(path, save({key: value.detach().cpu().clone() for key, value in tensors.items()}, {"state": record}))


def _load(path: Path, config: PretrainConfig, model: Pretraining, optimizers: Optimizers) -> int:
    try:
        with safe_open(path, framework="pt") as file:
            record = json.loads(file.metadata()["state"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{path} is no saved state ({error}): move the file away to begin anew") from error
    saved, mine = record.get("commit", "unknown"), own_commit()
    if saved != mine:
        raise TrainingError(
            f"{path} was saved by commit {saved[:12]}, this is {mine[:12]}: check that one out to go on, or move the "
            "file away to begin anew"
        )
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


def _write(path: Path, model: Pretraining) -> None:
    weights = {name: value.detach().cpu().clone() for name, value in model.clip.state_dict().items()}
    # The tower has a copy of its own of the positions, in which it may resize them.
    weights["visual.positional_embedding"] = model.tower.positional_embedding.detach().clone()
    weights["logit_scale"] = model.scale.detach().cpu().clone()
    weights["token_embedding.weight"] = model.vocabulary.whole().cpu()
    replace_file(path, save({key: value.contiguous() for key, value in weights.items()}))


@click.command()
@click.option("--tokens", type=click.Path(path_type=Path), required=True, help="Folder of drawn images.")
@click.option("--stem", type=click.Path(path_type=Path), required=True, help="What stem_statistics wrote.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Weights to write (.safetensors).")
@click.option("--steps", default=PretrainConfig.steps, show_default=True)
@click.option("--batch-size", default=PretrainConfig.batch_size, show_default=True)
@click.option("--lr", default=PretrainConfig.lr, show_default=True)
@click.option("--decay", default=PretrainConfig.decay, show_default=True, help="Share of the steps that slow down.")
@click.option("--seed", default=0, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. Default: torch's choice.")
@click.option("--save-minutes", default=5.0, show_default=True)
def main(tokens: Path, stem: Path, output: Path, threads: int | None, save_minutes: float, **settings: Any) -> None:
    """Pretrain nano's blocks and text tower; the same command goes on after a stop."""
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        drawn = TokenFiles(tokens)
        load_stem(stem)  # says what is wrong with the file
        digest = hashlib.sha256(json.dumps(drawn.record, sort_keys=True).encode() + stem.read_bytes()).hexdigest()
        config = PretrainConfig(**settings, tokens=digest)
        for record in pretrain(config, output, load_file(stem), drawn, save_minutes=save_minutes):
            click.echo(json.dumps(record))
    except TrainingError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
