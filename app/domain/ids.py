"""Identifiers: time-sortable, made from values that the caller brings (the domain has no clock and no dice).

`ord_` + 26 characters of lower-case Crockford base 32: 48 bits of Unix milliseconds, then 80 random bits
(the ULID layout). Everything that belongs to an order derives its id from the order's, so that a step that
is done twice names the same thing twice.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS: Final = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
"""Ten bits as two characters."""

REPLAY_ID: Final = re.compile(r"rpl_[0-9a-hjkmnp-tv-z]{26}\Z")
WEBHOOK_ENDPOINT_ID: Final = re.compile(r"whe_[0-9a-hjkmnp-tv-z]{26}\Z")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

ORDER_ID: Final = re.compile(r"ord_[0-9a-hjkmnp-tv-z]{26}\Z")
FULFILMENT_ID: Final = re.compile(r"ful_([0-9a-hjkmnp-tv-z]{26})_[1-9][0-9]{0,3}\Z")

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
"""What customers, SKUs and warehouses may be called: safe in keys, paths, logs and shells."""


def order_id(unix_ms: int, random: bytes) -> str:
    """The id of an order accepted at `unix_ms` (milliseconds), made unique by ten `random` bytes."""
    if len(random) != 10:
        msg = "an order id takes exactly ten random bytes"
        raise ValueError(msg)
    if not 0 <= unix_ms < 1 << 48:
        msg = "an order id takes 48 bits of milliseconds"
        raise ValueError(msg)
    number = unix_ms << 80 | int.from_bytes(random, "big")
    return "ord_" + "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])


def replay_id(unix_ms: int, random: bytes) -> str:
    """The id of a replay that was asked for at `unix_ms`, made unique by ten `random` bytes."""
    return "rpl_" + order_id(unix_ms, random).removeprefix("ord_")


def webhook_endpoint_id(unix_ms: int, random: bytes) -> str:
    """The id of a webhook endpoint that was made at `unix_ms`, made unique by ten `random` bytes."""
    return "whe_" + order_id(unix_ms, random).removeprefix("ord_")


def made_at(order: str) -> datetime | None:
    """When an order's id was made, in UTC; None when this is not an order's id."""
    if not ORDER_ID.match(order):
        return None
    unix_ms = 0
    for character in order[4:14]:  # ten of the 26 characters: 50 bits, of which the first two are zero
        unix_ms = unix_ms << 5 | _ALPHABET.index(character)
    return _EPOCH + timedelta(milliseconds=unix_ms)


def fulfilment_id(order: str, number: int) -> str:
    """The id of the order's `number`-th fulfilment, counted from 1."""
    return f"ful_{order.removeprefix('ord_')}_{number}"


def adjustment_id(order: str, number: int) -> str:
    """The id of the order's `number`-th price adjustment, counted from 1."""
    return f"adj_{order.removeprefix('ord_')}_{number}"


def order_of_fulfilment(fulfilment: str) -> str | None:
    """The order that a fulfilment belongs to; None when this is not a fulfilment's id."""
    match = FULFILMENT_ID.match(fulfilment)
    return f"ord_{match.group(1)}" if match else None
