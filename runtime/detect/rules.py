"""What frames are decided by, class by class: thresholds, regions of interest and reference memories.

They change together, from one frame to the next.
"""

from __future__ import annotations

import numpy as np

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.detect.reference.memory import ReferenceMemory
from kanoclip.runtime.detect.reference.stored.read import Memories, Own
from kanoclip.runtime.detect.settings.settings import Settings
from kanoclip.runtime.detect.settings.thresholds import Limits, limits_of, unkept_promises
from kanoclip.runtime.detect.tiles import WHOLE, Tiling
from kanoclip.runtime.errors import FrameError
from kanoclip.runtime.types import Mask, RegionOfInterest


class Rules:
    """What a detector decides by. Read by any thread; changed by one at a time.

    Args:
        bundle: The model.
        settings: Over the bundle's thresholds.

    Attributes:
        bundle: The model, with the thresholds and memories of now.
        settings: Over these.
        tiling: How frames are cut.

    Raises:
        SettingsError: The settings name a class that the bundle does not have, or leave nothing of the image.
    """

    def __init__(self, bundle: Bundle, settings: Settings) -> None:
        self.bundle = bundle
        self._classes = bundle.manifest.classes
        self._unkept: set[tuple[str, str | None]] = set()
        self._memories = Memories()
        self.decide_by(settings)

    def decide_by(self, settings: Settings, bundle: Bundle | None = None) -> None:
        """Changes what it decides by, from the next frame on; may be called from any thread, but one at a time.

        Args:
            settings: Over the bundle's thresholds.
            bundle: The bundle with other thresholds or memories, as `Bundle.reread` gives it, or with other tiles; None
                for what it has.

        Raises:
            SettingsError: As at the start; nothing is changed then.
            MemoryFileError: A memory is damaged or not made for this bundle; nothing is changed then.
        """
        settings.check_classes(self._classes)
        bundle = bundle or self.bundle
        self._decide_by(settings, bundle, self._memories.of(bundle))

    def _decide_by(self, settings: Settings, bundle: Bundle, memories: Memories) -> None:
        decisions = {name: settings.decision(name) for name in self._classes}
        given = memories.over(bundle)
        limits = [limits_of(given, name, decision, memories.tensors(name)) for name, decision in decisions.items()]
        unkept = unkept_promises(given, decisions, self._unkept)
        # Each class's thresholds, region and memory change together, between one run and the next.
        self.bundle, self._limits, self._unkept = bundle, limits, unkept
        self._memories, self.settings = memories, settings
        self.tiling = Tiling(bundle.manifest.tiles or WHOLE, bundle.manifest.frame_size)

    def use_memory(
        self, class_name: str | None, memory: ReferenceMemory | None, thresholds: Thresholds | None = None
    ) -> None:
        """Scores a class by another memory from the next frame on, without writing it anywhere.

        May be called from any thread, but one at a time, as `decide_by`. It holds until the bundle has another memory
        for the class.

        Args:
            class_name: One of the bundle's classes; None for the first.
            memory: Made for this bundle, as `reference.fit.fit` makes it; None for none.
            thresholds: The class's own from now on; None for those that it has.

        Raises:
            FrameError: The class is unknown.
            MemoryFileError: The memory was made for another model, or for other tiles.
        """
        before = self.own_memory(class_name)
        if thresholds is None and before is not None:
            thresholds = before.thresholds
        self.use_own(class_name, Own(memory, thresholds))

    def use_own(self, class_name: str | None, own: Own | None, settings: Settings | None = None) -> None:
        """Goes back to what `own_memory` returned earlier, with the thresholds of then; as `use_memory`.

        Args:
            class_name: One of the bundle's classes; None for the first.
            own: What it is scored by; None for what the bundle has.
            settings: What it decides by from the same frame on; None for what it has.

        Raises:
            FrameError: The class is unknown.
            MemoryFileError: The memory was made for another model, or for other tiles.
        """
        _, name = self.known(class_name)
        self._decide_by(settings or self.settings, self.bundle, self._memories.with_own(self.bundle, name, own))

    def memory_of(self, class_name: str | None = None) -> ReferenceMemory | None:
        """The memory that a class is scored by; None for none.

        Raises:
            FrameError: The class is unknown.
        """
        return self._memories.memory(self.known(class_name)[1])

    def own_memory(self, class_name: str | None = None) -> Own | None:
        """What `use_memory` gave a class; None where it is scored by what the bundle has.

        Raises:
            FrameError: The class is unknown.
        """
        return self._memories.own.get(self.known(class_name)[1])

    def region_of(self, class_name: str | None = None) -> tuple[RegionOfInterest | None, Mask | None]:
        """A class's region of interest, and where it lies in each tile's map, bool [T, H, W]; None for everywhere.

        Raises:
            FrameError: The class is unknown.
        """
        limits = self.limits(class_name)
        return limits.roi, None if limits.mask is None else np.stack(self.tiling.split(limits.mask))

    def limits(self, class_name: str | None) -> Limits:
        """A class's thresholds, region and memory; None for the first class.

        Raises:
            FrameError: The class is unknown.
        """
        return self._limits[self.known(class_name)[0]]

    def known(self, class_name: str | None) -> tuple[int, str]:
        """Index and name of a class; None for the first.

        Raises:
            FrameError: The class is unknown.
        """
        name = self._classes[0] if class_name is None else class_name
        if name not in self._classes:
            raise FrameError(
                f"unknown class '{name}': this bundle has {', '.join(self._classes)}; export others with --class"
            )
        return self._classes.index(name), name
