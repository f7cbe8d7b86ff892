"""Real sandbox processes and a real receiver of webhooks."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec
import pytest
import stripe

from app.dev.sandbox.http import Connections, Cut, Reply, Request, Response
from app.dev.stack.ports import any_free
from tests.integration.sandbox.process import SandboxProcess, stripe_client

Start = Callable[..., Awaitable[SandboxProcess]]


class Received(NamedTuple):
    """One webhook as it came."""

    type: str
    reference: str
    headers: dict[str, str]
    body: bytes
    status: int
    """What it was answered with; 0 when the connection was cut."""


class Receiver:
    """An HTTP server that takes webhooks and answers what the test wants."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answer: Callable[[str, str], Reply] = lambda _reference, _type: Response(204, b"")
        self.port = any_free()
        self._server: asyncio.Server | None = None
        self._connections = Connections(self._handle)
        self._news = asyncio.Condition()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/v1/carrier-events"

    async def open(self) -> None:
        """Listen, on the same port as before."""
        loop = asyncio.get_running_loop()
        self._connections = Connections(self._handle)
        self._server = await loop.create_server(self._connections, "127.0.0.1", self.port)

    async def close(self) -> None:
        """Refuse connections from now on."""
        if self._server is not None:
            self._server.close()
            await self._connections.drain(1)
            self._server = None

    async def _handle(self, request: Request) -> Reply:
        event = msgspec.json.decode(request.body)
        reply = self.answer(event["reference"], event["type"])
        status = 0 if isinstance(reply, Cut) else reply.status
        came = Received(event["type"], event["reference"], request.headers, request.body, status)
        async with self._news:
            self.received.append(came)
            self._news.notify_all()
        return reply

    def taken(self, reference: str) -> list[str]:
        """The types of what was answered 2xx for a shipment, in order."""
        return [one.type for one in self.received if one.reference == reference and 200 <= one.status < 300]

    async def until(self, condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
        """Wait until the condition holds; it is looked at after each webhook."""
        async with asyncio.timeout(timeout_s), self._news:
            await self._news.wait_for(condition)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver that answers 204."""
    server = Receiver()
    await server.open()
    yield server
    await server.close()


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts sandboxes, each on its own file; stops them after the test."""
    started: list[SandboxProcess] = []

    async def begin(webhook_url: str | None = None, *options: str) -> SandboxProcess:
        process = SandboxProcess(tmp_path / f"sandbox{len(started)}.sqlite3", webhook_url, *options)
        started.append(process)
        return await process.start()

    yield begin
    for process in started:
        await process.stop()


@pytest.fixture
async def sandbox(start: Start) -> SandboxProcess:
    """One of the test's own that reports to nobody: for who disturbs it, or looks at all that it has."""
    return await start()


@pytest.fixture(scope="module")
async def shared_sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SandboxProcess]:
    """One for all tests of a file that do neither."""
    process = SandboxProcess(tmp_path_factory.mktemp("shared") / "sandbox.sqlite3")
    yield await process.start()
    await process.stop()


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """Where clients ask: the test's own sandbox, if it names that, else the one that it shares."""
    is_own = "sandbox" in request.fixturenames
    asked: SandboxProcess = request.getfixturevalue("sandbox" if is_own else "shared_sandbox")
    return asked.url


@pytest.fixture
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A plain client with a test key."""
    headers = {"authorization": "Bearer sk_test_plain"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
        yield client


@pytest.fixture
async def client(url: str) -> AsyncIterator[stripe.StripeClient]:
    """Stripe's own library."""
    async with stripe_client(url) as library:
        yield library
