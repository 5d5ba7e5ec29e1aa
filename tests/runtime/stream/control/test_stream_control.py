"""What may be asked of a stream that runs, and changed: class, thresholds, pause, saving, reading again."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
from grey_stream import Collect, Grey

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.bundle.store import store
from kanoclip.runtime.detect.alarm import EVERY_FRAME, AlarmRule
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.detect.learning.warm_up import WarmUp
from kanoclip.runtime.detect.settings.saved_thresholds import Saved
from kanoclip.runtime.detect.settings.settings import Decision, Settings
from kanoclip.runtime.detect.settings.settings_file import read_settings
from kanoclip.runtime.errors import FrameError, MemoryFileError, SettingsError, SourceError
from kanoclip.runtime.sources.several import NamedSource
from kanoclip.runtime.stream.config import PipelineConfig
from kanoclip.runtime.stream.control.protocol import Control
from kanoclip.runtime.stream.control.stream_control import StreamControl
from kanoclip.runtime.stream.pipeline import Pipeline
from kanoclip.runtime.system.queues import Policy
from kanoclip.runtime.types import Frame, RegionOfInterest

pytestmark = pytest.mark.timeout(60)


NONE = Decision()


class Run:
    def __init__(self, bundle, file, *, live=True, workers=1, flags=NONE):
        self.file, self.flags = file, flags
        self.detector = Detector.load(bundle, backend="onnxruntime", workers=workers, settings=self.settings())
        self.source, self.sink = Grey(live), Collect()
        config = PipelineConfig(
            Policy.DROP_OLDEST if live else Policy.WAIT,
            class_name="nut",
            workers=workers,
            alarm=self.settings().decision("nut").alarm or EVERY_FRAME,
        )
        self.pipeline = Pipeline(self.source, self.detector, [self.sink], config)
        self.control: Control = StreamControl(
            self.pipeline.live,
            self.detector,
            "nut",
            lambda bundle: Saved(bundle, self.settings(), self.file),
        )

    def settings(self):
        there = self.file is not None and self.file.exists()
        return (read_settings(self.file) if there else Settings()).overridden(self.flags)

    @contextmanager
    def running(self):
        thread = threading.Thread(target=self.pipeline.run)
        thread.start()
        try:
            self.wait(3)
            yield self.sink.seen
        finally:
            self.pipeline.stop()
            thread.join(10)
            self.detector.close()
        assert not thread.is_alive()

    def quiet(self):
        """Waits until what was in work at the pause has come out."""
        deadline, count = time.monotonic() + 20, -1
        while count != len(self.sink.seen):
            assert time.monotonic() < deadline
            count = len(self.sink.seen)
            time.sleep(0.3)

    def read_on(self, more):
        goal, deadline = self.source.read + more, time.monotonic() + 20
        while self.source.read < goal:
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def wait(self, more):
        goal, deadline = len(self.sink.seen) + more, time.monotonic() + 30
        while len(self.sink.seen) < goal:
            assert time.monotonic() < deadline
            time.sleep(0.002)


@pytest.fixture
def bundle(make_toy_bundle, tmp_path):
    return make_toy_bundle(tmp_path / "own.kanoclip", classes=("nut", "bolt"))


@pytest.fixture
def start(bundle, tmp_path):
    return lambda **options: Run(bundle, tmp_path / "line3.toml", **options)


@pytest.mark.parametrize("workers", [1, 2])
def test_another_class_from_one_frame_to_the_next(start, workers):
    run = start(workers=workers, live=False)
    run.file.write_text('[class.bolt]\nalarm = "2/2"\n')
    run = start(workers=workers, live=False)
    with run.running() as seen:
        run.control.choose_class("bolt")
        run.wait(20)
        assert run.control.state().class_name == "bolt"
        with pytest.raises(FrameError, match="unknown class 'washer': this bundle has nut, bolt"):
            run.control.choose_class("washer")
    names = [found.class_name for _, found in seen]
    first = names.index("bolt")
    assert names == ["nut"] * first + ["bolt"] * (len(names) - first), "no frame of the one after one of the other"
    assert [found.score for _, found in seen[: first + 1]] == pytest.approx([100 / 255] * first + [155 / 255], abs=1e-5)
    # 0.39 is normal, 0.61 is anomalous; the class's alarm takes two.
    assert [found.alarm for _, found in seen[first : first + 3]] == [False, True, True]
    assert not any(found.alarm for _, found in seen[:first])


def test_other_thresholds_of_the_class_looked_for_only(start):
    run = start(flags=Decision(threshold=0.7))
    with run.running() as seen:
        assert run.control.state().threshold == 0.7
        run.control.choose_thresholds(image=0.3)
        run.wait(5)
        assert seen[-1][1].threshold == 0.3 and seen[-1][1].is_anomalous, "over the flag"
        (peak,) = seen[-1][1].regions
        assert peak.score < run.control.state().pixel_threshold, "an anomalous image has at least its peak"
        run.control.choose_thresholds(pixel=0.2)
        run.wait(5)
        assert len(seen[-1][1].regions) == 1 and seen[-1][1].threshold == 0.3
        state = run.control.state()
        assert (state.threshold, state.pixel_threshold) == (0.3, 0.2)
        for wrong in (-0.1, 1.1, float("nan")):
            with pytest.raises(SettingsError):
                run.control.choose_thresholds(image=wrong)
        assert run.control.state() == state
        run.control.choose_class("bolt")
        assert run.control.state().threshold == 0.7
        run.control.choose_class("nut")
        assert run.control.state().threshold == 0.3, "not forgotten"


def test_a_pause_lets_a_live_view_s_frames_go_by(start):
    run = start()
    with run.running() as seen:
        run.control.pause()
        run.quiet()
        count, read = len(seen), run.source.read
        assert run.control.state().paused and run.control.progress().paused
        run.read_on(20)
        assert len(seen) == count, "the capture goes on, and nothing else"
        run.control.resume()
        run.wait(3)
        assert seen[count][0] > read + 15, "what came meanwhile is gone"
        assert not run.control.state().paused


@pytest.mark.parametrize("workers", [1, 2])
def test_a_pause_makes_a_file_wait_and_loses_nothing(start, workers):
    run = start(live=False, workers=workers)
    with run.running() as seen:
        run.control.pause()
        run.quiet()
        count = len(seen)
        time.sleep(0.3)
        assert len(seen) == count
        assert run.source.read <= count + 10, "and is not read to its end"
        run.control.resume()
        run.wait(10)
    assert [index for index, _ in seen] == list(range(len(seen)))


def test_a_stop_during_a_pause(start):
    for live in (True, False):
        run = start(live=live)
        with run.running():
            run.control.pause()
            time.sleep(0.15)
            started = time.monotonic()
        assert time.monotonic() - started < 2


def test_saved_thresholds_are_those_of_the_next_start(start, bundle):
    run = start()
    with run.running():
        run.control.choose_thresholds(image=0.625, pixel=0.875)
        assert run.control.save_thresholds() == str(bundle)
        assert run.control.save_thresholds() == f"{bundle} (unchanged)"
        run.control.reload()
        assert run.control.state().threshold == 0.625
    again = start()
    assert (again.control.state().threshold, again.control.state().pixel_threshold) == (0.625, 0.875)
    again.control.choose_class("bolt")
    assert again.control.state().threshold == 0.5
    again.detector.close()


def test_saving_beside_a_calibration_loses_neither(start, bundle):
    run = start()
    with run.running():
        store(Bundle.open(bundle), None, "bolt", Thresholds(0.9, 0.8, 3, "conformal"))
        run.control.choose_thresholds(image=0.625)
        run.control.save_thresholds()
    now = Bundle.open(bundle).manifest
    assert (now.thresholds_of("bolt").image, now.thresholds_of("nut").image) == (0.9, 0.625)


def test_what_a_flag_overrides_is_not_saved(start):
    run = start(flags=Decision(pixel_threshold=0.7))
    with run.running():
        run.control.choose_thresholds(pixel=0.2)
        with pytest.raises(SettingsError, match=r"--pixel-threshold 0\.7 overrides"):
            run.control.save_thresholds()


def test_settings_are_read_again(start, bundle, caplog):
    run = start()
    with run.running() as seen, caplog.at_level(logging.INFO, "kanoclip.runtime"):
        assert not seen[-1][1].is_anomalous
        run.control.choose_thresholds(image=0.9)
        run.file.write_text('[decision]\nthreshold = 0.2\nalarm = "9/9"\n')
        assert run.control.reload()
        run.wait(20)
        assert run.control.state().threshold == 0.2, "over what was chosen and not saved"
        changed = next(n for n, (_, found) in enumerate(seen) if found.threshold == 0.2)
        assert all(found.is_anomalous for _, found in seen[changed:])
        # Frames between the two changes are alarmed by the rule before: not all of nine.
        assert seen[-1][1].alarm and sum(found.is_anomalous and not found.alarm for _, found in seen) >= 2
        run.file.unlink()
        store(Bundle.open(bundle), None, "nut", Thresholds(0.35, 0.8, 3, "conformal"))
        assert run.control.reload()
        assert run.control.state().threshold == 0.35, "kanoclip-calibrate's"
    assert caplog.messages.count("settings read again") == 2


@pytest.mark.parametrize("wrong", ["[decision\n", "[decision]\nthreshold = 7\n", "[class.washer]\nmin_area = 3\n"])
def test_what_is_no_good_is_one_warning_and_nothing_changes(start, caplog, wrong):
    run = start()
    with run.running():
        run.control.choose_thresholds(image=0.3)
        before = run.control.state()
        run.file.write_text(wrong)
        assert not run.control.reload()
        run.wait(3)
        assert run.control.state() == before
    (warning,) = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert "line3.toml" in warning and warning.endswith("; the settings before stay in use")


def test_a_region_that_does_not_suit_the_frames_does_not_end_the_run(start, caplog):
    run = start()
    with run.running():
        (run.file.parent / "belt.json").write_text(
            '{"units": "pixels", "size": [100, 100], "keep": [[[0, 0], [99, 0], [99, 99]]]}'
        )
        run.file.write_text('[decision]\nroi = "belt.json"\n')
        assert not run.control.reload()
        run.wait(3)
    assert any("belt.json was drawn on an image of 100x100" in record.message for record in caplog.records)


def test_another_bundle_in_the_same_place_is_no_reload(start, bundle, make_toy_bundle, caplog):
    run = start()
    with run.running():
        make_toy_bundle(bundle, classes=("nut", "bolt", "washer"))
        assert not run.control.reload()
        run.wait(3)
    assert any("has become another bundle" in record.message for record in caplog.records)


def test_a_gpu_that_did_not_start_shows_in_the_state(start):
    run = start()
    assert run.control.state().backend == "onnxruntime-cpu" and run.control.state().fallback is None
    run.detector.backend.fallback = "no CUDA"
    assert run.control.state().backend == "onnxruntime-cpu, not the GPU" and run.control.state().fallback == "no CUDA"


def test_a_promise_that_is_not_kept_is_said_once(bundle, caplog):
    detector = Detector.load(bundle, backend="onnxruntime")
    store(Bundle.open(bundle), None, "nut", Thresholds(0.5, 0.5, 0, "conformal", "0" * 64))
    elsewhere = Settings(Decision(roi=RegionOfInterest("x", keep=(((0, 0), (1, 0), (1, 1)),))))
    for _ in range(3):
        detector.rules.decide_by(elsewhere, detector.bundle.reread())
        detector.rules.decide_by(elsewhere.choosing("bolt", Decision(threshold=0.3)))
    assert len([r for r in caplog.records if "calibrated inside of another region" in r.message]) == 1
    detector.close()


def test_alarms_keep_what_they_look_back_on_when_the_rule_changes():
    from kanoclip.runtime.detect.alarm import Alarm

    alarm = Alarm(AlarmRule(5, 5))
    for verdict in (True, True, True):
        assert not alarm.update(verdict)
    alarm.follow(AlarmRule(3, 4))
    assert alarm.update(False), "three of the last four"
    alarm.follow(AlarmRule(1, 1))
    assert not alarm.update(False)


class Learning(Run):
    """A run with a bundle that takes memories, of noise that repeats every 16 frames."""

    def __init__(self, bundle, file, **options):
        super().__init__(bundle, file, **options)
        images = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), np.uint8)

        def frames():
            while True:
                self.source.read += 1
                index = self.source.read - 1
                yield Frame(index, "line 3", time.time(), images[index % 16], 0.0)
                time.sleep(0.002)

        self.source.frames = frames

    def until(self, holds):
        deadline = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture
def learning(make_toy_bundle, tmp_path):
    folder = make_toy_bundle(tmp_path / "own.kanoclip", classes=("nut", "bolt"), grid=(4, 4), memory_rows=24)
    return lambda **options: Learning(folder, tmp_path / "line3.toml", **options)


@pytest.mark.parametrize("workers", [1, 2])
def test_references_are_added_while_frames_are_scored(learning, workers):
    run = learning(workers=workers, live=False)
    with run.running() as seen:
        control = run.control
        assert (control.state().references, control.state().memory_rows, control.state().memory_saved) == (0, 0, True)
        assert control.add_reference(source="line 3").references == 1
        assert control.add_reference(np.full((32, 32, 3), 9, np.uint8)).references == 2
        state = control.state()
        assert (state.references, state.memory_saved) == (2, False) and 16 <= state.memory_rows <= 24
        run.wait(10)
        assert seen[-1][1].threshold == state.threshold != 0.5
        names = run.detector.rules.memory_of("nut").names
        assert names[0].startswith("line 3, frame ") and names[1] == "a frame given while the stream ran"
        assert control.undo_reference().references == 1
        control.add_reference(class_name="bolt")
        assert control.state().references == 1
        control.choose_class("bolt")
        assert control.state().references == 1
        control.choose_class("nut")
        assert control.reset_memory().references == 0
        run.wait(10)
        assert seen[-1][1].threshold == control.state().threshold == 0.5
    assert [index for index, _ in seen] == list(range(len(seen))), "no frame was lost"


def test_a_memory_and_its_thresholds_are_saved_together(learning):
    run = learning()
    with run.running():
        run.control.add_reference()
        with pytest.raises(SettingsError, match=r"the memory of nut is not the one in .*own\.kanoclip, .* save the"):
            run.control.save_thresholds()
        run.control.choose_thresholds(image=0.875)
        assert run.control.save_memory() == str(run.detector.bundle.root)
        assert run.control.state().memory_saved and run.control.state().threshold == 0.875
        run.control.choose_thresholds(image=0.75)
        run.control.save_thresholds()
    again = learning()
    state = again.control.state()
    assert (state.references, state.threshold, state.memory_saved) == (1, 0.75, True)
    again.detector.close()


def test_a_choice_for_zero_shot_scores_is_none_for_a_memory_s(learning):
    run = learning()
    with run.running():
        run.control.choose_thresholds(image=0.99)
        run.control.add_reference()
        state = run.control.state()
        assert state.threshold == run.detector.thresholds_of("nut").image != 0.99
        run.control.choose_thresholds(image=0.98)
        run.control.add_reference()
        assert run.control.state().threshold == 0.98, "for the memory's own scale"


def test_what_no_reference_can_be_made_of(learning, start):
    run = learning()
    with pytest.raises(FrameError, match="no frame has been scored yet"):
        run.control.add_reference()
    with run.running():
        with pytest.raises(FrameError, match="unknown source 'line 4': this stream has line 3"):
            run.control.add_reference(source="line 4")
        with pytest.raises(FrameError, match="COLOR_GRAY2BGR"):
            run.control.add_reference(np.zeros((32, 32), np.uint8))
        with pytest.raises(SettingsError, match="nothing to undo"):
            run.control.undo_reference()
        with pytest.raises(SettingsError, match="no memory to save"):
            run.control.save_memory()
    plain = start()
    with plain.running(), pytest.raises(MemoryFileError, match="takes no reference memory: export it again"):
        plain.control.add_reference()


def test_a_reload_leaves_what_the_stream_learned(learning, caplog):
    """A rotation of logs sends the same signal."""
    run = learning()
    with run.running(), caplog.at_level(logging.INFO, "kanoclip.runtime"):
        run.control.add_reference()
        state = run.control.state()
        assert run.control.reload() and run.control.state() == state
    assert not [message for message in caplog.messages if "is scored" in message]


def test_a_reload_takes_up_a_memory_that_was_learned_meanwhile(learning, caplog):
    run, other = learning(live=False), learning()
    with run.running() as seen, caplog.at_level(logging.INFO, "kanoclip.runtime"):
        other.control.add_reference(np.full((32, 32, 3), 9, np.uint8))
        other.control.add_reference(np.full((32, 32, 3), 200, np.uint8))
        other.control.save_memory()
        wanted = other.control.state()
        run.control.add_reference()  # which the other one comes after
        assert run.control.reload()
        state = run.control.state()
        assert (state.references, state.threshold, state.memory_saved) == (2, wanted.threshold, True)
        run.wait(20)
        assert seen[-1][1].threshold == wanted.threshold
    assert "nut is scored by a memory of 2 references now" in caplog.messages
    other.detector.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_warm_up_learns_from_the_stream_and_loses_no_frame(learning, workers):
    run = learning(workers=workers, live=False)
    warm_up = WarmUp(run.detector, 12, run.control.use_memory)
    run.pipeline.live.learn_by(warm_up)
    with run.running() as seen:
        run.until(lambda: run.control.state().references)
        run.wait(30)
    warm_up.finish()
    memory = run.detector.rules.memory_of("nut")
    assert {int(name.removeprefix("line 3, frame ")) for name in memory.names} <= set(range(12 + 2 * workers))
    assert [index for index, _ in seen] == list(range(len(seen)))
    limits = [found.threshold for _, found in seen]
    learned = run.detector.thresholds_of("nut").image
    first = limits.index(learned)
    assert limits == [0.5] * first + [learned] * (len(limits) - first)
    assert run.control.undo_reference().references == 0


class Other(Grey):
    """A further source; its thread ends when it is told to."""

    def __init__(self, name="camera 7", live=True):
        super().__init__(live)
        self.name, self.closed, self.ended = name, threading.Event(), threading.Event()

    def frames(self):
        for frame in super().frames():
            if self.ended.wait(0.02):
                return
            yield frame

    def interrupt(self):
        self.ended.set()

    def close(self):
        self.closed.set()


def until(true):
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_sources_join_and_leave_a_run_that_goes_on(start):
    run = start()
    control = run.control
    with run.running():
        before = control.state()
        assert (before.sources, before.streams) == (("line 3",), ("",))
        other = Other()
        control.add_source(NamedSource(other, "right"))
        state = control.state()
        assert (state.sources, state.streams) == (("line 3", "right"), ("", "right"))
        until(lambda: all(source.frames > 3 for source in control.progress().sources))
        assert run.pipeline.live.latest("right").name.startswith("right, frame ")
        control.remove_source("right")
        assert other.closed.wait(10)
        assert control.state().sources == ("line 3",)
        assert [source.name for source in control.progress().sources] == ["line 3"]
        run.wait(20)
        summary = control.summary()
        assert [source.name for source in summary.sources] == ["line 3", "right"] and not summary.sources[1].error
        assert control.progress().frames >= sum(source.frames for source in summary.sources)  # it still counts
        with pytest.raises(SourceError, match="of this name"):
            control.add_source(Other("right"))
        control.add_source(NamedSource(Other(), "third"))
        until(lambda: control.progress().sources[-1].frames > 0)


def test_what_cannot_join_or_leave_is_refused(start, monkeypatch):
    monkeypatch.setattr("kanoclip.runtime.stream.control.stream_control.MOST_SOURCES", 3)
    run = start()
    with run.running():
        for source, words in ((Other(live=False), "only live sources"), (Other("line 3"), "of this name")):
            with pytest.raises(SourceError, match=words):
                run.control.add_source(source)
        with pytest.raises(SourceError, match="no such source"):
            run.control.remove_source("nowhere")
        with pytest.raises(SourceError, match="only source"):
            run.control.remove_source("line 3")
        run.control.add_source(Other("a"))
        run.control.add_source(Other("b"))
        with pytest.raises(SourceError, match="at most 3"):
            run.control.add_source(Other("c"))
    with pytest.raises(SourceError, match="is ending"):
        monkeypatch.setattr("kanoclip.runtime.stream.control.stream_control.MOST_SOURCES", 9)
        run.control.add_source(Other("d"))
    files = start(live=False)
    with files.running(), pytest.raises(SourceError, match="files lose nothing"):
        files.control.add_source(Other())


def test_a_region_acts_at_once_and_is_there_after_a_restart(start):
    run = start()
    left = RegionOfInterest("drawn", (((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)),))
    with run.running() as seen:
        assert run.control.region() is None and run.control.state().region is None
        run.control.choose_region(left)
        run.wait(5)
        heat = seen[-1][1].map
        assert (heat[:, heat.shape[1] // 2 + 1 :] == 0).all() and heat.max() > 0
        assert run.control.state().region == left.digest()
        nothing = RegionOfInterest("drawn", (), (((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)),))
        with pytest.raises(SettingsError, match="leave nothing of the image"):
            run.control.choose_region(nothing)
        assert run.control.region() == left
        assert run.control.save_region() == str(run.file)
        run.control.choose_thresholds(image=0.25)
        run.control.choose_region(None)
        assert run.control.reload() and run.control.state().region == left.digest()
    again = start()
    with again.running():
        assert again.control.state().region == left.digest()
        again.control.choose_class("bolt")
        assert again.control.state().region is None


def test_thresholds_of_another_region_promise_nothing(start, bundle):
    whole = Bundle.open(bundle)
    store(whole, None, None, Thresholds(0.5, 0.5, 0, "calibrated", RegionOfInterest("x", (CORNER,)).digest()))
    run = start()
    with run.running():
        assert not run.control.state().promised
        run.control.choose_region(RegionOfInterest("x", (CORNER,)))
        assert run.control.state().promised


CORNER = ((0.0, 0.0), (0.5, 0.0), (0.5, 0.5))
