"""A small dataset of two categories in the MVTec tree, made from the example photographs, and runs on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest
from accelerate import Accelerator, DataLoaderConfiguration

from kanoclip.train.checkpoint import build_model
from kanoclip.train.data.registry import open_dataset
from kanoclip.train.knowledge.base import shipped_knowledge
from kanoclip.train.model.kanoclip import ModelConfig
from kanoclip.train.training.config import TrainConfig
from kanoclip.train.training.job import CacheConfig, prepare
from kanoclip.train.training.trainer import Trainer

EXAMPLES = Path(__file__).parents[3] / "examples" / "hazelnut_toy"


def write_tree(root: Path, category: str, good: slice = slice(3), bad: slice = slice(8), size: int = 64) -> None:
    """Some of the photographs and masks, shrunk, as one category."""
    goods = sorted((EXAMPLES / "test" / "good").glob("*"))[good]
    bads = sorted((EXAMPLES / "test" / "colour").glob("*"))[bad]
    for folder, paths in (("test/good", goods), ("test/colour", bads)):
        (root / category / folder).mkdir(parents=True)
        for path in paths:
            image = cv2.resize(cv2.imread(str(path)), (size, size), interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(root / category / folder / f"{path.stem}.png"), image)
    masks = root / category / "ground_truth" / "colour"
    masks.mkdir(parents=True)
    for path in bads:
        mask = cv2.imread(str(EXAMPLES / "ground_truth" / "colour" / f"{path.stem}_mask.png"), cv2.IMREAD_GRAYSCALE)
        mask = cv2.resize(mask, (size, size), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(masks / f"{path.stem}_mask.png"), mask)


@pytest.fixture(name="write_tree", scope="session")
def write_tree_fixture():
    return write_tree


@pytest.fixture(scope="session")
def tree(tmp_path_factory) -> Path:
    """Two categories; leave it as it is."""
    root = tmp_path_factory.mktemp("tree")
    write_tree(root, "hazelnut")
    write_tree(root, "bottle", good=slice(3, 6), bad=slice(8, 12))
    return root


@dataclass
class Recorder:
    """A listener that keeps everything."""

    steps: list[tuple[int, dict]] = field(default_factory=list)
    records: list[dict] = field(default_factory=list)
    first: object = None

    def started(self, epochs, steps, progress):
        self.first = progress

    def stepped(self, step, means):
        self.steps.append((step, dict(means)))

    def finished_epoch(self, record):
        self.records.append(dict(record))


@pytest.fixture(scope="session")
def make_trainer(tree):
    """A trainer on the tree; `model` holds options of ModelConfig, the rest is TrainConfig's."""

    def make(output, *, root=tree, cache=None, limit=2**30, model=None, knowledge=None, workers=0, **options):
        config = TrainConfig(
            ModelConfig("random-tiny", (48, 48), **(model or {})), **{"epochs": 2, "batch_size": 4, **options}
        )
        job = prepare(
            config,
            open_dataset("mvtec", root),
            knowledge or shipped_knowledge(),
            build_model(config.model, "none", config.seed),
            output,
            cache and CacheConfig(cache, limit),
            lambda: None,
        )
        accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(split_batches=True))
        return Trainer(config, job, accelerator, Recorder(), workers)

    return make


@pytest.fixture(scope="session")
def run(make_trainer):
    """Runs a trainer to its end, or until `stop_after` steps of this call; (outcome, recorder)."""

    def run(output, *, resume=False, stop_after=None, **options):
        trainer = make_trainer(output, **options)
        recorder = trainer.listener

        def stop():
            return stop_after is not None and len(recorder.steps) >= stop_after

        outcome = trainer.run(resume=resume, save_every=float("inf"), stop=stop)
        return outcome, recorder

    return run


@pytest.fixture(scope="session")
def tensors():
    """Tensors of a checkpoint."""
    from safetensors.torch import load_file

    return load_file


@pytest.fixture
def picture() -> np.ndarray:
    """A photograph, uint8 [48, 48, 3]."""
    image = cv2.imread(str(next((EXAMPLES / "test" / "colour").glob("*"))))
    return cv2.resize(image, (48, 48), interpolation=cv2.INTER_AREA)
