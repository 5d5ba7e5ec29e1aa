import pytest
import torch

from kanoclip.train.nano.objective import PretrainConfig, Pretraining, _segmentation
from kanoclip.train.nano.optimizers import Optimizers, learning
from kanoclip.train.nano.pretrain import _collate
from kanoclip.train.nano.scene import Recipe, generate

CONFIG = PretrainConfig("random-tiny", image_size=64, batch_size=4)


@pytest.fixture(scope="module")
def batch():
    return _collate([generate(Recipe(size=64), 0, index) for index in range(6)])


def test_words_that_no_caption_has_are_zeros():
    model = Pretraining(CONFIG)
    table, text = model.vocabulary.whole(), model.text
    known, unknown = (text.tokenize([word])[0, 1] for word in ("scratch", "zeppelin"))
    assert table[known].any() and not table[unknown].any()
    used = table.any(dim=1).sum()
    assert 100 < used < 1000
    ids = text.tokenize(["a photo of a scratch zeppelin"])
    assert model.vocabulary(ids).equal(torch.nn.functional.embedding(ids, table))


def test_every_part_of_the_loss_reaches_what_it_should_move(batch):
    model = Pretraining(CONFIG)
    losses = model(*batch, 0)
    assert set(losses.parts) == {"contrastive", "verdict", "dense", "probe"}
    losses.total.backward()
    still = [name for name, parameter in learning(model) if parameter.grad is None or not parameter.grad.any()]
    # The tower's last block gives its value path alone: its query and key are read by the original path only.
    assert [name for name in still if "final" not in name] == []
    assert losses.cells.shape == losses.target.shape == (6, *model.tower.grid)
    assert not (losses.target.flatten(1).any(1) & ~batch[1].flatten(1).any(1)).any()


def test_captions_that_are_equal_are_positives_of_each_other(batch):
    frames, masks, words, captions = batch
    model = Pretraining(CONFIG)
    one = model(frames, masks, words, captions, 0).parts["contrastive"]
    same = model(frames, masks, words, ["a photo of a thing"] * len(captions), 0).parts["contrastive"]
    assert same == 0 or same < one, "with one caption there is nothing to be told apart"


def test_states_are_drawn_by_step_and_name_subject_or_any_word():
    model = Pretraining(CONFIG)
    words = ["bottle", "wood", "bottle", "nut"]
    first, again = model._states(words, 5), model._states(words, 5)
    assert first[0] == again[0] and first[1].equal(again[1])
    texts = {tuple(model._states(words, step)[0]) for step in range(20)}
    assert len(texts) > 15
    named = [text for pair in texts for text in pair]
    assert any("bottle" in text for text in named) and any("object" in text for text in named)


def test_each_parameter_has_one_optimizer():
    model = Pretraining(CONFIG)
    groups = [
        parameter
        for optimizer in Optimizers(model).all
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    assert len({id(parameter) for parameter in groups}) == len(groups)
    assert {id(parameter) for parameter in groups} == {id(parameter) for _, parameter in learning(model)}
    muon = Optimizers(model).all[1].param_groups[0]["params"]
    assert muon and all(parameter.ndim == 2 for parameter in muon)


def test_segmentation_prefers_the_right_map():
    target = torch.zeros(2, 8, 8)
    target[0, 2:4, 2:4] = 1
    right, wrong = (target * 2 - 1) * 6, (1 - target * 2) * 6
    assert _segmentation(right, target) < 0.1 < _segmentation(torch.zeros_like(target), target)
    assert _segmentation(torch.zeros_like(target), target) < _segmentation(wrong, target)
