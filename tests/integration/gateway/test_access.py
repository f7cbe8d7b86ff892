"""API keys: who may do what, and how soon a revoked key is refused."""

import time

import pytest

from app.gateway import auth
from tests.busy import BUSY_S
from tests.integration.gateway.served import Gateway, opened, problem

ROUTES = [
    ("POST", "/v1/orders", "orders:write"),
    ("GET", "/v1/orders", "orders:read"),
    ("GET", "/v1/orders/ord_x", "orders:read"),
    ("GET", "/v1/orders/ord_x/events", "orders:read"),
    ("POST", "/v1/orders/ord_x/cancel", "orders:write"),
    ("GET", "/v1/products", "products:read"),
    ("GET", "/v1/products/x", "products:read"),
    ("PUT", "/v1/products/x", "products:write"),
    ("GET", "/v1/inventory", "inventory:read"),
    ("GET", "/v1/inventory/x", "inventory:read"),
    ("POST", "/v1/inventory/x/adjustments", "inventory:write"),
]


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
async def test_every_route_asks_for_its_scope(shared_gateway: Gateway, method: str, path: str, scope: str):
    """Without a key 401, with a key that lacks the scope 403, both before anything else is looked at."""
    bare = await shared_gateway.client.request(method, path, headers={"Authorization": ""})
    problem(bare, 401, "unauthenticated")
    assert bare.headers["www-authenticate"].startswith("Bearer")
    others = [name for _, _, name in ROUTES if name != scope]
    refused = await shared_gateway.client.request(method, path, headers=await shared_gateway.key(*others))
    assert scope in problem(refused, 403, "forbidden")["detail"]
    allowed = await shared_gateway.client.request(method, path, headers=await shared_gateway.key(scope))
    assert allowed.status_code not in {401, 403}


@pytest.mark.parametrize(
    "given",
    ["Bearer", "Bearer hf", "Basic aGY6", "hf_test_all", "Bearer nobody", "Bearer a b", "Bearer \u00e9"],
)
async def test_what_is_no_key_opens_nothing(shared_gateway: Gateway, given: str):
    """Whatever stands in Authorization, the answer is 401."""
    answer = await shared_gateway.client.get("/v1/orders", headers={"Authorization": given.encode()})
    problem(answer, 401, "unauthenticated")


async def test_a_revoked_key_is_refused_within_seconds(gateway: Gateway, monkeypatch):
    """It is remembered for FRESH_S at most (shortened here, so that the test need not wait)."""
    monkeypatch.setattr(auth, "FRESH_S", 0.2)
    headers = await gateway.key("orders:read")
    assert (await gateway.client.get("/v1/orders", headers=headers)).status_code == 200
    identity = await gateway.database.fetchval("SELECT id FROM api_keys WHERE name = 'test'")
    async with opened(gateway.services) as keys:
        assert await keys.revoke(identity)
    revoked_at = time.monotonic()
    while (await gateway.client.get("/v1/orders", headers=headers)).status_code == 200:
        assert time.monotonic() - revoked_at < 2 + BUSY_S
    problem(await gateway.client.get("/v1/orders", headers=headers), 401, "unauthenticated")


async def test_keys_are_stored_as_hashes_only(gateway: Gateway):
    """Whoever reads the table cannot use what is in it."""
    headers = await gateway.key()
    text = headers["Authorization"].removeprefix("Bearer ")
    rows = await gateway.database.fetch("SELECT api_keys::text AS row FROM api_keys")
    assert all(text not in row["row"] for row in rows)


async def test_a_customers_key_sees_and_orders_for_that_customer_only(gateway: Gateway):
    """Others' orders do not exist for it; placing for another is forbidden; lists are its own."""
    bound = await gateway.key("orders:read", "orders:write", customer="cust-mine")
    own = await gateway.post("/v1/orders", gateway.order(customer_id="cust-mine"), headers=bound)
    assert own.status_code == 202
    other = await gateway.place(customer_id="cust-other")
    denied = await gateway.post("/v1/orders", gateway.order(customer_id="cust-other"), headers=bound)
    problem(denied, 403, "forbidden", "/customer_id")
    path = f"/v1/orders/{other['id']}"
    for _ in range(3):  # once read, the document is in Redis
        problem(await gateway.client.get(path, headers=bound), 404, "not-found")
        assert (await gateway.client.get(path)).status_code == 200
    problem(await gateway.client.get(f"{path}/events", headers=bound), 404, "not-found")
    problem(await gateway.post(f"{path}/cancel", {}, headers=bound), 404, "not-found")
    assert (await gateway.client.get(own.headers["location"], headers=bound)).status_code == 200
    listed = await gateway.client.get("/v1/orders", headers=bound)
    assert [order["id"] for order in listed.json()["items"]] == [own.json()["id"]]
    asked = await gateway.client.get("/v1/orders?customer_id=cust-other", headers=bound)
    assert asked.json() == {"items": [], "next_cursor": None}
    cancelled = await gateway.post(own.headers["location"] + "/cancel", {}, headers=bound)
    assert cancelled.status_code == 200
