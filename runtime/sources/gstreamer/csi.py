"""What `csi://N` stands for: a camera on a Jetson's CSI port, through NVIDIA's image processor."""

from __future__ import annotations

from dataclasses import dataclass, fields

from kanoclip.runtime.sources.gstreamer.query import split_query, whole

CSI = "csi://"
_RANGES = {
    "sensor": (0, 63),
    "width": (16, 16384),
    "height": (16, 16384),
    "fps": (1, 1000),
    "flip": (0, 7),
    "mode": (0, 63),
}


@dataclass(frozen=True)
class CsiCamera:
    """A sensor and how it is asked to deliver: `csi://0?width=1280&height=720&fps=60&flip=2`.

    Every value is a whole number in a fixed range, so nothing else can get into the pipeline.

    Attributes:
        sensor: Its number, in the order of the device tree.
        width: Pixels; the image processor scales.
        height: Pixels.
        fps: Frames per second.
        flip: `flip-method` of nvvidconv: 0 as it is, 2 turned by half, and so on.
        mode: The sensor's own mode; None lets the driver choose.
    """

    sensor: int
    width: int = 1920
    height: int = 1080
    fps: int = 30
    flip: int = 0
    mode: int | None = None

    @classmethod
    def parse(cls, spec: str) -> CsiCamera:
        """Reads `csi://N?name=value&...`.

        Raises:
            SourceError: It is not of that form.
        """
        known = [field.name for field in fields(cls) if field.name != "sensor"]
        sensor, options = split_query(spec, CSI, known, "?width=1280&height=720&fps=30")
        given = {"sensor": sensor, **options}
        return cls(**{name: whole(spec, name, text, *_RANGES[name]) for name, text in given.items()})

    def pipeline(self) -> list[str]:
        """Arguments of `gst-launch-1.0` up to BGRx in system memory.

        The image leaves NVIDIA's memory as BGRx, since nvvidconv does not write BGR. The queue holds the newest
        frame only, so that a late reader never ages those that follow.
        """
        mode = [] if self.mode is None else [f"sensor-mode={self.mode}"]
        size = f"width={self.width},height={self.height},framerate={self.fps}/1"
        return [
            *("nvarguscamerasrc", f"sensor-id={self.sensor}", *mode, "!"),
            *(f"video/x-raw(memory:NVMM),{size}", "!"),
            *("nvvidconv", f"flip-method={self.flip}", "!", "video/x-raw,format=BGRx", "!"),
            *("queue", "leaky=downstream", "max-size-buffers=1", "max-size-bytes=0", "max-size-time=0"),
        ]
