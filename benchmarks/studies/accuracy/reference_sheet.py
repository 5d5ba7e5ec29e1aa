"""What a few references change, as an image: some frames of one part, zero-shot, then with 1 and with 4 references.

    python -m kanoclip.benchmarks.studies.accuracy.reference_sheet --root DATA --category hazelnut_toy --output s.jpg

Each memory has its own threshold, as kanoclip-learn sets it; a frame that reaches it has a red number, and its regions
are outlined. References are never among the frames that are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import cv2
import numpy as np

from kanoclip.runtime.bundle.bundle import shipped_bundle
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.detect.learning.seen import takes_memory
from kanoclip.runtime.detect.reference.fit import fit
from kanoclip.runtime.ops.learn.promise import promise, thresholds_of
from kanoclip.runtime.sinks.draw.heat_map import paint_heat_map
from kanoclip.runtime.system.paths import replace_file
from kanoclip.runtime.types import Detection, Image
from kanoclip.train.data.images import read_image
from kanoclip.train.data.registry import open_dataset
from kanoclip.train.data.types import Category, Sample
from kanoclip.train.evaluation.few_shot.references import observed

_SIDE, _LINE, _GAP = 200, 22, 4
RATE = 0.05
_INK, _HIT = (40, 40, 40), (40, 40, 220)


def chosen(category: Category, references: Sequence[Sample], each: int) -> list[Sample]:
    """Good and anomalous images that are no references, spread evenly over the folders."""
    taken = {sample.image for sample in references}
    left = [sample for sample in category.samples if sample.image not in taken]
    shown = []
    for anomalous in (False, True):
        group = [sample for sample in left if sample.anomalous is anomalous]
        shown += [group[number * len(group) // each] for number in range(min(each, len(group)))]
    return shown


def cell(image: Image, found: Detection | None) -> Image:
    """An image, with map, regions and score where there is a detection: uint8 [_SIDE + _LINE, _SIDE, 3]."""
    canvas = np.full((_SIDE + _LINE, _SIDE, 3), 250, np.uint8)
    area = image.copy()
    if found is not None:
        paint_heat_map(area, found.map, found.pixel_threshold)
        if found.is_anomalous:
            for region in found.regions:
                corner = region.x + region.width, region.y + region.height
                cv2.rectangle(area, (region.x, region.y), corner, _HIT, max(image.shape[1] // 150, 1))
        text = f"{found.score:.3f} / {found.threshold:.3f}"
        colour = _HIT if found.is_anomalous else _INK
        cv2.putText(canvas, text, (4, _SIDE + 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)
    canvas[:_SIDE] = cv2.resize(area, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return canvas


def sheet(titles: Sequence[str], columns: Sequence[Sequence[Image]]) -> Image:
    """Columns of cells below their titles, uint8 [H, W, 3]."""
    drawn = []
    for title, cells in zip(titles, columns, strict=True):
        head = np.full((_LINE, _SIDE, 3), 250, np.uint8)
        cv2.putText(head, title, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, _INK, 1, cv2.LINE_AA)
        column = np.vstack([head, *cells])
        drawn.append(np.pad(column, ((_GAP, _GAP), (_GAP, 0), (0, 0)), constant_values=250))
    return np.asarray(np.hstack(drawn), np.uint8)


@click.command()
@click.option("--root", type=click.Path(exists=True, path_type=Path), required=True, help="MVTec tree.")
@click.option("--category", required=True, help="Of which part.")
@click.option("--each", type=click.IntRange(min=1), default=2, show_default=True, help="Images of each kind.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Image to write (.jpg, .png).")
def main(root: Path, category: str, each: int, output: Path) -> None:
    """Draw what one and four references change."""
    (part,) = open_dataset("mvtec", root, categories=(category,)).categories
    good = [sample for sample in part.samples if not sample.anomalous][:4]
    images = [read_image(sample.image) for sample in chosen(part, good, each)]
    with Detector.load(shipped_bundle(), backend="onnxruntime", device="cpu") as detector:
        manifest, name = detector.bundle.manifest, detector.bundle.manifest.classes[0]
        columns = [[cell(image, None) for image in images], [cell(image, detector(image)) for image in images]]
        digest, rows = takes_memory(manifest)
        for count in (1, 4):
            references, _ = observed(detector, name, good[:count], None)
            memory = fit(references, descriptor_sha256=digest, rows=rows)
            set_by = promise(memory, RATE, None)
            limits = thresholds_of(set_by, manifest.thresholds, None, detector.backend.name, memory.created)
            detector.rules.use_memory(name, memory, limits)
            columns.append([cell(image, detector(image)) for image in images])
    titles = ("image", "zero-shot", "1 reference", "4 references")
    _, content = cv2.imencode(output.suffix, sheet(titles, columns), [cv2.IMWRITE_JPEG_QUALITY, 88])
    replace_file(output, content.tobytes())


if __name__ == "__main__":
    main()
