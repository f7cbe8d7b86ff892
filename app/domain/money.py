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


_DECIMALS: Final = {
    **dict.fromkeys(
        (
            *(
                "BIF",
                "CLP",
                "DJF",
                "GNF",
                "ISK",
                "JPY",
                "KMF",
                "KRW",
                "PYG",
                "RWF",
                "UGX",
                "UYI",
                "VND",
                "VUV",
            ),
            *("XAF", "XOF", "XPF"),
        ),
        0,
    ),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}
"""How many digits of an amount are behind the point, in the currencies where it is not two (ISO 4217)."""


def as_text(money: Money) -> str:
    """Money as people read it: `14.67 USD`, `1467 JPY`."""
    decimals = _DECIMALS.get(money.currency, 2)
    sign = "-" if money.amount < 0 else ""
    digits = str(abs(money.amount)).rjust(decimals + 1, "0")
    whole, part = (digits[:-decimals], f".{digits[-decimals:]}") if decimals else (digits, "")
    return f"{sign}{whole}{part} {money.currency}"
