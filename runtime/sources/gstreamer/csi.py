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
    "whole": (0, 1),
}
_TURNED = (1, 3, 5, 7)
"""Values of `flip` that swap width and height."""
_BILINEAR = 1
"""`interpolation-method` of nvvidconv: of an image that is halved it is the mean of 2 x 2 pixels, as the runtime's own
resize takes it. Its default, 0, takes the nearest pixel, and fine texture would alias."""


@dataclass(frozen=True)
class CsiCamera:
    """A sensor and how it is asked to deliver: `csi://0?width=1280&height=720&fps=60&flip=2`.

    Every value is a whole number in a fixed range, so nothing else can get into the pipeline.

    Attributes:
        sensor: Its number, in the order of the device tree.
        width: Pixels, of the whole frame.
        height: Pixels.
        fps: Frames per second.
        flip: `flip-method` of nvvidconv: 0 as it is, 2 turned by half, and so on.
        mode: The sensor's own mode; None lets the driver choose.
        whole: 1 for whole frames even where nobody looks at them.
    """

    sensor: int
    width: int = 1920
    height: int = 1080
    fps: int = 30
    flip: int = 0
    mode: int | None = None
    whole: int = 0

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

    @property
    def full_size(self) -> tuple[int, int]:
        """(height, width) of the whole frame, turned as `flip` says."""
        return (self.width, self.height) if self.flip in _TURNED else (self.height, self.width)

    def halvings(self, model: tuple[int, int] | None) -> int:
        """How often a frame is halved before it leaves the image processor, which the runtime's resize would do itself.

        It stays at twice the model's size at least: the processor has colour at half of the image's resolution.

        Args:
            model: (height, width) that the frame is resized to next; None where somebody looks at whole frames.

        Examples:
            >>> CsiCamera(sensor=0).halvings((256, 256))
            1
        """
        if model is None or self.whole:
            return 0
        count, (height, width) = 0, self.full_size
        while not (height % 2 or width % 2) and height >= 4 * model[0] and width >= 4 * model[1]:
            count, height, width = count + 1, height // 2, width // 2
        return count

    def pipeline(self, model: tuple[int, int] | None = None) -> list[str]:
        """Arguments of `gst-launch-1.0` up to BGRx in system memory.

        The image leaves NVIDIA's memory as BGRx, since nvvidconv does not write BGR. A frame is halved there, step by
        step, and not in the source, which would choose another mode of the sensor, perhaps with another field of view.
        The queue holds the newest frame only, so that a late reader never ages those that follow.

        Args:
            model: As `halvings` takes it.
        """
        mode = [] if self.mode is None else [f"sensor-mode={self.mode}"]
        halvings, (height, width) = self.halvings(model), self.full_size
        given = f",width={width >> halvings},height={height >> halvings}" if halvings else ""
        method = [f"interpolation-method={_BILINEAR}"] if halvings else []
        before: list[str] = []
        for step in range(1, halvings):
            size = f"width={self.width >> step},height={self.height >> step}"
            before += ["nvvidconv", *method, "!", f"video/x-raw(memory:NVMM),{size}", "!"]
        size = f"width={self.width},height={self.height},framerate={self.fps}/1"
        return [
            *("nvarguscamerasrc", f"sensor-id={self.sensor}", *mode, "!"),
            *(f"video/x-raw(memory:NVMM),{size}", "!", *before),
            *("nvvidconv", f"flip-method={self.flip}", *method, "!", f"video/x-raw,format=BGRx{given}", "!"),
            *("queue", "leaky=downstream", "max-size-buffers=1", "max-size-bytes=0", "max-size-time=0"),
        ]
