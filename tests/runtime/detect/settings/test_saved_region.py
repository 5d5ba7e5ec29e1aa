"""A region drawn while a stream ran: a start with the same arguments uses it, and nobody's polygon file is lost."""

from __future__ import annotations

import pytest

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.detect.settings.saved_region import save_region
from kanoclip.runtime.detect.settings.saved_thresholds import Saved, own_settings
from kanoclip.runtime.detect.settings.settings import Decision, Settings
from kanoclip.runtime.detect.settings.settings_file import read_settings
from kanoclip.runtime.errors import SettingsError
from kanoclip.runtime.types import RegionOfInterest

NAMES = ("nut", "../../a <b>\"'&ß")
BOX = RegionOfInterest(
    "page", (((0.1, 0.2), (0.9, 0.2), (0.9, 0.7), (0.1, 0.7)),), (((0.4, 0.4), (0.5, 0.4), (0.5, 0.6)),)
)


@pytest.fixture
def bundle(make_toy_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return Bundle.open(make_toy_bundle(tmp_path / "own.kanoclip", classes=NAMES))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["own", "line"])
def test_it_is_there_after_a_restart_and_can_be_taken_back(bundle, tmp_path, name, place):
    file = own_settings(bundle.root) if place == "own" else tmp_path / "line 3.toml"
    assert save_region(Saved(bundle, Settings(), file), name, BOX) == file
    settings = read_settings(file)
    assert settings.decision(name).roi.digest() == BOX.digest()
    assert [settings.decision(other).roi for other in NAMES if other != name] == [None]
    assert {path.suffix for path in file.parent.iterdir()} >= {".toml", ".json"}
    assert not list(tmp_path.parent.glob("a*"))
    save_region(Saved(bundle, settings, file), name, None)
    assert read_settings(file).decision(name).roi is None


def test_a_polygon_file_of_somebody_else_stays_and_the_whole_image_overrides_it(bundle, tmp_path):
    polygons, file = tmp_path / "belt.json", tmp_path / "line3.toml"
    text = '{"units": "relative", "keep": [[[0, 0], [1, 0], [1, 1]]]}'
    polygons.write_text(text)
    file.write_text('[decision]\nroi = "belt.json"  # drawn in LabelMe\n')
    save_region(Saved(bundle, read_settings(file), file), "nut", BOX)
    save_region(Saved(bundle, read_settings(file), file), NAMES[1], None)
    settings = read_settings(file)
    assert settings.decision("nut").roi.digest() == BOX.digest() and settings.decision(NAMES[1]).roi is None
    assert polygons.read_text() == text and "# drawn in LabelMe" in file.read_text()


def test_what_cannot_be_saved_is_said(bundle, tmp_path):
    flags = Settings().overridden(Decision(roi=BOX))
    with pytest.raises(SettingsError, match="--roi page overrides"):
        save_region(Saved(bundle, flags, tmp_path / "x.toml"), "nut", BOX)
    with pytest.raises(SettingsError, match="--config"):
        save_region(Saved(bundle, Settings(), None), "nut", BOX)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(SettingsError):
        save_region(Saved(bundle, Settings(), blocked / "x.toml"), "nut", BOX)
