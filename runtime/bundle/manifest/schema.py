"""The whole manifest, and how it is written."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from kanoclip.runtime.bundle.json_fields import DOCUMENT
from kanoclip.runtime.bundle.manifest.parts import (
    EngineInfo,
    FileInfo,
    GraphWork,
    ModelInfo,
    Preprocessing,
    ReferenceInfo,
    Thresholds,
)
from kanoclip.runtime.bundle.manifest.signature import DescriptorInfo, MemoryInfo, TensorSpec
from kanoclip.runtime.bundle.manifest.tiles import TileGrid

MANIFEST_NAME = DOCUMENT
MODEL_FILE = "model.onnx"
SCHEMA = 1
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int8-cpu", "fp8")
EXACT = "fp32"
"""The precision whose products a GPU must not round to TF32: that alone takes scores out of their bound."""


@dataclass(frozen=True)
class Manifest:
    """All of it.

    Attributes:
        schema: SCHEMA.
        name: The bundle's name.
        created: ISO-8601 time in UTC.
        model: Which model.
        classes: Baked classes; the position is the class index.
        precision: `fp32`, `fp16`, `bf16`, `int8` or `fp8` (in an fp16 graph), or `int8-cpu` (in a float32 one).
        opset: ONNX opset.
        inputs: `frame` uint8 [B, H, W, 3] in BGR, and `class_index` int64 [B] when there are several classes; then
            MEMORY_INPUTS where `memory` below says so.
        outputs: `map` float32 [B, H, W] and `score` float32 [B], both in [0, 1], and `descriptor` float32 [B, P, D]
            where `descriptor` below says so.
        max_batch: Largest batch; the only one unless the batch axis is dynamic.
        preprocessing: How a frame becomes `frame`.
        thresholds: Defaults for verdicts.
        class_thresholds: Those of classes that have their own.
        provenance: Versions, command and commit that made it.
        parity: The parity gate's report.
        files: Every file of the bundle except the manifest.
        engines: Engines among the files.
        work: What the graph has to do; None in a bundle of an export that did not count it.
        descriptor: The third output; None in a bundle of an export that had none.
        memory: What the graph takes as a reference memory; None where it takes none.
        references: Learned memories, by class.
        tiles: How a frame is cut; None where the graph sees it as a whole.
    """

    schema: int
    name: str
    created: str
    model: ModelInfo
    classes: tuple[str, ...]
    precision: str
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch: int
    preprocessing: Preprocessing
    thresholds: Thresholds
    provenance: dict[str, str]
    parity: dict[str, Any] | None
    files: dict[str, FileInfo]
    engines: tuple[EngineInfo, ...]
    work: GraphWork | None = None
    class_thresholds: dict[str, Thresholds] = field(default_factory=dict)
    descriptor: DescriptorInfo | None = None
    memory: MemoryInfo | None = None
    references: dict[str, ReferenceInfo] = field(default_factory=dict)
    tiles: TileGrid | None = None

    def thresholds_of(self, class_name: str) -> Thresholds:
        """A class's own thresholds, or those of all."""
        return self.class_thresholds.get(class_name, self.thresholds)

    @property
    def memory_files(self) -> set[str]:
        """Paths of all memories, those in use and those to go back to."""
        return {name for info in self.references.values() for name in (info.file, *info.history)}

    @property
    def dynamic_batch(self) -> bool:
        """Whether any batch from 1 to `max_batch` runs."""
        return isinstance(self.inputs[0].shape[0], str)

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) of the frames that the graph takes: the camera's where it resizes, else the model's."""
        _, height, width, _ = self.inputs[0].shape
        return int(height), int(width)

    @property
    def map_size(self) -> tuple[int, int]:
        """(height, width) of a frame's map: the model's, or with tiles that of their maps put together."""
        size = self.model.image_size
        return size if self.tiles is None else self.tiles.canvas(size)

    def to_json(self) -> str:
        """The manifest as JSON text. What came later is left out where it says nothing, for earlier readers."""
        value = asdict(self)
        for one in (value["thresholds"], *value["class_thresholds"].values()):
            if one["roi"] is None:
                del one["roi"]
        if value["model"]["licence"] is None:
            del value["model"]["licence"]
        for name in ("work", "class_thresholds", "descriptor", "memory", "references", "tiles"):
            if not value[name]:
                del value[name]
        return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
