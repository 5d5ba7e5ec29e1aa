"""The bundle's manifest: what the graph is, how to feed it, what it was made from. Read with every field checked."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

from kanoclip.runtime.bundle.json_fields import DOCUMENT, Fields, as_integer, as_text, is_one_line, parse_object, wrong
from kanoclip.runtime.errors import BundleError

MANIFEST_NAME = DOCUMENT
MODEL_FILE = "model.onnx"
SCHEMA = 1
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int8-cpu", "fp8")
EXACT = "fp32"
"""The precision whose products a GPU must not round to TF32: that alone takes scores out of their bound."""
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
BATCH = "batch"
"""Stands for a dynamic batch axis in a tensor's shape."""
DESCRIPTOR = "descriptor"
"""Name of the output that a reference memory is made of."""
DESCRIPTOR_CHANNELS = 384
"""Most channels of a descriptor: a memory's size and the time to search it grow with them."""
ROWS = "rows"
"""Stands for the axis of a memory's rows in a tensor's shape: from one to the manifest's `memory.rows`."""
MEMORY_INPUTS = ("memory", "memory_bias", "memory_centre", "memory_fusion")
"""Names of the inputs that hold a reference memory, the same for every frame of a batch."""
FUSION_NUMBERS = 8
"""Length of the input `memory_fusion`."""
HISTORY = 10
"""Most memories of a class that a bundle keeps beside the one in use."""
MOST_TILES = 16


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
class TensorSpec:
    """An input or output of the graph; BATCH stands for a dynamic batch axis, ROWS for a memory's rows."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Preprocessing:
    """What happens outside of the graph: the names in `kanoclip.runtime.detect.preprocess`."""

    resize: str
    interpolation: str


NOT_CALIBRATED = "default, not calibrated"
"""Origin of thresholds that nothing set."""
_NO_PART = "not your part's"  # in the origin of those that the shipped model comes with


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
class DescriptorInfo:
    """The graph's third output, `descriptor` float32 [B, rows * columns, channels]: a unit vector for each cell.

    Attributes:
        grid: (rows, columns) of the cells over the frame, row by row from the top left.
        channels: Length of each vector, from 1 to DESCRIPTOR_CHANNELS.
        sha256: Digest of all that decides the vectors. A reference memory fits the bundles that have its digest, and no
            others.
    """

    grid: tuple[int, int]
    channels: int
    sha256: str

    @property
    def cells(self) -> int:
        """How many vectors a frame has."""
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class MemoryInfo:
    """What the graph takes as a reference memory, in the inputs MEMORY_INPUTS.

    Attributes:
        rows: Most rows that a memory may have.
    """

    rows: int


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
class TileGrid:
    """How a frame is cut into tiles, each of which the graph sees at the model's size.

    Attributes:
        rows: Tiles from top to bottom.
        columns: Tiles from left to right.
        overlap: Share of a tile's side that it has in common with its neighbour, from 0 to 0.5.
    """

    rows: int
    columns: int
    overlap: float

    @property
    def count(self) -> int:
        """How many tiles a frame has."""
        return self.rows * self.columns

    @property
    def title(self) -> str:
        """As the command line has it: rows, then columns, such as `3x1`."""
        return f"{self.rows}x{self.columns}"

    def starts(self, size: tuple[int, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Where tiles of `size` begin in the stitched map: the first rows, and the first columns, in pixels."""
        height, width = size
        step = 1 - self.overlap
        # Halves go upwards: to the next even number, three tiles would meet where each shares half with its neighbour.
        return (
            tuple(int(number * step * height + 0.5) for number in range(self.rows)),
            tuple(int(number * step * width + 0.5) for number in range(self.columns)),
        )

    def canvas(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) in pixels of the map that maps of `size`, one for each tile, are stitched to."""
        tops, lefts = self.starts(size)
        return tops[-1] + size[0], lefts[-1] + size[1]


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

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Reads and checks a manifest.

        Raises:
            BundleError: It is no JSON, of an unknown schema, or a field is missing, unknown, of a wrong type or at odds
                with another.
        """
        value = parse_object(text)
        schema = value.get("schema")
        if isinstance(schema, bool) or not isinstance(schema, int) or schema != SCHEMA:
            found = f"schema {schema}" if isinstance(schema, int) else "no schema number"
            raise BundleError(
                f"{MANIFEST_NAME} has {found}, this version reads schema {SCHEMA}: upgrade kanoclip-edge, or export "
                "the bundle again"
            )
        top = Fields(value, "")
        manifest = cls(
            schema=SCHEMA,
            name=top.text("name"),
            created=top.utc_time("created"),
            model=_model(top.fields("model")),
            classes=tuple(top.items("classes", as_text)),
            precision=top.choice("precision", PRECISIONS),
            opset=top.integer("opset", 1),
            inputs=tuple(top.items("inputs", _tensor)),
            outputs=tuple(top.items("outputs", _tensor)),
            max_batch=top.integer("max_batch", 1),
            preprocessing=_preprocessing(top.fields("preprocessing")),
            thresholds=_thresholds(top.fields("thresholds")),
            class_thresholds=top.mapping("class_thresholds", lambda value, where: _thresholds(Fields(value, where)))
            if top.has("class_thresholds")
            else {},
            provenance=top.mapping("provenance", as_text),
            parity=top.json_object("parity"),
            files=top.mapping("files", _file),
            engines=tuple(top.items("engines", _engine)),
            work=top.optional("work", _work) if top.has("work") else None,
            descriptor=top.optional("descriptor", _descriptor) if top.has("descriptor") else None,
            memory=top.optional("memory", _memory) if top.has("memory") else None,
            references=top.mapping("references", _reference) if top.has("references") else {},
            tiles=top.optional("tiles", _tiles) if top.has("tiles") else None,
        )
        top.done("schema")
        _cross_check(manifest)
        return manifest


def _model(fields: Fields) -> ModelInfo:
    size = fields.items("image_size", lambda value, where: as_integer(value, where, 1))
    if len(size) != 2:
        raise wrong("model.image_size", "[height, width]")
    info = ModelInfo(
        backbone=fields.text("backbone"),
        image_size=(size[0], size[1]),
        trained=fields.flag("trained"),
        weights=fields.text("weights"),
        weights_sha256=fields.optional_digest("weights_sha256"),
        checkpoint_sha256=fields.optional_digest("checkpoint_sha256"),
        prompts=fields.choice("prompts", ("learned", "template", "handcrafted")),
        vv=fields.flag("vv"),
        bicmci=fields.flag("bicmci"),
        conv_adapter=fields.flag("conv_adapter"),
        global_token=fields.choice("global_token", ("original", "local")),
        licence=fields.text("licence") if fields.has("licence") else None,
    )
    fields.done()
    return info


def _tensor(value: Any, where: str) -> TensorSpec:
    fields = Fields(value, where)

    def axis(item: Any, place: str) -> int | str:
        return item if item in (BATCH, ROWS) else as_integer(item, place, 1)

    spec = TensorSpec(fields.text("name"), fields.text("dtype"), tuple(fields.items("shape", axis)))
    fields.done()
    return spec


def _preprocessing(fields: Fields) -> Preprocessing:
    rule = Preprocessing(fields.text("resize"), fields.text("interpolation"))
    fields.done()
    if rule.resize not in (RESIZE_RULE, IN_GRAPH) or rule.interpolation != INTERPOLATION:
        raise BundleError(
            f"the bundle resizes by '{rule.resize}, {rule.interpolation}', which this version does not know: upgrade "
            "kanoclip-edge, or export the bundle again"
        )
    return rule


def _thresholds(fields: Fields) -> Thresholds:
    thresholds = Thresholds(
        image=fields.share("image"),
        pixel=fields.share("pixel"),
        min_area=fields.integer("min_area", 0),
        origin=fields.text("origin"),
        roi=fields.optional_digest("roi") if fields.has("roi") else None,
    )
    fields.done()
    return thresholds


def _file(value: Any, where: str) -> FileInfo:
    fields = Fields(value, where)
    info = FileInfo(fields.digest("sha256"), fields.integer("size", 0))
    fields.done()
    return info


def _engine(value: Any, where: str) -> EngineInfo:
    fields = Fields(value, where)
    info = EngineInfo(
        file=fields.text("file"),
        flavour=fields.choice("flavour", FLAVOURS),
        version=fields.text("version"),
        compute_capabilities=tuple(fields.items("compute_capabilities", as_text)),
        platform=fields.text("platform"),
        device=fields.optional("device", as_text),
        cuda_major=fields.optional("cuda_major", lambda value, where: as_integer(value, where, 1)),
        compatibility=fields.choice("compatibility", COMPATIBILITIES),
        stripped=fields.flag("stripped"),
    )
    fields.done()
    return info


def _work(value: Any, where: str) -> GraphWork:
    fields = Fields(value, where)
    work = GraphWork(
        gemm_flops=fields.integer("gemm_flops", 0),
        weight_bytes=fields.integer("weight_bytes", 0),
        frame_bytes=fields.integer("frame_bytes", 0),
    )
    fields.done()
    return work


def _descriptor(value: Any, where: str) -> DescriptorInfo:
    fields = Fields(value, where)
    grid = fields.items("grid", lambda value, place: as_integer(value, place, 1))
    if len(grid) != 2:
        raise wrong(f"{where}.grid", "[rows, columns]")
    channels = fields.integer("channels", 1)
    if channels > DESCRIPTOR_CHANNELS:
        raise wrong(f"{where}.channels", f"an integer of at most {DESCRIPTOR_CHANNELS}")
    info = DescriptorInfo((grid[0], grid[1]), channels, fields.digest("sha256"))
    fields.done()
    return info


def _memory(value: Any, where: str) -> MemoryInfo:
    fields = Fields(value, where)
    info = MemoryInfo(fields.integer("rows", 1))
    fields.done()
    return info


def _reference(value: Any, where: str) -> ReferenceInfo:
    fields = Fields(value, where)
    info = ReferenceInfo(fields.text("file"), tuple(fields.items("history", as_text)))
    fields.done()
    if len(info.history) > HISTORY:
        raise wrong(f"{where}.history", f"a list of at most {HISTORY}")
    return info


def _tiles(value: Any, where: str) -> TileGrid:
    fields = Fields(value, where)
    grid = TileGrid(fields.integer("rows", 1), fields.integer("columns", 1), fields.share("overlap"))
    fields.done()
    if not 2 <= grid.count <= MOST_TILES:
        raise wrong(where, f"2 to {MOST_TILES} tiles")
    if grid.overlap > 0.5:
        raise wrong(f"{where}.overlap", "a number from 0 to 0.5")
    return grid


def _cross_check(manifest: Manifest) -> None:
    if not manifest.classes or len(set(manifest.classes)) != len(manifest.classes):
        raise wrong("classes", "a list of different names, at least one")
    for name in manifest.files:
        if not is_safe_path(name):
            raise BundleError(
                f"{MANIFEST_NAME} names the file {name!r}, which is no path inside of the bundle: do not use it"
            )
    if MODEL_FILE not in manifest.files:
        raise BundleError(f"{MANIFEST_NAME} does not list {MODEL_FILE}: copy or export the bundle again")
    for engine in manifest.engines:
        if engine.file not in manifest.files:
            raise BundleError(f"{MANIFEST_NAME} does not list the engine {engine.file}: copy or export it again")
    dynamic = bool(manifest.inputs) and manifest.inputs[0].shape[:1] == (BATCH,)
    height, width = size = manifest.model.image_size
    frame = _camera_size(manifest) if manifest.preprocessing.resize == IN_GRAPH else size
    axis = BATCH if dynamic else manifest.max_batch
    if manifest.memory is not None and manifest.descriptor is None:
        raise wrong("memory", "left out of a bundle without descriptors")
    inputs, outputs = graph_signature(
        size, len(manifest.classes), axis, frame, manifest.descriptor, memory=manifest.memory is not None
    )
    if (descriptor := manifest.descriptor) is None:
        described = "without descriptors"
    else:
        described = f"with descriptors of {descriptor.cells} cells and {descriptor.channels} channels"
    if manifest.memory is not None:
        described += " and a reference memory"
    kind = f"{len(manifest.classes)} classes at {height}x{width} {described}"
    for name, found, wanted in (("inputs", manifest.inputs, inputs), ("outputs", manifest.outputs, outputs)):
        if found != wanted:
            raise wrong(name, f"what a bundle of {kind} has")
    if not set(manifest.class_thresholds) <= set(manifest.classes):
        raise wrong("class_thresholds", "thresholds of the bundle's own classes")
    if not set(manifest.references) <= set(manifest.classes):
        raise wrong("references", "memories of the bundle's own classes")
    if manifest.references and manifest.memory is None:
        raise wrong("references", "left out of a bundle whose graph takes no memory")
    for reference in manifest.references.values():
        for name in (reference.file, *reference.history):
            if name not in manifest.files:
                raise BundleError(f"{MANIFEST_NAME} does not list the memory {name}: copy or learn it again")
    if manifest.tiles is not None and manifest.preprocessing.resize == IN_GRAPH:
        raise wrong("tiles", "left out of a bundle whose graph resizes the camera's frame")


def _camera_size(manifest: Manifest) -> tuple[int, int]:
    shape = manifest.inputs[0].shape if manifest.inputs else ()
    sides = [axis for axis in shape[1:3] if isinstance(axis, int)]
    if len(shape) != 4 or len(sides) != 2:
        raise wrong("inputs", "frames of a camera's size, since the graph resizes them")
    return sides[0], sides[1]


def graph_signature(
    size: tuple[int, int],
    classes: int,
    batch: int | str,
    frame: tuple[int, int],
    descriptor: DescriptorInfo | None = None,
    *,
    memory: bool = False,
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of a bundle's graph.

    Args:
        size: (height, width) of the model in pixels.
        classes: How many are baked; several need an index.
        batch: The batch axis: a fixed size, or BATCH.
        frame: (height, width) of the frames in pixels; other than `size` where the graph resizes.
        descriptor: What the third output is; None where there is none.
        memory: Whether the graph takes a reference memory of such descriptors.
    """
    height, width = size
    frames = TensorSpec("frame", "uint8", (batch, *frame, 3))
    index = (TensorSpec("class_index", "int64", (batch,)),) if classes > 1 else ()
    outputs = [TensorSpec("map", "float32", (batch, height, width)), TensorSpec("score", "float32", (batch,))]
    if descriptor is not None:
        outputs.append(TensorSpec(DESCRIPTOR, "float32", (batch, descriptor.cells, descriptor.channels)))
    held: tuple[TensorSpec, ...] = ()
    if memory and descriptor is not None:
        shapes: tuple[tuple[int | str, ...], ...] = (
            (ROWS, descriptor.channels),
            (ROWS,),
            (descriptor.channels,),
            (FUSION_NUMBERS,),
        )
        held = tuple(TensorSpec(name, "float32", shape) for name, shape in zip(MEMORY_INPUTS, shapes, strict=True))
    return (frames, *index, *held), tuple(outputs)


def is_safe_path(name: str) -> bool:
    """Whether a path of the manifest stays inside of the bundle, on any operating system."""
    parts = PurePosixPath(name).parts
    plain = not name.startswith("/") and "\\" not in name and ":" not in name and is_one_line(name)
    return plain and bool(parts) and ".." not in parts and PurePosixPath(*parts).as_posix() == name
