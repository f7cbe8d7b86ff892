"""Projections are rebuilt beside the live ones: what is shown is what is applied, or nothing is."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from app.domain.errors import Refused, Unavailable
from app.infra.postgres import dead_letters
from app.infra.postgres.replays import Asked, ask_to_apply, cancel
from app.replay.here import carried_here
from app.replay.projection import Rebuild
from tests.integration.replay.past import LIVE, Past

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


@pytest.mark.parametrize("handler", LIVE)
async def test_what_is_right_stays_and_what_was_lost_is_built_again(past: Past, handler):
    """Projections equal a rebuild from zero, by row and by hash; one that was emptied is as it was."""
    await past.happens(8)
    await past.consume()
    right = await past.live(handler)
    replay = await past.run(handler)
    assert (replay.state, replay.changes) == ("shown", 0)
    assert replay.summary["live_hash"] == replay.summary["rebuilt_hash"]
    assert replay.summary["rows"] == replay.summary["rebuilt_rows"] == len(right)
    assert replay.done == replay.total > 10
    await past.database.execute(f"DELETE FROM {LIVE[handler].table}")
    replay = await past.run(handler, is_applied=True)
    assert replay.state == "applied"
    assert replay.changes == replay.applied == len(right)
    assert await past.live(handler) == right
    again = await past.run(handler)
    assert again.summary["live_hash"] == again.summary["rebuilt_hash"] == replay.summary["rebuilt_hash"]


async def test_a_rebuild_can_be_asked_for_and_looked_at_in_one_call(past: Past):
    """What tests and checks hold a projection against."""
    await past.happens(2)
    await past.consume()
    replay = await carried_here(past.database, Asked("customer_summary"))
    assert (replay.state, replay.changes) == ("shown", 0)
    assert replay.summary["live_hash"] == replay.summary["rebuilt_hash"]


async def test_showing_changes_nothing(past: Past):
    """Without apply the live rows stay as wrong as they are; what is wrong is on record."""
    await past.happens(4)
    await past.consume()
    await past.database.execute("UPDATE daily_summary SET captured = captured + 5, accepted = 1")
    wrong = await past.live("daily_summary")
    replay = await past.run("daily_summary")
    assert await past.live("daily_summary") == wrong
    (change,) = await past.changes(replay.id)
    assert change.key == {"day": str(TODAY.date()), "currency": "USD"}
    assert change.difference == {"captured": -5, "accepted": 3}
    assert replay.summary["sums"] == {"USD": {"captured": -5, "accepted": 3}}


async def test_what_is_shown_is_applied_later_exactly(past: Past):
    """Applying a plan makes the rows what was shown, and a second look finds nothing."""
    await past.happens(4)
    await past.consume()
    right = await past.live("daily_summary")
    await past.database.execute("UPDATE daily_summary SET captured = 0, items = 1000")
    await past.database.execute("INSERT INTO daily_summary (day, currency) VALUES ('2020-02-02', 'EUR')")
    shown = await past.run("daily_summary")
    changes = await past.changes(shown.id)
    assert [change.after is None for change in changes] == [True, False]
    assert (await past.apply(shown.id)).state == "applied"
    assert await past.live("daily_summary") == right
    assert await past.changes(shown.id) == changes
    assert (await past.run("daily_summary")).changes == 0
    assert not await past.shadows()


async def test_it_refuses_when_somebody_else_changed_a_row(past: Past):
    """A row that is wrong in another way than was shown: nothing is changed, and it says where."""
    await past.happens(4)
    await past.consume()
    await past.database.execute("UPDATE daily_summary SET captured = 0")
    shown = await past.run("daily_summary")
    await past.database.execute("UPDATE daily_summary SET captured = 1")
    moved = await past.live("daily_summary")
    replay = await past.apply(shown.id)
    assert replay.state == "refused"
    assert str(TODAY.date()) in (replay.error or "")
    assert (await past.live("daily_summary"), replay.applied) == (moved, 0)
    assert not await past.shadows()


async def test_it_refuses_when_the_same_was_applied_before(past: Past):
    """Two plans for the same mistake: the second would do it twice."""
    await past.happens(4)
    await past.consume()
    await past.database.execute("UPDATE daily_summary SET captured = 0")
    first, second = await past.run("daily_summary"), await past.run("daily_summary")
    assert (await past.apply(first.id)).state == "applied"
    right = await past.live("daily_summary")
    assert (await past.apply(second.id)).state == "refused"
    assert await past.live("daily_summary") == right


async def test_consumers_go_on_meanwhile_and_nothing_is_lost_or_doubled(past: Past):
    """Orders come and are consumed between all transactions of three replays; what was wrong is mended."""
    await past.happens(6)
    await past.consume()
    await past.database.execute("UPDATE daily_summary SET captured = captured + 7")
    await past.database.execute("UPDATE analytics_minutes SET value = value + 7 WHERE measure = 'revenue'")
    await past.database.execute("UPDATE customer_summary SET captured = captured + 7")
    going = [await past.ask(handler, is_applied=True) for handler in LIVE]
    ended = []
    while going:
        await past.happens(1)
        await past.consume()
        for replay in list(going):
            if await past.step(replay) in {"applied", "refused", "failed"}:
                going.remove(replay)
                ended.append(await past.one(replay))
    await past.happens(1)
    await past.consume()
    for replay in ended:
        assert replay.state == "applied", replay
        sums = replay.summary["sums"].values()
        assert sum(value for columns in sums for value in columns.values()) % 7 == 0
        assert (await past.run(replay.handler)).changes == 0
    assert await past.orders.summary() == await past.orders.expected()


async def test_consumers_that_write_at_the_same_time_are_waited_for(past: Past):
    """Effects and the swap run into one another, many times: all of it is counted, once."""
    await past.happens(4)
    await past.consume()

    async def consuming() -> None:
        for _ in range(6):
            await past.happens(2)
            await past.consume()

    writing = asyncio.create_task(consuming())
    while not writing.done():
        await past.database.execute("UPDATE daily_summary SET items = items + 1")
        replay = await past.run("daily_summary", is_applied=True)
        assert replay.state == "applied", replay
    await writing
    assert (await past.run("daily_summary")).changes == 0
    assert await past.orders.summary() == await past.orders.expected()


async def test_events_that_are_not_consumed_yet_are_not_counted(past: Past):
    """The rebuilt rows hold what the live ones should hold now, not what they will hold."""
    await past.happens(6)
    await past.consume(subjects_max=3)
    assert (await past.run("daily_summary")).changes == 0
    await past.consume(events_max=5)
    assert (await past.run("daily_summary")).changes == 0
    await past.consume()
    assert (await past.run("daily_summary")).changes == 0


async def test_a_discarded_event_stays_left_out(past: Past):
    """Somebody decided that it has no effect in its group."""
    order = await past.orders.accept()
    await past.consume()
    wrong = dead_letters.FAILED
    await past.database.execute(
        "INSERT INTO dead_letters (consumer_group, subject, sequence, type, kind, state, error, stack) "
        "VALUES ('projections', $1, 1, 'order.accepted.v1', $2, 'discarded', '', '')",
        order.id,
        wrong,
    )
    (change,) = await past.changes((await past.run("daily_summary")).id)
    assert change.after is None


async def test_days_that_were_not_asked_for_are_left_alone(past: Past):
    """With from and to, rows of other times are neither looked at nor touched."""
    await past.happens(4)
    await past.consume()
    await past.database.execute("UPDATE daily_summary SET captured = 0")
    await past.database.execute("INSERT INTO daily_summary (day, currency) VALUES ('2020-02-02', 'EUR')")
    before = await past.run("daily_summary", until=TODAY, is_applied=True)
    assert (before.state, before.changes) == ("applied", 1)
    today = await past.run("daily_summary", since=TODAY, until=TODAY + timedelta(days=1))
    assert (today.changes, today.summary["rows"], today.done) == (1, 1, today.total)


async def test_two_of_one_handler_are_not_applied_at_once(past: Past):
    """The second is told to wait."""
    await past.happens(2)
    await past.consume()
    await past.database.execute("UPDATE daily_summary SET captured = 0")
    first, second = await past.run("daily_summary"), await past.ask("daily_summary", is_applied=True)
    shown = await past.run("daily_summary")
    async with past.database.transaction() as connection:
        await ask_to_apply(connection, first.id)
    with pytest.raises(Refused, match="being applied"):
        await past.apply(shown.id)
    with pytest.raises(Unavailable, match="being applied"):
        await past.carry(second)
    assert (await past.carry(first.id)).state == "applied"
    assert (await past.carry(second)).state == "applied"


async def cancelled(past: Past, replay: str) -> None:
    """Somebody stops it."""
    async with past.database.transaction() as connection:
        await cancel(connection, replay)


async def test_one_that_is_looked_at_again_is_stopped_before_it_changes_anything(past: Past, monkeypatch):
    """In the middle of the look, and behind it: the rows stay, the shadow goes, another may be applied."""
    await past.happens(6)
    await past.consume()
    await past.database.execute("UPDATE analytics_minutes SET value = value + 1")
    wrong = await past.live("analytics")
    monkeypatch.setattr(Rebuild, "changes_at_once", 2)
    for state in ("checking", "applying"):
        replay = await past.ask("analytics", is_applied=True)
        await past.until(replay, state)
        if state == "checking":
            await past.step(replay)
            assert 0 < (await past.one(replay)).checked < (await past.one(replay)).changes
        await cancelled(past, replay)
        stopped = await past.carry(replay)
        assert (stopped.state, stopped.applied) == ("cancelled", 0)
        assert await past.live("analytics") == wrong
        assert not await past.shadows()
    assert (await past.run("analytics", is_applied=True)).state == "applied"


async def test_one_that_has_changed_something_goes_on(past: Past, monkeypatch):
    """Half of it would be neither what was nor what was shown."""
    await past.happens(6)
    await past.consume()
    await past.database.execute("UPDATE analytics_minutes SET value = value + 1")
    monkeypatch.setattr(Rebuild, "changes_at_once", 2)
    replay = await past.ask("analytics", is_applied=True)
    await past.until(replay, "applying")
    await past.step(replay)
    with pytest.raises(Refused, match="has changed 2 of"):
        await cancelled(past, replay)
    assert (await past.carry(replay)).state == "applied"


async def test_many_rows_are_applied_some_at_a_time(past: Past, monkeypatch):
    """All are looked at before the first is changed; each is changed once."""
    await past.happens(6)
    await past.consume()
    right = await past.live("analytics")
    await past.database.execute("UPDATE analytics_minutes SET value = value + 1")
    monkeypatch.setattr(Rebuild, "changes_at_once", 2)
    shown = await past.run("analytics")
    assert shown.changes == len(right) > 4
    await past.database.execute("UPDATE analytics_minutes SET value = value + 1 WHERE key = 'USD'")
    refused = await past.apply(shown.id)
    assert (refused.state, refused.applied) == ("refused", 0)
    assert (await past.run("analytics", is_applied=True)).state == "applied"
    assert await past.live("analytics") == right


async def test_a_refusal_in_the_middle_says_how_much_was_applied(past: Past, monkeypatch):
    """Somebody writes to the table between two transactions: what is done stays, and is said."""
    await past.happens(6)
    await past.consume()
    await past.database.execute("UPDATE analytics_minutes SET value = value + 1")
    monkeypatch.setattr(Rebuild, "changes_at_once", 2)
    replay = await past.ask("analytics", is_applied=True)
    await past.until(replay, "applying")
    await past.step(replay)
    await past.database.execute("UPDATE analytics_minutes SET value = value + 1")
    ended = await past.carry(replay)
    assert (ended.state, ended.applied) == ("refused", 2)
    assert f"2 of {ended.changes} changes had been applied before." in (ended.error or "")


async def test_an_error_of_the_database_that_will_not_pass_ends_the_replay(past: Past):
    """A row that its table refuses is no outage."""
    await past.happens(2)
    await past.consume()
    await past.database.execute("ALTER TABLE daily_summary ADD CHECK (captured = 0) NOT VALID")
    await past.database.execute("UPDATE daily_summary SET captured = 0")
    replay = await past.run("daily_summary", is_applied=True)
    assert (replay.state, replay.applied) == ("failed", 0)
    assert "CheckViolation" in (replay.error or "")
