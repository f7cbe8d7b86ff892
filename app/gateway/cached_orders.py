"""Orders as their readers see them: near, else from Redis, else from PostgreSQL and back into Redis.

Nothing read here was replaced in PostgreSQL more than two seconds before it was asked for: of an open order,
Redis gives a document for at most a second after it was true, near keeps it for half a second after Redis was
asked, and a load that began half a second ago is joined by nobody. Redis may be dead or wrong: reads then go
to PostgreSQL, all of one moment in one statement, and what they found is kept for half a second. A few per
cent of reads go there anyway, so that way is never untried. If the process dies here, documents that were not
written yet are read from PostgreSQL by the next reader.
"""

import asyncio
import math
import random
from functools import partial
from time import monotonic
from typing import Annotated, Final

import msgspec

from app.contracts.documents import etag
from app.domain.errors import Unavailable
from app.domain.order import FINAL, Order
from app.gateway.brief import Brief
from app.gateway.exchange import JSON, Headers
from app.hotpath.cache import Cache
from app.hotpath.cache_entries import Loaded
from app.hotpath.errors import HotpathError, Overloaded
from app.hotpath.near import Near
from app.infra.postgres.orders import PostgresOrders
from app.infra.redis import metrics
from app.infra.redis.clients import NO_ANSWER, REQUEST_DEADLINE_S
from app.infra.redis.documents import NO_ORDER, Documents, loaded
from app.observability.logging import logger

ROUND_THE_CACHE: Final = 0.03
"""The share of reads that go to PostgreSQL although the document may be at hand."""
ROUND_PATIENCE_S: Final = 0.25
"""How long such a read waits for PostgreSQL before it takes what Redis has."""
ROUND_PAUSE_S: Final = 0.1
"""At most one near hit in so much time has PostgreSQL asked: the way stays tried, and a hit stays cheap."""
FETCH_ROUND_PAUSE_S: Final = 0.01
"""The same for reads that are not near: a hundred a second keep the way as tried as thousands would."""
READ_DEADLINE_S: Final = 2.5
NEAR_OPEN_S: Final = 0.5
NEAR_FINAL_S: Final = 30.0
"""How long a document is kept near: one of an open order, and one of an order that is final.

Of a final order only the price may still be mended. Whoever does that writes the document to Redis, which
then says that what is near is not what it has any more.
"""

log = logger("documents")


class Head(msgspec.Struct, frozen=True):
    """The few fields of a document that decide who may see it, what its tag is, and how long it is good."""

    id: str
    customer_id: str
    status: str
    version: int
    waiting_on: Annotated[str, msgspec.Meta(pattern=r"^[!#-~]{1,100}\Z")] | None  # a header carries it


HEAD: Final = msgspec.json.Decoder(Head)
"""Reads a document's head, and whether the rest is JSON at all."""


class Record:
    """A document as it is sent, with all that a reader's request is held against.

    `headers` are those of the document itself (ETag, Cache-Control); `full_headers` also those of its bytes.
    """

    __slots__ = ("body", "customer_id", "etag", "full_headers", "headers", "is_final")

    def __init__(self, body: bytes, head: Head) -> None:
        """Prepare everything once, so that a hit builds nothing."""
        self.body = body
        self.etag = etag(head.version, head.waiting_on).encode()
        self.customer_id = head.customer_id
        self.is_final = head.status in FINAL
        self.headers: Headers = ((b"etag", self.etag), (b"cache-control", b"private, no-cache"))
        length = (b"content-length", b"%d" % len(body))
        self.full_headers: Headers = (*self.headers, length, (b"content-type", JSON))


class CachedOrders:
    """Reads and shows documents of orders."""

    def __init__(self, orders: PostgresOrders, documents: Documents) -> None:
        """Read these orders through these documents. Connects in the background; end it with `close`."""
        clients = documents.clients
        before, after = documents.key_parts
        self._orders = orders
        self._documents = documents
        self._near: Near[Record] = Near(
            clients.address,
            name=f"{clients.name}-near",
            before=before,
            after=after,
            deadline_s=REQUEST_DEADLINE_S,
            examine=clients.examine,
        )
        self._near_get = self._near.get
        self._cache = Cache(
            clients.hot, reads=self._near.client, away=(Unavailable,), load_deadline_s=READ_DEADLINE_S
        )
        self._brief: Brief[Record] = Brief()
        self._until_round = _step()
        self._next_round_at = 0.0
        self._next_fetch_round_at = 0.0
        self._near.open()
        self._metrics = metrics.Reads(self._near, self._cache)
        metrics.EXPORT.add(self._metrics)

    def near(self, order_id: str) -> Record | None:
        """An order's document, if it is near. Takes no round trip; PostgreSQL is asked behind it at times."""
        record = self._near_get(order_id)
        if record is not None:
            self._until_round -= 1
            if self._until_round <= 0:
                self._go_round(order_id, record)
        return record

    async def read(self, order_id: str) -> bytes:
        """An order's document, from wherever it is nearest. Raises LookupError and Unavailable."""
        return (self.near(order_id) or await self.fetch(order_id)).body

    async def fetch(self, order_id: str) -> Record:
        """An order's document where it is not near. Raises LookupError and Unavailable."""
        if not self._near.client.is_up:
            return self._brief.get(order_id) or await self._from_postgres(order_id)
        if random.random() < ROUND_THE_CACHE and monotonic() >= self._next_fetch_round_at:  # noqa: S311
            self._next_fetch_round_at = monotonic() + FETCH_ROUND_PAUSE_S
            return await self._past_redis(order_id)
        return await self._from_redis(order_id) or await self._from_postgres(order_id)

    def show_soon(self, order: Order, *, as_of: float | None = None) -> None:
        """Have an order's document written to Redis soon; costs the caller nothing and never raises.

        It is true as of `as_of` (monotonic): a moment before the transaction that gave it began; None is now.
        """
        self._brief.forget(order.id)
        self._cache.put_soon(self._documents.entry(order, monotonic() if as_of is None else as_of))

    async def show(self, order: Order, *, as_of: float | None = None) -> None:
        """Have it written before this returns, if Redis takes it in time; never raises."""
        self._brief.forget(order.id)
        try:
            await self._cache.put_all([self._documents.entry(order, monotonic() if as_of is None else as_of)])
        except NO_ANSWER:
            pass
        except HotpathError as error:
            log.warning("document_not_written", error=str(error))

    async def close(self) -> None:
        """Stop; what waits to be written is left to the next reader."""
        metrics.EXPORT.remove(self._metrics)
        await self._cache.close()
        await self._near.close()

    async def _from_redis(self, order_id: str) -> Record | None:
        """The document in Redis, kept near from now on. Raises LookupError where Redis knows of none."""
        key = self._documents.key(order_id)
        with self._near.reading(order_id) as reading:
            try:
                found = await self._cache.find(key)
            except NO_ANSWER:
                return None
            except HotpathError as error:
                log.warning("document_not_read", error=str(error))
                return None
            if found is None or not found.is_fresh:
                return None
            if found.body is None:
                raise LookupError(order_id)
            record = _record(order_id, found.body)
            if record is not None:
                lifetime_s = NEAR_FINAL_S if record.is_final else NEAR_OPEN_S
                reading.keep(record, size=len(record.body), lifetime_s=lifetime_s)
        if record is None:
            await self._forget(order_id, key)
        elif found.is_due:
            self._cache.statistics.early += 1
            self._cache.refresh(key, partial(self._load, order_id))
        return record

    async def _from_postgres(self, order_id: str) -> Record:
        """From PostgreSQL: one flight for all who want the same order at the same time."""
        self._metrics.from_postgres += 1
        as_of = monotonic()
        try:
            found = await self._cache.load(self._documents.key(order_id), partial(self._load, order_id))
        except (TimeoutError, Overloaded) as error:
            raise Unavailable("postgres", str(error)) from error
        record = _loaded_record(order_id, found)
        if not self._near.client.is_up:
            self._brief.keep(order_id, record, as_of=as_of)
        return record

    async def _past_redis(self, order_id: str) -> Record:
        """From PostgreSQL although Redis may have it; from Redis where PostgreSQL is slow, or away."""
        flight = self._cache.refresh(self._documents.key(order_id), partial(self._load, order_id))
        if flight is not None:
            await asyncio.wait((flight,), timeout=ROUND_PATIENCE_S)
            if flight.done() and not flight.cancelled() and flight.exception() is None:
                self._metrics.from_postgres += 1
                return _loaded_record(order_id, flight.result())
        return await self._from_redis(order_id) or await self._from_postgres(order_id)

    def _go_round(self, order_id: str, record: Record) -> None:
        """Have PostgreSQL asked behind a near hit, and what is near dropped where it has fallen behind."""
        self._until_round = _step()
        now = monotonic()
        if now < self._next_round_at:
            return
        self._next_round_at = now + ROUND_PAUSE_S

        async def load() -> Loaded:
            found = await self._load(order_id)
            if found.body != record.body:
                self._metrics.behind += 1
                self._near.forget(order_id)
            return found

        self._cache.refresh(self._documents.key(order_id), load)

    async def _load(self, order_id: str) -> Loaded:
        try:
            return loaded(await self._orders.load(order_id))
        except LookupError:
            return NO_ORDER

    async def _forget(self, order_id: str, key: str) -> None:
        """Remove what is no document of this order. Redis is not believed: anybody may have written there."""
        log.warning("document_not_ours", order_id=order_id)
        try:
            await self._cache.forget(key)
        except HotpathError as error:
            log.debug("document_not_forgotten", error=str(error))


def _record(order_id: str, body: bytes) -> Record | None:
    """The record of a document; None where it is none, or another order's."""
    try:
        head = HEAD.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return Record(body, head) if head.id == order_id else None


def _loaded_record(order_id: str, found: Loaded) -> Record:
    if found.body is None:
        raise LookupError(order_id)
    return Record(found.body, HEAD.decode(found.body))


def _step() -> int:
    """How many near hits from now one goes round the cache, so that ROUND_THE_CACHE of them do."""
    if ROUND_THE_CACHE >= 1:
        return 1
    return 1 + int(math.log(1.0 - random.random()) / math.log(1.0 - ROUND_THE_CACHE))  # noqa: S311
