"""What an order's customer reads: a pair of templates for each kind of mail (`templates/`: text and HTML).

The first line of the text is the subject. A mail says no more of a person than its address: no name, no
place. The same mail is written again with the same Message-ID and date, so that a second copy is known as
one. Pure: nothing is sent or kept here.
"""

import re
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from pathlib import Path
from typing import Any, Final

import jinja2

from app.domain.events import Line, Reason
from app.domain.fulfilment import FulfilmentLine
from app.domain.money import Money, as_text
from app.domain.order import Order
from app.infra.postgres.mails import Mail

KINDS: Final = ("accepted", "confirmed", "dispatched", "completed", "rejected", "cancelled")
"""What a customer is told of: each is a status that an order reaches."""

_REASONS: Final = {
    "out_of_stock": "We do not have enough of these any more:",
    "undeliverable": "The carrier does not deliver to the address that you gave.",
    "payment_declined": "Your bank has refused the payment.",
}
_OTHER_REASON: Final = "Something went wrong that we could not put right."
_DECLINES: Final = {
    "insufficient_funds": "Your bank has refused the payment: there is not enough money on the account.",
    "expired_card": "The payment was refused: the card has expired.",
    "incorrect_cvc": "The payment was refused: the card's security code was not right.",
    "incorrect_number": "The payment was refused: the card's number was not right.",
    "authentication_required": "Your bank wants you to approve the payment, which cannot be done here yet.",
}
"""What may be said of a refused payment. That a card was lost or stolen is between its owner and the bank."""

_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL: Final = "[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
_ADDRESS: Final = re.compile(
    # `=?…?=` would be taken for encoded words, and mean whatever they encode: another header's end, or comma.
    rf"(?!.*=\?)(?=.{{3,254}}\Z)(?=[^@]{{1,64}}@){_ATOM}(\.{_ATOM})*@{_LABEL}(\.{_LABEL})*\Z"
)
_environment: Final = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=jinja2.select_autoescape(("html",)),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


class UnwritableError(Exception):
    """There is nobody to write to, or not at an address that a mail can have."""


class MailWriter:
    """Writes as one sender."""

    def __init__(self, sender: str) -> None:
        """Write as `sender`: an address, or `Name <address>`."""
        name, self.address = parseaddr(sender)
        local, _, self._domain = self.address.rpartition("@")
        self._from = Address(name, local, self._domain)
        self._shop = name or self._domain

    def write(self, mail: Mail) -> EmailMessage:
        """The mail, ready to be sent. Raises UnwritableError."""
        if mail.to is None:
            raise UnwritableError("the order names no address")
        if not _ADDRESS.match(mail.to):
            raise UnwritableError("no mail can have this address")
        words = {"shop": self._shop, **_words(mail.order, mail.names)}
        text = _environment.get_template(f"{mail.kind}.txt").render(words)
        first, _, body = text.partition("\n")
        subject = first.removeprefix("Subject: ")
        page = _environment.get_template(f"{mail.kind}.html").render(words, subject=subject)
        message = EmailMessage(policy=SMTP)
        message["Message-ID"] = f"<{mail.id}@{self._domain}>"
        message["Date"] = format_datetime(mail.written_at)
        message["From"] = self._from
        message["To"] = mail.to
        message["Subject"] = subject
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(_tidy(body), cte="quoted-printable")
        message.add_alternative(page, subtype="html", cte="quoted-printable")
        return message


def _words(order: Order, names: Any) -> dict[str, Any]:  # noqa: ANN401 - any mapping of SKU to name
    """What the templates may use."""

    def money(amount: int) -> str:
        return as_text(Money(amount, order.currency))

    def goods(line: Line | FulfilmentLine) -> dict[str, Any]:
        said = {"name": names.get(line.sku, line.sku), "quantity": line.quantity}
        return said | {"amount": money(line.amount)} if isinstance(line, Line) else said

    reason = order.reason
    return {
        "order_id": order.id,
        "lines": [goods(line) for line in order.lines],
        "total": money(order.total),
        "costs": order.total > 0,
        "charged": money(order.payment.captured) if order.payment.captured else None,
        "returned": money(order.payment.refunded) if order.payment.refunded else None,
        "parcels": [
            {"tracking_number": parcel.tracking_number, "lines": [goods(line) for line in parcel.lines]}
            for parcel in order.fulfilments
        ],
        "reason": _plain(reason),
        "unavailable": [names.get(sku, sku) for sku in reason.skus] if reason is not None else [],
    }


def _plain(reason: Reason | None) -> str:
    """Why an order was rejected, in words for the one who placed it."""
    if reason is None:
        return _OTHER_REASON
    for code in (reason.decline_code, reason.provider_code):
        if reason.code == "payment_declined" and code in _DECLINES:
            return _DECLINES[code]
    return _REASONS.get(reason.code, _OTHER_REASON)


def _tidy(text: str) -> str:
    """A text without the empty lines that templates leave behind."""
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
