"""What the page shows of a class's references, corrections and thresholds."""

from __future__ import annotations

from typing import Any

from kanoclip.runtime.detect.learning.teaching.teacher import Teacher
from kanoclip.runtime.detect.reference.memory import Label
from kanoclip.runtime.stream.control.protocol import Control


def summary(teacher: Teacher) -> dict[str, Any]:
    """What every update holds: by it a browser knows when to read the rest anew."""
    lesson = teacher.lessons.state()
    return {
        "revision": teacher.revision,
        "lesson": None
        if lesson is None
        else {
            "class": lesson.class_name,
            "taken": lesson.taken,
            "frames": lesson.frames,
            "going": lesson.going,
            "message": lesson.message,
            "failed": lesson.failed,
        },
    }


def details(control: Control, labels: str | None) -> dict[str, Any]:
    """All of it, for the class looked for.

    `references` and `bad` are what the trade-off is drawn from: scores of good references out of sample, and of frames
    labelled bad, by the memory in use.

    Args:
        control: The stream.
        labels: The labelled set's folder; None for none.
    """
    state, teacher = control.state(), control.teacher
    memory = teacher.memory(state.class_name)
    counted = [] if memory is None else memory.loo_scores[memory.counted].tolist()
    return {
        "class": state.class_name,
        "takes_memory": teacher.takes_memory(),
        "learned": memory is not None,
        "references": sorted(round(score, 6) for score in counted),
        "fine": [] if memory is None else [round(one.score, 6) for one in memory.corrected(Label.FINE)],
        "bad": [] if memory is None else [round(one.score, 6) for one in memory.corrected(Label.BAD)],
        "undo": teacher.last(state.class_name),
        "unsaved": teacher.unsaved(state.class_name),
        "needs_name": teacher.needs_name() and teacher.copy_of(state.class_name) is None,
        "labels": labels,
    }
