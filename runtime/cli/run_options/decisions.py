"""What `kanoclip-run` decides by: its options, and the files that are read again while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.cli.run_options.fields import option, table_of
from kanoclip.runtime.cli.run_options.kinds import Kind, Number, Region
from kanoclip.runtime.detect.alarm import AlarmRule
from kanoclip.runtime.detect.settings.roi_file import read_roi
from kanoclip.runtime.detect.settings.saved_thresholds import Saved, own_settings
from kanoclip.runtime.detect.settings.settings import Decision, Settings
from kanoclip.runtime.detect.settings.settings_file import read_settings
from kanoclip.runtime.detect.settings.toml_file import TomlFile


class _Alarm(Kind):
    def of_flag(self, value: Any) -> Any:
        return AlarmRule.parse(value)

    def to_toml(self, value: Any) -> Any:
        return f"{value.frames}/{value.of}" + ("" if value.clear is None else f"/{value.clear}")


@dataclass(frozen=True)
class DecisionOptions:
    """What verdicts are made by, as flags say it; `settings_file` reads the same keys of `[decision]`."""

    threshold: float | None = option(
        "--threshold", Number(0, 1), None, "Score from which a frame is anomalous. Default: the bundle's."
    )
    pixel_threshold: float | None = option(
        "--pixel-threshold", Number(0, 1), None, "Map value from which a pixel counts. Default: the bundle's."
    )
    roi: Path | None = option(
        "--roi",
        Region(),
        None,
        "Where to score: a file of polygons (our own format or LabelMe's), or a rectangle such as 10%,20%,50%,60% or "
        "64,32,320,240@640x480: x, y, width, height. Default: the whole image.",
        metavar="FILE.json|X,Y,W,H",
    )
    min_area: int | None = option(
        "--min-area",
        Number(0, whole=True),
        None,
        "Smallest region, in pixels of the original frame; an anomalous image keeps its peak. Default: the bundle's.",
    )
    alarm: AlarmRule | None = option(
        "--alarm",
        _Alarm(),
        None,
        "Raise the alarm while K of the last N frames are anomalous; or until only CLEAR are. Default: 1/1.",
        metavar="K/N[/CLEAR]",
    )

    def over(self, file: Path | None) -> Settings:
        """What a file says, with these over it.

        Raises:
            SettingsError: The file or the polygons are invalid.
        """
        settings = Settings() if file is None else read_settings(file)
        polygons = None if self.roi is None else read_roi(self.roi)
        return settings.overridden(Decision(self.threshold, self.pixel_threshold, self.min_area, polygons, self.alarm))


@dataclass(frozen=True)
class Decisions:
    """What the user wants frames to be scored by.

    Attributes:
        config: The line's file, if there is one.
        flags: What overrides it.
    """

    config: Path | None
    flags: DecisionOptions

    def file(self, bundle: Path) -> Path | None:
        """The settings file that a run of this bundle's folder goes by, which need not exist."""
        return self.config if self.config is not None else own_settings(bundle)

    def settings(self, file: Path | None) -> Settings:
        """What the file says, with the flags over it.

        Args:
            file: As `file` returns it; only one that the user named must exist.

        Raises:
            SettingsError: The file or the polygons are invalid.
        """
        return self.flags.over(self._existing(file))

    def saved(self, bundle: Bundle) -> Saved:
        """What a new start with these options would use now.

        Raises:
            SettingsError: As `settings` does.
        """
        file = self.file(bundle.root)
        return Saved(bundle, self.settings(file), file)

    def tables(self, file: Path | None) -> dict[str, Any]:
        """`[decision]` and `[class]` as a file holds them that says what `settings` gives.

        Args:
            file: As `settings` takes it.

        Raises:
            SettingsError: The file or the polygons are invalid.
        """
        self.settings(file)
        flags = table_of(self.flags)
        there = self._existing(file)
        if there is None:
            return {"decision": flags}
        found = TomlFile(there).value
        classes = {name: _absolute(one, there.parent) for name, one in found.get("class", {}).items()}
        return {
            "decision": _absolute(found.get("decision", {}), there.parent) | flags,
            # A flag overrides each class's own too.
            "class": {name: {k: v for k, v in one.items() if k not in flags} for name, one in classes.items()},
        }

    def _existing(self, file: Path | None) -> Path | None:
        return file if file is not None and (file == self.config or file.exists()) else None


def _absolute(table: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A table whose polygons are found from any folder."""
    roi = Region()
    return {key: roi.to_toml(roi.of_toml(one, folder)) if key == "roi" and one else one for key, one in table.items()}
