"""What ships: every class of the paper's twelve datasets, each in words of its own."""

from __future__ import annotations

import re

import pytest

from kanoclip.train.data.layouts.names import CLASS_NAMES
from kanoclip.train.knowledge.base import shipped_knowledge

BASE = shipped_knowledge()


def test_every_class_of_the_twelve_datasets():
    assert set(BASE.entries) == {(d, category) for d, names in CLASS_NAMES.items() for category in names}
    assert len(BASE.entries) == 53 and len(CLASS_NAMES) == 12


@pytest.mark.parametrize("key", sorted(BASE.entries), ids="/".join)
def test_five_descriptions_and_a_background(key):
    entry = BASE.entries[key]
    assert entry.class_name == CLASS_NAMES[key[0]][key[1]]
    assert len(entry.abnormal) == 5 and entry.observed == ()
    assert len(entry.background.split()) >= 8
    for text in entry.abnormal:
        assert text.startswith("An abnormal image of ") and text.endswith(".")
        assert entry.class_name.lower() in text.lower()
        assert 14 <= len(text.split()) <= 45


def test_no_sentence_is_another_with_the_class_changed():
    seen = {}
    for key, entry in BASE.entries.items():
        for text in entry.abnormal:
            told = re.sub(r"^An abnormal image of .*? may show ", "", text).lower()
            for words in CLASS_NAMES[key[0]].values():
                told = told.replace(words.lower(), "it")
            assert told not in seen, (key, seen[told])
            seen[told] = key
    openings = [" ".join(told.split()[:4]) for told in seen]
    assert len(set(openings)) > 0.9 * len(openings), "a template that was filled in would repeat its opening"


def test_clip_reads_all_of_every_description():
    import open_clip

    tokenizer = open_clip.SimpleTokenizer()
    longest = max(len(tokenizer.encode(text)) for entry in BASE.entries.values() for text in entry.abnormal)
    assert longest + 2 <= 77


@pytest.mark.parametrize("key", sorted(BASE.entries), ids="/".join)
def test_the_normal_description_opens_as_the_abnormal_ones_and_goes_on_with_the_background(key):
    entry = BASE.entries[key]
    opening = entry.abnormal[0].partition(" may show ")[0].replace("An abnormal", "A normal")
    assert entry.normal == (f"{opening}. {entry.background}",)
