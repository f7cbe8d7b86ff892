"""`holdfast mails`: what an operator sees of the mails, and says about those that failed."""

import asyncio
import json

import pytest

from app.__main__ import COMMANDS, _load
from app.infra.postgres.mails import PostgresMails


@pytest.fixture
def command(database_url, monkeypatch, capsys):
    """Runs the command; its exit code and what it printed."""
    monkeypatch.setenv("DATABASE_URL", database_url)

    async def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        try:
            code = await asyncio.to_thread(_load(COMMANDS["mails"][0]), list(arguments))
        except SystemExit as left:
            code = left.code
        return code, capsys.readouterr().out

    return run


async def test_mails_are_listed_and_failed_ones_sent_after_all(command, orders, database):
    """By id or all; what was sent or waits is left as it is."""
    assert await command("list") == (0, "there are no such mails\n")
    mails = PostgresMails(database)
    names = [(await orders.accept(email="ada@mail.example")).id for _ in range(3)]
    for name in names:
        await database.execute(
            "INSERT INTO mails (order_id, kind, sequence) VALUES ($1, 'accepted', 1)", name
        )
    one, two, three = sorted(await mails.claim(3, 60), key=lambda mail: mail.order.id)
    await mails.failed(one, "550 5.7.1 relay\0 access denied")
    await mails.failed(two, "550 5.7.1 relay access denied")
    await mails.sent(three)

    code, shown = await command("list", "--state", "failed", "--json")
    assert code == 0
    assert {mail["id"]: mail["last_error"] for mail in json.loads(shown)} == dict.fromkeys(
        (one.id, two.id), "550 5.7.1 relay access denied"
    )
    shown = (await command("list", "--order", three.order.id))[1]
    assert shown.split()[:2] == [three.id, "sent"]
    assert "attempts=1" in shown

    assert await command("retry", one.id) == (0, "1 will be sent again\n")
    assert await command("retry", one.id, three.id, "--json") == (
        1, json.dumps({"retried": [], "not_failed": [one.id, three.id]}, indent=2) + "\n",
    )  # fmt: skip
    assert await command("retry", "--all") == (0, "1 will be sent again\n")
    assert sorted(mail.id for mail in await mails.claim(3, 60)) == [one.id, two.id]


@pytest.mark.parametrize(
    "arguments",
    [(), ("retry",), ("retry", "x", "--all"), ("list", "--state", "lost"), ("list", "--limit", "0")],
)
async def test_wrong_usage_is_64(command, arguments):
    """Never everything by mistake."""
    assert (await command(*arguments))[0] == 64


async def test_a_database_that_is_away_is_69(command, monkeypatch):
    """As every command says it."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    assert (await command("list"))[0] == 69
