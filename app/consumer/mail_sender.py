"""`MailSender`: sends the mails that are due, over one connection for as many as there are.

Each process of the consumer has one; rows are claimed, so they share the work. A mail is sent at least once
and always under the same Message-ID: if the process dies after the server took it and before that is written
down, it is sent again when the claim runs out. A server that is away costs no mail an attempt; one that a
server puts off is tried again less and less often for about four days; one that it refuses for good is kept
as failed. Logs name the mail, never the address, nor the server's words, which may quote it.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final

from app.consumer.notifications import KINDS
from app.consumer.patience import Patience
from app.consumer.projections import Applied
from app.infra.mail.smtp import (
    SEND_DEADLINE_S,
    MailRefused,
    SmtpAway,
    SmtpConnection,
    SmtpServer,
    connected,
)
from app.infra.mail.writing import MailWriter, UnwritableError
from app.infra.postgres.mails import Mail, PostgresMails
from app.observability import metrics, tracing
from app.observability.logging import logger

POLL_S: Final = 1.0
GATHER_S: Final = 0.02
"""How long is waited for more mails once there is one."""
BATCH_MAX: Final = 50
LEASE_S: Final = 60.0
CONNECTION_S: Final = 60.0
"""How long a connection is used: servers dislike long ones."""
ATTEMPTS_MAX: Final = 20
FIRST_PAUSE_S: Final = 30.0
LONGEST_PAUSE_S: Final = 6 * 3600.0
AWAY_LONGEST_S: Final = 5.0
"""How long at most between two attempts to reach a server that is away."""
UPKEEP_INTERVAL_S: Final = 10.0
FORGET_MAX: Final = 1000

SENT: Final = "sent"
PUT_OFF: Final = "put_off"
FAILED: Final = "failed"

log = logger("mail")


def pause_s(attempts: int) -> float:
    """How long to wait after so many attempts, in seconds: from half a minute to six hours, jittered."""
    longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 4.0 ** (attempts - 1))
    return longest * random.uniform(0.75, 1.25)  # noqa: S311 - jitter


class MailSender:
    """Sends from one address by one server."""

    def __init__(self, mails: PostgresMails, server: SmtpServer, writer: MailWriter) -> None:
        """Send what is in `mails` as `writer` writes it, by `server`."""
        self._mails = mails
        self._server = server
        self._writer = writer
        self._written = asyncio.Event()
        self._away = Patience("smtp", longest_s=AWAY_LONGEST_S)

    @property
    def lasting(self) -> dict[str, Callable[[Patience], Awaitable[None]]]:
        """What runs for as long as the process does, by name."""
        return {"mail_sender": self.run, "mail_upkeep": self.keep}

    async def wake(self, applied: Applied) -> None:
        """Events were handled: there may be something to send."""
        if any(event.type in KINDS for event in applied.events):
            self._written.set()

    async def run(self, patience: Patience) -> None:
        """Send, for ever. Raises Unavailable when PostgreSQL is away."""
        while True:
            if not await self._mails.is_due():
                patience.well()
                await self._pause()
                continue
            try:
                async with connected(self._server, self._writer.address) as connection:
                    self._away.well()
                    await self._send_all(connection)
            except SmtpAway as error:
                await asyncio.sleep(self._away.delay_s(error))

    async def keep(self, patience: Patience) -> None:
        """Measure how long mails wait; delete what was dealt with long ago. Raises Unavailable."""
        while True:
            metrics.MAILS_OLDEST.set(await self._mails.oldest_s())
            await self._mails.forget(FORGET_MAX)
            patience.well()
            await asyncio.sleep(UPKEEP_INTERVAL_S)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(POLL_S):
                await self._written.wait()
            await asyncio.sleep(GATHER_S)
        except TimeoutError:
            pass
        self._written.clear()

    async def _send_all(self, connection: SmtpConnection) -> None:
        """Send what there is, and what comes in the next moment. Raises SmtpAway, and Unavailable."""
        until = monotonic() + CONNECTION_S
        while monotonic() < until:
            if not await self._send_some(connection):
                await self._pause()
                if not await self._send_some(connection):
                    return

    async def _send_some(self, connection: SmtpConnection) -> int:
        """Claim some mails and send them; how many. Raises SmtpAway, and Unavailable.

        What was claimed and not tried is given back, also when this is cancelled: then the mail under way
        comes to its end first, which is a matter of seconds, because otherwise it would be sent twice.
        """
        until = monotonic() + LEASE_S - SEND_DEADLINE_S
        claimed = await self._mails.claim(BATCH_MAX, LEASE_S)
        left = claimed[::-1]
        try:
            while left and monotonic() < until:
                sending = asyncio.create_task(self._send(connection, left.pop()))
                try:
                    await asyncio.shield(sending)
                except asyncio.CancelledError:
                    await asyncio.wait({sending})
                    raise
        finally:
            await self._mails.give_back(left)
        return len(claimed)

    async def _send(self, connection: SmtpConnection, mail: Mail) -> None:
        ids: tracing.Attributes = {"holdfast.order_id": mail.order.id, "holdfast.mail": mail.kind}
        try:
            with tracing.step("send mail", "client", mail.traceparent, ids):
                message = self._writer.write(mail)
                await connection.send(message)
        except MailRefused as error:
            await self._refused(mail, str(error), is_final=error.is_final, code=error.code)
        except UnwritableError as error:
            await self._refused(mail, str(error), is_final=True, code=None)
        except SmtpAway as error:
            await self._refused(mail, str(error), is_final=False, code=None)
            raise
        except Exception as error:  # a defect of ours, a template's for one: it holds up this mail only
            log.exception("mail_not_written", mail=mail.id)
            await self._refused(mail, repr(error), is_final=False, code=None)
        else:
            await self._mails.sent(mail)
            metrics.MAILS.labels(SENT).inc()
            log.info("mail_sent", mail=mail.id, attempts=mail.attempts)

    async def _refused(self, mail: Mail, why: str, *, is_final: bool, code: int | None) -> None:
        """Try again later, or never."""
        if is_final or mail.attempts >= ATTEMPTS_MAX:
            await self._mails.failed(mail, why)
            metrics.MAILS.labels(FAILED).inc()
            log.error("mail_failed", mail=mail.id, attempts=mail.attempts, code=code)
        else:
            await self._mails.later(mail, pause_s(mail.attempts), why)
            metrics.MAILS.labels(PUT_OFF).inc()
            log.warning("mail_put_off", mail=mail.id, attempts=mail.attempts, code=code)


def mail_sender(mails: PostgresMails, smtp_url: str | None, sender: str) -> MailSender | None:
    """What sends mails from `sender` by the server at `smtp_url`; None where there is no server."""
    if smtp_url is None:
        log.info("mail_is_off", why="SMTP_URL is not set: customers are not told of their orders")
        return None
    return MailSender(mails, SmtpServer.parse(smtp_url), MailWriter(sender))
