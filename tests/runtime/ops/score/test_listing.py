"""Folders, globs, tables and URLs: which images, and in which order."""

from __future__ import annotations

import glob
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kanoclip.runtime.errors import SourceError
from kanoclip.runtime.ops.score.listing import Item, list_items
from kanoclip.runtime.ops.score.places import is_url, read_bytes
from kanoclip.runtime.sources.files.folders import images_in, images_matching, natural_key
from kanoclip.runtime.sources.files.images import ImageSource
from kanoclip.runtime.system.files.own import mark_folder

NAMES = [
    "a/2.jpg", "a/10.jpg", "a/10/3.png", "a/10x.jpg", "a10/1.jpg", "a2/1.JPG", "b.bmp", "b/c/d/e.webp", "b/notes.txt",
    ".hidden/1.jpg", "b/._x.jpg", "z[1]/1.png", "z[1]/a*b.png", "a-b/1.jpg", "ü/1.jpg",
]  # fmt: skip


@pytest.fixture
def tree(tmp_path):
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def paths(source, **options):
    return [item.path for item in list_items(str(source), **options)]


def test_a_folder_comes_as_kanoclip_run_takes_it(tree):
    assert paths(tree) == [str(path) for path in ImageSource.from_folder(tree).paths]
    assert len(paths(tree)) == 12


def test_the_masks_of_a_data_set_are_no_images(tree):
    for name in ("bottle/test/good/1.png", "bottle/ground_truth/broken/1_mask.png", "bottle/train/1.png"):
        (tree / name).parent.mkdir(parents=True)
        (tree / name).write_bytes(b"x")
    assert paths(tree) == [str(path) for path in ImageSource.from_folder(tree).paths]
    assert not any("1_mask.png" in path for path in paths(tree))
    assert any("_mask" in path for path in paths(f"{tree}/bottle/**/*.png"))  # who asks for them gets them


@pytest.mark.parametrize(
    "pattern", ["**/*.jpg", "a*/*.jpg", "*/*", "**", "a/1?.jpg", "b/**/e.webp", "a[0-9]*/*.[jJ]*", "**/1*"]
)
def test_globs_find_what_python_finds(tree, pattern, monkeypatch):
    wanted = {
        path
        for path in glob.glob(f"{tree}/{pattern}", recursive=True)
        if Path(path) in ImageSource.from_folder(tree).paths
    }
    found = paths(f"{tree}/{pattern}")
    assert set(found) == wanted and wanted
    assert found == sorted(found, key=lambda path: natural_key(Path(path)))
    monkeypatch.chdir(tree)
    assert [str(tree / path) for path in paths(pattern)] == found


def test_a_folder_behind_a_url_comes_in_the_same_order(tree):
    found = paths(f"file://{tree}")
    assert found == [f"file://{path}" for path in paths(tree)]
    assert paths(f"file://{tree}/**/*.jpg") == [f"file://{path}" for path in paths(f"{tree}/**/*.jpg")]
    assert paths(f"file://{tree}/b.bmp") == [f"file://{tree}/b.bmp"]


def test_a_store_of_objects(tree):
    """Not a file system: it has no folders of its own."""
    import fsspec

    store = fsspec.filesystem("memory")
    for name in ("bucket/a/2.jpg", "bucket/a/10.jpg", "bucket/b/1.png", "bucket/readme.txt"):
        store.pipe_file(f"/{name}", b"content")
    try:
        found = paths("memory://bucket")
        assert found == ["memory:///bucket/a/2.jpg", "memory:///bucket/a/10.jpg", "memory:///bucket/b/1.png"]
        assert all(is_url(path) and read_bytes(path) == b"content" for path in found)
        assert paths("memory://bucket/*/1*.*") == ["memory:///bucket/a/10.jpg", "memory:///bucket/b/1.png"]
        assert read_bytes("memory:///bucket/none.jpg") != b""
        assert isinstance(read_bytes("memory:///bucket/none.jpg"), str)
    finally:
        store.rm("/bucket", recursive=True)


def test_a_network_that_gives_no_answer_is_asked_again(monkeypatch):
    import fsspec

    store = fsspec.filesystem("memory")
    store.pipe_file("/flaky/1.jpg", b"content")
    answers = [OSError("reset"), OSError("reset"), b"content"]
    slept = []

    def answer(self, path, *more, **options):
        said = answers.pop(0)
        if isinstance(said, OSError):
            raise said
        return said

    monkeypatch.setattr(type(store), "cat_file", answer)
    monkeypatch.setattr("kanoclip.runtime.ops.score.places.time.sleep", slept.append)
    assert read_bytes("memory://flaky/1.jpg") == b"content"
    assert slept == [0.2, 1.0]
    answers[:] = [FileNotFoundError(2, "No such file")]
    assert read_bytes("memory://flaky/1.jpg") == "No such file"  # and is not asked again
    answers[:] = [OSError("reset")] * 4
    assert read_bytes("memory://flaky/1.jpg") == "reset"


def test_tables(tmp_path):
    pq.write_table(
        pa.table({"path": ["b.jpg", "s3://x/a.jpg", "b.jpg"], "kind": ["k1", "k2", "k1"]}), tmp_path / "t.parquet"
    )
    assert list(list_items(f"{tmp_path}/t.parquet")) == [Item("b.jpg"), Item("s3://x/a.jpg"), Item("b.jpg")]
    assert list(list_items(f"file://{tmp_path}/t.parquet", class_column="kind"))[1] == Item("s3://x/a.jpg", "k2")
    with pytest.raises(SourceError, match="no column 'image', but path, kind"):
        paths(tmp_path / "t.parquet", column="image")
    pq.write_table(pa.table({"path": ["b.jpg", None]}), tmp_path / "holes.parquet")
    with pytest.raises(SourceError, match="row 2 has no text in 'path'"):
        paths(tmp_path / "holes.parquet")
    pq.write_table(pa.table({"path": pa.array([], pa.string())}), tmp_path / "empty.parquet")
    with pytest.raises(SourceError, match="no rows"):
        paths(tmp_path / "empty.parquet")
    (tmp_path / "no.parquet").write_bytes(b"text")
    with pytest.raises(SourceError, match="cannot be read as a Parquet table"):
        paths(tmp_path / "no.parquet")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("nowhere", "no such file or folder"),
        ("nowhere.parquet", "cannot be read"),
        ("*.jpg", "no images there"),
        ("nosuch://a/b", "cannot be opened"),
        ("ftp://me:secret@host/a", "no password in a URL"),
    ],
)
def test_what_is_no_source_is_refused(tmp_path, monkeypatch, source, told):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=told) as caught:
        paths(source)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_an_empty_folder_and_one_that_cannot_be_listed(tmp_path):
    with pytest.raises(SourceError, match="no images there"):
        paths(tmp_path)
    with pytest.raises(SourceError, match=r"only a \.parquet table has a column of classes"):
        paths(tmp_path, class_column="kind")


def test_memory_is_that_of_one_folder(tmp_path):
    """Not of the list: it is taken one by one."""
    for folder in range(30):
        (tmp_path / f"{folder}").mkdir()
        for number in range(100):
            (tmp_path / f"{folder}" / f"{number}.jpg").touch()
    tracemalloc.start()
    try:
        count = sum(1 for _ in list_items(str(tmp_path)))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 3000
    assert most < 300_000, most  # 3,000 paths of this length alone take more


def test_the_mark_of_a_folder_holds_for_all_below_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = ["in/a.png", "in/out/a.png", "in/out/deep/er/a.png"]
    for name in files:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"x")
    mark_folder(Path("in/out"))
    assert list(images_in("in")) == list(images_matching("in/**/*.png")) == files[:1]
    assert list(images_in(".")) == ["./in/a.png"] and list(images_matching("**/*.png")) == files[:1]
    assert list(images_in("in/out")) == files[1:], "the user named it"
    assert list(images_matching("in/out/**/*.png")) == files[1:], "the user named it"


def test_a_table_of_82_kb_with_30_million_rows(tmp_path):
    path = tmp_path / "many.parquet"
    row = pa.DictionaryArray.from_arrays(pa.array(np.zeros(1 << 20, np.int8)), ["a.png"])
    with pq.ParquetWriter(path, pa.schema([("path", row.type)])) as writer:
        for _ in range(17):
            writer.write_table(pa.table({"path": row}))
    assert path.stat().st_size < 200_000
    with pytest.raises(SourceError, match=r"has 17,825,792 rows: split it, a table has at most 16,777,216"):
        next(list_items(str(path)))


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("rows", [1, 2000])
def test_a_cell_that_is_no_path(tmp_path, compression, dictionary, rows):
    path = tmp_path / "long.parquet"
    table = pa.table({"path": ["x" * 5_000_000, *["a.png"] * rows]})
    pq.write_table(table, path, compression=compression, use_dictionary=dictionary)
    with pytest.raises(SourceError, match=r"texts? of over 32,768 bytes"):
        list(list_items(str(path)))


def test_what_is_no_file_is_no_table(tmp_path):
    os.mkfifo(tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="no regular file"):
        list(list_items(str(tmp_path / "a.parquet")))
