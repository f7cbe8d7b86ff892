"""API keys: who may ask for what. Only the SHA-256 of a key is stored; the key itself is shown once.

A key is 32 random bytes, so a plain hash is enough: there is nothing to guess from. If the process dies
between making a key and showing it, the key exists and nobody knows it: revoke it.
"""

import hashlib
import secrets
from collections.abc import Iterable
from datetime import datetime
from typing import Final

import msgspec

from app.infra.postgres.pool import Database
from app.infra.postgres.statements import statements

SQL: Final = statements("api_keys")

SCOPES: Final = (
    "orders:read",
    "orders:write",
    "products:read",
    "products:write",
    "inventory:read",
    "inventory:write",
    "analytics:read",
    "operations:read",
    "operations:write",
    "webhooks:read",
    "webhooks:write",
)
"""Everything a key may be allowed to do."""

SCOPES_OF_CUSTOMERS: Final = ("orders:read", "orders:write", "products:read")
"""What a key that is bound to a customer is given unless told otherwise."""


class ApiKey(msgspec.Struct, frozen=True):
    """A key as it is known here; bound to a customer it sees and orders for that customer only.

    `rate_limit_per_s` is how often it may read, and how often write; None: as the gateway's setting says.
    """

    id: str
    name: str
    scopes: frozenset[str]
    customer_id: str | None = None
    rate_limit_per_s: int | None = None


class ListedKey(msgspec.Struct, frozen=True):
    """A key with its dates, for the list that an operator reads."""

    id: str
    name: str
    scopes: tuple[str, ...]
    customer_id: str | None
    rate_limit_per_s: int | None
    created_at: datetime
    revoked_at: datetime | None


def new_key(environment: str) -> str:
    """A key that nobody has: `hf_<environment>_` and 43 random characters."""
    prefix = f"hf_{environment}_" if environment else "hf_"
    return prefix + secrets.token_urlsafe(32).replace("-", "x").replace("_", "y")


def digest(key: str) -> bytes:
    """What is stored of a key."""
    return hashlib.sha256(key.encode()).digest()


class ApiKeys:
    """The keys of record. Every method raises Unavailable where PostgreSQL does not answer."""

    def __init__(self, database: Database) -> None:
        """Work on this database."""
        self._database = database

    async def find(self, hashed: bytes) -> ApiKey | None:
        """The key with this digest; None when there is none or it was revoked."""
        rows = await self._database.fetch(SQL["find"], hashed)
        if not rows:
            return None
        row = rows[0]
        return ApiKey(
            row["id"], row["name"], frozenset(row["scopes"]), row["customer_id"], row["rate_limit_per_s"]
        )

    async def add(
        self,
        key: str,
        *,
        name: str,
        scopes: Iterable[str],
        customer_id: str | None = None,
        rate_limit_per_s: int | None = None,
    ) -> str | None:
        """Let `key` open what `scopes` say; its id, or None when this very key is there already."""
        identity = f"key_{secrets.token_hex(8)}"
        rows = await self._database.fetch(
            SQL["add"], identity, name, digest(key), sorted(scopes), customer_id, rate_limit_per_s
        )
        return rows[0]["id"] if rows else None

    async def widen(self, key: str, scopes: Iterable[str]) -> None:
        """Let a key that is there open these, too."""
        await self._database.fetch(SQL["widen"], digest(key), sorted(scopes))

    async def list(self) -> list[ListedKey]:
        """All keys, revoked ones too, oldest first."""
        return [
            ListedKey(
                row["id"],
                row["name"],
                tuple(row["scopes"]),
                row["customer_id"],
                row["rate_limit_per_s"],
                row["created_at"],
                row["revoked_at"],
            )
            for row in await self._database.fetch(SQL["list"])
        ]

    async def revoke(self, identity: str) -> bool:
        """Close a key for good; False when there is no such key that is open."""
        return bool(await self._database.fetch(SQL["revoke"], identity))
