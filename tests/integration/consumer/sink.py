"""A mail server of the test's own, which may be told to refuse, and started and stopped."""

import asyncio
import email
import email.policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP

from app.dev.stack.ports import any_free


class Sink:
    """Takes mails on 127.0.0.1. `answers` (command → answer) says what it says instead of yes."""

    def __init__(self) -> None:
        self.port = any_free()
        self.mails: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.answers: dict[str, str] = {}
        self.connections = 0
        self.taken = asyncio.Event()
        self.going_on = asyncio.Event()
        self.going_on.set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"smtp://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _connection(self) -> SMTP:
        self.connections += 1
        return SMTP(self, hostname="sink.test", loop=asyncio.get_running_loop())

    async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        """Who writes."""
        if "MAIL" in self.answers:
            return self.answers["MAIL"]
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        """To whom."""
        if "RCPT" in self.answers:
            return self.answers["RCPT"].format(address=address)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        """What."""
        if "DATA" in self.answers:
            return self.answers["DATA"]
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        self.mails.append(message)
        self.recipients += envelope.rcpt_tos
        self.taken.set()
        await self.going_on.wait()
        return "250 OK"

    async def has(self, number: int, *, timeout_s: float = 60) -> list[EmailMessage]:
        """Wait until there are so many mails; all of them."""
        try:
            async with asyncio.timeout(timeout_s):
                while len(self.mails) < number:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"{len(self.mails)} of {number} mails") from None
        return self.mails

    def kinds(self) -> list[str]:
        """What kinds of mail came, in their order, by Message-ID."""
        return [str(mail["Message-ID"]).partition("@")[0].rpartition(".")[2] for mail in self.mails]
