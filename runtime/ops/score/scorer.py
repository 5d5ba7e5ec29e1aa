"""One engine that scores slices: the same in a process of this machine and in an actor of a cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from kanoclip.runtime.bundle.bundle import sha256_of
from kanoclip.runtime.bundle.manifest.schema import MANIFEST_NAME
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.detect.preprocess import Prepared
from kanoclip.runtime.detect.settings.settings import Settings
from kanoclip.runtime.engines import BACKENDS
from kanoclip.runtime.engines.triton.address import is_triton
from kanoclip.runtime.errors import BundleError, FrameError, KanoclipError, SettingsError
from kanoclip.runtime.ops.score.listing import Item
from kanoclip.runtime.ops.score.measures import MEAN_SIDE, Measures, grey_thumbnail, measure
from kanoclip.runtime.ops.score.places import read_bytes
from kanoclip.runtime.ops.score.table import Scored, Unscored, encode_part
from kanoclip.runtime.sources.files.images import decode_image
from kanoclip.runtime.sources.files.reading import AS_IT_IS, Reading
from kanoclip.runtime.types import Detection, FloatMap

MAP_LEVELS = 65535
"""A map's file holds its values in 16 bits: 0 is 0 and this is 1."""


@dataclass(frozen=True)
class Engine:
    """What scores.

    Attributes:
        bundle: Its folder.
        bundle_sha256: Of its manifest, which holds those of all other files: every process must find the same.
        backend: As `create_backend` takes it.
        device: As `create_backend` takes it.
        threads: CPU threads of the engine; a server has its own.
        settings: Over the bundle's thresholds.
        class_name: Of images whose work list names none.
        maps: Whether whole maps are saved.
        readers: Threads that read ahead; 1 reads between two images.
        reading: How images are read.
    """

    bundle: Path
    bundle_sha256: str
    backend: str
    device: str
    threads: int
    settings: Settings
    class_name: str
    maps: bool = False
    readers: int = 1
    reading: Reading = AS_IT_IS


@dataclass(frozen=True)
class Part:
    """What became of a slice.

    Attributes:
        number: The slice's.
        table: Its rows, a whole Parquet file.
        maps: By their files' names, PNG of 16 bits.
        unscored: Rows with an error.
        anomalous: Rows that are.
    """

    number: int
    table: bytes
    maps: Mapping[str, bytes]
    unscored: int
    anomalous: int


@dataclass(frozen=True)
class _Ready:
    place: int
    prepared: Prepared
    measures: Measures


@dataclass
class _Rows:
    """A slice's rows as they come in."""

    found: dict[int, Scored | Unscored] = field(default_factory=dict)
    maps: dict[str, bytes] = field(default_factory=dict)
    sums: np.ndarray = field(default_factory=lambda: np.zeros((MEAN_SIDE, MEAN_SIDE), np.uint64))


class Scorer:
    """Scores slices, one at a time.

    Args:
        engine: What scores.

    Raises:
        KanoclipError: The bundle is another one, or the engine cannot be made.
    """

    def __init__(self, engine: Engine) -> None:
        cv2.setNumThreads(1)  # there is a process for every core
        if manifest_digest(engine.bundle) != engine.bundle_sha256:
            raise BundleError(f"{engine.bundle} is not the bundle that the run began with: copy it here again")
        self._engine = engine
        self._detector = Detector.load(
            engine.bundle,
            backend=engine.backend,
            device=engine.device,
            threads=None if is_triton(engine.backend) else engine.threads,
            settings=engine.settings,
        )
        self._detector.warmup(1)

    @property
    def backend(self) -> str:
        """What runs, as `create_backend` takes it, so that other processes can use the same."""
        if self._engine.backend != "auto":  # a server's address among them
            return self._engine.backend
        named = self._detector.backend.name
        fitting = [name for name in BACKENDS if named == name or named.startswith(name + "-")]
        return max(fitting, key=len)

    @property
    def runs_on(self) -> str:
        """Engine and device, such as `onnxruntime-cpu`."""
        return self._detector.backend.name

    def close(self) -> None:
        """Releases the engine."""
        self._detector.close()

    def score(
        self,
        number: int,
        items: Sequence[Item],
        *,
        left_out: Mapping[int, str] | None = None,
        careful: bool = False,
        on_image: Callable[[int], None] = lambda place: None,
    ) -> Part:
        """Scores a slice.

        Batches begin anew with each slice and hold one class, so what an image is scored together with does not depend
        on who scores it, or on what was scored before.

        Args:
            number: The slice's.
            items: Its images.
            left_out: Places in it that are not to be touched, with the reason.
            careful: Read each image only when its turn comes, so that `on_image` names the image to blame for a crash.
            on_image: Called with an image's place in the slice before it is read.

        Raises:
            BackendError: The engine failed.
        """
        rows = _Rows()
        batch: list[_Ready] = []
        of_class = ""
        for place, read in self._read(items, left_out or {}, careful, on_image):
            class_name = items[place].class_name or self._engine.class_name
            if isinstance(read, str):
                rows.found[place] = Unscored(items[place].path, class_name, read)
                continue
            if batch and (class_name != of_class or len(batch) == self._detector.batch_size):
                self._infer(number, items, batch, of_class, rows)
                batch = []
            of_class = class_name
            batch.append(read)
        if batch:
            self._infer(number, items, batch, of_class, rows)
        ordered = [rows.found[place] for place in range(len(items))]
        scored = [row for row in ordered if isinstance(row, Scored)]
        return Part(
            number=number,
            table=encode_part(ordered, rows.sums),
            maps=rows.maps,
            unscored=len(ordered) - len(scored),
            anomalous=sum(row.detection.is_anomalous for row in scored),
        )

    def _infer(self, number: int, items: Sequence[Item], batch: list[_Ready], class_name: str, rows: _Rows) -> None:
        pixel_threshold = self._detector.thresholds_of(class_name).pixel
        detections = self._detector.infer([one.prepared for one in batch], class_name)
        for one, detection in zip(batch, detections, strict=True):
            name = None
            if self._engine.maps:
                name = map_name(number, one.place)
                rows.maps[name] = encode_map(detection.map)
            rows.sums += grey_thumbnail(one.prepared.image)
            rows.found[one.place] = _row(items[one.place].path, one, detection, pixel_threshold, name)

    def _read(
        self, items: Sequence[Item], left_out: Mapping[int, str], careful: bool, on_image: Callable[[int], None]
    ) -> Iterator[tuple[int, _Ready | str]]:
        """Reads images in order, ahead of who takes them where several threads are to."""

        def read(place: int) -> _Ready | str:
            return left_out[place] if place in left_out else self._prepare(place, items[place])

        if careful or self._engine.readers == 1:
            for place in range(len(items)):
                on_image(place)
                yield place, read(place)
            return
        with ThreadPoolExecutor(self._engine.readers, thread_name_prefix="kanoclip-reader") as pool:
            ahead: deque[Future[_Ready | str]] = deque()
            following = 0
            for place in range(len(items)):
                while following < len(items) and len(ahead) < 2 * self._engine.readers:
                    ahead.append(pool.submit(read, following))
                    following += 1
                on_image(place)
                yield place, ahead.popleft().result()

    def _prepare(self, place: int, item: Item) -> _Ready | str:
        """Reads, decodes and resizes an image, and measures it; or the reason why that cannot be."""
        raw = read_bytes(item.path, self._engine.reading)
        frame = raw if isinstance(raw, str) else decode_image(raw, Path(item.path), self._engine.reading)
        if isinstance(frame, str):
            return frame
        try:
            prepared = self._detector.prepare(frame, item.class_name or self._engine.class_name)
        except (FrameError, SettingsError) as error:  # an unknown class, or polygons of another image's size
            return str(error)
        return _Ready(place, prepared, measure(frame, prepared.image))


def manifest_digest(bundle: Path) -> str:
    """sha256 of a bundle's manifest.

    Raises:
        BundleError: It cannot be read.
    """
    try:
        return sha256_of(bundle / MANIFEST_NAME)
    except OSError as error:
        raise BundleError(f"{bundle}: its {MANIFEST_NAME} cannot be read ({error.strerror})") from error


def map_name(number: int, place: int) -> str:
    """A map's file: a folder for each slice, since no folder should hold a million names."""
    return f"{number:08}/{place:05}.png"


def encode_map(anomaly_map: FloatMap) -> bytes:
    """A map as PNG of 16 bits, `MAP_LEVELS` to 1.

    Args:
        anomaly_map: float32 [h, w] in [0, 1].

    Raises:
        KanoclipError: OpenCV cannot write it.
    """
    done, encoded = cv2.imencode(".png", np.rint(np.clip(anomaly_map, 0, 1) * MAP_LEVELS).astype(np.uint16))
    if not done:
        raise KanoclipError("OpenCV cannot write a map as PNG: leave --maps out")
    return encoded.tobytes()


def _row(path: str, one: _Ready, detection: Detection, pixel_threshold: float, name: str | None) -> Scored:
    return Scored(
        path=path,
        detection=detection,
        pixel_threshold=pixel_threshold,
        height=one.prepared.height,
        width=one.prepared.width,
        measures=one.measures,
        map_file=name,
    )
