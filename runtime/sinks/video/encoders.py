"""What turns images into video: H.264 by a program of the system where there is one, else OpenCV's MPEG-4.

A program is fed through a pipe and writes fragmented MP4, every part of which can be played without what would have
come after it. So a file is readable up to its last two seconds or so whatever happens to this process or the machine.
OpenCV's own files are readable only once they are finished, and its wheels hold no H.264 encoder.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple, Protocol

import cv2

from kanoclip.runtime.errors import SinkError, one_line
from kanoclip.runtime.sinks.files import sink_errors
from kanoclip.runtime.system.installed import succeeds
from kanoclip.runtime.types import Image

FOURCC = "mp4v"
"""MPEG-4 part 2: what OpenCV's own wheels can always encode."""
FRAGMENT_S = 2
"""Length of the parts of a file: what is lost when it is cut."""
FINISH_S = 10.0
_TRIAL_S = 20.0


class Encoder(Protocol):
    """Writes one video file."""

    def write(self, image: Image) -> None:
        """Adds an image, uint8 [H, W, 3] BGR, of the size that the encoder was opened with.

        Raises:
            SinkError: It cannot be written.
        """
        ...

    def close(self) -> None:
        """Finishes the file.

        Raises:
            SinkError: It is not complete.
        """
        ...


class Recipe(NamedTuple):
    """How a program is called.

    Attributes:
        name: For people.
        command: With `{width}`, `{height}`, `{fps}` (a second, times 1000), `{interval}` (frames from one key frame to
            the next) and `{fragment}` (milliseconds); raw BGR on standard input, MP4 on standard output.
        trial: Encodes an image of its own making into nothing; its exit status tells whether that works here.
    """

    name: str
    command: tuple[str, ...]
    trial: tuple[str, ...]


def _words(command: str) -> tuple[str, ...]:
    return tuple(command.split())


def _gst(name: str, *encoder: str) -> Recipe:
    raw = "rawvideoparse format=bgr width={width} height={height} framerate={fps}/1000"
    mux = "h264parse ! mp4mux fragment-duration={fragment} streamable=true ! fdsink fd=1"
    command = f"gst-launch-1.0 -q fdsrc fd=0 ! {raw} ! videoconvert ! {' ! '.join(encoder)} ! {mux}"
    small = "video/x-raw,format=BGR,width=320,height=240,framerate=10/1"
    # The whole chain: the parser and the muxer are in packages of their own, and a board may lack one of them.
    trial = f"gst-launch-1.0 -q videotestsrc num-buffers=2 ! {small} ! videoconvert ! {' ! '.join(encoder)} ! {mux}"
    return Recipe(name, _words(command), _words(trial.format(interval=20, fragment=1000 * FRAGMENT_S)))


RECIPES = (
    # Jetson's encoder is a chip of its own. Some modules (Orin Nano) have the plugin without the chip.
    _gst(
        "GStreamer's nvv4l2h264enc",
        "video/x-raw,format=BGRx",
        "nvvidconv",
        "video/x-raw(memory:NVMM),format=NV12",
        "nvv4l2h264enc bitrate=6000000 idrinterval={interval} iframeinterval={interval} insert-sps-pps=true",
    ),
    Recipe(
        "ffmpeg's libx264",
        _words(
            "ffmpeg -nostdin -hide_banner -loglevel error -f rawvideo -pix_fmt bgr24 -video_size {width}x{height} "
            "-framerate {fps}/1000 -i pipe:0 -an -c:v libx264 -preset superfast -tune zerolatency -crf 23 "
            "-pix_fmt yuv420p -g {interval} -movflags +frag_keyframe+empty_moov+default_base_moof -f mp4 "
            "-flush_packets 1 pipe:1"
        ),
        _words(
            "ffmpeg -nostdin -loglevel error -f rawvideo -pix_fmt bgr24 -video_size 64x64 -i /dev/zero -frames:v 1 "
            "-c:v libx264 -pix_fmt yuv420p -f null -"
        ),
    ),
    _gst(
        "GStreamer's x264enc",
        "x264enc tune=zerolatency speed-preset=superfast pass=qual quantizer=23 key-int-max={interval}",
    ),
    _gst("GStreamer's openh264enc", "openh264enc bitrate=4000000 gop-size={interval}"),
)


@functools.cache
def h264_recipe() -> Recipe | None:
    """The first way to encode H.264 that works on this machine; None if none does."""
    return next((recipe for recipe in RECIPES if _works(recipe)), None)


def _works(recipe: Recipe) -> bool:
    if shutil.which(recipe.trial[0]) is None:
        return False
    return succeeds(recipe.trial, _TRIAL_S)


class PipeEncoder:
    """A program that encodes what it is sent.

    Args:
        recipe: Which, and how.
        path: The file; overwritten.
        size: (height, width), both even.
        fps: fps.

    Raises:
        SinkError: The file or the program cannot be opened.
    """

    def __init__(self, recipe: Recipe, path: Path, size: tuple[int, int], fps: float) -> None:
        self._path = path
        self._complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the program
        values = {
            "height": size[0],
            "width": size[1],
            "fps": round(1000 * fps),
            "interval": max(1, round(FRAGMENT_S * fps)),
            "fragment": 1000 * FRAGMENT_S,
        }
        command: Sequence[str] = [word.format(**values) for word in recipe.command]
        with sink_errors(path), path.open("wb") as file:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=self._complaints,
                start_new_session=True,  # Ctrl-C is for us: it ends when its input does
            )

    def write(self, image: Image) -> None:
        """As `Encoder.write`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(image.data)
        except OSError as error:  # the reason is the program's to tell
            self._process.kill()
            raise SinkError(f"{self._path}: cannot be written ({self._complaint() or error.strerror})") from None

    def close(self) -> None:
        """As `Encoder.close`."""
        process = self._process
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.close()
        try:
            status = process.wait(FINISH_S)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        reason = self._complaint()
        self._complaints.close()
        if status:
            raise SinkError(f"{self._path}: the video could not be completed ({reason or f'exit status {status}'})")

    def _complaint(self) -> str:
        """The first line of what the program has said."""
        with suppress(OSError, ValueError, subprocess.TimeoutExpired):
            self._process.wait(1.0)
            self._complaints.seek(0)
            return one_line(self._complaints.readline(4096).decode("utf-8", "replace"))
        return ""


class OpenCvEncoder:
    """OpenCV's MPEG-4; arguments as of `PipeEncoder`."""

    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        self._path = path
        with sink_errors(path):
            path.touch()  # OpenCV gives no reason when it cannot write: the operating system does
        place = str(path.absolute())  # FFmpeg takes what stands before a colon in a name for a protocol
        self._writer = cv2.VideoWriter(place, cv2.VideoWriter.fourcc(*FOURCC), fps, (size[1], size[0]))
        if not self._writer.isOpened():
            raise SinkError(
                f"{path}: this OpenCV cannot encode {FOURCC} video at {size[1]}x{size[0]}; "
                "give --output a folder to get images"
            )

    def write(self, image: Image) -> None:
        """As `Encoder.write`; OpenCV does not tell what goes wrong before the end."""
        self._writer.write(image)

    def close(self) -> None:
        """As `Encoder.close`."""
        self._writer.release()
        # A file that lost its tail has no index and does not open.
        check = cv2.VideoCapture(str(self._path.absolute()))
        complete = check.isOpened()
        check.release()
        if not complete:
            raise SinkError(f"{self._path}: the video could not be completed; is the disk full?")


def open_encoder(path: Path, size: tuple[int, int], fps: float) -> Encoder:
    """Starts a file; arguments and errors as of `PipeEncoder`."""
    recipe = h264_recipe()
    return OpenCvEncoder(path, size, fps) if recipe is None else PipeEncoder(recipe, path, size, fps)
