"""Signals before a stream starts, while it runs and after its end, in processes of their own."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from kanoclip.runtime.system.signals import GRACE_S

TERM, INT, HUP = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
PRELUDE = """
import ctypes, signal, sys, time
from kanoclip.runtime.system.signals import exit_on_signals, has_terminal, stop_on_signals
def say(text):
    print(text, flush=True)
"""
# A library's call in which Python runs no handler, as compiling an engine is one: a lock that is taken twice.
BLOCKED = "lock = ctypes.create_string_buffer(256); [ctypes.CDLL(None).pthread_mutex_lock(lock) for _ in range(2)]"


@pytest.fixture
def start():
    """Starts a script that says `here` when it is there; ends it whatever happens."""
    started = []

    def start(body, **options):
        script = PRELUDE + textwrap.dedent(body)
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **options,
        )
        started.append(process)
        assert process.stdout.readline() == "here\n", process.stderr.read()
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def end_of(process, timeout=20):
    """Exit code, words and errors. Not `communicate`, which misses what came together with the first line."""
    watchdog = threading.Timer(timeout, process.kill)
    watchdog.start()
    out, err = process.stdout.read(), process.stderr.read()
    watchdog.cancel()
    return process.wait(), out.split(), err


LOADING = """
    try:
        with exit_on_signals():
            say("here")
            time.sleep(30)
            say("never")
    finally:
        say("unwound")
"""


@pytest.mark.parametrize("number, code", [(TERM, 0), (INT, -INT)])
def test_while_loading_it_unwinds(start, number, code):
    process = start(LOADING)
    process.send_signal(number)
    returncode, out, _ = end_of(process)
    assert (returncode, out) == (code, ["unwound"])


@pytest.mark.parametrize("number, code", [(TERM, 0), (INT, 130)])
def test_inside_of_a_library_s_call_it_ends_without_unwinding(start, number, code):
    process = start(f"""
        with exit_on_signals():
            say("here")
            {BLOCKED}
            say("never")
    """)
    time.sleep(0.2)
    started = time.monotonic()
    process.send_signal(number)
    assert process.wait(20) == code
    assert GRACE_S - 0.5 < time.monotonic() - started < GRACE_S + 5
    assert end_of(process)[1:] == ([], "error: interrupted\n" if number == INT else "")


def test_hang_up_is_let_go_by_without_a_terminal(start):
    process = start("""
        assert not has_terminal()
        with exit_on_signals():
            say("here")
            time.sleep(1)
        say("done")
    """)
    process.send_signal(HUP)
    assert end_of(process)[:2] == (0, ["done"])


def test_children_do_not_inherit_that(start):
    process = start("""
        import subprocess
        with exit_on_signals():
            say("here")
            child = subprocess.Popen(["sleep", "30"])
            child.send_signal(signal.SIGHUP)
            say(child.wait())
    """)
    assert end_of(process)[:2] == (0, [str(-HUP)])


def test_hang_up_ends_a_run_on_a_terminal():
    script = PRELUDE + textwrap.dedent("""
        assert has_terminal()
        with exit_on_signals():
            say("here")
            time.sleep(30)
    """)
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, which a program inherits
        os.execv(sys.executable, [sys.executable, "-c", script])
    try:
        seen = b""
        while b"here" not in seen:
            seen += os.read(terminal, 4096)
        os.close(terminal)  # the window is closed
        deadline = time.monotonic() + 20
        ended, status = 0, 0
        while not ended and time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            time.sleep(0.02)
        assert ended and os.WIFSIGNALED(status) and os.WTERMSIG(status) == HUP
    finally:
        if not ended:
            os.kill(pid, signal.SIGKILL)


RUNNING = """
    asked = []
    with exit_on_signals():
        with stop_on_signals(lambda: asked.append("stop"), lambda: bool(asked)):
            say("here")
            until = time.monotonic() + {seconds}
            while time.monotonic() < until:
                time.sleep(0.05)
        say("flushed")
        say(len(asked))
"""


def test_while_a_stream_runs_it_is_asked_to_stop_however_long_that_takes(start):
    process = start(RUNNING.format(seconds=GRACE_S + 1.5))
    process.send_signal(TERM)
    time.sleep(0.1)
    process.send_signal(TERM)
    assert end_of(process)[:2] == (0, ["flushed", "2"])


def test_a_second_interrupt_ends_it_at_once(start):
    process = start(RUNNING.format(seconds=30))
    process.send_signal(INT)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(INT)
    returncode, out, err = end_of(process)
    assert (returncode, out) == (-INT, []) and "KeyboardInterrupt" in err


def test_after_the_stream_s_end_it_unwinds(start):
    process = start("""
        with exit_on_signals():
            with stop_on_signals(lambda: None, lambda: False):
                pass
            say("here")
            time.sleep(30)
            say("never")
    """)
    process.send_signal(TERM)
    assert end_of(process)[:2] == (0, [])


def test_what_was_there_is_put_back_and_other_threads_are_left_alone(start):
    process = start("""
        import threading
        def everything():
            return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        before = everything()
        with exit_on_signals():
            with stop_on_signals(lambda: None, lambda: False):
                pass
        assert everything() == before and signal.set_wakeup_fd(-1) == -1
        assert [thread.name for thread in threading.enumerate()] == ["MainThread"]
        def elsewhere():
            with exit_on_signals(), stop_on_signals(lambda: None, lambda: False):
                assert everything() == before
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        say("here")
    """)
    assert end_of(process)[::2] == (0, "")
