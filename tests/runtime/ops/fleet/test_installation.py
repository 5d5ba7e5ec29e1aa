"""Versions on a box: the current one is always whole, and there is a way back."""

from __future__ import annotations

import fcntl
import json
import os
import threading

import pytest

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.engines import silent
from kanoclip.runtime.errors import BundleError, FleetError
from kanoclip.runtime.ops.fleet.examine import run_command, run_doctor
from kanoclip.runtime.ops.fleet.installation import HISTORY, Installation
from kanoclip.runtime.ops.fleet.pull import DEFAULT_LIMIT, look
from kanoclip.runtime.ops.fleet.push import push
from kanoclip.runtime.ops.fleet.reference import Reference
from kanoclip.runtime.ops.fleet.stores.store import open_store
from kanoclip.runtime.ops.fleet.versions import CURRENT, VERSIONS


def fine(*_):
    pass


class Box:
    """A folder of bundles, and a store that gives it the bundle of any number, signed at a time of its own."""

    def __init__(self, tmp_path, keys, new_bundle, monkeypatch):
        self.tmp_path, self.keys, self.new_bundle, self.monkeypatch = tmp_path, keys, new_bundle, monkeypatch
        self.installation = Installation(tmp_path / "box")
        self.url = str(tmp_path / "store")

    def offer(self, number, at=None):
        at = f"2026-01-02T03:{number:02d}:00+00:00" if at is None else at
        self.monkeypatch.setattr("kanoclip.runtime.ops.fleet.push.now", lambda: at)
        push(self.new_bundle(number), open_store(self.url), "line3", self.keys.signing, silent)
        return look(open_store(self.url), Reference(self.url, "line3"), self.keys.trusted)

    def install(self, number, examine=fine, start=fine, at=None, **options):
        return self.installation.install(self.offer(number, at), examine, start, silent, limit=DEFAULT_LIMIT, **options)

    def threshold(self):
        """Of the current bundle, opened and verified: its number is in it."""
        return round((Bundle.open(self.installation.versions.link).manifest.thresholds.image - 0.5) * 1000)


@pytest.fixture
def box(tmp_path, keys, new_bundle, monkeypatch):
    return Box(tmp_path, keys, new_bundle, monkeypatch)


def failing(words):
    def fail(*_):
        raise FleetError(words)

    return fail


def test_one_after_the_other_and_back(box):
    first = box.install(1)
    assert first.changed and first.fetched > 0 and box.threshold() == 1
    assert not box.install(1).changed
    second = box.install(2)
    assert second.changed and second.fetched == 0, "only the manifest is another: the graph is linked"
    assert box.threshold() == 2
    versions = [box.installation.versions.place(address) for address in box.installation.versions.addresses()]
    assert len({(path / "model.onnx").stat().st_ino for path in versions}) == 1
    assert box.installation.roll_back(None, fine) == first.address and box.threshold() == 1
    # The next pull of the same does not undo that by itself.
    with pytest.raises(FleetError, match=r"not taken: rolled back by hand \(.*\); --again takes it"):
        box.install(2)
    assert box.threshold() == 1
    with pytest.raises(FleetError, match="no bundle before the current one"):
        box.installation.roll_back(None, fine)
    assert box.install(2, again=True).changed and box.threshold() == 2
    assert box.installation.roll_back(first.address[:15], fine) == first.address
    assert box.installation.roll_back(second.address.removeprefix("sha256:")[:8], fine) == second.address


def test_one_that_fails_the_doctor_never_becomes_current(box):
    seen = []

    def examine(path):
        seen.append((path, box.threshold() if box.installation.versions.link.exists() else None, Bundle.open(path)))
        raise FleetError("off by 0.3")

    with pytest.raises(FleetError, match="fails kanoclip-doctor here, nothing is installed: off by"):
        box.install(1, examine)
    assert not box.installation.versions.link.exists() and box.installation.versions.addresses() == []
    box.install(2)
    with pytest.raises(FleetError, match=r"toy sha256:.* fails kanoclip-doctor here, sha256:.{12} stays: off by 0.3"):
        box.install(3, examine)
    assert seen[1][1] == 2, "the old one was current while the new one was looked at"
    assert box.threshold() == 2 and len(box.installation.versions.addresses()) == 1
    with pytest.raises(FleetError, match="not taken: failed kanoclip-doctor: off by"):
        box.install(3)
    assert len(seen) == 2, "it is not even looked at again"
    box.install(3, again=True)
    assert box.threshold() == 3 and len(box.installation.history().refused) == 1


def test_one_that_does_not_start_is_taken_back(box):
    starts = []

    def start():
        starts.append(box.threshold())
        if starts[-1] == 2:
            raise FleetError("the service ended with 1")

    box.install(1, start=start)
    with pytest.raises(FleetError, match=r"does not start here, back to sha256:.*: the service ended with 1"):
        box.install(2, start=start)
    assert starts == [1, 2, 1], "the old one was started again"
    assert box.threshold() == 1
    with pytest.raises(FleetError, match="not taken: did not start"):
        box.install(2, start=start)


def test_a_store_cannot_give_out_an_old_one_as_the_newest(box):
    box.install(1, at="2026-01-02T00:00:00+00:00")
    box.install(2, at="2026-01-03T00:00:00+00:00")
    with pytest.raises(FleetError, match=r"was signed 2026-01-02.*, the current one 2026-01-03.*: --older takes it"):
        box.install(1, at="2026-01-02T00:00:00+00:00")
    assert box.threshold() == 2
    # Signed anew, it is meant; and what was signed between is an old one from then on.
    assert not box.install(2, at="2026-01-05T00:00:00+00:00").changed
    with pytest.raises(FleetError, match="--older"):
        box.install(3, at="2026-01-04T00:00:00+00:00")
    box.install(3, at="2026-01-04T00:00:00+00:00", older=True)
    assert box.threshold() == 3
    # An unsigned one, where those are taken, does not replace a signed one by itself either.
    push(box.new_bundle(4), open_store(box.url), "line3", None, silent)
    offer = look(open_store(box.url), Reference(box.url, "line3"), (), unsigned=True)
    with pytest.raises(FleetError, match="was never signed"):
        box.installation.install(offer, fine, fine, silent, limit=DEFAULT_LIMIT)


def test_no_history_is_needed_to_refuse_an_old_one(box):
    box.install(1, at="2026-01-02T00:00:00+00:00")
    box.install(2, at="2026-01-03T00:00:00+00:00")
    (box.installation.folder / "fleet.json").unlink()
    with pytest.raises(FleetError, match=r"was signed 2026-01-02.*, the current one 2026-01-03.*: --older takes it"):
        box.install(1, at="2026-01-02T00:00:00+00:00")
    (box.installation.folder / "fleet.json").unlink(missing_ok=True)
    push(box.new_bundle(4), open_store(box.url), "line3", None, silent)
    offer = look(open_store(box.url), Reference(box.url, "line3"), (), unsigned=True)
    with pytest.raises(FleetError, match="was never signed"):
        box.installation.install(offer, fine, fine, silent, limit=DEFAULT_LIMIT)
    box.install(3, at="2026-01-04T00:00:00+00:00")
    assert box.threshold() == 3


def test_a_signature_of_the_future_is_not_taken_and_blocks_nothing(box):
    with pytest.raises(FleetError, match=r"it was signed 2099-01-01.*, which is in the future"):
        box.offer(1, at="2099-01-01T00:00:00+00:00")
    box.install(1)
    # Taken once by an earlier version: from then on no other would be newer.
    path = box.installation.folder / "fleet.json"
    history = json.loads(path.read_text())
    history["installed"][-1] |= {"signed_at": "2099-01-01T00:00:00+00:00", "at": "2026-01-02T00:00:00+00:00"}
    path.write_text(json.dumps(history))
    box.install(2, at="2026-01-04T00:00:00+00:00")
    assert box.threshold() == 2
    with pytest.raises(FleetError, match="--older"):
        box.install(3, at="2026-01-03T00:00:00+00:00")


def test_an_expired_signature(box):
    box.monkeypatch.setattr("kanoclip.runtime.ops.fleet.push.now", lambda *later: "2026-01-02T00:00:00+00:00")
    push(box.new_bundle(1), open_store(box.url), "line3", box.keys.signing, silent, valid_days=1)
    with pytest.raises(FleetError, match="its signature expired 2026-01-02T00:00:00"):
        look(open_store(box.url), Reference(box.url, "line3"), box.keys.trusted)
    box.monkeypatch.undo()
    push(box.new_bundle(1), open_store(box.url), "line3", box.keys.signing, silent, valid_days=1)
    assert look(open_store(box.url), Reference(box.url, "line3"), box.keys.trusted).statement.expires_at


def test_a_signature_that_was_taken_away(box):
    push(box.new_bundle(1), open_store(box.url), "line3", None, silent)
    with pytest.raises(FleetError, match="nobody signed it, or its signature was taken away"):
        look(open_store(box.url), Reference(box.url, "line3"), box.keys.trusted, unsigned=True)


def test_only_the_last_are_kept(box):
    for number in range(1, 7):
        box.install(number, keep=3)
    assert len(box.installation.versions.addresses()) == 3 and box.threshold() == 6
    box.installation.roll_back(None, fine)
    assert box.threshold() == 5
    box.install(7, keep=2)
    assert len(box.installation.versions.addresses()) == 2
    box.installation.roll_back(None, fine)
    assert box.threshold() == 5


def test_versions_are_read_only_and_one_that_was_changed_is_not_overwritten(box):
    outcome = box.install(1)
    root = box.installation.versions.place(outcome.address)
    assert root.stat().st_mode & 0o222 == 0 and (root / "model.onnx").stat().st_mode & 0o222 == 0
    # Damaged: fetched again.
    (root / "model.onnx").chmod(0o644)
    (root / "model.onnx").write_bytes(b"x")
    assert box.install(1).fetched > 0
    assert box.threshold() == 1
    # Calibrated by root, in place: whole, but another bundle.
    root.chmod(0o755)
    value = json.loads((root / "manifest.json").read_text())
    value["thresholds"]["image"] = 0.9
    (root / "manifest.json").chmod(0o644)
    (root / "manifest.json").write_text(json.dumps(value))
    with pytest.raises(FleetError, match="was changed since it was pulled: move it away"):
        box.install(1)
    assert json.loads((root / "manifest.json").read_text())["thresholds"]["image"] == 0.9


def test_damage_in_one_version_does_not_spread_by_links(box):
    address = box.install(1).address
    model = box.installation.versions.place(address) / "model.onnx"
    model.chmod(0o644)
    model.write_bytes(b"x" * model.stat().st_size)
    assert box.install(2).fetched > 0 and box.threshold() == 2


def test_what_a_killed_one_left_is_removed(box):
    box.install(1)
    left = box.tmp_path / "box" / VERSIONS / "sha256-abc.77.part"
    (left / "inner").mkdir(parents=True)
    (left / "inner" / "model.onnx").write_bytes(b"half")
    left.chmod(0o555)
    box.install(2)
    assert not left.exists() and len(box.installation.versions.addresses()) == 2


def test_two_at_a_time(box):
    box.install(1)
    with (box.tmp_path / "box" / f".{HISTORY}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(FleetError, match="in use by another kanoclip-bundle"):
            box.install(2)
    box.install(2)


def test_whoever_opens_the_link_finds_one_or_the_other(box):
    """A reader in a loop while the link moves two hundred times: never a miss, never a mixture."""
    box.install(1)
    box.install(2)
    addresses = box.installation.versions.addresses()
    stop, seen = threading.Event(), set()
    troubles = []

    def read():
        while not stop.is_set():
            try:
                seen.add(Bundle.open(box.installation.versions.link).manifest.thresholds.image)
            except BundleError as error:
                troubles.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(200):
        box.installation.versions.make_current(addresses[turn % 2])
    stop.set()
    reader.join()
    assert not troubles and seen <= {0.501, 0.502} and seen


def test_a_running_one_keeps_its_bundle(box):
    box.install(1)
    opened = Bundle.open(box.installation.versions.link)
    box.install(2)
    assert opened.model_path.parent == box.installation.versions.place(box.installation.history().installed[0].address)
    assert opened.reread().manifest == opened.manifest and Bundle.open(opened.root).manifest == opened.manifest


def test_a_link_that_was_moved_by_hand_and_a_history_that_is_damaged(box):
    first, second = box.install(1), box.install(2)
    box.installation.versions.link.unlink()
    box.installation.versions.link.symlink_to(
        os.path.join(VERSIONS, box.installation.versions.place(first.address).name)
    )
    assert box.installation.history().installed[-1].address == first.address
    assert box.installation.roll_back(None, fine) == second.address
    (box.tmp_path / "box" / HISTORY).write_text("{}")
    with pytest.raises(FleetError, match=r"fleet\.json is damaged: delete it"):
        box.install(3)
    (box.tmp_path / "box" / HISTORY).unlink()
    box.install(3)
    assert box.installation.roll_back(None, fine) == second.address


def test_a_bundle_in_the_links_place_is_not_touched(box, make_toy_bundle):
    make_toy_bundle(box.tmp_path / "box" / CURRENT)
    with pytest.raises(BundleError, match="is no link: move that bundle away"):
        box.install(1)
    assert (box.tmp_path / "box" / CURRENT / "model.onnx").is_file()


def test_the_doctor_is_asked_in_a_process_of_its_own(new_bundle, tmp_path, make_toy_bundle):
    run_doctor(new_bundle().root, ["--backend", "onnxruntime", "--device", "cpu"])
    with pytest.raises(FleetError, match="no cuda provider"):
        run_doctor(new_bundle().root, ["--backend", "onnxruntime", "--device", "cuda"])
    with pytest.raises(FleetError, match="no answer for 0 minutes"):
        run_doctor(new_bundle().root, [], timeout_s=0.05)


def test_the_command_that_is_run_then(tmp_path):
    run_command(f"touch '{tmp_path}/a b'")
    assert (tmp_path / "a b").exists()
    for command, said in (("false", "`false` ended with 1"), ("nosuch-program", "cannot be started")):
        with pytest.raises(FleetError, match=said):
            run_command(command)
    with pytest.raises(FleetError, match="has not ended"):
        run_command("sleep 30", timeout_s=0.05)
