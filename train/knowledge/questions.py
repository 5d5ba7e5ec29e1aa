"""The paper's two questions (fig. 2), and how their answers are read."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from kanoclip.train.knowledge.base import MAX_TEXT

_ITEM = re.compile(r"^\s*(?:\d+\s*[.):]|[-*\u2022])\s*(.+)$")


@dataclass(frozen=True)
class Descriptions:
    """The LLM's answer.

    Attributes:
        background: How a normal image looks; may be empty.
        abnormal: Distinct descriptions, as many as were given.
        normal: The same of normal images, where they were asked for.
    """

    background: str
    abnormal: tuple[str, ...]
    normal: tuple[str, ...] = ()


def llm_question(class_name: str, count: int, normal: int = 0) -> str:
    """Asks for `count` descriptions of abnormal images of a class, the background, and of `normal` ones."""
    wanted, form = "", ""
    if normal:
        wanted = (
            f'\nGive also {normal} descriptions of normal images, each beginning with "A normal image of {class_name} '
            'shows".'
        )
        form = ', "normal": ["..."]'
    return (
        f"Q: Describe what an abnormal image of {class_name} looks like?\n\n"
        f"Give {count} descriptions, each of a different kind of defect and each one sentence of at most 40 words "
        f'that begins with "An abnormal image of {class_name} may show". Give also the background: one or two '
        f"sentences on what a normal image of {class_name} looks like.{wanted}\n"
        f'Answer with JSON only: {{"background": "...", "descriptions": ["...", "..."]{form}}}'
    )


def vqa_question(class_name: str) -> str:
    """Asks what is wrong in the image that is sent along."""
    return (
        f"Q: Identify anomalies in the input image of the specified class ({class_name}). "
        "Describe each anomaly's location, color, shape, size, and other characteristics."
    )


def read_descriptions(answer: str, count: int, normal: int = 0) -> Descriptions:
    """Reads the LLM's answer: JSON as asked for, within prose or a code fence too, or a plain list.

    Args:
        answer: What the model wrote.
        count: Most descriptions to keep.
        normal: Most normal ones to keep.
    """
    found = _json(answer)
    if isinstance(found, dict):
        background = found.get("background")
        texts = found.get("descriptions")
        sound = found.get("normal")
    else:
        background, texts, sound = None, found, None
    if not isinstance(texts, list):
        texts = [match.group(1) for line in answer.splitlines() if (match := _ITEM.match(line))]
    return Descriptions(
        one_line(background) if isinstance(background, str) else "",
        _distinct(texts, count),
        _distinct(sound if isinstance(sound, list) else [], normal),
    )


def _distinct(texts: list[Any], most: int) -> tuple[str, ...]:
    lines = dict.fromkeys(one_line(text) for text in texts if isinstance(text, str))
    return tuple([text for text in lines if text][:most])


def one_line(text: str) -> str:
    """The text in one line of printable signs, without list signs, quotes or bold marks around it."""
    printable = "".join(sign if sign.isprintable() else " " for sign in text)
    return " ".join(printable.replace("**", "").split()).strip('"` ')[:MAX_TEXT]


def _json(answer: str) -> Any:
    """The first JSON object or array in a text, None without one."""
    decoder = json.JSONDecoder()
    for match in re.finditer(r"[{\[]", answer):
        try:
            return decoder.raw_decode(answer, match.start())[0]
        except ValueError:
            continue
    return None
