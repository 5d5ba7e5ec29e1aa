import pytest

from kanoclip.train.model.kanoclip import ModelConfig
from kanoclip.train.training.cli.report import dead_kd
from kanoclip.train.training.config import TrainConfig


@pytest.mark.parametrize(
    ("options", "remedies"),
    [
        ({"kd_form": "printed"}, ("--kd-form anchored", "--kd-margin above 0")),
        ({"kd_form": "printed", "kd_margin": 0.2}, ("--kd-form anchored", "--kd-margin above 0.2")),
        ({}, ("--kd-margin above 1.75", "background")),
        ({"kd_margin": 0.5}, ("--kd-margin above 0.5", "background")),
    ],
)
def test_a_dead_kd_loss_is_one_line_with_a_remedy_and_a_living_one_is_none(options, remedies):
    config = TrainConfig(ModelConfig("random-tiny", (48, 48)), **options)
    said = dead_kd(config, [{"kd_active": 0.0}, {"kd_active": 0.0}])
    assert said is not None and "\n" not in said
    assert all(remedy in said for remedy in remedies)
    assert dead_kd(config, [{"kd_active": 0.0}, {"kd_active": 0.01}]) is None
