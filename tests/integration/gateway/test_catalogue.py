"""Products, prices and stock over HTTP, with the events they leave behind."""

import asyncio
import json

from app.domain.chain import link
from tests.integration.gateway.lifecycle import confirm
from tests.integration.gateway.served import Gateway, problem


async def events(gateway: Gateway, sku: str):
    """The SKU's events; checks their chain and their places in the outbox."""
    rows = await gateway.database.fetch("SELECT * FROM events WHERE subject = $1 ORDER BY sequence", sku)
    previous = None
    for sequence, row in enumerate(rows, 1):
        assert (row["sequence"], row["previous_hash"]) == (sequence, previous)
        said = (row["type"], row["time"], row["correlation_id"], row["traceparent"], row["data"])
        assert row["hash"] == link(previous, sku, sequence, *said)
        previous = row["hash"]
    state = await gateway.database.fetchrow("SELECT version, last_hash FROM products WHERE sku = $1", sku)
    assert (state["version"], state["last_hash"]) == (len(rows), previous)
    places = await gateway.database.fetch(
        "SELECT sequence FROM event_outbox WHERE subject = $1 ORDER BY position", sku
    )
    assert [row["sequence"] for row in places] == [row["sequence"] for row in rows]
    return [(row["type"], json.loads(row["data"])) for row in rows]


def usd(amount: int, currency: str = "USD"):
    """Money."""
    return {"amount": amount, "currency": currency}


async def test_a_product_is_made_changed_and_read(gateway: Gateway):
    """201 with Location, then 200; only a price is an event, and a currency is part of a price."""
    path = "/v1/products/mug"
    put = gateway.client.put
    first = await put(path, json={"name": "Mug", "price": usd(900)}, headers={"X-Correlation-ID": "spring"})
    assert (first.status_code, first.headers["location"]) == (201, path)
    assert first.json() == {"sku": "mug", "name": "Mug", "price": usd(900)}
    assert (await put(path, json=first.json())).status_code == 200
    assert (await put(path, json={"name": "Big mug", "price": usd(900)})).status_code == 200
    assert (await put(path, json={"name": "Big mug", "price": usd(950)})).status_code == 200
    last = await put(path, json={"name": "Big mug", "price": usd(950, "EUR")})
    assert (await gateway.client.get(path)).json() == last.json()
    changes = await events(gateway, "mug")
    assert [kind for kind, _ in changes] == ["price.changed.v1"] * 3
    assert [(data["before"], data["after"]) for _, data in changes] == [
        (None, usd(900)),
        (usd(900), usd(950)),
        (usd(950), usd(950, "EUR")),
    ]
    assert (
        await gateway.database.fetchval("SELECT correlation_id FROM events WHERE subject = 'mug'") == "spring"
    )


async def test_products_and_stock_are_listed_in_pages(gateway: Gateway):
    """By SKU, without gaps or repetitions; a product without stock is listed with none."""
    await gateway.client.put("/v1/products/aaa", json={"name": "A", "price": usd(1)})
    for path in ("/v1/products", "/v1/inventory"):
        seen, cursor = [], None
        while True:
            query = {"limit": 3, **({"cursor": cursor} if cursor else {})}
            page = (await gateway.client.get(path, params=query)).json()
            seen += [item["sku"] for item in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert seen == sorted(seen)
        assert len(seen) == len(set(seen)) == 8
        problem(
            await gateway.client.get(path, params={"cursor": "b3JkZXJzOng"}),
            400,
            "invalid-parameter",
            "/cursor",
        )
    assert (await gateway.client.get("/v1/inventory/aaa")).json() == {
        "sku": "aaa",
        "available": 0,
        "warehouses": [],
    }


async def test_stock_is_adjusted_once_per_key(gateway: Gateway):
    """A new name makes a new warehouse; a repetition is answered with the first answer; each is an event."""
    path = "/v1/inventory/tea-sample/adjustments"
    body = {"warehouse": "north", "delta": 7, "reason": "delivery"}
    first = await gateway.post(path, body, idempotency="a")
    assert first.status_code == 200
    assert first.json() == {
        "sku": "tea-sample",
        "available": 20_007,
        "warehouses": [
            {"warehouse": "east", "on_hand": 10_000, "reserved": 0, "available": 10_000},
            {"warehouse": "north", "on_hand": 7, "reserved": 0, "available": 7},
            {"warehouse": "west", "on_hand": 10_000, "reserved": 0, "available": 10_000},
        ],
    }
    again = await gateway.post(path, body, idempotency="a")
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    problem(await gateway.post(path, {**body, "delta": 8}, idempotency="a"), 422, "idempotency-key-reused")
    assert (await gateway.post(path, {**body, "delta": -7})).json()["available"] == 20_000
    kinds = await events(gateway, "tea-sample")
    assert [kind for kind, _ in kinds] == ["price.changed.v1"] + ["inventory.adjusted.v1"] * 4
    assert kinds[-1][1] == {
        "type": "inventory.adjusted.v1",
        "warehouse": "north",
        "delta": -7,
        "on_hand": 0,
        "reason": "delivery",
    }


async def test_what_is_reserved_cannot_be_taken_away(gateway: Gateway):
    """409, and nothing changes."""
    order = await gateway.place(lines=[{"sku": "teapot-cast-iron", "quantity": 300}])
    await confirm(gateway, order["id"])
    path = "/v1/inventory/teapot-cast-iron/adjustments"
    body = {"warehouse": "east", "delta": -1, "reason": "broken"}
    problem(await gateway.post(path, body, idempotency="a"), 409, "stock-reserved")
    problem(await gateway.post(path, {**body, "warehouse": "moon"}), 409, "stock-reserved")
    full = {**body, "delta": 1_000_000_000}
    for _ in range(2):
        await gateway.post(path, full)
    assert await gateway.database.fetchval("SELECT count(*) FROM idempotency WHERE key = 'a'") == 0
    shelves = (await gateway.client.get("/v1/inventory/teapot-cast-iron")).json()["warehouses"]
    assert [shelf["warehouse"] for shelf in shelves] == ["east"]
    assert shelves[0]["reserved"] == 300


async def test_adjusting_what_is_not_there_is_not_found(gateway: Gateway):
    """Neither an unknown nor an impossible SKU."""
    body = {"warehouse": "east", "delta": 1, "reason": "x"}
    for sku in ("nobody-has-this", "*", "ord_1"):
        problem(await gateway.post(f"/v1/inventory/{sku}/adjustments", body), 404, "not-found")


async def test_adjustments_at_once_add_up(gateway: Gateway):
    """Forty at once, each counted once, the chain without a gap; one key forty times counts once."""
    path = "/v1/inventory/cup-porcelain/adjustments"
    body = {"warehouse": "east", "delta": 3, "reason": "x"}
    answers = await asyncio.gather(
        *(gateway.post(path, body) for _ in range(40)),
        *(gateway.post(path, body, idempotency="one") for _ in range(40)),
    )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers[40:]}) == 1
    stock = (await gateway.client.get("/v1/inventory/cup-porcelain")).json()
    assert stock["available"] == 1_200 + 41 * 3
    assert len(await events(gateway, "cup-porcelain")) == 2 + 41


async def test_prices_changed_at_once_leave_a_whole_chain(gateway: Gateway):
    """Twenty writers of one new SKU: one makes it, all are chained."""
    answers = await asyncio.gather(
        *(
            gateway.client.put("/v1/products/rush", json={"name": "R", "price": usd(amount)})
            for amount in range(20)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert len(await events(gateway, "rush")) == 20
