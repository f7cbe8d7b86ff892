"""Products for many callers of one moment: one statement, each gets his own, and none is older than asked."""

import asyncio

import pytest

from app.domain.catalogue import Product
from app.domain.errors import Unavailable
from app.domain.money import Money
from app.infra.postgres.catalogue import TAKEN_TO_BE_THERE, Cause
from tests.integration.postgres.interference import begun, holding, kill
from tests.integration.postgres.shop import Shop


@pytest.fixture
async def stocked(shop: Shop) -> Shop:
    """A shop with three products."""
    await shop.stock("cup", price=700, east=3, west=2)
    await shop.stock("spoon", price=100, east=1)
    await shop.stock("knife", price=300)
    return shop


async def test_each_caller_gets_the_products_he_asked_for(stocked: Shop):
    """With what is available or without looking, at once; what does not exist is left out."""
    cup, spoon = Product("cup", "Cup", Money(700, "USD"), 5), Product("spoon", "Spoon", Money(100, "USD"), 1)
    asked = [["cup"], ["cup", "spoon", "cup"], ["fork"], [], ["spoon"]]
    expected = [{"cup": cup}, {"cup": cup, "spoon": spoon}, {}, {}, {"spoon": spoon}]
    assert await asyncio.gather(*map(stocked.catalogue.products, asked)) == expected
    found = await asyncio.gather(*(stocked.catalogue.products(skus, with_stock=False) for skus in asked))
    assert [set(products) for products in found] == [set(products) for products in expected]
    assert found[1]["spoon"] == Product("spoon", "Spoon", Money(100, "USD"), TAKEN_TO_BE_THERE)
    assert (await stocked.catalogue.products(["knife"]))["knife"].available == 0
    assert (await stocked.catalogue.products(["knife"], with_stock=False))["knife"].available > 0


@pytest.mark.parametrize("with_stock", [True, False])
async def test_a_price_is_never_older_than_the_question(stocked: Shop, with_stock: bool):
    """While others ask all the time: whoever asks after a change is told of it."""
    stop = False

    async def ask() -> None:
        while not stop:
            await stocked.catalogue.products(["cup", "spoon"], with_stock=with_stock)

    askers = [asyncio.create_task(ask()) for _ in range(5)]
    for amount in range(50):
        await stocked.catalogue.put("cup", "Cup", Money(amount, "USD"), Cause("cor_1"))
        products = await stocked.catalogue.products(["cup"], with_stock=with_stock)
        assert products["cup"].price.amount == amount
    stop = True
    await asyncio.gather(*askers)


async def test_a_statement_that_is_killed_is_unavailable_to_all_who_asked(stocked: Shop, other):
    """And only to them."""
    async with holding(other, "LOCK TABLE products IN ACCESS EXCLUSIVE MODE"):
        asked = (stocked.catalogue.products([sku]) for sku in ("cup", "spoon", "knife"))
        waiting = await begun(other, asyncio.gather(*asked, return_exceptions=True))
        await kill(other)
        assert all(isinstance(answer, Unavailable) for answer in await waiting)
    assert len(await stocked.catalogue.products(["cup", "spoon", "knife"])) == 3
