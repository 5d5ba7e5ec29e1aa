"""The memories that a detector scores by: those of its bundle, and those that were given to it while it ran."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.detect.reference.memory import ReferenceMemory
from kanoclip.runtime.engines.inputs import MemoryTensors
from kanoclip.runtime.errors import MemoryFileError


@dataclass(frozen=True)
class Own:
    """What was given for a class.

    Attributes:
        memory: None where the class is to have none.
        thresholds: Those that belong to it; None for the bundle's.
    """

    memory: ReferenceMemory | None
    thresholds: Thresholds | None = None


@dataclass(frozen=True)
class Memories:
    """By class; files are read once.

    Attributes:
        read: What was read, by class: the file's path in the bundle, and the memory.
        own: What was given, by class; it is over what the bundle has until that has another memory.
    """

    read: Mapping[str, tuple[str, ReferenceMemory]] = field(default_factory=dict)
    own: Mapping[str, Own] = field(default_factory=dict)

    def of(self, bundle: Bundle) -> Memories:
        """These, with the files that a bundle names now.

        Where a class's file is another one than before, someone has learned or undone a memory since: that is later
        than what was given, which goes.

        Raises:
            MemoryFileError: One of them is damaged or not made for the bundle.
        """
        read = {}
        for name, info in bundle.manifest.references.items():
            known = self.read.get(name)
            if known is None or known[0] != info.file:
                # Bundles without a memory need no safetensors to start.
                from kanoclip.runtime.detect.reference.stored.history import memory_of

                found = memory_of(bundle, name)
                assert found is not None  # the manifest names it
                known = info.file, found
            read[name] = known
        own = {name: one for name, one in self.own.items() if _file(read, name) == _file(self.read, name)}
        return Memories(read, own)

    def with_own(self, bundle: Bundle, class_name: str, own: Own | None) -> Memories:
        """These, with what is given for a class; None for what the bundle has.

        Raises:
            MemoryFileError: The memory was made for another model, or for other tiles.
        """
        if own is None:
            return replace(self, own={name: one for name, one in self.own.items() if name != class_name})
        memory = own.memory
        manifest = bundle.manifest
        if memory is not None:
            if manifest.memory is None or manifest.descriptor is None:
                raise MemoryFileError(f"{manifest.name} takes no reference memory: export it again")
            if memory.descriptor_sha256 != manifest.descriptor.sha256:
                raise MemoryFileError(f"the memory is not of {manifest.name}'s descriptors: fit it again")
            if memory.tiles != manifest.tiles:
                raise MemoryFileError(f"the memory is of other tiles than {manifest.name}: fit it again")
        return replace(self, own={**self.own, class_name: own})

    def over(self, bundle: Bundle) -> Bundle:
        """The bundle with the thresholds that were given over its own."""
        given = {name: one.thresholds for name, one in self.own.items() if one.thresholds is not None}
        classes = bundle.manifest.class_thresholds | given
        return replace(bundle, manifest=replace(bundle.manifest, class_thresholds=classes)) if given else bundle

    def memory(self, class_name: str) -> ReferenceMemory | None:
        """A class's; None for none."""
        if class_name in self.own:
            return self.own[class_name].memory
        known = self.read.get(class_name)
        return None if known is None else known[1]

    def tensors(self, class_name: str) -> MemoryTensors | None:
        """A class's as engines take it; None for none."""
        memory = self.memory(class_name)
        return None if memory is None else memory.tensors()


def _file(read: Mapping[str, tuple[str, ReferenceMemory]], class_name: str) -> str | None:
    return read[class_name][0] if class_name in read else None
