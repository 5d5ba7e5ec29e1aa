"""The training loop. Accelerate makes the same loop run on one or many devices and machines."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader

from kanoclip.runtime.errors import TrainingError
from kanoclip.train.checkpoint import save_checkpoint
from kanoclip.train.model.kanoclip import KAnoCLIP, to_pixels
from kanoclip.train.model.towers.clip_vv import ClipVV, ImageFeatures
from kanoclip.train.training.cache import pack, unpack
from kanoclip.train.training.config import TrainConfig
from kanoclip.train.training.images import Batch, EpochOrder, TrainingSet
from kanoclip.train.training.job import Job
from kanoclip.train.training.objective import PARTS, Objective
from kanoclip.train.training.state import Progress, load_state, save_state, state_path

_BETAS = (0.5, 0.999)
_EMA_WARMUP = 10
_BEGUN = "kd_active at the first step"


class Listener(Protocol):
    """Who gets the progress of a run. Called on the main process only."""

    def started(self, epochs: int, steps: int, progress: Progress) -> None:
        """The run has `epochs` of `steps`, and begins (or goes on) at `progress`."""

    def stepped(self, step: int, means: Mapping[str, float]) -> None:
        """Step `step` (from 1) of the epoch is done; the means are over the epoch so far, of this process."""

    def finished_epoch(self, record: Mapping[str, Any]) -> None:
        """An epoch is done; `record` joins the history."""


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended.

    Attributes:
        finished: False when it was stopped; the state to go on from is saved.
        progress: How far the run has come.
    """

    finished: bool
    progress: Progress


def learning_rate(step: int, total: int, warmup: int) -> float:
    """Share of the peak rate at a step (from 0): linear warm-up, then a cosine to zero.

    A run shorter than ten warm-ups warms up for a tenth of its steps.
    """
    warmup = min(warmup, total // 10)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


class Features:
    """A batch's features: from the cache, or from the frozen tower, which then fills the cache."""

    def __init__(self, tower: ClipVV, images: TrainingSet, accelerator: Accelerator) -> None:
        """Moves the tower to the accelerator's device."""
        self.tower = tower.to(accelerator.device)
        self.cells = tower.grid[0] * tower.grid[1]
        self.images, self.accelerator = images, accelerator

    @torch.no_grad()
    def __call__(self, batch: Batch) -> ImageFeatures:
        """Features of all images of a batch, in its order."""
        cache = self.images.cache
        if len(batch.fresh) == 0:
            return unpack(batch.features, self.cells)
        with self.accelerator.autocast():
            image = self.tower(to_pixels(batch.frames, self.tower.normalisation))
        if cache is None:
            stages = tuple(stage.float() for stage in image.patches)
            return ImageFeatures(stages, image.global_token.float(), distance=image.distance)
        computed = pack(image)
        for index, features in zip(batch.indices[batch.fresh].tolist(), computed, strict=True):
            cache.store(self.images.images[index].digest, features)
        if len(batch.cached) == 0:
            return unpack(computed, self.cells)
        # What was just computed goes through float16 too: an epoch must not depend on what the cache held.
        packed = computed.new_empty(len(batch.indices), *computed.shape[1:])
        packed[batch.cached], packed[batch.fresh] = batch.features, computed
        return unpack(packed, self.cells)


class Trainer:
    """One run. Everything random in it follows from the seed, the epoch and the step, so a stop leaves no trace."""

    def __init__(
        self, config: TrainConfig, job: Job, accelerator: Accelerator, listener: Listener, workers: int = 0
    ) -> None:
        """Prepares the run on the accelerator's devices.

        Args:
            config: What decides the result.
            job: What it works on.
            accelerator: Made with `split_batches=True`: a batch is shared out among its processes.
            listener: Gets its progress.
            workers: Processes that read images; 0 reads them in this one.

        Raises:
            TrainingError: The batch cannot be shared out among the processes.
        """
        if config.batch_size % accelerator.num_processes:
            raise TrainingError(
                f"a batch of {config.batch_size} cannot be shared out among {accelerator.num_processes} processes: "
                "choose a multiple with --batch-size"
            )
        self.config, self.job, self.accelerator, self.listener = config, job, accelerator, listener
        model = job.loaded.model
        self.order = EpochOrder(len(job.images), config.batch_size, config.seed)
        objective = Objective(model, job.class_names, job.knowledge, config)
        loader = DataLoader(job.images, batch_sampler=self.order, collate_fn=job.images.collate, num_workers=workers)
        self.features = Features(model.tower, job.images, accelerator)
        self.objective, self.optimizer, self.loader = accelerator.prepare(
            objective, make_optimizer(config, model), loader
        )
        self.learned = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.averaged = {name: p.detach().clone() for name, p in self.learned.items()} if config.ema else {}

    def run(self, *, resume: bool, save_every: float, stop: Callable[[], bool]) -> Outcome:
        """Runs, or goes on, to the end, and writes the checkpoint.

        Args:
            resume: Go on from the saved state.
            save_every: Seconds after which the state is saved within an epoch.
            stop: Asked after each step; True saves the state and ends the run early.

        Raises:
            TrainingError: The state does not fit, the disk is full, or the loss is no number any more.
            CheckpointError: The checkpoint cannot be written.
        """
        progress = self._load() if resume else Progress(0, 0, {}, ())
        main = self.accelerator.is_main_process
        if main:
            self.listener.started(self.config.epochs, len(self.order), progress)
        saved_at = monotonic()
        while progress.epoch < self.config.epochs:
            epoch, step = progress.epoch, progress.step
            sums = torch.tensor([progress.sums.get(name, 0.0) for name in PARTS], dtype=torch.float64)
            counts = torch.zeros(2, dtype=torch.float64)
            begun = progress.sums.get(_BEGUN)  # of an epoch that was stopped on its way
            started = requested_at = perf_counter()
            waited = 0.0
            self.order.begin(epoch, step)
            for batch in self.loader:
                waited += perf_counter() - requested_at
                values = self._step(batch, epoch, step)
                sums += values
                if begun is None or step + 1 == len(self.order):  # shared among the processes only where it is recorded
                    active = float(self._mean(values)[PARTS.index("kd_active")])
                    begun = active if begun is None else begun
                counts += torch.tensor([len(batch.indices), len(batch.cached)])
                step += 1
                if main:
                    self.listener.stepped(step, _named(sums / step))
                stopping, saving = self._agreed(stop(), monotonic() - saved_at > save_every)
                if (stopping or saving) and step < len(self.order):
                    progress = Progress(epoch, step, {**_named(self._mean(sums)), _BEGUN: begun}, progress.history)
                    self._save(progress)
                    saved_at = monotonic()
                    if stopping:
                        return Outcome(False, progress)
                requested_at = perf_counter()
            record = self._record(epoch, sums / step, counts, perf_counter() - started, waited)
            record["kd_active_at"] = {"first": begun, "last": active}
            progress = Progress(epoch + 1, 0, {}, (*progress.history, record))
            if main:
                self.listener.finished_epoch(record)
            if progress.epoch < self.config.epochs:
                self._save(progress)
                saved_at = monotonic()
                if stopping:
                    return Outcome(False, progress)
        self._finish(progress)
        return Outcome(True, progress)

    def _step(self, batch: Batch, epoch: int, step: int) -> Tensor:
        """One optimisation step; its `PARTS`, float64 on the CPU."""
        done = epoch * len(self.order) + step
        rate = learning_rate(done, self.config.epochs * len(self.order), self.config.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        parts = self.objective(self.features(batch), batch.class_index, batch.labels, batch.masks, batch.known)
        values = torch.stack([parts[name].detach() for name in PARTS]).double().cpu()
        if not bool(values.isfinite().all()):
            raise TrainingError(
                f"the loss is no number any more in epoch {epoch + 1}, step {step + 1}: lower --lr-prompts and "
                "--lr-modules, or use --amp no; the last saved state is still there"
            )
        self.accelerator.backward(parts["loss"])
        if self.config.clip_grad:
            self.accelerator.clip_grad_norm_(list(self.learned.values()), self.config.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.averaged:
            # Early averages follow closely, so that the first random values do not weigh on them for long.
            decay = min(self.config.ema, (1 + done) / (_EMA_WARMUP + done))
            parameters = [parameter.detach() for parameter in self.learned.values()]
            torch._foreach_lerp_(list(self.averaged.values()), parameters, 1 - decay)
        return values

    def _agreed(self, *flags: bool) -> list[bool]:
        """Each flag as it is set in any of the processes, known to all of them."""
        mine = torch.tensor(flags, dtype=torch.int32, device=self.accelerator.device)
        shared = self.accelerator.reduce(mine, "sum")
        return [bool(value) for value in shared.tolist()]

    def _mean(self, values: Tensor) -> Tensor:
        """The mean over the processes, float32 there because not every device has more."""
        if self.accelerator.num_processes == 1:
            return values
        shared: Tensor = self.accelerator.reduce(values.float().to(self.accelerator.device), "mean")
        return shared.double().cpu()

    def _record(self, epoch: int, means: Tensor, counts: Tensor, seconds: float, waited: float) -> dict[str, Any]:
        images, cached = (self._mean(counts) * self.accelerator.num_processes).tolist()
        return {
            "epoch": epoch + 1,
            **_named(self._mean(means)),
            "seconds": seconds,
            "waited": waited,  # of these, for the loader; by the main process
            "pictures": int(images),
            "from_cache": int(cached),
        }

    def _load(self) -> Progress:
        progress, scaler = load_state(
            state_path(self.job.output), self.job.run, self.learned, self.optimizer.optimizer, self.averaged
        )
        if self.accelerator.scaler is not None and scaler:
            self.accelerator.scaler.load_state_dict(scaler)
        return progress

    def _save(self, progress: Progress) -> None:
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        save_state(
            state_path(self.job.output),
            self.job.run,
            progress,
            self.learned,
            self.optimizer.optimizer,
            self.averaged,
            {} if scaler is None else scaler.state_dict(),
        )

    def _finish(self, progress: Progress) -> None:
        if self.accelerator.is_main_process:
            job, model = self.job, self.job.loaded.model
            save_checkpoint(
                job.output,
                model,
                job.loaded.weights,
                learned={**model.learnable(), **self.averaged},
                training={**job.about, "run": dict(job.run), "epochs": list(progress.history)},
            )
            state_path(job.output).unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()


def make_optimizer(config: TrainConfig, model: KAnoCLIP) -> torch.optim.Optimizer:
    """Adam or AdamW over what learns: the prompts in one group, the modules in another, each with its `peak` rate."""
    groups: dict[str, list[Tensor]] = {"prompts": [], "head": []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[name.partition(".")[0]].append(parameter)
    peaks = {"prompts": config.lr_prompts, "head": config.lr_modules}
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(
        [{"params": groups[name], "peak": peaks[name]} for name in groups if groups[name]],
        lr=0.0,  # set before every step
        betas=_BETAS,
        weight_decay=config.weight_decay,
    )


def _named(values: Tensor) -> dict[str, float]:
    return dict(zip(PARTS, values.tolist(), strict=True))
