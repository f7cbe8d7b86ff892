"""A receiver of webhooks: a real HTTP server that answers as it is told and remembers everything."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import h11
from standardwebhooks import Webhook

WAIT_S = 60.0


class Got:
    """One request that came."""

    def __init__(self, request: h11.Request, body: bytes) -> None:
        self.method = request.method.decode()
        self.target = request.target.decode()
        self.headers = {name.decode(): value.decode() for name, value in request.headers}
        self.body = body

    @property
    def id(self) -> str:
        """The delivery's."""
        return self.headers["webhook-id"]

    def verified(self, secret: str) -> Any:
        """What the official verifier makes of it. Raises WebhookVerificationError."""
        return Webhook(secret).verify(self.body, self.headers)


Answer = Callable[[Got], tuple[int, dict[str, str]]]


class Receiver:
    """Answers with `status` and `headers`, or as `answer` says; `hold` keeps answers back while it is set."""

    def __init__(self) -> None:
        self.got: list[Got] = []
        self.status = 204
        self.headers: dict[str, str] = {}
        self.answer: Answer | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.at_once = 0
        self.at_once_most = 0
        self.port = 0
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where it listens, or did."""
        return f"http://127.0.0.1:{self.port}/hooks?shop=1"

    async def up(self) -> None:
        """Listen; again on the same port after `down`."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Do not listen any more."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def until(self, count: int) -> None:
        """Wait for so many requests."""
        await until(lambda: len(self.got) >= count, f"{len(self.got)} of {count} requests came")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            got = await _request(reader)
            self.got.append(got)
            self.at_once += 1
            self.at_once_most = max(self.at_once, self.at_once_most)
            try:
                await self.may_answer.wait()
                status, headers = self.answer(got) if self.answer else (self.status, self.headers)
            finally:
                self.at_once -= 1
            head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            writer.write(f"HTTP/1.1 {status} X\r\n{head}content-length: 0\r\n\r\n".encode())
            await writer.drain()
        except (OSError, EOFError):
            return
        finally:
            writer.close()


async def _request(reader: asyncio.StreamReader) -> Got:
    http = h11.Connection(h11.SERVER)
    request, body = None, b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(65536)
            if not data:
                raise EOFError
            http.receive_data(data)
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert request is not None
            return Got(request, body)
        else:
            raise EOFError


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver that is up."""
    receiver = Receiver()
    await receiver.up()
    try:
        yield receiver
    finally:
        receiver.may_answer.set()
        await receiver.down()


async def until(
    condition: Callable[[], object] | Callable[[], Awaitable[object]], said: str = "it did not happen"
) -> None:
    """Wait for something to be true."""
    try:
        async with asyncio.timeout(WAIT_S):
            while True:
                found = condition()
                if await found if asyncio.iscoroutine(found) else found:
                    return
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(said) from None


def events_of(receiver: Receiver) -> list[str]:
    """The ids of the events that came, in the order in which they came."""
    return [json.loads(got.body)["id"] for got in receiver.got]
