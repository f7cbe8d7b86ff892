"""The audit of development payments: every intent read back through the public API, and summed.

Owns nothing. It asks as anybody can ask at Stripe (`GET /v1/payment_intents`, page by page), so the sums
are the provider's own books and not what our database believes.
"""

from collections import Counter

import httpx
import msgspec

PAGE_SIZE = 100
TIMEOUT_S = 30.0
API_KEY = "sk_test_audit"


class _Intent(msgspec.Struct):
    id: str
    amount: int
    amount_received: int
    amount_capturable: int
    currency: str
    status: str
    metadata: dict[str, str] = {}


class _Page(msgspec.Struct):
    data: list[_Intent]
    has_more: bool


_decode = msgspec.json.Decoder(_Page).decode


class PaymentsAudit(msgspec.Struct):
    """What the provider's books say. Amounts are minor units, by currency (in lower case, as there)."""

    intents: int = 0
    captured: dict[str, int] = {}
    authorized: dict[str, int] = {}
    """Held and neither taken nor let go."""
    statuses: dict[str, int] = {}
    intents_per_order: dict[str, int] = {}
    captures_per_order: dict[str, int] = {}
    captured_per_order: dict[str, int] = {}
    without_order: int = 0
    """Intents that carry no `metadata.order_id`."""

    @property
    def captures_per_order_max(self) -> int:
        """The largest number of captures that one order has; more than 1 means charged twice."""
        return max(self.captures_per_order.values(), default=0)


async def audit_payments(url: str, *, api_key: str = API_KEY) -> PaymentsAudit:
    """Read all intents at `url` and sum them. Raises httpx.HTTPError when the provider does not answer."""
    captured: Counter[str] = Counter()
    authorized: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    intents: Counter[str] = Counter()
    captures: Counter[str] = Counter()
    captured_per_order: Counter[str] = Counter()
    async with httpx.AsyncClient(
        base_url=url, headers={"authorization": f"Bearer {api_key}"}, timeout=TIMEOUT_S
    ) as client:
        parameters: dict[str, str | int] = {"limit": PAGE_SIZE}
        while True:
            answer = await client.get("/v1/payment_intents", params=parameters)
            page = _decode(answer.raise_for_status().content)
            for intent in page.data:
                order = intent.metadata.get("order_id", "")
                statuses[intent.status] += 1
                intents[order] += 1
                if intent.amount_capturable:
                    authorized[intent.currency] += intent.amount_capturable
                if intent.amount_received:
                    captured[intent.currency] += intent.amount_received
                    captures[order] += 1
                    captured_per_order[order] += intent.amount_received
            if not page.has_more:
                break
            parameters["starting_after"] = page.data[-1].id
    for per_order in (captures, captured_per_order):
        per_order.pop("", None)
    return PaymentsAudit(
        intents=intents.total(),
        captured=dict(captured),
        authorized=dict(authorized),
        statuses=dict(statuses),
        without_order=intents.pop("", 0),
        intents_per_order=dict(intents),
        captures_per_order=dict(captures),
        captured_per_order=dict(captured_per_order),
    )
