"""Thresholds chosen while a stream ran: a start with the same arguments uses them, wherever they are saved."""

from __future__ import annotations

import pwd
import shutil
from dataclasses import replace

import pytest

from kanoclip.runtime.bundle.bundle import Bundle, shipped_bundle
from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.bundle.manifest.schema import MANIFEST_NAME
from kanoclip.runtime.bundle.store import store
from kanoclip.runtime.detect.settings import saved_thresholds
from kanoclip.runtime.detect.settings.saved_thresholds import Saved, not_used, own_settings, save
from kanoclip.runtime.detect.settings.settings import Decision, Settings
from kanoclip.runtime.detect.settings.settings_file import read_settings
from kanoclip.runtime.errors import BundleError, SettingsError


@pytest.fixture
def bundle(make_toy_bundle, tmp_path):
    return Bundle.open(make_toy_bundle(tmp_path / "own.kanoclip", classes=("nut", "bolt")))


@pytest.fixture
def single(toy_bundle, tmp_path):
    return Bundle.open(shutil.copytree(toy_bundle, tmp_path / "single.kanoclip"))


def again(saved):
    """What the next start reads."""
    flags = saved.settings.flags
    settings = Settings() if saved.file is None or not saved.file.exists() else read_settings(saved.file)
    return Saved(Bundle.open(saved.bundle.root), settings.overridden(flags), saved.file)


def wanted(saved, name, image, pixel):
    return replace(saved.bundle.manifest.thresholds_of(name), image=image, pixel=pixel)


def test_they_go_into_the_bundle(bundle):
    saved = Saved(bundle, Settings(), None)
    assert save(saved, "bolt", wanted(saved, "bolt", 0.25, 0.75)) == bundle.root
    after = again(saved)
    assert after.thresholds("bolt") == (0.25, 0.75) and after.thresholds("nut") == (0.5, 0.5)
    now = after.bundle.manifest.thresholds_of("bolt")
    assert now.origin.startswith("chosen while a stream ran, 20") and now.roi is None


def test_a_file_that_sets_other_things_leaves_them_to_the_bundle(bundle, tmp_path):
    file = tmp_path / "line3.toml"
    file.write_text("[decision]\nmin_area = 4  # pixels\n")
    saved = Saved(bundle, read_settings(file), file)
    assert save(saved, "nut", wanted(saved, "nut", 0.3, 0.5)) == bundle.root
    assert again(saved).thresholds("nut") == (0.3, 0.5)
    assert file.read_text() == "[decision]\nmin_area = 4  # pixels\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[decision]\nthreshold = 0.9 # c\n", "[decision]\nthreshold = 0.9 # c\n\n[class.nut]\nthreshold = 0.3\n"),
        ("[class.nut]\nthreshold = 0.9 # c\n", "[class.nut]\nthreshold = 0.3 # c\n"),
    ],
)
def test_a_file_that_overrides_the_bundle_is_changed(bundle, tmp_path, text, expected):
    file = tmp_path / "line3.toml"
    file.write_text(text)
    saved = Saved(bundle, read_settings(file), file)
    assert save(saved, "nut", wanted(saved, "nut", 0.3, 0.5)) == file
    assert file.read_text() == expected
    after = again(saved)
    assert after.thresholds("nut") == (0.3, 0.5)
    assert after.thresholds("bolt") == saved.thresholds("bolt"), "another class's"


def test_a_bundle_of_one_class_needs_no_table_for_it(single, tmp_path):
    file = tmp_path / "line3.toml"
    file.write_text("[decision]\npixel_threshold = 0.9\n")
    saved = Saved(single, read_settings(file), file)
    save(saved, "object", wanted(saved, "object", 0.3, 0.4))
    assert file.read_text() == "[decision]\npixel_threshold = 0.4\nthreshold = 0.3\n"
    assert again(saved).thresholds("object") == (0.3, 0.4)


def test_a_flag_that_overrides_them_is_told_and_nothing_is_written(bundle):
    before = (bundle.root / MANIFEST_NAME).read_bytes()
    saved = Saved(bundle, Settings(flags=Decision(threshold=0.6)), None)
    with pytest.raises(SettingsError, match=r"--threshold 0\.6 overrides any saved threshold"):
        save(saved, "nut", wanted(saved, "nut", 0.3, 0.5))
    assert (bundle.root / MANIFEST_NAME).read_bytes() == before
    save(saved, "nut", wanted(saved, "nut", 0.6, 0.7))
    assert again(saved).thresholds("nut") == (0.6, 0.7)


def test_the_package_s_bundle_stays_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    shipped = Bundle.open(shipped_bundle())
    (name,) = shipped.manifest.classes
    with pytest.raises(BundleError, match="belongs to the package"):
        saved = Saved(shipped, Settings(), None)
        save(saved, name, wanted(saved, name, 0.3, 0.5))
    file = own_settings(shipped.root, ["camera 0"])
    assert file.parent == tmp_path / "config" / "kanoclip" and file.name.startswith(f"{shipped.manifest.name}-")
    saved = Saved(shipped, Settings(), file)
    assert save(saved, name, wanted(saved, name, 0.3, 0.6)) == file
    assert again(saved).thresholds(name) == (0.3, 0.6)
    assert Bundle.open(shipped_bundle()).manifest == shipped.manifest


def test_a_bundle_that_can_be_written_to_has_a_file_of_its_place(bundle, tmp_path, monkeypatch):
    """For its region. Its thresholds are its own, and no copy elsewhere takes the region over."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    copy = shutil.copytree(bundle.root, tmp_path / "elsewhere" / bundle.root.name)
    files = {own_settings(root, ["camera 0"]) for root in (bundle.root, copy, shipped_bundle())}
    assert len(files) == 3 and {file.parent for file in files} == {tmp_path / "config" / "kanoclip"}
    saved = Saved(bundle, Settings(), own_settings(bundle.root, ["camera 0"]))
    assert save(saved, "nut", wanted(saved, "nut", 0.3, 0.5)) == bundle.root
    assert not saved.file.exists()


def test_they_belong_to_the_content_and_the_sources(bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(saved_thresholds, "check_place", lambda *_: (_ for _ in ()).throw(BundleError("read-only")))
    both = own_settings(bundle.root, ["camera 0", "camera 2"])
    assert both == own_settings(bundle.root, ["camera 2", "camera 0"])
    assert not_used(both) == "", "there is no folder yet"
    both.parent.mkdir(parents=True)
    both.write_text("")
    one = own_settings(bundle.root, ["camera 0"])
    assert one != both and not_used(both) == ""
    assert not_used(one) == f"{both}: saved for another content of toy or other sources, and not used"
    saved_before = both.with_name("toy-0123abcd.toml")
    both.rename(saved_before)  # as earlier versions called it
    assert str(saved_before) in not_used(one)
    store(Bundle.open(bundle.root), None, "nut", Thresholds(0.9, 0.8, 3, "conformal"))
    assert own_settings(bundle.root, ["camera 0"]) not in (one, None), "another content"


def test_without_a_bundle_or_a_home_there_is_no_file(tmp_path, monkeypatch):
    assert own_settings(tmp_path / "nowhere.kanoclip", ["camera 0"]) is None
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    assert own_settings(shipped_bundle(), ["camera 0"]) is None
