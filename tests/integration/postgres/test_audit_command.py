"""`holdfast audit verify` finds whatever somebody with all rights has done to the past, and says where."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from app.domain.chain import LinkedEvent, chain
from app.domain.events import PriceChanged
from app.domain.money import Money
from app.infra.postgres import chain_audit
from app.infra.postgres.pool import Connection, Database
from tests.integration.postgres.past import DAYS, INSERT, at, places, prices, sealed, store, verified
from tests.integration.postgres.shop import Shop

ROOT = Path(__file__).parents[3]
SKUS = ("bowl", "cup", "dish")
DAY_OF_SECOND = ("unlike-its-seal", DAYS[0], None)
SEALED = [at(DAYS[0]), at(DAYS[0], 13), at(DAYS[1]), at(DAYS[2])]


@pytest.fixture
async def told(database: Database, other: Connection) -> dict[str, list[LinkedEvent]]:
    """Three chains of four events over three days, sealed; the connection may do what it likes to them."""
    chains = {sku: prices(sku, 100 * number, SEALED) for number, sku in enumerate(SKUS, 1)}
    for events in chains.values():
        await store(other, events)
    await sealed(database)
    assert (await verified(other)).is_whole
    await other.execute("SET session_replication_role = replica")  # no trigger, no foreign key
    return chains


async def mended(connection: Connection, chains: dict[str, list[LinkedEvent]]) -> None:
    """The past as it was."""
    await connection.execute("DELETE FROM events")
    for events in chains.values():
        await store(connection, events)


def command(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`holdfast audit` as a process."""
    return subprocess.run(
        [sys.executable, "-m", "app", "audit", *arguments],
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), "DATABASE_URL": url},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_what_a_shop_has_written_is_whole(shop: Shop, other: Connection):
    """Orders through their steps, prices, adjustments, read in batches that cut chains anywhere."""
    await shop.stock("cup", east=9)
    orders = [await shop.confirmed(("cup", 1)) for _ in range(3)]
    await shop.accept(("cup", 2))
    verdict = await verified(other)
    assert verdict.is_whole
    assert verdict.events == sum(order.version for order in orders) + 1 + 2
    assert verdict.subjects == 3 + 1 + 1


async def test_however_the_batches_cut_the_chains(told, other: Connection, monkeypatch: pytest.MonkeyPatch):
    """A break at the border of two batches is found as in the middle of one."""
    for is_whole in (True, False):
        for batch in (1, 2, 3, 4, 5, 11, 12, 13):
            monkeypatch.setattr(chain_audit, "BATCH_EVENTS_MAX", batch)
            monkeypatch.setattr(chain_audit, "PAGE_HEADS_MAX", batch)
            verdict = await verified(other)
            assert (verdict.events, verdict.subjects) == (12 if is_whole else 11, 3)
            assert places(verdict.found) == (set() if is_whole else {("missing", "cup", 3), DAY_OF_SECOND})
            narrowed = await verified(other, DAYS[0], DAYS[0])
            assert places(narrowed.found) == places(verdict.found)
        await other.execute("DELETE FROM events WHERE subject = 'cup' AND sequence = 2")


async def test_what_is_written_meanwhile_is_no_break(
    shop: Shop, other: Connection, monkeypatch: pytest.MonkeyPatch
):
    """Orders come and go on while the audit reads, a few events at a time."""
    monkeypatch.setattr(chain_audit, "BATCH_EVENTS_MAX", 3)
    monkeypatch.setattr(chain_audit, "PAGE_HEADS_MAX", 3)
    await shop.stock("cup", east=100)
    writing = asyncio.gather(*(shop.confirmed(("cup", 1)) for _ in range(40)))
    seen = set()
    while not writing.done():
        verdict = await verified(other)
        assert places(verdict.found) == set()
        seen.add(verdict.events)
    assert len(await writing) == 40
    assert len(seen) > 1


CHANGES = (
    "type = 'price.changed.v2'",
    "time = time + interval '1 microsecond'",
    "correlation_id = 'cor_2'",
    "traceparent = '00-1'",
    """data = '{"type":"price.changed.v1","before":null,"after":{"amount":1,"currency":"USD"}}'""",
    "data = replace(data::text, ':', ': ')::json",
    "hash = sha256('x')",
)


async def test_an_event_that_was_changed_is_found(told, other: Connection):
    """Whatever of it was changed."""
    for change in CHANGES:
        await other.execute(f"UPDATE events SET {change} WHERE subject = 'cup' AND sequence = 2")
        verdict = await verified(other)
        assert ("changed", "cup", 2) in places(verdict.found), change
        assert {x.subject for x in verdict.found} <= {"cup", None}
        await mended(other, told)
        assert (await verified(other)).is_whole


async def test_an_event_that_was_deleted_is_found(told, other: Connection):
    """The first, one in the middle, the last one: that one by its product, which has come further."""
    for gone in told["cup"]:
        await other.execute("DELETE FROM events WHERE subject = 'cup' AND sequence = $1", gone.sequence)
        place = ("ended", "cup", 3) if gone.sequence == 4 else ("missing", "cup", gone.sequence + 1)
        assert places((await verified(other)).found) == {place, ("unlike-its-seal", gone.time.date(), None)}
        await mended(other, told)


async def test_a_whole_chain_that_was_deleted_is_found(told, other: Connection):
    """Its product is still there; and when that is gone too, the seals are."""
    await other.execute("DELETE FROM events WHERE subject = 'cup'")
    days = {("unlike-its-seal", day, None) for day in DAYS[:3]}
    assert places((await verified(other)).found) == {("missing", "cup", None), *days}
    await other.execute("DELETE FROM products WHERE sku = 'cup'")
    assert places((await verified(other)).found) == days


async def test_a_whole_chain_that_was_invented_is_found(told, other: Connection):
    """It belongs to no order and to no product."""
    await store(other, prices("mug", 1, [at(DAYS[0])]), head=False)
    assert places((await verified(other)).found) == {
        ("unowned", "mug", 1),
        ("unsealed", "mug", 1),
        ("unlike-its-seal", DAYS[0], None),
    }


async def test_an_event_that_was_inserted_is_found(told, other: Connection):
    """With a place made for it, it follows what is before it; what is behind does not follow it."""
    await other.execute("UPDATE events SET sequence = sequence + 10 WHERE subject = 'cup' AND sequence > 2")
    await other.execute("UPDATE events SET sequence = sequence - 9 WHERE subject = 'cup' AND sequence > 10")
    event = PriceChanged(None, Money(1, "USD"))
    (invented,) = chain(told["cup"][1].hash, "cup", 2, (event,), at(DAYS[1]), "cor_1", None)
    await other.executemany(INSERT, [msgspec.structs.astuple(invented)])
    found = places((await verified(other)).found)
    assert {
        ("unlinked", "cup", 4),
        ("changed", "cup", 4),
        ("changed", "cup", 5),
        ("ended", "cup", 5),
    } <= found
    assert {subject for kind, subject, _ in found if kind != "unlike-its-seal"} == {"cup"}


async def test_two_events_that_were_exchanged_are_found(told, other: Connection):
    """Each where it does not belong."""
    for change in ("sequence + 10", "15 - sequence"):
        await other.execute(
            f"UPDATE events SET sequence = {change} WHERE subject = 'cup' AND sequence IN (2, 3, 12, 13)"
        )
    found = places((await verified(other)).found)
    assert {("changed", "cup", 2), ("changed", "cup", 3)} <= found


async def test_a_chain_that_was_written_anew_from_one_event_on_is_found_by_the_seals(told, other: Connection):
    """All its hashes are right, its product's too; only what was sealed is another."""
    anew = prices("cup", 700, SEALED[2:], told["cup"][1])
    await other.execute("DELETE FROM events WHERE subject = 'cup' AND sequence > 2")
    await store(other, anew)
    verdict = await verified(other)
    assert places(verdict.found) == {
        ("unlike-its-seal", DAYS[1], None),
        ("unsealed", "cup", 3),
        ("unlike-its-seal", DAYS[2], None),
        ("unsealed", "cup", 4),
    }
    narrowed = await verified(other, DAYS[2], DAYS[3])
    assert places(narrowed.found) == {("unlike-its-seal", DAYS[2], None), ("unsealed", "cup", 4)}


SEALS = {
    "root = sha256('x')": {("seal-changed", DAYS[1]), ("unlike-its-seal", DAYS[1])},
    "events = 1": {("seal-changed", DAYS[1]), ("unlike-its-seal", DAYS[1])},
    "sealed_at = now()": {("seal-changed", DAYS[1])},
    "first_event = 'x:1'": {("seal-changed", DAYS[1])},
    "previous_seal = hash": {("seal-changed", DAYS[1]), ("seal-unlinked", DAYS[1])},
    "hash = sha256('x')": {("seal-changed", DAYS[1]), ("seal-unlinked", DAYS[2])},
}


async def test_a_seal_that_was_changed_is_found(told, other: Connection):
    """Whatever of it was changed."""
    await other.execute("CREATE TABLE kept AS SELECT * FROM seals")
    for change, found in SEALS.items():
        await other.execute(f"UPDATE seals SET {change} WHERE day = $1", DAYS[1])
        assert {(x.kind, x.day) for x in (await verified(other)).found} == found, change
        await other.execute("DELETE FROM seals; INSERT INTO seals SELECT * FROM kept")
    assert (await verified(other)).is_whole


async def test_seals_that_were_deleted_are_found(told, other: Connection):
    """In the middle by their days, at the beginning by what follows."""
    await other.execute("DELETE FROM seals WHERE day = $1", DAYS[1])
    assert places((await verified(other)).found) == {("seal-missing", DAYS[1], None)}
    await other.execute("DELETE FROM seals WHERE day = $1", DAYS[0])
    assert places((await verified(other)).found) == {("seal-missing", DAYS[2], None)}


async def test_seals_that_were_made_anew_are_found_by_whoever_kept_one(
    told, database: Database, other: Connection
):
    """The newest seals deleted, the past written anew, and sealed again: inside the database all is well."""
    newest = await other.fetchrow("SELECT day, hash FROM seals ORDER BY day DESC LIMIT 1")
    known = [tuple(newest)]
    assert (await verified(other, known=known)).is_whole
    await other.execute("DELETE FROM events WHERE subject = 'cup' AND sequence > 2")
    await store(other, prices("cup", 700, SEALED[2:], told["cup"][1]))
    await other.execute("DELETE FROM seal_leaves; DELETE FROM seals")
    verdict = await verified(other, known=known)
    assert places(verdict.found) == {("seal-missing", newest["day"], None)}
    assert verdict.overdue_days == (newest["day"] - DAYS[0]).days + 1
    await sealed(database)
    verdict = await verified(other)
    assert (verdict.is_whole, verdict.overdue_days) == (True, 0)
    assert places((await verified(other, known=known)).found) == {("seal-changed", newest["day"], None)}


async def test_the_command_says_that_all_is_well(told, database_url: str, other: Connection):
    """In words, with the hash that an auditor keeps."""
    newest = await other.fetchrow("SELECT day, hash FROM seals ORDER BY day DESC LIMIT 1")
    done = await asyncio.to_thread(command, database_url, "verify")
    number = await other.fetchval("SELECT count(*) FROM seals")
    counts = f"12 events of 3 subjects, {number} seals"
    assert done.stdout == (
        f"all is as it was: {counts}; the last seal, of {newest['day']}, is {newest['hash'].hex()}\n"
    )
    assert (done.returncode, done.stderr) == (0, "")


async def test_the_command_says_what_is_wrong_and_where(told, database_url: str, other: Connection):
    """A line for each break, exit code 1; the same as JSON."""
    await other.execute("UPDATE events SET correlation_id = 'x' WHERE subject = 'cup' AND sequence = 2")
    done = await asyncio.to_thread(command, database_url, "verify")
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == "cup:2: its hash is not that of its contents (changed)"
    assert done.stdout.splitlines()[-1].startswith("1 breaks (1 changed) in 12 events of 3 subjects")
    done = await asyncio.to_thread(command, database_url, "verify", "--json", "--from", str(DAYS[0]))
    answer = msgspec.json.decode(done.stdout)
    assert done.returncode == 1
    assert (answer["is_whole"], answer["breaks"], answer["events"]) == (False, 1, 12)
    assert (answer["found"][0]["subject"], answer["found"][0]["sequence"]) == ("cup", 2)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("verify",), 69), (("verify", "--from", "yesterday"), 64), (("verify", "--seal", "2026-01-31=ab"), 64)],
)
async def test_the_command_without_a_database_or_a_meaning(arguments: Sequence[str], code: int):
    """69: nobody answers; 64: nobody understands. One line either way."""
    done = await asyncio.to_thread(command, "postgresql://127.0.0.1:1/nowhere", *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
