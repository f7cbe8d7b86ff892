"""The mail server of development: takes every mail, delivers none, and shows what it took.

Owns the table of mails in the sandbox's file, the SMTP listener, and the routes `GET /mails` (newest first),
`GET /mails/{id}` (as its reader sees it) and `GET /mails/{id}/text`. The newest `KEPT_MAX` are kept, each
delivery as it came: one that was repeated is there twice, under one Message-ID. What was answered 250 is in
the file; if the process dies before that, the sender has no answer and sends again.
"""

import asyncio
import email
import email.policy
import sqlite3
import time
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec
from aiosmtpd.smtp import SMTP, Envelope, Session

from app.dev.sandbox.http import Request, Response
from app.dev.sandbox.store import Store

PREFIX: Final = "/mails"
KEPT_MAX: Final = 1000
LIMIT_MAX: Final = 200
_LIMIT: Final = 50
_BYTES_MAX: Final = 1024 * 1024
_IDLE_S: Final = 60.0

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS mailbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT, received_at REAL NOT NULL, recipient TEXT NOT NULL,
  sender TEXT NOT NULL, subject TEXT NOT NULL, message_id TEXT NOT NULL, content BLOB NOT NULL)
"""
# What a mail says is shown; it runs nothing and fetches nothing.
_SAFE: Final = (("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox"),)


class MailDocument(msgspec.Struct, frozen=True):
    """One mail as it came. `url` is the page that its reader sees, `text` the same in plain text."""

    id: int
    message_id: str
    to: str
    sender: str = msgspec.field(name="from")
    subject: str
    received_at: str
    url: str
    text: str


class Mails:
    """The mails; also what the SMTP server asks about each (`handle_DATA`)."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> None:
        """Take mails there. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, host, port)

    def close(self) -> None:
        """Take no more."""
        if self._server is not None:
            self._server.close()

    def _connection(self) -> SMTP:
        loop = asyncio.get_running_loop()
        return SMTP(self, hostname="sandbox", data_size_limit=_BYTES_MAX, timeout=_IDLE_S, loop=loop)

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Keep a mail, once for each recipient; what is answered."""
        assert isinstance(envelope.content, bytes)
        content, recipients = envelope.content, list(envelope.rcpt_tos)
        try:
            await self._store.run(lambda database: _keep(database, recipients, content), promise=False)
        except sqlite3.Error:  # a full disk
            return "451 4.3.1 No room"
        return "250 2.0.0 Kept, and delivered to nobody"

    async def handle(self, request: Request) -> Response:
        """Answer one of the routes."""
        parts = request.path.removeprefix(PREFIX).strip("/").split("/")
        if request.method != "GET":
            return _problem(405, "only GET")
        match parts:
            case [""]:
                return await self._list(parse_qs(request.query), request.headers.get("host", ""))
            case [number] | [number, "text"] if number.isdigit() and len(number) < 19:
                content = await self._store.run(lambda database: _one(database, int(number)))
                if content is not None:
                    return _shown(content, "plain" if len(parts) > 1 else "html")
        return _problem(404, "there is no such mail")

    async def _list(self, query: dict[str, list[str]], host: str) -> Response:
        limit = query.get("limit", [str(_LIMIT)])[0]
        if not limit.isdigit() or not 1 <= int(limit[:9]) <= LIMIT_MAX:
            return _problem(400, f"limit is a number from 1 to {LIMIT_MAX}")
        to = query.get("to", [None])[0]
        rows = await self._store.run(lambda database: _newest(database, int(limit), to))
        return Response(200, msgspec.json.encode([_document(row, host) for row in rows]))


_Row = tuple[int, float, str, str, str, str]


def _keep(database: sqlite3.Connection, recipients: list[str], content: bytes) -> None:
    message = _parsed(content)
    said = [str(message[header] or "") for header in ("From", "Subject", "Message-ID")]
    database.execute(_TABLE)
    for recipient in recipients:
        database.execute(
            "INSERT INTO mailbox (received_at, recipient, sender, subject, message_id, content)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (time.time(), recipient, *said, content),
        )
    database.execute("DELETE FROM mailbox WHERE id <= (SELECT max(id) FROM mailbox) - ?", (KEPT_MAX,))


def _newest(database: sqlite3.Connection, limit: int, to: str | None) -> list[_Row]:
    database.execute(_TABLE)
    return database.execute(
        "SELECT id, received_at, recipient, sender, subject, message_id FROM mailbox"
        " WHERE ?1 IS NULL OR recipient = ?1 ORDER BY id DESC LIMIT ?2",
        (to, limit),
    ).fetchall()


def _one(database: sqlite3.Connection, number: int) -> bytes | None:
    database.execute(_TABLE)
    row = database.execute("SELECT content FROM mailbox WHERE id = ?", (number,)).fetchone()
    return None if row is None else row[0]


def _document(row: _Row, host: str) -> MailDocument:
    number, received_at, recipient, sender, subject, message_id = row
    url = f"http://{host}{PREFIX}/{number}"
    return MailDocument(
        id=number,
        message_id=message_id,
        to=recipient,
        sender=sender,
        subject=subject,
        received_at=datetime.fromtimestamp(received_at, UTC).isoformat(timespec="milliseconds"),
        url=url,
        text=f"{url}/text",
    )


def _shown(content: bytes, kind: str) -> Response:
    """A mail's page or plain text."""
    part: Any = _parsed(content).get_body((kind,))
    if part is None:
        return _problem(404, f"this mail has no {kind} part")
    return Response(200, part.get_content().encode(), _SAFE, f"text/{kind}; charset=utf-8")


def _parsed(content: bytes) -> EmailMessage:
    return email.message_from_bytes(content, policy=email.policy.default)


def _problem(status: int, message: str) -> Response:
    return Response(status, msgspec.json.encode({"error": {"message": message}}))
