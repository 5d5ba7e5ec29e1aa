"""Whether the parts of a manifest agree with each other."""

from __future__ import annotations

from pathlib import PurePosixPath

from kanoclip.runtime.bundle.json_fields import is_one_line, wrong
from kanoclip.runtime.bundle.manifest.parts import IN_GRAPH
from kanoclip.runtime.bundle.manifest.schema import MANIFEST_NAME, MODEL_FILE, Manifest
from kanoclip.runtime.bundle.manifest.signature import BATCH, graph_signature
from kanoclip.runtime.errors import BundleError


def check(manifest: Manifest) -> None:
    """Refuses a manifest whose fields are at odds with each other.

    Raises:
        BundleError: They are.
    """
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


def is_safe_path(name: str) -> bool:
    """Whether a path of the manifest stays inside of the bundle, on any operating system."""
    parts = PurePosixPath(name).parts
    plain = not name.startswith("/") and "\\" not in name and ":" not in name and is_one_line(name)
    return plain and bool(parts) and ".." not in parts and PurePosixPath(*parts).as_posix() == name
