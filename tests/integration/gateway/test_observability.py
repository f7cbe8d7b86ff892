"""What an operator sees of requests: ids, correlation, metrics, log lines; and what nobody may see there."""

import re
from pathlib import Path

import pytest

from app.dev.seed import seed
from app.dev.stack.ports import any_free
from tests.integration.gateway.process import running
from tests.integration.gateway.served import KEY, Gateway

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


async def correlation(gateway: Gateway, **headers: str) -> str:
    """The correlation id of a request with these headers."""
    return (await gateway.client.get("/livez", headers=headers)).headers["x-correlation-id"]


async def test_the_callers_correlation_id_is_taken(shared_gateway: Gateway):
    """First the header of that name, then the trace id, then a new one."""
    parent = f"00-{TRACE}-00f067aa0ba902b7-01"
    both = {"X-Correlation-ID": "checkout 7", "traceparent": parent}
    assert await correlation(shared_gateway, **both) == "checkout 7"
    assert await correlation(shared_gateway, traceparent=parent) == TRACE
    assert await correlation(shared_gateway) != await correlation(shared_gateway)


@pytest.mark.parametrize("wrong", ["x" * 129, "", "caf\u00e9"])
async def test_a_correlation_id_that_cannot_be_kept_is_replaced(shared_gateway: Gateway, wrong: str):
    """At most 128 printable ASCII characters; anything else would not survive the way."""
    given = await correlation(shared_gateway, **{"X-Correlation-ID": wrong.encode()})
    assert re.fullmatch(r"[0-9a-f]{24}", given)


@pytest.mark.parametrize(
    "wrong",
    [
        "nonsense",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-00f067aa0ba902b7-01",
        f"00-{TRACE.upper()}-00f067aa0ba902b7-01",
        f"00-{TRACE}-00f067aa0ba902b7-01\u00a0",
    ],
)
async def test_a_broken_traceparent_is_ignored(shared_gateway: Gateway, wrong: str):
    """W3C: what is not valid is as if it were not there."""
    assert await correlation(shared_gateway, traceparent=wrong.encode("latin-1")) != TRACE


async def test_requests_are_counted_and_timed_by_route(shared_gateway: Gateway):
    """Labels are templates, so they stay few and say nothing about anybody."""
    await shared_gateway.place()
    await shared_gateway.client.get("/v1/orders/ord_personal")
    await shared_gateway.client.get("/somewhere/personal")
    metrics = (await shared_gateway.client.get("/metrics")).text
    assert 'holdfast_http_requests_total{method="POST",route="/v1/orders",status="202"}' in metrics
    assert 'holdfast_http_requests_total{method="GET",route="/v1/orders/{order_id}",status="404"}' in metrics
    assert 'route="unmatched",status="404"' in metrics
    assert (
        'holdfast_http_request_duration_seconds_bucket{le="0.01",method="POST",route="/v1/orders"}' in metrics
    )
    assert "holdfast_pool_wait_seconds" in metrics
    assert "personal" not in metrics


async def test_no_log_line_holds_personal_data(database_url: str, redis_url: str, tmp_path: Path):
    """A canary in every field that could carry a person, right and wrong, is in no line; nor is a key."""
    await seed(database_url, KEY)
    canary = "Canary77"
    address = {"name": canary, "line1": canary, "city": canary, "postal_code": canary, "country": "GB"}
    order = {
        "customer_id": canary,
        "currency": "USD",
        "lines": [{"sku": "tea-earl-grey", "quantity": 1}],
        "payment_method": f"pm_{canary}",
        "shipping_address": {**address, "phone": canary, "email": f"{canary}@example.com"},
        "metadata": {canary: canary},
    }
    split = {**order, "shipping_address": {**address, "email": f"{canary}@example.com\r\nBcc: {canary}@x"}}
    async with running(any_free(), database_url, redis_url, tmp_path, LOG_LEVEL="debug") as gateway:
        for body in (order, {**order, canary: canary}, {**order, "payment_method": canary + "\n"}, split):
            await gateway.client.post("/v1/orders", json=body, headers={"Idempotency-Key": canary})
        placed = await gateway.client.post("/v1/orders", json=order, headers={"Idempotency-Key": canary})
        path = placed.headers["location"]
        headers = {"Idempotency-Key": f"{canary}2"}
        await gateway.client.post(f"{path}/cancel", json={"reason": canary}, headers=headers)
        await gateway.client.get(f"/v1/orders?customer_id={canary}")
        await gateway.client.get(f"/{canary}")
        await gateway.stop()
        said = gateway.log.read_text("utf-8")
    assert '"POST"' in said or "POST" in said
    assert canary not in said
    assert KEY not in said


async def test_the_documentation_asks_no_other_host_for_anything(shared_gateway: Gateway):
    """The page is whole by itself, and its policy lets nothing else in."""
    answer = await shared_gateway.client.get("/docs", headers={"Authorization": ""})
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert not re.findall(r"""(?:src|href|action)=["'](?!/|#|data:,)[^"']*""", answer.text)
    assert not re.findall(r"https?://(?!\w+\.example\b)|url\(|@import", answer.text)  # but in examples
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    for path in ("/v1/orders", "/v1/orders/{order_id}/cancel", "/v1/inventory/{sku}/adjustments"):
        assert path in answer.text


async def test_every_problem_has_a_page(shared_gateway: Gateway):
    """`type` leads somewhere that explains it."""
    page = (await shared_gateway.client.get("/docs")).text
    slugs = set(re.findall(r'href="/problems/([a-z-]+)"', page))
    assert len(slugs) > 15
    for slug in slugs:
        answer = await shared_gateway.client.get(f"/problems/{slug}")
        assert (answer.status_code, slug in answer.text) == (200, True)
