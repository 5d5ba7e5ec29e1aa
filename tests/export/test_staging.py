from __future__ import annotations

import errno
from pathlib import Path

import pytest

from kanoclip.export.staging import check_output, staged
from kanoclip.runtime.bundle.manifest.schema import MANIFEST_NAME
from kanoclip.runtime.errors import ExportError


def bundle(path: Path, text: str) -> Path:
    path.mkdir()
    (path / MANIFEST_NAME).write_text(text)
    return path


def test_new_bundle_appears_whole(tmp_path):
    output = tmp_path / "a.kanoclip"
    with staged(output) as folder:
        (folder / MANIFEST_NAME).write_text("new")
        assert not output.exists()
    assert (output / MANIFEST_NAME).read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.kanoclip"]


def test_failure_keeps_the_old_bundle_and_leaves_nothing_behind(tmp_path):
    output = bundle(tmp_path / "a.kanoclip", "old")
    with pytest.raises(RuntimeError), staged(output) as folder:
        (folder / MANIFEST_NAME).write_text("half")
        raise RuntimeError
    assert (output / MANIFEST_NAME).read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.kanoclip"]


def test_old_bundle_is_replaced_with_all_its_files(tmp_path):
    output = bundle(tmp_path / "a.kanoclip", "old")
    (output / "stale.engine").write_text("old")
    with staged(output) as folder:
        (folder / MANIFEST_NAME).write_text("new")
    assert [p.name for p in output.iterdir()] == [MANIFEST_NAME]
    assert [p.name for p in tmp_path.iterdir()] == ["a.kanoclip"]


def test_full_disk_is_one_clear_error(tmp_path):
    output = tmp_path / "a.kanoclip"
    with pytest.raises(ExportError, match=r"No space left") as caught, staged(output):
        raise OSError(errno.ENOSPC, "No space left on device", "model.onnx")
    assert "model.onnx" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_ctrl_c_leaves_nothing_behind(tmp_path):
    with pytest.raises(KeyboardInterrupt), staged(tmp_path / "a.kanoclip"):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_places_where_no_bundle_can_go(tmp_path):
    (tmp_path / "holiday.kanoclip").mkdir()
    (tmp_path / "file.kanoclip").write_text("")
    with pytest.raises(ExportError, match=r"ends in \.kanoclip"):
        check_output(tmp_path / "model.onnx")
    with pytest.raises(ExportError, match="make it first"):
        check_output(tmp_path / "missing" / "a.kanoclip")
    for name in ("holiday.kanoclip", "file.kanoclip"):
        with pytest.raises(ExportError, match="not a bundle"):
            check_output(tmp_path / name)
    check_output(tmp_path / "new.kanoclip")
