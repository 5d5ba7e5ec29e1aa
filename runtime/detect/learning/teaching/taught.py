"""What a correction did, for a program and in words."""

from __future__ import annotations

from dataclasses import dataclass

from kanoclip.runtime.detect.reference.memory import Correction, Label


@dataclass(frozen=True)
class Taught:
    """What a correction did.

    Attributes:
        correction: The frame, with its score before and now.
        threshold: The threshold now.
        wrong: Whether the verdict was wrong; if not, nothing but the label is new.
        right: Whether the verdict is right now.
        false_alarms: What share of good frames to come is called anomalous at most, before and now; see
            `corrections.false_alarms`.
        references: How many stand behind that.
        overridden: A flag or the settings file will override the threshold at the next start.
        against: Earlier labels that the verdicts go against now.
    """

    correction: Correction
    threshold: float
    wrong: bool
    right: bool
    false_alarms: tuple[float, float]
    references: int
    overridden: bool
    against: tuple[Correction, ...] = ()

    def sentence(self) -> str:
        """For a person, in a line or two."""
        one = self.correction
        now = f"it scores {one.score:.3f} (before: {one.before:.3f}), the threshold is {self.threshold:.3f}"
        if self.threshold != one.threshold:
            now += f" (before: {one.threshold:.3f})"
        if not self.wrong:
            return f"Labelled {one.label.value}. Its verdict was right already: {now}."
        if not self.right:
            return (
                f"Labelled {one.label.value}, but that does not suffice: {now}. Frames labelled the other way score "
                "the same or beyond, and no threshold tells them apart: learn anew, or undo a label."
            )
        verdict = "passes" if one.label is Label.FINE else "is found"
        text = f"Labelled {one.label.value}: it {verdict} from now on; {now}."
        before, after = self.false_alarms
        if after != before:
            text += (
                f" Of good frames, up to about {after:.1%} will be called anomalous; it was {before:.1%} "
                f"(by {self.references} references, each out of sample)."
            )
        if self.against:
            names = "; ".join(f"{each.name} ({each.label.value})" for each in self.against[:3])
            text += (
                f" No threshold is right for all labels: the verdict is wrong now for {len(self.against)} labelled "
                f"before, such as {names}."
            )
        if self.overridden:
            text += " --threshold or [decision] overrides it at the next start: leave them out there."
        return text
