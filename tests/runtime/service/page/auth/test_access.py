"""Tokens and sessions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.service.page.auth.access import SESSION_S, Access

TOKEN = "0123456789abcdef"


class Clock:
    def __init__(self):
        self.now = 1e9

    def __call__(self):
        return self.now


def test_only_the_token_is_the_token():
    access = Access(TOKEN)
    assert access.token_is(TOKEN)
    for wrong in ("", TOKEN[:-1], TOKEN + " ", TOKEN.upper(), "\udcff", TOKEN[:-1] + "g"):
        assert not access.token_is(wrong)
    assert not Access(None).token_is("")


def test_a_session_lasts_its_time_and_over_a_restart():
    clock = Clock()
    cookie, session = Access(TOKEN, clock).new_session()
    again = Access(TOKEN, clock)
    assert again.session_of(cookie) == session
    assert again.proves(session, Access(TOKEN, clock).proof(session))
    assert Access("another-token-entirely", clock).session_of(cookie) is None
    clock.now += SESSION_S - 1
    assert again.session_of(cookie) == session and again.wants_renewal(session)
    clock.now += 2
    assert again.session_of(cookie) is None


@given(st.text(max_size=80))
def test_made_up_cookies_are_nobody_s(text):
    assert Access(TOKEN).session_of(text) is None


@given(st.data())
def test_a_cookie_with_any_other_letter_is_nobody_s(data):
    access = Access(TOKEN)
    cookie, _ = access.new_session()
    at = data.draw(st.integers(0, len(cookie) - 1))
    letter = data.draw(st.characters(min_codepoint=33, max_codepoint=126).filter(lambda c: c != cookie[at]))
    changed = cookie[:at] + letter + cookie[at + 1 :]
    assert access.session_of(changed) is None


def test_proofs_differ_between_sessions_and_from_cookies():
    access = Access(TOKEN)
    cookies = [access.new_session() for _ in range(3)]
    proofs = {access.proof(session) for _, session in cookies}
    assert len(proofs) == 3
    assert not any(proof in cookie for proof in proofs for cookie, _ in cookies)
    assert not access.proves(cookies[0][1], access.proof(cookies[1][1]))
    assert not access.proves(cookies[0][1], "")


def test_without_a_token_everybody_is_in_but_proofs_are_still_asked_for():
    first, second = Access(None), Access(None)
    session = first.session_of(None)
    assert session is not None and not first.wants_renewal(session)
    assert first.proves(session, first.proof(session))
    assert not second.proves(session, first.proof(session))  # another process's
