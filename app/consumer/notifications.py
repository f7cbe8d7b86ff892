"""The handler of the group `notifications`: what a customer is to be told by mail.

It only writes rows, in the transaction of the group's marks, for orders that name an address; they are sent
by `mail_sender.py`. (Live notifications are the relay's: it tells every event on `hf:<environment>:live`.)
If the process dies here, nothing was written and the events come again.
"""

from collections.abc import Sequence
from typing import Final

from app.contracts.streams import Envelope, happened_at
from app.domain import events as e
from app.infra.postgres import mails
from app.infra.postgres.mails import News
from app.infra.postgres.projections import Effects

KINDS: Final = {
    e.TYPES[e.OrderAccepted]: "accepted",
    e.TYPES[e.OrderConfirmed]: "confirmed",
    e.TYPES[e.OrderDispatched]: "dispatched",
    e.TYPES[e.OrderCompleted]: "completed",
    e.TYPES[e.OrderRejected]: "rejected",
    e.TYPES[e.OrderCancelled]: "cancelled",
}
"""Event → the kind of mail."""


async def tell_customer(events: Sequence[Envelope], effects: Effects) -> None:
    """Have the customers told, by mail, of orders that name an address."""
    news = [News(each.subject, KINDS[each.type], each.sequence, happened_at(each)) for each in events]
    await mails.write(effects.connection, news)
