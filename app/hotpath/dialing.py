"""`dial`: connect a socket and say who we are, so that the first command may follow."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from app.hotpath.address import Address
from app.hotpath.connection import Connection, Part, pack

CONNECT_TIMEOUT_S: Final = 1.0
"""For the whole of it: socket, TLS, and the server's answers to the greeting."""

Greeting: TypeAlias = Callable[[], Sequence[tuple[Part, ...]]]
"""Gives the commands that a new connection starts with."""


async def dial(connection: Connection, address: Address, *, name: str, greeting: Greeting) -> None:
    """Connect, speak RESP3, log in, choose the database, greet. Raises OSError and HotpathError."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await _connect(connection, address)
            await _greet(connection, [*_hello(address, name), *greeting()])
    except BaseException:
        connection.abort()
        raise


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
    hello: list[tuple[Part, ...]] = [("HELLO", 3, *login, "SETNAME", name)]
    if address.db:
        hello.append(("SELECT", address.db))
    return hello


async def _greet(connection: Connection, commands: list[tuple[Part, ...]]) -> None:
    loop = asyncio.get_running_loop()
    due_at = loop.time() + CONNECT_TIMEOUT_S
    batch = [(pack(parts), loop.create_future(), due_at, False) for parts in commands]
    connection.send(batch)
    await asyncio.gather(*(entry[1] for entry in batch))
