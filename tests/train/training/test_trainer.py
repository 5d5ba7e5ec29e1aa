import json
import math

import numpy as np
import pytest
import torch

from kanoclip.runtime.errors import TrainingError
from kanoclip.runtime.system import paths
from kanoclip.train.checkpoint import load_checkpoint
from kanoclip.train.model.towers.clip_vv import ImageFeatures
from kanoclip.train.training.state import state_path
from kanoclip.train.training.trainer import learning_rate

STEPS = 5  # 18 images in batches of 4


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("cached", [True, False])
def test_a_run_learns_and_writes_a_checkpoint_that_loads(tmp_path, run, cached):
    output = tmp_path / "c.safetensors"
    outcome, recorder = run(output, epochs=4, cache=tmp_path / "cache" if cached else None, lr_modules=1e-2)
    assert outcome.finished
    assert len(recorder.steps) == 4 * STEPS
    assert recorder.records[-1]["loss"] < 0.9 * recorder.records[0]["loss"]
    assert [record["from_cache"] for record in recorder.records][1:] == [20 if cached else 0] * 3
    loaded = load_checkpoint(output, "none")
    assert loaded.checkpoint_sha256 is not None
    assert not state_path(output).exists()
    told = json.loads(output.with_suffix(".json").read_text())["training"]
    assert told["epochs"] == recorder.records
    assert told["categories"]["bottle"] == {"class_name": "bottle", "normal": 3, "anomalous": 4, "descriptions": 5}


def test_clips_weights_have_not_moved_and_all_that_learns_has(tmp_path, make_trainer):
    trainer = make_trainer(tmp_path / "c.safetensors", cache=tmp_path / "cache", weight_decay=0.1, epochs=3)
    model = trainer.job.loaded.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trainer.run(resume=False, save_every=math.inf, stop=lambda: False)
    learning = model.learnable()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == (name not in learning), name


@pytest.fixture(scope="module")
def uninterrupted(run, tmp_path_factory):
    """A run of some options to its end, made once: (outcome, recorder, checkpoint)."""
    made = {}

    def once(**options):
        key = tuple(options)
        if key not in made:
            folder = tmp_path_factory.mktemp("whole")
            if options.get("cache"):
                options["cache"] = folder / "cache"
            made[key] = *run(folder / "c.safetensors", **options), folder / "c.safetensors"
        return made[key]

    return once


@pytest.mark.parametrize("stop_after", [1, 3, STEPS, STEPS + 2])
@pytest.mark.parametrize("options", [{"cache": True}, {"augment": True, "ema": 0.9, "optimizer": "adamw"}])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, run, uninterrupted, tensors, stop_after, options):
    whole, told, checkpoint = uninterrupted(**options)
    options = {**options, "cache": tmp_path / "cache" if options.get("cache") else None}
    output = tmp_path / "parts.safetensors"
    stopped, first = run(output, stop_after=stop_after, **options)
    assert whole.finished and not stopped.finished and not output.exists()
    assert len(first.steps) == stop_after
    finished, second = run(output, resume=True, **options)
    assert finished.finished and len(second.steps) == 2 * STEPS - stop_after
    assert [*first.steps, *second.steps] == told.steps
    for mine, its in zip(finished.progress.history, whole.progress.history, strict=True):
        own = dict.fromkeys(("seconds", "waited", "pictures", "from_cache"), 0)
        assert {**mine, **own} == {**its, **own}
        assert 0 < its["waited"] < its["seconds"]
    assert equal(tensors(output), tensors(checkpoint))


def test_the_same_seed_gives_the_same_run_and_another_one_does_not(tmp_path, run, tensors):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(tmp_path / f"{name}.safetensors", seed=seed, epochs=1)
    a, b, c = (tensors(tmp_path / f"{name}.safetensors") for name in "abc")
    assert equal(a, b) and not equal(a, c)


def test_cached_features_change_nothing_but_rounding(tmp_path, run):
    _, fresh = run(tmp_path / "a.safetensors", epochs=1)
    _, filled = run(tmp_path / "b.safetensors", epochs=1, cache=tmp_path / "cache")
    _, read = run(tmp_path / "c.safetensors", epochs=1, cache=tmp_path / "cache")
    assert read.records[0]["from_cache"] == 20
    for (_, one), (_, two), (_, three) in zip(fresh.steps, filled.steps, read.steps, strict=True):
        assert two == three, "an epoch does not depend on what the cache holds"
        assert one["loss"] == pytest.approx(two["loss"], abs=2e-3)


def test_a_cache_too_small_for_all_images_serves_the_rest_fresh(tmp_path, run, tensors):
    run(tmp_path / "a.safetensors", cache=tmp_path / "one")
    one_file = next((tmp_path / "one").glob("*/*.npy")).stat().st_size
    _, recorder = run(tmp_path / "b.safetensors", cache=tmp_path / "two", limit=7 * one_file)
    assert recorder.records[1]["from_cache"] in (7, 8, 9), "7 of 18 images, of which 2 come twice in an epoch"
    for name, other in tensors(tmp_path / "a.safetensors").items():
        torch.testing.assert_close(tensors(tmp_path / "b.safetensors")[name], other, atol=1e-3, rtol=0)


def test_the_tower_never_runs_once_everything_is_cached(tmp_path, make_trainer, monkeypatch):
    run_once = make_trainer(tmp_path / "a.safetensors", cache=tmp_path / "cache", epochs=1)
    run_once.run(resume=False, save_every=math.inf, stop=lambda: False)
    trainer = make_trainer(tmp_path / "b.safetensors", cache=tmp_path / "cache")

    def never(*_):
        raise AssertionError("the tower ran")

    monkeypatch.setattr(type(trainer.features.tower), "forward", never)
    assert trainer.run(resume=False, save_every=math.inf, stop=lambda: False).finished


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"lr_prompts": 0.5}, "lr_prompts"),
        ({"epochs": 3}, "epochs"),
        ({"seed": 9}, "seed"),
        ({"model": {"bicmci": False}}, "model bicmci"),
        ({"class_name": "thing"}, "class_name"),
    ],
)
def test_resuming_another_run_is_refused_by_name(tmp_path, run, changed, named):
    output = tmp_path / "c.safetensors"
    run(output, stop_after=1)
    before = state_path(output).read_bytes()
    with pytest.raises(TrainingError, match=named):
        run(output, resume=True, **changed)
    assert state_path(output).read_bytes() == before


def test_resuming_on_changed_images_is_refused(tmp_path, run, write_tree):
    root = tmp_path / "data"
    write_tree(root, "hazelnut")
    output = tmp_path / "c.safetensors"
    run(output, root=root, stop_after=1)
    next((root / "hazelnut" / "test" / "good").glob("*")).unlink()
    with pytest.raises(TrainingError, match="images and masks"):
        run(output, root=root, resume=True)


@pytest.mark.parametrize("content", [b"", b"\xff" * 300, None])
def test_damaged_state_is_one_clear_line(tmp_path, run, content):
    output = tmp_path / "c.safetensors"
    run(output, stop_after=1)
    path = state_path(output)
    path.write_bytes(path.read_bytes()[:-4] if content is None else content)
    with pytest.raises(TrainingError, match=r"damaged.*--overwrite") as caught:
        run(output, resume=True)
    assert str(path) in str(caught.value)


def test_full_disk_while_saving_keeps_the_state_before(tmp_path, run, monkeypatch):
    output = tmp_path / "c.safetensors"
    run(output, stop_after=1)
    before = state_path(output).read_bytes()
    write = paths._write

    def full(beside, content, durable):
        write(beside, content[: len(content) // 2], durable)
        raise OSError(28, "No space left on device", beside)

    monkeypatch.setattr(paths, "_write", full)
    with pytest.raises(TrainingError, match=r"No space left.*--resume"):
        run(output, resume=True, stop_after=1)
    monkeypatch.undo()
    assert state_path(output).read_bytes() == before
    assert not list(tmp_path.glob("*.part"))
    assert run(output, resume=True)[0].finished


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_state(tmp_path, run, make_trainer):
    output = tmp_path / "c.safetensors"
    run(output, stop_after=2)
    trainer = make_trainer(output)
    nothing = torch.full((4, 36, 64), float("nan"))
    trainer.features = lambda _: ImageFeatures((nothing,) * 4, nothing[:, 0])
    with pytest.raises(TrainingError, match="epoch 1, step 3"):
        trainer.run(resume=True, save_every=math.inf, stop=lambda: False)
    assert state_path(output).exists()


def test_averaged_weights_are_what_is_saved(tmp_path, run, tensors):
    run(tmp_path / "plain.safetensors", epochs=1)
    run(tmp_path / "ema.safetensors", epochs=1, ema=0.999)
    plain, averaged = tensors(tmp_path / "plain.safetensors"), tensors(tmp_path / "ema.safetensors")
    assert plain.keys() == averaged.keys()
    assert not equal(plain, averaged)


@pytest.mark.parametrize(
    "model",
    [
        {"prompts": "template"},
        {"vv": False},
        {"bicmci": False},
        {"conv_adapter": False},
        {"bicmci": False, "conv_adapter": False},
        {"global_token": "local"},
    ],
)
def test_every_row_of_the_ablation_trains(tmp_path, run, model):
    output = tmp_path / "c.safetensors"
    _, recorder = run(output, model=model, epochs=1)
    assert math.isfinite(recorder.records[0]["loss"])
    if model.get("prompts") == "template":
        assert recorder.records[0]["kd"] == 0
    config = load_checkpoint(output, "none").model.config
    assert all(getattr(config, name) == value for name, value in model.items())


def test_the_kd_loss_acts_by_default(tmp_path, run):
    """Dead in every step is what eq. 2 as printed was on nano: the run then learns without its knowledge base."""
    _, recorder = run(tmp_path / "c.safetensors", epochs=1)
    means = [means["kd_active"] for _, means in recorder.steps]
    assert max(means) > 0 and recorder.records[0]["kd"] > 0
    kept = json.loads((tmp_path / "c.json").read_text())["training"]
    assert kept["epochs"][0]["kd_active"] == means[-1]
    assert (kept["run"]["kd_form"], kept["run"]["kd_margin"]) == ("anchored", 1.75)


def test_another_form_or_margin_is_another_run_and_the_default_in_figures_is_not(tmp_path, make_trainer, run):
    output = tmp_path / "c.safetensors"
    run(output, stop_after=2)
    for options in ({"kd_form": "printed"}, {"kd_margin": 1.0}):
        with pytest.raises(TrainingError, match=next(iter(options))):
            make_trainer(output, **options).run(resume=True, save_every=math.inf, stop=lambda: False)
    assert run(output, resume=True, kd_margin=1.75)[0].finished


def test_state_is_saved_from_time_to_time(tmp_path, make_trainer):
    output = tmp_path / "c.safetensors"
    trainer = make_trainer(output)
    seen = []

    def stop():
        seen.append(state_path(output).exists())
        return False

    trainer.run(resume=False, save_every=0, stop=stop)
    assert seen[1], "after the first step already"


def test_learning_rate_warms_up_and_falls_to_nothing():
    rates = [learning_rate(step, 1000, 100) for step in range(1000)]
    assert rates[0] == pytest.approx(1 / 101)
    assert np.argmax(rates) == 100 and rates[100] == 1
    assert (np.diff(rates[:101]) > 0).all() and (np.diff(rates[100:]) < 0).all()
    assert rates[-1] < 1e-4
    assert max(learning_rate(step, 5, 100) for step in range(5)) == 1, "a short run is not spent on warming up"
