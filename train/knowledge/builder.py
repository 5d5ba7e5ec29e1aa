"""Builds a knowledge base by asking: the LLM once per class, the VQA model for every image. It can be stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from time import monotonic

from kanoclip.runtime.errors import KanoclipError, KnowledgeError
from kanoclip.train.data.images import read_image
from kanoclip.train.knowledge.base import Entry, KnowledgeBase, Observation, save_knowledge
from kanoclip.train.knowledge.client import Client, FatalError
from kanoclip.train.knowledge.questions import (
    Descriptions,
    llm_question,
    one_line,
    read_descriptions,
    vqa_question,
)

_SAVE_EVERY = 5.0
"""Seconds of answers that a kill may cost."""
_ATTEMPTS = 3
"""Times to ask for descriptions before too few of them are a failure."""


@dataclass(frozen=True)
class Target:
    """A class to ask about.

    Attributes:
        dataset: Dataset's name, `own` for classes without one.
        category: Category's name.
        class_name: Words for it.
        images: Images to show to the VQA model: (name in the base, file).
    """

    dataset: str
    category: str
    class_name: str
    images: tuple[tuple[str, Path], ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """Its place in the base."""
        return self.dataset, self.category


@dataclass(frozen=True)
class Plan:
    """What to ask.

    Attributes:
        model: Language model, None to leave the LLM part out.
        vision_model: VQA model, None to leave the VQA part out.
        descriptions: n, the LLM's descriptions of a class.
        per_image: m, the VQA model's descriptions of an image.
        parallel: Questions under way at once.
        normal: Normal descriptions of a class to ask the LLM for, beside the abnormal ones.
    """

    model: str | None
    vision_model: str | None
    descriptions: int
    per_image: int
    parallel: int
    normal: int = 0


@dataclass(frozen=True)
class _Question:
    target: Target
    image: tuple[str, Path] | None


def questions(base: KnowledgeBase, targets: Sequence[Target], plan: Plan) -> list[_Question]:
    """What is not yet in the base: the LLM's part of every class first, then the images."""
    open_questions = []
    if plan.model is not None:
        for target in targets:
            entry = base.entries.get(target.key)
            if entry is None or len(entry.abnormal) < plan.descriptions or len(entry.written) < plan.normal:
                open_questions.append(_Question(target, None))
    if plan.vision_model is not None:
        for target in targets:
            entry = base.entries.get(target.key)
            seen = [one.image for one in entry.observed] if entry is not None else []
            for image in target.images:
                missing = plan.per_image - seen.count(image[0])
                open_questions += [_Question(target, image)] * max(0, missing)
    return open_questions


def build(
    base: KnowledgeBase,
    targets: Sequence[Target],
    plan: Plan,
    client: Client,
    output: Path,
    advance: Callable[[], None],
) -> list[str]:
    """Asks what is missing, saving as it goes; an interruption loses nothing that was answered.

    Args:
        base: What is known already.
        targets: Classes to ask about.
        plan: What to ask.
        client: Whom to ask.
        output: File that holds the base; replaced as a whole each time.
        advance: Called after each question.

    Returns:
        What failed, one line for each question; the rest is saved.

    Raises:
        FatalError: The key is refused or the model unknown; what was answered before is saved.
        KnowledgeError: The file cannot be written.
    """
    entries = dict(base.entries)
    failures: list[str] = []
    pending = iter(questions(base, targets, plan))
    saved_at, unsaved = monotonic(), False

    def save() -> None:
        save_knowledge(output, replace(base, entries=dict(entries)))

    # Daemon threads, unlike an executor's, do not hold the process up after an interruption.
    handed: SimpleQueue[_Question] = SimpleQueue()
    answered: SimpleQueue[tuple[_Question, Descriptions | Observation | Exception]] = SimpleQueue()
    for _ in range(plan.parallel):
        Thread(target=_work, args=(client, plan, handed, answered), daemon=True).start()
    running = 0
    try:
        while True:
            # No more are handed out than can run: an interruption leaves none waiting.
            for question in islice(pending, plan.parallel - running):
                handed.put(question)
                running += 1
            if not running:
                break
            question, answer = answered.get()
            running -= 1
            if isinstance(answer, KanoclipError) and not isinstance(answer, FatalError):
                failures.append(f"{_name(question)}: {answer}")
            elif isinstance(answer, Exception):
                raise answer
            else:
                _add(entries, question.target, answer)
                unsaved = True
            advance()
            if unsaved and monotonic() - saved_at > _SAVE_EVERY:
                save()
                saved_at, unsaved = monotonic(), False
    finally:
        if unsaved:
            save()
    return failures


def _work(
    client: Client,
    plan: Plan,
    handed: SimpleQueue[_Question],
    answered: SimpleQueue[tuple[_Question, Descriptions | Observation | Exception]],
) -> None:
    while True:
        question = handed.get()
        try:
            answered.put((question, _ask(client, plan, question)))
        except Exception as error:  # handed over to the thread that knows what to do with it
            answered.put((question, error))


def _ask(client: Client, plan: Plan, question: _Question) -> Descriptions | Observation:
    target = question.target
    if question.image is not None:
        name, path = question.image
        text = one_line(client.ask(plan.vision_model or "", vqa_question(target.class_name), read_image(path)))
        if not text:
            raise KnowledgeError("the answer holds no text")
        return Observation(name, text)
    best = Descriptions("", ())
    for _ in range(_ATTEMPTS):
        answer = client.ask(plan.model or "", llm_question(target.class_name, plan.descriptions, plan.normal))
        read = read_descriptions(answer, plan.descriptions, plan.normal)
        best = max(best, read, key=lambda one: len(one.abnormal) + len(one.normal))
        if (len(best.abnormal), len(best.normal)) == (plan.descriptions, plan.normal):
            return best
    found, wanted = len(best.abnormal) + len(best.normal), plan.descriptions + plan.normal
    raise KnowledgeError(
        f"{found} of {wanted} descriptions in the best of {_ATTEMPTS} answers: try another --model, or fewer "
        "--descriptions"
    )


def _add(entries: dict[tuple[str, str], Entry], target: Target, answer: Descriptions | Observation) -> None:
    entry = entries.get(target.key) or Entry(target.class_name, "", ())
    if isinstance(answer, Observation):
        # Sorted, because answers arrive in any order and a training run is known by its descriptions.
        observed = sorted((*entry.observed, answer), key=lambda one: one.image)
        entries[target.key] = replace(entry, observed=tuple(observed))
    else:
        background = answer.background or entry.background
        written = answer.normal or entry.written
        entries[target.key] = replace(entry, abnormal=answer.abnormal, background=background, written=written)


def _name(question: _Question) -> str:
    target = question.target
    return f"{target.dataset}/{target.category}" + (f" {question.image[0]}" if question.image else "")
