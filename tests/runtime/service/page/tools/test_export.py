"""A selection as a dataset: read by the reader that kanoclip-train and kanoclip-eval have."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace

import pytest
from page_helpers import a_frame

from kanoclip.runtime.service.page.snapshot_gallery import SnapshotGallery
from kanoclip.runtime.service.page.tools.export import MAX_IMAGES, Chosen, folder_name, zipped
from kanoclip.runtime.sinks.snapshots.sink import SnapshotConfig, SnapshotSink
from kanoclip.train.data.check import inspect
from kanoclip.train.data.registry import open_dataset


@pytest.fixture
def full(tmp_path):
    """Six snapshots, of classes with names that no folder may have."""
    sink = SnapshotSink(SnapshotConfig(tmp_path / "ring", min_interval_s=0.0), untrained=False)
    for index in range(6):
        frame, found = a_frame(index, 0.6, size=(48, 64))
        sink.write(frame, replace(found, class_name=("nut", "../<b>tile</b>\x07")[index == 5]))
    sink.close()
    return SnapshotGallery(tmp_path / "ring", lambda: 0.4)


def unpacked(data, folder):
    """What a careless program would unpack: `extractall` of names that are all harmless."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
        archive.extractall(folder)
    return names


def test_the_training_s_reader_takes_it(full, make_page, ask, tmp_path):
    keys = [entry.key for entry in full.entries()]
    labels = ["../<b>\x00tile", "scratch", "scratch", "good", "OK ", "  Kratzer/tief"]
    images = [{"key": key, "label": label} for key, label in zip(keys, labels, strict=True)]
    answer = ask(make_page(gallery=full), "/api/export", {"images": images})
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/zip"
    assert answer.headers["x-kanoclip-left-out"] == "0"
    names = unpacked(answer.content, tmp_path / "set")
    assert not any(".." in name or name.startswith("/") or not name.isprintable() for name in names)

    dataset = open_dataset("mvtec", tmp_path / "set", split="all")
    found = {one.name: sorted((s.defect, s.anomalous, s.mask) for s in one.samples) for one in dataset.categories}
    assert found == {
        "nut": [
            ("Kratzer-tief", True, None),
            ("good", False, None),
            ("good", False, None),
            ("scratch", True, None),
            ("scratch", True, None),
        ],
        "b-tile-b": [("b-tile", True, None)],
    }
    assert not dataset.pixel_labels and dataset.problems == ()  # what a model finds is no ground truth
    assert inspect(dataset, deep=True, advance=lambda: None).complete
    about = json.loads((tmp_path / "set" / "export.json").read_text())
    assert len(about["images"]) == 6 and about["left_out"] == [] and about["images"][0]["record"]["score"] == 0.6


def test_what_was_deleted_meanwhile_is_left_out_and_said(full, make_page, ask, tmp_path):
    first, second, *_ = [entry.key for entry in full.entries()]
    images = [{"key": key, "label": "crack"} for key in (first, second, "../../etc/passwd", "<b>")]
    for path in (tmp_path / "ring").glob(f"{first}*"):
        path.unlink()
    answer = ask(make_page(gallery=full), "/api/export", {"images": images})
    assert answer.headers["x-kanoclip-left-out"] == "3"
    unpacked(answer.content, tmp_path / "set")
    about = json.loads((tmp_path / "set" / "export.json").read_text())
    assert [one["key"] for one in about["images"]] == [second]
    assert [one["key"] for one in about["left_out"]] == [first, "../../etc/passwd", "<b>"]
    gone = ask(make_page(gallery=full), "/api/export", {"images": images[:1]})
    assert gone.status_code == 404


def test_two_cameras_with_long_names_at_one_moment_are_two_files(tmp_path):
    sink = SnapshotSink(SnapshotConfig(tmp_path / "ring", min_interval_s=0.0), untrained=False)
    for number in (3, 4):
        frame, found = a_frame(
            0, 0.6, size=(48, 64), source=f"test://?width=320&height=180&fps=20&defect=0.3&seed={number}"
        )
        sink.write(frame, found)
    sink.close()
    gallery = SnapshotGallery(tmp_path / "ring", lambda: 0.4)
    keys = [entry.key for entry in gallery.entries()]
    names = unpacked(b"".join(zipped(gallery, [Chosen(key, "crack") for key in keys])), tmp_path / "set")
    assert len(keys) == 2 and len(set(names)) == len(names)
    assert len(list((tmp_path / "set").rglob("*.jpg"))) == 2


def test_one_that_goes_while_it_is_sent_does_not_break_the_file(full, tmp_path):
    keys = [entry.key for entry in full.entries()]
    pieces = zipped(full, [Chosen(key, "crack") for key in keys])
    data = next(pieces)
    for path in (tmp_path / "ring").glob(f"{keys[2]}*"):
        path.unlink()
    unpacked(data + b"".join(pieces), tmp_path / "set")
    assert [one["key"] for one in json.loads((tmp_path / "set/export.json").read_text())["left_out"]] == [keys[2]]


def test_a_piece_is_no_larger_than_an_image_and_all_are_bounded(full, tmp_path, monkeypatch):
    keys = [entry.key for entry in full.entries()]
    largest = max(len(full.image(key)) for key in keys)
    assert max(map(len, zipped(full, [Chosen(key, "x") for key in keys[:5]]))) < largest + 6000
    monkeypatch.setattr("kanoclip.runtime.service.page.tools.export.MAX_BYTES", 2 * largest)
    unpacked(b"".join(zipped(full, [Chosen(key, "x") for key in keys])), tmp_path / "set")
    assert len(json.loads((tmp_path / "set/export.json").read_text())["left_out"]) == 4


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([], "at least one"),
        ("all", "at least one"),
        ([{"key": "1"}], "key and a label"),
        ([{"key": "1", "label": "  "}], "key and a label"),
        ([["1", "good"]], "key and a label"),
        ([{"key": str(n), "label": "x"} for n in range(MAX_IMAGES + 1)], "at most 500"),
    ],
)
def test_what_is_no_selection_is_refused(full, make_page, ask, images, words):
    answer = ask(make_page(gallery=full), "/api/export", {"images": images})
    assert answer.status_code == 400 and words in answer.json()["error"]


@pytest.mark.parametrize(
    ("name", "folder"),
    [("Good", "good"), ("ok", "good"), ("../..", "x"), ("", "x"), ("a\nb", "a-b"), ("ß", "x"), ("x" * 99, "x" * 48)],
)
def test_names_of_folders(name, folder):
    assert folder_name(name, "x") == folder
