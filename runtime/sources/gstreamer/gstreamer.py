"""CSI and GenICam cameras, and any GStreamer pipeline, through a `gst-launch-1.0 ... ! fdsink` pipe.

OpenCV's wheels have no GStreamer. What goes through the pipe is Matroska with uncompressed BGR (`matroskamux`), since
frames must say where they end:

- bare frames give nothing to check. The size would have to be asked for beforehand, and a camera that changes it in
  mid-stream makes garbage of every frame after, without an error (tried: exit code 0). `matroskamux` refuses that;
- `gdppay` and `pnmenc` are in plugins-bad, which a Jetson need not have; `avimux` wants to seek; `y4menc` takes no RGB,
  so an image would lose half of its colour and be converted twice;
- 300 frames of 1920x1080 cost 1.1 s of processor time bare, 1.2 s in Matroska and 2.1 s in y4m (two cores, GStreamer
  1.22).
"""

from __future__ import annotations

import math
import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from kanoclip.runtime.errors import SourceError
from kanoclip.runtime.sources.base import BaseSource
from kanoclip.runtime.sources.files.headers.header import Header
from kanoclip.runtime.sources.files.reading import AS_IT_IS, Reading
from kanoclip.runtime.sources.gstreamer.csi import CSI, CsiCamera
from kanoclip.runtime.sources.gstreamer.genicam import GENICAM, GenicamCamera
from kanoclip.runtime.sources.gstreamer.launch import PACKAGES, GstLaunch, StalledError
from kanoclip.runtime.sources.gstreamer.matroska import MatroskaReader, StreamCutError, StreamFormatError
from kanoclip.runtime.sources.network.clock import StreamClock, wall_time
from kanoclip.runtime.system.net import PublicUrl, redact_property, redact_text
from kanoclip.runtime.types import Frame

GST = "gst://"
OPEN_TIMEOUT_S = 20.0
"""From the start to the first frame; a CSI sensor takes about 3 s."""
STALL_TIMEOUT_S = 10.0
"""For each frame after."""

_TAIL = ("!", "videoconvert", "!", "video/x-raw,format=BGR", "!", "matroskamux", "streamable=true")
_REMEDIES = {
    "nvarguscamerasrc": "csi:// needs a Jetson with NVIDIA's elements (package nvidia-l4t-gstreamer)",
    "nvvidconv": "csi:// needs a Jetson with NVIDIA's elements (package nvidia-l4t-gstreamer)",
    "aravissrc": "genicam:// needs Aravis: apt-get install libaravis-0.8-0",
    "bayer2rgb": "apt-get install gstreamer1.0-plugins-bad",
    "matroskamux": f"apt-get install {PACKAGES}",
    "videoconvert": f"apt-get install {PACKAGES}",
}
_MISSING = re.compile(r'no element "([^"]+)"')


def is_gstreamer(spec: str) -> bool:
    """Whether a source string is for this module."""
    return spec.startswith((GST, CSI, GENICAM))


class GStreamerSource(BaseSource):
    """Frames of a GStreamer pipeline.

    A camera never ends. Another pipeline may: when it ends by itself and without an error (`num-buffers`, a file),
    that is the end of the source, even if it is live.

    Args:
        spec: `csi://N` with options (see `CsiCamera`), `genicam://NAME` with options (see `GenicamCamera`), or
            `gst://` and a pipeline up to raw video, as `gst-launch-1.0` takes it and split as a shell would; passwords
            in it are used and never shown.
        stall_s: How long each frame after the first may take; None waits for ever.
        reading: How large its frames may be, and whether somebody looks at whole ones.

    Raises:
        SourceError: It is not of that form, the tool is missing, or no frame comes.
    """

    count: int | None = None
    root: Path | None = None

    def __init__(self, spec: str, stall_s: float | None = STALL_TIMEOUT_S, reading: Reading = AS_IT_IS) -> None:
        self._stall_s = math.inf if stall_s is None else stall_s
        self._kind = spec.partition("://")[0]
        self._endless = not spec.startswith(GST)
        pipeline, self.name, self._full_size = read_pipeline(spec, reading.model_size)
        self._hidden = [(token, redact_property(token)) for token in pipeline if redact_property(token) != token]
        self._deadline = time.monotonic() + OPEN_TIMEOUT_S
        self._launch = GstLaunch(self.name, [*pipeline, *_TAIL])
        self._reader = MatroskaReader(lambda view: self._launch.fill(view, self._deadline))
        try:
            track = self._reader.read_track()
        except StalledError:
            self._launch.close()
            raise self._failure(f"no frame within {OPEN_TIMEOUT_S:.0f} s") from None
        except (StreamFormatError, StreamCutError) as error:
            self._launch.close()
            raise self._failure(f"not the stream that was asked for ({error or 'cut short'})") from error
        except BaseException:
            self._launch.close()
            raise
        if track is None:
            code = self._launch.finish()
            self._launch.close()
            raise self._failure(f"ended without a frame (exit code {code})")
        if (refused := reading.too_large(Header(track.height, track.width))) is not None:
            self._launch.close()
            raise SourceError(f"{self.name}: {refused}")
        self.fps = track.fps if track.fps is not None and track.fps <= 1000 else None
        self.live = self._endless or self._launch.live

    def frames(self) -> Iterator[Frame]:
        """Yields whole frames until the pipeline ends.

        Raises:
            SourceError: It failed, stalled or broke off.
        """
        index = 0
        clock = StreamClock(settle_s=0)  # nothing waits in a pipe that was read from the start
        while True:
            self._deadline = time.monotonic() + (self._stall_s if index else max(self._stall_s, OPEN_TIMEOUT_S))
            try:
                size = self._reader.next_size()
                if size is None:
                    break
                started = time.perf_counter()
                captured = clock.captured(time.monotonic(), self._reader.ticks_ms / 1e3) if self.live else None
                captured_at = time.time() if captured is None else wall_time(captured)
                image = self._reader.read_image(size)
            except StalledError:
                raise self._failure(f"no frame for {self._stall_s:g} s after {index} frames") from None
            except StreamCutError:
                self._launch.finish()
                raise self._failure(f"broke off in the middle of frame {index}") from None
            except StreamFormatError as error:
                raise self._failure(f"frame {index} cannot be read ({error})") from error
            # The wait for the sensor costs nothing, so that only the way through the pipe counts.
            spent = (time.perf_counter() - started) * 1e3
            yield Frame(index, self.name, captured_at, image, spent, full_size=self._full_size)
            index += 1
        code = self._launch.finish()
        if code or self._endless or not index:
            raise self._failure(f"stopped after {index} frames (exit code {code})")

    def interrupt(self) -> None:
        """Has a thread that waits for a frame wait no longer: for `frames` that is a failure."""
        self._launch.interrupt()

    def close(self) -> None:
        """Ends the pipeline's processes."""
        self._launch.close()

    def _failure(self, what: str) -> SourceError:
        """An error with the tool's own words and, where it is known, the remedy."""
        complaint = self._launch.complaint
        for token, shown in self._hidden:  # the tool's messages quote properties, and parts of an address
            value, shown_value = token.partition("=")[2] or token, shown.partition("=")[2] or shown
            complaint = complaint.replace(value, shown_value)
            complaint = PublicUrl.of(value).scrub(complaint) if "://" in value else complaint
        complaint = redact_text(complaint)[:300]
        return SourceError(f"{self.name}: {what}{f': {complaint}' if complaint else ''}; {self._remedy(complaint)}")

    def _remedy(self, complaint: str) -> str:
        """What to do about it."""
        if missing := _MISSING.search(complaint):
            spelling = f"install the GStreamer plugin that has it, or check its spelling (gst-inspect-1.0 {missing[1]})"
            return _REMEDIES.get(missing[1], spelling)
        if "Could not multiplex" in complaint:
            return "the images changed their size or format in mid-stream: fix it with videoscale and a caps filter"
        if self._kind == "genicam":
            return "check the camera's power, cable and address, that no other program holds it, and arv-tool-0.8"
        if self._endless:
            return "check the sensor's cable and that no other program uses it; systemctl restart nvargus-daemon"
        return "try the pipeline with gst-launch-1.0 and fakesink at its end"


class Pipeline(NamedTuple):
    """What a source string stands for.

    Attributes:
        arguments: Of `gst-launch-1.0`, up to raw video.
        name: The string as it may be shown.
        full_size: (height, width) of the whole frame, where a smaller one comes.
    """

    arguments: list[str]
    name: str
    full_size: tuple[int, int] | None = None


def read_pipeline(spec: str, model: tuple[int, int] | None = None) -> Pipeline:
    """Reads what a source string stands for; opens nothing.

    Args:
        spec: As `GStreamerSource` takes it.
        model: As `Reading.model_size`.

    Raises:
        SourceError: It is not of the form that its kind has.
    """
    if spec.startswith(CSI):
        camera = CsiCamera.parse(spec)
        return Pipeline(camera.pipeline(model), spec, camera.full_size if camera.halvings(model) else None)
    if spec.startswith(GENICAM):
        return Pipeline(GenicamCamera.parse(spec).pipeline(), spec)
    pipeline = _split(spec)
    return Pipeline(pipeline, GST + " ".join(map(redact_property, pipeline)))


def files_of_pipeline(spec: str) -> list[Path]:
    """The files that a `gst://` string reads: what its elements name as `location` or as a `file://` address.

    One that cannot be split is refused where it is opened.
    """
    try:
        tokens = _split(spec)
    except SourceError:
        return []
    named = [token.partition("=") for token in tokens]
    return [
        Path(unquote(value.removeprefix("file://")) if value.startswith("file://") else value)
        for name, _, value in named
        if (name == "location" and "://" not in value) or (name in ("location", "uri") and value.startswith("file://"))
    ]


def _split(spec: str) -> list[str]:
    """The arguments of a `gst://` string."""
    try:
        tokens = shlex.split(spec[len(GST) :])
    except ValueError as error:
        raise SourceError(f"{GST}...: the pipeline cannot be split ({error}): check its quotes") from error
    while tokens and tokens[-1] == "!":  # we add the next element ourselves
        tokens.pop()
    if not tokens:
        raise SourceError(f'{GST}: no pipeline given; for example "{GST}v4l2src device=/dev/video0"')
    if any(re.match(r"=|[\w:-]+=$", token) for token in tokens):  # else a password could stand alone, and be shown
        raise SourceError(f"{GST}...: write properties as name=value, without blanks around =")
    return tokens
