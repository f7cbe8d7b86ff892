"""`Shadow`: a table beside a live one, of the same form and name, in a schema of its own.

While a transaction has `enter`ed it, the table's name means the shadow, so a handler fills it with the very
statements with which it writes the live one. `cut` in the same schema says how far each subject counts: at
first a copy of the group's marks, later moved on with them. An effect and its mark are one transaction, so
whoever sees the live table and the marks in one snapshot sees what should be equal. The live table is only
read, until `write`. A schema is dropped with all it holds; if the process dies here, nothing half done is
seen.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

import msgspec

from app.domain.ids import REPLAY_ID
from app.infra.postgres.pool import Connection
from app.infra.postgres.projections import Gap
from app.infra.postgres.statements import statements

SQL: Final = statements("replay_shadow")

STATEMENT_TIMEOUT_S: Final = 300.0
"""Copying marks and comparing tables takes about a second a million rows."""

_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(9999, 12, 31, tzinfo=UTC)

Place = tuple[str, int]


class Table(Protocol):
    """A table that has shadows."""

    @property
    def table(self) -> str:
        """Its name."""
        ...

    @property
    def keys(self) -> tuple[str, ...]:
        """Its primary key."""
        ...

    @property
    def time(self) -> str | None:
        """The column of the key that is a time, where there is one."""
        ...


class Compared(msgspec.Struct, frozen=True):
    """How many rows there are and how many there would be, their hashes, and how many of them differ."""

    rows: int
    rebuilt_rows: int
    differing: int
    hash: str
    rebuilt_hash: str


class Shadow:
    """The shadow of one table for one replay, in the caller's transactions."""

    def __init__(
        self,
        connection: Connection,
        replay_id: str,
        table: Table,
        since: datetime | None,
        until: datetime | None,
    ) -> None:
        """Be of those rows of `table` that are of a time from `since` and before `until` (None: all)."""
        if not REPLAY_ID.match(replay_id):  # it becomes a name in statements
            raise ValueError(replay_id)
        self._connection = connection
        self._replay_id = replay_id
        self.schema = f"shadow_{replay_id}"
        self._table = table
        self._span = (since or _FIRST, until or _LAST)
        self._keys = ", ".join(_quoted(key) for key in table.keys)
        self._name = _quoted(table.table)

    async def make(self, group: str) -> None:
        """Make it, empty, for the events that `group` has come to by now."""
        run = self._connection.execute
        await run(f"CREATE SCHEMA {self.schema}")
        await run(
            f"CREATE TABLE {self.schema}.{self._name} (LIKE public.{self._name} INCLUDING DEFAULTS "
            "INCLUDING GENERATED INCLUDING INDEXES)"
        )
        await run(f"CREATE TABLE {self.schema}.cut (subject text NOT NULL, sequence integer NOT NULL)")
        await run(
            f"INSERT INTO {self.schema}.cut SELECT subject, sequence FROM public.marks "  # noqa: S608 - our name
            "WHERE consumer_group = $1",
            group,
            timeout=STATEMENT_TIMEOUT_S,
        )
        await run(f"ALTER TABLE {self.schema}.cut ADD PRIMARY KEY (subject)", timeout=STATEMENT_TIMEOUT_S)

    async def enter(self) -> None:
        """From here to the end of the transaction, the table's name means the shadow. Times are in UTC."""
        await self._connection.execute(SQL["enter"], self.schema)

    async def drop(self) -> None:
        """Drop it, where it is."""
        await self._connection.execute(f"DROP SCHEMA IF EXISTS {self.schema} CASCADE")

    async def last_subject(self) -> str | None:
        """The last subject of which anything counts. `enter` first, as for all below."""
        found: str | None = await self._connection.fetchval(SQL["last_subject"])
        return found

    async def allowed(self, subjects: Sequence[str]) -> Mapping[str, int]:
        """How far some subjects count."""
        rows = await self._connection.fetch(SQL["allowed"], subjects)
        return {row["subject"]: row["sequence"] for row in rows}

    async def left_out(self, group: str, subjects: Sequence[str]) -> set[Place]:
        """Events of some subjects that somebody discarded: they have no effect in this group."""
        return {(row[0], row[1]) for row in await self._connection.fetch(SQL["left_out"], group, subjects)}

    async def moved(self, group: str, subjects_max: int) -> list[Gap]:
        """Events that the group has had and the shadow has not, of so many subjects."""
        rows = await self._connection.fetch(SQL["moved"], group, subjects_max, timeout=STATEMENT_TIMEOUT_S)
        return [Gap(*row) for row in rows]

    async def advance(self, gaps: Sequence[Gap]) -> None:
        """The shadow has these events, too."""
        await self._connection.execute(
            SQL["advance"], [gap.subject for gap in gaps], [gap.last for gap in gaps]
        )

    async def compare(self) -> Compared:
        """Hold the live table against the shadow; the rows that differ are in the table `fresh` then."""
        live, built = await self._counted("public"), await self._counted(self.schema)
        await self._find_differences(self._in_span(), *self._span)
        differing = int(await self._connection.fetchval("SELECT count(*) FROM fresh"))
        return Compared(live[0], built[0], differing, live[1], built[1])

    async def look_again(self, first: int, last: int) -> list[str]:
        """Hold those rows against the shadow again that the changes of these numbers are of.

        Those of them that differ are in `fresh` then. Some rows whose difference is not the one on record, as
        JSON of their keys.
        """
        recorded = (self._replay_id, first, last)
        of_row = ", ".join(f"r.{_quoted(key)}" for key in self._table.keys)
        await self._find_differences(
            f"({self._keys}) IN (SELECT {of_row} FROM replay_changes c, "  # noqa: S608 - our names
            f"jsonb_populate_record(NULL::public.{self._name}, c.key) r "
            "WHERE c.replay_id = $1 AND c.number BETWEEN $2 AND $3)",
            *recorded,
        )
        rows = await self._connection.fetch(_MOVED, *recorded, timeout=STATEMENT_TIMEOUT_S)
        return [row["key"] for row in rows]

    async def record(self) -> None:
        """Put the rows that differ on record as the replay's changes."""
        await self._connection.execute(
            "INSERT INTO replay_changes (replay_id, number, key, before, after, difference) "
            "SELECT $1, number, key_of, before_of, after_of, difference FROM fresh",
            self._replay_id,
            timeout=STATEMENT_TIMEOUT_S,
        )

    async def write(self) -> None:
        """Make the live rows in `fresh` as they are in the shadow, and delete those that are not there."""
        columns = await self._columns(())
        names = ", ".join(_quoted(name) for name in columns)
        values = [_quoted(name) for name in columns if name not in self._table.keys]
        change = "UPDATE SET " + ", ".join(f"{v} = excluded.{v}" for v in values) if values else "NOTHING"
        live, keys = f"public.{self._name}", self._keys
        await self._connection.execute(
            f"DELETE FROM {live} t USING fresh f WHERE f.after_of IS NULL AND {self._same_keys('t', 'f')}",  # noqa: S608
            timeout=STATEMENT_TIMEOUT_S,
        )
        await self._connection.execute(
            f"INSERT INTO {live} ({names}) SELECT {names} FROM {self.schema}.{self._name} "  # noqa: S608
            f"JOIN (SELECT {keys} FROM fresh WHERE after_of IS NOT NULL) f USING ({keys}) "
            f"ON CONFLICT ({keys}) DO {change}",
            timeout=STATEMENT_TIMEOUT_S,
        )

    async def _counted(self, schema: str) -> tuple[int, str]:
        """Number and hash of the rows."""
        row = await self._connection.fetchrow(self._hashed(schema), *self._span, timeout=STATEMENT_TIMEOUT_S)
        assert row is not None
        return row[0], row[1]

    async def _columns(self, without: Sequence[str]) -> dict[str, bool]:
        """The table's columns but some, and whether each holds numbers."""
        rows = await self._connection.fetch(SQL["columns"], self._table.table, list(without))
        return {row["name"]: row["is_number"] for row in rows}

    def _hashed(self, schema: str) -> str:
        """Number and hash of the rows: a SHA-256 over those of each row, in the order of their keys."""
        return (
            "SELECT count(*), encode(sha256(coalesce(string_agg("  # noqa: S608
            f"sha256(convert_to(t::text, 'UTF8')), ''::bytea ORDER BY {self._keys}), ''::bytea)), 'hex') "
            f"FROM {schema}.{self._name} t WHERE {self._in_span()}"
        )

    async def _find_differences(self, among: str, *arguments: object) -> None:
        """Have the rows in `fresh` that differ, of those for which `among` holds, with both forms as JSON."""
        await self._connection.execute(_FRESH.format(keys=self._keys, table=self._name))
        columns = await self._columns(self._table.keys)
        changed = _json({name: _difference(name, number) for name, number in columns.items()})
        statement = (
            f"INSERT INTO fresh SELECT {self._keys}, row_number() OVER (ORDER BY {self._keys}), "  # noqa: S608
            f"{_json({key: _quoted(key) for key in self._table.keys})}, "
            f"CASE WHEN l.there THEN {_json({name: f'l.{_quoted(name)}' for name in columns})} END, "
            f"CASE WHEN s.there THEN {_json({name: f's.{_quoted(name)}' for name in columns})} END, "
            f"jsonb_strip_nulls({changed}) "
            f"FROM (SELECT *, true AS there FROM public.{self._name} WHERE {among}) l "
            f"FULL JOIN (SELECT *, true AS there FROM {self.schema}.{self._name} WHERE {among}) s "
            f"USING ({self._keys}) "
            f"WHERE ROW(l.there{_of('l', columns)}) "
            f"IS DISTINCT FROM ROW(s.there{_of('s', columns)})"
        )
        await self._connection.execute(statement, *arguments, timeout=STATEMENT_TIMEOUT_S)

    def _in_span(self) -> str:
        if self._table.time is None:
            return "$1::timestamptz < $2::timestamptz"
        time = _quoted(self._table.time)
        return f"{time} >= $1::timestamptz AND {time} < $2::timestamptz"

    def _same_keys(self, one: str, other: str) -> str:
        return " AND ".join(f"{one}.{_quoted(key)} = {other}.{_quoted(key)}" for key in self._table.keys)


_FRESH: Final = (
    "CREATE TEMPORARY TABLE fresh ON COMMIT DROP AS SELECT {keys}, NULL::bigint AS number, "
    "NULL::jsonb AS key_of, NULL::jsonb AS before_of, NULL::jsonb AS after_of, NULL::jsonb AS difference "
    "FROM public.{table} WITH NO DATA"
)

_MOVED: Final = """
SELECT coalesce(c.key, f.key_of)::text AS key
FROM (SELECT key, difference FROM replay_changes WHERE replay_id = $1 AND number BETWEEN $2 AND $3) c
FULL JOIN fresh f ON f.key_of = c.key
WHERE c.difference IS DISTINCT FROM f.difference ORDER BY f.number LIMIT 3
"""


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _json(values: Mapping[str, str]) -> str:
    pairs = ", ".join(f"'{name}', {value}" for name, value in values.items())
    return f"jsonb_build_object({pairs})"


def _of(alias: str, columns: Iterable[str]) -> str:
    return "".join(f", {alias}.{_quoted(name)}" for name in columns)


def _difference(name: str, is_number: bool) -> str:  # noqa: FBT001 - as PostgreSQL says it
    """After less before of numbers (a missing one counts nought), else both; null where they are equal."""
    live, built = f"l.{_quoted(name)}", f"s.{_quoted(name)}"
    if is_number:
        return f"nullif(coalesce({built}, 0) - coalesce({live}, 0), 0)"
    return f"CASE WHEN {live} IS DISTINCT FROM {built} THEN jsonb_build_array({live}, {built}) END"
