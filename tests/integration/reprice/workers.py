"""Workers as processes of their own, and the command line beside them."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from app.dev.servers import EmbeddedTemporal
from app.dev.stack.ports import any_free

ROOT = Path(__file__).parents[3]
ENVIRONMENT = "dev"
"""That of Temporal's namespace; whatever else shares the database must name the same."""


class Worker:
    """`MODE=worker python -m app`, for the queue of replays, killed and started again at will."""

    def __init__(self, database_url: str, redis_url: str, temporal: EmbeddedTemporal) -> None:
        self.environ = os.environ | {
            "MODE": "worker",
            "ENVIRONMENT": ENVIRONMENT,
            "WORKER_QUEUES": "orders",
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "TEMPORAL_ADDRESS": temporal.address,
            "TEMPORAL_NAMESPACE": temporal.namespace,
            "STRIPE_API_KEY": "sk_test_nobody",
            "CARRIER_URL": "http://127.0.0.1:1",
            "LISTEN_HOST": "127.0.0.1",
            "HEALTH_PORT": str(any_free()),
            "LOG_FORMAT": "json",
            "SHUTDOWN_TIMEOUT_S": "5",
        }
        self.kills = 0
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this object
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app", env=self.environ, stdout=self._log, stderr=self._log, cwd=ROOT
        )

    async def kill(self) -> None:
        """SIGKILL, and start another one."""
        await self._end(signal.SIGKILL)
        self.kills += 1
        await self.start()

    def is_alive(self) -> bool:
        """Whether it runs; one that nobody killed should."""
        return self._process is not None and self._process.returncode is None

    async def close(self) -> None:
        """Kill it for good."""
        await self._end(signal.SIGKILL)
        self._log.close()

    def log(self) -> str:
        """Everything that they wrote."""
        self._log.seek(0)
        return self._log.read().decode()

    async def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        assert self._process.returncode is None, self.log()
        self._process.send_signal(number)
        await self._process.wait()


@asynccontextmanager
async def working(database_url: str, redis_url: str, temporal: EmbeddedTemporal) -> AsyncIterator[Worker]:
    """A worker that is killed at the end."""
    worker = Worker(database_url, redis_url, temporal)
    await worker.start()
    try:
        yield worker
    finally:
        await worker.close()


class Command:
    """`holdfast …` as a process; everything it says is kept."""

    def __init__(self, database_url: str, *arguments: str) -> None:
        self._environ = os.environ | {"DATABASE_URL": database_url, "PYTHONPATH": str(ROOT)}
        self._arguments = arguments
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this object
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> "Command":
        """Start it."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app", *self._arguments,
            env=self._environ, stdout=self._said, stderr=self._said, cwd=ROOT,
        )  # fmt: skip
        return self

    async def ends(self) -> tuple[int, str]:
        """Its exit code, and what it said."""
        assert self._process is not None
        code = await self._process.wait()
        self._said.seek(0)
        said = self._said.read().decode()
        self._said.close()
        return code, said
