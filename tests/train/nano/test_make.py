import pytest

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.errors import KanoclipError, TrainingError
from kanoclip.train.nano.make import Scale, Sources, Step, begin, follow, plan

NOTHING = Sources(None, None)


@pytest.mark.nightly
def test_the_whole_recipe_in_small_makes_a_trained_bundle(tmp_path, capsys):
    """Every command of the recipe for real, with so little of everything that it knows nothing."""
    scale = Scale(images=8, steps=2, mixed=8, others=1, epochs=1, statistics=25)
    begin(tmp_path, NOTHING)
    # without thresholds, which so few images cannot give, and int8
    steps = plan(tmp_path, scale, NOTHING, workers=1)[:-3]
    follow(steps)
    assert all(step.output.exists() for step in steps)
    manifest = Bundle.open(tmp_path / "nano.kanoclip").manifest
    assert manifest.precision == "fp32" and manifest.model.trained and manifest.descriptor is not None
    stamps = [step.output.stat().st_mtime_ns for step in steps]
    capsys.readouterr()
    follow(steps)
    assert capsys.readouterr().err.count("there already") == len(steps)
    assert stamps == [step.output.stat().st_mtime_ns for step in steps]


def test_a_folder_of_another_commit_is_refused_and_stays(tmp_path):
    begin(tmp_path, NOTHING)
    begin(tmp_path, NOTHING)
    (tmp_path / "commit").write_text("0123456789abcdef\n")
    (tmp_path / "learned.safetensors").write_bytes(b"hours")
    with pytest.raises(TrainingError, match=r"was begun by commit 0123456789ab, this is .*: check that one out"):
        begin(tmp_path, NOTHING)
    assert (tmp_path / "learned.safetensors").read_bytes() == b"hours"


@pytest.mark.parametrize("make", [lambda folder: None, lambda folder: folder.mkdir()])
def test_a_folder_of_photographs_that_is_none_is_refused_before_anything_is_made(tmp_path, make):
    make(tmp_path / "photos")
    with pytest.raises(KanoclipError, match=str(tmp_path / "photos")):
        begin(tmp_path / "out", Sources(tmp_path / "photos", None))
    assert not (tmp_path / "out" / "commit").exists()


def test_after_a_stop_only_the_rest_is_done(tmp_path):
    done = []

    def make(name, works=True):
        def run():
            done.append(name)
            if not works:
                raise TrainingError("no power")
            (tmp_path / name).touch()

        return Step(name, tmp_path / name, run)

    with pytest.raises(TrainingError):
        follow([make("a"), make("b", works=False), make("c")])
    follow([make("a"), make("b"), make("c")])
    assert done == ["a", "b", "b", "c"]


def test_a_step_that_fails_says_that_the_rest_is_kept(tmp_path):
    _, second, *_ = plan(tmp_path, Scale(), NOTHING)
    with pytest.raises(TrainingError, match=r"stem_statistics ended with 1: .*goes on from here"):
        second.run()  # without the weights of the first
