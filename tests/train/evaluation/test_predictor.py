import numpy as np
import pytest
import torch

from kanoclip.runtime.detect.preprocess import resize
from kanoclip.runtime.errors import KanoclipError
from kanoclip.train.checkpoint import LoadedModel
from kanoclip.train.evaluation.predictor import BundlePredictor, CheckpointPredictor
from kanoclip.train.model.kanoclip import to_pixels
from kanoclip.train.weights.load import Weights


@pytest.fixture
def frames(random):
    return [random.integers(0, 256, (60, 90, 3), dtype=np.uint8), random.integers(0, 256, (48, 48, 3), dtype=np.uint8)]


def predictor(model):
    return CheckpointPredictor(LoadedModel(model, Weights("openai", "0" * 64, True), None), "cpu", "x")


def test_checkpoint_gives_the_models_own_answer(make_model, frames):
    model = make_model()
    found = predictor(model).predict(frames, "metal nut")
    with torch.no_grad():
        small = torch.from_numpy(np.stack([resize(frame, 48, 48) for frame in frames]))
        expected = model(to_pixels(small), model.text_features(["metal nut"]))
    for i, (heat, score) in enumerate(found):
        assert heat.shape == (48, 48) and heat.dtype == np.float32
        np.testing.assert_allclose(heat, expected.map[i].numpy(), atol=1e-6)
        assert score == pytest.approx(float(expected.score[i]), abs=1e-6)


def test_text_is_encoded_once_a_class(make_model, frames, monkeypatch):
    model = make_model()
    asked = []
    features = type(model).text_features
    monkeypatch.setattr(type(model), "text_features", lambda self, names: asked.append(names) or features(self, names))
    one = predictor(model)
    for words in ("nut", "nut", "bolt", "nut"):
        one.predict(frames, words)
    assert asked == [["nut"], ["bolt"]]


def test_a_diverged_checkpoint_is_no_result(make_model, frames):
    model = make_model()
    with torch.no_grad():
        model.head.adapter.up.bias.fill_(float("nan"))
    with pytest.raises(KanoclipError, match="x gives NaN"):
        predictor(model).predict(frames, "nut")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there(make_model):
    with pytest.raises(KanoclipError, match="--device cpu"):
        CheckpointPredictor(LoadedModel(make_model(), Weights("openai", None, True), None), "cuda", "x")


@pytest.mark.parametrize(
    ("classes", "wanted", "used"),
    [
        (("object",), "nut", "object"),
        (("bolt", "nut"), "nut", "nut"),
        (("bolt", "object"), "nut", "object"),
        (("bolt",), "nut", "bolt"),
        (("bolt", "washer"), "nut", None),
    ],
)
def test_which_class_of_a_bundle_is_used(tmp_path, make_toy_bundle, classes, wanted, used):
    one = BundlePredictor(make_toy_bundle(tmp_path / "toy.kanoclip", classes=classes), "auto", "cpu", 1)
    if used is None:
        with pytest.raises(KanoclipError, match=r'bolt, washer.*--class "nut"'):
            one.class_for(wanted)
    else:
        assert one.class_for(wanted) == used


def test_bundle_answers_through_the_detector(toy_bundle, frames):
    one = BundlePredictor(toy_bundle, "auto", "cpu", 1)
    found = one.predict(frames, one.class_for("nut"))
    size = one.size
    for frame, (heat, score) in zip(frames, found, strict=True):
        small = resize(frame, *size).mean(axis=2) / 255
        np.testing.assert_allclose(heat, small, atol=1e-5)
        assert score == pytest.approx(float(small.max()), abs=1e-5)
    assert one.about["backend"] == "onnxruntime-cpu"
    one.close()
