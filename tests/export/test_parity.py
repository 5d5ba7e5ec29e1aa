from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from kanoclip.export.parity import ParityReport, measure_parity
from kanoclip.export.samples import load_samples
from kanoclip.runtime.bundle.tolerances import BOUNDS
from kanoclip.train.model.kanoclip import to_pixels

CLASSES = ("hazelnut", "bolt")


class TorchBackend:
    """Runs the model itself, with a fault of the test's choosing."""

    name = "torch"

    def __init__(self, model, fault=lambda maps, scores: (maps, scores), turned=lambda descriptors: descriptors):
        self.model, self.fault, self.turned, self.indices = model, fault, turned, []

    def run(self, frames, class_index, memory=None):
        self.indices += [] if class_index is None else class_index.tolist()
        index = [0] * len(frames) if class_index is None else class_index
        with torch.no_grad():
            text = self.model.text_features(CLASSES if class_index is not None else CLASSES[:1])
            output = self.model(to_pixels(torch.from_numpy(frames)), text[index])
        return self.fault(output.map.numpy().copy(), output.score.numpy().copy())

    def describe(self, frames):
        with torch.no_grad():
            return self.turned(self.model.tower.describe(to_pixels(torch.from_numpy(frames))).numpy().copy())

    def close(self):
        pass


@pytest.fixture
def samples(examples):
    return load_samples(examples, (48, 48), 6)


def measure(model, samples, fault=None, classes=CLASSES[:1], batch=1, **faults):
    backend = TorchBackend(model, fault, **faults) if fault else TorchBackend(model, **faults)
    report = measure_parity(model, classes, backend, samples, "fp16", "test", batch, lambda done, total: None)
    return report, backend


def test_equal_results_pass_and_say_so(tiny, samples):
    report, _ = measure(tiny.model, samples)
    assert report.map_drift < 1e-6 and report.score_drift < 1e-6 and report.failures() == []
    assert abs(report.descriptor_drift) < 1e-6
    assert report.auroc_torch == report.auroc_graph is not None
    assert report.pictures == 6


def test_one_wrong_pixel_fails(tiny, samples):
    def fault(maps, scores):
        maps[0, 3, 5] += 0.03
        return maps, scores

    report, _ = measure(tiny.model, samples, fault)
    assert report.map_drift == pytest.approx(0.03, abs=1e-4)
    assert [f.split()[0] for f in report.failures()] == ["map"]


def test_shifted_score_fails(tiny, samples):
    report, _ = measure(tiny.model, samples, lambda maps, scores: (maps, scores - 0.02))
    assert [f.split()[0] for f in report.failures()] == ["score"]


@pytest.mark.parametrize("value", [0.9, math.nan])
def test_one_wrong_descriptor_fails(tiny, samples, value):
    def turned(descriptors):
        descriptors[0, 3] *= value  # its cosine with the right one
        return descriptors

    report, _ = measure(tiny.model, samples, turned=turned)
    assert report.descriptor_drift == pytest.approx(1 - value, abs=1e-5, nan_ok=True)
    assert [f.split()[0] for f in report.failures()] == ["descriptor"]


def test_nan_never_passes(tiny, samples):
    calls = []

    def fault(maps, scores):
        calls.append(1)
        if len(calls) == 2:  # neither the first nor the last: max() of a list would lose it
            maps[:] = math.nan
            scores[:] = math.nan
        return maps, scores

    report, _ = measure(tiny.model, samples, fault)
    assert len(report.failures()) >= 2


def test_auroc_drift_fails_where_scores_barely_move(tiny, samples):
    bounds = replace(BOUNDS["fp16"], score=2.0, map=2.0)
    report, _ = measure(tiny.model, samples, lambda maps, scores: (maps, -scores))
    report = replace(report, bounds=bounds)
    assert report.auroc_graph == pytest.approx(1 - report.auroc_torch)
    assert report.failures() == [] or report.failures()[0].startswith("AUROC")
    assert replace(report, auroc_torch=0.9, auroc_graph=0.89).failures()


def test_every_class_is_used_even_with_one_image(tiny, samples):
    report, backend = measure(tiny.model, samples[:1], classes=CLASSES)
    assert backend.indices == [0, 1]
    assert report.pictures == 1 and report.auroc_torch is None


def test_last_batch_is_filled_up(tiny, samples):
    report, _ = measure(tiny.model, samples[:3], batch=2)
    assert report.failures() == [] and report.pictures == 3


def test_report_goes_into_json(tiny, samples):
    report = measure(tiny.model, samples)[0].as_json()
    assert report["bounds"] == {"map": 2e-2, "score": 1e-2, "auroc": 0.005, "descriptor": 5e-3}
    assert set(report) == set(ParityReport.__annotations__)
