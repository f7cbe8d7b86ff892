"""What the development stack finds in place."""

from app.dev.seed import seed
from app.infra.postgres.api_keys import SCOPES, ApiKeys
from app.infra.postgres.pool import Database


async def test_the_development_key_of_an_older_release_opens_what_is_new(database_url: str):
    """Its data stays; what it may do grows with the program."""
    database = await Database(database_url, size=1, name="test").open()
    try:
        keys = ApiKeys(database)
        await keys.add("hf_dev_old", name="development", scopes=["orders:read"])
        await seed(database_url, "hf_dev_old")
        assert [set(key.scopes) for key in await keys.list()] == [set(SCOPES)]
    finally:
        await database.close()
