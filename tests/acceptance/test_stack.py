"""The whole stack by its commands: what a newcomer sees, and that nothing of it outlives its supervisor."""

import os
import shlex
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.dev.stack import processes
from tests.integration.dev.stacks import Stack, own_ports, until

MODES = ("gateway", "worker", "consumer")


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """A whole stack that was never started; whatever the test leaves of it is stopped."""
    own_ports(tmp_path / "data")
    stack = Stack(tmp_path / "data", whole=True)
    yield stack
    stack.run("down")
    assert stack.living() == []


def all_pids(found: dict[str, Any]) -> dict[str, int]:
    """Process → pid, of those that run."""
    named = {name: found[name]["pids"] for name in MODES}
    named |= {name: [found[name]["pid"]] for name in ("postgres", "redis", "temporal", "sandbox")}
    return {name: pids[0] for name, pids in named.items() if pids and pids[0] is not None}


def first_order(said: str) -> httpx.Response:
    """Do what the curl command in the summary does."""
    command = shlex.split(said[said.index("curl") :].replace("\\\n", " ").replace("$(date +%s)", "now"))
    headers = dict(value.split(": ", 1) for option, value in pairwise(command) if option == "-H")
    body = command[command.index("-d") + 1]
    return httpx.post(command[2], headers=headers, content=body, timeout=30)


def test_the_printed_command_places_an_order_that_completes(stack: Stack) -> None:
    """From a folder with nothing in it to a completed order, by what `up` prints."""
    answer = first_order(stack.up())
    assert answer.status_code in {200, 202}, answer.text
    found = stack.status()
    headers = {"Authorization": f"Bearer {found['api_key']}"}
    url = f"{found['gateway']['url']}/v1/orders/{answer.json()['id']}"
    until(lambda: httpx.get(url, headers=headers).json()["status"] == "completed")
    intents = httpx.get(
        f"{found['sandbox']['url']}/v1/payment_intents", headers={"Authorization": "Bearer sk_test_any"}
    ).json()["data"]
    assert [intent["metadata"]["order_id"] for intent in intents] == [answer.json()["id"]]
    for name in ("worker", "consumer"):
        assert httpx.get(f"{found[name]['health_url']}/readyz").status_code == 200
    assert found["missing"] == []
    assert len(all_pids(found)) == 7


def test_killed_modes_come_back_on_their_ports(stack: Stack) -> None:
    """All of them and the sandbox at once."""
    stack.up()
    before = stack.status()
    for name in (*MODES, "sandbox"):
        os.kill(all_pids(before)[name], signal.SIGKILL)

    def again() -> bool:
        found = stack.status()
        changed = {name for name, pid in all_pids(found).items() if pid != all_pids(before)[name]}
        return found["state"] == "ready" and changed == {*MODES, "sandbox"}

    until(again, 40)
    assert stack.status()["gateway"]["url"] == before["gateway"]["url"]


def test_up_completes_a_stack_in_which_modes_were_left_dead(stack: Stack) -> None:
    """With --no-restart, as tests of failures use it."""
    stack.up("--no-restart")
    before = all_pids(stack.status())
    for name in ("gateway", "worker", "postgres"):
        stack.kill(before[name])
    found = until(lambda: (found := stack.status()) and len(all_pids(found)) == 4 and found)
    assert found["state"] == "degraded"
    assert found["gateway"]["pids"] == []
    said = stack.up("--no-restart")
    assert stack.status()["state"] == "ready"
    assert first_order(said).status_code in {200, 202}


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.full), signal.SIGKILL])
def test_nothing_outlives_the_supervisor(stack: Stack, number: signal.Signals) -> None:
    """Ctrl-C stops all in order; after a kill the guard does."""
    process = stack.foreground()
    before = all_pids(stack.status())
    process.send_signal(number)
    said = process.communicate(timeout=60)[0]
    until(lambda: not any(processes.identify(pid) for pid in before.values()))
    if number == signal.SIGINT:
        assert process.returncode == 0
        stopped = [line.split()[0] for line in said.splitlines() if "stopped" in line]
        assert stopped == [*MODES, "sandbox", "temporal", "redis", "postgres"]
    else:
        text = (stack.folder.logs / "guard.log").read_text()
        order = [line.rpartition(" ")[2] for line in text.splitlines() if ": stopping " in line]
        assert order == [*MODES, "sandbox", "temporal", "redis", "postgres"]
    until(lambda: stack.status()["state"] == "stopped")
