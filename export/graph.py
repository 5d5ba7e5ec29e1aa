"""The module that is exported: camera frame in, map and score out, everything that depends on the classes baked."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import fields

import torch
from torch import Tensor, nn

from kanoclip.export.frame_front import PatchFront, StemFront
from kanoclip.export.frame_resize import resize_matrices
from kanoclip.train.model.bicmci import TextState
from kanoclip.train.model.deformable import DeformableSelfAttention
from kanoclip.train.model.kanoclip import KAnoCLIP
from kanoclip.train.model.layers import LayerNorm
from kanoclip.train.model.memory import MemoryFusion
from kanoclip.train.model.smoothing import MapSmoothing

DTYPES = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "int8": torch.float16,
    "int8-cpu": torch.float32,
    "fp8": torch.float16,
}


class DeployGraph(nn.Module):
    """KAnoCLIP for a fixed list of classes: no text encoder, no prompts, no text self-attention.

    The precision is written into the graph. Weights, MatMuls and attention softmax have the chosen dtype; layer norm,
    L2 norms, the deformable hats, sigmoids over the two states, upsampling and Gaussian stay float32.
    """

    resize_rows: Tensor
    resize_columns: Tensor

    def __init__(
        self,
        model: KAnoCLIP,
        classes: Sequence[str],
        precision: str,
        camera: tuple[int, int] | None = None,
        *,
        memory: bool = False,
    ) -> None:
        """Copies the model's tower and head, bakes the classes' text, folds preprocessing and casts.

        Args:
            model: The checkpoint's model; left untouched.
            classes: Class names; the position is the class's index.
            precision: `fp32`, `fp16`, `bf16`, `int8` or `fp8`, which begin as the fp16 graph, or `int8-cpu`, which
                begins as the float32 one.
            camera: (height, width) of the frames, which the graph then resizes itself; None for the model's size.
            memory: Whether it takes a reference memory.
        """
        super().__init__()
        dtype = DTYPES[precision]
        with torch.no_grad():
            text = model.text_features(classes)
            states = model.head.text_states(text)
        self.dtype = dtype
        self.several_classes = len(classes) > 1
        self.tower, self.head = copy.deepcopy(model.tower), copy.deepcopy(model.head)
        self.front = StemFront(self.tower) if self.tower.stem is not None else PatchFront(self.tower, dtype)
        del self.tower.class_embedding, self.tower.positional_embedding
        self.tower.patch_embedding = None
        for module in (self.tower, self.head, self.front):
            cast_weights(module, dtype)
        for part in self.head.modules():
            if isinstance(part, MapSmoothing | DeformableSelfAttention):
                part.elementwise = dtype != torch.float32
        self.memory = None
        if memory:
            # bf16 is too coarse for cosines that differ by a hundredth, and no GPU that has it refuses float32.
            in_half = torch.float16 if dtype == torch.float16 else torch.float32
            tower = model.tower
            self.memory = MemoryFusion(
                tower.descriptor_grid, tower.descriptor_channels, model.config.image_size, in_half
            )
        self.resizes = camera is not None
        if camera is not None:
            rows, columns, self.resize_bias = resize_matrices(camera, model.config.image_size)
            self.register_buffer("resize_rows", torch.from_numpy(rows).to(dtype))
            self.register_buffer("resize_columns", torch.from_numpy(columns).to(dtype))
        self.register_buffer("text", text)
        for index, state in enumerate(states):
            for field in fields(state):
                # What is added to float32 values stays float32.
                kind = torch.float32 if field.name in ("tokens", "bias") else dtype
                self.register_buffer(f"text_{field.name}_{index}", getattr(state, field.name).to(kind))

    def forward(
        self, frame: Tensor, class_index: Tensor | None = None, memory: tuple[Tensor, ...] = ()
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Runs one batch.

        Args:
            frame: uint8 [B, H, W, 3], BGR, at the model's size, or at the camera's where the graph resizes.
            class_index: int64 [B], only when several classes are baked.
            memory: The manifest's MEMORY_INPUTS, where the graph takes a reference memory.

        Returns:
            map float32 [B, H, W] and score float32 [B], both in [0, 1], and the descriptors for a reference memory,
            float32 [B, cells, D], L2-normalised.
        """
        pixels = frame.to(self.dtype) - self.front.shift
        if self.resizes:
            pixels = self._resize(pixels)
        tokens, distance, features = self.front(pixels)
        image = self.tower.encode(tokens, distance)
        output = self.head(image, self._of_class("text", class_index), self.text_states(class_index))
        descriptors = self.front.describe(self.tower, image, features)
        if self.memory is None:
            return output.map, output.score, descriptors
        return *self.memory(descriptors, output.map, output.score, *memory), descriptors

    def text_states(self, class_index: Tensor | None) -> list[TextState]:
        """What each stage needs of the text of every image's class, or of the only one."""
        return [
            TextState(*(self._of_class(f"text_{part.name}_{index}", class_index) for part in fields(TextState)))
            for index in range(len(self.head.stages))
        ]

    def _resize(self, pixels: Tensor) -> Tensor:
        """Shifted pixels of a camera's frame [B, H, W, 3] -> at the model's size, as the runtime's resize does it.

        Rows first, over the bytes as they lie; what is left to transpose is the small image.
        """
        _, height, width, _ = pixels.shape
        lower = (self.resize_rows @ pixels.reshape(-1, height, width * 3)).reshape(-1, len(self.resize_rows), width, 3)
        small = lower.permute(0, 3, 1, 2) @ self.resize_columns.T
        return torch.round(small + self.resize_bias).permute(0, 2, 3, 1)

    def _of_class(self, name: str, class_index: Tensor | None) -> Tensor:
        constant: Tensor = getattr(self, name)
        return constant if class_index is None else constant[class_index]


def cast_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """Casts every parameter in place, except those of layer norms; buffers (grids, smoothing) stay float32.

    A convolution stays float32 in a bf16 graph: ONNX has a bf16 Conv only from opset 22.
    """
    for child in module.modules():
        if isinstance(child, LayerNorm) or (isinstance(child, nn.Conv2d) and dtype == torch.bfloat16):
            continue
        for name, parameter in child.named_parameters(recurse=False):
            setattr(child, name, nn.Parameter(parameter.detach().to(dtype), requires_grad=False))
