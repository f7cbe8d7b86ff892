"""Owns the shop that benchmarks order at: its catalogue, its API key, and what its customers send.

Bodies are those of real clients: one to three lines, an address, the total they expect. Every customer and
every idempotency key is new. The stock is large enough that nothing sells out.
"""

import itertools
import random
import uuid
from collections.abc import Iterator, Sequence

import asyncpg
import msgspec

from app.infra.postgres.api_keys import SCOPES, digest
from bench import load

CURRENCY = "USD"
SKUS = 200
ON_HAND = 1_000_000_000
WAREHOUSES = ("east", "west")
RATE_LIMIT_PER_S = 1_000_000


def sku(number: int) -> str:
    """A product of the catalogue."""
    return f"item-{number:06d}"


def price(number: int) -> int:
    """What it costs, minor units."""
    return 500 + number * 37 % 5_000


async def stock_up(
    dsn: str, api_key: str, *, skus: int = SKUS, warehouses: Sequence[str] = WAREHOUSES
) -> None:
    """Put the catalogue, the stock and the key in place, with a rate limit that does not bite.

    Rows are written at once, without the events that the API would append: nothing that is measured reads
    those of products.
    """
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            """INSERT INTO products (sku, name, amount, currency)
               SELECT * FROM unnest($1::text[], $1::text[], $2::bigint[], $3::text[])""",
            [sku(n) for n in range(skus)],
            [price(n) for n in range(skus)],
            [CURRENCY] * skus,
        )
        await connection.execute(
            """INSERT INTO stock (sku, warehouse, on_hand)
               SELECT s, w, $3 FROM unnest($1::text[]) s, unnest($2::text[]) w""",
            [sku(n) for n in range(skus)],
            list(warehouses),
            ON_HAND,
        )
        await connection.execute(
            """INSERT INTO api_keys (id, name, hash, scopes, rate_limit_per_s)
               VALUES ('key_bench', 'benchmarks', $1, $2, $3)""",
            digest(api_key),
            list(SCOPES),
            RATE_LIMIT_PER_S,
        )
        await connection.execute("VACUUM ANALYZE products, stock, api_keys")
    finally:
        await connection.close()


class _Line(msgspec.Struct):
    sku: str
    quantity: int


class _Body(msgspec.Struct):
    customer_id: str
    currency: str
    lines: list[_Line]
    payment_method: str
    shipping_address: dict[str, str]
    expected_total: dict[str, int | str]


_encoder = msgspec.json.Encoder()


def bodies(*, customers: str = "cust", skus: int = SKUS, seed: int | None = None) -> Iterator[bytes]:
    """Orders as clients send them, for ever; every customer (`<customers>-…`) orders once."""
    dice = random.Random(seed)
    run = dice.getrandbits(40)
    for number in itertools.count():
        wanted = dice.sample(range(skus), dice.choice((1, 1, 2, 3)))
        lines = [(item, dice.choice((1, 1, 1, 2, 3))) for item in wanted]
        total = sum(price(item) * quantity for item, quantity in lines)
        body = _Body(
            customer_id=f"{customers}-{run:010x}-{number}",
            currency=CURRENCY,
            lines=[_Line(sku(item), quantity) for item, quantity in lines],
            payment_method="pm_card_visa",
            shipping_address={
                "name": "Ada Lovelace",
                "line1": f"{number % 400 + 1} St James's Square",
                "city": "London",
                "postal_code": "SW1Y 4JH",
                "country": "GB",
            },
            expected_total={"amount": total, "currency": CURRENCY},
        )
        yield _encoder.encode(body)


def orders(api_key: str, *, customers: str = "cust", skus: int = SKUS) -> Iterator[bytes]:
    """Whole requests, for ever, each with a key of its own."""
    run = uuid.uuid4().hex
    for number, body in enumerate(bodies(customers=customers, skus=skus)):
        yield load.post(
            "/v1/orders",
            body,
            {
                "Authorization": f"Bearer {api_key}",
                "Idempotency-Key": f"{run}-{number}",
                "Accept": "application/json",
                "User-Agent": "bench/1",
            },
        )
