"""The settings file is written by hand: what is wrong is named, with its line."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.detect.alarm import AlarmRule
from kanoclip.runtime.detect.settings.settings import Decision, Settings
from kanoclip.runtime.detect.settings.settings_file import line_of, read_settings
from kanoclip.runtime.errors import SettingsError

SQUARE = [[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]]


@pytest.fixture
def write(tmp_path):
    (tmp_path / "belt.json").write_text(json.dumps({"units": "relative", "keep": [SQUARE]}))

    def write(text):
        path = tmp_path / "line3.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_everything(write, tmp_path, monkeypatch):
    monkeypatch.chdir("/")  # the polygons lie beside the settings, wherever one is
    settings = read_settings(
        write("""
[decision]   # every class
threshold = 0.72
pixel_threshold = 1
min_area = 400
roi = "belt.json"
alarm = "3/5/0"

[class."ceramic tile"]
threshold = 0.8
[class.bottle]
""")
    )
    common = settings.decision("object")
    assert (common.threshold, common.pixel_threshold, common.min_area) == (0.72, 1.0, 400)
    assert common.alarm == AlarmRule(3, 5, 0) and common.roi.name == "belt.json"
    assert settings.decision("ceramic tile") == common.overridden(Decision(threshold=0.8))
    assert settings.decision("bottle") == common
    flags = settings.overridden(Decision(threshold=0.0, min_area=0, alarm=AlarmRule(1, 1)))
    tile = flags.decision("ceramic tile")
    assert (tile.threshold, tile.min_area, tile.alarm, tile.roi) == (0.0, 0, AlarmRule(1, 1), common.roi)


def test_an_empty_file_changes_nothing(write):
    assert read_settings(write("")).decision("object") == Decision()


def test_what_is_for_kanoclip_run_alone_is_left_to_it(write):
    path = write(
        "[[source]]\ncamera = 0\n[[sink]]\nwhatever = 1\n[page]\n[decision]\nthreshold = 0.5\n[service]\n[run]"
    )
    assert read_settings(path).decision("object") == Decision(threshold=0.5)


@pytest.mark.parametrize(
    ("text", "at", "line"),
    [
        ("[[a]]\nx = 1\n[[a]]\nx = 1\n[[b]]\nx = 1", ("a", 1, "x"), 4),
        ("[[a]]\nx = 1\n[[a]]\nx = 1", ("a", 1), 3),
        ("[[a]]\n[a.b]\nx = 1\n[[a]]\n[a.b] # [[a]]\nx = 1", ("a", 1, "b", "x"), 6),
        ("[[a]]\nb.x = 1\n[[ a ]]\nb.y = 2\nb.x = 1", ("a", 1, "b", "x"), 5),
        ("[[a]]\n[[a.b]]\nx = 1\n[[a.b]]\nx = 2\n[[a]]\n[[a.b]]\nx = 3", ("a", 0, "b", 1, "x"), 5),
        ("[[a]]\n[[a.b]]\nx = 1\n[[a]]\n[[a.b]]\nx = 3", ("a", 1, "b", 0, "x"), 6),
        ("a = [{x = 1},\n{x = 2}]", ("a", 1, "x"), 1),
    ],
)
def test_the_line_in_arrays_of_tables_and_dotted_keys(text, at, line):
    assert line_of(text, at) == line


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[decision]\n\ntreshold = 0.5", 3, ["unknown key 'treshold' in [decision]", "did you mean threshold?"]),
        ("[decision]\nfoo = 0.5", 2, ["unknown key 'foo'", "alarm, min_area, pixel_threshold, roi, threshold"]),
        ("threshold = 0.5", 1, ["unknown key 'threshold'", "class, decision"]),
        ("# x\n[decisions]\nthreshold = 0.5", 2, ["unknown key 'decisions'", "did you mean decision?"]),
        ("[decision]\nthreshold = 1.5", 2, ["threshold: 1.5 is not a number from 0 to 1"]),
        ("[decision]\nthreshold = nan", 2, ["threshold: nan"]),
        ("[decision]\nthreshold = true", 2, ["threshold: True"]),
        ('[decision]\npixel_threshold = "0.5"', 2, ["pixel_threshold: '0.5'"]),
        ("[decision]\nmin_area = 1.5", 2, ["min_area: 1.5 is not a whole number"]),
        ("[decision]\nmin_area = -1", 2, ["min_area: -1"]),
        ("[decision]\nalarm = 3", 2, ['alarm: 3 is not a text such as "3/5"']),
        ('[decision]\nalarm = "5/3"', 2, ["alarm: alarm 5/3"]),
        ('[decision]\nroi = "none.json"', 2, ["none.json", "cannot be read"]),
        ("[decision]\nroi = 3", 2, ["roi: 3 is no path"]),
        ('[decision]\nroi = "a\\u0000b"', 2, ["roi:"]),
        ("decision = 3", 1, ["decision is no table"]),
        ("[class]\nbottle = 3", 2, ["class.bottle is no table"]),
        ("[class.bottle]\nthreshold = 0.5\n[class.'wood screw']\nthreshold = 2", 4, ["threshold: 2"]),
        ("class.bottle.threshold = 2", 1, ["threshold: 2"]),
        ("class = {bottle = {threshold = 2}}", 1, ["threshold: 2"]),
        ("[decision]\nthreshold = 0.5 # threshold = 2\n[class.b]\n\n'threshold' = 2", 5, ["threshold: 2"]),
        ("[decision]\nthreshold = ", 2, ["not TOML"]),
        ("[decision\n", 1, ["not TOML"]),
        ("[decision]\nthreshold = 0.5\nthreshold = 0.6", 3, ["not TOML"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_line(write, text, line, words):
    path = write(text)
    with pytest.raises(SettingsError) as caught:
        read_settings(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and message.startswith(str(path))
    assert f"line {line}" in message, message
    for word in words:
        assert word in message, message


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(SettingsError, match=r"none\.toml: the settings cannot be read"):
        read_settings(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match=r"bytes\.toml: not TOML"):
        read_settings(tmp_path / "bytes.toml")


def test_a_class_that_the_bundle_does_not_have(write):
    settings = read_settings(write("[class.botle]\nthreshold = 0.5"))
    settings.check_classes(("bottle", "botle"))
    with pytest.raises(SettingsError, match=r"line3.toml: \[class.botle\] is not in .* bottle, cable"):
        settings.check_classes(("bottle", "cable"))


@pytest.mark.parametrize("values", [{"threshold": -0.1}, {"pixel_threshold": float("nan")}, {"min_area": -1}])
def test_values_out_of_range_from_code(values):
    with pytest.raises(SettingsError):
        Decision(**values)


DECISIONS = st.builds(
    Decision,
    threshold=st.none() | st.floats(0, 1),
    pixel_threshold=st.none() | st.floats(0, 1),
    min_area=st.none() | st.integers(0, 9),
)


@given(DECISIONS, DECISIONS, DECISIONS)
def test_the_later_overrides_the_earlier(common, one, flags):
    found = Settings(common, {"one": one}, flags).decision("one")
    for name in ("threshold", "pixel_threshold", "min_area"):
        given = [getattr(d, name) for d in (common, one, flags) if getattr(d, name) is not None]
        assert getattr(found, name) == (given[-1] if given else None)


@given(st.text())
def test_any_text_has_a_line_or_none(text):
    assert line_of(text, ("decision", "threshold")) in (None, *range(1, len(text.splitlines()) + 1))
