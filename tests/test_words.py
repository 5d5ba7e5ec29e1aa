"""The field's words: a glossary's left column stays out of the code, its messages and the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLACES = (
    *("runtime", "export", "train", "benchmarks", "tools", "docs"),
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"),
)
KINDS = {".css", ".html", ".js", ".md", ".py", ".service", ".sh", ".toml"}
WIDTH = 120

# A word, its forms, and what to write instead.
GLOSSARY = {
    "picture": (r"pictures?", "image; photograph only for a photograph"),
    "judge": (r"(?:un)?judg(?:e|es|ed|ing|ement)s?", "infer, predict, score; verdict for the final yes or no"),
    "ask about": (r"ask(?:s|ed|ing)? about", "score with the class"),
    "say": (r"(?:model|engine|detector|backend|graph)s? (?:says?|said)", "predict, return, report"),
    "a second": (r"(?:frames|images|features|lines|events|requests|operations|seeks) a second", "fps, images/s"),
    "a step": (r"(?:images|frames) a step", "batch size"),
    "learnt": (r"learnt", "learned"),
    "lane": (r"lanes?", "worker"),
    "told": (r"told", "reported, or a plainer verb"),
    "wish": (r"wish(?:es|ed)?", "request, or its meaning"),
    "knock": (r"knock(?:s|ed|ing)?", "probe"),
    "kept": (r"kept", "saved on disk, held in memory"),
    "attendance": (r"attendance", "unattended run, or its meaning"),
    "question": (r"questions?", "request"),
    "overrule": (r"overrul(?:e|es|ed|ing)", "override"),
    "heap": (r"heaps?", "the allocator's arenas; burst"),
    "heat": (r"heat(?![ -]maps?\b)", "heat map, anomaly map"),
    "trouble": (r"troubles?", "outage, error"),
    "as fast": (r"(?:\d|twice|times) as fast|\d times faster", "speed-up 2.2x, or latency ratio 0.45"),
}

# Names that other programs and earlier files have: keys of JSON, manifests and metrics. Allowed in quotes.
KEYS = (
    "asked|bytes_a_picture|cpu_ms_a_picture|epoch/pictures_per_second|judged|kanoclip.mean_picture|kept|lanes|learnt_on"
    "|pictures?|pictures_per_s|pictures_per_second|probability_rate_is_kept|ratio_to_one_lane|ratio_to_these_lanes"
    "|reading_pictures_per_s"
)

ALLOWED = (
    rf"[\"'`](?:{KEYS})[\"'`]",
    r"--(?:no-)?pictures\b|--webhook-picture\b",  # flags
    r"learnt/\{name\}",  # tensors of a training's state file
    r"\b[Tt]old apart\b",  # distinguished
    r"\b[Qq]uestion marks?\b",  # the character
    r"\bheapq\b|\bheappush\w*",  # the standard library
)

# By file: what its own names must be.
ALLOWED_IN = {
    "docs/deploy/line.toml": {"picture"},  # the key of `--webhook-picture`
    "export/parity.py": {"picture"},  # attributes that `asdict` makes keys of the manifest
    "export/quantisation/sensitivity.py": {"picture"},
    "runtime/ops/score/run_folder.py": {"picture"},  # and of a run's own record
    "runtime/ops/score/bulk.py": {"picture"},
    "runtime/service/page/static/js/live.js": {"picture"},  # keys of the page's messages
    "runtime/service/page/static/js/main.js": {"picture", "kept"},
    "runtime/cli/run_options/sinks/events.py": {"picture"},  # `--webhook-picture`, `picture` of the TOML file
    "runtime/sinks/events/webhook.py": {"picture"},  # `--webhook-picture` and its values
    "runtime/sinks/events/webhook_config.py": {"picture"},
    "train/evaluation/sheet.py": {"heap"},  # a heap of `heapq`
    "train/knowledge/": {"question", "ask about"},  # visual question answering, as the paper has it
}
"""Folders end with a slash."""

ANY = re.compile(rf"\b(?:{'|'.join(forms for forms, _ in GLOSSARY.values())})\b", re.IGNORECASE)


def apart(line: str) -> str:
    """The words of a line, those in names too: `readPicture` and `read_picture` as `read picture`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", line).replace("_", " ")


def unwanted(text: str, allowed: frozenset[str] | set[str] = frozenset()) -> list[str]:
    """`line: word (what to write)` for each word of the left column in a text."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not ANY.search(apart(line)):
            continue
        for pattern in ALLOWED:
            line = re.sub(pattern, " ", line)
        for word, (forms, better) in GLOSSARY.items():
            if word not in allowed and re.search(rf"\b(?:{forms})\b", apart(line), re.IGNORECASE):
                found.append(f"{number}: {word} ({better})")
    return found


def too_wide(text: str) -> list[int]:
    """Lines of Markdown beyond 120 characters. A row of a table cannot be broken."""
    return [n for n, line in enumerate(text.splitlines(), 1) if len(line) > WIDTH and not line.startswith("|")]


def is_in(path: str, places: tuple[str, ...]) -> bool:
    """Whether a path is one of some, or begins with one."""
    return path.startswith(places)


def files():
    """Path in the project and text of all that people read, without what a build or a model has written."""
    for place in PLACES:
        top = ROOT / place
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            name = path.relative_to(ROOT).as_posix()
            if path.suffix in KINDS and path.is_file():
                yield name, path.read_text(encoding="utf-8")


def test_the_left_column_is_nowhere():
    found = [
        f"{name}:{where}"
        for name, text in files()
        for where in unwanted(text, {w for place, words in ALLOWED_IN.items() if is_in(name, (place,)) for w in words})
    ]
    assert found == []


def test_the_file_names_hold_none_of_it():
    found = [name for name, _ in files() if not is_in(name, tuple(ALLOWED_IN)) and unwanted(name)]
    assert found == []


def test_markdown_is_narrow():
    assert [f"{name}:{n}" for name, text in files() if name.endswith(".md") for n in too_wide(text)] == []


def test_allowances_are_used():
    """A word that is allowed in a file is there, and a file that is pending has a word: no list outlives its reason."""
    texts = dict(files())
    for place, words in ALLOWED_IN.items():
        own = "\n".join(text for name, text in texts.items() if is_in(name, (place,)))
        assert {line.split(": ")[1].split(" (")[0] for line in unwanted(own)} == words, place


@pytest.mark.parametrize(
    ("sentence", "word"),
    [
        ("Each picture is read once.", "picture"),
        ("def load_pictures(path):", "picture"),
        ("class ReadPicture:", "picture"),
        ("frames that are judged", "judge"),
        ("nano asked about bottles", "ask about"),
        ("what the detector said", "say"),
        ("30 frames a second", "a second"),
        ("8 images a step", "a step"),
        ("the learnt prompts", "learnt"),
        ("A lane waits for nobody.", "lane"),
        ("two lanes of single frames", "lane"),
        ("told = json.loads(line)", "told"),
        ("what a browser wishes", "wish"),
        ("def knock(url):", "knock"),
        ("engines are kept in a folder", "kept"),
        ("attendance", "attendance"),
        ("a question to the server", "question"),
        ("the flag overrules the file", "overrule"),
        ("one heap for all threads", "heap"),
        ("paint_heat(image)", "heat"),
        ("self.trouble is None", "trouble"),
        ("3.1 times as fast", "as fast"),
    ],
)
def test_a_planted_word_is_found(sentence, word):
    (found,) = unwanted(f"# fine\n{sentence}\n")
    assert found.startswith(f"2: {word} (")
    assert unwanted(sentence, {word}) == []


@pytest.mark.parametrize(
    "sentence",
    [
        '"pictures": counts.images,',
        "`kanoclip-report --no-pictures`",
        "the heat map, heatmaps, heat_map.py and paint_heat_map(image)",
        "the two cannot be told apart",
        "import heapq",
        "an imagined, unquestioned cheap wheat",
    ],
)
def test_what_is_allowed_passes(sentence):
    assert unwanted(sentence) == []


def test_a_planted_long_line_is_found():
    assert too_wide(f"short\n{'x' * 121}\n| {'x' * 200} |\n{'y' * 120}\n") == [2]
