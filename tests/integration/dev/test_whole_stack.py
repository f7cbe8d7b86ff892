"""The whole stack by its commands: what a newcomer sees, and that nothing of it outlives its supervisor.

The first test makes the stack's data; each of the others finds whatever the one before left.
"""

import os
import shlex
import signal
import uuid
from itertools import pairwise
from typing import Any

import httpx
import pytest

from app.dev.stack import processes
from tests.integration.dev.stacks import SELDOM_S, Stack, until

MODES = ("gateway", "worker", "consumer")
IN_ORDER = [*MODES, "sandbox", "temporal", "redis", "postgres"]
WHOLE = True


@pytest.fixture
def stack(kept: Stack) -> Stack:
    """The one of this file."""
    return kept


def all_pids(found: dict[str, Any]) -> dict[str, int]:
    """Process → pid, of those that run."""
    named = {name: found[name]["pids"] for name in MODES}
    named |= {name: [found[name]["pid"]] for name in ("postgres", "redis", "temporal", "sandbox")}
    return {name: pids[0] for name, pids in named.items() if pids and pids[0] is not None}


def first_order(said: str) -> httpx.Response:
    """Do what the curl command in the summary does."""
    command = shlex.split(
        said[said.index("curl") :].replace("\\\n", " ").replace("$(date +%s)", uuid.uuid4().hex)
    )
    headers = dict(value.split(": ", 1) for option, value in pairwise(command) if option == "-H")
    body = command[command.index("-d") + 1]
    return httpx.post(command[2], headers=headers, content=body, timeout=30)


@pytest.mark.usefixtures("stopped")
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


@pytest.mark.usefixtures("running")
def test_killed_modes_come_back_on_their_ports(stack: Stack) -> None:
    """All of them and the sandbox at once."""
    before = stack.status()
    for name in (*MODES, "sandbox"):
        os.kill(all_pids(before)[name], signal.SIGKILL)

    def again() -> bool:
        found = stack.status()
        changed = {name for name, pid in all_pids(found).items() if pid != all_pids(before)[name]}
        return found["state"] == "ready" and changed == {*MODES, "sandbox"}

    until(again, pause_s=SELDOM_S)
    assert stack.status()["gateway"]["url"] == before["gateway"]["url"]


@pytest.mark.usefixtures("running")
def test_nothing_outlives_a_killed_supervisor(stack: Stack) -> None:
    """The guard stops all in order."""
    before = all_pids(stack.status())
    log = stack.folder.log("guard")
    known = len(log.read_text())
    stack.kill(stack.supervisor())
    until(lambda: not any(processes.identify(pid) for pid in before.values()))
    until(lambda: stack.status()["state"] == "stopped", pause_s=SELDOM_S)
    said = log.read_text()[known:].splitlines()
    assert [line.rpartition(" ")[2] for line in said if ": stopping " in line] == IN_ORDER


@pytest.mark.usefixtures("stopped")
def test_up_completes_a_stack_in_which_modes_were_left_dead(stack: Stack) -> None:
    """With --no-restart, as tests of failures use it."""
    stack.up("--no-restart")
    before = all_pids(stack.status())
    for name in ("gateway", "worker", "postgres"):
        stack.kill(before[name])
    found = until(lambda: (found := stack.status()) and len(all_pids(found)) == 4 and found, pause_s=SELDOM_S)
    assert found["state"] == "degraded"
    assert found["gateway"]["pids"] == []
    said = stack.up("--no-restart")
    assert stack.status()["state"] == "ready"
    assert first_order(said).status_code in {200, 202}


@pytest.mark.full
@pytest.mark.usefixtures("stopped")
def test_ctrl_c_stops_all_in_order(stack: Stack) -> None:
    """Nothing outlives it, and it says what it stops."""
    process = stack.foreground()
    before = all_pids(stack.status())
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    until(lambda: not any(processes.identify(pid) for pid in before.values()))
    assert process.returncode == 0
    assert [line.split()[0] for line in said.splitlines() if "stopped" in line] == IN_ORDER
    until(lambda: stack.status()["state"] == "stopped", pause_s=SELDOM_S)
