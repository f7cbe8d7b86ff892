"""First starts of a stack: cut short, stopped, two at once, of ports that are taken, and such as fail."""

import json
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from app.dev.stack import processes
from tests.integration.dev.stacks import Stack, until


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
