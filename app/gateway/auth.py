"""Who asks, and whether they may: API keys from `Authorization: Bearer`, scopes, customers.

Keys are remembered for `FRESH_S`, so a revoked one is refused within five seconds. While PostgreSQL does not
answer nobody can be revoked there either, so keys that were good go on opening what needs no database
(cached orders), for at most `STALE_S`.
"""

import asyncio
import re
import time
from typing import Final

import msgspec

from app.domain.errors import Unavailable
from app.gateway.deadlines import within
from app.gateway.exchange import Call, Headers
from app.gateway.problems import ProblemError
from app.infra.postgres.api_keys import ApiKey, ApiKeys, digest

FRESH_S: Final = 4.0
RENEW_S: Final = 3.0
"""From this age on a key is looked up again while it is still fresh, so that nobody waits for it."""
STALE_S: Final = 900.0
ENTRIES_MAX: Final = 10_000
FIRST_LOOK_S: Final = 2.5
SECOND_LOOK_S: Final = 0.5
PAUSE_S: Final = 1.0

_BEARER: Final = re.compile(r"bearer +([\x21-\x7e]{1,200}) *\Z", re.IGNORECASE)


class _Known(msgspec.Struct):
    key: ApiKey
    seen_at: float


class Keyring:
    """The keys that were seen lately, renewed from PostgreSQL."""

    def __init__(self, keys: ApiKeys) -> None:
        """Ask these keys of record."""
        self._keys = keys
        self._known: dict[bytes, _Known] = {}
        self._digests: dict[bytes, bytes] = {}  # header → digest, of keys that were good
        self._looking: dict[bytes, asyncio.Task[ApiKey | None]] = {}
        self._paused_until = 0.0

    def at_hand(self, header: bytes | None) -> ApiKey | None:
        """The key of an `Authorization` header that was seen just now; None means: ask `find`."""
        hashed = self._digests.get(header or b"")
        known = None if hashed is None else self._known.get(hashed)
        if hashed is None or known is None:
            return None
        age_s = time.monotonic() - known.seen_at
        if age_s >= FRESH_S:
            return None
        if age_s >= RENEW_S and hashed not in self._looking:
            self._start_looking(hashed).add_done_callback(_look_at)
        return known.key

    def remember(self, header: bytes, text: str) -> None:
        """Let `at_hand` know which key a header carries."""
        if len(self._digests) >= ENTRIES_MAX:
            self._digests.clear()
        self._digests[header] = digest(text)

    async def find(self, text: str) -> ApiKey | None:
        """The key, if it opens anything. Raises Unavailable where nobody knows."""
        hashed = digest(text)
        known, now = self._known.get(hashed), time.monotonic()
        if known is None:
            return await self._look(hashed, FIRST_LOOK_S)
        if now - known.seen_at < FRESH_S:
            return known.key
        if now < self._paused_until and now - known.seen_at < STALE_S:
            return known.key
        try:
            return await self._look(hashed, SECOND_LOOK_S)
        except Unavailable:
            self._paused_until = time.monotonic() + PAUSE_S
            if now - known.seen_at >= STALE_S:
                raise
            return known.key

    async def _look(self, hashed: bytes, deadline_s: float) -> ApiKey | None:
        """Ask PostgreSQL, once for all who want the same key at the same time."""
        return await within(deadline_s, self._looking.get(hashed) or self._start_looking(hashed))

    def _start_looking(self, hashed: bytes) -> asyncio.Task[ApiKey | None]:
        task = self._looking[hashed] = asyncio.create_task(self._renew(hashed))
        task.add_done_callback(lambda _: self._looking.pop(hashed, None))
        return task

    async def _renew(self, hashed: bytes) -> ApiKey | None:
        key = await self._keys.find(hashed)
        self._known.pop(hashed, None)
        if key is not None:
            while len(self._known) >= ENTRIES_MAX:
                self._known.pop(next(iter(self._known)))
            self._known[hashed] = _Known(key, time.monotonic())
        return key


async def authenticate(keyring: Keyring, call: Call, scope: str) -> ApiKey:
    """The caller's key, which has `scope`. Raises ProblemError and Unavailable."""
    header = call.headers.get(b"authorization", b"")
    key = keyring.at_hand(header) or await _find(keyring, header)
    if scope not in key.scopes:
        challenge = _challenge(f', error="insufficient_scope", scope="{scope}"')
        raise ProblemError("forbidden", f"The API key lacks the scope {scope}.", headers=challenge)
    return key


def refuse_customers(call: Call) -> None:
    """Raises ProblemError where the caller's key is bound to a customer: this shows what is everybody's."""
    if call.caller is None or call.caller.customer_id is not None:
        raise ProblemError("forbidden", "A key that is bound to a customer is not allowed this.")


async def _find(keyring: Keyring, header: bytes) -> ApiKey:
    match = _BEARER.match(header.decode("latin-1"))
    if match is None:
        detail = "Send Authorization: Bearer <api key>."
        raise ProblemError("unauthenticated", detail, headers=_challenge(""))
    key = await keyring.find(match[1])
    if key is None:
        detail = "The API key is not known, or was revoked."
        raise ProblemError("unauthenticated", detail, headers=_challenge(', error="invalid_token"'))
    keyring.remember(header, match[1])
    return key


def _look_at(task: "asyncio.Task[ApiKey | None]") -> None:
    """Take note of an outcome nobody waits for: the key stays what it was, until it is asked for again."""
    if not task.cancelled():
        task.exception()


def _challenge(more: str) -> Headers:
    return ((b"www-authenticate", f'Bearer realm="holdfast"{more}'.encode()),)
