"""What PostgreSQL knows about stock, small enough to be looked at: the shelves of the gate's tests."""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping

from app.domain.errors import Unavailable


class Books:
    """Pieces on hand and pieces in orders, SKU by SKU. `delay_s` is how long a question takes."""

    def __init__(self, **on_hand: int) -> None:
        self.on_hand = Counter(on_hand)
        self.sold: Counter[str] = Counter()
        self.questions: list[Collection[str] | None] = []
        self.delay_s = 0.0
        self.is_away = False

    def left(self, sku: str) -> int:
        """Pieces that are in no order."""
        return self.on_hand[sku] - self.sold[sku]

    async def available(self, skus: Collection[str] | None) -> Mapping[str, int]:
        """As the gate asks PostgreSQL: what was committed when the question came."""
        self.questions.append(None if skus is None else set(skus))
        found = {
            sku: self.left(sku) for sku in (self.on_hand if skus is None else skus) if sku in self.on_hand
        }
        await asyncio.sleep(self.delay_s)
        if self.is_away:
            raise Unavailable("postgres")
        return found
