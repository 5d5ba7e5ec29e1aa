from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from kanoclip.runtime.errors import TrainingError
from kanoclip.train.backbones import get_backbone
from kanoclip.train.nano import tokens as module
from kanoclip.train.nano.scenes.scene import Recipe, generate
from kanoclip.train.nano.stem_statistics import load_stem, new_stem, trunk_pixels
from kanoclip.train.nano.tokens import DRAWING, RECORD, Drawing, TokenFiles, _cell_share, draw_tokens

RECIPE = Recipe(size=64)


@pytest.fixture
def drawing(stem_file, small_nano, in_process, monkeypatch):
    """Seven images in files of three."""
    monkeypatch.setattr(module, "CHUNK", 3)
    return Drawing(RECIPE, 3, 7, None, stem_file)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(folder, drawing, match):
    before = contents(folder) if folder.is_dir() else None
    with pytest.raises(TrainingError, match=match) as caught:
        list(draw_tokens(folder, drawing, 1))
    assert "\n" not in str(caught.value)
    assert (contents(folder) if folder.is_dir() else None) == before


def test_any_number_of_workers_draws_the_same_bytes(tmp_path, drawing):
    assert list(draw_tokens(tmp_path / "one", drawing, 1)) == [3, 6, 7]
    assert list(draw_tokens(tmp_path / "two", drawing, 2)) == [1, 4, 7]
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one == two and len(one) == 3 * 3 + 2


def test_a_stopped_drawing_goes_on_and_is_refused_until_it_is_whole(tmp_path, drawing):
    list(draw_tokens(tmp_path / "whole", drawing, 1))
    folder = tmp_path / "stopped"
    steps = draw_tokens(folder, drawing, 1)
    assert next(steps) == 3
    steps.close()
    with pytest.raises(TrainingError, match=r"stopped has no drawn images: python -m kanoclip\.train\.nano\.make"):
        TokenFiles(folder)
    first = folder / "0000000.json"
    stamp = first.stat().st_mtime_ns
    # A stop while a file is written leaves what comes before its last one.
    (folder / "0000003-tokens.npy").write_bytes(b"half")
    assert list(draw_tokens(folder, drawing, 1)) == [6, 7]
    assert first.stat().st_mtime_ns == stamp and contents(folder) == contents(tmp_path / "whole")
    assert list(draw_tokens(folder, drawing, 1)) == [], "there is nothing left to draw"


def test_images_are_what_the_generator_draws_and_the_stem_reads(tmp_path, drawing):
    list(draw_tokens(tmp_path, drawing, 1))
    files = TokenFiles(tmp_path)
    assert len(files) == 7
    stem = load_stem(drawing.stem)
    batch = files.batch([6, 0, 4])
    for row, index in enumerate((6, 0, 4)):
        scene = generate(RECIPE, 3, index)
        features = stem.read_scaled(trunk_pixels(scene.image[None]))
        want = stem.compare(stem.standardised(features))[0]
        torch.testing.assert_close(batch.tokens[row], want, rtol=2e-3, atol=2e-2)
        assert batch.words[row] == scene.words and batch.captions[row] == scene.caption
        assert bool(batch.anomalous[row]) == scene.mask.any()
        share = scene.mask.reshape(4, 16, 4, 16).mean((1, 3))
        torch.testing.assert_close(batch.share[row], torch.from_numpy(share).float(), rtol=1e-3, atol=1e-4)
    assert batch.tokens.shape == (3, 16, 598) and batch.tokens.dtype == batch.share.dtype == torch.float32


def test_photographs_are_drawn_too(tmp_path, drawing, photo_folder):
    drawing = dataclasses.replace(drawing, photos=photo_folder, recipe=dataclasses.replace(RECIPE, whole=1.0))
    list(draw_tokens(tmp_path, drawing, 1))
    assert set(TokenFiles(tmp_path).batch(range(7)).words) == {"object"}


@pytest.mark.parametrize("complete", [False, True])
def test_a_folder_with_images_of_another_drawing_is_refused(tmp_path, drawing, lively_stem, complete):
    """They would be mixed without a word, or be called what they are not."""
    steps = draw_tokens(tmp_path / "d", drawing, 1)
    next(steps)
    list(steps) if complete else steps.close()
    other = lively_stem(new_stem(), seed=9)
    kept = {name: value for name, value in other.state_dict().items() if not name.startswith("token_project.")}
    save_file(kept, tmp_path / "other.safetensors")
    for changes, key in (
        ({"seed": 4}, "seed"),
        ({"images": 8}, "images"),
        ({"recipe": dataclasses.replace(RECIPE, anomalous=0.5)}, "anomalous"),
        ({"stem": tmp_path / "other.safetensors"}, "stem"),
    ):
        changed = dataclasses.replace(drawing, **changes)
        refused(tmp_path / "d", changed, rf"d has images of another drawing \({key} differs\): name another folder")
    list(draw_tokens(tmp_path / "d", drawing, 1))
    assert len(TokenFiles(tmp_path / "d")) == 7


def test_a_drawing_goes_on_with_the_same_photographs_alone(tmp_path, drawing, photo_folder, write_photo):
    photos = Path(shutil.copytree(photo_folder, tmp_path / "photos"))
    drawing = dataclasses.replace(drawing, photos=photos)
    steps = draw_tokens(tmp_path / "d", drawing, 1)
    next(steps)
    steps.close()
    write_photo(photos / "more.png", 77)
    refused(tmp_path / "d", drawing, r"another drawing \(photographs differs\)")
    (photos / "more.png").unlink()
    assert list(draw_tokens(tmp_path / "d", drawing, 1)) == [6, 7]
    shutil.rmtree(photos)
    assert list(draw_tokens(tmp_path / "d", drawing, 1)) == [], "whole, it needs them no more"


def test_a_folder_from_before_there_was_a_note_of_the_drawing_goes_on(tmp_path, drawing):
    list(draw_tokens(tmp_path, drawing, 1))
    before = contents(tmp_path)
    (tmp_path / DRAWING).unlink()
    assert list(draw_tokens(tmp_path, drawing, 1)) == []
    after = contents(tmp_path)
    assert {name: value for name, value in after.items() if name != DRAWING} == {
        name: value for name, value in before.items() if name != DRAWING
    }
    (tmp_path / DRAWING).unlink()
    refused(tmp_path, dataclasses.replace(drawing, seed=8), "seed differs")


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "0000003-tokens.npy").unlink(),
        lambda folder: (folder / "0000003-share.npy").write_bytes(b"\x93NUMPY cut"),
        lambda folder: (folder / "0000003-tokens.npy").write_bytes((folder / "0000003-tokens.npy").read_bytes()[:-100]),
        lambda folder: (folder / "0000000.json").write_text("[{"),
        lambda folder: (folder / RECORD).write_text("{}"),
        lambda folder: (folder / RECORD).write_text("half"),
    ],
)
def test_an_incomplete_folder_is_refused(tmp_path, drawing, damage):
    list(draw_tokens(tmp_path, drawing, 1))
    damage(tmp_path)
    with pytest.raises(TrainingError, match=r"is not complete .*: the command that made it goes on") as caught:
        TokenFiles(tmp_path)
    assert "\n" not in str(caught.value)


def test_bad_stems_and_photographs_are_refused_before_anything_is_drawn(tmp_path, drawing):
    refused(tmp_path / "d", dataclasses.replace(drawing, stem=tmp_path / "none"), "none is no stem")
    refused(tmp_path / "d", dataclasses.replace(drawing, photos=tmp_path / "none"), "no folder of photographs")
    assert not (tmp_path / "d").exists()


def test_the_record_says_what_was_drawn(drawn):
    record = json.loads((drawn / RECORD).read_text())
    assert record["seed"] == 3 and record["images"] == 12 and record["size"] == 64
    assert set(record) == {field.name for field in dataclasses.fields(Recipe)} | {"seed", "images"}


def test_shares_are_means_over_cells():
    mask = np.zeros((64, 96), bool)
    mask[0:16, 0:8] = mask[40, 95] = True
    share = _cell_share(mask, (4, 6))
    assert share.shape == (4, 6) and share[0, 0] == 0.5 and share[2, 5] == np.float16(1 / 256) and share.sum() < 0.51


@pytest.mark.nightly
@pytest.mark.skipif("stem_cfg" not in get_backbone("nano").architecture(), reason="nano has no stem yet")
def test_processes_draw_the_same_bytes_as_one(tmp_path, lively_stem):
    stem = lively_stem(new_stem())
    kept = {name: value for name, value in stem.state_dict().items() if not name.startswith("token_project.")}
    save_file({name: value.contiguous() for name, value in kept.items()}, tmp_path / "stem.safetensors")
    drawing = Drawing(Recipe(), 0, module.CHUNK + 2, None, tmp_path / "stem.safetensors")
    for workers in (1, 2):
        assert max(draw_tokens(tmp_path / str(workers), drawing, workers)) == drawing.images
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
