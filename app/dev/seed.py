"""`holdfast seed`: the catalogue, the stock and the API key of a development machine.

Refuses production: neither that catalogue nor a key that others know belongs there.

Goes through the same code as the API, so every price and every piece has its event. Only what is missing is
made: running it again, or dying in the middle and running it again, changes nothing that is there.
"""

import os
import sys
from typing import Final, NamedTuple, NoReturn

import msgspec

from app import config
from app.domain.money import Money
from app.infra.markers import EXIT_CONFIGURATION, ElsewhereError
from app.infra.postgres import marker
from app.infra.postgres.api_keys import SCOPES, ApiKeys
from app.infra.postgres.catalogue import Adjustment, Cause, PostgresCatalogue
from app.infra.postgres.command import run
from app.infra.postgres.intake import Request
from app.infra.postgres.pool import Database
from app.usage import Parser

KEY_VARIABLE: Final = "HOLDFAST_DEV_API_KEY"
CAUSE: Final = Cause("seed")


class Seed(NamedTuple):
    """A product, and how many pieces of it lie in the warehouses `east` and `west`."""

    sku: str
    name: str
    amount: int
    currency: str
    east: int
    west: int


SEEDS: Final = (
    Seed("tea-earl-grey", "Earl Grey, 100 g", 1467, "USD", 600_000, 400_000),
    Seed("tea-sencha", "Sencha, 100 g", 1890, "USD", 5_000, 2_500),
    Seed("teapot-cast-iron", "Cast-iron teapot, 0.8 l", 6400, "USD", 300, 0),
    Seed("cup-porcelain", "Porcelain cup", 1250, "USD", 0, 1_200),
    Seed("tea-assam-eur", "Assam, 250 g", 1195, "EUR", 2_000, 2_000),
    Seed("strainer-eur", "Tea strainer", 790, "EUR", 800, 0),
    Seed("tea-sample", "A free sample", 0, "USD", 10_000, 10_000),
)


async def seed(dsn: str, api_key: str | None, environment: str = "") -> list[str]:
    """Put in place what is missing; what was made, by name.

    Raises Unavailable, and ElsewhereError where the database is not that of `environment`, or production's.
    """
    if environment == marker.PRODUCTION:
        _refuse("ENVIRONMENT is")
    database = await Database(dsn, size=1, name="seed").open()
    try:
        async with database.connection() as connection:
            await marker.refuse(connection, environment, changes=False)
            if await marker.read(connection) == marker.PRODUCTION:
                _refuse("DATABASE_URL leads to the database of")
        made = await _products(PostgresCatalogue(database))
        keys = ApiKeys(database)
        added = api_key and await keys.add(api_key, name="development", scopes=SCOPES)
        if api_key and not added:  # by a release that knew fewer scopes, perhaps
            await keys.widen(api_key, SCOPES)
        return [*made, "the development API key"] if added else made
    finally:
        await database.close()


def _refuse(found: str) -> NoReturn:
    sys.stderr.write(
        f"holdfast: seed is for development, its catalogue and key are not for production: "
        f"{found} {marker.PRODUCTION!r}\n"
    )
    raise ElsewhereError(EXIT_CONFIGURATION)


async def _products(catalogue: PostgresCatalogue) -> list[str]:
    there = await catalogue.products(wanted.sku for wanted in SEEDS)
    made = []
    for wanted in SEEDS:
        if wanted.sku not in there:
            await catalogue.put(wanted.sku, wanted.name, Money(wanted.amount, wanted.currency), CAUSE)
            made.append(wanted.sku)
        stock = await catalogue.stock(wanted.sku)
        shelves = {shelf.warehouse for shelf in stock.warehouses} if stock else set()
        for warehouse, pieces in (("east", wanted.east), ("west", wanted.west)):
            if pieces and warehouse not in shelves:
                await _stock(catalogue, Adjustment(wanted.sku, warehouse, pieces, "first stock"))
    return made


async def _stock(catalogue: PostgresCatalogue, wanted: Adjustment) -> None:
    """An adjustment whose key is its own name, so two seeds at once stock a shelf once."""
    request = Request("seed", f"POST /v1/inventory/{wanted.sku}/adjustments", wanted.warehouse, b"")
    await catalogue.adjust(request, wanted, CAUSE, msgspec.json.encode)


def main(argv: list[str]) -> int:
    """Seed the database that DATABASE_URL names."""
    about = f"Put the development catalogue, stock and API key ({KEY_VARIABLE}) in place."
    Parser(prog="holdfast seed", description=about).parse_args(argv)
    settings = config.load("tool")
    return run("seed", _run(settings.database_url, settings.environment))


async def _run(dsn: str, environment: str) -> int:
    made = await seed(dsn, os.environ.get(KEY_VARIABLE), environment)
    print(f"seeded {', '.join(made)}" if made else "everything is there already")
    return 0
