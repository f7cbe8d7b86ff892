"""What dies of a running stack, and what is left: all of it comes back, or nothing stays."""

import os
import signal

import pytest

from app.dev.stack import processes
from tests.integration.dev.stacks import SELDOM_S, Stack, pids, until


@pytest.fixture
def stack(kept: Stack) -> Stack:
    """The one of this file."""
    return kept


def fast_shutdowns(stack: Stack) -> int:
    """How often PostgreSQL was told to stop in order."""
    return stack.folder.log("postgres").read_text().count("received fast shutdown request")


def test_what_is_killed_is_started_again_on_its_port(stack: Stack) -> None:
    """All servers at once, as by the machine's out-of-memory killer."""
    stack.up()
    before = stack.status()
    for pid in pids(before).values():
        os.kill(pid, signal.SIGKILL)

    def again() -> dict[str, int] | None:
        found = stack.status()
        fresh = found["state"] == "ready" and set(pids(found).values()).isdisjoint(pids(before).values())
        return pids(found) if fresh else None

    assert None not in until(again, pause_s=SELDOM_S).values()
    assert stack.status()["redis"]["url"] == before["redis"]["url"]


@pytest.mark.parametrize("remedy", [pytest.param("down", marks=pytest.mark.full), "up"])
def test_what_a_killed_supervisor_and_guard_left_is_cleared(stack: Stack, remedy: str) -> None:
    """Both dead: the next command finds the orphans by their tags, whatever the state file says."""
    stack.up()
    before = pids(stack.status())
    guard = stack.guard()
    assert guard is not None
    os.kill(guard, signal.SIGKILL)
    stack.kill(stack.supervisor())
    found = stack.status()
    assert (found["state"], found["missing"]) == ("degraded", ["supervisor"])
    assert "The supervisor is gone" in stack.run("status").stdout
    stack.folder.state_file.unlink()
    done = stack.run(remedy, *(["--detach"] if remedy == "up" else []))
    assert done.returncode == 0, done.stderr
    assert not any(processes.identify(pid) for pid in before.values())


def test_a_killed_guard_is_replaced(stack: Stack) -> None:
    """So that the supervisor is never without one for long."""
    stack.up()
    first = stack.guard()
    stack.kill(first)
    until(lambda: stack.guard() not in (None, first))
    stack.kill(stack.supervisor())
    until(lambda: not stack.living())


def test_nothing_outlives_a_killed_supervisor(stack: Stack) -> None:
    """The guard stops everything in order; a new stack waits for that and starts."""
    stack.up()
    before, stops = pids(stack.status()), fast_shutdowns(stack)
    stack.kill(stack.supervisor())
    stack.up()  # at once: it waits until the old one is gone
    assert not any(processes.identify(pid) for pid in before.values())
    assert fast_shutdowns(stack) == stops + 1
    stack.kill(stack.supervisor())
    until(lambda: not stack.living())
    assert stack.status()["state"] == "stopped"


@pytest.mark.usefixtures("stopped")
def test_without_restart_up_starts_only_what_is_missing(stack: Stack) -> None:
    """--no-restart leaves the dead dead, and says so, until somebody asks."""
    stack.up("--no-restart")
    before = pids(stack.status())
    stack.kill(before["redis"])
    degraded = until(lambda: (found := stack.status())["redis"]["pid"] is None and found, pause_s=SELDOM_S)
    assert degraded["state"] == "degraded"
    assert degraded["missing"] == ["redis"]
    assert "starting that" in stack.up("--no-restart")
    after = pids(stack.status())
    assert after["redis"] != before["redis"]
    assert {**after, "redis": 0} == {**before, "redis": 0}
