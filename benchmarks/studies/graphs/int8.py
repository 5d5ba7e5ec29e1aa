"""What int8 costs and brings on this processor: each quantised form against float32, in every CPU backend, in turns.

    python -m kanoclip.benchmarks.studies.graphs.int8 --root DATA --output int8-shipped.json
    python -m kanoclip.benchmarks.studies.graphs.int8 --calibration GOOD --root DATA --output int8-nano.json
    python -m kanoclip.benchmarks.studies.graphs.int8 --calibration GOOD --root DATA --backbone vit-l-14-336 --limit 2

Without `--calibration` the bundles that ship are scored. With it, forms are exported by the installed command, parity
gate included, and `--nncf` (pip install nncf) adds what NNCF's post-training quantisation makes of the same float32
graph and images: as its documentation has it, heads left alone, and held to what our own forms leave alone as well.
Drift is from float32 in ONNX Runtime, on every image of DATA.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from kanoclip.benchmarks.bench.journal import Journal
from kanoclip.benchmarks.bench.turns import percentiles, take_turns
from kanoclip.benchmarks.studies.graphs.quantised_forms import FORMS, NNCF_FORMS, PLAIN, export, with_nncf
from kanoclip.benchmarks.studies.results import write_result
from kanoclip.export.samples import load_samples
from kanoclip.runtime.bundle.bundle import Bundle, shipped_bundle
from kanoclip.runtime.bundle.manifest.schema import MODEL_FILE
from kanoclip.runtime.engines import create_backend
from kanoclip.runtime.engines.autoselect import cpu_engines
from kanoclip.runtime.errors import KanoclipError
from kanoclip.runtime.system.hardware import instruction_sets
from kanoclip.runtime.types import FloatMap
from kanoclip.train.backbones import get_backbone
from kanoclip.train.checkpoint import LoadedModel, build_model, load_checkpoint
from kanoclip.train.data.registry import open_dataset
from kanoclip.train.data.types import Dataset
from kanoclip.train.evaluation.evaluate import Case, EvaluationConfig, evaluate
from kanoclip.train.evaluation.predictor import BundlePredictor
from kanoclip.train.model.kanoclip import ModelConfig
from kanoclip.train.weights import CHECKPOINT, packaged

CALIBRATED_ON = 64
LOOKED_FOR = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm")
"""What decides whether int8 and bfloat16 are faster: as Linux calls it on x86 and ARM."""
METRICS = ("image_auroc", "pixel_auroc")


@dataclass(frozen=True)
class Answers:
    """The results of one form in one backend.

    Attributes:
        maps: float32 [h, w] of each image.
        scores: Of each image.
        metrics: Of the mean over categories; None where undefined.
    """

    maps: list[FloatMap]
    scores: list[float]
    metrics: dict[str, float | None]


def infer(bundle: Path, backend: str, dataset: Dataset, threads: int | None) -> Answers:
    """Runs every image, through the runtime."""
    maps: list[FloatMap] = []
    scores: list[float] = []

    def keep(case: Case) -> None:
        maps.append(case.map.copy())
        scores.append(case.score)

    predictor = BundlePredictor(bundle, backend, "cpu", threads)
    try:
        found = evaluate(dataset, predictor, EvaluationConfig(class_name="object"), observe=keep).as_json()["mean"]
    finally:
        predictor.close()
    return Answers(maps, scores, {name: found[name] for name in METRICS})


def drift(found: Answers, wanted: Answers) -> dict[str, Any]:
    """How far answers are from others on the same images.

    Returns:
        Largest and mean difference of maps and scores, and what the metrics gained, in points.
    """
    maps = [np.abs(one - other) for one, other in zip(found.maps, wanted.maps, strict=True)]
    scores = np.abs(np.subtract(found.scores, wanted.scores))
    gained = {
        f"{name}_points": None if (now := found.metrics[name]) is None or (was := wanted.metrics[name]) is None
        else (now - was) * 100
        for name in METRICS
    }  # fmt: skip
    return {
        "map_max": float(np.max([one.max() for one in maps])),
        "map_mean": float(np.mean([one.mean() for one in maps])),
        "score_max": float(scores.max()),
        "score_mean": float(scores.mean()),
        **gained,
    }


def time_all(bundles: dict[str, Path], backends: Sequence[str], rounds: int, threads: int | None) -> dict[str, Any]:
    """Milliseconds of a run of every form in every backend, in turns, and ratios to float32 in the same backend."""
    opened = {
        (form, name): create_backend(Bundle.open(path), name, "cpu", threads)
        for form, path in bundles.items()
        for name in backends
    }
    frame = Bundle.open(bundles[PLAIN]).samples()[0][None]
    try:
        work: dict[str, Callable[[], object]] = {
            f"{form} in {name}": lambda backend=backend: backend.run(frame, None)  # type: ignore[misc]
            for (form, name), backend in opened.items()
        }
        spent = take_turns(work, rounds, 2, Journal(None, {}), "int8", lambda _: None)
    finally:
        for backend in opened.values():
            backend.close()
    found: dict[str, Any] = {}
    for form, name in opened:
        mine, plain = spent[f"{form} in {name}"], spent[f"{PLAIN} in {name}"]
        found[f"{form} in {name}"] = {
            **percentiles(mine),
            "ratio_to_fp32": float(np.median(np.divide(mine, plain))),
            "ratio_to_fp32_in_onnxruntime": float(np.median(np.divide(mine, spent[f"{PLAIN} in onnxruntime"]))),
        }
    return found


def some(dataset: Dataset, limit: int | None) -> Dataset:
    """At most so many images of each category, spread evenly."""
    if limit is None:
        return dataset

    def spread(samples: Sequence[Any]) -> tuple[Any, ...]:
        count = min(limit, len(samples))
        return tuple(samples[number * len(samples) // count] for number in range(count))

    return replace(dataset, categories=tuple(replace(one, samples=spread(one.samples)) for one in dataset.categories))


_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.option("--calibration", type=_FOLDER, help="Good images to export with. Default: score what ships.")
@click.option("--root", type=_FOLDER, required=True, help="MVTec tree to score on.")
@click.option("--backbone", default="nano", show_default=True, help="Others have seeded weights.")
@click.option("--limit", type=click.IntRange(min=1), help="Most images of a category. Default: all.")
@click.option("--rounds", type=click.IntRange(min=1), default=30, show_default=True, help="Timed runs of each.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. Default: all cores.")
@click.option("--nncf", "also_nncf", is_flag=True, help="NNCF's forms too.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the figures.")
def main(
    calibration: Path | None,
    root: Path,
    backbone: str,
    limit: int | None,
    rounds: int,
    threads: int | None,
    also_nncf: bool,
    output: Path | None,
) -> None:
    """Measure all of them."""
    if calibration is None and (also_nncf or backbone != "nano"):
        raise click.UsageError("--backbone and --nncf need --calibration: what ships is nano, without NNCF")
    try:
        dataset = some(open_dataset("mvtec", root), limit)
        result = measure(calibration, dataset, backbone, rounds, threads, also_nncf)
    except ModuleNotFoundError as error:
        if error.name != "nncf":
            raise
        raise click.ClickException("NNCF is not installed: pip install nncf, or leave --nncf out") from error
    except KanoclipError as error:
        raise click.ClickException(str(error)) from error
    if output is not None:
        write_result(output, result)


def measure(
    calibration: Path | None, dataset: Dataset, backbone: str, rounds: int, threads: int | None, also_nncf: bool
) -> dict[str, Any]:
    """All figures; each is printed when it is there."""
    if also_nncf:
        import nncf  # noqa: F401  (before the exports, which take a while)
    backends = cpu_engines()
    sets = [name for name in LOOKED_FOR if name in instruction_sets()]
    click.echo(f"instruction sets: {', '.join(sets) or 'none that matter'}", err=True)
    with tempfile.TemporaryDirectory() as scratch:
        bundles: dict[str, Path] = {}
        forms: dict[str, Any] = {}
        if calibration is None:
            bundles = {PLAIN: shipped_bundle(), "int8-cpu": shipped_bundle().with_name("nano-int8.kanoclip")}
            forms = {form: {} for form in bundles}
        else:
            for form in FORMS:
                bundles[form], forms[form] = export(form, backbone, calibration, Path(scratch))
            if also_nncf:
                loaded = _load(backbone)
                samples = load_samples(calibration, loaded.model.config.image_size, CALIBRATED_ON, "--calibration")
                for form in NNCF_FORMS:
                    bundles[form] = with_nncf(form, loaded, [sample.frame for sample in samples], bundles[PLAIN])
                    forms[form] = {}
                del loaded
        wanted = infer(bundles[PLAIN], "onnxruntime", dataset, threads)
        for form, bundle in bundles.items():
            forms[form]["model_mb"] = sum(path.stat().st_size for path in bundle.glob(MODEL_FILE + "*")) / 1e6
            for name in backends:
                found = drift(infer(bundle, name, dataset, threads), wanted)
                forms[form][name] = found
                click.echo(f"{form} in {name}: {json.dumps(found)}")
        times = time_all(bundles, backends, rounds, threads)
        for name, found in times.items():
            click.echo(f"{name}: {json.dumps(found)}")
    return {
        "instruction_sets": sets,
        "backbone": backbone,
        "pictures": len(wanted.scores),
        "fp32_metrics": wanted.metrics,
        "forms": forms,
        "times": times,
    }


def _load(backbone: str) -> LoadedModel:
    if backbone == "nano":
        return load_checkpoint(packaged(CHECKPOINT), "auto")
    return build_model(ModelConfig(backbone, get_backbone(backbone).native_size), "none")


if __name__ == "__main__":
    main()
