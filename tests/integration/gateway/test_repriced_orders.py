"""An order whose price was mended after its end, as its readers see it."""

import asyncio
from datetime import UTC, datetime

import pytest

from app.domain.commands import RepriceOrder
from app.domain.money import Money
from app.domain.order import Order
from app.infra.postgres.orders import PostgresOrders
from app.infra.postgres.pool import Database
from app.infra.redis.clients import open_redis
from app.infra.redis.documents import Documents
from app.replay.engine import Engine
from app.replay.reprice import Reprice
from bench.history import Kind, put
from tests.integration.gateway.live import listening_to
from tests.integration.gateway.served import Gateway, problem

COMMAND = RepriceOrder("rpl_1", "march", {"cup": Money(650, "USD")}, 1400, 1300)


@pytest.fixture
async def completed(gateway: Gateway, database_url: str) -> str:
    """An order that was completed a while ago."""
    (order_id,) = await put(database_url, [Kind((("cup", 2, 700),))], until=datetime.now(UTC))
    return order_id


async def mend(database_url: str, redis_url: str, order_id: str) -> Order:
    """Adjust it, and write its document, as whoever adjusts does."""
    database = await Database(database_url, size=1, name="test").open()
    order = await PostgresOrders(database).record(order_id, COMMAND)
    assert isinstance(order, Order)
    async with open_redis(redis_url, None, "test", "test") as clients:
        await Documents(clients, "test").put(order)
    await database.close()
    return order


async def test_readers_of_a_final_order_see_its_adjustment_soon(
    gateway: Gateway, database_url: str, redis_url: str, completed: str
):
    """Also those who have its document near, where it would stay for half a minute."""
    for _ in range(3):
        before = await gateway.client.get(f"/v1/orders/{completed}")
    assert "price_adjustments" not in before.json()
    await mend(database_url, redis_url, completed)
    async with asyncio.timeout(20):
        while True:
            answer = await gateway.client.get(
                f"/v1/orders/{completed}", headers={"If-None-Match": before.headers["etag"]}
            )
            if answer.status_code == 200:
                break
            await asyncio.sleep(0.02)
    shown = answer.json()
    (adjustment,) = shown.pop("price_adjustments")
    assert adjustment["difference"] == {"amount": -100, "currency": "USD"}
    assert shown == before.json() | {"version": 12, "updated_at": shown["updated_at"]}


async def test_its_history_goes_on_behind_the_final_event(
    gateway: Gateway, database_url: str, redis_url: str, completed: str
):
    """As a list, and for who comes again with the last event that there was; then there is nothing more."""
    path = f"/v1/orders/{completed}/events"
    await mend(database_url, redis_url, completed)
    listed = (await gateway.client.get(path)).json()["items"]
    assert [event["type"] for event in listed[-2:]] == ["order.completed.v1", "order.repriced.v1"]
    async with listening_to(gateway.port, path, last_id=f"{completed}:11") as stream:
        assert await stream.rest() == listed[-1:]
    async with listening_to(gateway.port, path, last_id=f"{completed}:12") as stream:
        assert stream.status == 204


def asked(*prices: dict, **more) -> dict:
    """The body of `POST /v1/replays`."""
    return {"handler": "reprice", "parameters": {"price_list": "mended", "prices": list(prices), **more}}


def price(sku: str, amount: int = 650, currency: str = "USD") -> dict:
    """A price as a list names it."""
    return {"sku": sku, "price": {"amount": amount, "currency": currency}}


async def test_a_price_list_is_handed_in_over_http(gateway: Gateway, database_url: str, completed: str):
    """Shown with every order, then applied; a long list is cut where many replays are listed."""
    prices = [price("cup"), *(price(f"other-{number}") for number in range(50))]
    answer = await gateway.post("/v1/replays", asked(*prices))
    assert answer.status_code == 202, answer.text
    identity = answer.json()["id"]
    assert answer.json()["parameters"]["prices"] == prices
    (listed,) = (await gateway.client.get("/v1/replays", params={"handler": "reprice"})).json()["items"]
    assert listed["parameters"] == {"price_list": "mended", "prices": prices[:20]}
    database = await Database(database_url, size=2, name="test").open()
    await Engine(database, {"reprice": Reprice()}).carry(identity, seconds=10)
    (change,) = (await gateway.client.get(f"/v1/replays/{identity}/changes")).json()["items"]
    assert change == {
        "number": 1, "key": {"order": completed, "currency": "USD"}, "before": {"total": 1400},
        "after": {"total": 1300}, "difference": {"total": -100}, "applied": False,
    }  # fmt: skip
    assert (await gateway.client.post(f"/v1/replays/{identity}/apply")).status_code == 202
    await Engine(database, {"reprice": Reprice()}).carry(identity, seconds=10)
    await database.close()
    shown = (await gateway.client.get(f"/v1/replays/{identity}")).json()
    assert (shown["state"], shown["applied"]) == ("applied", 1)


async def test_what_is_wrong_with_a_list_is_named_by_its_place(gateway: Gateway):
    """Every place at once, as with any other body."""
    wrong = asked(price("cup", 1), price("cup", 2), price("a cup"), price("spoon", currency="usd"))
    places = ("/parameters/prices/1", "/parameters/prices/2", "/parameters/prices/3")
    problem(await gateway.post("/v1/replays", wrong), 422, "invalid-request", *places)
    problem(
        await gateway.post("/v1/replays", {"handler": "reprice"}),
        *(422, "invalid-request", "/parameters/prices"),
    )
