"""What --print-config writes is a file for --config that says the same, and holds no secret."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from enum import Enum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.cli.run_options.decisions import DecisionOptions, Decisions
from kanoclip.runtime.cli.run_options.fields import options_of
from kanoclip.runtime.cli.run_options.inputs import SourceOptions
from kanoclip.runtime.cli.run_options.kinds import Number, OneOf, PathName, Size, Switch, Texts
from kanoclip.runtime.cli.run_options.line_file import TABLES, LineConfig, read_line
from kanoclip.runtime.cli.run_options.printing import printed
from kanoclip.runtime.cli.run_options.secrets import LoginName, Secret, SecretText, Url
from kanoclip.runtime.cli.run_options.sinks.by_type import SINKS
from kanoclip.runtime.detect.alarm import AlarmRule
from kanoclip.runtime.detect.settings.settings_file import read_settings
from kanoclip.runtime.service.shifts.plan import ShiftPlan

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=12)
SECRET = "s3cret"
SAMPLES = {
    "camera": "0",
    "backend": "openvino",
    "device": "cuda:1",
    "health": "[::1]:80",
    "metrics": "h:1",
    "serve": "h:1",
    "shifts": ShiftPlan.parse("5:30,17:00"),
}
REFERENCES = st.sampled_from([Secret(env="KANOCLIP_X"), Secret(file=Path("/run/secrets/x"))])


def values_of(name, one):
    """Any value of an option, or its default."""
    kind = one.kind
    if name in SAMPLES:
        found = st.just(SAMPLES[name])
    elif isinstance(kind, Switch):
        found = st.booleans()
    elif isinstance(kind, Number):
        low, high = kind.minimum, kind.maximum
        found = (
            st.integers(int(low), 10**12 if high is None else int(high))
            if kind.whole
            else st.floats(low, high, exclude_min=kind.above, allow_nan=False)
        )
    elif isinstance(kind, OneOf):
        found = st.sampled_from(kind.members)
    elif isinstance(kind, PathName):
        found = TEXT.map(lambda text: Path("/x") / text)
    elif isinstance(kind, Size):
        found = st.integers(1, 1 << 50)
    elif isinstance(kind, Texts):
        found = st.lists(TEXT, max_size=3).map(tuple)
    elif isinstance(kind, LoginName):
        found = REFERENCES | TEXT.map(lambda text: Secret(literal=text))
    elif isinstance(kind, Url):
        found = REFERENCES | (REFERENCES if kind.all_secret else st.just(Secret(literal="mqtt://broker/line 3")))
    elif isinstance(kind, SecretText):
        found = REFERENCES
    else:
        found = TEXT
    return found | st.just(one.default)


def any_of(group, **fixed):
    return st.builds(
        group,
        **{
            name: st.just(fixed[name]) if name in fixed else values_of(name, one)
            for name, one in options_of(group).items()
        },
    )


SOURCES = any_of(SourceOptions, camera=None, url=Secret(literal="test://?fps=5")) | any_of(
    SourceOptions, url=None, camera="0"
)
ANY_SINK = st.one_of(
    *(
        any_of(SINKS[kind], **{next(iter(options_of(SINKS[kind]))): value})
        for kind, value in (
            ("video", Path("x.mp4")), ("images", Path("out")), ("jsonl", "-"), ("snapshots", Path("~")),
            ("mqtt", Secret(literal="mqtt://h/t")), ("webhook", Secret(env="KANOCLIP_WEBHOOK")),
        )
    )
)  # fmt: skip
LINES = st.builds(
    LineConfig,
    sources=st.lists(SOURCES, max_size=3).map(tuple),
    sinks=st.lists(ANY_SINK, max_size=4).map(tuple),
    **{name: any_of(group) for name, group in TABLES.items()},
)


@given(LINES)
def test_any_configuration_comes_back_as_it_was(tmp_path_factory, line):
    path = tmp_path_factory.mktemp("line") / "line.toml"
    path.write_text(printed(line, Path("/nowhere.kanoclip")), encoding="utf-8")
    assert replace(read_line(path), path=None) == line


def test_every_value_is_of_a_kind_that_is_written(tmp_path):
    for group in TABLES.values():
        for one in fields(group):
            assert not isinstance(one.default, dict | list)
    assert all(issubclass(type(member), Enum) for member in SINKS["webhook"]().picture.__class__)


ADDRESSES = {
    "sources": SourceOptions(url=Secret(literal=f"rtsp://me:{SECRET}@camera/x")),
    "sinks": SINKS["mqtt"](url=Secret(literal=f"mqtts://me:{SECRET}@broker/t")),
    "more": SINKS["webhook"](url=Secret(literal=f"https://chat.example/services/{SECRET}")),
}


def test_no_secret_is_printed_and_the_variable_for_it_is_named(tmp_path, monkeypatch):
    line = LineConfig(sources=(ADDRESSES["sources"],), sinks=(ADDRESSES["sinks"], ADDRESSES["more"]))
    text = printed(line, Path("/nowhere.kanoclip"))
    assert SECRET not in text and "me:" not in text
    assert '{ env = "KANOCLIP_SOURCE_1" }  # set this variable to the whole address, rtsp://***@camera/x' in text
    assert "https://chat.example/..." in text
    path = tmp_path / "line.toml"
    path.write_text(text)
    monkeypatch.setenv("KANOCLIP_SOURCE_1", ADDRESSES["sources"].url.literal)
    assert read_line(path).sources[0].spec == ADDRESSES["sources"].spec
    assert [sink.url for sink in read_line(path).sinks] == [
        Secret(env="KANOCLIP_MQTT_1"),
        Secret(env="KANOCLIP_WEBHOOK_1"),
    ]


def test_several_addresses_have_a_variable_each():
    twins = tuple(SourceOptions(url=Secret(literal=f"rtsp://me:{SECRET}@camera{n}/x")) for n in range(2))
    text = printed(LineConfig(sources=twins), Path("/nowhere.kanoclip"))
    assert "KANOCLIP_SOURCE_1" in text and "KANOCLIP_SOURCE_2" in text


def test_decisions_of_file_and_flags_are_one_table(tmp_path):
    (tmp_path / "belt.json").write_text(json.dumps({"units": "relative", "keep": [[[0, 0], [1, 0], [1, 1]]]}))
    path, other = tmp_path / "line.toml", tmp_path / "other" / "line.toml"
    path.write_text(
        '[decision]\nthreshold = 0.5\nroi = "belt.json"\n'
        '[class."o\'ring \\"x\\""]\nthreshold = 0.6\nmin_area = 3\n[class.bottle]\nalarm = "2/3/0"\n'
    )
    flags = DecisionOptions(threshold=0.7, alarm=AlarmRule(3, 5))
    other.parent.mkdir()
    other.write_text(printed(LineConfig(path, decision=flags), Path("/nowhere.kanoclip")))
    before, after = Decisions(path, flags).settings(path), read_settings(other)
    for name in ("object", "bottle", 'o\'ring "x"'):
        assert after.decision(name) == before.decision(name)
    assert after.decision("bottle").alarm == AlarmRule(3, 5) and after.common.roi is not None


@pytest.mark.parametrize("text", ["\x7f", '"', "\\", "\n\t\x01", "ä\u2028😀", "' # x"])
def test_any_text_in_quotes(text, tmp_path):
    path = tmp_path / "line.toml"
    line = LineConfig(sources=(SourceOptions(camera="0", name=text),))
    path.write_text(printed(line, Path("/nowhere.kanoclip")), encoding="utf-8")
    assert read_line(path).sources == line.sources
