from dataclasses import replace

import pytest
import torch

from kanoclip.runtime.errors import TrainingError
from kanoclip.train.knowledge.base import ClassTexts
from kanoclip.train.model.kanoclip import ModelConfig
from kanoclip.train.training.config import TrainConfig
from kanoclip.train.training.losses import global_bce, kd_anchored, kd_printed, local_loss
from kanoclip.train.training.objective import PARTS, Objective

TEXTS = [
    ClassTexts(("An abnormal image of a nut may show rust.", "a nut with a crack"), ("A normal image of a nut",)),
    ClassTexts(("a bent bolt",), ("a straight bolt", "a flawless bolt")),
    ClassTexts(),
]
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


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kd_weight": 2.0, "global_weight": 0.5, "local_weight": 3.0, "kd_margin": 0.5},
        {"kd_form": "printed"},
        {"kd_form": "printed", "kd_margin": 1.0},
    ],
)
def test_total_is_eq_13_of_what_the_model_itself_answers(make_model, batch, options):
    """Against the model's own forward, which knows nothing of sharing text between images."""
    model = make_model()
    parts = losses(model, batch, **options)
    text = model.text_features([NAMES[i] for i in batch["class_index"]])
    output = model(batch["pixels"], text)
    maps = model.head.smoothing.upsample(output.cells)
    knowledge, anchor = (
        torch.stack([model.text.encode(texts).mean(0) for texts in each])
        for each in ([texts.abnormal for texts in TEXTS[:2]], [texts.normal for texts in TEXTS[:2]])
    )
    hinge, features = torch.zeros(3), model.text_features(NAMES[:2])
    if options.get("kd_form") == "printed":
        hinge[:2] = kd_printed(features, knowledge, options.get("kd_margin", 0.0))
    else:
        hinge[:2] = kd_anchored(features, knowledge, anchor, options.get("kd_margin", 1.75))
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


@pytest.mark.parametrize("form", ["printed", "anchored"])
@pytest.mark.parametrize("state", ["abnormal", "normal"])
def test_knowledge_pulls_the_prompts(make_model, batch, form, state):
    """Only the KD loss can tell one knowledge base from another, and only its anchored form reads what is normal."""
    others = [
        replace(texts, **{state: (words,)})
        for texts, words in zip(TEXTS[:2], ("a sunny day at the sea", "a red car"), strict=True)
    ]
    gradients = []
    for texts in (TEXTS, [*others, ClassTexts()]):
        model = make_model()
        model.prompts.context.grad = None
        parts = losses(model, batch, texts, kd_form=form, kd_margin=2.0, global_weight=0.0, local_weight=0.0)
        assert parts["kd_active"] == 0.75, "the class without knowledge stays out"
        parts["loss"].backward()
        gradients.append(model.prompts.context.grad.clone())
    reads = form == "anchored" or state == "abnormal"
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-2) != reads


def test_a_step_of_the_kd_loss_alone_lowers_it(make_model, batch):
    model = make_model()
    objective = Objective(model, NAMES, TEXTS, TrainConfig(model.config, global_weight=0.0, local_weight=0.0))
    image = model.tower(batch["pixels"])
    optimizer = torch.optim.SGD([model.prompts.context], lr=1e-2)
    values = []
    for _ in range(5):
        optimizer.zero_grad()
        parts = objective(image, batch["class_index"], batch["labels"], batch["masks"], batch["known"])
        parts["loss"].backward()
        optimizer.step()
        values.append(parts["kd"].item())
    assert values == sorted(values, reverse=True) and values[0] > values[-1] > 0


def test_the_anchored_form_needs_normal_descriptions(make_model):
    model = make_model()
    texts = [ClassTexts(("a bent nut",)), *TEXTS[1:]]
    with pytest.raises(TrainingError, match=r"no normal description of 'nut' .* --kd-form printed"):
        Objective(model, NAMES, texts, TrainConfig(model.config))
    Objective(model, NAMES, texts, TrainConfig(model.config, kd_form="printed"))


def test_template_prompts_are_encoded_once_and_learn_nothing(make_model, batch, monkeypatch):
    model = make_model(prompts="template")
    objective = Objective(model, NAMES, [ClassTexts()] * 3, TrainConfig(model.config))
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
        {"kd_margin": -0.1},
        {"kd_margin": 2.1},
        {"kd_margin": float("nan")},
        {"kd_form": "eq2"},
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


@pytest.mark.parametrize(
    ("options", "margin"),
    [({}, 1.75), ({"kd_form": "printed"}, 0.0), ({"kd_margin": 0.0}, 0.0), ({"kd_form": "printed", "kd_margin": 2}, 2)],
)
def test_each_form_has_a_margin_of_its_own(options, margin):
    assert TrainConfig(ModelConfig("random-tiny", (48, 48)), **options).hinge_margin == margin
