"""Owns how the stack recognises and awaits processes that are not its children.

A process is known by its pid together with its start time, so that a stale file never points at a stranger
who got the same pid later. Every process of a stack carries a tag in its environment (name, run, data
folder), so that whoever cleans up finds all of them even when nothing was written down in time.
Reads /proc only; a process that dies here loses nothing.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

TAG = "HOLDFAST_STACK"
_POLL_S = 0.02
_LISTENING = "0A"  # of the states of a TCP socket in /proc/net/tcp


@dataclass(frozen=True, slots=True)
class Identity:
    """A process, told apart from a later one with the same pid. `started` is in clock ticks since boot."""

    pid: int
    started: int


@dataclass(frozen=True, slots=True)
class Tagged:
    """A process of a stack: which of its services it is, and of which run of the supervisor."""

    identity: Identity
    name: str
    run: str


def tag(name: str, run: str, folder: Path) -> dict[str, str]:
    """The environment entry that marks a process as `name` of the stack in `folder`."""
    return {TAG: f"{name}:{run}:{folder}"}


def identify(pid: int) -> Identity | None:
    """Who runs under this pid now; None when nobody does, or only a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    if len(fields) < 20 or fields[0] in ("Z", "X"):
        return None
    return Identity(pid, int(fields[19]))


def alive(identity: Identity) -> bool:
    """Whether this very process still runs."""
    return identify(identity.pid) == identity


def tagged(folder: Path, run: str | None = None) -> list[Tagged]:
    """The living processes of the stack in `folder` (of one run, or of any), oldest first; never this one."""
    found: list[Tagged] = []
    for pid in _pids():
        if pid == os.getpid():
            continue
        try:
            entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        for entry in entries:
            if not entry.startswith(TAG.encode() + b"="):
                continue
            parts = os.fsdecode(entry).partition("=")[2].split(":", 2)
            identity = identify(pid)
            if (
                len(parts) == 3
                and parts[2] == str(folder)
                and run in (None, parts[1])
                and identity is not None
            ):
                found.append(Tagged(identity, parts[0], parts[1]))
    return sorted(found, key=lambda one: (one.identity.started, one.identity.pid))


def command(pid: int) -> str | None:
    """The name of the program that runs under this pid (its first 15 characters); None when nothing does."""
    try:
        return Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").rstrip("\n")
    except OSError:
        return None


def working_in(folder: Path, program: str) -> list[Identity]:
    """Living processes whose command is `program` and whose working folder is `folder`."""
    found = []
    for pid in _pids():
        try:
            if command(pid) != program or Path(f"/proc/{pid}/cwd").readlink() != folder.resolve():
                continue
        except OSError:
            continue
        identity = identify(pid)
        if identity is not None:
            found.append(identity)
    return found


def listens(session: int, port: int) -> bool:
    """Whether a process of this session listens on the TCP port; True too where the system will not tell."""
    sockets = {f"socket:[{inode}]" for inode in _listeners(port)}
    for pid in _pids():
        try:
            if os.getsid(pid) != session:
                continue
            for handle in Path(f"/proc/{pid}/fd").iterdir():
                if str(handle.readlink()) in sockets:
                    return True
        except PermissionError:
            return True
        except OSError:
            continue
    return False


def _listeners(port: int) -> set[str]:
    """The inodes of the sockets that listen on this port."""
    found = set()
    for table in ("tcp", "tcp6"):
        try:
            rows = Path(f"/proc/net/{table}").read_text("ascii").splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(fields[9])
    return found


async def gone(identities: list[Identity], timeout_s: float) -> list[Identity]:
    """Wait until these processes ended, at most `timeout_s` seconds; returns those that still run."""
    deadline = time.monotonic() + timeout_s
    while left := [identity for identity in identities if alive(identity)]:
        if time.monotonic() >= deadline:
            return left
        await asyncio.sleep(_POLL_S)
    return []


def send(identity: Identity, number: signal.Signals) -> None:
    """Send a signal to this very process; one that ended meanwhile is no error."""
    if alive(identity):
        try:
            os.kill(identity.pid, number)
        except ProcessLookupError:
            return


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
