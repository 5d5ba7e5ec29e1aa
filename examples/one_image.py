"""One image: `python examples/one_image.py part.jpg`."""

import sys

import cv2

from kanoclip.runtime import Detector

with Detector.load() as detector:  # the *.kanoclip in this folder, or the shipped one
    found = detector(cv2.imread(sys.argv[1]))
print("anomalous" if found.is_anomalous else "normal", f"{found.score:.3f}")
for region in found.regions:
    print(f"  {region.width}x{region.height} at ({region.x}, {region.y}), score {region.score:.3f}")
