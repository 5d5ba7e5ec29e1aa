"""The knowledge base: for each class, what an abnormal image of it looks like, in words (section 2.2.1)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from kanoclip.runtime.errors import KnowledgeError
from kanoclip.runtime.system.files.regular import read_small
from kanoclip.runtime.system.paths import replace_file

SCHEMA = 1
MAX_TEXT = 2000
"""Characters; CLIP reads the first 77 tokens of a description."""
_ABNORMAL = re.compile(r"\b(?:(a)n? )?(?:abnormal|anomalous|defective|damaged|faulty)\b", re.IGNORECASE)
_NORMAL = re.compile(r"\b(?:normal|flawless|perfect|undamaged|intact)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Observation:
    """A VQA model's answer for one image.

    Attributes:
        image: The image's path below the dataset's root, with `/`.
        text: The description.
    """

    image: str
    text: str


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of one class.

    Attributes:
        class_name: Words for [class] in a prompt.
        background: How a normal image of it looks; for people, the questions and `normal`, not for eq. 3.
        abnormal: The LLM's n descriptions.
        observed: The VQA model's descriptions, m for an image.
        written: Normal descriptions that somebody wrote, beside those that `normal` derives; usually none.
    """

    class_name: str
    background: str
    abnormal: tuple[str, ...]
    observed: tuple[Observation, ...] = ()
    written: tuple[str, ...] = ()

    @property
    def descriptions(self) -> tuple[str, ...]:
        """All that eq. 3 averages."""
        return (*self.abnormal, *(observation.text for observation in self.observed))

    @property
    def normal(self) -> tuple[str, ...]:
        """Normal descriptions that open as the abnormal ones do, at least one: only the state is to set them apart.

        `An abnormal image of a nut may show ...` becomes `A normal image of a nut`, followed by the background. A
        background that calls the class normal already stands alone. Where no description names the class and its
        state, the opening is `a photo of a flawless CLASS`.
        """
        opening = _opening(self.background, self.class_name)
        if opening is not None and _NORMAL.search(opening):
            return (self.background,)
        turned = dict.fromkeys(
            opening for text in self.descriptions if (opening := _normal_opening(text, self.class_name)) is not None
        )
        openings = tuple(turned) or (f"a photo of a flawless {self.class_name}",)
        return tuple(f"{opening}. {self.background}" for opening in openings) if self.background else openings


@dataclass(frozen=True, slots=True)
class ClassTexts:
    """What the KD loss reads of one class.

    Attributes:
        abnormal: `Entry.descriptions`; none leaves the class out.
        normal: `Entry.normal`; none where eq. 2 is taken as printed.
    """

    abnormal: tuple[str, ...] = ()
    normal: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KnowledgeBase:
    """Entries by dataset and category.

    Attributes:
        domain: Such as `industrial`.
        version: The content's version, as its author counts.
        origin: Who or what wrote it.
        entries: By (dataset, category), both as `kanoclip-data list` names them.
    """

    domain: str
    version: str
    origin: str
    entries: Mapping[tuple[str, str], Entry]

    def find(self, dataset: str, category: str, class_name: str) -> Entry | None:
        """The entry of a dataset's category; else one of any dataset with the same words for [class]; else None."""
        exact = self.entries.get((dataset, category))
        if exact is not None:
            return exact
        wanted = _words(class_name)
        return next((entry for entry in self.entries.values() if _words(entry.class_name) == wanted), None)


def merged(bases: Sequence[KnowledgeBase]) -> KnowledgeBase:
    """One base out of several; where two know the same category, the later one counts."""
    entries: dict[tuple[str, str], Entry] = {}
    for base in bases:
        entries |= base.entries
    domain, version, origin = (
        ", ".join(dict.fromkeys(getattr(base, name) for base in bases)) for name in ("domain", "version", "origin")
    )
    return KnowledgeBase(domain, version, origin, entries)


def shipped_knowledge() -> KnowledgeBase:
    """The bases that ship with the package, merged."""
    folder = resources.files("kanoclip.train.knowledge.files")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".json")), key=lambda file: file.name)
    return merged([_parse(file.read_text(encoding="utf-8"), file.name) for file in files])


def load_knowledge(path: Path) -> KnowledgeBase:
    """Reads a knowledge base.

    Raises:
        KnowledgeError: The file is missing, no JSON, or not of the schema; the message names the field.
    """
    try:
        return _parse(read_small(path).decode(), str(path))
    except OSError as error:
        raise KnowledgeError(f"cannot read the knowledge base {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise KnowledgeError(f"{path} is not UTF-8 text: a knowledge base is a JSON file") from error


def save_knowledge(path: Path, base: KnowledgeBase) -> None:
    """Writes a knowledge base beside its place and renames it.

    Raises:
        KnowledgeError: It cannot be written; what lay there before is still whole.
    """
    datasets: dict[str, dict[str, Any]] = {}
    for (dataset, category), entry in base.entries.items():
        datasets.setdefault(dataset, {})[category] = {
            "class_name": entry.class_name,
            "background": entry.background,
            "abnormal": list(entry.abnormal),
            "observed": [{"image": one.image, "text": one.text} for one in entry.observed],
            **({"normal": list(entry.written)} if entry.written else {}),
        }
    record = {
        "schema": SCHEMA,
        "domain": base.domain,
        "version": base.version,
        "origin": base.origin,
        "datasets": datasets,
    }
    content = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content.encode())
    except OSError as error:
        raise KnowledgeError(
            f"cannot write {path}: {error.strerror}; what was saved before is whole: make room, or choose another "
            "--output"
        ) from error


def _parse(text: str, name: str) -> KnowledgeBase:
    try:
        record = json.loads(text)
    except ValueError as error:
        raise KnowledgeError(f"{name} is not JSON ({error})") from error
    root = _object(record, name, "the file", {"schema", "domain", "version", "origin", "datasets"})
    if root["schema"] != SCHEMA:
        raise KnowledgeError(
            f"{name} has schema {root['schema']!r}, this version reads {SCHEMA}: upgrade, or convert it"
        )
    entries: dict[tuple[str, str], Entry] = {}
    for dataset, categories in _object(root["datasets"], name, "datasets").items():
        for category, value in _object(categories, name, f"datasets.{dataset}").items():
            entries[dataset, category] = _entry(value, name, f"datasets.{dataset}.{category}")
    domain, version, origin = (_text(root[field], name, field) for field in ("domain", "version", "origin"))
    return KnowledgeBase(domain, version, origin, entries)


def _entry(value: Any, name: str, where: str) -> Entry:
    optional = {"normal"} if isinstance(value, dict) and "normal" in value else set()
    fields = _object(value, name, where, {"class_name", "background", "abnormal", "observed"} | optional)
    abnormal, written = (
        tuple(_text(text, name, f"{where}.{key}[{i}]") for i, text in enumerate(_list(fields[key], name, where)))
        if key in fields
        else ()
        for key in ("abnormal", "normal")
    )
    observed = []
    for i, one in enumerate(_list(fields["observed"], name, where)):
        at = f"{where}.observed[{i}]"
        parts = _object(one, name, at, {"image", "text"})
        observed.append(
            Observation(_text(parts["image"], name, f"{at}.image"), _text(parts["text"], name, f"{at}.text"))
        )
    for key, texts in (("abnormal", abnormal), ("normal", written)):
        if twice := next((text for text in texts if texts.count(text) > 1), None):
            raise KnowledgeError(f"{name}: {where}.{key} says twice: {twice[:60]!r}")
    background = fields["background"]
    return Entry(
        class_name=_text(fields["class_name"], name, f"{where}.class_name"),
        background="" if background == "" else _text(background, name, f"{where}.background"),
        abnormal=abnormal,
        observed=tuple(observed),
        written=written,
    )


def _object(value: Any, name: str, where: str, keys: set[str] | None = None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise KnowledgeError(f"{name}: {where} is not an object")
    if keys is not None and set(value) != keys:
        wrong = sorted(set(value) ^ keys)[0]
        raise KnowledgeError(f"{name}: {where} {'lacks' if wrong in keys else 'has the unknown field'} {wrong!r}")
    return value


def _list(value: Any, name: str, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise KnowledgeError(f"{name}: {where} holds no list of descriptions")
    return value


def _text(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise KnowledgeError(f"{name}: {where} is not a text, or empty")
    if len(value) > MAX_TEXT or not value.isprintable():
        raise KnowledgeError(
            f"{name}: {where} is longer than {MAX_TEXT} characters or holds line breaks or control signs"
        )
    return value


def _words(text: str) -> str:
    return " ".join(text.lower().replace("_", " ").split())


def _opening(text: str, class_name: str) -> str | None:
    """A text up to the end of the class's name; None where it does not name the class."""
    found = re.search(rf"(?<!\w){re.escape(class_name)}", text, re.IGNORECASE)
    return None if found is None else text[: found.end()]


def _normal_opening(text: str, class_name: str) -> str | None:
    """The opening with `normal` for its word of abnormality; None where it has none."""
    opening = _opening(text, class_name)
    if opening is None or not _ABNORMAL.search(opening):
        return None
    return _ABNORMAL.sub(lambda found: f"{found[1]} normal" if found[1] else "normal", opening)
