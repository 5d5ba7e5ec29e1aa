import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.train.knowledge.questions import llm_question, one_line, read_descriptions, vqa_question

FIVE = [f"An abnormal image of fabric may show defect number {i}." for i in range(5)]


def test_the_papers_questions():
    assert llm_question("fabric", 5).startswith("Q: Describe what an abnormal image of fabric looks like?")
    assert vqa_question("fabric") == (
        "Q: Identify anomalies in the input image of the specified class (fabric). "
        "Describe each anomaly's location, color, shape, size, and other characteristics."
    )


PLAIN = json.dumps({"background": "Even weave.", "descriptions": FIVE})


@pytest.mark.parametrize(
    "answer",
    [
        PLAIN,
        f"Sure! Here it is:\n```json\n{PLAIN}\n```\nAnything else?",
        f"I thought [of this] {{and that}} first.\n{PLAIN}",
        json.dumps({"background": "Even  weave.\n", "descriptions": [f"  {text} \n" for text in FIVE]}),
    ],
)
def test_json_in_whatever_wrapping(answer):
    found = read_descriptions(answer, 5)
    assert found.background == "Even weave." and found.abnormal == tuple(FIVE)


@pytest.mark.parametrize("mark", ["{}. ", "{}) ", "- ", "* ", "\u2022 ", "  {}:  "])
def test_plain_lists(mark):
    lines = [mark.format(i + 1) + text for i, text in enumerate(FIVE)]
    answer = "\n".join(["Here are five descriptions:", *lines, "I hope that helps."])
    assert read_descriptions(answer, 5).abnormal == tuple(FIVE)


def test_a_bare_json_list():
    assert read_descriptions(json.dumps(FIVE), 5).abnormal == tuple(FIVE)


def test_repeats_and_what_is_no_text_do_not_count():
    answer = json.dumps({"descriptions": [FIVE[0], FIVE[0] + " ", 3, None, "", {"a": 1}, FIVE[1]]})
    assert read_descriptions(answer, 5).abnormal == (FIVE[0], FIVE[1])


def test_no_more_than_wanted():
    assert read_descriptions(PLAIN, 2).abnormal == tuple(FIVE[:2])


@pytest.mark.parametrize(
    "answer", ["", "I cannot help with that.", "{}", "[]", "null", '{"descriptions": 3}', "{" * 300]
)
def test_answers_without_any(answer):
    assert read_descriptions(answer, 5).abnormal == ()


@given(st.text(max_size=200))
def test_any_text_becomes_one_printable_line(text):
    line = one_line(text)
    assert line == "" or (line.isprintable() and line == line.strip() and "  " not in line)


@given(st.text(max_size=300))
def test_any_answer_is_read(text):
    for one in read_descriptions(text, 5).abnormal:
        assert one and one.isprintable()
