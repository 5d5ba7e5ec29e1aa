"""Datasets that list their images in a file: `meta.json`, and VisA's csv."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from kanoclip.runtime.errors import DataError
from kanoclip.runtime.system.files.regular import read_small
from kanoclip.train.data.files import below, is_file, is_folder
from kanoclip.train.data.layouts.layout import GOOD, Found
from kanoclip.train.data.types import Problem, Sample, Split


class Listing:
    """Collects the entries of such a file; an image that is listed but missing is a problem, not a failure.

    Args:
        root: The folder that paths are relative to.
        source: The file.
    """

    def __init__(self, root: Path, source: Path) -> None:
        self._root, self._source = root, source
        self._found = Found()
        self._unmasked: list[Problem] = []
        self.seen: set[Path] = set()
        """Every image and mask that was listed."""

    def category(self, name: str) -> None:
        """Adds a category, which may stay empty."""
        self._found.samples.setdefault(name, [])

    def add(self, category: str, split: Split, image: str, mask: str, defect: str | None, place: str) -> None:
        """Adds an entry.

        Args:
            category: Its category.
            split: Its split.
            image: The image's path.
            mask: The mask's path; empty, or a folder as AnomalyCLIP's scripts write it, where there is none.
            defect: Kind of defect, None for a normal image.
            place: Where the file says so, for error messages.

        Raises:
            DataError: A path leaves the root.
        """
        self.category(category)
        path = self._path(image, place)
        if path in self.seen:
            self._problem(category, path, f"listed twice in {self._source.name}", loses_data=False)
            return
        self.seen.add(path)
        if not is_file(path):
            self._problem(category, path, f"listed in {self._source.name}, but missing")
            return
        if defect is None:
            self._found.samples[category].append(Sample(path, False, None, GOOD, split))
            return
        mask_path = self._path(mask, place) if mask else None
        if mask_path is not None and is_folder(mask_path):
            mask_path = None
        if mask_path is None:
            self._unmasked.append(Problem(category, path, "no mask"))
        else:
            self.seen.add(mask_path)
            self._found.pixel_labels = True
            if not is_file(mask_path):
                self._problem(category, path, f"no mask: {mask_path} is missing")
                mask_path = None
        self._found.samples[category].append(Sample(path, True, mask_path, defect, split))

    def found(self) -> Found:
        """What was listed. That an anomalous image has no mask is only a problem where others have one."""
        if self._found.pixel_labels:
            self._found.problems += self._unmasked
            self._unmasked = []
        return self._found

    def _path(self, text: str, place: str) -> Path:
        path = below(self._root, text.replace("\\", "/"))  # the file may have been written on Windows
        if path is None:
            raise DataError(
                f"{self._source}: {place}: the path {text!r} leaves {self._root}: write paths relative to that folder"
            )
        return path

    def _problem(self, category: str, path: Path, reason: str, loses_data: bool = True) -> None:
        self._found.problems.append(Problem(category, path, reason, loses_data))


def read_text(path: Path) -> str:
    """A small text file of a dataset.

    Raises:
        DataError: It cannot be read, or is no UTF-8 text.
    """
    try:
        return read_small(path).decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}): copy or download it again") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: copy or download it again") from error


def read_csv(path: Path, columns: Sequence[str]) -> list[tuple[int, list[str]]]:
    """The lines of a csv file that has these columns first.

    Returns:
        Line number and the columns' fields, stripped; without header and empty lines.

    Raises:
        DataError: It cannot be read, has other columns, or a line has too few fields.
    """
    text = read_text(path)
    try:
        lines = csv.reader(text.splitlines(), strict=True)
        header = next(lines, [])
        if [name.strip().lower() for name in header[: len(columns)]] != list(columns):
            raise wrong_line(path, 1, f"the columns are not {', '.join(columns)}")
        rows = []
        for row in lines:
            if row and len(row) < len(columns):
                raise wrong_line(path, lines.line_num, f"{len(row)} fields, not {len(columns)}")
            if row:
                rows.append((lines.line_num, [field.strip() for field in row[: len(columns)]]))
    except csv.Error as error:
        raise DataError(f"{path} is no csv file ({error}): copy or download it again") from error
    return rows


def wrong_line(path: Path, line: int, what: str) -> DataError:
    """The error for a line of a csv file."""
    return DataError(f"{path}: line {line}: {what}; mend the line, or download the file again")
