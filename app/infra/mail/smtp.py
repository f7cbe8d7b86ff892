"""Leaving by SMTP: one connection for as many mails as there are, every wait bounded.

What a server says to a mail is one of three things: taken; not now (4xx), so try later; never (5xx). All else
(no server, no TLS, a wrong password, a sender that it does not let in, a connection that breaks) is
`SmtpAway`: then it is not known whether the mail under way was taken. What servers say may quote addresses:
it is kept with the mail, and errors that are logged hold codes only. If the process dies here, the server has
the mail or has not.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from email.message import EmailMessage
from typing import Final
from urllib.parse import unquote, urlsplit

import aiosmtplib
import msgspec

from app.domain.errors import Unavailable

CONNECT_DEADLINE_S: Final = 15.0
SEND_DEADLINE_S: Final = 15.0
_QUIT_DEADLINE_S: Final = 1.0
_PORTS: Final = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}
_CLOSING: Final = 421


class SmtpAway(Unavailable):
    """The server takes nothing now. A mail that was under way may have been taken."""

    def __init__(self, detail: str) -> None:
        """Say what was seen, in words that name nobody."""
        super().__init__("smtp", detail)


class MailRefused(Exception):
    """The server does not take this mail: `is_final`, or not now. The text may hold personal data."""

    def __init__(self, code: int, text: str) -> None:
        """Keep what the server said."""
        super().__init__(f"{code} {text}")
        self.code = code

    @property
    def is_final(self) -> bool:
        """Whether asking again is of no use."""
        return self.code >= 500


class SmtpServer(msgspec.Struct, frozen=True):
    """Where mail goes. `tls` from the start (smtps), or `starttls`, which is then demanded; else neither."""

    host: str
    port: int
    user: str | None
    password: str | None
    tls: bool = False
    starttls: bool = False

    @classmethod
    def parse(cls, url: str) -> "SmtpServer":
        """Read `smtp://`, `smtp+starttls://` or `smtps://user:password@host:port`."""
        parts = urlsplit(url)
        return cls(
            host=parts.hostname or "",
            port=parts.port or _PORTS[parts.scheme],
            user=None if parts.username is None else unquote(parts.username),
            password=None if parts.password is None else unquote(parts.password),
            tls=parts.scheme == "smtps",
            starttls=parts.scheme == "smtp+starttls",
        )


class SmtpConnection:
    """An open connection."""

    def __init__(self, client: aiosmtplib.SMTP, sender: str) -> None:
        """Send from the address `sender` by `client`."""
        self._client = client
        self._sender = sender

    async def send(self, message: EmailMessage) -> None:
        """Have the server take a mail. Raises MailRefused and SmtpAway (connect anew then)."""
        try:
            async with asyncio.timeout(SEND_DEADLINE_S):
                await self._client.sendmail(self._sender, [str(message["To"])], message.as_bytes())
        except aiosmtplib.SMTPRecipientsRefused as error:
            raise _refused(error.recipients[0]) from error
        except aiosmtplib.SMTPDataError as error:
            raise _refused(error) from error
        except (aiosmtplib.SMTPException, OSError) as error:
            raise SmtpAway(_seen(error)) from error


@asynccontextmanager
async def connected(server: SmtpServer, sender: str) -> AsyncIterator[SmtpConnection]:
    """A connection, logged in, that sends from the address `sender`. Raises SmtpAway."""
    client = aiosmtplib.SMTP(
        hostname=server.host,
        port=server.port,
        username=server.user,
        password=server.password,
        local_hostname=socket.gethostname(),
        timeout=SEND_DEADLINE_S,
        use_tls=server.tls,
        start_tls=server.starttls,
    )
    try:
        try:
            async with asyncio.timeout(CONNECT_DEADLINE_S):
                await client.connect()
        except (aiosmtplib.SMTPException, OSError) as error:
            raise SmtpAway(_seen(error)) from error
        yield SmtpConnection(client, sender)
        with suppress(aiosmtplib.SMTPException, OSError):
            async with asyncio.timeout(_QUIT_DEADLINE_S):
                await client.quit()
    finally:
        client.close()


def _refused(error: aiosmtplib.SMTPResponseException) -> Exception:
    if error.code == _CLOSING:
        return SmtpAway(_seen(error))
    return MailRefused(error.code, error.message)


def _seen(error: Exception) -> str:
    """What an error was, without the words of the server."""
    name = type(error).__name__.removeprefix("SMTP")
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return f"{name} {error.code}"
    if isinstance(error, (aiosmtplib.SMTPConnectError, ssl.SSLError)):
        return f"{name}: {error}"
    return name
