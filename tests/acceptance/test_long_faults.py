"""Minutes of orders with something dying all the time (`make test-full`)."""

import asyncio
import os
import random
import time

import pytest

from tests.acceptance.shop import Shop
from tests.acceptance.stack import Stack

PARTS = ("gateway", "worker", "consumer", "postgres", "redis", "temporal", "sandbox")
MINUTES = 5.0
METHODS = ("pm_card_visa",) * 8 + ("pm_card_chargeDeclined", "pm_card_chargeDeclinedInsufficientFunds")


@pytest.mark.full
@pytest.mark.timeout(1200)
async def test_five_minutes_of_random_kills_lose_and_double_nothing(stack: Stack, shop: Shop) -> None:
    """Orders come in, some are cancelled, and every few seconds a random part is killed."""
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    print(f"SEED={seed}")
    dice = random.Random(seed)
    await shop.stock("long", 100_000)
    until = time.monotonic() + 60 * MINUTES
    killed: list[str] = []

    async def buy(client: int) -> None:
        number = 0
        while time.monotonic() < until:
            number += 1
            answer = await shop.place(
                f"long-{client}-{number}", "long", dice.randint(1, 3), dice.choice(METHODS)
            )
            assert answer.status_code == 202, answer.text
            if dice.random() < 0.2:
                await asyncio.sleep(dice.uniform(0, 2))
                await shop.cancel(answer.json()["id"], f"stop-{client}-{number}")
            await asyncio.sleep(dice.uniform(0.2, 1.5))

    async def kill() -> None:
        while time.monotonic() < until:
            await asyncio.sleep(dice.uniform(2, 8))
            killed.append(dice.choice(PARTS))
            await stack.kill(killed[-1])
            await stack.until_ready()

    await asyncio.gather(kill(), *(buy(client) for client in range(4)))
    print(f"killed: {killed}")
    outcome = await shop.audit(settle_timeout_s=300)
    print(outcome)
    assert outcome["completed"]
    assert outcome["cancelled"]
    assert outcome["rejected"]
