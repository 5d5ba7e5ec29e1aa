"""What browsers ask for to teach, and what is refused: over a real model, with frames that were shown."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest
from learning import images
from page_helpers import TOKEN, FakeControl

from kanoclip.runtime import Detector
from kanoclip.runtime.bundle.bundle import shipped_bundle
from kanoclip.runtime.detect.learning.live import LiveReferences
from kanoclip.runtime.detect.learning.teaching.teacher import Teacher
from kanoclip.runtime.detect.settings.settings import Settings
from kanoclip.runtime.service.page.teaching import shown
from kanoclip.runtime.service.page.teaching.labels import LabelledSet
from kanoclip.runtime.types import Frame

GOOD = images(7, size=(256, 256))
STAIN = GOOD[6].copy()
STAIN[192:224, 192:224, 2] = np.clip(STAIN[192:224, 192:224, 2].astype(int) + 90, 0, 255)


class Control(FakeControl):
    """A fake stream with a real detector, taught as a real one's."""

    learner = None

    def __init__(self, detector):
        super().__init__()
        self.detector, changing = detector, threading.RLock()
        live = LiveReferences(detector, changing)
        self.teacher = Teacher(detector, live, changing, self, live.use)
        self.becomes(classes=("object",), class_name="object")

    def learn_by(self, learner):
        self.learner = learner


@pytest.fixture(scope="module")
def detector():
    with Detector.load(shipped_bundle(), backend="onnxruntime", threads=1) as found:
        yield found


@pytest.fixture
def control(detector):
    detector.rules.use_own("object", None, Settings())
    return Control(detector)


@pytest.fixture
def page(make_page, tmp_path):
    return make_page(labels=LabelledSet(tmp_path / "labels"))


def show(page, control, image, index=0):
    """Scores a frame and shows it; its number."""
    frame = Frame(index, "camera 0", 1.7e9 + index, image, 1.0)
    page.hub.write(frame, control.detector(image))
    feed = page.hub.feed("")
    feed._encoded_at = float("-inf")
    return feed.image().number


def learn(page, control, ask, good=True):
    assert ask(page, "/api/teach/learn", {"frames": 6, "good": good}).status_code == 200
    learner = control.learner
    for number, image in enumerate(GOOD[:6]):
        learner.look(f"{number}.png", control.detector.prepare(image), image, None)
    learner.finish()


def test_from_zero_shot_to_corrected_and_back(page, control, ask, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    found = page.client.get("/api/teach").json()
    assert (found["learned"], found["takes_memory"], found["undo"], found["unsaved"]) == (False, True, "", 0)
    learn(page, control, ask)
    lesson = page.facts.state()["teaching"]["lesson"]
    assert not lesson["going"] and "is learned from 6 of 6 frames" in lesson["message"]
    number = show(page, control, STAIN, 41)
    before = control.detector(STAIN)
    assert before.is_anomalous
    with caplog.at_level(logging.INFO):
        answer = ask(page, "/api/teach/label", {"label": "fine", "stream": "", "number": number})
    assert answer.status_code == 200 and "it passes from now on" in answer.json()["text"], answer.text
    assert "camera 0, frame 41 is labelled fine (page, testclient)" in caplog.text
    assert not control.detector(STAIN).is_anomalous
    found = page.client.get("/api/teach").json()
    assert len(found["references"]) == 6 and len(found["fine"]) == 1 and found["bad"] == []
    assert (found["undo"], found["unsaved"], found["needs_name"]) == ("fine: camera 0, frame 41", 2, True)
    (image,) = (tmp_path / "labels").rglob("*.png")
    assert image.parts[-3:-1] == ("test", "good") and np.array_equal(cv2.imread(str(image)), STAIN)
    # What is refused leaves the set as it is.
    refused = ask(page, "/api/teach/label", {"label": "bad", "stream": "", "number": number})
    assert refused.status_code == 400 and refused.json()["error"].endswith("undo that step first")
    again = ask(page, "/api/teach/label", {"label": "fine", "stream": "", "number": number})
    assert again.status_code == 400 and "is labelled fine already. Saved as" in again.json()["error"]
    assert list((tmp_path / "labels").rglob("*.png")) == [image]
    # It cannot be written where it is: the page asks for a name.
    refused = ask(page, "/api/teach/save")
    assert refused.status_code == 400 and "belongs to the package" in refused.json()["error"]
    for name in ("../x", "a/b", "<b>", "'", "", ".x", "x" * 70, 7):
        assert ask(page, "/api/teach/save", {"name": name}).status_code == 400, name
    saved = ask(page, "/api/teach/save", {"name": "part.7"}).json()["text"]
    assert saved.startswith(f"Saved in {tmp_path / 'part.7.kanoclip'}. Start with it: kanoclip-run --bundle")
    assert ask(page, "/api/teach/undo").json()["text"].startswith("Undone (fine: camera 0, frame 41)")
    after = control.detector(STAIN)
    assert (after.score, after.threshold) == (before.score, before.threshold)
    assert [path.parts[-3:-1] for path in (tmp_path / "labels").rglob("*.png")] == [("undone", "good")]


def test_an_image_of_the_gallery(page, control, ask):
    learn(page, control, ask)
    show(page, control, STAIN)
    (entry,) = page.client.get("/api/gallery").json()["entries"]
    text = ask(page, "/api/teach/label", {"label": "bad", "key": entry["key"]}).json()["text"]
    assert "Its verdict was right already" in text and "test/bad/" in text


def test_what_has_gone_by_is_said(page, control, ask, monkeypatch):
    learn(page, control, ask)
    monkeypatch.setattr(shown, "MOST", 1)
    first = show(page, control, STAIN, 1)
    assert ask(page, "/api/teach/freeze", {"stream": "", "number": first}).status_code == 200
    second = show(page, control, GOOD[6], 2)
    third = show(page, control, GOOD[6], 3)
    for values in ({"stream": "", "number": second}, {"key": "1234"}, {"key": "../../etc/passwd"}, {"key": "<b>"}):
        answer = ask(page, "/api/teach/label", {"label": "bad"} | values)
        assert answer.status_code == 410 and "\n" not in answer.json()["error"]
    assert ask(page, "/api/teach/freeze", {"stream": "", "number": second}).status_code == 410
    for number in (first, third):
        assert ask(page, "/api/teach/label", {"label": "bad", "stream": "", "number": number}).status_code == 200


def test_a_label_without_a_memory_is_saved_all_the_same(page, control, ask, tmp_path):
    number = show(page, control, STAIN)
    answer = ask(page, "/api/teach/label", {"label": "bad", "stream": "", "number": number})
    assert answer.status_code == 400
    assert "learn it from good frames first. Saved as object/test/bad/" in answer.json()["error"]
    assert len([*(tmp_path / "labels").rglob("*.png")]) == 1


def test_a_labelled_set_that_cannot_be_written_stops_no_correction(make_page, control, ask, tmp_path):
    (tmp_path / "file").write_text("")
    page = make_page(labels=LabelledSet(tmp_path / "file"))
    learn(page, control, ask)
    number = show(page, control, STAIN)
    text = ask(page, "/api/teach/label", {"label": "fine", "stream": "", "number": number}).json()["text"]
    assert "it passes from now on" in text and "is not in the labelled set" in text
    assert not control.detector(STAIN).is_anomalous


def test_two_browsers_at_once(page, control, ask):
    """Each gets its own outcome, and neither is lost."""
    learn(page, control, ask)
    numbers = [show(page, control, np.roll(STAIN, shift, axis=1), shift) for shift in (0, 64)]
    answers = {}

    def label(number):
        answers[number] = ask(page, "/api/teach/label", {"label": "bad", "stream": "", "number": number}).json()

    threads = [threading.Thread(target=label, args=(number,)) for number in (*numbers, numbers[0])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(control.teacher.memory("object").corrections) == 2
    assert page.client.get("/api/teach").json()["unsaved"] == 3


def test_a_lesson_is_cancelled(page, control, ask):
    assert ask(page, "/api/teach/cancel").status_code == 400
    ask(page, "/api/teach/learn", {"frames": 6, "good": False})
    assert page.facts.state()["teaching"]["lesson"]["going"]
    again = ask(page, "/api/teach/learn", {"frames": 6, "good": False})
    assert again.status_code == 400 and "is being learned already" in again.json()["error"]
    assert ask(page, "/api/teach/cancel").json()["state"]["teaching"]["lesson"]["message"].startswith("cancelled")
    assert control.learner is None


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("learn", {"frames": "6", "good": True}),
        ("learn", {"frames": True, "good": True}),
        ("learn", {"frames": 0, "good": True}),
        ("learn", {"frames": 6}),
        ("label", {"label": "ugly", "stream": "", "number": 1}),
        ("label", {"label": "fine", "stream": "other", "number": 1}),
        ("label", {"label": "fine", "stream": "", "number": "1"}),
        ("label", {"label": "fine", "key": 7}),
        ("label", {"label": "fine"}),
        ("freeze", {"stream": ""}),
        ("undo", {"all": True}),
    ],
)
def test_what_is_no_request_is_refused(page, ask, path, values):
    answer = ask(page, f"/api/teach/{path}", values)
    assert answer.status_code == 400 and answer.json()["error"]


def test_it_is_guarded_as_everything_else(make_page, control):
    page = make_page(TOKEN, address="0.0.0.0:8080", base="http://192.168.1.7:8080")
    for path in ("learn", "cancel", "freeze", "label", "undo", "save"):
        assert page.client.post(f"/api/teach/{path}", json={}, headers={"origin": page.base}).status_code == 401
    assert page.client.get("/api/teach").status_code == 401
    local = make_page()
    elsewhere = {"origin": "http://evil.example", "sec-fetch-site": "cross-site"}
    assert local.client.post("/api/teach/undo", json={}, headers=elsewhere).status_code == 403
    assert local.client.post("/api/teach/undo", json={}, headers={"origin": local.base}).status_code == 403


def test_a_class_that_is_not_looked_for_any_more(page, control, ask):
    """A frame counts for the class that it was scored for."""
    learn(page, control, ask)
    number = show(page, control, STAIN)
    control.becomes(class_name="elsewhere", classes=("object", "elsewhere"))
    control._state = replace(control._state)
    text = ask(page, "/api/teach/label", {"label": "fine", "stream": "", "number": number}).json()["text"]
    assert "it passes from now on" in text
