"""Deliveries on record: written once, left alone with their endpoint, begun anew when they are lost."""

import asyncio
from typing import Any

import msgspec
import pytest

from app.consumer.dispatch import WEBHOOKS, group
from app.consumer.effect import Effect
from app.consumer.webhooks import hint_deliveries
from app.domain.webhooks import DeliveryState, Outcome, Post, Receipt
from app.infra.postgres import webhook_deliveries
from app.infra.postgres.answers import Request
from app.infra.postgres.pool import Database
from app.infra.postgres.webhook_endpoints import Wanted
from app.infra.postgres.webhook_waiting import OF_ONE_MAX
from tests.integration.webhooks.world import BREAKER_FAILURES, World

URL = "https://hooks.example.com/"
FIRST_SUBJECT = "cd-1467"
"""A SKU: its price was changed."""


async def accepted(world: World) -> str:
    """A new order's id."""
    return (await world.orders.accept()).id


async def pending(world: World, count: int = 1) -> list[str]:
    """An endpoint with so many deliveries; their ids."""
    await world.endpoint(URL)
    await world.happen(*[await accepted(world) for _ in range(count)])
    return [row["id"] for row in await world.rows()]


async def jobs(database: Database) -> list[str]:
    """The workflows that are to be started."""
    return [
        row["workflow_id"]
        for row in await database.fetch("SELECT workflow_id FROM workflow_jobs ORDER BY id")
    ]


async def test_each_event_is_written_for_each_endpoint_that_wants_it(world: World, database: Database):
    """By type, and by customer; each waits for its turn, and nobody else is told of it."""
    order = await world.orders.reject(await world.orders.accept())
    everything, _ = await world.endpoint(URL)
    prices, _ = await world.endpoint(URL, "price.changed.v1")
    hers, _ = await world.endpoint(URL, customer=order.customer_id)
    accepted_only, _ = await world.endpoint(
        URL, "order.accepted.v1", "order.cancelled.v1", customer=order.customer_id
    )
    await world.endpoint(URL, customer="somebody else")
    events = await world.happen(order.id, FIRST_SUBJECT)
    assert [event.type for event in events] == [
        "price.changed.v1", "order.accepted.v1", "order.rejected.v1",
    ]  # fmt: skip
    found = {(row["endpoint_id"], row["type"]) for row in await world.rows()}
    assert found == {
        (everything, "price.changed.v1"),
        (everything, "order.accepted.v1"),
        (everything, "order.rejected.v1"),
        (prices, "price.changed.v1"),
        (hers, "order.accepted.v1"),
        (hers, "order.rejected.v1"),
        (accepted_only, "order.accepted.v1"),
    }
    assert all(row["waits"] for row in await world.rows())
    assert await jobs(database) == []


async def test_an_event_that_comes_again_is_written_once(world: World, database: Database):
    """Its id is made of endpoint and event, whatever the marks say."""
    await world.endpoint(URL)
    events = await world.happen(await accepted(world))
    before = await world.rows()
    async with database.transaction() as connection:
        assert await webhook_deliveries.add(connection, events) == 0
    assert await world.rows() == before
    assert len(before) == 1
    await database.execute("DELETE FROM webhook_deliveries")
    async with database.transaction() as connection:
        assert await webhook_deliveries.add(connection, events) == 1
    assert (await world.rows())[0]["id"] == before[0]["id"]


@pytest.mark.parametrize("change", ["deleted", "disabled", "younger"])
async def test_an_endpoint_that_is_away_or_younger_is_not_written_for(
    world: World, database: Database, change
):
    """It is sent what happens from now on, while it is there."""
    name, _ = await world.endpoint(URL)
    if change == "deleted":
        assert await world.endpoints.delete(name, None)
    elif change == "disabled":
        assert await world.endpoints.change(name, None, Wanted(is_enabled=False))
    else:
        await database.execute("UPDATE webhook_endpoints SET created_at = now() + interval '2 minutes'")
    await world.happen(await accepted(world))
    assert await world.rows() == []


async def test_without_endpoints_events_cost_one_statement_that_looks_at_no_order(
    world: World, database: Database
):
    """The usual case is the cheap one: half the plan is not even begun."""
    events = await world.events(await accepted(world), FIRST_SUBJECT)
    rows = [(e.subject, e.sequence, e.type) for e in events]
    times = [row["time"] for row in await database.fetch("SELECT now() AS time FROM generate_series(1, 2)")]
    plan = await database.fetch(
        "EXPLAIN (ANALYZE, COSTS OFF) " + webhook_deliveries.SQL["add"], *zip(*rows, strict=True), times
    )
    text = [row[0] for row in plan]
    orders = [line for line in text if " orders " in line]
    assert orders
    assert all("never executed" in line for line in orders), text


async def test_what_is_sent_is_the_event_as_it_was_published(world: World):
    """The envelope, and both secrets while they overlap."""
    name, secret = await world.endpoint(URL)
    (event,) = await world.happen(await accepted(world))
    (row,) = await world.rows()
    post = await world.deliveries.begin(row["id"], 1, may_wait=True)
    assert isinstance(post, Post)
    assert (post.delivery_id, post.endpoint_id, post.url) == (row["id"], name, URL)
    assert post.secrets == (secret,)
    assert msgspec.json.decode(post.body) == msgspec.json.decode(msgspec.json.encode(event))
    request = Request("test", "rotate", name, b"")
    await world.endpoints.rotate(
        request, name, None, secret="whsec_bmV3", overlap_s=60, encode=lambda *_: b"{}"
    )
    post = await world.deliveries.begin(row["id"], 1, may_wait=True)
    assert isinstance(post, Post)
    assert post.secrets == ("whsec_bmV3", secret)
    await world.database.execute("UPDATE webhook_endpoints SET previous_until = now() - interval '1 second'")
    post = await world.deliveries.begin(row["id"], 1, may_wait=True)
    assert isinstance(post, Post)
    assert post.secrets == ("whsec_bmV3",)
    await world.endpoints.forget_secrets()
    rows = await world.database.fetch("SELECT previous_secret FROM webhook_endpoints")
    assert rows[0]["previous_secret"] is None


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE webhook_endpoints SET deleted_at = now()", "deleted"),
        ("UPDATE webhook_endpoints SET is_enabled = false", "disabled"),
        ("UPDATE webhook_deliveries SET happened_at = happened_at - interval '1 day'", "archive"),
    ],
)
async def test_what_cannot_be_sent_any_more_has_failed(world: World, statement: str, said: str):
    """It says why, and costs no attempt."""
    (one,) = await pending(world)
    await world.database.execute(statement)
    outcome = await world.deliveries.begin(one, 1, may_wait=True)
    assert outcome == Outcome(DeliveryState.FAILED, was_sent=False)
    row = await world.one(one)
    assert (row["state"], row["waits"], row["attempts"], row["next_at"]) == ("failed", False, 0, None)
    assert said in row["last_error"]


async def test_an_outcome_is_put_on_record(world: World):
    """Each attempt with its status, its error and when the next one is."""
    (one,) = await pending(world)
    assert await world.begin() == [one]
    outcome = await world.attempt(one, 500, 6.0)
    assert outcome == Outcome(DeliveryState.PENDING, was_sent=True, again_in_s=6.0)
    row = await world.one(one)
    assert (row["state"], row["attempts"], row["last_status"]) == ("pending", 1, 500)
    assert (row["last_error"], row["waits"]) == ("answered 500", False)
    assert 5 < (row["next_at"] - row["last_at"]).total_seconds() < 8
    assert (await world.attempt(one, 200)).state is DeliveryState.DELIVERED
    row = await world.one(one)
    assert (row["state"], row["attempts"], row["last_status"]) == ("delivered", 2, 200)
    assert (row["last_error"], row["next_at"]) == (None, None)
    assert row["delivered_at"] is not None
    again = await world.deliveries.begin(one, row["round"], may_wait=True)
    assert again == Outcome(DeliveryState.DELIVERED, was_sent=False), "a repeated step sends nothing"


async def test_the_last_attempt_ends_it(world: World):
    """No more waits: failed, and it stays in the log."""
    (one,) = await pending(world)
    assert (await world.attempt(one, None, None)).state is DeliveryState.FAILED
    assert await world.states() == ["failed"]


async def test_410_disables_the_endpoint(world: World):
    """The receiver wants nothing any more: what else waits for it has failed, too."""
    one, other = await pending(world, 2)
    assert (await world.attempt(one, 410)).state is DeliveryState.FAILED
    (endpoint,) = await world.endpoints.page("", None, 10)
    assert (endpoint.is_enabled, endpoint.disabled_reason) == (False, "gone")
    assert (await world.attempt(other, 200)).state is DeliveryState.FAILED
    assert await world.endpoints.change(endpoint.id, None, Wanted(is_enabled=True))
    (endpoint,) = await world.endpoints.page("", None, 10)
    assert (endpoint.is_enabled, endpoint.disabled_reason) == (True, None)


async def test_an_endpoint_that_fails_again_and_again_is_left_alone(world: World):
    """Its deliveries wait; then one at a time tries it; once it is well all may."""
    ids = await pending(world, OF_ONE_MAX + 1)
    assert await world.begin() == ids[:OF_ONE_MAX]
    for one in ids[:BREAKER_FAILURES]:
        assert (await world.attempt(one, 500)).was_sent
    assert (await world.breaker())["is_open"]
    assert await world.endpoints.left_alone() == 1
    late = [await world.deliveries.begin(one, 1, may_wait=True) for one in ids[BREAKER_FAILURES:OF_ONE_MAX]]
    back = Outcome(DeliveryState.PENDING, was_sent=False, waits=True)
    assert late == [back] * (OF_ONE_MAX - BREAKER_FAILURES), "nothing is sent"
    assert [row["attempts"] for row in await world.rows()] == [1] * BREAKER_FAILURES + [0] * 6
    assert await world.begin() == [], "Temporal has nothing of it any more"

    await world.database.execute("UPDATE webhook_breakers SET open_until = now()")
    assert await world.begin() == ids[BREAKER_FAILURES:][:1], "one tries it, the one that was next"
    round_ = (await world.one(ids[BREAKER_FAILURES]))["round"]
    probe = await world.deliveries.begin(ids[BREAKER_FAILURES], round_, may_wait=True)
    assert isinstance(probe, Post)
    assert await world.begin() == []
    assert (await world.deliveries.end(probe, round_, Receipt(500, "no"), 1.0)).waits
    longer = await world.breaker()
    assert longer["is_open"], "it is left alone again"
    assert longer["openings"] == 2, "and longer"

    await world.database.execute("UPDATE webhook_breakers SET open_until = now()")
    assert await world.begin() == [ids[BREAKER_FAILURES + 1]]
    assert (await world.attempt(ids[BREAKER_FAILURES + 1], 200)).state is DeliveryState.DELIVERED
    assert await world.endpoints.left_alone() == 0
    assert await world.begin() == ids[BREAKER_FAILURES + 2 :], "those due later wait for that"
    for one in ids[BREAKER_FAILURES + 2 :]:
        assert (await world.attempt(one, 200)).state is DeliveryState.DELIVERED


async def test_of_many_at_once_one_tries_an_endpoint_that_was_left_alone(world: World):
    """However many workers there are."""
    ids = await pending(world, 12)
    for one in ids[:BREAKER_FAILURES]:
        await world.attempt(one, 500)
    await world.database.execute("UPDATE webhook_breakers SET open_until = now()")
    begun = await asyncio.gather(*(world.deliveries.begin(one, 1, may_wait=True) for one in ids))
    assert len([found for found in begun if isinstance(found, Post)]) == 1


async def test_a_success_between_failures_closes_the_count(world: World):
    """It is failures in a row that count."""
    ids = await pending(world, BREAKER_FAILURES * 2)
    for one in ids[: BREAKER_FAILURES - 1]:
        await world.attempt(one, 500)
    await world.attempt(ids[-1], 200)
    for one in ids[: BREAKER_FAILURES - 1]:
        assert (await world.attempt(one, 500)).was_sent
    assert not (await world.breaker())["is_open"]


async def test_who_may_not_wait_any_longer_has_failed(world: World):
    """Days of an endpoint that is left alone come to an end, too."""
    ids = await pending(world, BREAKER_FAILURES + 1)
    for one in ids[:BREAKER_FAILURES]:
        await world.attempt(one, 500)
    outcome = await world.deliveries.begin(ids[-1], 1, may_wait=False)
    assert outcome == Outcome(DeliveryState.FAILED, was_sent=False)


async def test_moving_or_enabling_an_endpoint_is_a_fresh_start(world: World):
    """Whoever mended it need not wait."""
    ids = await pending(world, BREAKER_FAILURES)
    for one in ids:
        await world.attempt(one, 500)
    (endpoint,) = await world.endpoints.page("", None, 10)
    await world.endpoints.change(endpoint.id, None, Wanted(description="the same"))
    assert (await world.breaker())["is_open"]
    await world.endpoints.change(endpoint.id, None, Wanted(url="https://other.example.com/"))
    assert not (await world.breaker())["is_open"]


async def again(world: World, endpoint_id: str, delivery_id: str) -> Any:
    """Have a delivery sent once more."""
    request = Request("test", f"redeliver {endpoint_id}", delivery_id, b"")
    return await world.deliveries.again(request, endpoint_id, delivery_id, lambda _: b"{}")


async def test_a_delivery_that_is_sent_again_by_hand_leaves_its_former_round_behind(world: World):
    """A new workflow under the same id; the old one, if it still sleeps, finds nothing to do."""
    (one,) = await pending(world)
    await world.attempt(one, None, None)
    (endpoint,) = await world.endpoints.page("", None, 10)
    assert (await again(world, endpoint.id, one)).status == 202
    assert (await again(world, endpoint.id, one)).replayed, "the same key: once"
    assert await jobs(world.database) == [f"webhook/{one}/2"]
    assert await world.begin() == [], "it does not stand in line"
    assert (await world.deliveries.begin(one, 1, may_wait=True)) == Outcome(None, was_sent=False)
    assert isinstance(await world.deliveries.begin(one, 2, may_wait=True), Post)
    with pytest.raises(LookupError):
        await again(world, "whe_other", one)


async def test_deliveries_that_nobody_carries_are_begun_anew(world: World, database: Database):
    """Temporal lost them: their time is long over, and nobody is still to be told of any."""
    lost, recent, waits = await pending(world, 3)
    await world.endpoints.change((await world.one(lost))["endpoint_id"], None, Wanted(is_enabled=True))
    assert await world.begin(2) == [lost, recent]
    assert await world.deliveries.revive() == 0
    late = "UPDATE webhook_deliveries SET next_at = now() - interval '2 hours'"
    await database.execute(late)
    assert await world.deliveries.revive() == 0, "it was begun just now, however long it had waited"
    begun = "UPDATE webhook_deliveries SET claimed_until = now() - interval '2 hours' WHERE id = ANY ($1)"
    await database.execute(begun, [lost, waits])
    (endpoint,) = await world.endpoints.page("", None, 10)
    await again(world, endpoint.id, recent)
    await database.execute("UPDATE workflow_jobs SET created_at = now() - interval '2 hours'")
    assert await world.deliveries.revive() == 0, "Temporal is away"
    await database.execute("DELETE FROM workflow_jobs")
    assert await world.deliveries.revive() == 1
    assert await world.deliveries.revive() == 0
    assert ((await world.one(lost))["round"], (await world.one(waits))["round"]) == (2, 1)
    assert await world.begin() == [lost, waits]


async def test_the_worker_is_told_at_once_where_there_is_something_to_send(world: World):
    """After the commit, and only then."""
    told: list[bool] = []
    hint = hint_deliveries(lambda: told.append(True))
    world.effect = Effect(group("webhooks", WEBHOOKS, hint), world.effect._store)
    await world.happen(await accepted(world))
    assert told == []
    await world.endpoint(URL)
    await world.happen(await accepted(world))
    assert told == [True]
    await world.happen(*[row["subject"] for row in await world.rows()])
    assert told == [True], "nothing was new"


async def test_the_log_forgets_what_ended_a_month_ago(world: World, database: Database):
    """And nothing that still waits."""
    ended, waits = await pending(world, 2)
    await world.attempt(ended, 200)
    assert await world.deliveries.forget(10) == 0
    await database.execute("UPDATE webhook_deliveries SET created_at = now() - interval '31 days'")
    assert await world.deliveries.forget(10) == 1
    assert [row["id"] for row in await world.rows()] == [waits]
