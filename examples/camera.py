"""A camera, for so many frames: `python examples/camera.py 0 100`; a test pattern: `... 'test://?defect=0.5' 100`."""

import sys

from kanoclip.runtime import Detector, Stream

source, frames = sys.argv[1], int(sys.argv[2])
with (
    Detector.load() as detector,
    Stream(int(source) if source.isdecimal() else source, detector, max_frames=frames) as stream,
):
    for frame, found in stream:
        print(f"frame {frame.index}: {'ANOMALY' if found.is_anomalous else 'ok'} {found.score:.3f}")
print(f"{stream.summary.frames} frames, {stream.summary.fps:.1f} fps, {stream.summary.dropped} dropped")
