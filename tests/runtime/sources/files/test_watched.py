"""A folder that others write to: whole images only, each once, whatever happens to them and to the folder."""

from __future__ import annotations

import os
import shutil
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.errors import SourceError, SourceRefusedError
from kanoclip.runtime.sources import BaseSource, WatchSource, is_endless, open_source
from kanoclip.runtime.sources.files import images, listing, watched
from kanoclip.runtime.sources.files.listing import Entry, Known, list_images
from kanoclip.runtime.sources.files.watched import WatchedFolder
from kanoclip.runtime.types import BadFrame

PNG = cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))[1].tobytes()


def put(path: Path, data: bytes = PNG) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@contextmanager
def watching(spec):
    """Reads in a thread; gives the names that came, and the source."""
    source = open_source(f"{spec}{'&' if '?' in spec else '?'}every=0.02")
    seen = []
    thread = threading.Thread(target=lambda: seen.extend_from(source.frames()), daemon=True)

    class Seen(list):
        def extend_from(self, frames):
            for item in frames:
                self.append(item)

        def names(self):
            return [Path(item.source).name for item in self]

        def wait(self, count, timeout=20.0):
            deadline = time.monotonic() + timeout
            while len(self) < count:
                assert time.monotonic() < deadline, self.names()
                time.sleep(0.01)
            time.sleep(0.15)  # and no more than that
            assert len(self) == count, self.names()

    seen = Seen()
    thread.start()
    try:
        yield seen, source
    finally:
        started = time.monotonic()
        source.interrupt()
        thread.join(5)
        assert not thread.is_alive() and time.monotonic() - started < 3
        source.close()


def test_new_images_are_scored_once_and_old_ones_not(tmp_path):
    put(tmp_path / "old.png")
    with watching(f"watch://{tmp_path}") as (seen, source):
        assert isinstance(source, WatchSource) and type(source).interrupt is not BaseSource.interrupt
        assert (source.live, source.count, source.root) == (False, None, tmp_path)
        time.sleep(0.1)
        put(tmp_path / "1.png")
        seen.wait(1)
        put(tmp_path / "day2" / "2.PNG")
        put(tmp_path / "notes.txt")
        put(tmp_path / ".3.png.part")
        put(tmp_path / ".hidden.png")
        seen.wait(2)
    assert seen.names() == ["1.png", "2.PNG"]
    assert [item.index for item in seen] == [0, 1]
    assert seen[0].image.shape == (16, 16, 3)
    assert is_endless(f"watch://{tmp_path}")


def test_existing_ones_come_in_the_order_in_which_they_were_written(tmp_path):
    for number, name in enumerate(["c.png", "a.png", "b.png"]):
        os.utime(put(tmp_path / name), ns=(0, 10**18 + number))
    with watching(f"watch://{tmp_path}?existing=1") as (seen, _):
        seen.wait(3)
    assert seen.names() == ["c.png", "a.png", "b.png"]


def test_an_image_in_the_writing_is_waited_for(tmp_path):
    with watching(f"watch://{tmp_path}") as (seen, _), (tmp_path / "slow.png").open("wb") as file:
        for start in range(0, len(PNG), 100):
            file.write(PNG[start : start + 100])
            file.flush()
            time.sleep(0.06)  # two looks find the same size: what counts is that its end is missing
            assert start + 100 >= len(PNG) or not seen
        seen.wait(1)
    assert not isinstance(seen[0], BadFrame)


def test_one_whose_last_bytes_come_while_it_is_read_comes_once(tmp_path, monkeypatch):
    """A look finds it short, and the read that follows finds it whole: it is another file then than the look's."""
    late = []

    def read_image(path, reading):
        if not late:
            late.append(put(path))
        return images.read_image(path, reading)

    monkeypatch.setattr(watched, "read_image", read_image)
    with watching(f"watch://{tmp_path}") as (seen, _):
        put(tmp_path / "slow.png", PNG[:-8])
        seen.wait(1)
    assert late and not isinstance(seen[0], BadFrame)


def test_one_that_was_made_elsewhere_and_moved_in_is_seen_whatever_its_time(tmp_path):
    elsewhere = put(tmp_path / "elsewhere" / "x.png")
    os.utime(elsewhere, (1e9, 1e9))
    (tmp_path / "in").mkdir()
    with watching(f"watch://{tmp_path / 'in'}") as (seen, _):
        time.sleep(0.1)
        shutil.move(elsewhere, tmp_path / "in" / "x.png")
        seen.wait(1)


def test_one_that_is_written_again_is_scored_again(tmp_path):
    with watching(f"watch://{tmp_path}") as (seen, _):
        put(tmp_path / "ring-00.png")
        seen.wait(1)
        put(tmp_path / "ring-00.png")
        seen.wait(2)


def test_a_damaged_one_is_told_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(watched, "UNFINISHED_S", 0.3)
    with watching(f"watch://{tmp_path}") as (seen, _):
        put(tmp_path / "torn.png", PNG[:-20])
        put(tmp_path / "empty.png", b"")
        put(tmp_path / "junk.jpg", b"nothing of the kind")
        time.sleep(0.15)
        assert not seen
        seen.wait(3)
    assert all(isinstance(item, BadFrame) for item in seen)
    assert {item.reason for item in seen} == {
        "the file is cut short",
        "the file is empty",
        "not an image that OpenCV can decode",
    }


def test_deleted_ones_and_a_folder_that_goes_away_are_no_error(tmp_path, caplog):
    caplog.set_level("INFO", logger="kanoclip.runtime")
    folder = tmp_path / "share"
    put(folder / "1.png")
    with watching(f"watch://{folder}?existing=1") as (seen, _):
        seen.wait(1)
        put(folder / "gone.png", PNG[:50])
        time.sleep(0.1)
        (folder / "gone.png").unlink()
        folder.rename(tmp_path / "unmounted")
        time.sleep(0.2)
        (tmp_path / "unmounted").rename(folder)  # what was scored is not scored again
        put(folder / "2.png")
        seen.wait(2)
    assert seen.names() == ["1.png", "2.png"]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2 and "waiting for it" in said[0] and "back after" in said[1]


def test_a_share_that_comes_back_after_its_empty_mount_point_is_still_known(tmp_path):
    """Unmounting leaves an empty folder in its place."""
    folder = tmp_path / "share"
    put(folder / "1.png")
    with watching(f"watch://{folder}?existing=1") as (seen, _):
        seen.wait(1)
        folder.rename(tmp_path / "unmounted")
        folder.mkdir()
        time.sleep(0.2)
        folder.rmdir()
        (tmp_path / "unmounted").rename(folder)
        time.sleep(0.2)
        seen.wait(1)


def test_scored_ones_are_moved(tmp_path):
    folder, done = tmp_path / "in", tmp_path / "in" / "done"
    put(folder / "left" / "over.png")  # by an earlier run
    put(done / "1.png", b"of an earlier run too")
    with watching(f"watch://{folder}?done={done}") as (seen, _):
        seen.wait(1)
        put(folder / "1.png")
        seen.wait(2)
    assert seen.names() == ["over.png", "1.png"]
    assert not (folder / "1.png").exists() and (done / "left" / "over.png").read_bytes() == PNG
    assert (done / "1.png").read_bytes() == b"of an earlier run too"
    assert [path.read_bytes() for path in done.glob("1-*.png")] == [PNG]


def test_more_than_one_look_takes_up(tmp_path, monkeypatch):
    monkeypatch.setattr(watched, "MOST_AT_ONCE", 10)
    for number in range(35):
        put(tmp_path / f"{number}.png")
    with watching(f"watch://{tmp_path}?existing=1") as (seen, _):
        seen.wait(35)
    assert sorted(seen.names()) == sorted(f"{number}.png" for number in range(35))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("watch://", "no folder is given"),
        ("watch://{}?done=", "done must be a folder"),
        ("watch://{}?done={}", "another folder"),
        ("watch://{}?existing=2", "existing must be a whole number from 0 to 1"),
        ("watch://{}?every=0", "every must be a number from 0.02"),
        ("watch://{}?every=nan", "every must be a number"),
        ("watch://{}?delete=1", "unknown option 'delete'"),
        ("watch://{}?every=1&every=1", "given twice"),
    ],
)
def test_what_is_refused(tmp_path, spec, said):
    with pytest.raises(SourceError, match=said):
        WatchedFolder.parse(spec.replace("{}", str(tmp_path)))
    with pytest.raises(SourceRefusedError, match="no such folder to watch"):
        open_source(f"watch://{tmp_path / 'nowhere'}")


def entries(keys):
    return [Entry(str(key), 0, key) for key in keys]


@given(st.lists(st.tuples(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30))), max_size=12))
def test_what_was_dealt_with_is_never_unknown_again(looks):
    """Each look finds some files and deals with some of these; files come and go."""
    known, dealt = Known(), set()
    for present, wanted in looks:
        unknown = {entry.key for entry in known.look(entries(present))}
        assert unknown == present - dealt
        for key in unknown & wanted:
            known.add(key)
            dealt.add(key)


def test_files_that_have_gone_are_forgotten_in_the_end(monkeypatch):
    monkeypatch.setattr(listing, "MOST_GONE", 100)
    known = Known()
    for start in range(0, 5000, 50):
        for entry in known.look(entries(range(start, start + 50))):
            known.add(entry.key)
    assert known._gone.size <= 100 and known._here.size <= 50
    assert len(list(known.look(entries(range(4900, 5000))))) == 0
    assert len(list(known.look(entries(range(50))))) == 50


def test_many_files_take_sixteen_bytes_each():
    known = Known()
    keys = np.random.default_rng(0).permutation(200_000).tolist()
    assert len(list(known.look(entries(keys)))) == 200_000
    known.add_present()
    assert not list(known.look(entries(keys)))
    assert known._here.nbytes + known._gone.nbytes + known._present.nbytes <= 16 * 200_000


def test_links_that_lead_in_circles_or_nowhere(tmp_path):
    put(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere.png")
    assert [Path(entry.path).name for entry in list_images(tmp_path)] == ["1.png"]
