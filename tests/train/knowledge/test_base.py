import copy
import json
from pathlib import Path

import pytest

from kanoclip.runtime.errors import KnowledgeError
from kanoclip.runtime.system import paths
from kanoclip.train.knowledge.base import (
    Entry,
    KnowledgeBase,
    Observation,
    load_knowledge,
    merged,
    save_knowledge,
)

RECORD = {
    "schema": 1,
    "domain": "industrial",
    "version": "1",
    "origin": "a test",
    "datasets": {
        "mvtec": {
            "metal_nut": {
                "class_name": "metal nut",
                "background": "",
                "abnormal": ["An abnormal image of a metal nut may show rust.", "ein Kratzer über der Fläche"],
                "observed": [{"image": "a/b.png", "text": "a dent at the rim"}],
            }
        }
    },
}


@pytest.fixture
def write(tmp_path):
    def write(record) -> Path:
        path = tmp_path / "base.json"
        path.write_text(record if isinstance(record, str) else json.dumps(record), encoding="utf-8")
        return path

    return write


def test_what_is_saved_is_what_is_loaded(tmp_path, write):
    base = load_knowledge(write(RECORD))
    entry = base.entries["mvtec", "metal_nut"]
    assert entry.descriptions == (*entry.abnormal, "a dent at the rim")
    save_knowledge(tmp_path / "new" / "copy.json", base)
    assert load_knowledge(tmp_path / "new" / "copy.json") == base
    assert "über" in (tmp_path / "new" / "copy.json").read_text(encoding="utf-8"), "for people to read"


def test_find_prefers_the_category_and_falls_back_to_the_words():
    nut, other = Entry("metal nut", "", ("rust",)), Entry("Metal  Nut", "", ("bent",))
    base = KnowledgeBase("d", "1", "o", {("mvtec", "metal_nut"): nut, ("mpdd", "nuts"): other})
    assert base.find("mpdd", "nuts", "whatever") is other
    assert base.find("own", "my_nuts", "METAL nut") is nut
    assert base.find("own", "metal_nut", "metal_nut") is nut
    assert base.find("own", "x", "nut") is None


def test_later_bases_count():
    first = KnowledgeBase("d", "1", "o", {("a", "b"): Entry("b", "", ("one",)), ("a", "c"): Entry("c", "", ("two",))})
    second = KnowledgeBase("e", "1", "p", {("a", "b"): Entry("b", "", ("three",), (Observation("x", "four"),))})
    base = merged([first, second])
    assert base.entries["a", "b"].descriptions == ("three", "four")
    assert base.entries["a", "c"].abnormal == ("two",)
    assert (base.domain, base.version, base.origin) == ("d, e", "1", "o, p")


def entry(record):
    return record["datasets"]["mvtec"]["metal_nut"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda r: r.update(schema=2), "schema 2"),
        (lambda r: r.pop("origin"), "lacks 'origin'"),
        (lambda r: r.update(extra=1), "unknown field 'extra'"),
        (lambda r: r.update(datasets=[]), "datasets is not an object"),
        (lambda r: r["datasets"].update(mvtec="x"), r"datasets\.mvtec is not an object"),
        (lambda r: entry(r).pop("observed"), r"mvtec\.metal_nut lacks 'observed'"),
        (lambda r: entry(r).update(abnormal="rust"), "no list"),
        (lambda r: entry(r).update(abnormal=["rust", 3]), r"abnormal\[1\]"),
        (lambda r: entry(r).update(abnormal=["rust", "  "]), r"abnormal\[1\].*empty"),
        (lambda r: entry(r).update(abnormal=["rust", "rust"]), "twice: 'rust'"),
        (lambda r: entry(r).update(abnormal=["two\nlines"]), "line breaks"),
        (lambda r: entry(r).update(abnormal=["\x1b[31mred"]), "control signs"),
        (lambda r: entry(r).update(abnormal=["x" * 2001]), "longer than 2000"),
        (lambda r: entry(r).update(class_name=""), "class_name"),
        (lambda r: entry(r).update(background=None), "background"),
        (lambda r: entry(r)["observed"][0].pop("text"), r"observed\[0\] lacks 'text'"),
        (lambda r: entry(r).update(observed=[["a", "b"]]), r"observed\[0\] is not an object"),
    ],
)
def test_a_wrong_field_is_named(write, spoil, words):
    record = copy.deepcopy(RECORD)
    spoil(record)
    path = write(record)
    with pytest.raises(KnowledgeError, match=words) as caught:
        load_knowledge(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "1"])
def test_no_knowledge_base_at_all(write, text):
    with pytest.raises(KnowledgeError, match=r"base\.json"):
        load_knowledge(write(text))


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "none.json", tmp_path, tmp_path / "bytes.json"):
        with pytest.raises(KnowledgeError) as caught:
            load_knowledge(path)
        assert str(path) in str(caught.value)


def test_a_full_disk_keeps_the_old_file(tmp_path, write, monkeypatch):
    path = write(RECORD)
    base, before = load_knowledge(path), path.read_bytes()
    monkeypatch.setattr(paths, "_write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(KnowledgeError, match=r"No space left.*whole"):
        save_knowledge(path, base)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("entry", "normal"),
    [
        (Entry("nut", "", ("An abnormal image of a nut may show rust.",)), ("A normal image of a nut",)),
        (
            Entry(
                "metal nut", "A hexagon of steel.", ("An abnormal image of a Metal Nut shows", "a defective metal nut")
            ),
            ("A normal image of a Metal Nut. A hexagon of steel.", "a normal metal nut. A hexagon of steel."),
        ),
        (
            Entry("nut", "a photo of a flawless nut", ("a photo of an abnormal nut with rust",)),
            ("a photo of a flawless nut",),
        ),
        (Entry("nut", "", ("rust", "a chestnut that is abnormal")), ("a photo of a flawless nut",)),
        (Entry("nut", "All is grey.", ("the nut is damaged",)), ("a photo of a flawless nut. All is grey.",)),
        (
            Entry("nut", "", (), (Observation("a.png", "Damaged nut (rusty)"), Observation("b.png", "damaged nuts"))),
            ("normal nut",),
        ),
        (Entry("c++ part (v2)", "", ("an anomalous c++ part (v2) here",)), ("a normal c++ part (v2)",)),
    ],
)
def test_normal_descriptions_open_as_the_abnormal_ones(entry, normal):
    assert entry.normal == normal
