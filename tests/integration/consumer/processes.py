"""Consumers as processes of their own: started, asked, stopped, killed."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from app.dev.stack.ports import any_free

SHUTDOWN_TIMEOUT_S = 5
TELLING = {"SMTP_URL": "smtp://127.0.0.1:1"}
"""Of a consumer that writes mails; nobody takes them, so they stay where they can be counted."""

HASTY = """
import sys
from app.consumer import reconcile
reconcile.QUIET_S, reconcile.SETTLE_S, reconcile.INTERVAL_S = 0.5, 0.1, 1.0
from app.__main__ import main
sys.exit(main())
"""
"""A consumer whose gap job leaves less to the streams and looks more often: the same in less time."""


class Consumer:
    """One `MODE=consumer python -m app`."""

    def __init__(
        self, database_url: str, redis_url: str, program: tuple[str, ...] = ("-m", "app"), **environ: str
    ) -> None:
        self.port = any_free()
        self.program = program
        self.environ = {
            **os.environ,
            "MODE": "consumer",
            "ENVIRONMENT": "test",
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "HEALTH_PORT": str(self.port),
            "LOG_FORMAT": "json",
            "LOG_LEVEL": "info",
            "SHUTDOWN_TIMEOUT_S": str(SHUTDOWN_TIMEOUT_S),
            **environ,
        }
        self.process: asyncio.subprocess.Process | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this object

    async def start(self) -> None:
        """Start it; it need not be ready."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, *self.program, env=self.environ, stdout=self._log, stderr=self._log,
            cwd=Path(__file__).parents[3],
        )  # fmt: skip

    async def until_live(self, path: str = "/livez") -> None:
        """Wait until it answers well at `path`."""
        async with asyncio.timeout(15), httpx.AsyncClient() as http:
            while True:
                try:
                    if (await http.get(f"http://127.0.0.1:{self.port}{path}")).status_code == 200:
                        return
                except httpx.TransportError:
                    assert self.process is not None
                    assert self.process.returncode is None, self.log()
                await asyncio.sleep(0.05)

    async def metrics(self) -> str:
        """What it measures."""
        async with httpx.AsyncClient() as http:
            return (await http.get(f"http://127.0.0.1:{self.port}/metrics")).text

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal; the exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(60):
            return await self.process.wait()

    async def close(self) -> None:
        """Kill it if it still runs, and forget what it wrote."""
        await self.end(signal.SIGKILL)
        self._log.close()

    def log(self) -> str:
        """Everything that it wrote."""
        self._log.seek(0)
        return self._log.read().decode()


@asynccontextmanager
async def running(
    database_url: str, redis_url: str, program: tuple[str, ...] = ("-m", "app"), **environ: str
) -> AsyncIterator[Consumer]:
    """A consumer that is killed at the end if it still runs."""
    consumer = Consumer(database_url, redis_url, program, **environ)
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.close()
