"""An own output: counts anomalies beside whatever else happens to them. `python examples/own_sink.py parts/`."""

import sys

from kanoclip.runtime import Detection, Detector, Frame, Stream
from kanoclip.runtime.sinks import BaseSink
from kanoclip.runtime.types import BadFrame


class Counter(BaseSink):
    """Counts; a relay, a database or a light is written the same way. It is called from one thread of its own."""

    name = "counter"
    shows = False  # True for one that needs the full image

    def __init__(self) -> None:
        self.anomalous = self.normal = self.bad = 0

    def write(self, frame: Frame, detection: Detection) -> None:
        """Takes one result."""
        self.anomalous += detection.is_anomalous
        self.normal += not detection.is_anomalous

    def skip(self, bad: BadFrame) -> None:
        """Learns of an image that could not be read."""
        self.bad += 1

    def close(self) -> None:
        """Comes after the last result, whatever happened."""
        print(f"{self.anomalous} anomalous, {self.normal} normal, {self.bad} not readable")


with Detector.load() as detector, Stream(sys.argv[1], detector, [Counter()]) as stream:
    for _ in stream:
        pass
