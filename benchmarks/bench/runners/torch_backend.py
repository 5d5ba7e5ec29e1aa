"""A bundle's model in torch, as a backend: what the engines are compared with."""

from __future__ import annotations

from time import perf_counter
from typing import cast

import numpy as np
import torch

from kanoclip.benchmarks.bench.runners.split import Split
from kanoclip.export.frame_resize import FrameResize
from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.parts import ModelInfo
from kanoclip.runtime.engines.base import BaseBackend
from kanoclip.runtime.engines.inputs import Floats, Frames, Indices, MemoryTensors
from kanoclip.runtime.errors import BackendError, one_line
from kanoclip.runtime.system.hardware import own_cores
from kanoclip.train.checkpoint import build_model, load_checkpoint
from kanoclip.train.model.kanoclip import KAnoCLIP, ModelConfig, Prompts, to_pixels
from kanoclip.train.model.towers.clip_vv import GlobalToken
from kanoclip.train.weights import CHECKPOINT, packaged


class TorchBackend(BaseBackend):
    """Eager or compiled; float16 on a GPU with torch's own scaled_dot_product_attention, float32 on the CPU.

    Attributes:
        name: `torch-cpu`, `torch-compile-cuda` and so on.
        same_weights: The weights are the bundle's; otherwise seeded ones, with which it is as fast.
    """

    workers = 1

    def __init__(self, bundle: Bundle, device: str, *, compiled: bool, threads: int | None) -> None:
        """Builds the model.

        Args:
            bundle: Whose model.
            device: `cpu`, `cuda` or `cuda:N`.
            compiled: By torch.compile, for the lowest latency.
            threads: CPU threads, None for all cores of this process.

        Raises:
            BackendError: There is no such GPU.
            CheckpointError: The backbone is not one that this version knows.
        """
        manifest = bundle.manifest
        half = device != "cpu"
        if half and not torch.cuda.is_available():
            raise BackendError("torch finds no GPU here: install a torch with CUDA, or choose --device cpu")
        torch.set_num_threads(threads or own_cores())
        self.on_cpu = not half
        self.name = f"torch-{'compile-' if compiled else ''}{'cuda' if half else 'cpu'}"
        self._device, self._dtype = device, torch.float16 if half else torch.float32
        model, self.same_weights = _model(manifest.model)
        with torch.no_grad():
            self._text = model.text_features(list(manifest.classes)).to(device, self._dtype)
        self._model = model.to(device, self._dtype)
        resizes = manifest.frame_size != manifest.model.image_size
        self._resize = FrameResize(manifest.frame_size, manifest.model.image_size) if resizes else None
        self._compute = self._forward
        if compiled:
            mode = "max-autotune" if half else "max-autotune-no-cudagraphs"
            # One graph for each batch size: code for any size, tuned for CPUs, wrote beyond its memory (torch 2.14).
            self._compute = torch.compile(self._forward, mode=mode, dynamic=False)

    def run(
        self, frames: Frames, class_index: Indices | None, memory: MemoryTensors | None = None
    ) -> tuple[Floats, Floats]:
        """Runs one batch, without the reference memory: the model alone is what engines are measured against."""
        return self._steps(frames, class_index)[:2]

    def describe(self, frames: Frames) -> Floats:
        """See `Backend.describe`.

        Raises:
            BackendError: Always: torch is here to measure maps and scores against.
        """
        raise BackendError(f"{self.name} computes maps and scores alone: describe with another engine")

    def run_split(self, frames: Frames, class_index: Indices | None) -> tuple[Floats, Floats, Split]:
        """Runs one batch and waits for the GPU after each step; on the CPU nothing is copied."""
        if self._device == "cpu":
            started = perf_counter()
            maps, scores = self.run(frames, class_index)
            return maps, scores, Split(None, (perf_counter() - started) * 1e3, None)
        return self._steps(frames, class_index, wait=True)

    def close(self) -> None:
        """Drops the model."""
        del self._model, self._compute

    def _steps(self, frames: Frames, class_index: Indices | None, wait: bool = False) -> tuple[Floats, Floats, Split]:
        def now() -> float:
            if wait:
                torch.cuda.synchronize(self._device)
            return perf_counter()

        try:
            with torch.no_grad():
                started = now()
                given = torch.from_numpy(frames) if self._resize is None else self._resize(frames)
                given = given.to(self._device)
                index = torch.from_numpy(np.zeros(1, np.int64) if class_index is None else class_index)
                text = self._text[index.to(self._device)].expand(len(frames), -1, -1)
                uploaded = now()
                maps, scores = self._compute(given, text)
                computed = now()
                found = maps.cpu().numpy(), scores.cpu().numpy()
        # torch.compile needs a compiler and raises its own kinds without one.
        except RuntimeError as error:
            raise BackendError(f"{self.name} failed: {one_line(error)}") from error
        ended = perf_counter()
        return *found, Split((uploaded - started) * 1e3, (computed - uploaded) * 1e3, (ended - computed) * 1e3)

    def _forward(self, frames: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output = self._model(to_pixels(frames, self._model.tower.normalisation).to(self._dtype), text)
        return output.map.float(), output.score.float()


def _model(info: ModelInfo) -> tuple[KAnoCLIP, bool]:
    """The packaged model where the bundle was made from it, or one of the same shape with seeded weights."""
    packed = load_checkpoint(packaged(CHECKPOINT), "auto")
    if packed.checkpoint_sha256 == info.checkpoint_sha256 and packed.model.config.image_size == info.image_size:
        return packed.model, True
    config = ModelConfig(
        info.backbone,
        info.image_size,
        vv=info.vv,
        bicmci=info.bicmci,
        conv_adapter=info.conv_adapter,
        prompts=cast(Prompts, info.prompts),
        global_token=cast(GlobalToken, info.global_token),
    )
    return build_model(config, "none").model, False
