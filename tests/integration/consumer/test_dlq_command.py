"""`holdfast dlq`: what an operator sees of the dead letters, and says about them."""

import asyncio
import json

import pytest

from app.__main__ import COMMANDS, _load
from app.consumer.dead_letters import failure_of
from app.infra.postgres.dead_letters import DeadLetters


@pytest.fixture
def dlq(database_url, monkeypatch, capsys):
    """Runs the command; its exit code and what it printed."""
    monkeypatch.setenv("DATABASE_URL", database_url)

    async def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        try:
            code = await asyncio.to_thread(_load(COMMANDS["dlq"][0]), list(arguments))
        except SystemExit as left:
            code = left.code
        return code, capsys.readouterr().out

    return run


async def test_letters_are_listed_shown_retried_and_discarded(dlq, orders, database):
    """By id, by group, by type, or all; only what waits can be decided about."""
    letters = DeadLetters(database)
    subjects = [(await orders.accept()).id for _ in range(3)]
    for subject in subjects:
        failure = failure_of(RuntimeError("no such\0 column"), 6)
        assert await letters.add("projections", subject, failure)
        assert not await letters.add("projections", subject, failure), "it is held already"
    await letters.add("analytics", subjects[0], failure_of(ValueError("x" * 5000), 1))

    code, shown = await dlq("list", "--json")
    listed = json.loads(shown)
    assert code == 0
    assert [letter["state"] for letter in listed] == ["open"] * 3 + ["retrying"]
    one, two, three, four = (letter["id"] for letter in listed)
    assert (await dlq("list", "--group", "analytics"))[1].startswith(f"{four}  retrying")
    assert (await dlq("list", "--type", "price.changed.v1"))[1] == "no dead letter waits\n"

    code, shown = await dlq("show", one)
    assert code == 0
    assert f"event     {subjects[0]}:1  order.accepted.v1" in shown
    assert "no such column" in shown
    assert (await dlq("show", "999"))[0] == 1

    assert await dlq("retry", one, "--json") == (
        0, json.dumps({"retried": [one], "not_waiting": []}, indent=2) + "\n",
    )  # fmt: skip
    assert (await dlq("discard", two))[0] == 0
    assert (await dlq("retry", two))[0] == 1, "it is to be left out"
    assert await dlq("retry", "--type", "order.accepted.v1", "--group", "projections") == (
        0, "2 will be retried\n",
    )  # fmt: skip
    assert await dlq("retry", "--subject", subjects[0], "--kind", "failed", "--since", "2026-01-01") == (
        0, "2 will be retried\n",
    )  # fmt: skip
    assert (await dlq("discard", "--until", "2026-01-01T00:00Z"))[1] == "0 will be discarded\n"
    assert (await dlq("list", "--subject", subjects[1]))[1].startswith(f"{two}  discarding")
    states = {letter["id"]: letter["state"] for letter in json.loads((await dlq("list", "--json"))[1])}
    assert states == {one: "retrying", two: "discarding", three: "retrying", four: "retrying"}


async def test_all_are_decided_a_bounded_number_at_a_time(dlq, orders, database, monkeypatch):
    """However many there are; again is nothing new."""
    for name in ("dead_letters", "dead_letter_commands"):
        monkeypatch.setattr(f"app.infra.postgres.{name}.DECIDED_MAX", 2)
    for _ in range(5):
        order = await orders.accept()
        await DeadLetters(database).add("projections", order.id, failure_of(RuntimeError(), 6))
    for _ in range(2):
        assert await dlq("retry", "--all") == (0, "5 will be retried\n")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("retry",),
        ("discard",),
        ("retry", "1", "--all"),
        ("show", "x"),
        ("list", "1"),
        ("retry", "--since", "noon"),
        ("retry", "--since", "0001-01-01T00:00:00+14:00"),
    ],
)
async def test_wrong_usage_is_64(dlq, arguments):
    """Never everything by mistake."""
    assert (await dlq(*arguments))[0] in {64, 2}


async def test_a_database_that_is_away_is_69(dlq, monkeypatch):
    """As every command says it."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    assert (await dlq("list"))[0] == 69
