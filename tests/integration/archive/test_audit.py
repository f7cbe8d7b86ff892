"""The audit goes on in the archive: chains and seals hold across the months that have left the database."""

import asyncio
import gzip
import hashlib

import msgspec
import pytest

from app.infra.archive import auditing
from app.infra.archive.store import NotArchivedError, UnreachableArchiveError
from app.infra.postgres.archives import dropped_months
from app.infra.postgres.audit import Findings, Verdict, verify
from tests.integration.archive.ages import Ages, day, holdfast, month
from tests.integration.postgres.past import places


async def verified(ages: Ages, begin=None, end=None, archive: str | None = None) -> Verdict:
    """The verdict of an audit."""
    verdict = Verdict()
    async for verdict in verify(ages.connection, Findings(quiet=True), begin, end, (), archive):  # noqa: B007
        pass
    return verdict


@pytest.fixture
async def gone(ages: Ages) -> Ages:
    """Three of the months are only in the archive."""
    assert (await verified(ages)).is_whole
    await ages.archive(-5, -4, -3)
    await ages.drop(-2)
    await ages.connection.execute("SET session_replication_role = replica")
    return ages


async def test_the_past_is_whole_across_the_border(gone: Ages, monkeypatch: pytest.MonkeyPatch):
    """As many events and subjects as before; also where blocks cut chains anywhere."""
    verdict = await verified(gone)
    assert places(verdict.found) == set()
    assert (verdict.events, verdict.archived_months) == (sum(map(len, gone.chains.values())), 3)
    monkeypatch.setattr(auditing, "HEADS_MAX", 1)
    assert (await verified(gone)).is_whole
    narrowed = await verified(gone, day(-5), day(-5))
    assert (narrowed.is_whole, narrowed.archived_months) == (True, 1)


async def test_the_first_event_here_must_follow_the_last_one_there(gone: Ages):
    """It is missing, or another one."""
    await gone.connection.execute("DELETE FROM events WHERE subject = 'cup' AND sequence = 10")
    assert ("missing", "cup", 11) in places((await verified(gone)).found)


@pytest.mark.full
async def test_whatever_was_changed_here_of_what_follows_is_found(gone: Ages):
    """Its previous hash is that of another event."""
    await gone.connection.execute(
        "UPDATE events SET previous_hash = sha256('x') WHERE subject = 'cup' AND sequence = 10"
    )
    assert {("changed", "cup", 10), ("unlinked", "cup", 10)} <= places((await verified(gone)).found)


@pytest.mark.full
async def test_a_product_that_says_more_than_the_archive_is_found(gone: Ages):
    """Its chain ended there, and it says that it did not."""
    await gone.connection.execute("UPDATE products SET version = 7 WHERE sku = 'bowl'")
    assert ("ended", "bowl", 6) in places((await verified(gone)).found)


@pytest.mark.full
async def test_a_product_of_which_there_is_nothing_anywhere_is_found(gone: Ages):
    """All its events are missing, here and there."""
    await gone.connection.execute(
        "INSERT INTO products (sku, name, amount, currency, version) VALUES ('dish', '', 1, 'USD', 1)"
    )
    assert ("missing", "dish", None) in places((await verified(gone)).found)


async def test_an_order_that_was_taken_out_of_the_archive_is_found(gone: Ages):
    """There are more orders of that month than first events."""
    await gone.connection.execute(
        "INSERT INTO orders (id, customer_id, status, currency, lines, total, payment, stock, correlation_id,"
        " version, last_hash, created_at, updated_at)"
        " VALUES ('ord_x', 'c', 'accepted', 'USD', '[]', 1, '{}', 'none', 'c', 1, 'x', $1, $1)",
        month(-4),
    )
    assert ("missing", day(-4), None) in places((await verified(gone)).found)


def rewritten(ages: Ages, number: int, old: str, new: str) -> None:
    """Whoever has the archive writes a month of it anew: file and manifest fit one another."""
    lines = gzip.decompress(ages.file(number).read_bytes()).replace(old.encode(), new.encode(), 1)
    manifest = msgspec.json.decode(ages.manifest(number).read_bytes())
    content = gzip.compress(lines)
    digest = hashlib.sha256(content).hexdigest()
    manifest["blocks"][0] |= {"size": len(content), "sha256": digest}
    ages.file(number).write_bytes(content)
    ages.manifest(number).write_bytes(
        msgspec.json.encode(manifest | {"size": len(content), "sha256": digest})
    )


async def test_an_archive_that_was_written_anew_is_found(gone: Ages, monkeypatch: pytest.MonkeyPatch):
    """The manifest is not the one that was verified; were it, the hashes and the seals would say so."""
    rewritten(gone, -4, "cor_1", "cor_2")
    assert places((await verified(gone)).found) == {("archive-damaged", day(-4), None)}
    await gone.connection.execute(
        "UPDATE event_archives SET manifest_hash = $1 WHERE month = $2",
        hashlib.sha256(gone.manifest(-4).read_bytes()).digest(),
        day(-4),
    )
    assert places((await verified(gone)).found) == {("changed", "bowl", 4)}


@pytest.mark.full
async def test_a_day_that_is_not_what_was_sealed_is_found_in_the_archive(gone: Ages):
    """The seal in the database is what counts."""
    await gone.connection.execute("UPDATE seals SET root = sha256('x') WHERE day = $1", day(-4))
    assert ("unlike-its-seal", day(-4), None) in places((await verified(gone)).found)


async def test_an_archive_that_is_away_is_no_break(gone: Ages):
    """It says that nobody answers, or that the month is not there; and finds it where it was moved."""
    gone.folder.rename(gone.folder.with_name("elsewhere"))
    with pytest.raises(UnreachableArchiveError, match="cannot be reached"):
        await verified(gone)
    assert (await verified(gone, archive=str(gone.folder.with_name("elsewhere")))).is_whole
    gone.folder.mkdir()
    with pytest.raises(NotArchivedError, match=f"{day(-3):%Y-%m}"):
        await verified(gone)


@pytest.mark.full
async def test_the_command_says_which_archive_is_away(gone: Ages):
    """Exit code 69, and not a word of anything being broken; whole again, it counts what it read there."""
    moved = gone.folder.rename(gone.folder.with_name("elsewhere"))
    away, found = await asyncio.gather(
        holdfast(gone.url, "audit", "verify"),
        holdfast(gone.url, "audit", "verify", "--archive", str(moved)),
    )
    assert (away.returncode, away.stdout) == (69, "")
    assert away.stderr.endswith("; the months in it were not checked\n")
    assert found.returncode == 0
    assert ", 3 months from the archive" in found.stdout


async def test_an_archive_that_has_moved_is_found_when_it_was_said_where(gone: Ages):
    """Copied, verified at its new place, and read there from then on, by whoever reads it."""
    moved = gone.folder.rename(gone.folder.with_name("elsewhere"))
    done = await holdfast(gone.url, "events", "archive", "--to", str(moved), "--before", f"{day(-2):%Y-%m}")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 3)
    assert (await verified(gone)).is_whole
    assert {row.url for row in await dropped_months(gone.connection)} == {moved.as_uri()}
    empty = str(gone.folder)
    done = await holdfast(gone.url, "events", "archive", "--to", empty, "--before", f"{day(-2):%Y-%m}")
    assert (done.returncode, done.stdout) == (0, "nothing new to archive\n")
