"""Analytics by the minute, and dead letters, over HTTP."""

from datetime import UTC, datetime, timedelta

import pytest

from app.infra.postgres import analytics
from app.infra.postgres.dead_letters import DeadLetters, Failure
from tests.integration.gateway.served import Gateway, problem

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


async def minutes(gateway: Gateway, **query: str) -> list[dict]:
    """All minutes, page by page."""
    found, cursor = [], None
    while True:
        more = {"cursor": cursor} if cursor else {}
        answer = await gateway.client.get("/v1/analytics/minutely", params={**query, **more})
        assert answer.status_code == 200, answer.text
        found += answer.json()["items"]
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            return found


async def test_minutes_are_listed_in_pages_and_between_times(gateway: Gateway):
    """Oldest first, each with its money by currency; minutes without anything are not there."""
    for number in range(5):
        at = NOON + timedelta(minutes=2 * number)
        counts = {(at, "orders", "accepted"): 3, (at, "revenue", "USD"): 100 + number}
        await analytics.add(gateway.database, counts)
    await analytics.add(
        gateway.database,
        {
            (NOON, "orders", "rejected"): 2,
            (NOON, "rejections", "out_of_stock"): 2,
            (NOON, "revenue", "EUR"): 7,
            (NOON, "revenue", "USD"): 1,
            (NOON, "price_changes", ""): 4,
            (NOON, "price_adjustments", ""): 2,
            (NOON, "price_adjusted", "USD"): -150,
        },
    )
    found = await minutes(gateway, limit="2")
    assert [minute["minute"] for minute in found] == [
        f"2026-03-01T12:0{2 * number}:00.000000Z" for number in range(5)
    ]
    assert found[0] == {
        "minute": "2026-03-01T12:00:00.000000Z",
        "orders": 3, "confirmed": 0, "dispatched": 0, "completed": 0, "rejected": 2, "cancelled": 0,
        "revenue": [{"amount": 7, "currency": "EUR"}, {"amount": 101, "currency": "USD"}], "refunds": [],
        "rejections": {"out_of_stock": 2}, "price_changes": 4,
        "price_adjustments": 2, "price_adjusted": [{"amount": -150, "currency": "USD"}],
    }  # fmt: skip
    span = {"from": "2026-03-01T12:02:00Z", "to": "2026-03-01T12:08:00Z"}
    assert await minutes(gateway, **span, limit="1") == found[1:4]
    wrong = await gateway.client.get("/v1/analytics/minutely", params={"from": "noon"})
    problem(wrong, 400, "invalid-parameter", "/from")


async def test_dead_letters_are_listed_and_retried(gateway: Gateway):
    """Those that wait, unless another state is asked for; retrying twice is the same as once."""
    order = await gateway.place()
    letters = DeadLetters(gateway.services.intake._database)
    failure = Failure("failed", "KeyError('x')", "Traceback", None)
    await letters.add("projections", order["id"], failure)
    await letters.add("analytics", order["id"], failure)
    page = (await gateway.client.get("/v1/dead-letters", params={"limit": 1})).json()
    (letter,) = page["items"]
    assert (letter["group"], letter["subject"], letter["sequence"], letter["type"], letter["state"]) == (
        "projections", order["id"], 1, "order.accepted.v1", "open",
    )  # fmt: skip
    rest = (await gateway.client.get("/v1/dead-letters", params={"cursor": page["next_cursor"]})).json()
    assert [item["group"] for item in rest["items"]] == ["analytics"]
    for query, number in (
        ({"group": "analytics"}, 1),
        ({"type": "price.changed.v1"}, 0),
        ({"state": "open"}, 2),
    ):
        items = (await gateway.client.get("/v1/dead-letters", params=query)).json()["items"]
        assert len(items) == number, query
    for _ in range(2):
        answer = await gateway.client.post(f"/v1/dead-letters/{letter['id']}/retry")
        assert answer.status_code == 202, answer.text
        assert answer.json()["state"] == "retrying"
    for identity in ("99999", "x", "9" * 30):
        problem(await gateway.client.post(f"/v1/dead-letters/{identity}/retry"), 404, "not-found")


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/v1/analytics/minutely", "analytics:read"),
        ("GET", "/v1/dead-letters", "operations:read"),
        ("GET", "/v1/dead-letters/1", "operations:read"),
        ("POST", "/v1/dead-letters/1/retry", "operations:write"),
        ("POST", "/v1/dead-letters/1/discard", "operations:write"),
        ("POST", "/v1/dead-letters/retry", "operations:write"),
        ("POST", "/v1/dead-letters/discard", "operations:write"),
    ],
)
async def test_what_is_everybodys_is_not_for_customers(shared_gateway: Gateway, method, path, scope):
    """A key needs the scope, and not to be bound to a customer."""
    other = await shared_gateway.key("orders:read", "orders:write")
    bound = await shared_gateway.key(scope, customer="cust-1")
    right = await shared_gateway.key(scope)
    for headers in (other, bound):
        problem(await shared_gateway.client.request(method, path, headers=headers), 403, "forbidden")
    answer = await shared_gateway.client.request(method, path, headers=right)
    assert answer.status_code in {200, 404, 415}, "it is asked for a body, at most"
