"""Deliveries that wait in PostgreSQL: whose turn it is, how many at once, and what becomes of the others."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.client import Client

from app.contracts import temporal as t
from app.domain.webhooks import DeliveryState, Outcome, Post, Receipt
from app.infra.postgres import webhook_waiting
from app.infra.postgres.answers import Request
from app.infra.postgres.pool import Database
from app.infra.postgres.webhook_deliveries import ASLEEP_S
from app.infra.postgres.webhook_endpoints import Wanted
from app.infra.postgres.webhook_waiting import BESIDE_ORDERS_MAX, OF_ONE_MAX, PLACE_S, WaitingDeliveries
from app.workers import policies
from app.workers.webhook_starter import WebhookStarter
from tests.integration.webhooks.world import BREAKER_FAILURES, BREAKER_S, LEASE_S, World
from tests.integration.workers.poll import Poll

URL = "https://hooks.example.com/"


async def lines(world: World, *counts: int) -> list[list[str]]:
    """Endpoints that so many deliveries each wait for: their ids, the oldest first."""
    names = [(await world.endpoint(URL))[0] for _ in counts]
    events = await world.events(*[(await world.orders.accept()).id for _ in range(max(counts))])
    await world.happen(*[event.subject for event in events])
    found: list[list[str]] = []
    for name, count in zip(names, counts, strict=True):
        rows = [row["id"] for row in await world.rows() if row["endpoint_id"] == name]
        found.append(rows[:count])
        await world.database.execute("DELETE FROM webhook_deliveries WHERE id = ANY ($1)", rows[count:])
    return found


async def make_ill(world: World, ids: list[str]) -> None:
    """Begin deliveries and let the first few fail: their endpoint is left alone."""
    assert (await world.begin())[:BREAKER_FAILURES] == ids[:BREAKER_FAILURES]
    for one in ids[:BREAKER_FAILURES]:
        await world.attempt(one, 500)
    assert (await world.breaker())["is_open"]


async def pass_time(world: World, seconds: float) -> None:
    """Put everything on record back by so many seconds."""
    past = "make_interval(secs => $1)"
    await world.database.execute(
        f"UPDATE webhook_deliveries SET next_at = next_at - {past}, claimed_until = claimed_until - {past}, "
        f"created_at = created_at - {past}, since = since - {past}",
        seconds,
    )
    await world.database.execute(
        f"UPDATE webhook_breakers SET open_until = open_until - {past}, probe_until = probe_until - {past}",
        seconds,
    )


async def test_deliveries_of_an_endpoint_that_is_left_alone_are_not_begun(world: World):
    """However many wait; when it is well again they are, the oldest first."""
    (ids,) = await lines(world, OF_ONE_MAX + 4)
    await make_ill(world, ids)
    rest = ids[OF_ONE_MAX:]
    assert await world.begin() == []
    assert await world.waiting.late_s() == 0, "none of them is late"
    await world.endpoints.change((await world.one(ids[0]))["endpoint_id"], None, Wanted(is_enabled=True))
    begun = await world.begin()
    assert begun == rest[:BREAKER_FAILURES], "those that were begun before have their places"
    assert await world.waiting.count() == BREAKER_FAILURES + 1, "those that failed are due later"


async def test_one_delivery_tries_an_endpoint_whose_time_alone_is_over(world: World):
    """However many workers look at once; the others come when it has answered."""
    (ids,) = await lines(world, OF_ONE_MAX + 4)
    await make_ill(world, ids)
    for one in ids[BREAKER_FAILURES:OF_ONE_MAX]:
        assert (await world.attempt(one, 200)).waits
    await pass_time(world, BREAKER_S + 1)
    found = await asyncio.gather(*(world.waiting.claim(100, LEASE_S) for _ in range(5)))
    (probe,) = [one for some in found for one in some]
    assert probe.delivery_id == ids[BREAKER_FAILURES], "who looked in vain has kept its place"
    assert await world.begin() == []
    await world.waiting.done([probe.id])
    assert await world.begin() == [], "it is on its way"
    told = world.told
    assert (await world.attempt(probe.delivery_id, 200)).state is DeliveryState.DELIVERED
    assert world.told == told + 1, "the starter looks at once"
    assert await world.begin() == ids[BREAKER_FAILURES + 1 : BREAKER_FAILURES + 1 + OF_ONE_MAX]


async def test_an_endpoint_has_so_many_places(world: World):
    """The oldest have them; the next comes when one of them has ended or sleeps."""
    (ids,) = await lines(world, OF_ONE_MAX + 3)
    assert await world.begin() == ids[:OF_ONE_MAX]
    assert await world.begin() == []
    await world.attempt(ids[3], 200)
    assert await world.begin() == [ids[OF_ONE_MAX]]
    await world.attempt(ids[1], 500, ASLEEP_S)
    assert await world.begin() == [ids[OF_ONE_MAX + 1]]
    assert world.told == 2
    await world.attempt(ids[2], None, None)
    assert await world.begin() == [ids[OF_ONE_MAX + 2]]
    assert world.told == 3
    await world.attempt(ids[4], 200)
    assert world.told == 3, "nobody waits any more"


async def test_all_endpoints_have_so_many_places_together_and_take_turns(world: World):
    """One with a long line does not keep the others from theirs."""
    long, short, shorter = await lines(world, OF_ONE_MAX, 2, 1)
    world.waiting = WaitingDeliveries(world.database, in_all_max=6)
    await world.database.execute(
        "UPDATE webhook_deliveries SET next_at = next_at - interval '1 minute' WHERE id = ANY ($1)", long
    )
    begun = await world.begin(4)
    assert set(begun) == {long[0], short[0], shorter[0], long[1]}
    assert await world.begin() == [long[2], short[1]]
    assert len([row for row in await world.rows() if not row["waits"]]) == 6
    await world.attempt(long[0], 200)
    assert await world.begin() == [long[3]]


async def test_one_looks_at_a_time(world: World, database: Database):
    """Two who counted places at once would give some away twice."""
    (ids,) = await lines(world, 1)
    async with database.transaction() as connection:
        assert await connection.fetchval(webhook_waiting.SQL["one_by_one"])
        assert await world.begin() == []
    assert await world.begin() == ids


async def test_orders_go_first(world: World):
    """While some wait to be started few deliveries are begun at once."""
    (ids,) = await lines(world, OF_ONE_MAX)
    await world.orders.accept()
    await world.database.execute("UPDATE workflow_outbox SET created_at = now() - interval '5 seconds'")
    assert await world.begin() == ids[:BESIDE_ORDERS_MAX]
    await world.database.execute("DELETE FROM workflow_outbox")
    assert await world.begin() == ids[BESIDE_ORDERS_MAX:]


async def test_an_order_that_temporal_does_not_take_holds_no_webhooks_up(world: World):
    """One row that is refused again and again is no sign that others wait; a new order beside it is."""
    (ids,) = await lines(world, OF_ONE_MAX)
    waiting = "UPDATE workflow_outbox SET created_at = created_at - make_interval(secs => $1)"
    await world.orders.accept()
    await world.database.execute(waiting, 61)
    await world.orders.accept()
    await world.database.execute(waiting, 5)
    assert await world.begin() == ids[:BESIDE_ORDERS_MAX]
    await world.database.execute(waiting, 61)
    assert await world.begin() == ids[BESIDE_ORDERS_MAX:]


async def test_who_was_claimed_by_somebody_that_died_is_claimed_again(world: World):
    """The same round, so the same workflow; what is given back has a pause."""
    (ids,) = await lines(world, 2)
    (first, second) = await world.waiting.claim(10, LEASE_S)
    assert [first.delivery_id, second.delivery_id] == ids
    assert await world.waiting.claim(10, LEASE_S) == []
    await pass_time(world, LEASE_S + 1)
    assert [one.id for one in await world.waiting.claim(10, LEASE_S)] == [first.id, second.id]
    await world.waiting.give_back([first.id, second.id], LEASE_S)
    assert await world.begin() == []
    await pass_time(world, LEASE_S + 1)
    assert await world.begin() == ids
    await pass_time(world, LEASE_S + 1)
    assert await world.begin() == [], "they are Temporal's"


async def test_a_delivery_that_is_begun_twice_is_one_workflow(
    world: World, client: Client, database: Database
):
    """Somebody died between Temporal's answer and its record; meanwhile it may even have ended."""
    (ids,) = await lines(world, 1)
    starter = WebhookStarter(world.waiting, client, Poll())
    (one,) = await world.waiting.claim(10, LEASE_S)
    await starter._call(one)
    handle = client.get_workflow_handle(t.webhook_workflow_id(ids[0], 1))
    first = await handle.describe()
    await pass_time(world, LEASE_S + 1)
    assert await starter.tell() == 1
    assert (await handle.describe()).run_id == first.run_id
    await database.execute("UPDATE webhook_deliveries SET waits = true, claimed_until = '-infinity'")
    await handle.terminate()
    assert await starter.tell() == 1
    assert (await handle.describe()).run_id == first.run_id
    assert not (await world.one(ids[0]))["waits"]


async def test_a_workflow_that_begins_later_goes_on_with_the_schedule(world: World, client: Client):
    """It is told how many attempts there were, and when the first round began."""
    (ids,) = await lines(world, 1)
    await world.attempt(ids[0], 500, 300.0)
    await world.attempt(ids[0], 500, 300.0)
    await pass_time(world, 301)
    created = (await world.one(ids[0]))["created_at"]
    assert await WebhookStarter(world.waiting, client, Poll(), waits_s=(1.0, 2.0)).tell() == 1
    handle = client.get_workflow_handle(t.webhook_workflow_id(ids[0], 3))
    begun = (await handle.fetch_history()).events[0].workflow_execution_started_event_attributes
    (given,) = await client.data_converter.decode(begun.input.payloads, [t.WebhookDelivery])
    assert given == t.WebhookDelivery(
        ids[0],
        3,
        waits_s=(1.0, 2.0),
        failures=2,
        began=pytest.approx(created.timestamp()),
        is_begun_here=True,
    )
    await handle.terminate()


async def test_one_that_is_to_be_tried_much_later_waits_for_that_here(world: World):
    """It has no place meanwhile, and its workflow's round is over."""
    (ids,) = await lines(world, 1)
    assert await world.begin() == ids
    assert (await world.attempt(ids[0], 500, 300.0)).waits
    row = await world.one(ids[0])
    assert (row["round"], row["waits"], row["attempts"], row["state"]) == (2, True, 1, "pending")
    assert await world.deliveries.begin(ids[0], 1, may_wait=True) == Outcome(None, was_sent=False)
    assert await world.begin() == []
    await pass_time(world, 301)
    assert await world.begin() == ids
    assert (await world.attempt(ids[0], 200)).state is DeliveryState.DELIVERED


async def test_what_failed_while_the_endpoint_is_left_alone_waits_here(world: World):
    """Even when it is to be tried again within seconds; it costs no look in vain."""
    (ids,) = await lines(world, BREAKER_FAILURES + 1)
    assert await world.begin() == ids
    posts = [await world.deliveries.begin(one, 1, may_wait=True) for one in ids]
    outcomes = []
    for post in posts:
        assert isinstance(post, Post)
        outcomes.append(await world.deliveries.end(post, 1, Receipt(500, "no"), 5.0))
    assert [outcome.waits for outcome in outcomes] == [False] * (BREAKER_FAILURES - 1) + [True, True]
    await pass_time(world, 6)
    await world.endpoints.change((await world.one(ids[0]))["endpoint_id"], None, Wanted(is_enabled=True))
    assert await world.begin() == ids[BREAKER_FAILURES - 1 :]


async def test_what_waits_again_is_a_round_of_its_own(world: World):
    """Whoever still carries the old one, or has just put it on record as begun, changes nothing."""
    (ids,) = await lines(world, 2)
    (one, _) = await world.waiting.claim(10, LEASE_S)
    await world.database.execute(
        "INSERT INTO webhook_breakers (endpoint_id, failures, open_until) "
        "SELECT endpoint_id, 5, now() + interval '1 minute' FROM webhook_deliveries LIMIT 1"
    )
    assert (await world.deliveries.begin(one.delivery_id, one.round, may_wait=True)).waits
    await world.waiting.done([one.id])
    assert (await world.one(ids[0]))["waits"]
    assert await world.deliveries.begin(*one.id, may_wait=True) == Outcome(None, was_sent=False)
    await world.endpoints.change((await world.one(ids[0]))["endpoint_id"], None, Wanted(is_enabled=True))
    (again,) = await world.waiting.claim(10, LEASE_S)
    assert again.id == (ids[0], 2)


@pytest.mark.parametrize("change", ["deleted", "disabled", "gone"])
async def test_those_of_an_endpoint_that_is_switched_off_fail_when_their_turn_comes(
    world: World, change: str
):
    """Without Temporal; those of others stay."""
    (ids, others) = await lines(world, 3, 2)
    name = (await world.one(ids[0]))["endpoint_id"]
    assert (await world.attempt(ids[0], 500, 300.0)).waits
    assert await world.waiting.give_up(policies.WEBHOOK_ENDS_S, 10) == 0
    if change == "deleted":
        assert await world.endpoints.delete(name, None)
    elif change == "disabled":
        await world.endpoints.change(name, None, Wanted(is_enabled=False))
    else:
        await world.attempt(ids[1], 410)
    assert await world.begin() == others
    given_up = await world.waiting.give_up(policies.WEBHOOK_ENDS_S, 10)
    assert given_up == (1 if change == "gone" else 2)
    rows = [await world.one(one) for one in ids]
    assert [row["state"] for row in rows] == ["pending", "failed", "failed"]
    assert change == "gone" or change in rows[1]["last_error"]
    await pass_time(world, 301)
    assert await world.waiting.give_up(policies.WEBHOOK_ENDS_S, 1) == 1
    assert [(await world.one(one))["state"] for one in (*ids, *others)] == ["failed"] * 3 + ["pending"] * 2


async def test_who_has_waited_for_the_whole_schedule_has_failed(world: World):
    """Days of an endpoint that is left alone come to an end; sending by hand begins the schedule anew."""
    (ids,) = await lines(world, OF_ONE_MAX + 3)
    await make_ill(world, ids)
    for one in ids[BREAKER_FAILURES:OF_ONE_MAX]:
        assert (await world.attempt(one, 200)).waits
    await pass_time(world, policies.WEBHOOK_ENDS_S - 60)
    assert await world.waiting.give_up(policies.WEBHOOK_ENDS_S, 100) == 0
    name = (await world.one(ids[0]))["endpoint_id"]
    await world.deliveries.again(Request("test", "again", ids[-1], b""), name, ids[-1], lambda _: b"{}")
    await world.database.execute("UPDATE webhook_breakers SET open_until = now() + interval '9 minutes'")
    assert (await world.attempt(ids[-1], 200)).waits
    await pass_time(world, 120)
    assert await world.waiting.give_up(policies.WEBHOOK_ENDS_S, 4) == 4
    while await world.waiting.give_up(policies.WEBHOOK_ENDS_S, 4):
        pass
    assert await world.states() == ["failed"] * (len(ids) - 1) + ["pending"]
    rows = await world.rows()
    assert (rows[0]["last_error"], rows[-2]["last_error"]) == ("answered 500", webhook_waiting.TOO_LATE)


async def test_who_is_late_at_an_endpoint_that_is_well_is_not_given_up(world: World):
    """A receiver may put its attempts off by days; and who comes back has what is due."""
    (ids,) = await lines(world, 2)
    assert (await world.attempt(ids[0], 503, 86_400.0)).waits
    await pass_time(world, policies.WEBHOOK_ENDS_S + 60)
    await world.database.execute(
        "UPDATE webhook_deliveries SET next_at = now() + interval '1 h' WHERE attempts > 0"
    )
    assert await world.waiting.give_up(policies.WEBHOOK_ENDS_S, 10) == 0
    await world.database.execute("UPDATE webhook_breakers SET open_until = now() + interval '1 minute'")
    assert await world.waiting.give_up(policies.WEBHOOK_ENDS_S, 10) == 1
    assert await world.states() == ["pending", "failed"], (
        "whose next attempt is still to come is asked for that"
    )


async def test_a_place_is_not_kept_for_ever(world: World):
    """Whoever Temporal has lost keeps the others waiting for some minutes, not until it is found."""
    (ids,) = await lines(world, OF_ONE_MAX + 2)
    assert await world.begin() == ids[:OF_ONE_MAX]
    await pass_time(world, PLACE_S)
    assert await world.begin() == []
    await pass_time(world, LEASE_S + 1)
    assert await world.begin() == ids[OF_ONE_MAX:]


async def test_the_log_shows_when_those_that_wait_are_due(world: World):
    """Not before their endpoint is tried again."""
    (ids,) = await lines(world, OF_ONE_MAX + 1)
    await make_ill(world, ids)
    name = (await world.one(ids[0]))["endpoint_id"]
    until = datetime.now(UTC) + timedelta(hours=2)
    await world.database.execute("UPDATE webhook_breakers SET open_until = $1", until)
    (newest, *_) = await world.deliveries.page(name, 10**9, 10, state="pending")
    assert (newest.id, newest.next_at, newest.attempts) == (ids[-1], until, 0)


async def test_the_log_shows_in_which_order_those_that_wait_will_be_sent(world: World):
    """Also while their endpoint is left alone, when none is tried before a time that is the same for all."""
    (ids,) = await lines(world, 6)
    name = (await world.one(ids[0]))["endpoint_id"]
    await world.database.execute(
        "UPDATE webhook_deliveries SET next_at = now() - make_interval(secs => number % 3)"
    )
    await world.database.execute(
        "INSERT INTO webhook_breakers (endpoint_id, open_until) VALUES ($1, now() + interval '9 min')", name
    )
    page = await world.deliveries.page(name, 10**9, 10, state="pending")
    assert len({one.next_at for one in page}) == 1
    turns = sorted(page, key=lambda one: (one.due_at, one.number))
    await world.database.execute("UPDATE webhook_breakers SET open_until = NULL")
    assert await world.begin() == [one.id for one in turns] != ids


async def test_how_many_wait_and_how_late_they_are_is_known(world: World):
    """Late is whose endpoint could have it."""
    (ids,) = await lines(world, 3)
    await pass_time(world, 60)
    assert await world.waiting.count() == 3
    assert await world.waiting.late_s() >= 60
    assert await world.begin() == ids
    assert (await world.waiting.count(), await world.waiting.late_s()) == (0, 0)


MANY = 1_000_000
ILL = 200
SECONDS_MAX = 0.5
"""Of PostgreSQL, for one look; a hundredth of that is usual."""


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_a_look_is_cheap_however_many_wait(world: World, database: Database):
    """A million wait for two hundred endpoints that are left alone, and a few for others."""
    (ids, probes) = await lines(world, 3, 2)
    await database.execute(
        "INSERT INTO webhook_endpoints (id, url, description, event_types, secret) "
        "SELECT 'whe_ill' || n, '', '', '{}', '' FROM generate_series(1, $1) n",
        ILL,
    )
    await database.execute(
        "INSERT INTO webhook_breakers (endpoint_id, failures, open_until) "
        "SELECT id, 9, now() + interval '9 minutes' FROM webhook_endpoints WHERE id LIKE 'whe_ill%'"
    )
    batches = 20
    for batch in range(batches):
        await database.execute(
            "INSERT INTO webhook_deliveries (id, endpoint_id, subject, sequence, type, happened_at, waits, "
            "next_at) SELECT 'msg_many' || n, 'whe_ill' || 1 + n % $1, 'ord', n, 'order.accepted.v1', now(), "
            "true, now() - make_interval(secs => n % 10000) "
            "FROM generate_series($2::int, $3::int) n",
            ILL,
            batch * MANY // batches,
            (batch + 1) * MANY // batches - 1,
        )
    async with database.transaction() as connection:
        plan = await connection.fetch(
            "EXPLAIN (ANALYZE, BUFFERS) " + webhook_waiting.SQL["claim"],
            8,
            LEASE_S,
            *world.waiting.limits,
        )
        print("\n".join(row[0] for row in plan))
        used = [row[0] for row in plan if "Execution Time" in row[0]]
        await connection.execute(
            "UPDATE webhook_deliveries SET claimed_until = '-infinity' WHERE waits AND id = ANY ($1)",
            ids + probes,
        )
    assert float(used[0].split()[2]) < SECONDS_MAX * 1000
    assert not [row[0] for row in plan if "Seq Scan on webhook_deliveries" in row[0]]
    assert sorted(await world.begin()) == sorted(ids + probes)
    assert await world.waiting.count() == webhook_waiting.COUNTED_MAX
    assert await world.waiting.late_s() == 0
