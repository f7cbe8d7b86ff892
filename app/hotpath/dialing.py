"""`dial`: connect a socket and say who we are, so that the first command may follow."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from time import monotonic
from typing import Any, Final, TypeAlias

from app.hotpath.address import Address
from app.hotpath.connection import Connection, Part, pack
from app.hotpath.errors import ErrorReply, HotpathError, MayHaveHappened, error_reply

CONNECT_TIMEOUT_S: Final = 1.0
"""For the whole of it: socket, TLS, and the server's answers to the greeting."""
PROTOCOL: Final = 3

Greeting: TypeAlias = Callable[[], Sequence[tuple[Part, ...]]]
"""Gives the commands that a new connection starts with."""
Ask: TypeAlias = Callable[..., Awaitable[Any]]
"""Sends one command over a connection that nobody else uses yet; its answer."""
Examine: TypeAlias = Callable[[Ask], Awaitable[None]]
"""Asks a new connection whatever it likes before anybody may use it; what it raises ends the connection."""


async def dial(
    connection: Connection, address: Address, *, name: str, greeting: Greeting, examine: Examine | None
) -> None:
    """Connect, speak RESP3, log in, choose the database, examine, greet. Raises OSError and HotpathError.

    Raises what `examine` does, too. No error's text holds the password, whatever the server says.
    """
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await _connect(connection, address)
            _check_protocol(await _ask_all(connection, _hello(address, name)))
            if examine is not None:
                await examine(partial(_ask, connection))
            await _ask_all(connection, greeting())
    except TimeoutError:
        connection.abort()
        raise TimeoutError(f"no answer to a new connection within {CONNECT_TIMEOUT_S:g} s") from None
    except MayHaveHappened:
        connection.abort()
        raise ConnectionResetError(
            f"a new connection broke during its greeting: {connection.reason}"
        ) from None
    except ErrorReply as error:
        connection.abort()
        raise _without_secret(error, address.password) from None
    except BaseException:
        connection.abort()
        raise
    if connection.lost.is_set():  # it broke before anybody could watch it
        raise ConnectionResetError(f"a new connection broke after its greeting: {connection.reason}")


async def _connect(connection: Connection, address: Address) -> None:
    loop = asyncio.get_running_loop()
    if address.path is not None:
        await loop.create_unix_connection(lambda: connection, address.path)
    else:
        await loop.create_connection(lambda: connection, address.host, address.port, ssl=address.tls)


def _hello(address: Address, name: str) -> list[tuple[Part, ...]]:
    login: tuple[Part, ...] = ()
    if address.password is not None:
        login = ("AUTH", address.username or "default", address.password)
    hello: list[tuple[Part, ...]] = [("HELLO", PROTOCOL, *login, "SETNAME", name)]
    if address.db:
        hello.append(("SELECT", address.db))
    return hello


def _check_protocol(answers: list[Any]) -> None:
    hello = answers[0]
    if not isinstance(hello, dict) or hello.get(b"proto") != PROTOCOL:
        raise HotpathError("the server does not speak RESP3; it is no Redis of version 6 or later")


async def _ask_all(connection: Connection, commands: Sequence[tuple[Part, ...]]) -> list[Any]:
    if not commands:
        return []
    loop = asyncio.get_running_loop()
    due_at = monotonic() + CONNECT_TIMEOUT_S
    batch = [(pack(parts), loop.create_future(), due_at, 0) for parts in commands]
    connection.send(batch)
    return await asyncio.gather(*(entry[1] for entry in batch))


async def _ask(connection: Connection, *parts: Part) -> Any:  # noqa: ANN401 - whatever the server answers
    return (await _ask_all(connection, [parts]))[0]


def _without_secret(error: ErrorReply, secret: str | None) -> ErrorReply:
    """A server that does not know HELLO repeats all of it in its answer."""
    return error if not secret else error_reply(error.message.replace(secret, "…"))
