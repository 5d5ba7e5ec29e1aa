"""Sources against real files, a real video and a real HTTP stream."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.detect.preprocess import resize
from kanoclip.runtime.errors import SourceError
from kanoclip.runtime.sources import ImageSource, UrlSource, VideoSource, open_camera, open_source
from kanoclip.runtime.sources.files.folders import natural_key
from kanoclip.runtime.sources.files.images import read_image, read_reduced
from kanoclip.runtime.types import BadFrame, Frame

EXAMPLES = Path(__file__).parents[3] / "examples" / "hazelnut_toy"
PHOTO = EXAMPLES / "test" / "good" / "04.jpg"


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


def gradient(height=24, width=32):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 8 % 256, y * 10 % 256, (x + y) * 4 % 256], -1).astype(np.uint8)


def write_video(path, count=12, size=(64, 48)):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, size)
    assert writer.isOpened()
    for index in range(count):
        writer.write(np.full((size[1], size[0], 3), index * 20, np.uint8))
    writer.release()
    return path


def only(source):
    (item,) = source.frames()
    return item


def test_the_example_set_gives_images_and_never_masks():
    source = open_source(str(EXAMPLES))
    frames = list(source.frames())
    assert len(frames) == source.count == 23
    assert not any("ground_truth" in frame.source for frame in frames)
    assert [frame.index for frame in frames] == list(range(23))
    assert all(f.image.dtype == np.uint8 and f.image.shape == (512, 512, 3) and f.capture_ms > 0 for f in frames)
    assert abs(frames[0].captured_at - time.time()) < 60
    assert (source.live, source.fps, source.root) == (False, None, EXAMPLES)


def test_a_ground_truth_folder_of_its_own_can_still_be_opened():
    assert open_source(str(EXAMPLES / "ground_truth")).count == 17


def test_folders_are_read_recursively_in_natural_order_without_hidden_files(tmp_path):
    names = ["img10.png", "img2.png", "b/1.png", "a/10.PNG", "a/9.png", ".hidden.png", ".trash/x.png", "notes.txt"]
    for name in names:
        if name.endswith(".txt"):
            (tmp_path / name).write_text("no image")
        elif name.endswith(".PNG"):
            shutil.move(write(tmp_path / "x.png", gradient()), tmp_path / name)
        else:
            write(tmp_path / name, gradient())
        (tmp_path / "a").mkdir(exist_ok=True)
    source = open_source(str(tmp_path))
    found = [str(Path(f.source).relative_to(tmp_path)) for f in source.frames()]
    assert found == ["a/9.png", "a/10.PNG", "b/1.png", "img2.png", "img10.png"]


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=20))
def test_natural_order_is_numeric_order(numbers):
    paths = sorted((Path(f"run{n}/x.png") for n in numbers), key=natural_key)
    assert [int(p.parts[0][3:]) for p in paths] == sorted(numbers)


def test_globs(tmp_path):
    for name in ("p/1.png", "p/2.png", "q/1.png", "q/deep/3.png", "q/4.txt"):
        write(tmp_path / Path(name).with_suffix(".png"), gradient())
    source = open_source(str(tmp_path / "**" / "*.png"))
    assert (source.count, source.root) == (5, tmp_path)
    assert open_source(str(tmp_path / "p" / "?.png")).count == 2
    with pytest.raises(SourceError, match=r"\*\.jpg: no image matches"):
        open_source(str(tmp_path / "*.jpg"))


def test_an_existing_name_with_glob_characters_is_taken_as_it_is(tmp_path):
    path = write(tmp_path / "part[1].png", gradient())
    np.testing.assert_array_equal(only(open_source(str(path))).image, gradient())


@pytest.mark.parametrize("kind", ["grey", "alpha", "16 bit", "16 bit grey"])
def test_every_kind_of_image_ends_as_bgr_bytes(tmp_path, kind):
    colour = gradient()
    grey = colour[:, :, 0]
    stored = {
        "grey": grey,
        "alpha": np.dstack([colour, np.full(grey.shape, 128, np.uint8)]),
        "16 bit": colour.astype(np.uint16) * 257,
        "16 bit grey": grey.astype(np.uint16) * 257,
    }[kind]
    image = only(open_source(str(write(tmp_path / "x.png", stored)))).image
    assert image.dtype == np.uint8
    expected = np.dstack([grey] * 3) if "grey" in kind else colour
    if kind == "alpha":  # half of it is the white behind
        expected = (colour * 128.0 + 255 * 127) / 255
    assert np.abs(image.astype(int) - expected).max() <= 1


def test_exif_orientation_is_applied(tmp_path):
    plain = write(tmp_path / "x.jpg", gradient(24, 32)).read_bytes()
    # One IFD entry: tag 0x0112 (orientation), type SHORT, value 6 = turn a quarter to the right.
    tiff = b"MM\x00*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    exif = b"Exif\x00\x00" + tiff
    turned = tmp_path / "turned.jpg"
    turned.write_bytes(plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:])
    upright, image = cv2.imread(str(tmp_path / "x.jpg")), only(open_source(str(turned))).image
    assert image.shape == (32, 24, 3)
    np.testing.assert_array_equal(image, cv2.rotate(upright, cv2.ROTATE_90_CLOCKWISE))


def broken(tmp_path, kind):
    """A folder with a good image, a bad one, and a good one."""
    write(tmp_path / "1.png", gradient())
    write(tmp_path / "3.png", gradient())
    photo = PHOTO.read_bytes()
    ok, png = cv2.imencode(".png", cv2.imread(str(PHOTO)))
    assert ok
    name, data = {
        "empty": ("2.jpg", b""),
        "junk": ("2.jpg", b"this is no image"),
        "cut jpeg": ("2.jpg", photo[: len(photo) // 2]),
        # The whole file as the thumbnail of a cut one: the thumbnail's end marker must not pass for the image's.
        "cut jpeg with thumbnail": (
            "2.jpg",
            photo[:2] + segment(photo[:20] + b"\xff\xd9") + photo[2 : len(photo) // 2],
        ),
        "cut png": ("2.png", png.tobytes()[: len(png) // 2]),
        "broken png": ("2.png", png.tobytes()[:100] + bytes(4000) + png.tobytes()[4100:]),
    }[kind]
    (tmp_path / name).write_bytes(data)
    return name


def segment(payload):
    return b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload


@pytest.mark.parametrize("kind", ["empty", "junk", "cut jpeg", "cut jpeg with thumbnail", "cut png", "broken png"])
def test_a_broken_image_is_reported_and_the_stream_goes_on(tmp_path, kind):
    name = broken(tmp_path, kind)
    first, bad, last = ImageSource.from_folder(tmp_path).frames()
    assert isinstance(first, Frame) and isinstance(last, Frame)
    assert isinstance(bad, BadFrame)
    assert (bad.index, bad.source) == (1, str(tmp_path / name))
    expected = {"empty": "the file is empty"}.get(kind, "the file is cut short" if "cut" in kind else "not an image")
    assert expected in bad.reason


def test_a_jpeg_with_data_after_its_end_is_fine(tmp_path):
    path = tmp_path / "x.jpg"
    path.write_bytes(PHOTO.read_bytes() + b"camera maker's trailer" * 50)
    assert only(open_source(str(path))).image.shape == (512, 512, 3)


def test_an_image_that_vanishes_after_listing_is_a_bad_frame(tmp_path):
    write(tmp_path / "1.png", gradient())
    source = open_source(str(tmp_path))
    (tmp_path / "1.png").unlink()
    assert "No such file" in only(source).reason


def test_what_cannot_be_opened_says_so_by_name(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "junk.mp4").write_bytes(b"junk" * 500)
    video = write_video(tmp_path / "ok.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(video[: len(video) // 2])
    for spec, message in {
        str(tmp_path / "empty"): "empty: no images in this folder",
        str(tmp_path / "missing"): "missing: no such file or folder",
        str(tmp_path / "notes.txt"): "notes.txt: neither an image nor a video",
        str(tmp_path / "junk.mp4"): "junk.mp4: not a video",
        str(tmp_path / "cut.mp4"): "cut.mp4: not a video",
        "gopher://host/x": "gopher://host/x: unknown kind of URL",
    }.items():
        with pytest.raises(SourceError, match=message):
            open_source(spec)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_without_permission(tmp_path):
    video = write_video(tmp_path / "x.mp4")
    video.chmod(0)
    with pytest.raises(SourceError, match="Permission denied"):
        open_source(str(video))


def test_a_missing_camera_names_its_index_and_a_remedy():
    with pytest.raises(SourceError, match=r"camera 97 cannot be opened: .*(--source|--camera)"):
        open_camera(97)


def test_a_video_is_read_to_its_end(tmp_path):
    source = open_source(str(write_video(tmp_path / "x.mp4")))
    assert isinstance(source, VideoSource)
    frames = list(source.frames())
    source.close()
    assert len(frames) == source.count == 12
    assert source.fps == 25
    assert not source.live
    assert frames[0].image.shape == (48, 64, 3)
    assert [round(f.image.mean() / 20) for f in frames] == list(range(12))
    assert all(f.capture_ms > 0 and f.source == str(tmp_path / "x.mp4") for f in frames)


def test_a_video_that_breaks_off_ends_with_a_bad_frame(tmp_path):
    whole = tmp_path / "x.avi"
    writer = cv2.VideoWriter(str(whole), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    rng = np.random.default_rng(0)
    for _ in range(60):
        writer.write(rng.integers(0, 255, (48, 64, 3), np.uint8))
    writer.release()
    data = whole.read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(data[: len(data) // 2])
    *good, last = open_source(str(cut)).frames()
    assert 20 < len(good) < 40
    assert isinstance(last, BadFrame)
    assert f"after {len(good)} of about 60 frames" in last.reason


class Mjpeg(BaseHTTPRequestHandler):
    """A camera as cheap ones are: JPEG images in a multipart answer, then the connection ends."""

    def do_GET(self):
        if self.path.startswith("/nothing"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for index in range(30):
            _, data = cv2.imencode(".jpg", np.full((48, 64, 3), 8 * index, np.uint8))
            self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data))
            self.wfile.write(data.tobytes() + b"\r\n")
            time.sleep(0.03)

    def log_message(self, *_):
        """Keeps the test's output clean."""


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Mjpeg) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_http_stream_is_live_and_its_end_is_a_failure(server):
    source = open_source(f"http://me:s3cret@{server}/video?x=1")
    assert isinstance(source, UrlSource)
    assert source.live
    assert source.name == f"http://***@{server}/video?x=1"
    frames = []
    with pytest.raises(SourceError, match="the stream stopped after") as caught:
        for frame in source.frames():
            frames.append(frame)
    source.close()
    assert "s3cret" not in str(caught.value)
    assert 15 <= len(frames) < 30  # what FFmpeg had read ahead is of unknown age
    assert all(f.image.shape == (48, 64, 3) and f.source == source.name for f in frames)
    levels = [f.image.mean() for f in frames]
    assert levels == sorted(levels)


def test_a_url_that_does_not_answer(server):
    with pytest.raises(SourceError, match=r"http://\*\*\*@.*/nothing: .*404.*check the path") as caught:
        open_source(f"http://me:s3cret@{server}/nothing")
    assert "s3cret" not in str(caught.value)


def test_the_command_line_keeps_opencv_quiet_and_puts_standard_error_back(tmp_path):
    script = """
import sys, os
from kanoclip.runtime.cli.terminal.quiet import native_chatter_silenced
from kanoclip.runtime.sources import open_camera
with native_chatter_silenced():
    try:
        open_camera(97)
    except Exception as error:
        print("python speaks", file=sys.stderr)
    os.write(2, b"native speaks inside")
os.write(2, b"native speaks after")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stderr == "python speaks\nnative speaks after"


@pytest.mark.parametrize("readers", [1, 2, 4])
def test_images_that_are_read_ahead_keep_their_order(tmp_path, readers):
    for index in range(23):
        # Large and small ones in turns, so that later ones are ready first.
        write(tmp_path / f"{index}.png", np.full((400, 400, 3) if index % 4 == 0 else (4, 4, 3), index, np.uint8))
    (tmp_path / "7.png").write_bytes(b"no image")
    source = ImageSource.from_folder(tmp_path)
    source.readers = readers
    items = list(source.frames())
    assert [item.index for item in items] == list(range(23))
    assert [item.index for item in items if isinstance(item, BadFrame)] == [7]
    assert all(item.image[0, 0, 0] == item.index for item in items if isinstance(item, Frame))
    assert all((item.capture_cpu_ms > 0) == (readers > 1) for item in items if isinstance(item, Frame))


def test_a_reader_that_stops_early_leaves_no_thread(tmp_path):
    for index in range(9):
        write(tmp_path / f"{index}.png", gradient())
    source = ImageSource.from_folder(tmp_path)
    source.readers = 3
    frames = source.frames()
    next(frames)
    frames.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("kanoclip-reader")]


def photo(height, width):
    """An image of low frequencies, which every scale shows alike."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    y, x = y / height * 6, x / width * 6
    return (127 + 100 * np.stack([np.sin(x), np.cos(y), np.sin(x + y)], -1)).astype(np.uint8)


@pytest.mark.parametrize(
    ("size", "scale"),
    [((64, 64), 1), ((127, 400), 1), ((128, 128), 2), ((255, 700), 2), ((301, 257), 4), ((2048, 600), 8)],
)
def test_large_jpegs_are_reduced_to_no_less_than_twice_the_models_size(tmp_path, size, scale):
    path = write(tmp_path / "x.jpg", photo(*size))
    image, full = read_reduced(path, 32, 32)
    assert full == (None if scale == 1 else size)
    assert image.shape[:2] == tuple(-(-side // scale) for side in size)
    assert scale == 1 or min(image.shape[:2]) >= 64
    drift = np.abs(resize(image, 32, 32).astype(int) - resize(read_image(path), 32, 32))
    # A side that the scale does not divide is rounded up: the image is then stretched by a part of a pixel.
    assert drift.mean() < (1.5 if size[0] % scale == size[1] % scale == 0 else 4) and drift.max() <= 24


def test_a_reduced_image_is_upright_and_so_is_its_size(tmp_path):
    path = write(tmp_path / "x.jpg", photo(128, 256))
    raw = path.read_bytes()
    tiff = b"MM\x00*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    path.write_bytes(raw[:2] + segment(b"Exif\x00\x00" + tiff) + raw[2:])
    image, full = read_reduced(path, 32, 32)
    assert (image.shape, full) == ((128, 64, 3), (256, 128))
    np.testing.assert_allclose(image.astype(int), read_image(path)[::2, ::2], atol=12)


def test_other_images_are_read_in_full_and_bad_ones_refused(tmp_path):
    image, full = read_reduced(write(tmp_path / "x.png", photo(256, 256)), 32, 32)
    assert image.shape == (256, 256, 3) and full is None
    (tmp_path / "y.jpg").write_bytes(write(tmp_path / "z.jpg", photo(256, 256)).read_bytes()[:5000])
    assert read_reduced(tmp_path / "y.jpg", 32, 32) == "the file is cut short"
    assert read_reduced(tmp_path / "none.jpg", 32, 32) == "No such file or directory"


def test_a_source_reduces_only_when_told(tmp_path):
    path = write(tmp_path / "x.jpg", photo(256, 256))
    source = open_source(str(path))
    assert (only(source).image.shape, only(source).full_size) == ((256, 256, 3), None)
    source.reduced_for = (32, 32)
    assert (only(source).image.shape, only(source).full_size) == ((64, 64, 3), (256, 256))
