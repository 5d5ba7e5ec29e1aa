"""A suite file: what is measured, on which datasets, and where those lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from kanoclip.runtime.detect.settings.toml_file import TomlFile
from kanoclip.runtime.errors import KanoclipError, SettingsError
from kanoclip.train.evaluation.paper import DATASETS
from kanoclip.train.evaluation.suite.methods import Baseline

DEFAULT = "default"
_KEYS = ("backbone", "weights", "sizes", "baselines", "sigma", "checkpoints", "roots", "ablation")
MOST_PIXELS = 2048


@dataclass(frozen=True)
class Suite:
    """What a suite file says.

    Attributes:
        path: The file.
        backbone: Of the baselines; checkpoints name their own.
        weights: As --weights takes it.
        sizes: Sides of the images in pixels, each a row; empty for the backbone's own, or the checkpoint's.
        baselines: Rows that need no training.
        sigma: Of the maps' Gaussian in pixels; None for the model's own.
        checkpoints: By dataset, or `default`: what was learned on another dataset than the one that it is measured on.
        roots: Folders of the datasets that are measured.
        ablation: Folders of table 3's rows (`kanoclip-eval --ablation --checkpoints`), by dataset.
    """

    path: Path
    backbone: str | None
    weights: str
    sizes: tuple[int, ...]
    baselines: tuple[Baseline, ...]
    sigma: float | None
    checkpoints: Mapping[str, Path]
    roots: Mapping[str, Path]
    ablation: Mapping[str, Path]

    @property
    def missing(self) -> tuple[str, ...]:
        """Datasets of the paper's tables that the file gives no folder of."""
        return tuple(name for name in DATASETS if name not in self.roots)

    def checkpoint(self, dataset: str) -> Path | None:
        """What is measured on a dataset, if anything is."""
        return self.checkpoints.get(dataset, self.checkpoints.get(DEFAULT))


def read_suite(path: Path) -> Suite:
    """Reads and checks a suite file; relative paths start at its folder.

    Raises:
        KanoclipError: It is no TOML, has a key or a dataset that is not known, a folder that does not exist, or nothing
            to measure.
    """
    value = TomlFile(path).value
    if unknown := [key for key in value if key not in _KEYS]:
        raise _wrong(path, f"unknown key {unknown[0]!r}: there are {', '.join(_KEYS)}")
    roots = _paths(path, value, "roots", DATASETS)
    if not roots:
        raise _wrong(path, f'[roots] names no dataset: write NAME = "FOLDER" for any of {", ".join(DATASETS)}')
    for name, folder in roots.items():
        if not folder.is_dir():
            raise _wrong(path, f"roots.{name} is {folder}, which is no folder: correct it, or leave the line out")
        other = next(one for one, its in roots.items() if its.resolve() == folder.resolve())
        if other != name:
            raise _wrong(path, f"roots.{other} and roots.{name} are the same folder: correct one of them")
    checkpoints = _paths(path, value, "checkpoints", (DEFAULT, *DATASETS))
    for name, file in checkpoints.items():
        if not file.is_file():
            raise _wrong(path, f"checkpoints.{name} is {file}, which is no file: kanoclip-train writes them")
    ablation = _paths(path, value, "ablation", ("mvtec", "visa"))
    for name, folder in ablation.items():
        if not folder.is_dir():
            raise _wrong(path, f"ablation.{name} is {folder}, which is no folder: `kanoclip-eval --ablation` writes it")
    baselines = tuple(_choices(path, value.get("baselines", []), "baselines", get_args(Baseline)))
    backbone, weights = value.get("backbone"), value.get("weights", "auto")
    if not isinstance(weights, str) or not isinstance(backbone, str | None):
        raise _wrong(path, 'backbone and weights are texts, such as backbone = "vit-l-14-336"')
    if (baselines or ablation) and backbone is None:
        raise _wrong(path, 'baselines and ablation need backbone = "NAME"')
    if not (baselines or checkpoints or ablation):
        raise _wrong(path, "nothing to measure: name [checkpoints], baselines or [ablation]")
    sizes = value.get("sizes", [])
    if not isinstance(sizes, list) or any(type(s) is not int or not 1 <= s <= MOST_PIXELS for s in sizes):
        raise _wrong(path, f"sizes is a list of whole numbers up to {MOST_PIXELS}, such as [336, 518]")
    sigma = value.get("sigma")
    if sigma is not None and (type(sigma) not in (int, float) or not 0 < sigma <= 100):
        raise _wrong(path, "sigma is a number of pixels above 0 and up to 100")
    if weights not in ("auto", "none"):
        weights = str(_resolved(path, weights))
    unique = tuple(dict.fromkeys(sizes))
    return Suite(path, backbone, weights, unique, baselines, sigma, checkpoints, roots, ablation)


def _paths(path: Path, value: Mapping[str, Any], table: str, names: tuple[str, ...]) -> dict[str, Path]:
    given = value.get(table, {})
    if not isinstance(given, dict):
        raise _wrong(path, f'{table} is a table: write [{table}] and below it NAME = "PATH"')
    for name, text in given.items():
        if name not in names:
            raise _wrong(path, f"[{table}] has no {name!r}: there are {', '.join(names)}")
        if not isinstance(text, str) or not text:
            raise _wrong(path, f"{table}.{name} is no path: write it in quotes")
    return {name: _resolved(path, text) for name, text in given.items()}


def _resolved(path: Path, text: str) -> Path:
    try:
        return path.parent / Path(text).expanduser()
    except RuntimeError as error:
        raise _wrong(path, f"{text}: there is no such home folder") from error


def _choices(path: Path, given: Any, key: str, known: tuple[str, ...]) -> list[Any]:
    if not isinstance(given, list) or any(one not in known for one in given):
        raise _wrong(path, f"{key} is a list of any of {', '.join(known)}")
    return list(dict.fromkeys(given))


def _wrong(path: Path, reason: str) -> KanoclipError:
    return SettingsError(f"{path}: {reason}")
