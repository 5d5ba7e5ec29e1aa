"""What `genicam://NAME` stands for: an industrial camera (GigE Vision, USB3 Vision), through Aravis' GStreamer element.

Aravis speaks to the camera itself. The other way, harvesters, only loads the library of the camera's vendor (a `.cti`
file), which has to be had, for this processor and this system, for each make.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from kanoclip.runtime.errors import SourceError
from kanoclip.runtime.sources.gstreamer.query import decimal, split_query, whole

GENICAM = "genicam://"
AUTO = "auto"

_BAYER = {"bayer-rg8": "rggb", "bayer-gr8": "grbg", "bayer-gb8": "gbrg", "bayer-bg8": "bggr"}
_PLAIN = {"mono8": "GRAY8", "mono16": "GRAY16_LE", "rgb8": "RGB", "yuv422": "UYVY"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:-]{0,99}")
_WHOLE = {
    "width": (16, 32768),
    "height": (16, 32768),
    "x": (0, 32767),
    "y": (0, 32767),
    "packet-size": (576, 16000),
}
_DECIMAL = {"exposure": (1.0, 60e6), "gain": (0.0, 100.0), "fps": (0.01, 10000.0)}
_OPTIONS = ("exposure", "gain", "pixel-format", "width", "height", "x", "y", "fps", "packet-size")


@dataclass(frozen=True)
class GenicamCamera:
    """A camera and how it is asked to deliver: `genicam://Basler-21234567?exposure=2000&gain=6&pixel-format=mono8`.

    Every value is checked, so nothing else can get into the pipeline. What is not given stays as the camera has it.

    Attributes:
        name: As `arv-tool-0.8` lists it, or its address; empty for the first that is found.
        exposure: Microseconds, or `auto`.
        gain: Decibels, or `auto`.
        pixel_format: One of mono8, mono16, rgb8, yuv422, bayer-rg8, bayer-gr8, bayer-gb8, bayer-bg8.
        width: Pixels of the part of the sensor that is read.
        height: Pixels.
        x: Its left edge.
        y: Its top edge.
        fps: Frames per second.
        packet_size: Bytes of a GigE Vision packet, 9000 with jumbo frames; None lets Aravis find out what passes.
    """

    name: str
    exposure: float | str | None = None
    gain: float | str | None = None
    pixel_format: str | None = None
    width: int | None = None
    height: int | None = None
    x: int | None = None
    y: int | None = None
    fps: float | None = None
    packet_size: int | None = None

    @classmethod
    def parse(cls, spec: str) -> GenicamCamera:
        """Reads `genicam://NAME?option=value&...`.

        Raises:
            SourceError: It is not of that form.
        """
        what, options = split_query(spec, GENICAM, _OPTIONS, "?exposure=2000&gain=6&pixel-format=mono8")
        name = unquote(what).strip("/")
        if name and not _NAME.fullmatch(name):
            raise SourceError(f"{spec}: not a camera's name; arv-tool-0.8 lists those that are there")
        values: dict[str, float | int | str] = {}
        for option, text in options.items():
            field = option.replace("-", "_")
            if option in _WHOLE:
                values[field] = whole(spec, option, text, *_WHOLE[option])
            elif option == "pixel-format":
                if text not in _PLAIN and text not in _BAYER:
                    raise SourceError(f"{spec}: pixel-format must be one of {', '.join([*_PLAIN, *_BAYER])}")
                values[field] = text
            elif text == AUTO and option != "fps":
                values[field] = AUTO
            else:
                values[field] = decimal(spec, option, text, *_DECIMAL[option])
        return cls(name, **values)  # type: ignore[arg-type]  # each was checked for its field above

    def pipeline(self) -> list[str]:
        """Arguments of `gst-launch-1.0` up to raw video in system memory.

        The queue holds the newest frame only, so that a late reader never ages those that follow.
        """
        source = ["aravissrc"]
        if self.name:
            source.append(f"camera-name={self.name}")
        for what, value in (("exposure", self.exposure), ("gain", self.gain)):
            if value == AUTO:
                source.append(f"{what}-auto=continuous")
            elif value is not None:
                source += [f"{what}-auto=off", f"{what}={value:.12g}"]
        for what, offset in (("offset-x", self.x), ("offset-y", self.y)):
            if offset is not None:
                source.append(f"{what}={offset}")
        source.append("auto-packet-size=true" if self.packet_size is None else f"packet-size={self.packet_size}")
        caps = [f"{side}={value}" for side, value in (("width", self.width), ("height", self.height)) if value]
        if self.fps is not None:
            caps.append(f"framerate={round(self.fps * 1000)}/1000")
        bayer = _BAYER.get(self.pixel_format or "")
        kind = "video/x-raw"
        if bayer is not None:
            kind, caps = "video/x-bayer", [f"format={bayer}", *caps]
        elif self.pixel_format is not None:
            caps = [f"format={_PLAIN[self.pixel_format]}", *caps]
        return [
            *(*source, "!", ",".join([kind, *caps]), "!"),
            *(() if bayer is None else ("bayer2rgb", "!")),
            *("queue", "leaky=downstream", "max-size-buffers=1", "max-size-bytes=0", "max-size-time=0"),
        ]
