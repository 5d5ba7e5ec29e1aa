"""What a dataset's layout is made of: the forms in which it lies on people's disks, each with its reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kanoclip.train.data.types import Problem, Sample

GOOD = "good"
"""`Sample.defect` of a normal image."""


@dataclass
class Found:
    """What a reader found below a root.

    Attributes:
        samples: By category, of every split, in any order. A category without images is there too.
        problems: What is missing or unpaired.
        pixel_labels: There are masks.
    """

    samples: dict[str, list[Sample]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    pixel_labels: bool = False


@dataclass(frozen=True, slots=True)
class Form:
    """One way in which a dataset lies on disk.

    Attributes:
        shape: What it looks like, for people.
        matches: Whether a folder looks like that. Cheap: it lists folders and opens no image.
        read: Reads it.
        vague: Other datasets look like that too, so a folder's name has to tell, unless the user has.
    """

    shape: str
    matches: Callable[[Path], bool]
    read: Callable[[Path], Found]
    vague: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """A dataset of the registry.

    Attributes:
        about: What it is, in one line.
        forms: How it may lie on disk; the first that matches is read.
        class_names: Its categories and the words for [class] in a prompt.
        pixel_labels: It has masks in at least one of its forms.
        hints: Parts of folder names, in lower case, that tell it from datasets of the same form.
        wrapped: The archive wraps it in further folders, so up to two levels below the root are searched too.
        any_category: Categories of other names go too.
    """

    about: str
    forms: Sequence[Form]
    class_names: Mapping[str, str]
    pixel_labels: bool
    hints: tuple[str, ...] = ()
    wrapped: bool = False
    any_category: bool = False
