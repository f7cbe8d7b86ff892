"""Customers are told of their orders by mail: each thing once, whatever happens to processes and servers."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import pytest
import redis.asyncio
import structlog
from msgspec.structs import replace

from app.consumer import mail_sender as sending
from app.consumer.dispatch import Group, groups
from app.consumer.effect import Delivery, Effect
from app.consumer.mail_sender import MailSender, mail_sender
from app.consumer.patience import for_ever
from app.contracts.documents import rfc3339
from app.infra.postgres.event_outbox import open_outbox
from app.infra.postgres.mails import SQL, PostgresMails
from tests.integration.consumer.orders import Orders
from tests.integration.consumer.processes import Consumer
from tests.integration.consumer.sink import Sink

CANARY = "canary77@mail.example"
FROM = "Shop <orders@shop.example>"


async def nothing(_: object) -> None:
    """Nothing follows."""


@pytest.fixture(autouse=True)
def soon(monkeypatch) -> None:
    """Nobody wakes the senders here."""
    monkeypatch.setattr(sending, "POLL_S", 0.05)


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """A mail server that listens."""
    sink = Sink()
    await sink.start()
    yield sink
    await sink.stop()


@pytest.fixture
def notifications() -> Group:
    """The group as it is where mail is on."""
    return next(group for group in groups(nothing, nothing) if group.name == "notifications")


@pytest.fixture
def told(notifications, store) -> Effect:
    """Its effect."""
    return Effect(notifications, store)


@pytest.fixture
def mails(database) -> PostgresMails:
    """The rows."""
    return PostgresMails(database)


@pytest.fixture
def sender(mails, sink) -> MailSender:
    """What sends them to the sink."""
    made = mail_sender(mails, sink.url, FROM)
    assert made is not None
    return made


@asynccontextmanager
async def running(*senders: MailSender) -> AsyncIterator[None]:
    """Senders at work, as a process has them."""
    tasks = [asyncio.create_task(for_ever("mail_sender", each.run)) for each in senders]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def rows(database) -> dict[str, str]:
    """Kind → state of all mails."""
    found = await database.fetch("SELECT kind, state FROM mails ORDER BY order_id, sequence")
    return {row["kind"]: row["state"] for row in found}


async def until(database, condition: str, *, timeout_s: float = 60) -> None:
    """Wait until a condition holds for all mails."""
    async with asyncio.timeout(timeout_s):
        while not (await database.fetch(f"SELECT bool_and({condition}) FROM mails"))[0][0]:
            await asyncio.sleep(0.01)


async def tell(told: Effect, *orders) -> None:
    """Have the group handle what has happened to some orders."""
    await told.apply([Delivery(order.id, order.version) for order in orders])


async def test_the_customer_is_told_of_each_step_once_and_in_order(
    orders: Orders, told, sender, sink, database
):
    """However often the events come."""
    order = await orders.complete(await orders.accept(2, email="ada@mail.example"))
    for _ in range(3):
        await tell(told, order)
    await database.execute("DELETE FROM marks")
    await tell(told, order)
    async with running(sender):
        await sink.has(4)
        await until(database, "state = 'sent'")
    assert sink.kinds() == ["accepted", "confirmed", "dispatched", "completed"]
    assert set(sink.recipients) == {"ada@mail.example"}
    assert "2 × A disc: 29.34 USD" in sink.mails[0].get_body(("plain",)).get_content()
    assert "track" in sink.mails[2].get_body(("plain",)).get_content()
    assert str(sink.mails[0]["Message-ID"]) == f"<{order.id}.accepted@shop.example>"


async def test_a_rejection_and_a_cancellation_are_told(orders: Orders, told, sender, sink):
    """With the reason, which is read when the mail is sent."""
    await tell(told, await orders.reject(await orders.accept(email="ada@mail.example")))
    async with running(sender):
        said = (await sink.has(2))[1].get_body(("plain",)).get_content()
    assert sink.kinds() == ["accepted", "rejected"]
    assert "not have enough" in said


async def test_an_order_without_an_address_is_told_nothing(orders: Orders, told, database):
    """No row, no mail."""
    await tell(told, await orders.complete(await orders.accept()))
    assert await rows(database) == {}


async def test_what_happened_long_ago_is_told_to_nobody(orders: Orders, told, database, database_url):
    """A group that reads a year of orders for the first time writes to nobody."""
    await database.execute("UPDATE mail_start SET since = now() - interval '1 year'")
    for hours, expected in ((25, {}), (23, {"accepted": "waiting"})):
        order = await orders.accept(email="ada@mail.example")
        time = rfc3339(datetime.now(UTC) - timedelta(hours=hours))
        async with open_outbox(database_url, "/holdfast/test") as outbox:
            event = (await outbox.waiting(10)).events[-1].envelope
        await told.apply([Delivery(order.id, 1, {1: replace(event, time=time)})])
        assert await rows(database) == expected


async def test_what_happened_before_there_was_mail_is_told_to_nobody(orders: Orders, told, database):
    """The day's orders of a store that is brought up to this release are left alone; the next one is told."""
    old = await orders.complete(await orders.accept(email="ada@mail.example"))
    await database.execute("UPDATE mail_start SET since = clock_timestamp()")
    new = await orders.accept(email="ada@mail.example")
    await tell(told, old, new)
    found = await database.fetch("SELECT order_id, kind FROM mails")
    assert [tuple(row) for row in found] == [(new.id, "accepted")]


async def test_without_a_server_no_mail_is_written(orders: Orders, store, database, mails):
    """Nothing piles up that would go out on the day on which somebody sets SMTP_URL."""
    assert mail_sender(mails, None, FROM) is None
    off = next(group for group in groups(nothing) if group.name == "notifications")
    await tell(Effect(off, store), await orders.accept(email="ada@mail.example"))
    assert await rows(database) == {}
    assert (await database.fetch("SELECT count(*) FROM marks"))[0][0] == 1


async def test_a_server_that_is_away_costs_nothing(orders: Orders, told, sender, sink, database):
    """Mails wait without counting attempts, and go when it is back; both is said once."""
    await sink.stop()
    await tell(told, await orders.accept(email="ada@mail.example"))
    with structlog.testing.capture_logs() as said:
        async with running(sender):
            async with asyncio.timeout(60):
                while not any(line["event"] == "waiting" for line in said):
                    await asyncio.sleep(0.01)
            await sink.start()
            await sink.has(1)
            await until(database, "state = 'sent'")
    assert [line["event"] for line in said] == ["waiting", "going_on", "mail_sent"]
    assert (await database.fetch("SELECT attempts FROM mails"))[0][0] == 1


async def test_a_mail_refused_for_good_is_kept_as_failed(orders: Orders, told, sender, sink, database):
    """With what the server said; logs say which mail and the code, and no address."""
    sink.answers["RCPT"] = "550 5.1.1 <{address}>: no such user"
    order = await orders.accept(email=CANARY)
    await tell(told, order)
    with structlog.testing.capture_logs() as said:
        async with running(sender):
            await until(database, "state = 'failed'")
    kept = (await database.fetch("SELECT * FROM mails"))[0]
    assert kept["last_error"] == f"550 5.1.1 <{CANARY}>: no such user"
    (line,) = (line for line in said if line["event"] == "mail_failed")
    assert (line["mail"], line["attempts"], line["code"]) == (f"{order.id}.accepted", 1, 550)
    assert CANARY not in repr(said)
    assert "canary" not in repr(said)


@pytest.mark.parametrize("answer", ["DATA", "RCPT"])
async def test_a_mail_that_is_put_off_comes_later(orders: Orders, told, sender, sink, database, answer):
    """Other orders' mails go on meanwhile."""
    sink.answers[answer] = "451 4.7.1 come back later"
    await tell(told, await orders.accept(email="ada@mail.example"))
    async with running(sender):
        await until(database, "attempts = 1 AND last_error LIKE '451%' AND next_at > now() + interval '20 s'")
        del sink.answers[answer]
        await tell(told, await orders.accept(email="eve@mail.example"))
        await sink.has(1)
        assert sink.recipients == ["eve@mail.example"]
        await database.execute("UPDATE mails SET next_at = now()")
        await sink.has(2)
    assert sink.recipients[1:] == ["ada@mail.example"]


async def test_a_mail_is_given_up_after_days(orders: Orders, told, sender, sink, database):
    """Not tried for ever."""
    sink.answers["DATA"] = "451 4.7.1 never"
    await tell(told, await orders.accept(email="ada@mail.example"))
    await database.execute("UPDATE mails SET attempts = $1", sending.ATTEMPTS_MAX - 1)
    async with running(sender):
        await until(database, "state = 'failed'")
    days = sum(min(sending.FIRST_PAUSE_S * 4**n, sending.LONGEST_PAUSE_S) for n in range(19)) / 86400
    assert 3 < days < 5


async def test_a_server_that_refuses_the_sender_takes_nothing_away(
    orders: Orders, told, sender, sink, database
):
    """That is a setting to be mended, not a mail to be failed."""
    sink.answers["MAIL"] = "553 5.7.1 not yours"
    await tell(told, await orders.accept(email="ada@mail.example"))
    async with running(sender):
        await until(database, "attempts = 1 AND state = 'waiting' AND last_error LIKE '%SenderRefused 553'")


async def test_killed_between_sending_and_writing_it_down_it_is_sent_again(
    orders: Orders, sink, database, database_url, redis_url
):
    """Under the same Message-ID, once the claim has run out; and no log and no Redis key knew the address."""
    consumer = Consumer(database_url, redis_url)
    consumer.environ |= {"SMTP_URL": sink.url, "MAIL_FROM": FROM, "LOG_LEVEL": "debug"}
    sink.going_on.clear()
    try:
        await consumer.start()
        await orders.complete(await orders.accept(email=CANARY))
        async with asyncio.timeout(60):
            await sink.taken.wait()
        await consumer.end(signal.SIGKILL)
        sink.going_on.set()
        await database.execute("UPDATE mails SET next_at = now()")  # the claim runs out
        await consumer.start()
        first, second, *_ = await sink.has(5)
        await until(database, "state = 'sent'")
        await orders.all_caught_up()
        assert await consumer.end() == 0
        said = consumer.log()
    finally:
        await consumer.close()
    assert sink.kinds() == ["accepted", "accepted", "confirmed", "dispatched", "completed"]
    assert first["Message-ID"] == second["Message-ID"]
    assert first["Date"] == second["Date"]
    assert "mail_sent" in said
    assert "canary77" not in said
    assert "canary77" not in await everything_in(redis_url)


async def everything_in(redis_url: str) -> str:
    """All keys of Redis with all that is in them."""
    found = []
    async with redis.asyncio.from_url(redis_url, decode_responses=True) as client:
        async for key in client.scan_iter():
            kind = await client.type(key)
            read = {
                "stream": client.xrange,
                "string": client.get,
                "hash": client.hgetall,
                "set": client.smembers,
            }
            found.append((key, await read[kind](key)))
    assert any("order.completed.v1" in repr(each) for each in found)
    return repr(found)


async def test_a_sender_that_is_stopped_finishes_the_mail_under_way(
    orders: Orders, told, sender, sink, database
):
    """And gives back what it has not tried: a release of the program doubles nothing."""
    await tell(told, *[await orders.accept(email="ada@mail.example") for _ in range(3)])
    sink.going_on.clear()
    work = asyncio.create_task(for_ever("mail_sender", sender.run))
    await sink.taken.wait()
    work.cancel()
    asyncio.get_running_loop().call_later(0.05, sink.going_on.set)
    with suppress(asyncio.CancelledError):
        await work
    found = await database.fetch(
        "SELECT state, attempts, next_at <= now() AS is_due FROM mails ORDER BY state"
    )
    first, *others = (tuple(row) for row in found)
    assert first[:2] == ("sent", 1)
    assert others == [("waiting", 0, True)] * 2


async def test_two_senders_share_the_work(orders: Orders, told, mails, sink, database):
    """Each mail goes once, over few connections."""
    placing = (orders.accept(email=f"c{number}@mail.example") for number in range(70))
    await tell(told, *await asyncio.gather(*placing))
    both = [mail_sender(mails, sink.url, FROM) for _ in range(2)]
    async with running(*both):
        await sink.has(70)
        await until(database, "state = 'sent'")
    assert len(set(sink.recipients)) == len(sink.recipients) == 70
    assert sink.connections <= 4


async def test_two_that_claim_in_one_moment_claim_different_mails(orders: Orders, told, mails, database):
    """What another is just claiming is passed over, and not waited for."""
    await tell(told, *[await orders.accept(email="ada@mail.example") for _ in range(2)])
    async with database.transaction() as connection:
        (row,) = await connection.fetch(SQL["claim"], 1, 60.0)
        async with asyncio.timeout(60):
            claimed = await mails.claim(50, 60)
    assert len(claimed) == 1
    assert claimed[0].order.id != row["id"]
    assert await mails.claim(50, 60) == []


async def test_a_later_mail_of_an_order_never_overtakes(orders: Orders, told, mails):
    """While one of an order's mails waits or is under way, the next is nobody's."""
    await tell(told, await orders.complete(await orders.accept(email="ada@mail.example")))
    first = await mails.claim(50, 60)
    assert [mail.kind for mail in first] == ["accepted"]
    assert await mails.claim(50, 60) == []
    assert not await mails.is_due()
    await mails.sent(first[0])
    assert [mail.kind for mail in await mails.claim(50, 60)] == ["confirmed"]


async def test_whoever_lost_its_claim_changes_nothing(orders: Orders, told, mails, database):
    """One that stood still and comes back puts nothing off that another has tried since."""
    await tell(told, await orders.accept(email="ada@mail.example"))
    (lost,) = await mails.claim(50, 60)
    await database.execute("UPDATE mails SET next_at = now()")
    (held,) = await mails.claim(50, 60)
    await mails.failed(lost, "late")
    await mails.later(lost, 3600, "late")
    await mails.give_back([lost])
    assert (await database.fetch("SELECT attempts, state, last_error FROM mails"))[0] == (2, "waiting", None)
    await mails.sent(held)
    assert await rows(database) == {"accepted": "sent"}


async def test_the_address_is_in_the_order_and_nowhere_else(orders: Orders, told, sender, sink, database):
    """Not in events, marks, mails or any other table."""
    await tell(told, await orders.complete(await orders.accept(email=CANARY)))
    async with running(sender):
        await sink.has(4)
        await until(database, "state = 'sent'")
    tables = await database.fetch(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    holding = []
    for (table,) in tables:
        found = await database.fetch(f"SELECT count(*) FROM {table} t WHERE t::text LIKE '%canary77%'")
        if found[0][0]:
            holding.append(table)
    assert holding == ["orders"]


async def test_what_was_dealt_with_long_ago_is_forgotten(orders: Orders, told, mails, database):
    """After three months; what waits never is."""
    await tell(told, *[await orders.accept(email="ada@mail.example") for _ in range(2)])
    assert await mails.oldest_s() > 0
    (first, _) = await mails.claim(50, 60)
    await mails.sent(first)
    assert await mails.forget(10) == 0
    await database.execute("UPDATE mails SET ended_at = now() - interval '91 days' WHERE state = 'sent'")
    await database.execute("UPDATE mails SET created_at = now() - interval '91 days'")
    assert await mails.forget(10) == 1
    assert len(await rows(database)) == 1


async def test_events_hold_no_address(orders: Orders, database):
    """The one that says what was ordered does not say by whom to be told."""
    await orders.accept(email=CANARY)
    events = await database.fetch("SELECT data FROM events")
    assert all("email" not in json.loads(row["data"]) for row in events)
