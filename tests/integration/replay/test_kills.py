"""Killed at every phase, a replay goes on where it was, and what it does it does once."""

import asyncio

import pytest

from app.domain.errors import Refused
from app.infra.postgres import replays
from app.replay.engine import Engine
from app.replay.projection import Rebuild
from tests.integration.replay.past import Past


class Killed(BaseException):
    """The process is no more: nothing catches it, and the transaction under way is never committed."""


def dies_at(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> list[str]:
    """Have a function kill the process four times: before and after it has done its work, in turns."""
    does = getattr(owner, name)
    died: list[str] = []

    async def doomed(*arguments, **named):
        if len(died) in {0, 2}:
            died.append("before")
            raise Killed
        answer = await does(*arguments, **named)
        if len(died) in {1, 3}:
            died.append("after")
            raise Killed
        return answer

    monkeypatch.setattr(owner, name, doomed)
    return died


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Rebuild, "prepare"),
        (Rebuild, "read"),
        (Rebuild, "compare"),
        (Rebuild, "apply"),
        (Rebuild, "forget"),
        (replays, "save"),
        (Engine, "_step"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
async def test_a_kill_in_every_phase_changes_nothing(past: Past, monkeypatch, owner, name):
    """Before and after each piece of work, before and after each commit; then it is carried on by another."""
    await past.happens(4)
    await past.consume()
    right = await past.live("analytics")
    await past.database.execute("UPDATE analytics_minutes SET value = value + 3")
    died = dies_at(monkeypatch, owner, name)
    replay = await past.ask("analytics", is_applied=True)
    async with asyncio.timeout(60):
        while not (await past.one(replay)).has_ended:
            try:
                await past.engine.carry(replay, seconds=60)
            except Killed:
                past.engine = Engine(past.database, past.handlers, batch_events=20)
    ended = await past.one(replay)
    assert (len(died), ended.state, ended.applied) == (4, "applied", ended.changes)
    assert await past.live("analytics") == right
    assert ended.done == ended.total
    assert not await past.shadows()


async def test_two_that_carry_the_same_replay_do_each_piece_once(past: Past):
    """One was thought dead and is not: the replay's row is locked, and each goes on from what it says."""
    await past.happens(6)
    await past.consume()
    right = await past.live("daily_summary")
    await past.database.execute("UPDATE daily_summary SET captured = 0")
    replay = await past.ask("daily_summary", is_applied=True)
    await asyncio.gather(*(past.engine.carry(replay, seconds=30) for _ in range(3)))
    ended = await past.one(replay)
    assert (ended.state, ended.done) == ("applied", ended.total)
    assert await past.live("daily_summary") == right


async def test_a_handler_that_breaks_ends_the_replay_and_says_why(past: Past, monkeypatch):
    """It is no outage: trying for ever would help nobody."""
    await past.happens(2)
    await past.consume()

    async def broken(*_):
        raise ZeroDivisionError("no such thing")

    monkeypatch.setattr(Rebuild, "compare", broken)
    replay = await past.run("daily_summary")
    assert (replay.state, replay.error) == ("failed", "ZeroDivisionError: no such thing")
    assert not await past.shadows()


async def test_a_rate_is_kept(past: Past):
    """So many events a second, and not more."""
    await past.happens(8)
    await past.consume()
    loop = asyncio.get_running_loop()
    began = loop.time()
    replay = await past.run("analytics", rate_per_s=40)
    assert replay.done == replay.total >= 20
    assert loop.time() - began >= replay.done / 40 * 0.9


async def test_what_was_shown_long_ago_cannot_be_applied(past: Past):
    """Its shadow is cleared away by the next replay."""
    await past.happens(2)
    await past.consume()
    await past.database.execute("UPDATE daily_summary SET captured = 0")
    shown = await past.run("daily_summary")
    assert await past.shadows() == 1
    await past.database.execute("UPDATE replays SET finished_at = now() - interval '2 days'")
    await past.run("analytics")
    assert not await past.shadows()
    with pytest.raises(Refused, match="too long ago"):
        await past.apply(shown.id)
