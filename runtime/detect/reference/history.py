"""Memories inside of a bundle: the one in use and those before it, to go back to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest import HISTORY, FileInfo, Manifest, ReferenceInfo, Thresholds
from kanoclip.runtime.bundle.store import changed, write
from kanoclip.runtime.detect.reference.files import encode, name_of, read_memory
from kanoclip.runtime.detect.reference.memory import ReferenceMemory
from kanoclip.runtime.errors import MemoryFileError


def memory_of(bundle: Bundle, class_name: str) -> ReferenceMemory | None:
    """The memory in use for a class; None for none.

    Raises:
        MemoryFileError: Its file is damaged, or was made for another bundle.
    """
    info = bundle.manifest.references.get(class_name)
    return None if info is None else read_memory(bundle.file(info.file), bundle.manifest)


def put(bundle: Bundle, output: Path | None, class_name: str, memory: ReferenceMemory, thresholds: Thresholds) -> Path:
    """Puts a memory into a bundle with the thresholds that belong to it; the one before goes into the history.

    Args:
        bundle: Which.
        output: Folder for a copy, whose name the manifest then has; None for the bundle itself.
        class_name: Whose memory it is.
        memory: The new one; its `before` is set here.
        thresholds: The class's new ones.

    Returns:
        The folder of the bundle that has it.

    Raises:
        BundleError: It cannot be written; the old memory stays.
    """
    manifest = bundle.manifest
    content = encode(replace(memory, before=manifest.thresholds_of(class_name)))
    name = name_of(content)
    old = manifest.references.get(class_name)
    earlier = () if old is None else tuple(dict.fromkeys(n for n in (old.file, *old.history) if n != name))
    references = manifest.references | {class_name: ReferenceInfo(name, earlier[:HISTORY])}
    files = manifest.files | {name: FileInfo(hashlib.sha256(content).hexdigest(), len(content))}
    now = changed(manifest, _whose(manifest, class_name), thresholds)
    now = replace(now, references=references, files=_used(files, references.values(), manifest))
    return write(bundle, output, now, {name: content})


def undo(bundle: Bundle, class_name: str) -> ReferenceMemory | None:
    """Goes back to the memory before the one in use, and to the thresholds before it. That one is then gone.

    Args:
        bundle: It is changed in place.
        class_name: Whose memory.

    Returns:
        The memory that is in use now; None where there is none, and the answers are the zero-shot ones again.

    Raises:
        MemoryFileError: The class has no memory, or the one before it cannot be read; nothing is changed.
        BundleError: The bundle cannot be written; nothing is changed.
    """
    manifest = bundle.manifest
    memory = memory_of(bundle, class_name)
    if memory is None:
        raise MemoryFileError(f"{bundle.root} has no memory of {class_name}: there is nothing to undo")
    history = manifest.references[class_name].history
    references = {name: info for name, info in manifest.references.items() if name != class_name}
    last = None
    if history:
        references[class_name] = ReferenceInfo(history[0], history[1:])
        last = read_memory(bundle.file(history[0]), manifest)
    now = manifest
    if memory.before is not None:
        now = changed(manifest, _whose(manifest, class_name), memory.before)
    write(
        bundle,
        None,
        replace(now, references=references, files=_used(manifest.files, references.values(), manifest)),
        {},
    )
    return last


def thresholds_without(bundle: Bundle, class_name: str) -> Thresholds:
    """A class's thresholds from before its first memory; as far back as the history goes.

    Raises:
        MemoryFileError: That memory is damaged, or was made for another bundle.
    """
    info, manifest = bundle.manifest.references.get(class_name), bundle.manifest
    if info is None:
        return manifest.thresholds_of(class_name)
    first = read_memory(bundle.file((info.file, *info.history)[-1]), manifest)
    return first.before or manifest.thresholds_of(class_name)


def _whose(manifest: Manifest, class_name: str) -> str | None:
    """As `store.changed` takes it: a bundle of one class has that class's thresholds for all."""
    return None if len(manifest.classes) == 1 else class_name


def _used(files: dict[str, FileInfo], now: Iterable[ReferenceInfo], before: Manifest) -> dict[str, FileInfo]:
    """The files without those of memories that no class has any more."""
    in_use = {name for info in now for name in (info.file, *info.history)}
    dropped = {name for info in before.references.values() for name in (info.file, *info.history)} - in_use
    return {name: info for name, info in files.items() if name not in dropped}
