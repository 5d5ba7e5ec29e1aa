"""Memories inside of a bundle: the one in use and those before it, to go back to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.parts import HISTORY, FileInfo, ReferenceInfo, Thresholds
from kanoclip.runtime.bundle.manifest.schema import Manifest
from kanoclip.runtime.bundle.store import changed, write
from kanoclip.runtime.detect.reference.memory import ReferenceMemory
from kanoclip.runtime.detect.reference.stored.files import encode, name_of, read_memory
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
    return put_steps(bundle, output, class_name, [(memory, thresholds)])


def put_steps(
    bundle: Bundle, output: Path | None, class_name: str, steps: Sequence[tuple[ReferenceMemory, Thresholds]]
) -> Path:
    """As `put`, several memories one after the other, so that `undo` takes back one at a time; all or none.

    Args:
        bundle: Which.
        output: As `put` takes it, as `class_name`.
        class_name: Whose memories they are.
        steps: Each memory with its thresholds, oldest first; at least one.

    Raises:
        BundleError: It cannot be written; the old memory stays.
    """
    manifest, now, added = bundle.manifest, bundle.manifest, {}
    for memory, thresholds in steps:
        content = encode(replace(memory, before=now.thresholds_of(class_name)))
        name = name_of(content)
        old = now.references.get(class_name)
        earlier = () if old is None else tuple(dict.fromkeys(n for n in (old.file, *old.history) if n != name))
        references = now.references | {class_name: ReferenceInfo(name, earlier[:HISTORY])}
        files = now.files | {name: FileInfo(hashlib.sha256(content).hexdigest(), len(content))}
        added[name] = content
        now = changed(now, _whose(now, class_name), thresholds)
        now = replace(now, references=references, files=_used(files, references.values(), manifest, added))
    return write(bundle, output, now, {name: content for name, content in added.items() if name in now.files})


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


def without(bundle: Bundle, class_name: str) -> Bundle:
    """The bundle as it was before a class's first memory: what a copy of it begins with. On the disk nothing changes.

    Raises:
        MemoryFileError: The first memory is damaged, or was made for another bundle.
    """
    manifest = bundle.manifest
    if class_name not in manifest.references:
        return bundle
    references = {name: info for name, info in manifest.references.items() if name != class_name}
    now = changed(manifest, _whose(manifest, class_name), thresholds_without(bundle, class_name))
    files = _used(manifest.files, references.values(), manifest)
    return replace(bundle, manifest=replace(now, references=references, files=files))


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


def _used(
    files: dict[str, FileInfo], now: Iterable[ReferenceInfo], before: Manifest, added: Iterable[str] = ()
) -> dict[str, FileInfo]:
    """The files without those of memories that no class has any more, of before or just added."""
    in_use = {name for info in now for name in (info.file, *info.history)}
    dropped = (before.memory_files | set(added)) - in_use
    return {name: info for name, info in files.items() if name not in dropped}
