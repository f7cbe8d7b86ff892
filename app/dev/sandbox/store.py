"""The sandbox's one file: a SQLite database, and the only way to write it.

Guarantees: whatever `run` returned is on the disk. Pieces of work that arrive in the same turn of the event
loop share one transaction and one sync (group commit), each inside its own savepoint, so that one that
fails takes nothing of the others with it. Work runs one piece after the other: it needs no locks.

`synchronous=FULL` for what is promised to somebody: the commit is synced before it is answered, so an
answered charge survives a power cut too, not only `kill -9`. The sandbox is the referee that the order
books are audited against; one that forgets would turn every investigation into a guess. The price is one
sync a batch. Steps of parcels and the bookkeeping of reports are promised to nobody and are not waited for;
after a power cut they may come again. NORMAL for everything can be chosen: kill -9 loses nothing, a power
cut may lose the last moments. The file is held exclusively: a second sandbox on the same file is refused at
start.

If the process dies before the commit, nothing of the batch happened and nobody was answered; the key can be
used again. If it dies after, everything happened and only answers are missing: the same key gives them
again.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
BATCH_SIZE_MAX = 128
SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE intents (position INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, document BLOB NOT NULL);
CREATE TABLE refunds (
  position INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, intent TEXT NOT NULL, amount INTEGER NOT NULL,
  document BLOB NOT NULL);
CREATE INDEX refunds_by_intent ON refunds (intent);
CREATE TABLE ledger (
  position INTEGER PRIMARY KEY, intent TEXT NOT NULL, at REAL NOT NULL, currency TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('authorized', 'captured', 'voided', 'refunded')),
  amount INTEGER NOT NULL CHECK (amount > 0));
CREATE UNIQUE INDEX ledger_once ON ledger (intent, kind) WHERE kind <> 'refunded';
CREATE TABLE idempotency (
  key TEXT PRIMARY KEY, fingerprint BLOB NOT NULL, status INTEGER NOT NULL, body BLOB NOT NULL,
  request_id TEXT NOT NULL, created_at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX idempotency_by_age ON idempotency (created_at);
CREATE TABLE shipments (
  reference TEXT PRIMARY KEY, id TEXT NOT NULL, status TEXT NOT NULL, tracking_number TEXT NOT NULL,
  content BLOB NOT NULL, next_status_at REAL);
CREATE INDEX shipments_due ON shipments (next_status_at) WHERE next_status_at IS NOT NULL;
CREATE TABLE webhooks (
  position INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, reference TEXT NOT NULL, type TEXT NOT NULL,
  body BLOB NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, created_at REAL NOT NULL, next_at REAL NOT NULL);
CREATE INDEX webhooks_by_reference ON webhooks (reference, position);
CREATE INDEX webhooks_due ON webhooks (next_at);
"""


class StoreUnusable(Exception):
    """The data file cannot be used: held by another sandbox, of another version, or not a database."""


class Store:
    """Runs pieces of work on the database, batched, and returns when they are durable."""

    def __init__(self, path: Path, synchronous: str = "FULL") -> None:
        """Open or create the file. Raises StoreUnusable."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(path, isolation_level=None, timeout=1.0)
        self._queue: list[tuple[Callable[[sqlite3.Connection], Any], asyncio.Future[Any]]] = []
        self._scheduled = False
        self._promised = False
        self._synced = self._sync_promises = synchronous.upper() == "FULL"
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._database.close()
            held = "locked" in str(error)
            why = "another sandbox is using it" if held else f"SQLite says: {error}"
            raise StoreUnusable(f"{path}: {why}") from error

    def _prepare(self) -> None:
        run = self._database.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        run("PRAGMA journal_mode = WAL")
        run(f"PRAGMA synchronous = {'FULL' if self._sync_promises else 'NORMAL'}")
        run("PRAGMA cache_size = -8000")
        run("BEGIN IMMEDIATE")
        (version,) = run("PRAGMA user_version").fetchone()
        if version not in (0, SCHEMA_VERSION):
            run("ROLLBACK")
            raise StoreUnusable(f"written by another version ({version}); start with a fresh file")
        if version == 0:
            for statement in SCHEMA.split(";"):
                run(statement)
            run(f"PRAGMA user_version = {SCHEMA_VERSION}")
        run("COMMIT")

    async def run(self, work: Callable[[sqlite3.Connection], T], *, promise: bool = True) -> T:
        """Run `work` inside a transaction; return its result once that is durable.

        Work that promises nobody anything (`promise=False`) does not make its batch wait for the disk: it may
        come again after a power cut.
        Whatever `work` raises is raised here and undoes only its own changes. sqlite3.Error from the commit
        itself (a full disk) means that nothing of the batch happened.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.append((work, future))
        self._promised = self._promised or promise
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._flush)
        return await future

    def _flush(self) -> None:
        batch, self._queue = self._queue[:BATCH_SIZE_MAX], self._queue[BATCH_SIZE_MAX:]
        if not batch:
            return
        self._scheduled = bool(self._queue)
        if self._scheduled:
            asyncio.get_running_loop().call_soon(self._flush)
        outcomes: list[tuple[asyncio.Future[Any], Any, Exception | None]] = []
        try:
            self._set_sync()
            self._database.execute("BEGIN IMMEDIATE")
            for work, future in batch:
                outcomes.append((future, *self._attempt(work)))
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            outcomes = [(future, None, error) for _, future in batch]
        for future, result, failure in outcomes:
            if future.done():  # its waiter was cancelled; the work is done all the same
                continue
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)

    def _set_sync(self) -> None:
        """Sync the coming commit if anything in it is promised (and syncing is wished for at all)."""
        wanted = self._sync_promises and self._promised
        self._promised = bool(self._queue) and self._promised  # what is left over stays promised
        if wanted is not self._synced:
            self._database.execute(f"PRAGMA synchronous = {'FULL' if wanted else 'NORMAL'}")
            self._synced = wanted

    def _attempt(self, work: Callable[[sqlite3.Connection], T]) -> tuple[T | None, Exception | None]:
        self._database.execute("SAVEPOINT piece")
        try:
            result = work(self._database)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where the work came from
            self._database.execute("ROLLBACK TO piece")
            self._database.execute("RELEASE piece")
            return None, error
        self._database.execute("RELEASE piece")
        return result, None

    def close(self) -> None:
        """Finish what is queued, fold the write-ahead log into the file, close it."""
        while self._queue:
            self._flush()
        self._database.close()
