"""Reads a manifest, with every field checked."""

from __future__ import annotations

from typing import Any

from kanoclip.runtime.bundle.json_fields import Fields, as_integer, as_text, parse_object, wrong
from kanoclip.runtime.bundle.manifest.checking import check
from kanoclip.runtime.bundle.manifest.parts import (
    COMPATIBILITIES,
    FLAVOURS,
    HISTORY,
    IN_GRAPH,
    INTERPOLATION,
    RESIZE_RULE,
    EngineInfo,
    FileInfo,
    GraphWork,
    ModelInfo,
    Preprocessing,
    ReferenceInfo,
    Thresholds,
)
from kanoclip.runtime.bundle.manifest.schema import MANIFEST_NAME, PRECISIONS, SCHEMA, Manifest
from kanoclip.runtime.bundle.manifest.signature import (
    BATCH,
    DESCRIPTOR_CHANNELS,
    ROWS,
    DescriptorInfo,
    MemoryInfo,
    TensorSpec,
)
from kanoclip.runtime.bundle.manifest.tiles import MOST_TILES, TileGrid
from kanoclip.runtime.errors import BundleError


def read_manifest(text: str) -> Manifest:
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
    manifest = Manifest(
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
    check(manifest)
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
