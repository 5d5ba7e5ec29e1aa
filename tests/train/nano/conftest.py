"""A small stem in nano's place, photographs, and images that were drawn with both."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from kanoclip.train import backbones
from kanoclip.train.backbones import seeded_clip
from kanoclip.train.nano import tokens
from kanoclip.train.nano.scenes.scene import Recipe
from kanoclip.train.nano.tokens import Drawing, draw_tokens


@pytest.fixture
def small_nano(monkeypatch, make_stem_backbone):
    """The backbone `nano` is a small one with a convolutional stem, of 64 px."""
    backbone = make_stem_backbone("nano")
    monkeypatch.setitem(backbones.REGISTRY, "nano", backbone)
    return backbone


@pytest.fixture(scope="session")
def stem_file(tmp_path_factory, make_stem_backbone, lively_stem):
    """Trunk and statistics of `small_nano`, as `stem_statistics` writes them."""
    stem = lively_stem(seeded_clip(make_stem_backbone("nano")).visual.conv1)
    path = tmp_path_factory.mktemp("stem") / "stem.safetensors"
    kept = {name: value for name, value in stem.state_dict().items() if not name.startswith("token_project.")}
    save_file({name: value.contiguous() for name, value in kept.items()}, path)
    return path


def write_photo(path, seed, height=100, width=130):
    """Smooth coloured noise: no two are alike."""
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC))


@pytest.fixture(scope="session", name="write_photo")
def write_photo_fixture():
    return write_photo


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory):
    """Thirty photographs in two folders. Shared: leave it as it is."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(30):
        write_photo(folder / ("a" if number % 3 else "b") / f"{number:02}.png", number)
    return folder


class OwnPool:
    """A pool that works in this process, where the small backbone is known; several workers finish in another order."""

    def __init__(self, workers):
        self.step = -1 if workers > 1 else 1

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        return None

    def imap_unordered(self, function, jobs):
        return map(function, jobs[:: self.step])


class OwnContext:
    Pool = OwnPool


@pytest.fixture
def in_process(monkeypatch):
    """Images are drawn in this process."""
    monkeypatch.setattr(tokens.multiprocessing, "get_context", lambda method: OwnContext)


@pytest.fixture(autouse=True)
def settings_of_the_process():
    """What drawing and pretraining set for their whole process."""
    before = cv2.getNumThreads()
    yield
    cv2.setNumThreads(before)
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory, make_stem_backbone, stem_file):
    """Folder of 12 drawn images of 64 px. Shared: leave it as it is."""
    folder = tmp_path_factory.mktemp("drawn")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones.REGISTRY, "nano", make_stem_backbone("nano"))
        patch.setattr(tokens.multiprocessing, "get_context", lambda method: OwnContext)
        assert list(draw_tokens(folder, Drawing(Recipe(size=64), 3, 12, None, stem_file), 1)) == [12]
    return folder
