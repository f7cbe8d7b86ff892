"""What a line of log holds when something fails, and what it never waits for."""

import io
import json
import logging
import subprocess
import sys
import threading

import pytest

from app.observability import logging as ours
from app.observability.logging import Rarely, Unlocked

PROGRAM = """
import logging, sys
from app.observability import logging as ours

def fail(secret):
    raise ValueError(f"it failed, {len(secret)}")

ours.configure(level="info", fmt=sys.argv[1], mode="worker", environment="test")
try:
    fail("sk_live_" + str(4242))
except ValueError:
    ours.logger("unit").exception("ours")
    logging.getLogger("theirs").exception("theirs")
"""


@pytest.mark.parametrize("fmt", ["json", "console"])
def test_a_stack_is_written_without_the_values_of_its_variables(fmt: str):
    """They may be secret, and rendering them takes long."""
    ran = subprocess.run([sys.executable, "-c", PROGRAM, fmt], capture_output=True, text=True, check=True)
    assert ran.stderr.count("it failed, 12") == 2
    assert "sk_live_4242" not in ran.stderr
    if fmt == "json":
        assert [json.loads(line)["event"] for line in ran.stderr.splitlines()] == ["ours", "theirs"]


def test_nobody_waits_for_a_thread_that_is_writing_a_line():
    """One that is interrupted in the middle of it keeps nobody else from logging."""
    entered, go_on = threading.Event(), threading.Event()

    class Slow(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            if record.name == "slow":
                entered.set()
                go_on.wait(10)
            return record.name

    written = io.StringIO()
    handler = Unlocked(written)
    handler.setFormatter(Slow())
    slow, quick = (logging.makeLogRecord({"name": name}) for name in ("slow", "quick"))
    thread = threading.Thread(target=handler.handle, args=(slow,))
    thread.start()
    assert entered.wait(10)
    handler.handle(quick)
    assert written.getvalue() == "quick\n"
    go_on.set()
    thread.join(10)
    assert written.getvalue() == "quick\nslow\n"


def test_what_happens_often_is_said_now_and_then(monkeypatch: pytest.MonkeyPatch):
    """At once; then once a minute, with how many there were."""
    now = 5.0
    monkeypatch.setattr(ours, "monotonic", lambda: now)
    rarely = Rarely()
    assert [rarely.one_more() for _ in range(4)] == [1, 0, 0, 0]
    now += ours.SAID_EVERY_S
    assert [rarely.one_more() for _ in range(2)] == [4, 0]
