from __future__ import annotations

import os
from pathlib import Path

import pytest

from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.system.files.guard import Read, Written, refuse_overwriting


def hits(output: Path, *read: Read, replaced: bool = False) -> bool:
    try:
        refuse_overwriting([Written("--output", output, replaced)], read)
    except SinkError as error:
        assert "\n" not in str(error)
        assert str(error).startswith(f"--output {output} would overwrite the source ")
        return True
    return False


def source(path: Path, **more: object) -> Read:
    return Read("the source", path, **more)


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"all that there is")
    return path


def test_the_same_file_by_every_name(clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.mp4").symlink_to(clip)
    (tmp_path / "chain.mp4").symlink_to("link.mp4")
    (tmp_path / "folder").symlink_to(tmp_path)
    os.link(clip, tmp_path / "hard.mp4")
    names = ["clip.mp4", "./clip.mp4", "sub/../clip.mp4", "link.mp4", "chain.mp4", "folder/clip.mp4", "hard.mp4"]
    for name in names:
        assert hits(Path(name), source(clip)), name
        assert hits(clip, source(Path(name))), name
    assert clip.read_bytes() == b"all that there is"


def test_other_files_pass(clip, tmp_path):
    (tmp_path / "other.mp4").write_bytes(clip.read_bytes())
    for name in ("new.mp4", "other.mp4", "clip.mp4.jsonl", "clip.mp", "no/such/folder/clip.mp4"):
        assert not hits(tmp_path / name, source(clip)), name


def test_a_source_that_is_not_there_yet(tmp_path):
    assert hits(tmp_path / "a" / ".." / "x.mp4", source(tmp_path / "x.mp4"))


def test_a_dangling_link_to_the_source_of_a_later_start(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "x.mp4")
    assert hits(tmp_path / "link", source(tmp_path / "x.mp4"))


def test_a_loop_of_links_is_no_traceback(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert not hits(tmp_path / "a", source(tmp_path / "x.mp4", files=lambda: [tmp_path / "a"]))


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_names_that_no_file_can_have(name, tmp_path):
    refuse_overwriting([Written("--output", tmp_path / name)], [source(tmp_path / "x.mp4", files=lambda: [])])


def test_one_of_many_files(tmp_path):
    images = [tmp_path / f"{n}.png" for n in range(3)]
    for path in images:
        path.touch()
    (tmp_path / "out").mkdir()
    os.link(images[1], tmp_path / "out" / "hard.png")
    folder = source(tmp_path, files=lambda: images)
    assert hits(images[2], folder)
    assert hits(tmp_path / "out" / "hard.png", folder)
    assert hits(tmp_path, folder), "the folder itself"
    assert not hits(tmp_path / "frames.jsonl", folder)
    assert not hits(tmp_path / "out", folder), "a folder below is marked, and not read"
    refuse_overwriting([Written("--output", tmp_path / "out", filled=True)], [source(tmp_path, files=lambda: images)])
    images.append(tmp_path / "out" / "mine.png")
    with pytest.raises(SinkError, match=r"holds images of the source, such as .*mine\.png, .* name another folder"):
        refuse_overwriting([Written("--maps", tmp_path / "out", filled=True)], [folder])


def test_two_outputs_are_two_files(tmp_path):
    (tmp_path / "link.md").symlink_to("a.json")
    for name in ("a.json", "./a.json", "link.md"):
        with pytest.raises(SinkError, match=r"--csv .* would overwrite what --output writes: give each its own place"):
            refuse_overwriting([Written("--output", tmp_path / "a.json"), Written("--csv", tmp_path / name)], [])


def test_files_are_not_listed_for_an_output_that_is_new(tmp_path):
    def listed():
        raise AssertionError("a million files")

    assert not hits(tmp_path / "new.jsonl", source(tmp_path, files=listed))


def test_nothing_is_written_into_a_bundle(tmp_path):
    bundle = tmp_path / "a.kanoclip"
    bundle.mkdir()
    assert hits(bundle / "manifest.json", source(bundle, closed=True))
    assert hits(bundle / "new" / "x.jsonl", source(bundle, closed=True))
    assert not hits(tmp_path / "a.kanoclip2", source(bundle, closed=True))


def test_what_is_replaced_takes_nothing_with_it(tmp_path):
    bundle = tmp_path / "a.kanoclip"
    bundle.mkdir()
    (bundle / "good").mkdir()
    assert hits(bundle, source(bundle / "good"), replaced=True)
    assert not hits(bundle, source(bundle / "good"))
