"""Everything that `kanoclip-run` can be given, from a line's TOML file and from flags, which override it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from kanoclip.runtime.cli.fitting.warm_up import WarmUpOptions
from kanoclip.runtime.cli.run_options.decisions import DecisionOptions, Decisions
from kanoclip.runtime.cli.run_options.engine import EngineOptions, RunOptions
from kanoclip.runtime.cli.run_options.fields import options_of, overridden, read_group
from kanoclip.runtime.cli.run_options.inputs import SourceOptions, source_in_file
from kanoclip.runtime.cli.run_options.page import PageSettings
from kanoclip.runtime.cli.run_options.sinks.by_type import SINKS, SinkOptions, type_of
from kanoclip.runtime.cli.run_options.sinks.files import ImagesOptions, VideoOptions
from kanoclip.runtime.cli.run_options.watchers import ServiceOptions
from kanoclip.runtime.detect.settings.roi_file import is_rectangle
from kanoclip.runtime.detect.settings.settings_file import settings_in
from kanoclip.runtime.detect.settings.toml_file import TomlFile, nearest
from kanoclip.runtime.sources.files.video import VIDEO_SUFFIXES
from kanoclip.runtime.sources.reads import reads_of
from kanoclip.runtime.system.files.guard import Read

GROUPS: tuple[type[Any], ...] = (
    EngineOptions, SourceOptions, DecisionOptions, WarmUpOptions, RunOptions, *SINKS.values(), ServiceOptions,
    PageSettings
)  # fmt: skip
"""All groups of options."""
TABLES: dict[str, type[Any]] = {
    "engine": EngineOptions,
    "run": RunOptions,
    "learn": WarmUpOptions,
    "service": ServiceOptions,
    "page": PageSettings,
}
"""Those that are a table of their own, by its name."""


@dataclass(frozen=True)
class LineConfig:
    """What a run is made by.

    Attributes:
        path: The file, if there is one. Its `[decision]` and `[class.NAME]` are read by `Decisions`, again and again.
        sources: What is read.
        sinks: Where results go.
        decision: What flags say over the file.
        engine: The bundle and what runs it.
        run: The run as a whole.
        learn: What is learned from the first frames.
        service: Health checks, measurements and log lines.
        page: The page.
        notes: What the user should know about how file and flags were put together.
    """

    path: Path | None = None
    sources: tuple[SourceOptions, ...] = ()
    sinks: tuple[SinkOptions, ...] = ()
    decision: DecisionOptions = field(default_factory=DecisionOptions)
    engine: EngineOptions = field(default_factory=EngineOptions)
    run: RunOptions = field(default_factory=RunOptions)
    learn: WarmUpOptions = field(default_factory=WarmUpOptions)
    service: ServiceOptions = field(default_factory=ServiceOptions)
    page: PageSettings = field(default_factory=PageSettings)
    notes: tuple[str, ...] = ()

    def overridden(self, given: Mapping[str, Any]) -> LineConfig:
        """This one, with flags over it.

        --camera and --source replace all `[[source]]`; what else is said of sources is said of each. An output's flags
        change the one `[[sink]]` of its type, or add one.

        Args:
            given: As `given_flags` returns them.

        Raises:
            click.UsageError: There are several sinks that a flag could mean, or none.
        """
        named = tuple(SourceOptions(camera=one, where="--camera") for one in given.get("camera", ()))
        named += tuple(SourceOptions(url=one, where="--source") for one in given.get("source", ()))
        notes = self.notes
        if named and self.sources:
            notes += (f"--camera and --source replace the [[source]] of {self.sources[0].where}",)
        return replace(
            self,
            sources=tuple(overridden(one, given) for one in named or self.sources),
            sinks=self._sinks(given),
            decision=overridden(self.decision, given),
            engine=overridden(self.engine, given),
            run=overridden(self.run, given),
            learn=overridden(self.learn, given),
            service=overridden(self.service, given),
            page=overridden(self.page, given),
            notes=notes,
        )

    @property
    def decisions(self) -> Decisions:
        """What frames are scored by."""
        return Decisions(self.path, self.decision, tuple(one.shown for one in self.sources))

    def reads(self, bundle: Path) -> list[Read]:
        """Sources, bundle, settings, polygons and secrets: what none of the outputs may overwrite.

        Args:
            bundle: The bundle's folder.

        Raises:
            SettingsError: An address stands in a variable or a file that is not there, or the polygons are invalid.
        """
        found = [one for source in self.sources if source.camera is None for one in reads_of(source.spec)]
        found.append(Read("the bundle", bundle, closed=True))
        decisions = self.decisions
        file = decisions.file(bundle)
        if file is not None:
            found.append(Read("the settings", file))
        tables = decisions.tables(file)
        for table in (tables["decision"], *tables.get("class", {}).values()):
            if "roi" in table and not is_rectangle(table["roi"]):
                found.append(Read("the region of interest", Path(table["roi"])))
        found += [
            Read("a secret", secret.file)
            for secret in (self.page.token, *(source.url for source in self.sources))
            if secret is not None and secret.file is not None
        ]
        return found

    def _sinks(self, given: Mapping[str, Any]) -> tuple[SinkOptions, ...]:
        sinks = list(self.sinks)
        output = given.get("output")
        to_video = output is not None and output.suffix.lower() in VIDEO_SUFFIXES
        for name, group in SINKS.items():
            flags = {
                one.name: one.flag
                for one in options_of(group).values()
                if one.name in given and (one.name != "output" or (group is VideoOptions) == to_video)
            }
            if not flags or (group is ImagesOptions and output is None):
                continue
            mine = [one for one in sinks if type_of(one) == name]
            if len(mine) > 1:
                raise click.UsageError(
                    f"{next(iter(flags.values()))} could mean several sinks of the type {name} "
                    f"({', '.join(one.where for one in mine)}): change the file instead"
                )
            wanted = {key: value for key, value in given.items() if key in flags}
            if mine:
                sinks[sinks.index(mine[0])] = overridden(mine[0], wanted)
                continue
            first = next(iter(options_of(group).values()))
            if first.name not in wanted:
                needed = "--output FILE.mp4" if group is VideoOptions else f"{first.flag} {first.metavar}"
                raise click.UsageError(f"{', '.join(map(str, flags.values()))}: this is for {needed}")
            sinks.append(overridden(group(where=str(first.flag)), wanted))
        return tuple(sinks)


def read_line(path: Path) -> LineConfig:
    """Reads a line's file.

    Raises:
        SettingsError: It cannot be read, is no TOML, or holds what makes no sense; the message names the line.
    """
    file = TomlFile(path)
    settings_in(file)
    tables = {
        name: read_group(group, file, file.table(file.value.get(name, {}), (name,)), (name,))
        for name, group in TABLES.items()
    }
    sources = [
        source_in_file(read_group(SourceOptions, file, table, ("source", n), where=file.where(("source", n))))
        for n, table in enumerate(file.tables("source"))
    ]
    sinks = tuple(_sink(file, table, n) for n, table in enumerate(file.tables("sink")))
    return LineConfig(path, tuple(sources), sinks, **tables)


def _sink(file: TomlFile, table: Mapping[str, Any], number: int) -> SinkOptions:
    at = ("sink", number)
    kind = table.get("type")
    if not isinstance(kind, str) or kind not in SINKS:
        known = sorted(SINKS)
        hint = nearest(kind, known) if isinstance(kind, str) else f"known are {', '.join(known)}"
        place = (*at, "type") if "type" in table else at
        raise file.wrong(
            place, f"[[sink]] needs a type; {hint}" if kind is None else f"type: {kind!r} is unknown; {hint}"
        )
    group = SINKS[kind]
    rest = {key: value for key, value in table.items() if key != "type"}
    sink: SinkOptions = read_group(group, file, rest, at, where=file.where(at))
    key = next(iter(options_of(group).values())).key
    if key not in rest:
        raise file.wrong(at, f"the {kind} sink has no {key}: add {key} = ...")
    return sink
