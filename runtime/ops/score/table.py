"""The table of results: its columns, and the part of it that one slice makes."""

from __future__ import annotations

import base64
import io
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.errors import SourceError
from kanoclip.runtime.ops.score.measures import MEAN_SIDE, Measures
from kanoclip.runtime.types import Detection

RUN_KEY, MEAN_KEY = b"kanoclip.run", b"kanoclip.mean_picture"
"""Of the file's metadata: what made the table, as JSON; sums of images, see `pack_sum`."""
COMPRESSION = "zstd"
MOST_ROWS = 1 << 24
"""Of a table; more are several tables."""
MOST_TEXT = 1 << 15
"""Bytes of a path or URL."""
MOST_GROUP = 1 << 30
"""Bytes of a group of rows, which is read at once."""
MOST_SUM = 1 << 26
Sums = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Scored:
    """An image that was scored.

    Attributes:
        path: Path or URL.
        detection: The detector's result.
        pixel_threshold: Map value from which a pixel belongs to the mask.
        height: Rows of the image.
        width: Columns of the image.
        measures: What it looks like.
        map_file: Where its map is saved, relative to the folder of maps; None without.
    """

    path: str
    detection: Detection
    pixel_threshold: float
    height: int
    width: int
    measures: Measures
    map_file: str | None = None


@dataclass(frozen=True, slots=True)
class Unscored:
    """An image that was not.

    Attributes:
        path: Path or URL.
        class_name: What it should show.
        reason: Why not.
    """

    path: str
    class_name: str
    reason: str


@lru_cache(maxsize=1)
def schema() -> Any:
    """The columns. `docs/scale.md` says what each one holds."""
    parquet()
    import pyarrow as pa

    region = pa.struct(
        [(name, pa.int32()) for name in ("x", "y", "width", "height")] + [("score", pa.float64()), ("area", pa.int64())]
    )
    mask = pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.list_(pa.int32()))])
    measured = [(name, pa.float64()) for name in ("brightness", "contrast", "sharpness", "red", "green", "blue")]
    return pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            pa.field("class", pa.string(), nullable=False),
            ("score", pa.float64()),
            ("threshold", pa.float64()),
            ("is_anomalous", pa.bool_()),
            ("peak", pa.float64()),
            ("regions", pa.list_(region)),
            ("mask", mask),
            ("map_file", pa.string()),
            ("height", pa.int32()),
            ("width", pa.int32()),
            *measured,
            ("error", pa.string()),
        ]
    )


def encode_part(rows: Sequence[Scored | Unscored], sums: Sums) -> bytes:
    """A slice's rows as a Parquet file.

    Args:
        rows: In the order of the work list.
        sums: uint64 [MEAN_SIDE, MEAN_SIDE], the sum of the grey thumbnails of the images that were scored.
    """
    parquet()
    import pyarrow as pa

    values = [_scored(row) if isinstance(row, Scored) else _unscored(row) for row in rows]
    table = pa.Table.from_pylist(values, schema()).replace_schema_metadata({MEAN_KEY: pack_sum(sums)})
    out = io.BytesIO()
    parquet().write_table(table, out, compression=COMPRESSION)
    return out.getvalue()


def _scored(row: Scored) -> Mapping[str, Any]:
    found = row.detection
    hot = found.map >= row.pixel_threshold
    return {
        "path": _text(row.path),
        "class": found.class_name,
        "score": found.score,
        "threshold": found.threshold,
        "is_anomalous": found.is_anomalous,
        "peak": float(found.map.max()),
        "regions": [asdict(region) for region in found.regions],
        "mask": {"size": list(hot.shape), "counts": encode_runs(hot)},
        "map_file": row.map_file,
        "height": row.height,
        "width": row.width,
        **asdict(row.measures),
    }


def _unscored(row: Unscored) -> Mapping[str, Any]:
    return {"path": _text(row.path), "class": row.class_name, "error": _text(row.reason)}


def _text(path: str) -> str:
    """A table's text is UTF-8: other bytes of a file's name are written as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def pack_sum(sums: Sums) -> bytes:
    """Sums of grey levels, [..., MEAN_SIDE, MEAN_SIDE], as text.

    Whole numbers: parts add up to the same in any order.
    """
    return base64.b64encode(zlib.compress(sums.astype("<u8").tobytes(), 6))


def unpack_sum(packed: bytes) -> Sums:
    """The opposite, uint64 [n, MEAN_SIDE, MEAN_SIDE].

    Raises:
        ValueError: It is no such sum.
    """
    try:
        inflated = zlib.decompressobj()
        values = np.frombuffer(inflated.decompress(base64.b64decode(packed), MOST_SUM), "<u8")
    except zlib.error as error:
        raise ValueError(f"no sum of images ({error})") from error
    if not inflated.eof:
        raise ValueError(f"a sum of images of over {MOST_SUM >> 20} MiB")
    return values.astype(np.uint64).reshape(-1, MEAN_SIDE, MEAN_SIDE)


def check_table(file: Any, source: object, columns: Sequence[str] = ()) -> None:
    """Refuses a table that is too large to be what it should, by its footer: 82 KB can hold 30 million rows.

    Args:
        file: A `ParquetFile`.
        source: What messages call it.
        columns: Those of texts that will be read.

    Raises:
        SourceError: It is too large.
    """
    footer = file.metadata
    if footer.num_rows > MOST_ROWS:
        raise SourceError(f"{source} has {footer.num_rows:,} rows: split it, a table has at most {MOST_ROWS:,}")
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        if group.total_byte_size > MOST_GROUP:
            raise SourceError(f"{source}: a group of rows has over {MOST_GROUP >> 20} MiB: write it in smaller groups")
        for place in range(group.num_columns):
            column = group.column(place)
            if column.path_in_schema in columns and column.total_uncompressed_size > _room(group.num_rows):
                raise SourceError(f"{source}: column {column.path_in_schema!r} has texts of over {MOST_TEXT:,} bytes")


def texts(column: Any) -> list[Any]:
    """A batch's column of texts, which was read as a dictionary: a text that a million rows share is there once.

    Raises:
        ValueError: A text is too long.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kinds = column.dictionary if pa.types.is_dictionary(column.type) else column
    is_text = pa.types.is_string(kinds.type) or pa.types.is_large_string(kinds.type)
    if is_text and (pc.max(pc.binary_length(kinds)).as_py() or 0) > MOST_TEXT:
        raise ValueError(f"a text of over {MOST_TEXT:,} bytes")
    return list(column.to_pylist())


def _room(rows: int) -> int:
    return (rows + 1) * MOST_TEXT


def parquet() -> Any:
    """`pyarrow.parquet`.

    Raises:
        SourceError: It is not installed.
    """
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise SourceError("pyarrow is not installed: pip install 'kanoclip-edge[score]'") from error
    return pyarrow.parquet


def encode_runs(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Lengths of runs down the columns, one column after the other; the first counts pixels that are not set.

    COCO's uncompressed RLE: with `size` [h, w], `pycocotools.mask.frPyObjects` takes it as it is.

    Args:
        mask: [h, w].
    """
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return [0, *lengths] if flat[0] else lengths


def decode_runs(counts: Sequence[int], height: int, width: int) -> npt.NDArray[np.bool_]:
    """The mask [height, width] that `encode_runs` took.

    Raises:
        ValueError: The runs do not fill it.
    """
    if not 0 < height * width <= MOST_SUM or sum(counts) != height * width or min(counts, default=0) < 0:
        raise ValueError(f"runs of {sum(counts)} pixels for a mask of {height}x{width}")
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return np.ascontiguousarray(flat.reshape(width, height).T)
