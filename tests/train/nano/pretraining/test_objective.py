import dataclasses
import math

import pytest
import torch
from safetensors.torch import load_file

from kanoclip.runtime.errors import TrainingError
from kanoclip.train.nano.pretraining.objective import PretrainConfig, Pretraining, _segmentation
from kanoclip.train.nano.pretraining.optimizers import learning
from kanoclip.train.nano.scenes.photos import Photos
from kanoclip.train.nano.scenes.scene import Recipe, generate
from kanoclip.train.nano.tokens import TokenFiles

CONFIG = PretrainConfig(batch_size=4)


@pytest.fixture
def batch(drawn):
    return TokenFiles(drawn).batch(range(6))


@pytest.fixture
def stem(stem_file):
    return load_file(stem_file)


@pytest.fixture
def model(small_nano, stem):
    return Pretraining(CONFIG, stem)


def test_the_stem_is_the_given_one_and_stays(model, stem):
    own = model.clip.visual.conv1
    state = own.state_dict()
    assert all(torch.equal(state[name], value) for name, value in stem.items())
    assert model.tower.stem is own and model.project is own.token_project
    assert not any(parameter.requires_grad for parameter in own.trunk.parameters())
    assert all(parameter.requires_grad for parameter in own.token_project.parameters())


def test_the_seed_decides_what_is_not_the_stem(small_nano, stem):
    one, again, other = (Pretraining(dataclasses.replace(CONFIG, seed=seed), stem).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["probe"], other["probe"])
    name = "clip.visual.conv1.token_project.weight"
    assert not torch.equal(one[name], other[name])


def test_a_backbone_without_a_stem_is_refused(stem):
    with pytest.raises(TrainingError, match="random-tiny has no convolutional stem: pretraining is for nano"):
        Pretraining(dataclasses.replace(CONFIG, backbone="random-tiny"), stem)


def test_words_that_no_caption_has_are_zeros(model):
    table, text = model.vocabulary.whole(), model.text
    known, unknown = (text.tokenize([word])[0, 1] for word in ("scratch", "zeppelin"))
    assert table[known].any() and not table[unknown].any()
    used = table.any(dim=1).sum()
    assert 100 < used < 1000
    ids = text.tokenize(["a photo of a scratch zeppelin"])
    assert model.vocabulary(ids).equal(torch.nn.functional.embedding(ids, table))


def test_every_word_of_every_caption_is_in_the_vocabulary(model, photo_folder):
    table = model.vocabulary.whole()
    photos = Photos.from_folder(photo_folder)
    for index in range(60):
        caption = generate(Recipe(size=64), 0, index, photos if index % 3 == 0 else None).caption
        ids = model.text.tokenize([caption])[0]
        assert table[ids[ids > 0]].any(dim=1).all(), caption


def test_every_part_of_the_loss_reaches_what_it_should_move(model, batch):
    losses = model(batch, 0)
    assert set(losses.parts) == {"contrastive", "score", "dense", "probe"}
    losses.total.backward()
    still = [name for name, parameter in learning(model) if parameter.grad is None or not parameter.grad.any()]
    # The tower's last block gives its value path alone: its query and key are read by the original path only.
    assert [name for name in still if "final" not in name] == []
    assert "stem.token_project.weight" in dict(learning(model))
    assert not any(parameter.grad is not None for parameter in model.clip.visual.conv1.trunk.parameters())
    assert losses.cells.shape == losses.target.shape == (6, *model.tower.grid)
    assert not (losses.target.flatten(1).any(1) & (batch.anomalous == 0)).any()


def test_the_image_is_read_as_the_tower_reads_it(model, batch):
    image = model.tower.encode(model.tower.place(model.project(batch.tokens)))
    stage = torch.stack([torch.nn.functional.normalize(part, dim=-1) for part in image.patches])
    losses = model(batch, 3)
    assert losses.cells.isfinite().all() and losses.scores.shape == (6,) and stage.isfinite().all()
    moved = dataclasses.replace(batch, tokens=batch.tokens.flip(1))
    assert (model(moved, 3).cells - losses.cells).abs().max() > 1e-3


def test_captions_that_are_equal_are_positives_of_each_other(model, batch):
    one = model(batch, 0).parts["contrastive"]
    same = model(dataclasses.replace(batch, captions=["a photo of a thing"] * 6), 0).parts["contrastive"]
    assert one > 0.1
    assert float(same) == pytest.approx(math.log(6) / 2, abs=0.01), "nothing to be told apart but six images"


def test_states_are_drawn_by_step_and_name_subject_or_any_word(model):
    words = ["bottle", "wood", "bottle", "nut"]
    first, again = model._states(words, 5), model._states(words, 5)
    assert first[0] == again[0] and first[1].equal(again[1])
    texts = {tuple(model._states(words, step)[0]) for step in range(20)}
    assert len(texts) > 15
    named = [text for pair in texts for text in pair]
    assert any("bottle" in text for text in named) and any("object" in text for text in named)


def test_segmentation_prefers_the_right_map():
    target = torch.zeros(2, 8, 8)
    target[0, 2:4, 2:4] = 1
    right, wrong = (target * 2 - 1) * 6, (1 - target * 2) * 6
    assert _segmentation(right, target) < 0.1 < _segmentation(torch.zeros_like(target), target)
    assert _segmentation(torch.zeros_like(target), target) < _segmentation(wrong, target)
