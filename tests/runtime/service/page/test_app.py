"""Everything that can be asked of the page by HTTP, and everything that it must refuse."""

from __future__ import annotations

import logging
import re
from html.parser import HTMLParser

import pytest
from page_helpers import TOKEN, a_frame
from starlette.websockets import WebSocketDisconnect

from kanoclip.runtime.service.page.app import STATIC
from kanoclip.runtime.service.page.auth.guard import MAX_BODY, SECURITY_HEADERS

LINE = "http://192.168.1.7:8080"


def log_in(page, token=TOKEN, **headers):
    return page.client.post("/login", data={"token": token}, headers={"origin": page.base} | headers)


@pytest.fixture
def guarded(make_page):
    """A page that needs a token."""
    return make_page(TOKEN, address="0.0.0.0:8080", base=LINE)


# --- what it serves


def test_the_page_and_its_files_are_served(make_page):
    page = make_page()
    answer = page.client.get("/")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    linked = set(re.findall(r'(?:src|href)="(/[^"]+)"', answer.text))
    main = (STATIC / "js" / "main.js").read_text()
    linked |= {f"/static/js/{name}" for name in re.findall(r'from "\./([a-z/]+\.js)"', main)}
    assert len(linked) >= 12
    for path in linked:
        found = page.client.get(path)
        assert found.status_code == 200, path
        if path.endswith(".js"):
            assert found.headers["content-type"].startswith("text/javascript")


def test_nothing_comes_from_elsewhere():
    """Factory networks have no internet: no address of another host is in any file, and no inline script or style."""
    for path in (path for path in STATIC.rglob("*") if path.is_file()):
        text = path.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"https?://[a-z]|//cdn|@import|url\(", text), path.name
        if path.suffix == ".html":
            assert not re.search(r"\son\w+=|\sstyle=|<style|javascript:|<script(?![^>]*src=)", text), path.name
        assert "innerHTML" not in text, path.name


def test_every_answer_carries_what_keeps_other_sites_out(make_page):
    client = make_page().client
    for path in ("/", "/static/js/main.js", "/static/js/none.js", "/api/session", "/api/gallery", "/healthz", "/no"):
        headers = client.get(path).headers
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'" and policy["script-src"] == policy["style-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "unsafe" not in headers["content-security-policy"]
        assert not [name for name in headers if name.startswith("access-control-")]
        assert "server" not in headers


def test_files_outside_are_not_served(make_page):
    client = make_page().client
    for path in (
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static//etc/passwd",
        "/static/",
    ):
        assert client.get(path).status_code in (404, 405), path


def test_health_and_metrics(make_page, control):
    page = make_page(metrics=lambda: b"kanoclip_frames_total 5\n")
    alive, ready = page.client.get("/healthz"), page.client.get("/readyz")
    assert (alive.status_code, alive.json()["status"]) == (200, "alive")
    assert (ready.status_code, ready.json()["status"]) == (503, "not ready")
    metrics = page.client.get("/metrics")
    assert metrics.text == "kanoclip_frames_total 5\n" and metrics.headers["content-type"].startswith("text/plain")
    assert make_page().client.get("/metrics").status_code == 404


# --- changes


def test_thresholds_are_changed_at_once_and_said(make_page, ask, control, caplog):
    page = make_page()
    with caplog.at_level(logging.INFO):
        answer = ask(page, "/api/thresholds", {"image": 0.625})
    assert answer.status_code == 200 and control.state().threshold == 0.625
    assert answer.json()["state"]["threshold"] == 0.625 and answer.json()["state"]["kept"] == [0.5, 0.4]
    assert "threshold of nut: 0.625, was 0.5 (page, testclient)" in caplog.text
    ask(page, "/api/thresholds", {"pixel": 0.3})
    assert (control.state().threshold, control.state().pixel_threshold) == (0.625, 0.3)


def test_what_was_before_is_known_until_it_is_saved(make_page, ask, control):
    page = make_page()
    ask(page, "/api/thresholds", {"image": 0.6})
    ask(page, "/api/thresholds", {"image": 0.7, "pixel": 0.2})
    assert page.facts.state()["kept"] == (0.5, 0.4)
    saved = ask(page, "/api/thresholds/save")
    assert saved.json()["saved"] == "/etc/line3.toml" and saved.json()["state"]["kept"] is None
    ask(page, "/api/thresholds", {"image": 0.1})
    assert page.facts.state()["kept"] == (0.7, 0.2)
    ask(page, "/api/thresholds", {"image": 0.7})  # back by hand
    assert page.facts.state()["kept"] is None


def test_another_s_change_is_not_called_unsaved(make_page, ask, control):
    page = make_page()
    ask(page, "/api/thresholds", {"image": 0.6})
    control.becomes(threshold=0.55)  # SIGHUP, say
    assert page.facts.state()["kept"] is None
    ask(page, "/api/thresholds", {"image": 0.65})
    assert page.facts.state()["kept"] == (0.55, 0.4)


def test_changes_are_counted(make_page, ask):
    """So that a browser knows a state that was on its way when it asked for a change from the one after it."""
    page = make_page()
    counts = [page.facts.state()["changes"]]
    for path, values in (
        ("/api/thresholds", {"image": 0.6}),
        ("/api/thresholds/save", {}),
        ("/api/class", {"name": "tile"}),
        ("/api/paused", {"paused": True}),
    ):
        counts.append(ask(page, path, values).json()["state"]["changes"])
    assert ask(page, "/api/thresholds", {"image": 7}).status_code == 400
    counts.append(page.facts.state()["changes"])
    assert counts == [0, 1, 2, 3, 4, 4]


def test_classes_are_kept_apart(make_page, ask, control):
    page = make_page()
    ask(page, "/api/thresholds", {"image": 0.6})
    assert ask(page, "/api/class", {"name": "tile"}).json()["state"]["class_name"] == "tile"
    assert page.facts.state()["kept"] is None
    ask(page, "/api/class", {"name": "nut"})
    assert page.facts.state()["kept"] == (0.5, 0.4)


def test_pause_and_resume(make_page, ask, control):
    page = make_page()
    assert ask(page, "/api/paused", {"paused": True}).json()["state"]["paused"] is True
    assert ask(page, "/api/paused", {"paused": False}).json()["state"]["paused"] is False


@pytest.mark.parametrize(
    ("path", "values", "why"),
    [
        ("/api/thresholds", {"image": 1.5}, "not in [0, 1]"),
        ("/api/thresholds", {"image": "0.5"}, "image must be a number"),
        ("/api/thresholds", {"pixel": True}, "pixel must be a number"),
        ("/api/thresholds", {"image": None}, "image must be a number"),
        ("/api/thresholds", {"other": 1}, "image, pixel"),
        ("/api/thresholds", [0.5], "JSON object"),
        ("/api/class", {"name": "bolt"}, "not in this bundle"),
        ("/api/class", {"name": 3}, "class's name"),
        ("/api/class", {}, "class's name"),
        ("/api/paused", {"paused": "yes"}, "true or false"),
        ("/api/thresholds/save", {"where": "/etc/passwd"}, "nothing in it"),
    ],
)
def test_bad_changes_are_refused_in_words(make_page, ask, control, path, values, why):
    before = control.state()
    answer = ask(make_page(), path, values)
    assert answer.status_code == 400 and why in answer.json()["error"]
    assert control.state() == before


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'{"image": NaN}', b'{"image": 1e999}', b"[" * 2000])
def test_broken_bodies_are_refused(make_page, control, body):
    page = make_page()
    proof = page.client.get("/api/session").json()["proof"]
    headers = {"origin": page.base, "x-kanoclip-proof": proof, "content-type": "application/json"}
    assert page.client.post("/api/thresholds", content=body, headers=headers).status_code == 400
    assert control.state().threshold == 0.5


def test_a_disk_that_is_read_only_is_told(make_page, ask, control):
    page = make_page()
    control.saving = None
    answer = ask(page, "/api/thresholds/save")
    assert answer.status_code == 400 and "read-only file system" in answer.json()["error"]


# --- who may ask


@pytest.mark.parametrize(
    "headers",
    [
        {},  # no browser would leave the origin out
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://127.0.0.1:8080", "sec-fetch-site": "cross-site"},
        {"origin": "http://127.0.0.1:8080", "sec-fetch-site": "same-site"},
        {"origin": "http://127.0.0.1:8080.evil.example"},
    ],
)
def test_other_sites_change_nothing(make_page, control, headers):
    page = make_page()
    proof = page.client.get("/api/session").json()["proof"]
    for path, values in (
        ("/api/thresholds", {"image": 0.9}),
        ("/api/class", {"name": "tile"}),
        ("/api/paused", {"paused": True}),
        ("/api/thresholds/save", {}),
    ):
        answer = page.client.post(path, json=values, headers={"x-kanoclip-proof": proof} | headers)
        assert answer.status_code == 403, (path, answer.text)
    assert control.state().threshold == 0.5 and not control.state().paused


@pytest.mark.parametrize("proof", ["", "x", "é"])
def test_changes_need_the_page_s_proof(make_page, control, proof):
    page = make_page()
    headers = {"origin": page.base, "x-kanoclip-proof": proof.encode()}
    assert page.client.post("/api/paused", json={"paused": True}, headers=headers).status_code == 403
    assert not control.state().paused


def test_a_form_of_another_site_is_no_json(make_page, control):
    page = make_page()
    proof = page.client.get("/api/session").json()["proof"]
    headers = {"origin": page.base, "x-kanoclip-proof": proof, "content-type": "text/plain"}
    assert page.client.post("/api/paused", content=b'{"paused": true}', headers=headers).status_code == 400


@pytest.mark.parametrize(
    ("address", "host", "allowed"),
    [
        ("127.0.0.1:8080", "127.0.0.1:8080", True),
        ("127.0.0.1:8080", "localhost:9000", True),  # through `ssh -L 9000:...`
        ("127.0.0.1:8080", "LOCALHOST", True),
        ("127.0.0.1:8080", "[::1]:8080", True),
        ("127.0.0.1:8080", "line3.example:8080", True),  # --allow-host
        ("127.0.0.1:8080", "evil.example:8080", False),
        ("127.0.0.1:8080", "localhost.evil.example", False),
        ("127.0.0.1:8080", "192.168.1.7:8080", False),
        ("127.0.0.1:8080", "", False),
        ("127.0.0.1:8080", "[::1", False),
        ("127.0.0.1:8080", "user@localhost.x", False),
        ("0.0.0.0:8080", "192.168.1.7:8080", True),
        ("0.0.0.0:8080", "[fd00::7]:8080", True),
        ("0.0.0.0:8080", "evil.example", False),
        ("0.0.0.0:8080", "line3.example.", True),
    ],
)
def test_a_name_that_is_not_this_machine_s_is_refused(make_page, address, host, allowed):
    page = make_page(TOKEN, address=address, options={"allow_hosts": ["Line3.example"]})
    answer = page.client.get("/healthz", headers={"host": host})
    assert answer.status_code == (200 if allowed else 421), answer.text
    assert page.client.get("/", headers={"host": host}).status_code == (303 if allowed else 421)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_no_other_methods(make_page, method):
    assert make_page().client.request(method, "/api/thresholds").status_code == 405


def test_long_bodies_are_not_read(guarded, ask):
    assert log_in(guarded, "x" * (MAX_BODY + 1)).status_code == 401
    log_in(guarded)
    assert ask(guarded, "/api/class", {"name": "x" * MAX_BODY}).status_code == 400


# --- tokens


def test_without_a_session_there_is_nothing_but_the_door(guarded):
    assert guarded.client.get("/").headers["location"] == "/login"
    for path in ("/api/session", "/api/gallery", "/api/gallery/1/picture", "/metrics", "/nowhere"):
        assert guarded.client.get(path).status_code == 401, path
    assert guarded.client.post("/api/paused", json={"paused": True}, headers={"origin": LINE}).status_code == 401
    for path in ("/login", "/static/page.css", "/healthz"):
        assert guarded.client.get(path).status_code == 200, path


def test_the_token_opens_the_page_until_one_leaves(guarded, ask, control):
    answer = log_in(guarded)
    assert answer.status_code == 303 and answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and "path=/" in cookie and TOKEN not in cookie
    assert "secure" not in cookie  # plain HTTP: the browser would drop it
    assert guarded.client.get("/").status_code == 200
    assert guarded.client.get("/login").headers["location"] == "/"
    assert ask(guarded, "/api/paused", {"paused": True}).status_code == 200 and control.state().paused
    assert ask(guarded, "/logout").status_code == 200
    assert guarded.client.get("/").status_code == 303


def test_over_tls_the_cookie_is_secure(make_page, tmp_path):
    page = make_page(TOKEN, address="0.0.0.0:8443", base="https://192.168.1.7:8443", options={"tls_cert": tmp_path})
    cookie = log_in(page).headers["set-cookie"]
    assert cookie.startswith("__Host-kanoclip-8443=") and "Secure" in cookie and "HttpOnly" in cookie


def test_wrong_tokens_are_refused_and_slowed_down(guarded):
    for wrong in ("", "x", TOKEN[:-1]):
        answer = log_in(guarded, wrong)
        assert answer.status_code == 401 and "not the token" in answer.text and "set-cookie" not in answer.headers
    slowed = log_in(guarded, "x")
    assert slowed.status_code == 429 and int(slowed.headers["retry-after"]) >= 1 and "wait" in slowed.text
    assert log_in(guarded).status_code == 303  # nobody can keep out who knows the token


def test_another_site_cannot_log_one_in(guarded):
    assert log_in(guarded, origin="http://evil.example").status_code == 403
    assert guarded.client.get("/").status_code == 303


def test_a_program_shows_the_token_itself(guarded, control):
    bearer = {"authorization": f"Bearer {TOKEN}"}
    assert guarded.client.get("/api/gallery", headers=bearer).status_code == 200
    assert guarded.client.post("/api/paused", json={"paused": True}, headers=bearer).status_code == 200
    assert control.state().paused
    for _ in range(3):
        assert guarded.client.get("/api/gallery", headers={"authorization": "Bearer wrong"}).status_code == 401
    assert guarded.client.get("/api/gallery", headers={"authorization": "Bearer wrong"}).status_code == 429
    assert guarded.client.get("/api/gallery", headers=bearer).status_code == 200


def live_url(page):
    return f"{page.base.replace('http', 'ws')}/api/live"


def test_logging_out_ends_the_session_at_the_server(guarded, ask):
    log_in(guarded)
    stolen = dict(guarded.client.cookies)
    with guarded.client.websocket_connect(live_url(guarded), headers={"origin": guarded.base}) as live:
        live.send_json({"stream": "", "pictures": False, "span": 60})
        live.receive_bytes()
        assert ask(guarded, "/logout").status_code == 200
        live.send_json({"stream": "", "pictures": False, "span": 60})
        with pytest.raises(WebSocketDisconnect):
            live.receive_bytes()
            live.receive_bytes()
    guarded.client.cookies.update(stolen)
    assert guarded.client.get("/api/gallery").status_code == 401


@pytest.mark.parametrize(
    "origin", ["http://[", "http://[::1", "null", "\udc80".encode("utf-8", "replace").decode(), "//"]
)
def test_broken_origins_are_those_of_another_site(guarded, origin):
    answer = log_in(guarded, origin=origin)
    assert answer.status_code == 403
    assert SECURITY_HEADERS.items() <= dict(answer.headers).items()


@pytest.mark.parametrize("path", ["/static/%00", "/api/gallery/%00/record", "/%0a", "/static/%1b[31m"])
def test_control_characters_are_part_of_no_address(guarded, path):
    log_in(guarded)
    answer = guarded.client.get(path)
    assert answer.status_code == 400
    assert SECURITY_HEADERS.items() <= dict(answer.headers).items()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/class", b'{"name": "\\ud800"}'),
        ("/api/class", b'{"name": "\xff"}'),
        ("/api/thresholds", b'{"image": 1e999}'),
        ("/api/thresholds", b'{"image": NaN}'),
        ("/api/thresholds", b'{"image": ' + b"9" * 400 + b"}"),
        ("/api/thresholds", b'{"image": ' + b"[" * 4000),
        ("/api/paused", b""),
    ],
)
def test_what_is_no_text_and_no_number_is_refused(guarded, path, body, caplog):
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    with caplog.at_level(logging.WARNING):
        answer = guarded.client.post(path, content=body, headers=headers)
    assert answer.status_code == 400 and not caplog.records
    assert SECURITY_HEADERS.items() <= dict(answer.headers).items()


def test_a_form_of_a_thousand_fields_holds_no_token(guarded):
    form = "&".join(["token=x"] * 300)
    headers = {"origin": guarded.base, "content-type": "application/x-www-form-urlencoded"}
    assert guarded.client.post("/login", content=form, headers=headers).status_code == 401


@pytest.mark.parametrize("sent", [b"\x00\xff", b""])
def test_binary_messages_are_not_understood(guarded, caplog, sent):
    log_in(guarded)
    with (
        caplog.at_level(logging.WARNING),
        guarded.client.websocket_connect(live_url(guarded), headers={"origin": guarded.base}) as live,
    ):
        live.send_bytes(sent)
        with pytest.raises(WebSocketDisconnect) as closed:
            live.receive_bytes()
    assert closed.value.code == 1003 and not caplog.records


def test_the_token_is_in_no_log_and_no_answer(guarded, ask, caplog):
    with caplog.at_level(logging.DEBUG):
        texts = [log_in(guarded, "wrong-token-wrong").text]
        log_in(guarded)
        texts += [guarded.client.get(path).text for path in ("/", "/api/session", "/login", "/api/gallery", "/nowhere")]
        texts.append(ask(guarded, "/api/thresholds", {"image": 0.7}).text)
    assert "0.7" in caplog.text
    for text in (*texts, caplog.text):
        assert TOKEN not in text and "wrong-token-wrong" not in text


# --- gallery


def test_the_gallery_lists_and_gives_each_part(make_page):
    page = make_page()
    page.hub.write(*a_frame(3, 0.9))
    page.hub.write(*a_frame(4, 0.1))
    answer = page.client.get("/api/gallery").json()
    assert answer["place"] is None
    (entry,) = answer["entries"]
    assert (entry["score"], entry["threshold"], entry["class_name"]) == (0.9, 0.5, "nut")
    base = f"/api/gallery/{entry['key']}"
    assert page.client.get(f"{base}/picture").headers["content-type"] == "image/jpeg"
    assert page.client.get(f"{base}/thumbnail").content.startswith(b"\xff\xd8")
    assert page.client.get(f"{base}/map").headers["content-type"] == "image/png"
    record = page.client.get(f"{base}/record").json()
    assert record["frame"] == 3 and record["size"] == [160, 90] and record["regions"][0]["area"] == 900
    for path in (f"{base}/other", "/api/gallery/99/picture", "/api/gallery/..%2f..%2fetc/picture"):
        assert page.client.get(path).status_code == 404, path


class Labels(HTMLParser):
    """Ids, labels and controls of a page."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.controls, self.labelled = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "label" and "for" in values:
            self.labelled.add(values["for"])
        if tag in ("input", "select") and "aria-label" not in values and values.get("type") != "checkbox":
            self.controls.append(values["id"])


@pytest.mark.parametrize("name", ["index.html", "login.html"])
def test_ids_are_unique_and_controls_are_labelled(name):
    found = Labels((STATIC / name).read_text(encoding="utf-8"))
    assert len(found.ids) == len(set(found.ids))
    assert set(found.controls) - found.labelled - {"anomaly-opacity"} == set() or set(found.controls) <= found.labelled
