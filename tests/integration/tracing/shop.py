"""The three modes as processes, on servers of the tests, with the sandbox providers."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from app.dev.seed import seed
from app.dev.stack.ports import any_free
from tests.integration.sandbox.process import SECRET, SandboxProcess
from tests.stack import Temporal

ROOT: Final = Path(__file__).parents[3]
KEY: Final = "hf_test_of_traces"
MODES: Final = ("gateway", "worker", "consumer")
TIMEOUT_S: Final = 120.0
SHUTDOWN_TIMEOUT_S: Final = 10.0


class Shop:
    """What runs, and a client of it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self.client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {KEY}"}, timeout=30
        )

    async def start(self, mode: str, environ: dict[str, str]) -> None:
        """Start a mode, and wait until it is ready."""
        port = self.port if mode == "gateway" else any_free()
        told = {**environ, "MODE": mode, "PORT" if mode == "gateway" else "HEALTH_PORT": str(port)}
        with (self.folder / f"{mode}.log").open("ab") as log:
            self.processes[mode] = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "app"), env=told, cwd=ROOT, stdout=log, stderr=log
            )

    async def until_ready(self) -> None:
        """Wait until the gateway answers; the others take up what waits for them."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                try:
                    if (await self.client.get("/readyz")).status_code == 200:
                        return
                except httpx.TransportError:
                    assert self.processes["gateway"].returncode is None, self.log("gateway")
                await asyncio.sleep(0.05)

    async def order(self, **more: Any) -> dict[str, Any]:
        """Place an order and wait until it is completed."""
        wanted = {
            "customer_id": "cust-1",
            "currency": "USD",
            "lines": [{"sku": "tea-earl-grey", "quantity": 1}],
            "payment_method": "pm_card_visa",
            **more.pop("body", {}),
        }
        headers = {"Idempotency-Key": os.urandom(8).hex(), **more.pop("headers", {})}
        answer = await self.client.post("/v1/orders", json=wanted, headers=headers)
        assert answer.status_code == 202, answer.text
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                order: dict[str, Any] = (await self.client.get(answer.headers["location"])).json()
                if order["status"] == "completed":
                    return order
                await asyncio.sleep(0.05)

    async def stop(self) -> dict[str, int]:
        """SIGTERM to all, and their exit codes."""
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(TIMEOUT_S):
            codes = [await process.wait() for process in self.processes.values()]
        return dict(zip(self.processes, codes, strict=True))

    def log(self, mode: str) -> str:
        """What a mode wrote."""
        return (self.folder / f"{mode}.log").read_text("utf-8")


@asynccontextmanager
async def open_shop(
    folder: Path, database_url: str, redis_url: str, temporal: Temporal, **more: str
) -> AsyncIterator[Shop]:
    """A shop whose modes are told `more`; whatever still runs at the end is killed."""
    async with AsyncExitStack() as stack:
        port, smtp_port = any_free(), any_free()
        carrier_events = f"http://127.0.0.1:{port}/v1/carrier-events"
        sandbox = SandboxProcess(
            folder / "sandbox.sqlite3", carrier_events, "--smtp-port", str(smtp_port), "--delivery-ms", "50"
        )
        stack.push_async_callback(sandbox.kill)
        await asyncio.gather(sandbox.start(), seed(database_url, KEY))
        environ = {
            "PATH": os.defpath,
            "PYTHONPATH": str(ROOT),
            "ENVIRONMENT": "dev",
            "LOG_FORMAT": "json",
            "LISTEN_HOST": "127.0.0.1",
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "TEMPORAL_ADDRESS": temporal.address,
            "TEMPORAL_NAMESPACE": temporal.namespace,
            "STRIPE_API_KEY": "sk_test_x",
            "STRIPE_API_BASE": sandbox.url,
            "CARRIER_URL": sandbox.url,
            "CARRIER_WEBHOOK_SECRET": SECRET,
            "SMTP_URL": f"smtp://127.0.0.1:{smtp_port}",
            "SHUTDOWN_TIMEOUT_S": f"{SHUTDOWN_TIMEOUT_S:g}",
            **more,
        }
        shop = Shop(folder, port)
        stack.push_async_callback(shop.client.aclose)
        stack.push_async_callback(_kill, shop)
        for mode in MODES:
            await shop.start(mode, environ)
        await shop.until_ready()
        yield shop


async def _kill(shop: Shop) -> None:
    for process in shop.processes.values():
        if process.returncode is None:
            process.kill()
            await process.wait()
