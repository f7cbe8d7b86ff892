"""Owns what must be there before the first order: a product for each price, and as many pieces as are bought.

Every step may be repeated: products are put, and pieces are received under keys that carry the import's name.
If the process dies half way, the next import begins anew; what it had put on the shelves stays there.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from app.dev.importing.api import Api, Product, RefusedError, Stock, replayed
from app.dev.importing.at_once import each
from app.dev.importing.journal import Journal, Pieces, Run
from app.dev.importing.purchases import Purchase, shares
from app.domain.money import Money

WAREHOUSE: Final = "cdnow"
AT_ONCE: Final = 8


def demand(purchases: Iterable[Purchase]) -> dict[str, int]:
    """Pieces that are bought of each SKU."""
    wanted: Counter[str] = Counter()
    for purchase in purchases:
        for share in shares(purchase):
            wanted[share.sku] += share.pieces
    return dict(sorted(wanted.items()))


async def prepare(api: Api, journal: Journal, wanted: dict[str, int], *, again: bool) -> tuple[Run, bool]:
    """Put everything in place; the run to place orders under, and whether it goes on with an earlier one.

    `again` begins a new one even where an earlier one was cut short. Raises OSError.
    """
    run = journal.load()
    if run is not None and not again and await _is_known(api, run, wanted):
        return run, True
    await _put_products(api, wanted)
    run = Run(journal.new_name(), await pieces(api, wanted))
    await each(wanted.items(), AT_ONCE, lambda item: _receive(api, run.name, *item))
    journal.save(run)
    return run, False


async def pieces(api: Api, wanted: Iterable[str]) -> dict[str, Pieces]:
    """Pieces of some SKUs as they are now."""
    skus = set(wanted)
    found = {}
    async for page in api.pages("/v1/inventory", Stock):
        for stock in page:
            if stock.sku in skus:
                shelves = stock.warehouses
                found[stock.sku] = Pieces(sum(s.on_hand for s in shelves), sum(s.reserved for s in shelves))
    return {sku: found.get(sku, Pieces(0, 0)) for sku in sorted(skus)}


async def _is_known(api: Api, run: Run, wanted: dict[str, int]) -> bool:
    """Whether this very stack knows the run: it may have been started with no data since."""
    sku, number = next(iter(wanted.items()))
    try:
        return await _receive(api, run.name, sku, number)
    except RefusedError:
        return False


async def _put_products(api: Api, wanted: Iterable[str]) -> None:
    there = {}
    async for page in api.pages("/v1/products", Product):
        there.update({product.sku: product.price for product in page})
    prices = {sku: Money(int(sku.removeprefix("cd-")), "USD") for sku in wanted}
    missing = [(sku, price) for sku, price in prices.items() if there.get(sku) != price]

    async def put(item: tuple[str, Money]) -> None:
        sku, price = item
        name = f"A CD for ${price.amount // 100}.{price.amount % 100:02}"
        await api.send("PUT", f"/v1/products/{sku}", {"name": name, "price": price})

    await each(missing, AT_ONCE, put)


async def _receive(api: Api, run: str, sku: str, number: int) -> bool:
    """Put pieces on the shelf, once in each run; whether they were there already."""
    body = {"warehouse": WAREHOUSE, "delta": number, "reason": f"import {run}"}
    return replayed(
        await api.send("POST", f"/v1/inventory/{sku}/adjustments", body, key=f"import-{run}-{sku}")
    )
