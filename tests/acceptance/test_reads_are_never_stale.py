"""Orders move, Redis is tormented, two gateways are read: nothing read is older than two seconds.

Checked of every single read, at both gateways: it is answered; it shows the order that was asked for; it
says of a version what PostgreSQL says of it; it is not behind a version that PostgreSQL had two seconds
before the read began; `304` is said of the tag that was sent. How far reads were behind, and how often one
showed less than an earlier one at the same gateway, is printed.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.acceptance.freshness import Findings, Reader, Tormentor, Truth
from tests.acceptance.shop import Shop
from tests.acceptance.stack import Stack, another_gateway

BUYERS = 2
READERS = 6
BACK_WITHIN_S = 2.0
METHODS = ("pm_card_visa",) * 9 + ("pm_card_chargeDeclined",)


@pytest.fixture
async def second(shop: Shop, tmp_path: Path) -> AsyncIterator[Shop]:
    """The same shop at a second gateway: same customer, same books."""
    async with another_gateway(shop.status, tmp_path / "gateway.log") as url:
        second = Shop(shop.status | {"gateway": {"url": url}})
        second.customer, second.placed, second.stocked = shop.customer, shop.placed, shop.stocked
        try:
            yield second
        finally:
            await second.close()


async def buy(shops: tuple[Shop, Shop], sku: str, buyer: int, dice: random.Random, until: float) -> None:
    """Place orders at either gateway, and cancel some of them at either, until that time."""
    number = 0
    while time.monotonic() < until:
        number += 1
        key = f"{sku}-{buyer}-{number}"
        answer = await dice.choice(shops).place(key, sku, method=dice.choice(METHODS))
        assert answer.status_code == 202, answer.text
        await asyncio.sleep(dice.uniform(0, 0.5))
        if dice.random() < 0.4:
            stopped = dice.choice(list(shops[0].placed))
            await dice.choice(shops).cancel(stopped, f"stop-{key}")


async def interrupt(shop: Shop, dice: random.Random, until: float) -> None:
    """Have the payment provider refuse everybody now and then: orders stand still, and go on at some time."""
    async with httpx.AsyncClient(base_url=shop.status["sandbox"]["url"]) as http:
        while time.monotonic() < until:
            await http.post("/control", json={"provider": "payments", "mode": "refuse"})
            try:
                await asyncio.sleep(dice.uniform(0.5, 2))
            finally:
                await http.delete("/control")
            await asyncio.sleep(dice.uniform(0.2, 1))


async def until_redis_is_back(shops: tuple[Shop, Shop]) -> None:
    """Wait until both gateways say that Redis is up."""
    async with asyncio.timeout(BACK_WITHIN_S):
        for shop in shops:
            while "holdfast_redis_up 1.0" not in (await shop.http.get("/metrics")).text:
                await asyncio.sleep(0.02)


@pytest.mark.full
@pytest.mark.parametrize("seconds", [10, pytest.param(150, marks=pytest.mark.timeout(400))])
async def test_no_read_is_more_than_two_seconds_behind_whatever_happens_to_redis(
    stack: Stack, shop: Shop, second: Shop, seed: int, seconds: int
) -> None:
    """Flushed, frozen, killed, cut off, paused and full, in the order of the dice."""
    dice, shops, sku = random.Random(seed), (shop, second), f"fresh-{seconds}"
    await shop.stock(sku, 100_000)
    truth, findings = Truth(shop.status["postgres"]["dsn"], shop.customer), Findings()
    tormentor = Tormentor(shop.status["redis"]["url"], random.Random(dice.random()))
    until = time.monotonic() + seconds
    readers = [
        Reader(shops[n % 2].url, shop.status["api_key"], truth, findings, random.Random(dice.random()))
        for n in range(READERS)
    ]
    async with truth.watched(), asyncio.TaskGroup() as group:
        group.create_task(tormentor.torment(until))
        group.create_task(interrupt(shop, random.Random(dice.random()), until))
        for buyer in range(BUYERS):
            group.create_task(buy(shops, sku, buyer, random.Random(dice.random()), until))
        for reader in readers:
            group.create_task(reader.read_on(until + 3))  # nothing stale after the last fault either
    print(f"{len(truth.seen)} orders, looked at every {truth.longest_look_s:.2f} s at worst", tormentor.done)
    print(findings.told())
    assert not findings.stale, f"{len(findings.stale)} stale, first: " + "; ".join(findings.stale[:5])
    await stack.until_ready()
    await until_redis_is_back(shops)
    await shop.audit()
    await check_finals(shops)


async def check_finals(shops: tuple[Shop, Shop]) -> None:
    """What both gateways show in the end is what PostgreSQL has."""
    listed = await shops[0].orders()
    for shop in shops:
        shown = await asyncio.gather(*(shop.order(order_id) for order_id in listed))
        assert {order["id"]: order for order in shown} == listed
