import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from kanoclip.train.nano.pretraining.objective import PretrainConfig, Pretraining
from kanoclip.train.nano.pretraining.optimizers import Optimizers, learning
from kanoclip.train.nano.tokens import TokenFiles


@pytest.fixture
def make(small_nano, stem_file):
    def model(**changes):
        return Pretraining(dataclasses.replace(PretrainConfig(batch_size=4), **changes), load_file(stem_file))

    return model


def groups_of(optimizers):
    return [group for optimizer in optimizers.all for group in optimizer.param_groups]


def test_each_parameter_has_one_optimizer(make):
    model = make()
    parameters = [parameter for group in groups_of(Optimizers(model)) for parameter in group["params"]]
    assert len({id(parameter) for parameter in parameters}) == len(parameters)
    assert {id(parameter) for parameter in parameters} == {id(parameter) for _, parameter in learning(model)}
    trunk = {id(parameter) for parameter in model.clip.visual.conv1.trunk.parameters()}
    assert trunk and not trunk & {id(parameter) for parameter in parameters}, "the trunk stays as it is"


def test_matrices_of_the_blocks_have_muon_and_vectors_no_decay(make):
    model = make(weight_decay=0.3)
    matrices, vectors, inner = groups_of(Optimizers(model))
    names = {id(parameter): name for name, parameter in learning(model)}
    assert inner["params"] and all(p.ndim == 2 for p in inner["params"])
    assert all("blocks" in names[id(p)] or "final." in names[id(p)] for p in inner["params"])
    assert all(p.ndim < 2 for p in vectors["params"]) and vectors["weight_decay"] == 0
    assert matrices["weight_decay"] == inner["weight_decay"] == 0.3
    outer = {names[id(p)] for p in matrices["params"]}
    assert {"stem.token_project.weight", "vocabulary.embedding", "positional_embedding"} <= outer


def one_step(model, optimizers, batch, step, lr=1e-3):
    model(batch, step).total.backward()
    optimizers.step(lr)


def test_a_step_drops_gradients_and_takes_the_rate_that_it_is_given(make, drawn):
    model, batch = make(), TokenFiles(drawn).batch(range(4))
    optimizers = Optimizers(model)
    before = [parameter.detach().clone() for _, parameter in learning(model)]  # towers share some names
    one_step(model, optimizers, batch, 0, lr=0.0)
    assert all(torch.equal(now, old) for (_, now), old in zip(learning(model), before, strict=True))
    one_step(model, optimizers, batch, 0, lr=1e-3)
    assert all(parameter.grad is None for _, parameter in learning(model))
    still = [name for (name, now), old in zip(learning(model), before, strict=True) if torch.equal(now, old)]
    assert [name for name in still if "final" not in name] == []
    assert {group["lr"] for group in groups_of(optimizers)} == {1e-3}


def test_a_loaded_state_goes_on_to_the_same_bits(make, drawn):
    batch = TokenFiles(drawn).batch(range(4))
    one, two = make(), make()
    first, second = Optimizers(one), Optimizers(two)
    for step in range(2):
        one_step(one, first, batch, step)
    two.load_state_dict(one.state_dict())
    state = {name: value.clone() for name, value in first.state().items()}
    assert all(name.startswith("optimizer/") for name in state) and len({name.split("/")[1] for name in state}) == 2
    second.load({**state, "model/other": torch.zeros(1)})
    for step in range(2, 4):
        one_step(one, first, batch, step)
        one_step(two, second, batch, step)
    mine = two.state_dict()
    assert all(torch.equal(value, mine[name]) for name, value in one.state_dict().items())
    fresh = make()
    fresh.load_state_dict(two.state_dict())
    one_step(fresh, Optimizers(fresh), batch, 4)
    one_step(two, second, batch, 4)
    assert not torch.equal(fresh.scale, two.scale), "the optimizers' state decides the step"
