"""The marker in PostgreSQL decides: no statement is run in the database of another environment."""

import asyncio

import asyncpg
import pytest

from app.domain.errors import Unavailable
from app.infra.markers import AnotherEnvironmentError, ElsewhereError
from app.infra.postgres.event_outbox import open_outbox
from app.infra.postgres.marker import examiner
from app.infra.postgres.pool import Database
from tests.integration.isolation.other import Told, connected, mark_database, marker_of_database, until

SAID = "holdfast: DATABASE_URL must lead to the database of ENVIRONMENT 'dev': the marker there says "
WERE_IT_WRONG = "were the marker wrong itself: docs/ISOLATION.md, Changing a marker on purpose"


async def opened(url: str, told: Told, size: int = 1) -> Database:
    """A pool of a mode."""
    return await Database(url, size=size, name="test", examine=examiner(told.markers)).open()


async def test_the_first_mode_that_connects_marks_a_database(database_url: str):
    """From then on it is known whose it is."""
    told = Told("staging", is_sure=False)
    database = await opened(database_url, told)
    assert await database.is_well()
    await database.close()
    assert (await marker_of_database(database_url), told.markers.is_sure) == ("staging", True)


async def test_the_database_of_another_environment_is_asked_nothing(database_url: str):
    """Whoever wanted something hears that it is unavailable; the process is told to stop."""
    await mark_database(database_url, "production")
    told = Told(is_sure=False)
    database = await opened(database_url, told)
    with pytest.raises(AnotherEnvironmentError):
        await database.execute("CREATE TABLE written ()")
    await database.close()
    assert told.stop.is_set()
    assert (told.markers.exit_code(0), told.markers.is_sure) == (78, False)
    async with connected(database_url) as connection:
        assert await connection.fetchval("SELECT to_regclass('written')") is None


async def test_one_line_says_which_setting_is_wrong(database_url: str, capsys: pytest.CaptureFixture[str]):
    """However many connections find it out."""
    await mark_database(database_url, "production")
    told = Told()
    database = await opened(database_url, told, size=5)
    asked = await asyncio.gather(*(database.is_well() for _ in range(5)), return_exceptions=True)
    await database.close()
    assert {type(answer) for answer in asked} == {AnotherEnvironmentError}
    said = capsys.readouterr().err
    assert said == f"{SAID}'production': mend DATABASE_URL or ENVIRONMENT ({WERE_IT_WRONG})\n"


@pytest.mark.parametrize("found", [" dev", "Dev\n"])
async def test_a_marker_that_is_no_environments_name_may_be_mended(
    database_url: str, capsys: pytest.CaptureFixture[str], found: str
):
    """Nobody's can it be, so the line says how; and that is true."""
    await mark_database(database_url, found)
    database = await opened(database_url, Told())
    with pytest.raises(AnotherEnvironmentError):
        await database.is_well()
    await database.close()
    told = f"{SAID}{found!r}: mend DATABASE_URL or ENVIRONMENT (only if it is dev's all the same: "
    said = capsys.readouterr().err
    assert said.startswith(told)
    async with connected(database_url) as connection:
        await connection.execute(said.removeprefix(told).removesuffix(")\n"))
    assert await marker_of_database(database_url) == "dev"


def test_no_mode_goes_on_once_it_is_said():
    """The start ends there, with the exit code of a wrong setting."""
    told = Told()
    told.markers.refuse()
    with pytest.raises(AnotherEnvironmentError):
        told.markers.compare("REDIS_URL", "redis", "x")
    with pytest.raises(ElsewhereError) as left:
        told.markers.refuse()
    assert left.value.code == 78


def test_what_somebody_wrote_there_breaks_no_line(capsys: pytest.CaptureFixture[str]):
    """A marker is whatever its writer likes, for instance a line of a log, without an end."""
    with pytest.raises(AnotherEnvironmentError):
        Told().markers.compare("REDIS_URL", "redis", "x\n{}\x1b[2J" + "y" * 10_000)
    said = capsys.readouterr().err
    assert (said.count("\n"), "\x1b" in said, len(said) < 300) == (1, False, True)


async def test_a_connection_is_asked_again_after_every_reconnect(database_url: str):
    """Behind the same address there may be another database by then."""
    told = Told()
    database = await opened(database_url, told)
    assert await database.is_well()
    await mark_database(database_url, "production")
    assert await database.is_well()  # the connection that is there is not another one
    async with connected(database_url) as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'holdfast-test' AND datname = current_database()"
        )

    async def is_found_out() -> bool:  # the end of the old connection may still be on its way
        await asyncio.gather(database.is_well(), return_exceptions=True)
        return told.stop.is_set()

    await until(is_found_out)
    with pytest.raises(AnotherEnvironmentError):
        await database.is_well()
    await database.close()


async def test_the_relay_has_a_connection_of_its_own_and_asks_too(database_url: str):
    """It would publish another environment's events."""
    await mark_database(database_url, "production")
    told = Told()
    with pytest.raises(AnotherEnvironmentError):
        async with open_outbox(database_url, "test", examiner(told.markers)):
            pass
    assert told.stop.is_set()


async def test_of_two_environments_one_gets_the_database(database_url: str):
    """Both come first; the row is one."""
    told = [Told("dev"), Told("staging")]
    pools = [await opened(database_url, one, size=4) for one in told for _ in range(4)]
    await asyncio.gather(*(pool.is_well() for pool in pools), return_exceptions=True)
    for pool in pools:
        await pool.close()
    assert sorted(one.stop.is_set() for one in told) == [False, True]


async def test_a_schema_without_a_marker_is_waited_for(empty_database_url: str):
    """A new release that comes before its migrations does nothing, and does not stop for it."""
    told = Told(is_sure=False)
    database = await opened(empty_database_url, told)
    with pytest.raises(Unavailable, match="holdfast migrate"):
        await database.is_well()
    await database.close()
    assert (told.stop.is_set(), told.markers.is_sure) == (False, False)


async def test_a_role_that_may_not_read_the_marker_may_do_nothing(database_url: str):
    """Nobody can say whose it is: as if it were away, with a word on what is missing."""
    told = Told(is_sure=False)
    async with connected(database_url) as connection:
        await connection.execute("SET ROLE pg_database_owner")  # whoever made the database is in it
        with pytest.raises(Unavailable, match="GRANT SELECT, INSERT"):
            await examiner(told.markers)(connection)
    assert (told.stop.is_set(), told.markers.is_sure) == (False, False)


async def test_there_is_no_second_marker(database_url: str):
    """The table itself sees to it."""
    await mark_database(database_url, "dev")
    async with connected(database_url) as connection:
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute("INSERT INTO environment_marker (environment) VALUES ('b')")
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute("INSERT INTO environment_marker VALUES (false, 'b')")
