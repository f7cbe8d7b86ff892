"""A past of some days: products whose prices changed, told by chains of events, and sealed."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta

from app.domain.chain import Break, LinkedEvent, chain
from app.domain.events import PriceChanged
from app.domain.money import Money
from app.domain.seals import Seal
from app.infra.postgres.audit import Findings, Verdict, verify
from app.infra.postgres.pool import Connection, Database
from app.infra.postgres.seals import PostgresSeals

INSERT = """
INSERT INTO events (subject, sequence, type, time, correlation_id, traceparent, data, previous_hash, hash)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""
TODAY = datetime.now(UTC).date()
DAYS = tuple(TODAY - timedelta(days=ago) for ago in (5, 4, 3, 2))


def at(day: date, hour: int = 12) -> datetime:
    """An hour of a day."""
    return datetime.combine(day, time(hour), UTC)


def prices(subject: str, number: int, times: Sequence[datetime], before: LinkedEvent | None = None):
    """The next events of a product: its price goes up by one each time."""
    linked: list[LinkedEvent] = [] if before is None else [before]
    for price, when in enumerate(times, number):
        event = PriceChanged(None, Money(price, "USD"))
        previous = linked[-1] if linked else None
        behind = (previous.hash, previous.sequence) if previous else (None, 0)
        linked += chain(behind[0], subject, behind[1], (event,), when, "cor_1", None)
    return linked if before is None else linked[1:]


async def store(connection: Connection, events: Sequence[LinkedEvent], *, head: bool = True) -> None:
    """Write events, and how far their subjects have come, as their transaction would."""
    rows = [tuple(getattr(event, name) for name in event.__struct_fields__) for event in events]
    async with connection.transaction():
        await connection.executemany(INSERT, rows)
        ends = {event.subject: event for event in events}
        if head:
            await connection.executemany(
                """
                INSERT INTO products (sku, name, amount, currency, version, last_hash)
                VALUES ($1, $1, 1, 'USD', $2, $3)
                ON CONFLICT (sku) DO UPDATE SET version = excluded.version, last_hash = excluded.last_hash
                """,
                [(event.subject, event.sequence, event.hash) for event in ends.values()],
            )


async def sealed(database: Database) -> list[Seal]:
    """Seal all days that are over."""
    made = []
    while (seal := await PostgresSeals(database).seal_next()) is not None:
        made.append(seal)
    return made


async def verified(
    connection: Connection, begin: date | None = None, end: date | None = None, known=()
) -> Verdict:
    """The verdict of an audit."""
    verdict = Verdict()
    async for verdict in verify(connection, Findings(quiet=True), begin, end, known):  # noqa: B007 - the last one counts
        pass
    return verdict


def places(found: Sequence[Break]) -> set[tuple[str, str | int | date | None, int | None]]:
    """Kind, subject or day, and sequence of each break."""
    return {(x.kind, x.subject or x.day, x.sequence) for x in found}
