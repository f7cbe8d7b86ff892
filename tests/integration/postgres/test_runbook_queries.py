"""What the runbooks have people type at PostgreSQL is understood by it, with today's tables."""

import re
from pathlib import Path

import asyncpg

PAGES = Path(__file__).parents[3] / "docs" / "runbooks"


async def test_every_query_of_a_runbook_runs(database_url: str):
    """A column that was renamed would be found out in the middle of the night."""
    queries = {
        query
        for page in PAGES.glob("*.md")
        for query in re.findall(
            r'^\$ psql "\$DATABASE_URL" -c "(.+)"', page.read_text(encoding="utf-8"), re.MULTILINE
        )
    }
    assert queries
    refused = {}
    connection = await asyncpg.connect(database_url)
    try:
        for query in sorted(queries):
            try:
                await connection.execute(query)
            except asyncpg.PostgresError as error:
                refused[query] = str(error)
    finally:
        await connection.close()
    assert refused == {}
