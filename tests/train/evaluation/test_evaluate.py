import dataclasses
import math

import numpy as np
import pytest
import sklearn.metrics

from kanoclip.runtime.errors import DataError, KanoclipError
from kanoclip.train.data.types import Dataset
from kanoclip.train.evaluation.evaluate import EvaluationConfig, evaluate
from kanoclip.train.evaluation.results import METRICS

PIXEL = METRICS[3:]


def flat(value):
    return np.full((16, 16), value)


def spot(value, base=10, rows=slice(2, 6)):
    image = flat(base)
    image[rows, 3:9] = value
    return image


def square(rows=slice(2, 6)):
    mask = np.zeros((16, 16), bool)
    mask[rows, 3:9] = True
    return mask


def test_metrics_are_those_of_all_images_and_pixels(draw, known):
    rng = np.random.default_rng(0)
    blues = [rng.integers(0, 200, (16, 16)) for _ in range(6)]
    masks = [None, None, rng.random((16, 16)) < 0.1, rng.random((16, 16)) < 0.2, None, rng.random((16, 16)) < 0.1]
    for blue, mask in zip(blues, masks, strict=True):
        if mask is not None:
            blue[mask] += 40
    rows = [(mask is not None, blue, mask) for blue, mask in zip(blues, masks, strict=True)]
    results = evaluate(draw(rows), known, EvaluationConfig(batch_size=4))
    found = results.categories["part"].metrics
    labels, scores = [row[0] for row in rows], [blue.max() / 255 for blue in blues]
    truth = np.concatenate([(np.zeros((16, 16), bool) if m is None else m).ravel() for m in masks])
    values = np.concatenate([blue.ravel() for blue in blues])
    assert found["image_auroc"] == pytest.approx(sklearn.metrics.roc_auc_score(labels, scores))
    assert found["image_ap"] == pytest.approx(sklearn.metrics.average_precision_score(labels, scores))
    assert found["pixel_auroc"] == pytest.approx(sklearn.metrics.roc_auc_score(truth, values))
    assert found["pixel_ap"] == pytest.approx(sklearn.metrics.average_precision_score(truth, values))
    assert [count for count, _ in known.asked] == [4, 2]


def test_perfect_answers_are_ones(draw, known):
    results = evaluate(draw([(False, flat(10), None), (True, spot(200), square())]), known, EvaluationConfig())
    assert results.mean == {name: 1.0 for name in METRICS}


def test_without_masks_there_is_no_pixel_metric(draw, known):
    dataset = draw([(False, flat(10), None), (True, spot(200), None)], pixel_labels=False)
    results = evaluate(dataset, known, EvaluationConfig())
    assert results.mean["image_auroc"] == 1
    assert all(math.isnan(results.mean[name]) for name in PIXEL)
    assert results.as_json()["mean"]["aupro"] is None
    assert results.categories["part"].unmasked == 0, "nothing is missing from a dataset that has none"


@pytest.mark.parametrize("anomalous", [True, False])
def test_one_kind_alone_defines_no_image_metric(draw, known, anomalous):
    mask = square() if anomalous else None
    results = evaluate(draw([(anomalous, spot(9 + i), mask) for i in range(2)]), known, EvaluationConfig())
    assert math.isnan(results.mean["image_auroc"])
    assert math.isnan(results.mean["pixel_auroc"]) == (not anomalous)


def test_a_missing_mask_is_no_empty_mask(draw, known):
    rows = [(False, flat(10), None), (True, spot(200), square()), (True, spot(250), None)]
    row = evaluate(draw(rows), known, EvaluationConfig()).categories["part"]
    assert row.unmasked == 1
    assert row.metrics["pixel_auroc"] == 1, "its bright pixels are not counted as normal ones"
    assert (row.normal, row.anomalous) == (1, 2)


def test_mean_is_unweighted_over_what_is_defined(draw, known):
    good = draw([(False, flat(10), None), (True, spot(200), square())], "good")
    bad = draw([(False, flat(99), None), (True, spot(50), square()), (False, flat(98), None)], "bad")
    single = draw([(False, flat(10), None)], "single")
    parts = (*good.categories, *bad.categories, *single.categories)
    results = evaluate(dataclasses.replace(good, categories=parts), known, EvaluationConfig())
    assert results.mean["image_auroc"] == pytest.approx((1 + 0) / 2)
    assert list(results.categories) == ["good", "bad", "single"]


def test_a_broken_image_ends_it_or_is_counted(draw, known):
    dataset = draw([(False, flat(10), None), (True, None, None), (True, spot(200), square())])
    with pytest.raises(DataError, match=r"001\.png.*--skip-bad"):
        evaluate(dataset, known, EvaluationConfig())
    results = evaluate(dataset, known, EvaluationConfig(skip_bad=True))
    row = results.categories["part"]
    assert (row.normal, row.anomalous) == (1, 1)
    assert len(results.skipped) == 1 and "001.png" in results.skipped[0]
    assert row.metrics["image_auroc"] == 1


def test_a_category_of_broken_images_only(draw, known):
    results = evaluate(draw([(True, None, None)] * 3), known, EvaluationConfig(skip_bad=True))
    assert math.isnan(results.mean["image_auroc"]) and len(results.skipped) == 3
    assert known.asked == []


def test_mask_of_another_size_is_named(draw, known):
    dataset = draw([(True, spot(9), np.zeros((16, 8)))])
    with pytest.raises(DataError, match=r"000_mask\.png"):
        evaluate(dataset, known, EvaluationConfig())


def test_every_case_is_shown_in_order(draw, known):
    rows = [(False, flat(10), None), (True, spot(200), square()), (True, spot(90), None)]
    cases, ticks = [], []
    evaluate(draw(rows), known, EvaluationConfig(batch_size=2), lambda: ticks.append(1), cases.append)
    assert [case.sample.image.name for case in cases] == ["000.png", "001.png", "002.png"]
    assert len(ticks) == 3
    assert cases[1].mask.sum() == 24 and not cases[0].mask.any() and cases[2].mask is None


def test_words_for_the_class(draw, known):
    dataset = draw([(False, flat(1), None)], "metal_nut")
    evaluate(dataset, known, EvaluationConfig())
    evaluate(dataset, known, EvaluationConfig(class_name="object"))
    assert [words for _, words in known.asked] == ["metal_nut", "object"]


def test_a_class_that_the_model_lacks_is_found_before_the_first_image(draw, known):
    def lacks(class_name):
        raise KanoclipError(f"no class {class_name}")

    known.class_for = lacks
    with pytest.raises(KanoclipError, match="no class part"):
        evaluate(draw([(False, None, None)]), known, EvaluationConfig())


def test_masks_are_resized_to_the_map_by_nearest_neighbour(tmp_path, draw, known):
    import cv2

    dataset = draw([(True, spot(200), square())])
    sample = dataset.categories[0].samples[0]
    cv2.imwrite(str(sample.image), cv2.resize(cv2.imread(str(sample.image)), (64, 64)))
    mask = np.zeros((64, 64), np.uint8)
    mask[8:24, 12:36] = 255
    cv2.imwrite(str(sample.mask), mask)
    known.predict = lambda images, _: [(np.zeros((16, 16), np.float32), 0.5) for _ in images]
    cases = []
    evaluate(dataset, known, EvaluationConfig(), observe=cases.append)
    assert np.array_equal(cases[0].mask, square())


def test_no_category_at_all(tmp_path, known):
    results = evaluate(Dataset("mvtec", tmp_path, (), True, ()), known, EvaluationConfig())
    assert all(math.isnan(value) for value in results.mean.values())
