"""A folder of images, with annotated copies and a record each: `python examples/folder.py parts/ out/`."""

import sys
from pathlib import Path

from kanoclip.runtime import Detector, Stream
from kanoclip.runtime.sinks import ImageFolderSink, JsonLinesSink

source, out = Path(sys.argv[1]), Path(sys.argv[2])
with Detector.load() as detector:
    sinks = [ImageFolderSink(out, source, untrained=False), JsonLinesSink(str(out / "frames.jsonl"))]
    with Stream(source, detector, sinks) as stream:
        for frame, found in stream:
            print(f"{frame.source}: {'anomalous' if found.is_anomalous else 'normal'} {found.score:.3f}")
print(f"{stream.summary.anomalous} of {stream.summary.frames} images are anomalous")
