"""A shop in front of the platform: places orders as a client should, and audits what became of them."""

import asyncio
import itertools
import uuid
from collections import Counter
from typing import Any

import asyncpg
import httpx

from app.domain import chain

FINAL = {"completed", "rejected", "cancelled"}
SETTLE_TIMEOUT_S = 90.0


class Shop:
    """Talks HTTP to the gateway; repeats what was not answered, with the same key."""

    def __init__(self, status: dict[str, Any]) -> None:
        self.status = status
        self.customer = f"acceptance-{uuid.uuid4().hex[:12]}"
        self.url = status["gateway"]["url"]
        self.http = httpx.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {status['api_key']}"},
            timeout=10,
            limits=httpx.Limits(max_connections=64),
        )
        self.stocked: dict[str, int] = {}
        self.placed: dict[str, dict[str, Any]] = {}

    async def close(self) -> None:
        """Hang up."""
        await self.http.aclose()

    async def stock(self, sku: str, pieces: int, *, price: int = 1250) -> None:
        """Put a product in place with stock in one warehouse."""
        answer = await self.http.put(
            f"/v1/products/{sku}",
            json={"sku": sku, "name": sku, "price": {"amount": price, "currency": "USD"}},
        )
        assert answer.is_success, answer.text
        answer = await self.http.post(
            f"/v1/inventory/{sku}/adjustments",
            json={"warehouse": "east", "delta": pieces, "reason": "received"},
            headers={"Idempotency-Key": f"stock-{sku}"},
        )
        assert answer.is_success, answer.text
        self.stocked[sku] = pieces

    async def restock(self, sku: str, pieces: int, *, key: str) -> None:
        """Put more of a product on its shelf."""
        answer = await self.http.post(
            f"/v1/inventory/{sku}/adjustments",
            json={"warehouse": "east", "delta": pieces, "reason": "received"},
            headers={"Idempotency-Key": key},
        )
        assert answer.is_success, answer.text
        self.stocked[sku] += pieces

    def body(self, sku: str, quantity: int = 1, method: str = "pm_card_visa") -> dict[str, Any]:
        """What an order of one line says."""
        return {
            "customer_id": self.customer,
            "currency": "USD",
            "lines": [{"sku": sku, "quantity": quantity}],
            "payment_method": method,
        }

    async def place(
        self, key: str, sku: str, quantity: int = 1, method: str = "pm_card_visa"
    ) -> httpx.Response:
        """Place one order; whatever is not an answer is asked again with the same key."""
        body = self.body(sku, quantity, method)
        async with asyncio.timeout(SETTLE_TIMEOUT_S):
            while True:
                try:
                    answer = await self.http.post("/v1/orders", json=body, headers={"Idempotency-Key": key})
                except httpx.TransportError:
                    await asyncio.sleep(0.1)
                    continue
                if answer.status_code not in {429, 503} and answer.status_code != 409:
                    break
                if answer.status_code == 409 and not answer.json()["type"].endswith("in-progress"):
                    break
                await asyncio.sleep(0.1)
        if answer.status_code == 202:
            self.placed[answer.json()["id"]] = answer.json()
        return answer

    async def cancel(self, order_id: str, key: str) -> int:
        """Cancel an order, asking again until there is an answer; 200, or 409 where it was too late."""
        async with asyncio.timeout(SETTLE_TIMEOUT_S):
            while True:
                try:
                    answer = await self.http.post(
                        f"/v1/orders/{order_id}/cancel", json={}, headers={"Idempotency-Key": key}
                    )
                except httpx.TransportError:
                    await asyncio.sleep(0.1)
                    continue
                if answer.status_code in {200, 409}:
                    return answer.status_code
                assert answer.status_code in {429, 503}, answer.text
                await asyncio.sleep(0.1)

    async def order(self, order_id: str) -> dict[str, Any]:
        """One order as it is now."""
        answer = await self.http.get(f"/v1/orders/{order_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()  # type: ignore[no-any-return]

    async def orders(self) -> dict[str, dict[str, Any]]:
        """Every order of this shop, by id, from the list."""
        found: dict[str, dict[str, Any]] = {}
        cursor = None
        while True:
            query = {"customer_id": self.customer, "limit": "200"} | ({"cursor": cursor} if cursor else {})
            answer = await self.http.get("/v1/orders", params=query)
            assert answer.status_code == 200, answer.text
            page = answer.json()
            for order in page["items"]:
                assert order["id"] not in found, "an order is listed once"
                found[order["id"]] = order
            cursor = page["next_cursor"]
            if cursor is None:
                return found

    async def settled(self, timeout_s: float = SETTLE_TIMEOUT_S) -> dict[str, dict[str, Any]]:
        """Wait until every order is final; all of them."""
        found: dict[str, dict[str, Any]] = {}
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    found = await self.orders()
                    if self.placed.keys() <= found.keys() and all(
                        o["status"] in FINAL for o in found.values()
                    ):
                        return found
                    await asyncio.sleep(0.25)
        except TimeoutError:
            stuck = [o for o in found.values() if o["status"] not in FINAL][:5]
            missing = self.placed.keys() - found.keys()
            raise AssertionError(f"not settled: {stuck}; missing: {missing}") from None

    async def audit(self, settle_timeout_s: float = SETTLE_TIMEOUT_S) -> Counter[str]:
        """Hold orders, stock, ledger, events and the provider's own books against one another."""
        orders = await self.settled(settle_timeout_s)
        assert set(orders) == set(self.placed), "what was answered 202 is there, and nothing else"
        completed = {i: o for i, o in orders.items() if o["status"] == "completed"}
        total = sum(o["totals"]["total"]["amount"] for o in completed.values())
        await self._audit_provider(orders, completed, total)
        await self._audit_stock(completed)
        connection = await asyncpg.connect(self.status["postgres"]["dsn"])
        try:
            await self._audit_ledger(connection, list(orders), total)
            await self._audit_events(connection, orders)
        finally:
            await connection.close()
        return Counter(o["status"] for o in orders.values())

    async def _audit_provider(
        self, orders: dict[str, dict[str, Any]], completed: dict[str, dict[str, Any]], total: int
    ) -> None:
        intents = [i for i in await self.intents() if i["metadata"].get("order_id") in orders]
        captures = Counter(i["metadata"]["order_id"] for i in intents if i["amount_received"])
        assert all(n == 1 for n in captures.values()), "no order is charged twice"
        assert set(captures) == {i for i, o in completed.items() if o["totals"]["total"]["amount"]}
        assert sum(i["amount_received"] for i in intents) == total, "charged is what completed orders cost"
        assert not [i for i in intents if i["status"] == "requires_capture"], "nothing is left on hold"

    async def intents(self) -> list[dict[str, Any]]:
        """The provider's books."""
        found: list[dict[str, Any]] = []
        async with httpx.AsyncClient(
            base_url=self.status["sandbox"]["url"], headers={"Authorization": "Bearer sk_test_audit"}
        ) as http:
            while True:
                query = {"limit": "100"} | ({"starting_after": found[-1]["id"]} if found else {})
                page = (await http.get("/v1/payment_intents", params=query)).json()
                found += page["data"]
                if not page["has_more"]:
                    return found

    async def _audit_stock(self, completed: dict[str, dict[str, Any]]) -> None:
        lines = itertools.chain.from_iterable(o["lines"] for o in completed.values())
        shipped: Counter[str] = Counter()
        for line in lines:
            shipped[line["sku"]] += line["quantity"]
        for sku, pieces in self.stocked.items():
            stock = (await self.http.get(f"/v1/inventory/{sku}")).json()
            assert sum(w["reserved"] for w in stock["warehouses"]) == 0, f"nothing of {sku} stays reserved"
            assert sum(w["on_hand"] for w in stock["warehouses"]) == pieces - shipped[sku], f"{sku} adds up"

    async def _audit_ledger(self, connection: asyncpg.Connection, orders: list[str], total: int) -> None:
        rows = await connection.fetch(
            "SELECT account, sum(debit) AS debit, sum(credit) AS credit FROM ledger_entries "
            "WHERE order_id = ANY ($1) GROUP BY account",
            orders,
        )
        balance = {row["account"]: row["debit"] - row["credit"] for row in rows}
        assert sum(balance.values()) == 0, "debits equal credits"
        assert balance.get("provider_balance", 0) == total == -balance.get("revenue", 0)
        assert balance.get("authorizations", 0) == 0, "nothing is held"

    async def _audit_events(self, connection: asyncpg.Connection, orders: dict[str, dict[str, Any]]) -> None:
        rows = await connection.fetch("SELECT * FROM events ORDER BY subject, sequence")
        last: dict[str, Any] = {}
        for row in rows:
            before = last.get(row["subject"])
            assert row["sequence"] == (before["sequence"] + 1 if before else 1), "sequences have no gaps"
            previous = before["hash"] if before else None
            expected = chain.link(
                previous,
                row["subject"],
                row["sequence"],
                row["type"],
                row["time"],
                row["correlation_id"],
                row["traceparent"],
                row["data"],
            )
            assert row["hash"] == expected, "the chain of hashes holds"
            last[row["subject"]] = row
        for order_id, order in orders.items():
            assert last[order_id]["sequence"] == order["version"]
