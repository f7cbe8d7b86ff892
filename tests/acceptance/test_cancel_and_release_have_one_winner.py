"""Cancelling against releasing: one of them wins, never both, and money and stock are right each time."""

import asyncio
import random

import pytest

from tests.acceptance.shop import Shop

RACES = 200
BATCH = 10


async def test_of_two_hundred_cancellations_each_has_one_winner(
    shop: Shop, request: pytest.FixtureRequest
) -> None:
    """Cancelled at a random moment of its first tenths of a second, an order ends cancelled or completed."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    await shop.stock("race", 10 * RACES)

    async def race(number: int, delay_s: float) -> tuple[str, int]:
        answer = await shop.place(f"race-{number}", "race")
        order_id = answer.json()["id"]
        await asyncio.sleep(delay_s)
        cancelled = await shop.http.post(
            f"/v1/orders/{order_id}/cancel", json={}, headers={"Idempotency-Key": f"stop-{number}"}
        )
        return order_id, cancelled.status_code

    answers: dict[str, int] = {}
    for first in range(0, RACES, BATCH):
        # The whole batch is carried out at once, which takes about half a second.
        batch = (race(number, dice.uniform(0, 0.6)) for number in range(first, first + BATCH))
        answers |= dict(await asyncio.gather(*batch))
    outcome = await shop.audit()
    assert set(answers.values()) == {200, 409}, "both have won at times"
    for order_id, order in (await shop.orders()).items():
        expected = "cancelled" if answers[order_id] == 200 else "completed"
        assert order["status"] == expected
        captured = order["payment"]["captured"]["amount"]
        assert captured == (order["totals"]["total"]["amount"] if expected == "completed" else 0)
    assert sum(outcome.values()) == RACES
