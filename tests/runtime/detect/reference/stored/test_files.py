"""The file: the same again after a round, and refused in one line when anything in it is not right."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from references import DIGEST, memory
from safetensors import safe_open
from safetensors.numpy import load, save

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.bundle.manifest.signature import DescriptorInfo, MemoryInfo
from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.detect.reference.memory import Correction, Label
from kanoclip.runtime.detect.reference.stored.files import encode, name_of, read_memory
from kanoclip.runtime.errors import MemoryFileError

BEFORE = Thresholds(0.5, 0.6, 3, "before", None)


@pytest.fixture(scope="module")
def manifest(toy_bundle):
    """Of a bundle whose graph takes such memories."""
    own = Bundle.open(toy_bundle).manifest
    return replace(own, descriptor=DescriptorInfo((8, 8), 16, DIGEST), memory=MemoryInfo(64))


@pytest.fixture(scope="module")
def content():
    return encode(replace(memory(), before=BEFORE, note="made up"))


@pytest.fixture
def path(tmp_path, content):
    path = tmp_path / "memory.safetensors"
    path.write_bytes(content)
    return path


def refused(path, manifest, *parts):
    with pytest.raises(MemoryFileError) as raised:
        read_memory(path, manifest)
    message = str(raised.value)
    assert "\n" not in message and str(path) in message
    for part in parts:
        assert part in message, message


def altered(path, content, change, texts=None):
    """Writes the file with other arrays or texts."""
    arrays = load(content)
    change(arrays)
    with safe_open(path, framework="numpy") as file:
        own = dict(file.metadata())
    path.write_bytes(save(arrays, own | (texts or {})))


def test_names_of_files_may_be_of_any_bytes(tmp_path, manifest):
    """As from a stick that another system wrote, whose names are not UTF-8."""
    names = ("Fl\udce4che.jpg", "a\nb.jpg", "ä.jpg", '"; <b>.jpg')
    path = tmp_path / "memory.safetensors"
    path.write_bytes(encode(replace(memory(), names=names)))
    assert read_memory(path, manifest).names == names


@pytest.mark.parametrize("tiles", [None, TileGrid(3, 1, 0.15)])
def test_there_and_back(tmp_path, manifest, tiles):
    one = replace(memory(), before=BEFORE, note="é", tiles=tiles)
    path = tmp_path / "m.safetensors"
    path.write_bytes(encode(one))
    back = read_memory(path, replace(manifest, tiles=tiles))
    for name in ("rows", "image_of", "centre", "loo_scores", "loo_peaks"):
        assert (
            np.array_equal(getattr(back, name), getattr(one, name))
            and getattr(back, name).dtype == getattr(one, name).dtype
        )
    assert np.array_equal(back.fusion.numbers(), one.fusion.numbers())
    assert (back.names, back.created, back.note, back.tiles, back.before) == (
        one.names,
        one.created,
        one.note,
        one.tiles,
        one.before,
    )


LABELLED = (
    Correction(Label.FINE, "a<b>/é.png", "ab" * 32, "2026-01-02T03:04:05+00:00", 0.75, 0.5, 0.25, 1, b"one", (8, 9)),
    Correction(Label.BAD, "2.png", "cd" * 32, "2026-01-02T03:04:06+00:00", 0.25, 0.5, 0.25, None, b"", (8, 9)),
    Correction(Label.BAD, "3.png", "ef" * 32, "2026-01-02T03:04:07+00:00", 0.25, 0.5, 0.25, None, b"three", (8, 9)),
)


def test_corrections_there_and_back(tmp_path, manifest):
    path = tmp_path / "m.safetensors"
    path.write_bytes(encode(replace(memory(), corrections=LABELLED)))
    back = read_memory(path, manifest)
    assert back.corrections == LABELLED and back.counted.tolist() == [True, False, True, True]
    assert [one.name for one in back.corrected(Label.BAD)] == ["3.png"]
    assert b"correction" not in encode(memory()), "earlier versions read a memory without any"


@pytest.mark.parametrize(
    "change",
    [
        {"image": 2}, {"image": 99}, {"image": -1}, {"label": "ugly"}, {"sha256": "x"}, {"score": 2}, {"name": "a\nb"},
        {"reference": 4}, {"reference": -1}, {"size": [8]}, {"size": [8, 9, 3]}, {"size": [0, 1]}, {"more": 1},
        {"labelled_at": "yesterday"},
    ],
)  # fmt: skip
def test_corrections_that_are_wrong(tmp_path, manifest, change):
    path = tmp_path / "m.safetensors"
    path.write_bytes(content := encode(replace(memory(), corrections=LABELLED)))
    with safe_open(path, framework="numpy") as file:
        rows = json.loads(file.metadata()["corrections"])
    rows[0] |= change
    altered(path, content, lambda a: None, {"corrections": json.dumps(rows)})
    refused(path, manifest, "damaged")
    for texts in ("5", "[]", "[5]"):
        altered(path, content, lambda a: None, {"corrections": texts})
        refused(path, manifest, "damaged")


def test_the_name_is_the_content():
    one, other = encode(memory()), encode(memory(seed=3))
    assert name_of(one) == name_of(bytes(one)) != name_of(other)
    assert name_of(one).startswith("references/") and len(name_of(one)) == len("references/.safetensors") + 16


def test_repeats_there_and_back(tmp_path, manifest):
    path = tmp_path / "m.safetensors"
    path.write_bytes(encode(replace(memory(), repeats=(1, 3))))
    assert read_memory(path, manifest).counted.tolist() == [True, False, True, False]
    assert b"repeats" not in encode(memory()), "earlier versions read a memory without any"


@pytest.mark.parametrize("text", ["5", "{}", "[4]", "[-1]", "[1.0]", "[true]", '["1"]', "[0, 1, 2, 3]", "[" * 5000])
def test_repeats_that_are_wrong(tmp_path, manifest, text):
    path = tmp_path / "m.safetensors"
    path.write_bytes(content := encode(replace(memory(), repeats=(1,))))
    altered(path, content, lambda a: None, {"repeats": text})
    refused(path, manifest, "damaged")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_a_cut_file(path, content, manifest, share):
    path.write_bytes(content[: int(share * len(content))])
    refused(path, manifest, "damaged", "kanoclip-learn")


def test_a_missing_file(tmp_path, manifest):
    refused(tmp_path / "none.safetensors", manifest, "damaged")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("rows", lambda a: a["rows"].__setitem__((3, 2), np.nan)),
        ("centre", lambda a: a["centre"].__setitem__(0, np.inf)),
        ("loo_scores", lambda a: a["loo_scores"].__setitem__(0, np.nan)),
        ("fusion", lambda a: a["fusion"].__setitem__(1, np.nan)),
        ("fusion", lambda a: a["fusion"].__setitem__(1, -1)),
        ("fusion", lambda a: a["fusion"].__setitem__(0, 0)),
        ("unit", lambda a: a.update(rows=a["rows"] * np.float16(1.5))),
        ("rows", lambda a: a.update(rows=a["rows"].astype(np.float32))),
        ("image_of", lambda a: a.update(image_of=a["image_of"].astype(np.int64))),
        ("image_of", lambda a: a.update(image_of=a["image_of"][:-1])),
        ("no reference", lambda a: a["image_of"].__setitem__(0, 99)),
        ("no reference", lambda a: a["image_of"].__setitem__(0, -1)),
        ("loo_peaks", lambda a: a.update(loo_peaks=a["loo_peaks"][:-1])),
        ("loo_peaks", lambda a: a["loo_peaks"].__setitem__(0, 1.5)),
        ("centre", lambda a: a.update(centre=a["centre"][:-1])),
        ("arrays", lambda a: a.pop("loo_peaks")),
        ("arrays", lambda a: a.update(more=a["centre"])),
        ("rows", lambda a: a.update(rows=a["rows"][:0], image_of=a["image_of"][:0])),
    ],
)
def test_arrays_that_are_wrong(path, content, manifest, name, change):
    altered(path, content, change)
    refused(path, manifest, "damaged", name)


@pytest.mark.parametrize(
    "texts",
    [
        {"kind": "something"},
        {"version": "2"},
        {"names": "[]"},
        {"names": "{"},
        {"names": "[1]"},
        {"tiles": "5"},
        {"before": '{"image": 2}'},
        {"created": "a\nb"},
        {"more": ""},
    ],
)
def test_texts_that_are_wrong(path, content, manifest, texts):
    altered(path, content, lambda a: None, texts)
    refused(path, manifest, "damaged")


def test_another_descriptor(path, manifest):
    other = replace(manifest, descriptor=DescriptorInfo((8, 8), 16, "cd" * 32))
    refused(path, other, "another model or export", "kanoclip-learn")


def test_another_bundle(path, manifest):
    refused(path, replace(manifest, tiles=TileGrid(2, 2, 0.1)), "tiles")
    refused(path, replace(manifest, memory=MemoryInfo(63)), "64 rows", "63")
    refused(path, replace(manifest, memory=None), "no reference memory")
    refused(path, replace(manifest, descriptor=None), "no reference memory")
    refused(path, replace(manifest, descriptor=DescriptorInfo((8, 8), 17, DIGEST)), "channels")


def test_the_layout_is_the_documented_one(content):
    """Eight bytes of length, the header, the arrays one after the other."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert header["rows"]["dtype"] == "F16" and header["rows"]["shape"] == [64, 16]
    assert len(content) == 8 + length + max(
        entry["data_offsets"][1] for n, entry in header.items() if n != "__metadata__"
    )
    start, end = (8 + length + offset for offset in header["rows"]["data_offsets"])
    assert np.array_equal(np.frombuffer(content[start:end], np.float16).reshape(64, 16), load(content)["rows"])
