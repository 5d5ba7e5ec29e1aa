"""From the slices' files to one table, in the order of the work list and in bounded memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kanoclip.runtime.errors import SinkError, one_line
from kanoclip.runtime.ops.score.measures import MEAN_SIDE
from kanoclip.runtime.ops.score.run_folder import GOES_ON, RunFolder
from kanoclip.runtime.ops.score.table import COMPRESSION, MEAN_KEY, RUN_KEY, pack_sum, parquet, schema, unpack_sum
from kanoclip.runtime.system.files.regular import open_regular

ROW_GROUP = 16_384
"""Rows that are in memory at a time, more or less: row groups end where slices do."""

BLOCKS = 40
"""The most pieces of a run whose mean images are saved: they show when a camera moved."""


@dataclass(frozen=True)
class Counts:
    """What is in a table.

    Attributes:
        images: Rows.
        unscored: Those with an error.
        anomalous: Those that are.
    """

    images: int
    unscored: int
    anomalous: int


def merge(
    folder: RunFolder, slices: int, run: dict[str, Any], on_progress: Callable[[int], None] = lambda n: None
) -> Counts:
    """Writes the table beside its place, and renames it once it is on disk.

    Nothing in it depends on when or by whom a slice was scored: the same run makes the same bytes.

    Args:
        folder: The run's.
        slices: How many there are; all are done.
        run: What made the table, for its metadata; the counts are added.
        on_progress: Called with the number of slices so far.

    Raises:
        SinkError: The table cannot be written.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    beside = folder.output.with_name(f"{folder.output.name}.{os.getpid()}.part")
    stride = -(-slices // BLOCKS)
    sums = np.zeros((-(-slices // stride), MEAN_SIDE, MEAN_SIDE), np.uint64)
    blocks = [{"rows": 0, "scored": 0} for _ in sums]
    unscored = anomalous = rows = 0
    waiting: list[Any] = []
    try:
        with parquet().ParquetWriter(beside, schema(), compression=COMPRESSION) as writer:
            for number in range(slices):
                with parquet().ParquetFile(folder.part_path(number)) as part:
                    table = part.read(use_threads=False)
                scored = table["error"].null_count
                sums[number // stride] += unpack_sum(table.schema.metadata[MEAN_KEY])[0]
                blocks[number // stride]["rows"] += table.num_rows
                blocks[number // stride]["scored"] += scored
                unscored += table.num_rows - scored
                anomalous += pc.sum(table["is_anomalous"]).as_py() or 0
                waiting.append(table.replace_schema_metadata(None))
                if sum(one.num_rows for one in waiting) >= ROW_GROUP or number == slices - 1:
                    group = pa.concat_tables(waiting)
                    writer.write_table(group, row_group_size=group.num_rows)
                    rows += group.num_rows
                    waiting.clear()
                on_progress(number + 1)
            counts = Counts(rows, unscored, anomalous)
            made = {**run, "unscored": unscored, "anomalous": anomalous, "blocks": blocks}
            run_json = json.dumps(made, sort_keys=True)
            writer.add_key_value_metadata({RUN_KEY: run_json.encode(), MEAN_KEY: pack_sum(sums)})
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        beside.replace(folder.output)
    except (OSError, ValueError) as error:
        raise SinkError(f"{folder.output} cannot be written ({one_line(error)}); {GOES_ON}") from error
    finally:
        beside.unlink(missing_ok=True)
    return counts


def read_run(path: Path) -> dict[str, Any]:
    """What made a table.

    Raises:
        SinkError: It is no table of kanoclip-score.
    """
    try:
        open_regular(path).close()  # a pipe would never begin
        with parquet().ParquetFile(path) as file:
            metadata = file.metadata.metadata or {}
            value = json.loads(metadata[RUN_KEY])
    except FileNotFoundError as error:
        raise SinkError(f"{path}: no such file") from error
    except (OSError, ValueError, KeyError, RecursionError) as error:
        reason = "no record of a run in it" if isinstance(error, KeyError) else one_line(error)
        raise SinkError(f"{path} is no table of kanoclip-score ({reason})") from error
    if not isinstance(value, dict):
        raise SinkError(f"{path} is no table of kanoclip-score (its record is damaged)")
    return value
