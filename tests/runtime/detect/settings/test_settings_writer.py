"""A settings file gets new thresholds, and keeps everything else to the letter."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.detect.settings.saved_thresholds import write_settings
from kanoclip.runtime.detect.settings.settings_file import read_settings
from kanoclip.runtime.errors import SettingsError

FILE = """\
# line 3, night shift
[decision]                 # every class
threshold   =  0.72        # found on 3 May
min_area = 400

[class."ceramic tile"]     # overrides it
pixel_threshold = 0.8
# the end
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "line3.toml"
    path.write_text(FILE)
    return path


def test_one_value_changes_and_every_other_letter_stays(path):
    write_settings(path, {(("decision",), "threshold"): 0.655})
    assert path.read_text() == FILE.replace("0.72 ", "0.655 ")


def test_keys_and_tables_are_added(path):
    write_settings(
        path,
        {
            (("class", "ceramic tile"), "threshold"): 0.5,
            (("class", "nut"), "threshold"): 0.25,
            (("decision",), "pixel_threshold"): 1.0,
        },
    )
    settings = read_settings(path)
    assert settings.classes["ceramic tile"].threshold == 0.5 and settings.classes["ceramic tile"].pixel_threshold == 0.8
    assert settings.classes["nut"].threshold == 0.25 and settings.common.pixel_threshold == 1.0
    assert settings.common.threshold == 0.72
    text = path.read_text()
    assert all(part in text for part in ("# line 3, night shift", "# found on 3 May", "# overrides it", "# the end"))


def test_a_file_that_is_not_there_is_made(tmp_path):
    path = tmp_path / "new" / "folder" / "own.toml"
    write_settings(path, {(("class", 'o\'ring "x"'), "threshold"): 0.1})
    assert read_settings(path).classes['o\'ring "x"'].threshold == 0.1


@given(
    name=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12),
    value=st.floats(0, 1),
    start=st.sampled_from(["", FILE, "class = {a = {threshold = 0.5}}\n", 'class."a.b".threshold = 0.5 # x\n']),
)
def test_whatever_the_class_s_name_it_is_read_back_to_the_bit_or_nothing_is_written(
    tmp_path_factory, name, value, start
):
    path = tmp_path_factory.mktemp("settings") / "x.toml"
    path.write_text(start)
    before = read_settings(path)
    try:
        write_settings(path, {(("class", name), "threshold"): value})
    except SettingsError as error:
        assert "by hand" in str(error) or "cannot be changed" in str(error)
        assert path.read_text() == start
        return
    after = read_settings(path)
    assert after.classes[name].threshold == value
    assert {k: v for k, v in after.classes.items() if k != name} == {
        k: v for k, v in before.classes.items() if k != name
    }
    assert after.common == before.common


def test_permissions_and_links_stay(path, tmp_path):
    path.chmod(0o640)
    link = tmp_path / "link.toml"
    link.symlink_to(path)
    write_settings(link, {(("decision",), "threshold"): 0.5})
    assert link.is_symlink() and path.stat().st_mode & 0o777 == 0o640
    assert read_settings(path).common.threshold == 0.5


def test_what_cannot_be_written_is_as_it_was(path, monkeypatch):
    monkeypatch.setattr(os, "replace", _full)
    with pytest.raises(SettingsError, match=r"line3\.toml cannot be written \(No space left on device\)"):
        write_settings(path, {(("decision",), "threshold"): 0.5})
    assert path.read_text() == FILE and list(path.parent.iterdir()) == [path]


def _full(*_):
    raise OSError(28, "No space left on device")


def test_a_file_that_is_no_toml_is_told(path):
    path.write_text("[decision\n")
    with pytest.raises(SettingsError, match=r"line3\.toml cannot be changed"):
        write_settings(path, {(("decision",), "threshold"): 0.5})


def test_the_library_is_named_where_it_is_missing(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tomlkit", None)
    with pytest.raises(SettingsError, match=r"tomlkit .* pip install 'kanoclip-edge\[page\]'"):
        write_settings(path, {(("decision",), "threshold"): 0.5})
