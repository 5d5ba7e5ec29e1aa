"""Thresholds for a bundle that nobody has calibrated yet: few false alarms on good images of several kinds.

python -m kanoclip.train.nano.thresholds --bundle nano.kanoclip --generated other-classes --photos DIR --defects DIR \
    --report thresholds.json

A part that the model has never seen may look like any of them, so each kind counts alike, however many images it has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.bundle.manifest.schema import MANIFEST_NAME
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.errors import CalibrationError, KanoclipError
from kanoclip.runtime.sources.files.images import read_image
from kanoclip.runtime.system.paths import replace_file
from kanoclip.train.data.registry import open_dataset
from kanoclip.train.nano.scenes.photos import Photos

FALSE_ALARMS = 0.2
"""Share of good images, mean over the kinds, that may be called anomalous. They are hard: whole photographs, and
close-ups of concrete and circuit boards. On six sets of real parts less than half of it comes true (docs/nano.md)."""
_LEAST = 19
"""Good images of a kind, so that its bound can be as low as `FALSE_ALARMS`."""
_BATCH = 8


@dataclass(frozen=True)
class Scored:
    """What a bundle says of the images of one kind.

    Attributes:
        scores: Of each image, in [0, 1].
        peaks: Largest value of each image's map, in [0, 1].
    """

    scores: npt.NDArray[np.float64]
    peaks: npt.NDArray[np.float64]


def joint_threshold(kinds: Sequence[npt.NDArray[np.float64]], rate: float) -> float:
    """The smallest threshold whose false-alarm bound, mean over the kinds, is at most a rate.

    For one kind it is the conformal one: of n values m may lie above it with (m + 1) / (n + 1) <= rate.

    Args:
        kinds: Values of good images, each kind's [n].
        rate: Between 0 and 1.

    Returns:
        The least float32 above a value, since maps are compared in float32.

    Raises:
        CalibrationError: A kind has too few images, or even the largest value is too low a threshold.
    """
    for values in kinds:
        if len(values) < _LEAST:
            raise CalibrationError(f"{len(values)} good images of a kind are too few: give at least {_LEAST}")
    for value in np.unique(np.concatenate(kinds)):
        above = np.float32(value)
        above = above if float(above) > value else np.nextafter(above, np.float32(2))
        # Exactly: three times 0.05 is more than 0.15 in floating point.
        bound = sum(Fraction(int((values >= above).sum()) + 1, len(values) + 1) for values in kinds)
        if bound <= len(kinds) * Fraction(str(rate)) and above <= 1:
            return float(above)
    raise CalibrationError(f"no threshold keeps false alarms at {rate:g}: give more good images")


def set_thresholds(bundle: Path, good: Mapping[str, Sequence[Path]], bad: Sequence[Path]) -> dict[str, object]:
    """Scores good images of several kinds and writes the bundle's manifest anew.

    Args:
        bundle: Images are scored with its first class.
        good: Paths of the good images, by kind.
        bad: Anomalous images, for the report alone.

    Returns:
        The thresholds, each kind's share of false alarms, and the share of anomalous images found.

    Raises:
        KanoclipError: The bundle is no good, an image cannot be read, or there are too few.
    """
    for kind, paths in good.items():
        if len(paths) < _LEAST:
            raise CalibrationError(f"{kind}: {len(paths)} good images are too few: give at least {_LEAST}")
    with Detector.load(bundle, backend="onnxruntime", device="cpu") as detector:
        scored = {kind: _score(detector, paths) for kind, paths in good.items()}
        found = _score(detector, bad)
    image = joint_threshold([one.scores for one in scored.values()], FALSE_ALARMS)
    pixel = joint_threshold([one.peaks for one in scored.values()], FALSE_ALARMS)
    origin = (
        f"false-alarm rate {FALSE_ALARMS:g}, mean over "
        f"{', '.join(f'{len(one.scores)} good images ({kind})' for kind, one in scored.items())}; not your part's"
    )
    manifest = replace(Bundle.open(bundle).manifest, thresholds=Thresholds(image, pixel, 0, origin))
    replace_file(bundle / MANIFEST_NAME, manifest.to_json().encode())
    return {
        "image": image,
        "pixel": pixel,
        "false_alarms": {kind: float((one.scores >= image).mean()) for kind, one in scored.items()},
        "found": float((found.scores >= image).mean()) if len(bad) else None,
    }


def _score(detector: Detector, paths: Sequence[Path]) -> Scored:
    scores: list[float] = []
    peaks: list[float] = []
    for start in range(0, len(paths), _BATCH):
        images = []
        for path in paths[start : start + _BATCH]:
            image = read_image(path)
            if isinstance(image, str):
                raise CalibrationError(f"cannot read {path} ({image}): leave it out, or copy it again")
            images.append(image)
        for found in detector.batch(images):
            scores.append(found.score)
            peaks.append(float(found.map.max()))
    return Scored(np.array(scores), np.array(peaks))


def good_and_bad(root: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """Good images of an MVTec tree by category, and its anomalous ones; categories with too few good ones left out."""
    good: dict[str, list[Path]] = {}
    bad: list[Path] = []
    for category in open_dataset("mvtec", root).categories:
        normal = [sample.image for sample in category.samples if not sample.anomalous]
        if len(normal) >= _LEAST:
            good[category.name] = normal
        bad += [sample.image for sample in category.samples if sample.anomalous]
    return good, bad


@click.command()
@click.option("--bundle", type=click.Path(exists=True, path_type=Path), required=True, help="Its manifest is changed.")
@click.option("--generated", type=click.Path(path_type=Path), required=True, help="Generated images of other classes.")
@click.option("--photos", type=click.Path(path_type=Path), help="Folder of photographs; the held-out part is used.")
@click.option("--defects", type=click.Path(path_type=Path), help="MVTec tree of real images; its good ones are used.")
@click.option("--report", type=click.Path(path_type=Path), required=True, help="JSON file for what was found.")
def main(bundle: Path, generated: Path, photos: Path | None, defects: Path | None, report: Path) -> None:
    """Set a bundle's thresholds by good images of several kinds."""
    try:
        drawn, bad = good_and_bad(generated)
        good: dict[str, Sequence[Path]] = {"generated": [path for paths in drawn.values() for path in paths]}
        if photos is not None:
            good["photographs"] = Photos.from_folder(photos, held_out=True).paths
        if defects is not None:
            good |= good_and_bad(defects)[0]
        found = set_thresholds(bundle, good, bad)
    except KanoclipError as error:
        raise click.ClickException(str(error)) from error
    replace_file(report, (json.dumps(found, indent=2) + "\n").encode())
    click.echo(json.dumps(found))


if __name__ == "__main__":
    main()
