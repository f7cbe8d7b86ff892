"""`holdfast up`, `down` and `status`, with real servers: what runs already, what dies, what is in the way."""

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from app.dev.stack import processes, state
from tests.integration.dev.stacks import Stack, pids, until


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

    assert None not in until(again).values()
    assert stack.status()["redis"]["url"] == before["redis"]["url"]


def test_without_restart_up_starts_only_what_is_missing(stack: Stack) -> None:
    """--no-restart leaves the dead dead, and says so, until somebody asks."""
    stack.up("--no-restart")
    before = pids(stack.status())
    stack.kill(before["redis"])
    degraded = until(lambda: (found := stack.status())["redis"]["pid"] is None and found)
    assert degraded["state"] == "degraded"
    assert degraded["missing"] == ["redis"]
    assert "starting that" in stack.up("--no-restart")
    after = pids(stack.status())
    assert after["redis"] != before["redis"]
    assert {**after, "redis": 0} == {**before, "redis": 0}


def test_nothing_outlives_a_killed_supervisor(stack: Stack) -> None:
    """The guard stops everything in order; a new stack waits for that and starts."""
    stack.up()
    before = pids(stack.status())
    stack.kill(stack.supervisor())
    stack.up()  # at once: it waits until the old one is gone
    assert not any(processes.identify(pid) for pid in before.values())
    assert (stack.folder.logs / "postgres.log").read_text().count("received fast shutdown request") == 1
    stack.kill(stack.supervisor())
    until(lambda: not stack.living())
    assert stack.status()["state"] == "stopped"


def test_a_killed_guard_is_replaced(stack: Stack) -> None:
    """So that the supervisor is never without one for long."""
    stack.up()
    first = stack.guard()
    stack.kill(first)
    until(lambda: stack.guard() not in (None, first))
    stack.kill(stack.supervisor())
    until(lambda: not stack.living())


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


def test_the_start_may_be_killed_at_any_moment(stack: Stack) -> None:
    """A first start, cut short again and again, leaves nothing behind that the next cannot cope with."""
    for delay_s in (0.15, 0.3, 0.45, 0.6, 0.9):
        process = subprocess.Popen(
            stack.command("up"), env=stack.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(delay_s)  # not to wait for something, but to be somewhere in the middle
        process.kill()
        process.wait()
    stack.up()
    assert stack.status()["state"] == "ready"
    assert list(stack.folder.place("postgres").glob("data.*")) == []


def test_a_stopped_start_leaves_nothing_running(stack: Stack) -> None:
    """`down` while `up --detach` still starts: that says so and fails, and nothing is left."""
    starting = subprocess.Popen(
        stack.command("up", "--detach"),
        env=stack.env,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    until(stack.living)
    assert stack.run("down").returncode == 0
    said = starting.communicate(timeout=30)[1]
    if starting.returncode != 0:  # it may have been ready just before
        assert "stopped before it was ready" in said
    assert stack.living() == []


def test_two_starts_at_once_make_one_stack(stack: Stack) -> None:
    """Whoever comes second waits for the first and reports it."""
    starts = [
        subprocess.Popen(stack.command("up", "--detach"), env=stack.env, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [start.communicate(timeout=60)[0] for start in starts]
    assert [start.returncode for start in starts] == [0, 0, 0]
    assert all(stack.status()["postgres"]["dsn"] in text for text in said)
    assert stack.living() == ["postgres", "redis", "temporal"]
    assert len(processes.tagged(stack.folder.path)) == 3


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


@pytest.mark.full
def test_a_taken_port_moves_unless_it_was_asked_for(stack: Stack) -> None:
    """A remembered port gives way to somebody else's server and says so; --gateway-port does not."""
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        ports = json.loads(stack.folder.ports_file.read_text())
        stack.folder.ports_file.write_text(json.dumps({**ports, "redis": port}))
        refused = stack.run("up", "--detach", "--gateway-port", str(port))
        assert refused.returncode == 1
        assert f"Port {port}" in refused.stderr
        assert stack.living() == []
        said = stack.up()
        assert f"(not {port})" in said
        moved = stack.status()["redis"]["url"]
    stack.run("down")
    again = stack.up()
    port = urlsplit(moved).port  # which another stack of these tests may have taken meanwhile
    assert stack.status()["redis"]["url"] == moved or f"(not {port})" in again


@pytest.mark.full
def test_stacks_that_start_together_get_ports_of_their_own(tmp_path: Path) -> None:
    """Each wants the usual ports; none fails because another was faster."""
    stacks = [Stack(tmp_path / name) for name in ("one", "two", "three")]
    try:
        starts = [
            subprocess.Popen(stack.command("up", "--detach"), env=stack.env, stdout=subprocess.DEVNULL)
            for stack in stacks
        ]
        assert [start.wait(timeout=60) for start in starts] == [0, 0, 0]
        taken = [
            port for stack in stacks for port in json.loads(stack.folder.ports_file.read_text()).values()
        ]
        assert len(set(taken)) == len(taken)
    finally:
        for stack in stacks:
            stack.run("down")


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


def test_a_failed_start_says_why_and_leaves_nothing(stack: Stack) -> None:
    """The message has the process, the end of its log, and the log's path."""
    stack.folder.create()
    stack.folder.place("temporal").mkdir()
    (stack.folder.place("temporal") / "temporal.db").write_bytes(b"no database" * 1000)
    failed = stack.run("up", "--detach")
    assert failed.returncode == 1
    assert "temporal ended while it started" in failed.stderr
    assert str(stack.folder.log("temporal")) in failed.stderr
    assert "file is not a database" in failed.stderr
    assert stack.living() == []


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """Exit 78 for the folder, 64 for wrong usage, each with one line."""
    file = tmp_path / "file"
    file.touch()
    broken = Stack(file).run("up", "--detach")
    assert (broken.returncode, len(broken.stderr.splitlines())) == (78, 1)
    assert str(file) in broken.stderr
    for arguments in (["--gateway-port", "0"], ["--gateway-port", "x"], ["--nonsense"]):
        wrong = Stack(tmp_path).run("up", *arguments)
        assert (wrong.returncode, len(wrong.stderr.splitlines())) == (64, 1)
    assert Stack(tmp_path / "nowhere").run("down").returncode == 0
    assert Stack(tmp_path / "nowhere").status()["state"] == "stopped"


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
