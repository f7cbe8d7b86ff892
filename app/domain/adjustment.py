"""A price adjustment: what an order comes to under a corrected price list, beside what was agreed.

What was agreed and charged stays what it is; an adjustment moves no money. Giving the difference back, or
asking for it, is a step of its own that reads what is recorded here.
"""

from datetime import datetime

import msgspec


class AdjustedLine(msgspec.Struct, frozen=True):
    """A line whose price was wrong: what a piece of it cost `before`, and what it costs `after`."""

    sku: str
    quantity: int
    before: int
    after: int


class PriceAdjustment(msgspec.Struct, frozen=True):
    """What one replay of a price list made of one order. Amounts are minor units of the order's currency.

    `before` is what the order came to with all adjustments up to this one, `after` what it comes to with it.
    `lines` are those that differ. It was made `at`.
    """

    id: str
    replay: str
    price_list: str
    before: int
    after: int
    lines: tuple[AdjustedLine, ...]
    at: datetime

    @property
    def difference(self) -> int:
        """What it changed; below zero, the customer was asked for too much."""
        return self.after - self.before
