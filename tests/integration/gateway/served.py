"""A gateway served over real HTTP in the test's own process, and what tests ask of it."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import httpx

from app import config
from app.dev.seed import seed
from app.dev.stack.ports import any_free
from app.gateway.application import application
from app.gateway.run import build
from app.gateway.server import serve
from app.gateway.services import Services
from app.infra.postgres.api_keys import SCOPES, ApiKeys
from app.observability import metrics
from tests.patience import patient

KEY = "hf_test_all"
SECRET = "whsec-of-the-tests"
NOBODY = "redis://127.0.0.1:1/0"
"""A Redis that is not there."""

_numbers = itertools.count(1)


def settings(port: int, database_url: str, redis_url: str, **more: str) -> config.Settings:
    """Settings of a gateway."""
    return config.load(
        "gateway",
        {
            "ENVIRONMENT": "test",
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "CARRIER_WEBHOOK_SECRET": SECRET,
            "PORT": str(port),
            **more,
        },
    )


class Gateway:
    """A served gateway, with a client that has every scope and a connection to look behind it."""

    def __init__(self, url: str, client: httpx.AsyncClient, database: asyncpg.Connection, services: Services):
        self.url = url
        self.client = client
        self.database = database
        self.services = services

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    def order(self, **changes: Any) -> dict[str, Any]:
        """A right order; `changes` replace fields, a field that becomes `...` is left out."""
        wanted = {
            "customer_id": "cust-1",
            "currency": "USD",
            "lines": [{"sku": "tea-earl-grey", "quantity": 2}],
            "payment_method": "pm_card_visa",
            **changes,
        }
        return {name: value for name, value in wanted.items() if value is not ...}

    async def post(self, path: str, body: Any = None, *, idempotency: str | None = None, **more: Any):
        """POST with a key of its own, or with `idempotency`."""
        headers = {"Idempotency-Key": idempotency or f"k-{next(_numbers)}", **more.pop("headers", {})}
        if isinstance(body, bytes):
            headers.setdefault("Content-Type", "application/json")
            return await self.client.post(path, content=body, headers=headers, **more)
        return await self.client.post(path, json=body, headers=headers, **more)

    async def place(self, **changes: Any) -> dict[str, Any]:
        """Place a right order; its document."""
        answer = await self.post("/v1/orders", self.order(**changes))
        assert answer.status_code == 202, answer.text
        return answer.json()

    async def key(self, *scopes: str, customer: str | None = None) -> dict[str, str]:
        """Headers with a new API key."""
        text = f"hf_test_{next(_numbers)}"
        async with opened(self.services) as keys:
            await keys.add(text, name="test", scopes=scopes or SCOPES, customer_id=customer)
        return {"Authorization": f"Bearer {text}"}


@asynccontextmanager
async def opened(services: Services) -> AsyncIterator[ApiKeys]:
    """The API keys behind a gateway."""
    yield ApiKeys(services.intake._database)


@asynccontextmanager
async def serving(database_url: str, redis_url: str, **more: str) -> AsyncIterator[Gateway]:
    """Serve a gateway on a seeded database. It waits for Redis as long as that takes on a busy machine."""
    await seed(database_url, KEY)
    stopping = asyncio.Event()
    port = any_free()
    async with AsyncExitStack() as stack:
        metrics.serve_for("gateway")
        told = settings(port, database_url, redis_url, **more)
        with patient():
            services = await build(told, stack, stopping, None)
        served = asyncio.create_task(
            serve(
                application(services),
                "127.0.0.1",
                port,
                stopping,
                drain=services.let_go,
                shutdown_timeout_s=10,
            )
        )
        try:
            await listening(port)
            url = f"http://127.0.0.1:{port}"
            client = await stack.enter_async_context(
                httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60)
            )
            database = await asyncpg.connect(database_url)
            stack.push_async_callback(database.close)
            yield Gateway(url, client, database, services)
        finally:
            stopping.set()
            await served


async def listening(port: int, timeout_s: float = 60.0) -> None:
    """Wait until somebody listens on the port."""
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.01)
                continue
            writer.close()
            return


async def raw(port: int, sent: bytes, *, timeout_s: float = 60.0) -> bytes:
    """Send bytes as they are; what comes back until the server closes or nothing more comes for a while."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        await writer.drain()
        async with asyncio.timeout(timeout_s):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
            return head + await reader.readexactly(length)
    finally:
        writer.close()


def problem(answer: httpx.Response, status: int, slug: str, *pointers: str) -> dict[str, Any]:
    """Check that an answer is this problem, naming these fields; its document."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert found["type"] == f"/problems/{slug}"
    assert found["status"] == status
    assert found["title"]
    assert found["detail"]
    assert found["instance"]
    assert found["correlation_id"] == answer.headers["x-correlation-id"]
    assert answer.headers["x-request-id"]
    if pointers:
        assert [fault["pointer"] for fault in found["errors"]] == list(pointers)
    return found
