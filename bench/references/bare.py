"""A bare Granian ASGI server: what HTTP itself costs on this machine. It knows no routes and checks nothing.

    python -m bench.references.bare echo 8080       decodes each body into a struct, sends the body back
    python -m bench.references.bare answer 8080     sends the answer that stands in the environment, always

The server is the gateway's own, with its settings, and one process of it.
"""

import asyncio
import base64
import os
import signal
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec
import uvloop

from app.gateway.server import serve

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

ANSWER = "BENCH_ANSWER"


class Line(msgspec.Struct):
    """As in an order, without limits."""

    sku: str
    quantity: int


class Order(msgspec.Struct):
    """What an order's body says, without limits or patterns."""

    customer_id: str
    currency: str
    lines: list[Line]
    payment_method: str
    shipping_address: dict[str, str]
    expected_total: dict[str, int | str]


class Answer(msgspec.Struct):
    """An answer to send. `headers` are pairs; those that the server adds by itself are left out."""

    status: int
    headers: list[tuple[str, str]]
    body: str

    def encoded(self) -> str:
        """As it stands in the environment."""
        return base64.b64encode(msgspec.json.encode(self)).decode()

    @classmethod
    def decoded(cls, text: str) -> "Answer":
        """From there."""
        return msgspec.json.decode(base64.b64decode(text), type=cls)


_decoder = msgspec.json.Decoder(Order)


async def echo(_: Message, receive: Receive, send: Send) -> None:
    """Decode the body, send it back; a probe sends none."""
    message = await receive()
    body = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    if body:
        _decoder.decode(body)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 202 if body else 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def always(answer: Answer) -> Callable[[Message, Receive, Send], Awaitable[None]]:
    """An application that sends one answer whatever it is asked."""
    body = answer.body.encode()
    headers = [(name.encode(), value.encode()) for name, value in answer.headers]
    start = {"type": "http.response.start", "status": answer.status, "headers": headers}
    rest = {"type": "http.response.body", "body": body}

    async def app(_: Message, __: Receive, send: Send) -> None:
        await send(start)
        await send(rest)

    return app


async def _run(kind: str, port: int) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    app: Any = echo
    if kind == "answer":
        app = always(Answer.decoded(os.environ[ANSWER]))
    await serve(app, "127.0.0.1", port, stopping, drain=lambda: None, shutdown_timeout_s=1)


if __name__ == "__main__":
    uvloop.run(_run(sys.argv[1], int(sys.argv[2])))
