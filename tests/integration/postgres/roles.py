"""A role of a test's own, whose login can be refused and taken again while everybody else's goes on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Final
from urllib.parse import urlsplit

from tests.stack import Postgres

PASSWORD: Final = "the-right-one"
_numbers = count(1)


class Role:
    """A role that may do what the tests' own may. `url` is a database of its own with `PASSWORD`."""

    def __init__(self, server: Postgres, database: str) -> None:
        self._server = server
        self.name = f"refused_{next(_numbers)}"
        self.admin_url = server.address(database)
        self.url = self.with_login(PASSWORD)

    def with_login(self, password: str, *, user: str = "", database: str = "") -> str:
        """The same address with another login."""
        there = urlsplit(self.admin_url)
        host = there.netloc.rpartition("@")[2]
        path = f"/{database}" if database else there.path
        return there._replace(netloc=f"{user or self.name}:{password}@{host}", path=path).geturl()

    async def refuse(self) -> None:
        """Change the password, and cut every connection of the role."""
        await self._server.execute(f"ALTER ROLE {self.name} PASSWORD 'another-one'")
        cut = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{self.name}'"
        await self._server.execute(cut)

    async def take(self) -> None:
        """Change it back."""
        await self._server.execute(f"ALTER ROLE {self.name} PASSWORD '{PASSWORD}'")


@asynccontextmanager
async def role_of_own(server: Postgres, database: str) -> AsyncIterator[Role]:
    """A role, and an empty database of that name; both are gone at the end."""
    role = Role(server, database)
    await server.create(database)
    owner = urlsplit(server.dsn).username
    await server.execute(f"CREATE ROLE {role.name} LOGIN PASSWORD '{PASSWORD}' IN ROLE {owner}")
    try:
        yield role
    finally:
        await server.drop(database)
        await server.execute(f"DROP ROLE {role.name}")
