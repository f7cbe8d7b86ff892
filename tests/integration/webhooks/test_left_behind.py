"""What is on record from before: deliveries sent again by an earlier release, a clock that was set back."""

import pytest

from app.domain.webhooks import DeliveryState, Post
from app.infra.postgres import migrate
from app.infra.postgres.webhook_deliveries import DUE_MAX_S
from app.infra.webhooks.sender import RETRY_AFTER_S_MAX
from app.workers import policies
from tests.integration.webhooks.test_waiting import lines, make_ill, pass_time
from tests.integration.webhooks.world import BREAKER_FAILURES, World

EARLIER_AGAIN = """
UPDATE webhook_deliveries SET state = 'pending', round = round + 1, next_at = now() WHERE id = $1
"""
EARLIER_FAILED = """
UPDATE webhook_deliveries SET state = 'failed', waits = false, attempts = 9, next_at = NULL WHERE id = $1
"""
OPEN = """
INSERT INTO webhook_breakers (endpoint_id, failures, open_until) VALUES ($1, 5, now() + interval '9 min')
"""


async def sent_again_earlier(world: World) -> str:
    """A delivery that failed long ago, and that an earlier release sends again."""
    ((one,),) = await lines(world, 1)
    await world.database.execute(EARLIER_FAILED, one)
    await pass_time(world, 2 * policies.WEBHOOK_ENDS_S)
    await world.database.execute(EARLIER_AGAIN, one)
    return one


@pytest.mark.parametrize("is_migrated", [True, False])
async def test_what_an_earlier_release_sends_again_has_the_whole_schedule(world: World, is_migrated: bool):
    """Also where its endpoint is left alone just then: it waits, and is sent when that ends."""
    one = await sent_again_earlier(world)
    if is_migrated:
        (sql,) = [sql for number, _, sql in migrate.migrations() if number == 20]
        await world.database.execute(sql)
        assert (await world.one(one))["since"] is not None
    await world.database.execute(OPEN, (await world.one(one))["endpoint_id"])
    assert (await world.attempt(one, 200)).waits
    assert await world.waiting.give_up(policies.WEBHOOK_ENDS_S, 10) == 0
    await world.database.execute("UPDATE webhook_breakers SET open_until = now()")
    (claimed,) = await world.waiting.claim(10, 50.0)
    row = await world.one(one)
    assert (claimed.failures, row["attempts"]) == (0, 9)
    assert claimed.since > row["created_at"].timestamp() + policies.WEBHOOK_ENDS_S


async def test_what_an_earlier_release_sends_again_while_it_waits_is_not_too_late(world: World):
    """It comes in its turn, as begun when it was sent again; and ends when that is long ago."""
    ((one,),) = await lines(world, 1)
    await pass_time(world, 2 * policies.WEBHOOK_ENDS_S)
    await world.database.execute(EARLIER_AGAIN, one)
    await world.database.execute(OPEN, (await world.one(one))["endpoint_id"])
    assert await world.waiting.give_up(policies.WEBHOOK_ENDS_S, 10) == 0
    await pass_time(world, policies.WEBHOOK_ENDS_S + 60)
    assert await world.waiting.give_up(policies.WEBHOOK_ENDS_S, 10) == 1


async def test_attempts_of_what_an_earlier_release_sent_again_are_counted_anew(world: World):
    """Those of its former round are not among them."""
    one = await sent_again_earlier(world)
    assert (await world.attempt(one, 500)).waits
    row = await world.one(one)
    assert (row["attempts"], row["failures"]) == (10, 1)
    assert row["since"] > row["created_at"]


async def test_a_first_schedule_goes_on_from_when_it_was_created(world: World):
    """However often it has come back to wait."""
    ((one,),) = await lines(world, 1)
    await pass_time(world, 600)
    await world.database.execute(OPEN, (await world.one(one))["endpoint_id"])
    for _ in range(2):
        assert (await world.attempt(one, 200)).waits
    row = await world.one(one)
    assert (row["round"], row["since"], row["failures"]) == (3, row["created_at"], 0)


async def test_an_endpoint_is_not_left_alone_until_a_time_that_cannot_be(world: World):
    """The clock was set back: what lies too far ahead is past; a failure leaves it alone as usual."""
    (ids,) = await lines(world, BREAKER_FAILURES + 3)
    await make_ill(world, ids)
    await pass_time(world, -30 * 86_400)
    await world.database.execute(
        "UPDATE webhook_deliveries SET next_at = now(), waits = true, claimed_until = '-infinity'"
    )
    await world.database.execute("UPDATE webhook_breakers SET probe_until = open_until")
    (one,) = await world.begin()
    assert await world.begin() == [], "one tries it"
    failed = await world.attempt(one, 500)
    assert failed.was_sent
    assert failed.waits
    assert (await world.breaker())["is_open"]
    assert await world.begin() == []
    await pass_time(world, -30 * 86_400)
    await world.database.execute("UPDATE webhook_deliveries SET next_at = now() WHERE state = 'pending'")
    (one,) = await world.begin()
    row = await world.one(one)
    assert isinstance(await world.deliveries.begin(one, row["round"], may_wait=True), Post)
    await world.database.execute("UPDATE webhook_breakers SET probe_until = now() + interval '1 day'")
    assert (await world.attempt(one, 200)).state is DeliveryState.DELIVERED
    assert len(await world.begin()) > 1


async def test_a_delivery_is_not_due_at_a_time_that_cannot_be(world: World):
    """The clock was set back by a month: what is further off than any attempt is due now."""
    (ids,) = await lines(world, 3)
    assert await world.begin(1) == ids[:1]
    assert await world.deliveries.revive() == 0
    await pass_time(world, -30 * 86_400)
    assert await world.begin() == []
    assert await world.deliveries.revive() == 3
    assert await world.begin() == ids[1:]
    await pass_time(world, 7200)
    assert await world.deliveries.revive() == 3, "Temporal has lost them in the meantime"
    assert await world.begin() == ids


async def test_what_is_to_be_tried_much_later_is_not_taken_for_what_cannot_be(world: World):
    """Neither the longest wait of the schedule nor what a receiver may ask for."""
    (ids,) = await lines(world, 1)
    longest_s = max(policies.WEBHOOK_WAITS_S[-1] * (1 + policies.WEBHOOK_JITTER), RETRY_AFTER_S_MAX)
    assert longest_s < DUE_MAX_S
    assert (await world.attempt(ids[0], 500, longest_s)).waits
    assert await world.deliveries.revive() == 0


async def test_the_line_of_an_endpoint_does_not_begin_at_a_time_that_cannot_be(world: World):
    """Who finds a worker with too much on its way looks again soon, also when the clock was set back."""
    (ids,) = await lines(world, 1)
    row = await world.one(ids[0])
    post = await world.deliveries.begin(ids[0], row["round"], may_wait=True)
    assert isinstance(post, Post)
    first = await world.deliveries.wait(post)
    await world.database.execute("UPDATE webhook_breakers SET next_slot = next_slot + interval '30 days'")
    again = await world.deliveries.wait(post)
    assert 0 < first.again_in_s < again.again_in_s < 60
