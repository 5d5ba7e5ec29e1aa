import pytest
import torch

from kanoclip.runtime.errors import TrainingError
from kanoclip.train.model.kanoclip import ModelConfig
from kanoclip.train.training.config import TrainConfig
from kanoclip.train.training.losses import global_bce, kd_hinge, local_loss
from kanoclip.train.training.objective import PARTS, Objective

TEXTS = [["An abnormal image of a nut may show rust.", "a nut with a crack"], ["a bent bolt"], []]
NAMES = ["nut", "bolt", "washer"]


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(4)
    masks = torch.zeros(4, 48, 48, dtype=torch.uint8)
    masks[1, 10:20, 10:30] = 1
    return {
        "pixels": torch.randn(4, 3, 48, 48, generator=generator),
        "class_index": torch.tensor([2, 0, 1, 0]),
        "labels": torch.tensor([0.0, 1.0, 1.0, 0.0]),
        "masks": masks,
        "known": torch.tensor([True, True, False, True]),
    }


def losses(model, batch, texts=TEXTS, **options):
    objective = Objective(model, NAMES, texts, TrainConfig(model.config, **options))
    image = model.tower(batch["pixels"])
    return objective(image, batch["class_index"], batch["labels"], batch["masks"], batch["known"])


@pytest.mark.parametrize("options", [{}, {"kd_weight": 2.0, "global_weight": 0.5, "local_weight": 3.0}])
def test_total_is_eq_13_of_what_the_model_itself_answers(make_model, batch, options):
    """Against the model's own forward, which knows nothing of sharing text between pictures."""
    model = make_model()
    parts = losses(model, batch, **options)
    text = model.text_features([NAMES[i] for i in batch["class_index"]])
    output = model(batch["pixels"], text)
    maps = model.head.smoothing.upsample(output.cells)
    knowledge = torch.stack([model.text.encode(texts).mean(0) for texts in TEXTS[:2]])
    hinge = torch.zeros(3)
    hinge[:2] = kd_hinge(model.text_features(NAMES[:2]), knowledge)
    expected = {
        "kd": hinge[batch["class_index"]].mean(),
        "global": global_bce(output.score, batch["labels"]),
        "local": local_loss(maps, batch["masks"], batch["known"]),
    }
    for name, value in expected.items():
        torch.testing.assert_close(parts[name], value.detach(), rtol=1e-4, atol=1e-5)
    weights = {name: options.get(f"{name}_weight", 1.0) for name in expected}
    total = sum(weights[name] * value for name, value in expected.items())
    torch.testing.assert_close(parts["loss"], total, rtol=1e-4, atol=1e-5)
    assert set(parts) == set(PARTS)


def test_gradients_reach_all_that_learns_and_nothing_else(make_model, batch):
    model = make_model()
    losses(model, batch)["loss"].backward()
    for name, parameter in model.named_parameters():
        learns = name.startswith(("prompts.", "head."))
        assert (parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)) == learns, name


def test_knowledge_pulls_the_prompts(make_model, batch):
    """Only eq. 2 can tell one knowledge base from another."""
    gradients = []
    for texts in (TEXTS, [["a sunny day at the sea"], ["a red car"], []]):
        model = make_model()
        model.prompts.context.grad = None
        parts = losses(model, batch, texts, kd_margin=2.0, global_weight=0.0, local_weight=0.0)
        assert parts["kd_active"] == 0.75, "the class without knowledge stays out"
        parts["loss"].backward()
        gradients.append(model.prompts.context.grad.clone())
    assert not torch.allclose(gradients[0], gradients[1], rtol=1e-2)


def test_template_prompts_are_encoded_once_and_learn_nothing(make_model, batch, monkeypatch):
    model = make_model(prompts="template")
    objective = Objective(model, NAMES, [[], [], []], TrainConfig(model.config))
    monkeypatch.setattr(type(model.text), "forward", lambda *_: pytest.fail("text was encoded again"))
    image = model.tower(batch["pixels"])
    parts = objective(image, batch["class_index"], batch["labels"], batch["masks"], batch["known"])
    assert parts["kd"] == 0 and parts["loss"].requires_grad


def test_one_list_for_each_class(make_model):
    model = make_model()
    with pytest.raises(TrainingError, match="2 lists of descriptions for 3 classes"):
        Objective(model, NAMES, TEXTS[:2], TrainConfig(model.config))


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"lr_prompts": -1.0},
        {"lr_modules": float("nan")},
        {"kd_weight": float("inf")},
        {"ema": 1.0},
    ],
)
def test_values_that_no_run_can_use(options):
    with pytest.raises(TrainingError, match=next(iter(options))):
        TrainConfig(ModelConfig("random-tiny", (48, 48)), **options)


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        ({"prompts": "handcrafted"}, "nothing to train"),
        ({"prompts": "template", "bicmci": False, "conv_adapter": False}, "kanoclip-eval --prompts template"),
    ],
)
def test_a_model_with_nothing_to_learn(model, hint):
    with pytest.raises(TrainingError, match=hint):
        TrainConfig(ModelConfig("random-tiny", (48, 48), **model))
