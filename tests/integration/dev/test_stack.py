"""`holdfast up`, `down` and `status`, with real servers: what they report, keep, empty and believe."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import asyncpg
import pytest

from app.dev.stack import processes, state
from tests.integration.dev.stacks import Stack, pids, until


@pytest.fixture
def stack(kept: Stack) -> Stack:
    """The one of this file."""
    return kept


@pytest.mark.usefixtures("stopped")
async def test_up_reports_what_runs_and_keeps_data_and_ports(stack: Stack) -> None:
    """The second `up` starts nothing; after `down` and `up` everything is where it was."""
    said = stack.up()
    first = stack.status()
    assert first["state"] == "ready"
    assert first["postgres"]["dsn"] in said
    assert first["api_key"].startswith("hf_dev_")
    assert "runs already" in stack.up()
    attended = stack.run("up")  # in the foreground too; it has nothing to stay for
    assert attended.returncode == 0
    assert attended.stdout.count(first["postgres"]["dsn"]) == 1
    assert json.loads(stack.up("--json")) == first
    connection = await asyncpg.connect(first["postgres"]["dsn"])
    await connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    await connection.close()

    assert stack.run("down").returncode == 0
    stopped = stack.status()
    assert stopped["state"] == "stopped"
    assert pids(stopped) == dict.fromkeys(pids(first))
    assert stack.living() == []
    assert stack.run("down").stdout == "Nothing runs here.\n"

    stack.up()
    second = stack.status()
    assert pids(second).keys() == pids(first).keys()
    for found in (first, second):
        for name in ("postgres", "redis", "temporal"):
            found[name].pop("pid")
    assert second == first
    connection = await asyncpg.connect(second["postgres"]["dsn"])
    assert await connection.fetchval("SELECT one FROM kept") == 1
    await connection.close()


def test_fresh_starts_empty_but_not_under_a_running_stack(stack: Stack) -> None:
    """What runs is not emptied; ports and the API key stay."""
    stack.up()
    first = stack.status()
    refused = stack.run("up", "--detach", "--fresh")
    assert refused.returncode == 1
    assert "holdfast down" in refused.stderr
    assert pids(stack.status()) == pids(first)
    stack.run("down")
    (stack.folder.place("temporal") / "old").touch()
    stack.up("--fresh")
    second = stack.status()
    assert not (stack.folder.place("temporal") / "old").exists()
    assert second["postgres"]["dsn"] != first["postgres"]["dsn"]
    assert (second["api_key"], second["redis"]["url"]) == (first["api_key"], first["redis"]["url"])


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, *(pytest.param(n, marks=pytest.mark.full) for n in (signal.SIGTERM, signal.SIGHUP))],
)
def test_the_foreground_stops_in_order(stack: Stack, number: signal.Signals) -> None:
    """Ctrl-C, a closed terminal, or a polite kill: everything is stopped, nothing killed."""
    process = stack.foreground()
    assert stack.status()["state"] == "ready"
    process.send_signal(number)
    said = process.communicate(timeout=30)[0]
    assert process.returncode == 0
    assert [line.split()[0] for line in said.splitlines() if "stopped" in line] == [
        "temporal",
        "redis",
        "postgres",
    ]
    assert stack.living() == []
    assert stack.guard() is None


@pytest.mark.usefixtures("stopped")
def test_a_second_ctrl_c_does_not_wait(stack: Stack) -> None:
    """A process that will not stop is given its time, or none when asked again."""
    process = stack.foreground()
    os.kill(pids(stack.status())["temporal"], signal.SIGSTOP)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    until(lambda: '"stopping"' in stack.folder.state_file.read_text())
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert time.monotonic() - begun < 10  # Temporal alone would have been given 10 s
    assert stack.living() == []


@pytest.mark.usefixtures("stopped")
def test_a_stale_state_file_misleads_nobody(stack: Stack) -> None:
    """Pids in it may belong to strangers by now: they are neither believed nor killed."""
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        identity = processes.Identity(stranger.pid, 1)  # the same pid, another start
        stack.folder.create()
        state.RunState(
            "old",
            identity,
            phase=state.READY,
            services=dict.fromkeys(("postgres", "redis", "temporal"), identity),
        ).save(stack.folder.state_file)
        assert stack.status()["state"] == "stopped"
        stack.up()
        assert stack.status()["state"] == "ready"
        stack.run("down")
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.full
def test_supervising_costs_nothing(stack: Stack) -> None:
    """Supervisor and guard sleep until something happens: under 0.3 % of a core."""
    stack.up()
    watched = [stack.supervisor(), stack.guard()]

    def ticks() -> int:
        fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in watched]
        return sum(int(field[11]) + int(field[12]) for field in fields)

    before, begun = ticks(), time.monotonic()
    until(lambda: time.monotonic() - begun > 3, 10)
    used_s = (ticks() - before) / os.sysconf("SC_CLK_TCK")
    assert used_s / (time.monotonic() - begun) <= 0.004  # one tick of the clock in three seconds
