"""The detector on a real graph whose answers are known: the map is the mean of the channels, the score its maximum."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kanoclip.runtime import Detector
from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.detect.regions import find_regions, peak_region
from kanoclip.runtime.detect.settings.settings import Decision, Settings
from kanoclip.runtime.engines import create_backend
from kanoclip.runtime.engines.base import BaseBackend
from kanoclip.runtime.errors import BackendError, BundleError, DeviceLostError, FrameError, KanoclipError, SettingsError
from kanoclip.runtime.types import RegionOfInterest

LEFT = RegionOfInterest("left.json", keep=(((0.0, 0.0), (0.45, 0.0), (0.45, 1.0), (0.0, 1.0)),), drawn_on=(64, 64))


@pytest.fixture
def detector(toy_bundle):
    with Detector.load(toy_bundle, device="cpu", threads=1) as detector:
        yield detector


@pytest.fixture(scope="module")
def two_classes(make_toy_bundle, tmp_path_factory):
    return make_toy_bundle(tmp_path_factory.mktemp("two"), classes=("plain", "inverted"))


def grey(value, size=(32, 32)):
    return np.full((*size, 3), value, np.uint8)


def spot():
    """Dark, with a 4x3 spot of 204 at row 8, column 20."""
    frame = grey(51)
    frame[8:12, 20:23] = 204
    return frame


def noise(count, size=(32, 32)):
    return list(np.random.default_rng(0).integers(0, 256, (count, *size, 3), np.uint8))


class FakeBackend(BaseBackend):
    """Gives what it is told, and keeps what it is asked."""

    name, on_cpu, workers = "fake", False, 1

    def __init__(self, spoil=lambda maps, scores: None):
        self.spoil, self.calls, self.closed, self.number = spoil, [], False, 1.0

    def run(self, frames, class_index, memory=None):
        self.calls.append((frames.copy(), class_index))
        maps = frames.mean(3, dtype=np.float32) / np.float32(255)
        scores = maps.max((1, 2))
        self.spoil(maps, scores)
        return maps, scores

    def describe(self, frames):
        self.calls.append((frames.copy(), None))
        return np.full((len(frames), 16, 3), self.number, np.float32)

    def close(self):
        self.closed = True


def fake(folder, spoil=lambda maps, scores: None, **limits):
    return Detector(Bundle.open(folder), FakeBackend(spoil), Settings(flags=Decision(**limits)))


@pytest.mark.parametrize("value", [0, 1, 51, 127, 128, 255])
def test_the_score_of_a_flat_frame(detector, value):
    found = detector(grey(value))
    assert found.score == pytest.approx(value / 255, abs=1e-6)
    assert found.map.shape == (32, 32) and found.map.dtype == np.float32
    np.testing.assert_allclose(found.map, value / 255, atol=1e-6)
    assert found.is_anomalous is (value >= 128)
    assert type(found.score) is float


def test_where_and_how_strong(detector):
    found = detector(spot())
    assert found.score == pytest.approx(0.8)
    assert found.class_name == "object"
    assert (found.is_anomalous, found.threshold) == (True, 0.5)
    (region,) = found.regions
    assert (region.x, region.y, region.width, region.height, region.area) == (20, 8, 3, 4, 12)
    assert region.score == pytest.approx(0.8)
    assert all(0 <= ms < 5000 for ms in (found.timings.resize, found.timings.inference, found.timings.decide))
    assert found.timings.inference > 0


def test_regions_are_in_pixels_of_the_original_frame(detector):
    big = spot().repeat(20, axis=0).repeat(10, axis=1)
    found = detector(big)
    assert found.map.shape == (32, 32)
    (region,) = found.regions
    assert (region.x, region.y, region.width, region.height, region.area) == (200, 160, 30, 80, 2400)


def test_a_frame_of_one_pixel(detector):
    (region,) = detector(grey(255, (1, 1))).regions
    assert (region.x, region.y, region.width, region.height, region.area) == (0, 0, 1, 1, 1)


def test_channels_and_rows_keep_their_order(toy_bundle):
    detector = fake(toy_bundle)
    (frame,) = noise(1)
    detector(frame[::-1, :, ::-1])
    ((frames, index),) = detector.backend.calls
    np.testing.assert_array_equal(frames[0], frame[::-1, :, ::-1])
    assert index is None


def test_a_size_that_is_not_square(make_toy_bundle, tmp_path):
    with Detector.load(make_toy_bundle(tmp_path, size=(24, 40)), device="cpu", threads=1) as detector:
        frame = np.zeros((48, 80, 3), np.uint8)
        frame[:24, 40:] = 255
        found = detector(frame)
    assert found.map.shape == (24, 40)
    (region,) = found.regions
    assert (region.x, region.y, region.width, region.height) == (40, 0, 40, 24)


def test_the_caller_owns_the_map(detector):
    first = detector(grey(51))
    kept = first.map.copy()
    first.map[:] = 1
    assert detector(grey(51)).score == pytest.approx(0.2)
    second = detector(grey(51))
    detector(grey(204))
    np.testing.assert_array_equal(second.map, kept)


@pytest.mark.parametrize(("name", "expected"), [(None, 0.2), ("plain", 0.2), ("inverted", 0.8)])
def test_classes(two_classes, name, expected):
    with Detector.load(two_classes, device="cpu", threads=1) as detector:
        found = detector(grey(51), name)
    assert found.score == pytest.approx(expected)
    assert found.class_name == (name or "plain")


@pytest.mark.parametrize("name", ["other", "", "Plain", "plain "])
def test_an_unknown_class(two_classes, name):
    detector = fake(two_classes)
    with pytest.raises(FrameError, match=re.escape(f"unknown class '{name}': this bundle has plain, inverted")):
        detector(grey(1), name)
    with pytest.raises(FrameError, match="unknown class"):
        detector.batch([], name)
    assert detector.backend.calls == []


def test_the_image_threshold_is_inclusive(toy_bundle, detector):
    score = detector(grey(77)).score
    above = float(np.nextafter(score, 1))
    for threshold, expected in ((score, True), (above, False), (0.0, True), (1.0, False)):
        with Detector.load(toy_bundle, device="cpu", threads=1, threshold=threshold) as other:
            found = other(grey(77))
        assert (found.is_anomalous, found.threshold) == (expected, threshold)


def test_the_pixel_threshold_is_inclusive(toy_bundle, detector):
    value = float(detector(spot()).map.max())
    with Detector.load(toy_bundle, device="cpu", threads=1, pixel_threshold=value) as other:
        assert len(other(spot()).regions) == 1
    with Detector.load(toy_bundle, device="cpu", threads=1, pixel_threshold=value + 1e-6, threshold=1.0) as other:
        assert other(spot()).regions == ()


@pytest.mark.parametrize(("min_area", "count"), [(None, 1), (0, 1), (12, 1), (13, 0)])
def test_the_smallest_area(toy_bundle, min_area, count):
    with Detector.load(toy_bundle, device="cpu", threads=1, threshold=1.0, min_area=min_area) as other:
        assert len(other(spot()).regions) == count


@pytest.mark.parametrize("limits", [{"pixel_threshold": 0.81}, {"min_area": 13}, {"pixel_threshold": 1.0}], ids=str)
def test_an_anomalous_image_has_at_least_its_peak(toy_bundle, limits):
    """The ground is 0.2 and the spot 0.8: what is above 0.5 around the peak, whatever keeps it from being a region."""
    detector = fake(toy_bundle, **limits)
    (region,) = detector(spot()).regions
    assert (region.x, region.y, region.width, region.height, region.area) == (20, 8, 3, 4, 12)
    assert region.score == pytest.approx(0.8)
    assert fake(toy_bundle, threshold=0.81, **limits)(spot()).regions == (), "a normal image gets no such region"


SHARES = st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0])


@hypothesis.given(
    arrays.arrays(np.uint8, (32, 32, 1), elements=st.integers(0, 255), fill=st.integers(0, 255)),
    st.tuples(SHARES, SHARES, st.sampled_from([0, 4, 10**6])),
    st.sampled_from([None, LEFT]),
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
)
def test_anomalous_means_a_region_and_a_normal_image_keeps_its_own(toy_bundle, level, limits, roi, size):
    image, pixel, min_area = limits
    detector = fake(toy_bundle, threshold=image, pixel_threshold=pixel, min_area=min_area, roi=roi)
    prepared = replace(detector.prepare(grey(0, (64, 64))), image=level.repeat(3, 2), height=size[0], width=size[1])
    (found,) = detector.infer([prepared])
    mask = None if roi is None else roi.mask(32, 32)
    above = find_regions(found.map, pixel, min_area, *size, mask)
    assert found.is_anomalous is (found.score >= image)
    if above or not found.is_anomalous:
        assert found.regions == above
    else:
        assert found.regions == (peak_region(found.map, *size, mask),)
    assert found.regions or not found.is_anomalous
    if roi is not None:
        assert all(region.x + region.width <= -(-16 * size[1] // 32) for region in found.regions)


def test_thresholds_are_the_bundles_unless_given(make_toy_bundle, tmp_path):
    own = Thresholds(0.25, 0.75, 7, "measured")
    folder = make_toy_bundle(tmp_path, thresholds=own)
    assert Detector.load(folder, device="cpu").thresholds_of() == own
    changed = Detector.load(folder, device="cpu", pixel_threshold=0.0).thresholds_of("object")
    assert changed == Thresholds(0.25, 0.0, 7, "set by the caller")


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"threshold": -0.01}, "threshold -0.01 is outside of 0 to 1"),
        ({"threshold": 1.01}, "threshold 1.01 is outside"),
        ({"threshold": float("nan")}, "threshold nan is outside"),
        ({"pixel_threshold": 2}, "pixel threshold 2 is outside"),
        ({"pixel_threshold": float("inf")}, "pixel threshold inf is outside"),
        ({"min_area": -1}, "smallest area -1 is negative"),
    ],
)
def test_thresholds_out_of_range(toy_bundle, limits, words):
    with pytest.raises(KanoclipError, match=words):
        Detector.load(toy_bundle, device="cpu", **limits)


@pytest.mark.parametrize(("dynamic", "max_batch"), [(False, 1), (False, 3), (True, 3), (True, 16)])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7])
def test_a_batch_equals_single_calls(make_toy_bundle, tmp_path, dynamic, max_batch, count):
    folder = make_toy_bundle(tmp_path, classes=("plain", "inverted"), dynamic=dynamic, max_batch=max_batch)
    frames = [frame[: 32 - i, : 20 + i] for i, frame in enumerate(noise(count))]
    with Detector.load(folder, device="cpu", threads=1) as detector:
        for name in ("plain", "inverted"):
            together = detector.batch(frames, name)
            assert len(together) == count
            for frame, found in zip(frames, together, strict=True):
                alone = detector(frame, name)
                assert found.score == alone.score and found.regions == alone.regions
                np.testing.assert_array_equal(found.map, alone.map)
                assert found.class_name == name


@pytest.mark.parametrize(
    ("dynamic", "max_batch", "count", "sizes"),
    [(False, 1, 3, [1, 1, 1]), (False, 4, 6, [4, 4]), (False, 4, 1, [4]), (True, 4, 6, [4, 2]), (True, 4, 1, [1])],
)
def test_how_frames_are_grouped(make_toy_bundle, tmp_path, dynamic, max_batch, count, sizes):
    classes = ("a", "b")
    detector = fake(make_toy_bundle(tmp_path, classes=classes, dynamic=dynamic, max_batch=max_batch))
    frames = noise(count)
    found = detector.batch(frames, "b")
    assert len(found) == count
    assert [len(given) for given, _ in detector.backend.calls] == sizes
    for given, index in detector.backend.calls:
        assert given.dtype == np.uint8 and given.flags.c_contiguous
        assert index.dtype == np.int64 and index.tolist() == [1] * len(given)
    fed = np.concatenate([given for given, _ in detector.backend.calls])
    np.testing.assert_array_equal(fed[:count], np.stack(frames))
    assert all((extra == frames[-1]).all() for extra in fed[count:])


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (np.zeros((32, 32, 3), np.float32), "dtype float32: pass uint8"),
        (np.zeros((32, 32), np.uint8), "COLOR_GRAY2BGR"),
        (np.zeros((32, 32, 4), np.uint8), "COLOR_BGRA2BGR"),
        (np.zeros((0, 32, 3), np.uint8), "empty"),
        (None, "numpy array"),
    ],
    ids=["float", "grey", "four channels", "empty", "none"],
)
def test_what_is_no_frame(toy_bundle, frame, words):
    detector = fake(toy_bundle)
    with pytest.raises(FrameError, match=words):
        detector(frame)
    with pytest.raises(FrameError, match=words):
        detector.batch([grey(1), frame])
    assert detector.backend.calls == []


def spoil_map(number):
    def spoil(maps, scores):
        maps[-1, 3, 4] = number

    return spoil


def spoil_score(number):
    def spoil(maps, scores):
        scores[-1] = number

    return spoil


@pytest.mark.parametrize("spoil", [spoil_map(np.nan), spoil_map(np.inf), spoil_score(np.nan), spoil_score(-np.inf)])
def test_nan_is_no_verdict(toy_bundle, spoil):
    detector = fake(toy_bundle, spoil)
    with pytest.raises(BackendError, match=r"fake returned NaN: .*--fp32") as caught:
        detector(grey(1))
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(BackendError, match="NaN"):
        detector.warmup(1)


def test_warmup_runs_the_engine_on_full_batches(make_toy_bundle, tmp_path):
    detector = fake(make_toy_bundle(tmp_path, max_batch=2))
    detector.warmup(3)
    assert [frames.shape for frames, _ in detector.backend.calls] == [(2, 32, 32, 3)] * 3
    detector.warmup(0)
    assert len(detector.backend.calls) == 3


def test_a_context_closes_the_engine(toy_bundle):
    with fake(toy_bundle) as detector:
        assert not detector.backend.closed
    assert detector.backend.closed
    with pytest.raises(ZeroDivisionError), fake(toy_bundle) as detector:
        1 / 0  # noqa: B018
    assert detector.backend.closed


def test_a_closed_detector_says_so(toy_bundle):
    with Detector.load(toy_bundle, device="cpu", threads=1) as detector:
        detector(grey(1))
    detector.close()  # twice is fine
    with pytest.raises(BackendError, match="onnxruntime-cpu is closed"):
        detector(grey(1))


def test_a_bundle_that_is_none(tmp_path):
    with pytest.raises(BundleError, match="no bundle"):
        Detector.load(tmp_path / "none")


def test_options_are_named(toy_bundle):
    """Six numbers and names in a row would be mixed up."""
    kinds = {p.kind for name, p in inspect.signature(Detector.load).parameters.items() if name != "path"}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}


class Losing(BaseBackend):
    """An engine whose GPU is lost in its first `times` runs; counts how often it was closed."""

    name, workers = "losing", 1

    def __init__(self, right, times):
        self.right, self.times, self.closed = right, times, 0

    def run(self, frames, class_index, memory=None):
        if self.times:
            self.times -= 1
            raise DeviceLostError("the GPU failed")
        return self.right.run(frames, class_index, memory)

    def describe(self, frames):
        self.run(frames, None)
        return self.right.describe(frames)

    def close(self):
        self.closed += 1


def test_a_lost_gpu_is_started_again_once_and_the_frame_is_not_lost(toy_bundle, caplog):
    bundle = Bundle.open(toy_bundle)
    right = create_backend(bundle, "onnxruntime", "cpu")
    first, second = Losing(right, 1), Losing(right, 0)
    detector = Detector(bundle, first, revive=lambda: second)
    frame = np.full((32, 32, 3), 51, np.uint8)
    assert detector(frame).score == pytest.approx(0.2, abs=1e-6)
    assert first.closed == 1 and detector.backend is second
    assert "starting it again" in caplog.text


@pytest.mark.parametrize("revived", [True, False])
def test_a_gpu_lost_twice_in_a_row_or_without_a_way_back_is_an_error(toy_bundle, revived):
    bundle = Bundle.open(toy_bundle)
    right = create_backend(bundle, "onnxruntime", "cpu")
    detector = Detector(
        bundle,
        Losing(right, 1),
        revive=(lambda: Losing(right, 1)) if revived else None,
    )
    with pytest.raises(DeviceLostError):
        detector(np.zeros((32, 32, 3), np.uint8))


@pytest.mark.parametrize("options", ["device='cpu'", "backend='openvino'"])
def test_an_engine_prints_nothing(toy_bundle, options):
    script = (
        "import sys, numpy as np; from kanoclip.runtime import Detector\n"
        f"Detector.load(sys.argv[1], {options})(np.zeros((9, 9, 3), np.uint8))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(toy_bundle)], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_preparing_and_judging_are_the_whole(detector):
    frames = [spot(), grey(200, (50, 70)), *noise(2)]
    prepared = [detector.prepare(frame) for frame in frames]
    assert [frame.image.shape for frame in prepared] == [(32, 32, 3)] * 4
    assert all(frame.resize_ms >= 0 and frame.resize_cpu_ms >= 0 for frame in prepared)
    for frame, found in zip(frames, detector.infer(prepared), strict=True):
        alone = detector(frame)
        assert (found.score, found.regions) == (alone.score, alone.regions)
        np.testing.assert_array_equal(found.map, alone.map)


def test_regions_of_a_reduced_frame_are_in_pixels_of_the_whole_image(detector):
    large = np.repeat(np.repeat(spot(), 8, 0), 8, 1)
    (whole,) = detector(large).regions
    (reduced,) = detector.infer([detector.prepare(large[::4, ::4], None, large.shape[:2])])[0].regions
    assert reduced == whole


def test_nothing_to_score(detector):
    assert detector.infer([]) == []


@pytest.mark.parametrize(
    ("dynamic", "most", "on_cpu", "expected"),
    [(False, 4, True, 4), (True, 4, True, 1), (True, 4, False, 4), (False, 1, False, 1)],
)
def test_how_many_frames_a_run_are_best(make_toy_bundle, tmp_path, dynamic, most, on_cpu, expected):
    detector = fake(make_toy_bundle(tmp_path, dynamic=dynamic, max_batch=most))
    detector.backend.on_cpu = on_cpu
    assert detector.batch_size == expected
    detector.warmup(2)
    assert [len(frames) for frames, _ in detector.backend.calls] == [expected] * 2


def test_outside_of_the_region_of_interest_nothing_counts(toy_bundle):
    """The spot of 204 lies right of it; the toy's score is max M, of which what is lost is halved."""
    detector = fake(toy_bundle, roi=LEFT)
    found = detector(spot())
    assert found.roi is LEFT and found.is_anomalous
    (region,) = found.regions  # the peak of what counts, a ground of one value: all of it
    assert (region.x, region.y, region.height) == (0, 0, 32) and region.width <= 16
    assert region.score == pytest.approx(0.2)
    assert fake(toy_bundle, roi=LEFT, threshold=0.6)(spot()).regions == ()
    assert found.map.max() == pytest.approx(0.2) and (found.map[:, 16:] == 0).all()
    assert found.score == pytest.approx(0.8 - (0.8 - 0.2) / 2)
    mirrored = detector(spot()[:, ::-1])
    plain = fake(toy_bundle)(spot()[:, ::-1])
    assert mirrored.score == plain.score and mirrored.regions == plain.regions != ()


def test_a_pixel_threshold_of_zero_stays_inside_of_the_region(toy_bundle):
    (region,) = fake(toy_bundle, roi=LEFT, pixel_threshold=0.0)(grey(0)).regions
    assert (region.x, region.y, region.height) == (0, 0, 32) and region.width <= 16


def test_a_frame_of_another_shape_than_the_region_was_drawn_on(toy_bundle):
    detector = fake(toy_bundle, roi=LEFT)
    detector(grey(9, (100, 100)))
    with pytest.raises(FrameError, match=r"left\.json was drawn on an image of 64x64, and this frame has 64x48"):
        detector(grey(9, (48, 64)))


def test_settings_of_a_class(two_classes):
    settings = Settings(Decision(threshold=0.3), {"inverted": Decision(threshold=0.9, roi=LEFT)})
    with Detector.load(two_classes, device="cpu", threads=1, settings=settings, min_area=5) as detector:
        plain, inverted = detector(grey(51)), detector(grey(51), "inverted")
        assert (plain.threshold, plain.roi) == (0.3, None)
        assert (inverted.threshold, inverted.roi, inverted.is_anomalous) == (0.9, LEFT, False)
        assert detector.thresholds_of("plain").min_area == detector.thresholds_of("inverted").min_area == 5
        detector.rules.decide_by(Settings(Decision(threshold=0.1)))
        assert detector(grey(51)).threshold == detector(grey(51), "inverted").threshold == 0.1
        with pytest.raises(SettingsError, match=r"\[class.nut\] is not in this bundle"):
            detector.rules.decide_by(Settings(classes={"nut": Decision()}))
        assert detector(grey(51)).threshold == 0.1


def test_thresholds_of_a_class_in_the_bundle(make_toy_bundle, tmp_path):
    own = Thresholds(0.7, 0.8, 3, "calibrated")
    folder = make_toy_bundle(tmp_path, classes=("plain", "inverted"), class_thresholds={"inverted": own})
    detector = fake(folder)
    assert detector.thresholds_of("inverted") == own and detector.thresholds_of().image == 0.5
    assert fake(folder, threshold=0.1).thresholds_of("inverted").pixel == 0.8


def test_thresholds_calibrated_inside_of_another_region_are_warned_of(make_toy_bundle, tmp_path, caplog):
    own = Thresholds(0.7, 0.8, 3, "calibrated", LEFT.digest())
    folder = make_toy_bundle(tmp_path, thresholds=own)
    fake(folder, roi=LEFT)
    fake(folder, threshold=0.1, pixel_threshold=0.1)
    assert caplog.text == ""
    fake(folder)
    assert "calibrated inside of another region of interest" in caplog.text


@pytest.mark.parametrize("classes", [("plain",), ("plain", "inverted")])
@pytest.mark.parametrize(("dynamic", "max_batch"), [(False, 1), (False, 4), (True, 4)])
@pytest.mark.parametrize("count", [0, 1, 4, 6])
def test_descriptors_of_frames(make_toy_bundle, tmp_path, toy_descriptors, classes, dynamic, max_batch, count):
    folder = make_toy_bundle(tmp_path, classes=classes, dynamic=dynamic, max_batch=max_batch, grid=(4, 8))
    frames = [frame[: 32 - i, : 20 + i] for i, frame in enumerate(noise(count))]
    with Detector.load(folder, device="cpu", threads=1) as detector:
        found = detector.describe(frames)
        resized = [detector.prepare(frame).image for frame in frames]
    assert (found.shape, found.dtype) == ((count, 32, 3), np.float32)
    for mine, image in zip(found, resized, strict=True):
        np.testing.assert_allclose(mine, toy_descriptors(image[None], (4, 8))[0], atol=1e-6)


@pytest.mark.parametrize(
    ("dynamic", "count", "sizes"), [(False, 6, [4, 4]), (False, 1, [4]), (True, 6, [4, 2]), (True, 1, [1])]
)
def test_how_frames_to_describe_are_grouped(make_toy_bundle, tmp_path, dynamic, count, sizes):
    folder = make_toy_bundle(tmp_path, classes=("a", "b"), dynamic=dynamic, max_batch=4, grid=(4, 4))
    detector, frames = fake(folder), noise(count)
    assert detector.describe(frames).shape == (count, 16, 3)
    assert [len(given) for given, _ in detector.backend.calls] == sizes
    fed = np.concatenate([given for given, _ in detector.backend.calls])
    assert fed.dtype == np.uint8
    np.testing.assert_array_equal(fed[:count], np.stack(frames))
    assert all((extra == frames[-1]).all() for extra in fed[count:])


def test_what_cannot_be_described(toy_bundle, make_toy_bundle, tmp_path):
    with pytest.raises(BackendError, match=r"has no descriptor output, .*: export it again"):
        fake(toy_bundle).describe([])
    detector = fake(make_toy_bundle(tmp_path, grid=(4, 4)))
    with pytest.raises(FrameError, match="COLOR_GRAY2BGR"):
        detector.describe([grey(1), np.zeros((32, 32), np.uint8)])
    assert detector.backend.calls == []
    for number in (np.nan, np.inf):
        detector.backend.number = number
        with pytest.raises(BackendError, match=r"fake returned NaN: .*--fp32"):
            detector.describe([grey(1)])


def test_a_gpu_lost_while_it_describes_is_started_again_once(make_toy_bundle, tmp_path):
    bundle = Bundle.open(make_toy_bundle(tmp_path, grid=(4, 4)))
    right = create_backend(bundle, "onnxruntime", "cpu")
    first = Losing(right, 1)
    detector = Detector(bundle, first, revive=lambda: Losing(right, 0))
    np.testing.assert_array_equal(detector.describe([spot()]), right.describe(spot()[None]))
    assert first.closed == 1 and detector.backend is not first


TILES = TileGrid(3, 1, 0.25)
"""Of 32x32: they begin at rows 0, 24 and 48 of a canvas of 80x32."""


@pytest.fixture(scope="module")
def tiled(make_toy_bundle, tmp_path_factory):
    return make_toy_bundle(tmp_path_factory.mktemp("tiled"), max_batch=3, grid=(4, 4), tiles=TILES)


def test_a_tiled_frame_is_as_sharp_as_the_canvas(tiled):
    """The toy map is the frame's own grey, so that the stitched map must be the frame."""
    (frame,) = noise(1, (80, 32))
    with Detector.load(tiled, device="cpu", threads=1) as detector:
        assert detector.frame_size == (80, 32) and detector.batch_size == 1
        found = detector(frame)
    np.testing.assert_allclose(found.map, frame.mean(2) / 255, atol=1e-6)
    assert found.score == pytest.approx(frame.mean(2).max() / 255, abs=1e-6)


def test_regions_of_tiles_are_in_pixels_of_the_frame(tiled):
    frame = grey(51, (320, 128))
    frame[92:108, 20:28] = 204  # goes into the overlap of the first two tiles, rows 96 to 128
    with Detector.load(tiled, device="cpu", threads=1) as detector:
        found = detector(frame)
        (region,) = found.regions
        assert (region.x, region.y, region.width, region.height, region.area) == (20, 92, 8, 16, 128)
        assert (found.map.shape, found.score) == ((80, 32), pytest.approx(0.8))
        reduced = detector.infer([detector.prepare(frame[::2, ::2], size=(320, 128))])
    assert reduced[0].regions == (region,)


@pytest.mark.parametrize(
    ("dynamic", "max_batch", "sizes", "together"),
    [
        (False, 3, [3, 3], 1),
        (False, 1, [1] * 6, 1),
        (False, 4, [4, 4], 1),
        (False, 7, [7], 2),
        (True, 4, [4, 2], 1),
        (True, 9, [6], 3),
    ],
)
def test_tiles_of_all_frames_share_runs(make_toy_bundle, tmp_path, dynamic, max_batch, sizes, together):
    detector = fake(make_toy_bundle(tmp_path, dynamic=dynamic, max_batch=max_batch, tiles=TILES))
    frames = noise(2, (80, 32))
    found = detector.batch(frames)
    assert [len(given) for given, _ in detector.backend.calls] == sizes
    assert all(given.flags.c_contiguous for given, _ in detector.backend.calls)
    fed = np.concatenate([given for given, _ in detector.backend.calls])[:6]
    np.testing.assert_array_equal(fed, [frame[top : top + 32] for frame in frames for top in (0, 24, 48)])
    for frame, one in zip(frames, found, strict=True):
        np.testing.assert_allclose(one.map, frame.mean(2) / 255, atol=1e-6)
    assert detector.batch_size == together
    detector.backend.calls.clear()
    detector.warmup(1)
    ((black, _),) = detector.backend.calls
    assert len(black) == (3 * together if dynamic else max_batch)


def test_the_region_of_interest_is_cut_like_the_frame(tiled):
    top = RegionOfInterest("top.json", keep=(((0.0, 0.0), (1.0, 0.0), (1.0, 0.25), (0.0, 0.25)),))
    frame = grey(51, (80, 32))
    frame[60:70, 5:10] = 255  # in the last tile, which lies outside as a whole
    frame[5:8, 5:10] = 153
    found = fake(tiled, roi=top)(frame)
    whole = fake(tiled)(frame)
    assert whole.score == 1 and found.score == pytest.approx(0.6)
    assert found.map.shape == (80, 32) and not found.map[22:].any()
    assert [(region.y, region.height) for region in found.regions] == [(5, 3)]
    mask = top.mask(80, 32)
    np.testing.assert_allclose(found.map[mask], whole.map[mask], atol=1e-6)


def test_a_tile_outside_of_the_region_has_no_say(tiled):
    """Half of its score is the image's own, which no mask takes away."""
    top = RegionOfInterest("top.json", keep=(((0.0, 0.0), (1.0, 0.0), (1.0, 0.25), (0.0, 0.25)),))

    def spoil(maps, scores):
        scores[:] = [0.3, 0.2, 0.9]

    detector = fake(tiled, spoil, roi=top)
    assert detector(grey(51, (80, 32))).score == pytest.approx(0.3)
    assert fake(tiled, spoil)(grey(51, (80, 32))).score == pytest.approx(0.9)


def test_descriptors_of_tiles_are_in_row_order(tiled, toy_descriptors):
    frames = noise(2, (80, 32))
    with Detector.load(tiled, device="cpu", threads=1) as detector:
        found = detector.describe(frames)
    assert found.shape == (2, 3 * 16, 3)
    for frame, one in zip(frames, found, strict=True):
        tiles = np.stack([frame[top : top + 32] for top in (0, 24, 48)])
        np.testing.assert_allclose(one, toy_descriptors(tiles, (4, 4)).reshape(48, 3), atol=1e-5)


def test_a_frame_of_fewer_pixels_than_tiles(tiled):
    detector = fake(tiled)
    words = (
        "a frame of 9x2 pixels is too small for 3x1 tiles: pass frames of at least 1x3, or export the bundle without"
    )
    for use in (detector, detector.prepare, lambda frame: detector.describe([frame])):
        with pytest.raises(FrameError, match=words):
            use(grey(1, (2, 9)))
    assert detector.backend.calls == []
    assert detector(grey(51, (3, 1))).map.shape == (80, 32)


def test_without_tiles_nothing_is_copied_on_the_way_to_the_engine(toy_bundle):
    detector = fake(toy_bundle)
    frame = noise(1)[0]
    prepared = detector.prepare(frame)
    assert prepared.image is frame and np.shares_memory(prepared.images, frame) and prepared.images.shape[0] == 1


def test_times_of_a_frame_are_those_of_all_its_tiles(tiled, make_toy_bundle, tmp_path):
    with Detector.load(make_toy_bundle(tmp_path, tiles=TILES), device="cpu", threads=1) as detector:
        calls = []
        run = detector.backend.run
        detector.backend.run = lambda *given: (time.sleep(0.01), calls.append(1), run(*given))[2]
        found = detector(grey(51, (80, 32)))
    assert len(calls) == 3 and found.timings.inference >= 30


def test_the_region_in_each_tile_s_map(tiled):
    top = RegionOfInterest("top.json", keep=(((0.0, 0.0), (1.0, 0.0), (1.0, 0.25), (0.0, 0.25)),))
    roi, inside = fake(tiled, roi=top).rules.region_of()
    assert roi is top and inside.shape == (3, 32, 32)
    assert inside[0, :18].all() and not inside[0, 22:].any() and not inside[1:].any()
    assert fake(tiled).rules.region_of("object") == (None, None)


def test_a_thread_too_many_waits_until_the_engine_is_free(toy_bundle):
    detector, running, most, go = fake(toy_bundle), [], [], threading.Event()
    run = detector.backend.run

    def slow(*given):
        running.append(1)
        most.append(len(running))
        assert go.wait(20)
        running.pop()
        return run(*given)

    detector.backend.run = slow
    threads = [threading.Thread(target=detector, args=(grey(1),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join(20)
    assert most == [1] * 4
