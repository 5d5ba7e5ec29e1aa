"""What a manifest says of the model, its thresholds, and the bundle's files and engines."""

from __future__ import annotations

from dataclasses import dataclass

FLAVOURS = ("tensorrt-rtx", "tensorrt")
COMPATIBILITIES = ("none", "same-compute-capability", "ampere-plus")
"""Which GPUs an engine of full TensorRT runs on: the kind that built it, its generation, or Ampere and later."""
RESIZE_RULE = "stretch"
"""The image is stretched to the model's size, as AnomalyCLIP and APRIL-GAN do; nothing is cropped away."""
IN_GRAPH = "stretch in the graph"
"""The graph takes the camera's frame and does the same resize itself, by matrices: within 1 of 255 of the runtime's."""
INTERPOLATION = "halve-area-linear"
"""Means over 2x2 pixels while both axes stay at or above the model's size; then each axis that still shrinks is
averaged over area (antialiased) and each axis that grows is interpolated linearly. Halving first costs a third of one
INTER_AREA pass from 1080p and differs from it by 0.3 to 0.5 of 255 on average (docs/design-notes.md)."""
HISTORY = 10
"""Most memories of a class that a bundle keeps beside the one in use."""
NOT_CALIBRATED = "default, not calibrated"
"""Origin of thresholds that nothing set."""
_NO_PART = "not your part's"  # in the origin of those that the shipped model comes with


@dataclass(frozen=True)
class ModelInfo:
    """Which model the graph holds.

    Attributes:
        backbone: Name in the registry of `kanoclip.train.backbones`.
        image_size: (height, width) in pixels.
        trained: False when the weights are seeded or the head is untrained: maps and scores mean nothing.
        weights: Origin of the backbone's weights: `seeded:0`, `openai`, `file:NAME`.
        weights_sha256: Digest of the weights file, None for seeded ones.
        checkpoint_sha256: Digest of the learned tensors, None for an untrained head.
        prompts: `learned`, `template` or `handcrafted`.
        vv: The V-V path is in the graph.
        bicmci: Bi-CMCI is in the graph.
        conv_adapter: The Conv-Adapter is in the graph.
        global_token: `original` or `local`.
        licence: Of the backbone's weights, such as `MIT`; `unknown` for a file that nobody has published under that
            sha256. None for seeded weights, and in a bundle of an export that did not say it.
    """

    backbone: str
    image_size: tuple[int, int]
    trained: bool
    weights: str
    weights_sha256: str | None
    checkpoint_sha256: str | None
    prompts: str
    vv: bool
    bicmci: bool
    conv_adapter: bool
    global_token: str
    licence: str | None = None


@dataclass(frozen=True)
class Preprocessing:
    """What happens outside of the graph: the names in `kanoclip.runtime.detect.preprocess`."""

    resize: str
    interpolation: str


@dataclass(frozen=True)
class Thresholds:
    """What turns scores and maps into verdicts.

    Attributes:
        image: Score from which a frame is anomalous, in [0, 1].
        pixel: Map value from which a pixel belongs to a region, in [0, 1].
        min_area: Smallest region in pixels of the original frame; the peak of an anomalous image may be smaller.
        origin: How they were found.
        roi: Digest of the region of interest that they were calibrated inside of; None for the whole image.
    """

    image: float
    pixel: float
    min_area: int
    origin: str
    roi: str | None = None

    @property
    def of_the_part(self) -> bool:
        """Whether good frames of a part set them, or a person; those that a model comes with know no part."""
        return not (self.origin.startswith(NOT_CALIBRATED) or _NO_PART in self.origin)


@dataclass(frozen=True)
class FileInfo:
    """Digest and size in bytes of a file."""

    sha256: str
    size: int


@dataclass(frozen=True)
class EngineInfo:
    """A TensorRT engine in the bundle.

    Attributes:
        file: Path in the bundle.
        flavour: `tensorrt-rtx` or `tensorrt`.
        version: Exact version that built it; no other loads it.
        compute_capabilities: What it runs on, such as `8.6`.
        platform: Operating system and architecture, such as `linux-aarch64`.
        device: Name of the GPU that built it, None for RTX.
        cuda_major: Of the CUDA that built it, None for RTX.
        compatibility: One of COMPATIBILITIES; `none` for RTX, whose list of targets says it.
        stripped: Its weights come from the graph when it is loaded.
    """

    file: str
    flavour: str
    version: str
    compute_capabilities: tuple[str, ...]
    platform: str
    device: str | None = None
    cuda_major: int | None = None
    compatibility: str = "none"
    stripped: bool = False


@dataclass(frozen=True)
class ReferenceInfo:
    """The reference memory that was learned for a class.

    Attributes:
        file: Path in the bundle of the memory in use.
        history: Paths of those before it, newest first, at most HISTORY.
    """

    file: str
    history: tuple[str, ...] = ()


@dataclass(frozen=True)
class GraphWork:
    """What the graph has to do, counted from its ONNX file: what `kanoclip-bench` holds a machine's peak against.

    Attributes:
        gemm_flops: Operations a frame in MatMul, Gemm and Conv, multiply and add counted as two.
        weight_bytes: Of all constants as they are stored, read once a batch.
        frame_bytes: Of inputs and outputs, a frame.
    """

    gemm_flops: int
    weight_bytes: int
    frame_bytes: int
