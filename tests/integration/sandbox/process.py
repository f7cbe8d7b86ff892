"""A sandbox process under test: `python -m app sandbox`, killed and started again on the same file."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import stripe

from app.dev.stack.ports import any_free

START_TIMEOUT_S = 60.0
SECRET = "a secret of the tests"
KEY = "sk_test_of_the_tests"


class SandboxProcess:
    """One sandbox on one file. The port stays the same when it is started again."""

    def __init__(self, data: Path, webhook_url: str | None = None, *options: str) -> None:
        self.data = data
        self._webhook_url = webhook_url
        self._options = options
        self._port = any_free()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> "SandboxProcess":
        """Start it and wait until it says that it is ready."""
        webhook = () if self._webhook_url is None else ("--webhook-url", self._webhook_url)
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "app", "sandbox", "--host", "127.0.0.1", "--port", str(self._port)),
            *("--data", str(self.data), *webhook, *self._options),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "CARRIER_WEBHOOK_SECRET": SECRET},
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(START_TIMEOUT_S):
            line = (await self._process.stdout.readline()).decode()
        assert line.startswith("sandbox ready on http://127.0.0.1:"), line
        self._port = int(line.rpartition(":")[2])
        return self

    async def kill(self) -> None:
        """Send SIGKILL."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        return await self._end(signal.SIGTERM)

    async def _end(self, number: signal.Signals) -> int:
        if self._process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        async with asyncio.timeout(START_TIMEOUT_S):
            code = await self._process.wait()
        self._process = None
        return code

    async def control(self, **fault: Any) -> dict[str, Any]:
        """Ask for a fault."""
        return await self._control("POST", "/control", fault)

    async def delays(self, **delays: int) -> dict[str, Any]:
        """Set the carrier's delays."""
        return await self._control("POST", "/control/delays", delays)

    async def heal(self) -> dict[str, Any]:
        """Take all faults back."""
        return await self._control("DELETE", "/control", None)

    async def state(self) -> dict[str, Any]:
        """Faults, counters, sums."""
        return await self._control("GET", "/control", None)

    async def _control(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        async with httpx.AsyncClient(base_url=self.url, timeout=60) as client:
            answer = await client.request(method, path, json=body)
            state: dict[str, Any] = answer.raise_for_status().json()
            return state


@asynccontextmanager
async def stripe_client(url: str, key: str = KEY) -> AsyncIterator[stripe.StripeClient]:
    """The official library, pointed at a sandbox; it does not retry. The connections it keeps are closed."""
    transport = stripe.HTTPXClient(timeout=httpx.Timeout(60.0))
    addresses: Any = {"api": url}
    try:
        yield stripe.StripeClient(key, base_addresses=addresses, http_client=transport, max_network_retries=0)
    finally:
        await transport.close_async()
