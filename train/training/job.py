"""From a dataset, a model and a knowledge base to all that a run works on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

from kanoclip.runtime.system.installed import installed_versions
from kanoclip.train.checkpoint import LoadedModel
from kanoclip.train.data.types import Category, Dataset
from kanoclip.train.knowledge.base import ClassTexts, KnowledgeBase
from kanoclip.train.training.cache import FeatureCache, features_shape, tower_key
from kanoclip.train.training.config import TrainConfig
from kanoclip.train.training.images import TrainingImage, TrainingSet, scan
from kanoclip.train.training.state import identity


@dataclass(frozen=True)
class Job:
    """What a run works on, next to its configuration.

    Attributes:
        loaded: The model, in its first state.
        images: The training set.
        class_names: Words for [class], for each class.
        knowledge: Descriptions for each class; no abnormal one leaves it out of the KD loss.
        run: `state.identity`.
        output: The checkpoint to write.
        about: What the checkpoint's json tells people about the data.
    """

    loaded: LoadedModel
    images: TrainingSet
    class_names: tuple[str, ...]
    knowledge: tuple[ClassTexts, ...]
    run: Mapping[str, Any]
    output: Path
    about: Mapping[str, Any]


@dataclass(frozen=True)
class CacheConfig:
    """Where features are saved, and how many bytes of them."""

    folder: Path
    limit: int


def prepare(
    config: TrainConfig,
    dataset: Dataset,
    base: KnowledgeBase,
    loaded: LoadedModel,
    output: Path,
    cache: CacheConfig | None,
    advance: Callable[[], None],
) -> Job:
    """Reads the images and puts a run's parts together.

    Args:
        config: Of the run.
        dataset: To train on.
        base: For the KD loss.
        loaded: The model, in its first state.
        output: The checkpoint to write.
        cache: For the tower's features; None for none.
        advance: Called after each image.

    Raises:
        DataError: An image or mask is damaged.
        TrainingError: A kind of image is missing, or the cache cannot be written.
    """
    size = config.model.image_size
    images = scan(dataset, size, advance)
    names = tuple(config.class_name or category.class_name for category in dataset.categories)
    # Without KnPL no prompt learns, so that there is nothing for the knowledge base to guide.
    guided = config.model.prompts == "learned" and config.kd_weight > 0
    knowledge = tuple(
        _texts(base, dataset.name, category, config) if guided else ClassTexts() for category in dataset.categories
    )
    # The margin itself, and not "the default", which another version may choose otherwise.
    applied = replace(config, kd_margin=config.hinge_margin)
    tower = loaded.model.tower
    store = None
    if cache is not None:
        store = FeatureCache(cache.folder, tower_key(tower, config.amp), features_shape(tower), cache.limit)
    return Job(
        loaded=loaded,
        images=TrainingSet(images, size, store, config.seed if config.augment else None),
        class_names=names,
        knowledge=knowledge,
        run=identity(
            applied,
            _images_digest(images, names),
            _digest([astuple(texts) for texts in knowledge]),
            loaded.weights.sha256,
        ),
        output=output,
        about={
            "versions": installed_versions(("kanoclip-edge", "torch", "open_clip_torch")),
            "dataset": dataset.name,
            "root": dataset.root.name,
            "categories": {
                category.name: {
                    "class_name": name,
                    "normal": sum(not sample.anomalous for sample in category.samples),
                    "anomalous": sum(sample.anomalous for sample in category.samples),
                    "descriptions": len(texts.abnormal),
                }
                for category, name, texts in zip(dataset.categories, names, knowledge, strict=True)
            },
        },
    )


def _texts(base: KnowledgeBase, dataset: str, category: Category, config: TrainConfig) -> ClassTexts:
    """The descriptions that the KD loss reads: eq. 2 as printed knows no normal ones."""
    entry = base.find(dataset, category.name, category.class_name)
    if entry is None:
        return ClassTexts()
    abnormal = entry.descriptions if config.observed else entry.abnormal
    if config.kd_form != "anchored" or not abnormal:
        return ClassTexts(abnormal)
    written = entry.written if config.normal_texts != "derived" else ()
    derived = entry.normal if config.normal_texts != "written" or not written else ()
    return ClassTexts(abnormal, (*derived, *written))


def _digest(content: Sequence[Any]) -> str:
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()


def _images_digest(images: Sequence[TrainingImage], names: Sequence[str]) -> str:
    masks = ["" if p.mask is None else hashlib.blake2b(p.mask.tobytes(), digest_size=16).hexdigest() for p in images]
    rows = [
        [image.digest, names[image.class_index], image.sample.anomalous, mask]
        for image, mask in zip(images, masks, strict=True)
    ]
    return _digest(rows)
