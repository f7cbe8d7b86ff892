"""`PostgresCatalogue`: products with their prices, and the stock of each, warehouse by warehouse.

A changed price and an adjustment are events of their SKU. The product's row is locked while one is written,
so the chain of a SKU has no gaps and its adjustments follow one another. If the process dies here, the change
happened wholly or not at all.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Final

import asyncpg
import msgspec

from app.domain import chain
from app.domain.catalogue import Product, SkuStock, WarehouseStock, adjust
from app.domain.errors import Refusal, Refused
from app.domain.events import CatalogueEvent, InventoryAdjusted, PriceChanged
from app.domain.money import Money
from app.infra.postgres.answers import Answer, Request, store_answer, stored_answer
from app.infra.postgres.combiner import Combiner
from app.infra.postgres.order_writes import insert_events
from app.infra.postgres.pool import Connection, Database
from app.infra.postgres.statements import statements

SQL: Final = statements("catalogue")

TAKEN_TO_BE_THERE: Final = 1
"""What is said to be available of a product whose shelves nobody looked at: reserving it will tell."""


class Cause(msgspec.Struct, frozen=True):
    """The request behind a change, for its events."""

    correlation_id: str
    traceparent: str | None = None


class Adjustment(msgspec.Struct, frozen=True):
    """`delta` pieces more (or fewer) of `sku` in `warehouse`, and why."""

    sku: str
    warehouse: str
    delta: int
    reason: str


class PostgresCatalogue:
    """The catalogue and the stock of record. Every method raises Unavailable."""

    def __init__(self, database: Database) -> None:
        """Work on this database."""
        self._database = database
        self._priced = Combiner(self._prices)
        self._stocked = Combiner(self._products)

    async def products(self, skus: Iterable[str], *, with_stock: bool = True) -> dict[str, Product]:
        """Those of some SKUs that are in the catalogue, each with what is available of it.

        Without `with_stock` nobody looks at the shelves, and `available` is `TAKEN_TO_BE_THERE`. Questions of
        one moment share one statement, which begins after all of them: no answer is older than its question.
        """
        wanted = frozenset(skus)
        asked = self._stocked if with_stock else self._priced
        return await asked.ask(wanted, weight=len(wanted)) if wanted else {}

    async def _prices(self, asked: Sequence[frozenset[str]]) -> list[dict[str, Product]]:
        rows = await self._database.fetch(SQL["prices"], sorted(frozenset().union(*asked)))
        return _to_each(asked, [_product(row, TAKEN_TO_BE_THERE) for row in rows])

    async def _products(self, asked: Sequence[frozenset[str]]) -> list[dict[str, Product]]:
        rows = await self._database.fetch(SQL["products"], sorted(frozenset().union(*asked)))
        return _to_each(asked, [_product(row, row["available"]) for row in rows])

    async def product(self, sku: str) -> Product | None:
        """One product; None when there is no such SKU."""
        return (await self.products((sku,))).get(sku)

    async def products_after(self, sku: str, limit: int) -> list[Product]:
        """At most `limit` products whose SKU comes after `sku` (the empty text begins)."""
        rows = await self._database.fetch(SQL["products_after"], sku, limit)
        return [_product(row, 0) for row in rows]

    async def put(self, sku: str, name: str, price: Money, cause: Cause) -> tuple[Product, bool]:
        """Make a product what it should be; the product, and whether it is new. A new price is an event."""
        async with self._database.transaction() as connection:
            new = bool(await connection.fetchval(SQL["add_product"], sku, name, price.amount, price.currency))
            row = await connection.fetchrow(SQL["lock_product"], sku)
            assert row is not None
            before = None if new else Money(row["amount"], row["currency"])
            if not new and (row["name"], before) != (name, price):
                await connection.execute(
                    SQL["change_product"], sku, name, price.amount, price.currency, row["now"]
                )
            if before != price:
                await _append(connection, row, PriceChanged(before, price), cause)
        return Product(sku, name, price), new

    async def stock(self, sku: str) -> SkuStock | None:
        """The shelves of one SKU; None when there is no such SKU."""
        return next(iter(_shelves(await self._database.fetch(SQL["stock"], [sku]))), None)

    async def stock_after(self, sku: str, limit: int) -> list[SkuStock]:
        """The shelves of at most `limit` SKUs that come after `sku` (the empty text begins)."""
        return _shelves(await self._database.fetch(SQL["stock_after"], sku, limit))

    async def adjust(
        self, request: Request, wanted: Adjustment, cause: Cause, encode: Callable[[SkuStock], bytes]
    ) -> Answer:
        """Change what is on hand, with its event and the answer to the request's key.

        A key that is taken gives its stored answer. Raises LookupError (no such SKU) and Refused.
        """
        async with self._database.transaction() as connection:
            # Requests with the same key are for the same SKU, so they wait for one another here.
            row = await connection.fetchrow(SQL["lock_product"], wanted.sku)
            if row is None:
                raise LookupError(wanted.sku)
            stored = await stored_answer(connection, request)
            if stored:
                return stored
            await _adjust(connection, row, wanted, cause)
            after = _shelves(await connection.fetch(SQL["stock"], [wanted.sku]))[0]
            answer = Answer(200, None, encode(after))
            await store_answer(connection, request, answer)
            return answer


async def _adjust(connection: Connection, row: asyncpg.Record, wanted: Adjustment, cause: Cause) -> None:
    """Write an adjustment and its event; `row` is the product's, locked. Raises Refused."""
    found = await connection.fetchrow(SQL["lock_shelf"], wanted.sku, wanted.warehouse)
    shelf = WarehouseStock(**found) if found else WarehouseStock(wanted.warehouse, 0, 0)
    after = adjust(shelf, wanted.delta)
    if isinstance(after, Refusal):
        raise Refused(after)
    await connection.execute(SQL["put_on_shelf"], wanted.sku, wanted.warehouse, after.on_hand)
    event = InventoryAdjusted(wanted.warehouse, wanted.delta, after.on_hand, wanted.reason)
    await _append(connection, row, event, cause)


async def _append(connection: Connection, row: asyncpg.Record, event: CatalogueEvent, cause: Cause) -> None:
    """Append an event to a SKU's chain; `row` is the product's, locked."""
    # Never older than what is there: the clock may have been set back between two events.
    at = max(row["now"], row["updated_at"])
    linked = chain.chain(
        row["last_hash"], row["sku"], row["version"], (event,), at, cause.correlation_id, cause.traceparent
    )
    await insert_events(connection, linked)
    await connection.execute(SQL["link_product"], row["sku"], linked[-1].sequence, linked[-1].hash, at)


def _to_each(asked: Iterable[frozenset[str]], products: Iterable[Product]) -> list[dict[str, Product]]:
    """For each question those of the products that it asked for."""
    found = {product.sku: product for product in products}
    return [{sku: found[sku] for sku in wanted if sku in found} for wanted in asked]


def _product(row: asyncpg.Record, available: int) -> Product:
    return Product(row["sku"], row["name"], Money(row["amount"], row["currency"]), available)


def _shelves(rows: Sequence[asyncpg.Record]) -> list[SkuStock]:
    """Rows in order of SKU, as stock; a SKU without a shelf comes as one row without a warehouse."""
    return [
        SkuStock(
            sku,
            tuple(
                WarehouseStock(row["warehouse"], row["on_hand"], row["reserved"])
                for row in group
                if row["warehouse"] is not None
            ),
        )
        for sku, group in groupby(rows, key=lambda row: str(row["sku"]))
    ]
