"""What a customer ordered and paid, over HTTP: for those who may know."""

from datetime import UTC, datetime

import pytest

from app.infra.postgres import customers
from app.infra.postgres.customers import CustomerCounts
from tests.integration.gateway.served import Gateway, problem

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PATH = "/v1/customers/{}/summary"


async def count(gateway: Gateway, customer: str) -> None:
    """Have something counted for a customer."""
    counts = {
        (customer, "USD"): CustomerCounts(3, 2, 1, 0, 7, 4401, 100, AT, AT.replace(hour=13)),
        (customer, "EUR"): CustomerCounts(1, 0, 0, 1, 1, 0, 0, AT, AT),
    }
    await customers.add(gateway.database, counts)


async def test_a_customer_is_summed_up_by_currency(gateway: Gateway):
    """Every number, and money with its currency."""
    await count(gateway, "cust-7")
    await count(gateway, "cust-77")
    answer = await gateway.client.get(PATH.format("cust-7"))
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "customer_id": "cust-7",
        "currencies": [
            {
                "currency": "EUR", "orders": 1, "completed": 0, "rejected": 0, "cancelled": 1, "items": 1,
                "captured": {"amount": 0, "currency": "EUR"}, "refunded": {"amount": 0, "currency": "EUR"},
                "first_order_at": "2026-03-01T12:00:00.000000Z",
                "last_order_at": "2026-03-01T12:00:00.000000Z",
            },
            {
                "currency": "USD", "orders": 3, "completed": 2, "rejected": 1, "cancelled": 0, "items": 7,
                "captured": {"amount": 4401, "currency": "USD"},
                "refunded": {"amount": 100, "currency": "USD"},
                "first_order_at": "2026-03-01T12:00:00.000000Z",
                "last_order_at": "2026-03-01T13:00:00.000000Z",
            },
        ],
    }  # fmt: skip


async def test_a_bound_key_sees_its_own_customer_only(gateway: Gateway):
    """Others are not there for it, whether they exist or not."""
    await count(gateway, "cust-8")
    bound = await gateway.key("orders:read", customer="cust-8")
    assert (await gateway.client.get(PATH.format("cust-8"), headers=bound)).status_code == 200
    await count(gateway, "cust-9")
    for other in ("cust-9", "nobody"):
        problem(await gateway.client.get(PATH.format(other), headers=bound), 404, "not-found")
    without = await gateway.key("products:read")
    problem(await gateway.client.get(PATH.format("cust-8"), headers=without), 403, "forbidden")


@pytest.mark.parametrize("identity", ["nobody", "%00", "%F0%9F%92%A9", "a%2Fb", "x" * 300, "'", "%"])
async def test_who_never_ordered_is_not_there(shared_gateway: Gateway, identity: str):
    """Whatever the id looks like."""
    problem(await shared_gateway.client.get(PATH.format(identity)), 404, "not-found")


async def test_a_customers_id_is_in_neither_logs_nor_metrics(gateway: Gateway, capfd):
    """It may be somebody's name."""
    await count(gateway, "ada-lovelace")
    for path in (PATH.format("ada-lovelace"), PATH.format("ada-lovelace-2")):
        await gateway.client.get(path)
    assert "ada-lovelace" not in (await gateway.client.get("/metrics")).text
    out, err = capfd.readouterr()
    assert "ada-lovelace" not in out + err
