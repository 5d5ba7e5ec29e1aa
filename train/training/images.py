"""The training images: read and checked once before the first step, then given out in batches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kanoclip.runtime.detect.preprocess import resize
from kanoclip.runtime.errors import DataError, TrainingError
from kanoclip.runtime.sources.files.reading import AS_IT_IS
from kanoclip.runtime.system.files.regular import read_small
from kanoclip.train.data.images import read_image
from kanoclip.train.data.masks import read_mask, training_mask
from kanoclip.train.data.types import Dataset, Sample
from kanoclip.train.training.augment import augment
from kanoclip.train.training.cache import FeatureCache

_SCAN_THREADS = 4


@dataclass(frozen=True)
class TrainingImage:
    """One training image.

    Attributes:
        sample: Where it lies and what it shows.
        class_index: Index of its category in the dataset.
        digest: Of the file's bytes: the cache's key.
        mask: Its mask at model size, 8 pixels to a byte; None where no pixel is anomalous, or the mask is not known.
    """

    sample: Sample
    class_index: int
    digest: str
    mask: npt.NDArray[np.uint8] | None

    @property
    def known(self) -> bool:
        """Whether its anomalous pixels are known: a normal image has none."""
        return self.mask is not None or not self.sample.anomalous


class Batch(NamedTuple):
    """Some images at model size. Each is in `features` or in `frames`, and the two together are the batch.

    Attributes:
        features: Cached features, float16 [k, 4 P + 1, C].
        cached: Positions of `features` in the batch, int64 [k].
        frames: The other images, uint8 [m, H, W, 3], BGR.
        fresh: Positions of `frames` in the batch, int64 [m].
        indices: Of each image in the training set, int64 [B].
        class_index: int64 [B].
        labels: 1 for anomalous, float32 [B].
        masks: 1 for anomalous pixels, uint8 [B, H, W].
        known: Images whose mask is known, bool [B].
    """

    features: Tensor
    cached: Tensor
    frames: Tensor
    fresh: Tensor
    indices: Tensor
    class_index: Tensor
    labels: Tensor
    masks: Tensor
    known: Tensor


class Item(NamedTuple):
    """One image of a batch; either its features or its frame are there."""

    number: int
    features: Tensor | None
    frame: Tensor | None
    mask: Tensor


class TrainingSet(torch.utils.data.Dataset[Item]):
    """Images by (epoch, index), and their collation to a `Batch`."""

    def __init__(
        self,
        images: Sequence[TrainingImage],
        size: tuple[int, int],
        cache: FeatureCache | None,
        augment_seed: int | None,
    ) -> None:
        """Takes what `scan` found.

        Args:
            images: The training images.
            size: (height, width) of the model.
            cache: Where features may lie, None to read every image.
            augment_seed: Seed of the augmentation, None for none. Excludes the cache.
        """
        if cache is not None and augment_seed is not None:
            raise TrainingError("augmented images have no features in the cache: leave one of the two out")
        self.images, self.size, self.cache, self.augment_seed = tuple(images), size, cache, augment_seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        """The image of an (epoch, index)."""
        epoch, index = key
        image = self.images[index]
        mask = self._mask(image)
        if self.cache is not None and (features := self.cache.load(image.digest)) is not None:
            return Item(index, features, None, torch.from_numpy(mask))
        frame = resize(read_image(image.sample.image), *self.size)
        if self.augment_seed is not None:
            frame, mask = augment(frame, mask, (self.augment_seed, epoch, index))
        return Item(index, None, torch.from_numpy(frame), torch.from_numpy(mask))

    def collate(self, items: Sequence[Item]) -> Batch:
        """Items -> a batch."""
        features = [item.features for item in items if item.features is not None]
        frames = [item.frame for item in items if item.frame is not None]
        images = [self.images[item.number] for item in items]
        return Batch(
            features=torch.stack(features) if features else torch.empty(0),
            cached=torch.tensor([i for i, item in enumerate(items) if item.features is not None], dtype=torch.int64),
            frames=torch.stack(frames) if frames else torch.empty(0),
            fresh=torch.tensor([i for i, item in enumerate(items) if item.features is None], dtype=torch.int64),
            indices=torch.tensor([item.number for item in items]),
            class_index=torch.tensor([image.class_index for image in images]),
            labels=torch.tensor([float(image.sample.anomalous) for image in images]),
            masks=torch.stack([item.mask for item in items]),
            known=torch.tensor([image.known for image in images]),
        )

    def _mask(self, image: TrainingImage) -> npt.NDArray[np.uint8]:
        if image.mask is None:
            return np.zeros(self.size, np.uint8)
        return np.unpackbits(image.mask, count=self.size[0] * self.size[1]).reshape(self.size)


class EpochOrder(torch.utils.data.Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index): a new order in each epoch, the same for the same seed and on every process.

    The last batch is filled up from the epoch's first images, so that every batch can be shared out evenly.
    """

    drop_last = False

    def __init__(self, length: int, batch_size: int, seed: int) -> None:
        """Orders `length` images."""
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.epoch, self.start = 0, 0

    def begin(self, epoch: int, start: int) -> None:
        """Chooses the epoch, and the batch in it that comes first."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        return -(-self.length // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        order = np.resize(order, len(self) * self.batch_size)
        for batch in order.reshape(len(self), self.batch_size)[self.start :]:
            yield [(self.epoch, int(index)) for index in batch]


def scan(dataset: Dataset, size: tuple[int, int], advance: Callable[[], None]) -> list[TrainingImage]:
    """Reads every image and mask of a dataset once, so that a damaged one is found before hours of training.

    Args:
        dataset: Whose images to train on.
        size: (height, width) of the model.
        advance: Called after each image.

    Raises:
        DataError: An image or mask is damaged, or of another size than its image.
        TrainingError: There are no anomalous images, or no normal ones.
    """
    jobs = [(sample, index) for index, category in enumerate(dataset.categories) for sample in category.samples]
    for wanted in (False, True):
        if not any(sample.anomalous is wanted for sample, _ in jobs):
            kind = "anomalous" if wanted else "normal"
            raise TrainingError(f"{dataset.root} has no {kind} image to train on: learning needs both kinds")

    def read(job: tuple[Sample, int]) -> TrainingImage:
        sample, index = job
        try:
            digest = hashlib.blake2b(read_small(sample.image, AS_IT_IS.max_bytes), digest_size=16).hexdigest()
        except OSError as error:
            raise DataError(f"cannot read {sample.image}: {error.strerror}") from error
        image = read_image(sample.image)
        mask = None
        if sample.mask is not None:
            mask = np.packbits(training_mask(read_mask(sample.mask, image.shape[:2]), *size))
        advance()
        return TrainingImage(sample, index, digest, mask)

    with ThreadPoolExecutor(_SCAN_THREADS) as pool:
        return list(pool.map(read, jobs))
