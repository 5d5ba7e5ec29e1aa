"""A memory as a file: written, and read with every part checked. docs/bundle-format.md has the format."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from kanoclip.runtime.bundle.json_fields import Fields, as_integer, as_text
from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.bundle.manifest.schema import Manifest
from kanoclip.runtime.bundle.manifest.signature import FUSION_NUMBERS
from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.detect.reference.memory import Correction, Fusion, Label, ReferenceMemory
from kanoclip.runtime.errors import BundleError, MemoryFileError

FOLDER = "references"
SUFFIX = ".safetensors"
KIND, VERSION = "kanoclip-memory", "1"
UNIT = 5e-3
"""By how much a row's length may differ from 1: half precision makes it about a tenth of this."""
_TYPES = {
    "rows": "float16",
    "image_of": "int32",
    "centre": "float32",
    "fusion": "float32",
    "loo_scores": "float32",
    "loo_peaks": "float32",
}
_TEXTS = ("kind", "version", "descriptor_sha256", "created", "note", "names", "tiles", "before")
CORRECTIONS, IMAGES = "corrections", "correction_images"
"""A text and an array that only memories with corrections have."""
REPEATS = "repeats"
"""A text that only memories with references that show the same have."""


def encode(memory: ReferenceMemory) -> bytes:
    """The file's content."""
    images: dict[str, npt.NDArray[Any]] = {}
    texts: dict[str, str] = {}
    if memory.corrections:
        images[IMAGES] = np.frombuffer(b"".join(one.image for one in memory.corrections), np.uint8)
        texts[CORRECTIONS] = json.dumps([_as_json(one) for one in memory.corrections])
    if memory.repeats:
        texts[REPEATS] = json.dumps(memory.repeats)
    return save(
        images
        | {
            "rows": memory.rows.astype(np.float16),
            "image_of": memory.image_of.astype(np.int32),
            "centre": memory.centre.astype(np.float32),
            "fusion": memory.fusion.numbers(),
            "loo_scores": memory.loo_scores.astype(np.float32),
            "loo_peaks": memory.loo_peaks.astype(np.float32),
        },
        texts
        | {
            "kind": KIND,
            "version": VERSION,
            "descriptor_sha256": memory.descriptor_sha256,
            "created": memory.created,
            "note": memory.note,
            "names": json.dumps(memory.names),  # escaped: a file's name need not be UTF-8
            "tiles": json.dumps(None if memory.tiles is None else asdict(memory.tiles)),
            "before": json.dumps(None if memory.before is None else asdict(memory.before)),
        },
    )


def name_of(content: bytes) -> str:
    """The file's path in a bundle, by its content."""
    return f"{FOLDER}/{hashlib.sha256(content).hexdigest()[:16]}{SUFFIX}"


def read_memory(path: Path, manifest: Manifest) -> ReferenceMemory:
    """Reads a memory and checks that it is whole and made for a bundle.

    Args:
        path: The file.
        manifest: Of the bundle.

    Raises:
        MemoryFileError: It cannot be read, is damaged, or was made for other descriptors, tiles or fewer rows.
    """
    arrays, texts = _parts(path)
    try:
        memory = _memory(arrays, texts)
    except BundleError as error:  # worded for a manifest
        raise _damaged(path, "its tiles or earlier thresholds make no sense") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if manifest.descriptor is None or manifest.memory is None:
        raise MemoryFileError(f"{path}: the bundle's graph takes no reference memory: export it again")
    if memory.descriptor_sha256 != manifest.descriptor.sha256:
        raise MemoryFileError(
            f"{path} was learned with the descriptors of another model or export: run kanoclip-learn again"
        )
    if memory.centre.shape != (manifest.descriptor.channels,):
        raise _damaged(path, f"its descriptors have {len(memory.centre)} channels")
    if memory.tiles != manifest.tiles:
        raise MemoryFileError(f"{path} was learned with other tiles than the bundle's: run kanoclip-learn again")
    if len(memory.rows) > manifest.memory.rows:
        raise MemoryFileError(
            f"{path} has {len(memory.rows)} rows, and the bundle's graph takes {manifest.memory.rows}: "
            "run kanoclip-learn again"
        )
    return memory


def _parts(path: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Arrays by name, those that are expected and of their types, and texts by name."""
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
            texts = dict(file.metadata() or {})
    except (OSError, SafetensorError, TypeError, KeyError, ValueError) as error:
        raise _damaged(path, " ".join(str(error).split())[:120]) from error
    found = {name: str(array.dtype) for name, array in arrays.items()}
    with_images = {IMAGES: "uint8"} if CORRECTIONS in texts else {}
    if found != _TYPES | with_images:
        raise _damaged(path, f"its arrays are {found}")
    if set(texts) - {CORRECTIONS, REPEATS} != set(_TEXTS) or (texts["kind"], texts["version"]) != (KIND, VERSION):
        raise _damaged(path, f"it is no {KIND} of version {VERSION}")
    return arrays, texts


def _memory(arrays: dict[str, npt.NDArray[Any]], texts: dict[str, str]) -> ReferenceMemory:
    """The memory, whose parts fit each other.

    Raises:
        ValueError: They do not.
        BundleError: A text is not what it should be.
    """
    rows, image_of = arrays["rows"], arrays["image_of"]
    names = json.loads(texts["names"])
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError("its names are no list of texts")
    count = len(names)
    shapes = {
        "rows": rows.ndim == 2 and rows.size > 0,
        "image_of": image_of.shape == rows.shape[:1],
        "centre": arrays["centre"].shape == rows.shape[1:],
        "fusion": arrays["fusion"].shape == (FUSION_NUMBERS,),
        "loo_scores": arrays["loo_scores"].shape == (count,),
        "loo_peaks": arrays["loo_peaks"].shape == (count,),
    }
    if wrong := [name for name, right in shapes.items() if not right]:
        raise ValueError(f"{wrong[0]} is of a wrong shape")
    for name, array in arrays.items():
        if not np.isfinite(array.astype(np.float64)).all():
            raise ValueError(f"{name} holds values that are no numbers")
    if np.abs(np.linalg.norm(rows.astype(np.float32), axis=1) - 1).max() > UNIT:
        raise ValueError("its rows are no unit vectors")
    if image_of.min() < 0 or image_of.max() >= count:
        raise ValueError("a row is of no reference")
    for name in ("loo_scores", "loo_peaks"):
        if arrays[name].min() < 0 or arrays[name].max() > 1:
            raise ValueError(f"{name} are not from 0 to 1")
    if arrays["fusion"][0] != 1 or arrays["fusion"][1] <= 0:
        raise ValueError("its fusion is none")
    return ReferenceMemory(
        rows=rows,
        image_of=image_of,
        centre=arrays["centre"],
        fusion=Fusion.from_numbers(arrays["fusion"]),
        descriptor_sha256=as_text(texts["descriptor_sha256"], "descriptor_sha256"),
        names=tuple(names),
        loo_scores=arrays["loo_scores"],
        loo_peaks=arrays["loo_peaks"],
        created=as_text(texts["created"], "created"),
        tiles=_optional(texts["tiles"], "tiles", _tiles),
        before=_optional(texts["before"], "before", _thresholds),
        note=texts["note"],
        corrections=_corrections(texts[CORRECTIONS], arrays[IMAGES], count) if CORRECTIONS in texts else (),
        repeats=_repeats(texts[REPEATS], count) if REPEATS in texts else (),
    )


def _as_json(one: Correction) -> dict[str, Any]:
    return asdict(one) | {"label": one.label.value, "image": len(one.image)}


def _corrections(text: str, images: npt.NDArray[Any], references: int) -> tuple[Correction, ...]:
    """The corrections, whose images lie one after the other in an array.

    Raises:
        ValueError: They do not fit the array or the references.
        BundleError: A field is not what it should be.
    """
    value, left = json.loads(text), images.tobytes() if images.ndim == 1 else b""
    if not isinstance(value, list):
        raise ValueError("its corrections are no list")
    found = []
    for number, one in enumerate(value):
        fields = Fields(one, f"{CORRECTIONS}[{number}]")
        length = fields.integer("image", 0)
        reference = fields.optional("reference", lambda value, where: as_integer(value, where, 0))
        size = fields.items("size", lambda value, where: as_integer(value, where, 1))
        found.append(
            Correction(
                label=Label(fields.choice("label", tuple(label.value for label in Label))),
                name=fields.text("name"),
                sha256=fields.digest("sha256"),
                labelled_at=fields.utc_time("labelled_at"),
                before=fields.share("before"),
                threshold=fields.share("threshold"),
                score=fields.share("score"),
                reference=reference,
                image=left[:length],
                size=(size[0], size[-1]),
            )
        )
        fields.done()
        if len(left) < length or len(size) != 2 or (reference or 0) >= references:
            raise ValueError("its corrections do not fit")
        left = left[length:]
    if left:
        raise ValueError("its corrections do not fit")
    return tuple(found)


def _repeats(text: str, references: int) -> tuple[int, ...]:
    """The numbers of references that show what another one shows.

    Raises:
        ValueError: They are none.
    """
    value = json.loads(text)
    numbers = range(references)
    if not isinstance(value, list) or not all(type(one) is int and one in numbers for one in value):
        raise ValueError("its repeats are no references")
    if len(set(value)) == references:
        raise ValueError("all of its references are repeats")
    return tuple(value)


def _optional(text: str, where: str, make: Callable[[Fields], Any]) -> Any:
    value = json.loads(text)
    if value is None:
        return None
    fields = Fields(value, where)
    made = make(fields)
    fields.done()
    return made


def _tiles(fields: Fields) -> TileGrid:
    return TileGrid(fields.integer("rows", 1), fields.integer("columns", 1), fields.share("overlap"))


def _thresholds(fields: Fields) -> Thresholds:
    return Thresholds(
        image=fields.share("image"),
        pixel=fields.share("pixel"),
        min_area=fields.integer("min_area", 0),
        origin=fields.text("origin"),
        roi=fields.optional_digest("roi"),
    )


def _damaged(path: Path, why: str) -> MemoryFileError:
    return MemoryFileError(f"{path} is damaged or no memory ({why}): copy the bundle, or run kanoclip-learn again")
