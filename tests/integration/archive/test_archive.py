"""Finished months are written to an archive, byte for byte, and recorded once they are read back."""

import msgspec
import pytest

from app.infra.archive import months
from app.infra.archive.months import manifest_file, moments
from app.infra.archive.reading import open_month
from app.infra.archive.store import ArchiveStore, DamagedArchiveError, NotArchivedError
from app.infra.archive.writing import UnlikeItsSealError
from app.infra.postgres import archives
from tests.integration.archive.ages import Ages, day, month


async def test_a_month_comes_back_as_it_was(ages: Ages, monkeypatch: pytest.MonkeyPatch):
    """Every column that the hashes cover, in blocks that can be read one by one."""
    monkeypatch.setattr("app.infra.archive.writing.BLOCK_EVENTS_MAX", 4)
    (row,) = await ages.archive(-4)
    archived = await open_month(ArchiveStore(row.url), row.month, row.manifest_hash)
    assert [e for block in [b async for b in archived.blocks()] for e in block] == ages.events(-4)
    assert await archived.block(1) == ages.events(-4)[4:8]
    assert len(archived.manifest.blocks) == 2
    assert archived.manifest.block_of("cup") in {0, 1}
    assert (row.events, row.size) == (6, ages.file(-4).stat().st_size)


async def test_any_program_can_read_it(ages: Ages):
    """With gunzip and a parser of JSON: `data` is the stored text, times and hashes are exact."""
    await ages.archive(-4)
    lines = ages.lines(-4)
    assert [(line["subject"], line["sequence"]) for line in lines] == [
        (event.subject, event.sequence) for event in ages.events(-4)
    ]
    assert [line["data"] for line in lines] == [event.data for event in ages.events(-4)]
    assert [bytes.fromhex(line["hash"]) for line in lines] == [event.hash for event in ages.events(-4)]
    manifest = msgspec.json.decode(ages.manifest(-4).read_bytes())
    assert manifest["types"] == {"price.changed.v1": 6}
    assert len(manifest["days"]) == (moments(day(-4))[1] - moments(day(-4))[0]).days


async def test_the_seals_say_which_months_are_finished(ages: Ages):
    """From that of the first event to the last one that is over; the first may begin in its middle."""
    assert await archives.sealed_months(
        ages.connection
    ) in (  # early on the first, yesterday is not sealed yet
        [day(n) for n in (-5, -4, -3, -2, -1)],
        [day(n) for n in (-5, -4, -3, -2)],
    )


async def test_the_same_twice_writes_nothing_new(ages: Ages):
    """What lies there is read back and recorded; its bytes are those that writing it again would give."""
    (first,) = await ages.archive(-4)
    before = {path: path.stat().st_mtime_ns for path in ages.folder.iterdir()}
    (again,) = await ages.archive(-4)
    assert again.manifest_hash == first.manifest_hash
    assert {path: path.stat().st_mtime_ns for path in ages.folder.iterdir()} == before
    await ages.archive(-4, to=str(ages.folder / "copy"))
    assert (ages.folder / "copy" / ages.file(-4).name).read_bytes() == ages.file(-4).read_bytes()


@pytest.mark.full
async def test_a_half_written_month_is_no_archived_month(ages: Ages):
    """Killed before the manifest: nobody takes the file for one, and it is written again."""
    ages.folder.mkdir()
    ages.file(-4).write_bytes(b"half of it")
    with pytest.raises(NotArchivedError):
        await open_month(ArchiveStore(str(ages.folder)), day(-4))
    await ages.archive(-4)
    assert len(ages.lines(-4)) == 6


async def test_what_is_not_as_it_was_sealed_is_not_archived(ages: Ages):
    """An event that was changed: nothing is there afterwards that could be taken for the month."""
    await ages.connection.execute("SET session_replication_role = replica")
    await ages.connection.execute(
        "UPDATE events SET hash = sha256('x') WHERE subject = 'cup' AND time = $1", month(-4)
    )
    with pytest.raises(UnlikeItsSealError, match=str(day(-4))):
        await ages.archive(-4)
    assert await ages.recorded() == {}
    assert not ages.manifest(-4).exists()


async def test_an_archive_that_was_changed_is_not_recorded(ages: Ages):
    """Neither a file that was damaged nor a manifest that was written for it."""
    await ages.archive(-4)
    text = ages.manifest(-4).read_bytes()
    content = ages.file(-4).read_bytes()
    for damaged in (content[:-1] + b"x", content + b"x", b""):
        ages.file(-4).write_bytes(damaged)
        with pytest.raises(DamagedArchiveError, match="not what was written"):
            await ages.archive(-4)
    ages.file(-4).write_bytes(content)
    ages.manifest(-4).write_bytes(text.replace(b'"cup:', b'"mug:'))
    with pytest.raises(DamagedArchiveError, match="not the one that was verified"):
        await open_month(ArchiveStore(str(ages.folder)), day(-4), (await ages.archive(-3))[0].manifest_hash)


@pytest.mark.full
async def test_a_month_without_events_is_archived_like_the_others(ages: Ages):
    """It has its seals, and its partition can go like the others."""
    await ages.connection.execute("SET session_replication_role = replica")
    await ages.connection.execute(
        "UPDATE seals SET events = 0, root = sha256(''), first_event = NULL, last_event = NULL"
    )
    await ages.connection.execute("DELETE FROM events")
    (row,) = await ages.archive(-4)
    assert row.events == 0
    archived = await open_month(ArchiveStore(row.url), day(-4))
    assert [block async for block in archived.blocks()] == []


@pytest.mark.parametrize("text", ["2026-1", "2026-13", "26-01", "2026-01-01", "", "२०२६-०१"])
def test_a_month_is_a_year_and_a_month(text: str):
    """Nothing else."""
    with pytest.raises(ValueError):
        months.month_of(text)


@pytest.mark.parametrize(
    "text",
    [
        "s3://key:secret@bucket/x",
        "s3://",
        "file:///",
        "http://x/y",
        "s3://bucket/x?region=y",
        "file://host/x",
    ],
)
def test_an_address_that_means_nothing_or_holds_a_secret_is_refused(text: str):
    """It would be kept in the database, and printed."""
    with pytest.raises(ValueError):
        ArchiveStore(text)


def test_the_names_of_files_say_what_they_are():
    """A person finds a month."""
    assert manifest_file(months.month_of("2026-08")) == "events-2026-08.json"
