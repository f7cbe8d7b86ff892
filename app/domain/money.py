"""Money: an integer number of minor units with its currency. There are no floats anywhere near it."""

import re
from typing import Final

import msgspec

AMOUNT_MAX: Final = 99_999_999
"""The largest amount of one price or one order, in minor units: eight digits, as the provider allows."""

CURRENCY: Final = re.compile(r"[A-Z]{3}\Z")
"""ISO 4217 alphabetic codes, upper case."""


class Money(msgspec.Struct, frozen=True):
    """`amount` minor units (cents, for USD) of `currency` (ISO 4217)."""

    amount: int
    currency: str
