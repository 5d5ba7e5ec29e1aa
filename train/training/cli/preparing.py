"""What `kanoclip-train` reads before its first step: dataset, knowledge base, model, cache."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kanoclip.runtime.cli.terminal.bar import counted
from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.train.training.cli.options import TrainOptions

if TYPE_CHECKING:
    from kanoclip.train.knowledge.base import KnowledgeBase
    from kanoclip.train.training.config import TrainConfig
    from kanoclip.train.training.job import Job


def read_job(
    options: TrainOptions, config: TrainConfig, output: Path, console: Console, notify: Callable[[str], None]
) -> Job:
    """Reads dataset, knowledge base and model."""
    from kanoclip.train.checkpoint import build_model
    from kanoclip.train.data.registry import open_dataset
    from kanoclip.train.training.job import CacheConfig, prepare

    dataset = open_dataset(options.dataset, options.root, categories=options.categories, split=options.split)
    for problem in dataset.problems[:3]:
        notify(f"warning: {problem.path}: {problem.reason}")
    if len(dataset.problems) > 3:
        notify(f"warning: {len(dataset.problems)} problems in all: see `kanoclip-data check`")
    base = read_knowledge(options.knowledge)
    loaded = build_model(config.model, options.weights, config.seed)
    if not loaded.weights.trained:
        notify(f"warning: {options.backbone} has {loaded.weights.origin} weights, which know nothing of images or text")
    cache = None
    if not (options.no_cache or config.augment):
        folder = options.cache_folder or _default_cache()
        cache = CacheConfig(folder, int(options.cache_size * 2**30))
    total = sum(len(category.samples) for category in dataset.categories)
    with counted(console, "reading images and masks", total, quiet=options.quiet) as advance:
        job = prepare(config, dataset, base, loaded, output, cache, advance)
    _describe(job, config, notify)
    return job


def read_knowledge(files: tuple[Path, ...]) -> KnowledgeBase:
    """The knowledge bases of some files as one; the one that ships where there are none.

    Raises:
        KnowledgeError: A file cannot be read, or is none.
    """
    from kanoclip.train.knowledge.base import load_knowledge, merged, shipped_knowledge

    return merged([load_knowledge(path) for path in files]) if files else shipped_knowledge()


def _describe(job: Job, config: TrainConfig, notify: Callable[[str], None]) -> None:
    """Warns of images and classes that a loss will pass over."""
    unknown = sum(not image.known for image in job.images.images)
    if unknown:
        notify(f"warning: {unknown} anomalous images have no mask: the local loss passes them over")
    if config.model.prompts == "learned" and config.kd_weight > 0:
        missing = [name for name, texts in zip(job.class_names, job.knowledge, strict=True) if not texts.abnormal]
        if missing:
            notify(
                f"warning: the knowledge base has no entry for {', '.join(sorted(set(missing)))}: the KD loss passes "
                "them over (`kanoclip-knowledge build` makes one, --knowledge FILE reads it)"
            )


def _default_cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "kanoclip" / "features"
