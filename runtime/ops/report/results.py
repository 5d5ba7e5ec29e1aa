"""What a page needs of a table: columns of figures whole, rows of images only where they are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.errors import SinkError, one_line
from kanoclip.runtime.ops.score.merge import read_run
from kanoclip.runtime.ops.score.table import MEAN_KEY, check_table, parquet, unpack_sum

MEASURES = ("brightness", "contrast", "sharpness", "red", "green", "blue")
REASONS = 200
"""Rows without a score that are listed; all are counted."""
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Group:
    """Images of one class, or in one folder.

    Attributes:
        name: Its name.
        images: How many.
        anomalous: Those that are.
        unscored: Those with an error.
        median: Of the scores; NaN where there are none.
        p95: 95th percentile of the scores.
        highest: Score.
    """

    name: str
    images: int
    anomalous: int
    unscored: int
    median: float
    p95: float
    highest: float


class Results:
    """A table, opened.

    Args:
        path: Of the table.

    Attributes:
        path: Of the table.
        run: What made it.
        rows: How many.
        scores: float64 [rows], NaN where there is an error.
        thresholds: The same of the image thresholds.
        anomalous: bool [rows].
        measures: float64 [rows] of each of `MEASURES`, NaN where there is an error.
        sums: uint64 [blocks, 64, 64], sums of grey images along the run.
        blocks: Rows and scored images of each block.

    Raises:
        SinkError: It is no table of kanoclip-score.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run = read_run(path)
        names = ["score", "threshold", "is_anomalous", *MEASURES]
        try:
            with parquet().ParquetFile(path) as file:
                check_table(file, path)
                self.rows = int(file.metadata.num_rows)
                self._starts = np.cumsum(
                    [0, *(file.metadata.row_group(n).num_rows for n in range(file.metadata.num_row_groups))]
                )
                self.sums = unpack_sum(file.metadata.metadata[MEAN_KEY])
                table = file.read(columns=names)
            self.blocks: list[Mapping[str, int]] = self.run["blocks"]
            self.scores = _numbers(table, "score")
            self.thresholds = _numbers(table, "threshold")
            self.anomalous = np.asarray(table["is_anomalous"].fill_null(False).to_numpy(), bool)
            self.measures = {name: _numbers(table, name) for name in MEASURES}
        except (OSError, ValueError, KeyError) as error:
            raise SinkError(f"{path} cannot be read ({one_line(error)}): score the images again") from error

    @property
    def scored(self) -> npt.NDArray[np.bool_]:
        """Which rows have no error, bool [rows]."""
        return ~np.isnan(self.scores)

    def groups(self, by: str) -> list[Group]:
        """Counts by `class` or by `folder`, the most anomalous first."""
        import pyarrow.compute as pc

        with parquet().ParquetFile(self.path) as file:
            column = file.read(columns=["class" if by == "class" else "path"])[0]
        if by == "folder":
            column = pc.replace_substring_regex(column, pattern="/?[^/]*$", replacement="")
        coded = column.combine_chunks().dictionary_encode()
        codes, names = np.asarray(coded.indices), coded.dictionary.to_pylist()
        order = np.argsort(codes, kind="stable")
        bounds = np.searchsorted(codes[order], np.arange(len(names) + 1))
        groups = []
        for number, name in enumerate(names):
            rows = order[bounds[number] : bounds[number + 1]]
            scores = self.scores[rows]
            scores = scores[~np.isnan(scores)]
            median, p95, highest = np.percentile(scores, [50, 95, 100]) if scores.size else (np.nan,) * 3
            groups.append(
                Group(
                    name or ".",
                    len(rows),
                    int(self.anomalous[rows].sum()),
                    len(rows) - scores.size,
                    float(median),
                    float(p95),
                    float(highest),
                )
            )
        return sorted(groups, key=lambda group: (-group.anomalous / group.images, group.name))

    def worst(self, count: int) -> list[int]:
        """Rows with the highest scores, the highest first."""
        return _first(np.where(self.scored, -self.scores, np.inf), min(count, int(self.scored.sum())))

    def closest(self, count: int) -> list[int]:
        """Rows whose scores are closest to their threshold."""
        distance = np.where(self.scored, np.abs(self.scores - self.thresholds), np.inf)
        return _first(distance, min(count, int(self.scored.sum())))

    def read(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """All columns of some rows, in their order."""
        found: dict[int, dict[str, Any]] = {}
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        with parquet().ParquetFile(self.path) as file:
            for group in sorted(set(groups.tolist())):
                wanted = [row for row, one in zip(rows, groups, strict=True) if one == group]
                table = file.read_row_group(group).take([row - int(self._starts[group]) for row in wanted])
                found.update(zip(wanted, table.to_pylist(), strict=True))
        return [found[row] for row in rows]

    def reasons(self) -> list[tuple[str, str]]:
        """Path and reason of images without a score, `REASONS` at the most."""
        rows = np.flatnonzero(~self.scored)[:REASONS].tolist()
        return [(row["path"], row["error"]) for row in self.read(rows)] if rows else []


def _numbers(table: Any, name: str) -> Values:
    return np.asarray(table[name].to_numpy(zero_copy_only=False), np.float64)


def _first(values: Values, count: int) -> list[int]:
    """Places of the smallest values, smallest first; of equal ones the first."""
    if count == 0:
        return []
    few = np.flatnonzero(values <= np.partition(values, count - 1)[count - 1])
    return [int(place) for place in few[np.argsort(values[few], kind="stable")][:count]]
