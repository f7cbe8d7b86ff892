"""Limits and the gate over HTTP: headers on every answer, 429, and refusals that store nothing."""

import asyncio
from collections.abc import Awaitable, Collection
from time import monotonic

import httpx
import pytest

from app.contracts import admission
from app.infra.postgres.api_keys import SCOPES
from app.infra.redis import gate
from tests.integration.gateway.served import NOBODY, Gateway, opened, problem, serving

COUNTS = admission.gate("test", "counts")


async def limited(gateway: Gateway, rate_limit_per_s: int) -> dict[str, str]:
    """Headers with a new API key that has a limit of its own."""
    text = f"hf_test_limited_{rate_limit_per_s}"
    async with opened(gateway.services) as keys:
        await keys.add(text, name="crawler", scopes=SCOPES, rate_limit_per_s=rate_limit_per_s)
    return {"Authorization": f"Bearer {text}"}


async def answered(
    asked: Collection[Awaitable[httpx.Response]], rate_per_s: int
) -> tuple[list[httpx.Response], int]:
    """The answers to what is asked at once, and how many of them a limit lets pass at most in that time."""
    began = monotonic()
    answers = await asyncio.gather(*asked)
    return answers, rate_per_s + int(rate_per_s * (monotonic() - began)) + 1


async def test_every_answer_says_what_is_left_of_the_limit(gateway: Gateway):
    """Good ones and refusals; reads and writes have limits of their own."""
    order = await gateway.place()
    answers = {
        "read": [
            await gateway.client.get(f"/v1/orders/{order['id']}"),
            await gateway.client.get("/v1/orders"),
            await gateway.client.get("/v1/orders/ord_nothing"),
        ],
        "write": [
            await gateway.post("/v1/orders", gateway.order()),
            await gateway.post("/v1/orders", gateway.order(lines=[])),
            await gateway.post(f"/v1/orders/{order['id']}/cancel"),
        ],
    }
    for policy, given in answers.items():
        for answer in given:
            assert answer.headers.get_list("ratelimit-policy") == [f'"{policy}";q=10000;w=1']
            (left,) = answer.headers.get_list("ratelimit")
            assert left.startswith(f'"{policy}";r=9')


async def test_a_caller_beyond_its_limit_is_told_when_to_come_again(gateway: Gateway):
    """429 with Retry-After, for reads and for orders; nothing is stored, and another key is not concerned."""
    headers = await limited(gateway, 3)
    order = await gateway.place()
    reads = [gateway.client.get(f"/v1/orders/{order['id']}", headers=headers) for _ in range(40)]
    orders = [gateway.post("/v1/orders", gateway.order(), headers=headers) for _ in range(40)]
    for policy, good, asked in (("read", 200, reads), ("write", 202, orders)):
        answers, most = await answered(asked, 3)
        refused = [answer for answer in answers if answer.status_code != good]
        assert refused
        assert 3 <= len(answers) - len(refused) <= most
        for answer in refused:
            problem(answer, 429, "rate-limited")
            assert answer.headers["retry-after"] == "1"
            assert answer.headers.get_list("ratelimit") == [f'"{policy}";r=0;t=1']
            assert answer.headers.get_list("ratelimit-policy") == [f'"{policy}";q=3;w=1']
        stored = await gateway.database.fetchval("SELECT count(*) FROM orders")
        assert stored == 1 + (len(answers) - len(refused) if policy == "write" else 0)
    assert (await gateway.client.get(f"/v1/orders/{order['id']}")).status_code == 200


async def test_limits_hold_without_redis(database_url: str):
    """In each process by itself."""
    async with serving(database_url, NOBODY) as gateway:
        headers = await limited(gateway, 2)
        asked = [gateway.post("/v1/orders", gateway.order(), headers=headers) for _ in range(40)]
        answers, most = await answered(asked, 2)
        codes = [answer.status_code for answer in answers]
        assert set(codes) == {202, 429}
        assert 2 <= codes.count(202) <= most


async def test_what_the_gate_knows_to_be_sold_out_is_refused(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
):
    """As many are accepted as there are; stock that comes is sold at once."""
    # Orders that are not committed when PostgreSQL is asked about a refusal would be counted as pieces.
    monkeypatch.setattr(gate, "LOOK_AFTER_S", 3_600.0)
    monkeypatch.setattr(gate, "CHANGED_WITHIN_S", 30.0)
    async with asyncio.timeout(30):
        while not await gateway.services.gate._client.execute("HEXISTS", COUNTS, ":generation"):
            await asyncio.sleep(0.01)
    path = "/v1/inventory/tea-earl-grey"
    stock = (await gateway.client.get(path)).json()
    for shelf in stock["warehouses"]:
        taken = {"warehouse": shelf["warehouse"], "delta": -shelf["available"], "reason": "counted"}
        assert (await gateway.post(f"{path}/adjustments", taken)).status_code == 200
    new = {"warehouse": stock["warehouses"][0]["warehouse"], "delta": 4, "reason": "received"}
    await gateway.post(f"{path}/adjustments", new)
    wanted = gateway.order(lines=[{"sku": "tea-earl-grey", "quantity": 1}])
    answers = await asyncio.gather(*(gateway.post("/v1/orders", wanted) for _ in range(30)))
    assert sorted(answer.status_code for answer in answers) == [202] * 4 + [409] * 26
    for answer in answers:
        if answer.status_code == 409:
            problem(answer, 409, "sold-out", "/lines/0/sku")
    await gateway.post(f"{path}/adjustments", {**new, "delta": 1})
    assert (await gateway.post("/v1/orders", wanted)).status_code == 202


async def test_a_refusal_before_any_question_counts_too(gateway: Gateway):
    """An expected total in another currency is wrong without Redis and PostgreSQL."""
    headers = await limited(gateway, 2)
    wrong = gateway.order(expected_total={"amount": 1, "currency": "EUR"})
    answers = await asyncio.gather(*(gateway.post("/v1/orders", wrong, headers=headers) for _ in range(40)))
    assert {answer.status_code for answer in answers} == {422, 429}
    assert all("ratelimit" in answer.headers for answer in answers)


async def test_reads_beyond_the_limit_read_nothing(gateway: Gateway):
    """And one of an order that is not there counts once."""
    headers = await limited(gateway, 1)
    paths = [f"/v1/orders/ord_{number:026d}" for number in range(60)]
    loads = gateway.services.cached._cache.statistics
    assert (await gateway.client.get(paths[0], headers=headers)).status_code == 404
    before, began = loads.loads, monotonic()
    codes = [(await gateway.client.get(path, headers=headers)).status_code for path in paths]
    assert set(codes) <= {404, 429}
    assert codes.count(404) <= 2 + monotonic() - began < len(codes)
    assert loads.loads - before <= codes.count(404)


async def test_a_repetition_is_not_told_sold_out(gateway: Gateway):
    """However many come at once, the one order that took the last piece is the answer to all of them."""
    for number in range(8):
        sku = f"last-one-{number}"
        product = {"name": "The last one", "price": {"amount": 100, "currency": "USD"}}
        assert (await gateway.client.put(f"/v1/products/{sku}", json=product)).status_code == 201
        stock = {"warehouse": "main", "delta": 1, "reason": "received"}
        await gateway.post(f"/v1/inventory/{sku}/adjustments", stock)
        wanted = gateway.order(lines=[{"sku": sku, "quantity": 1}])
        answers = await asyncio.gather(
            *(gateway.post("/v1/orders", wanted, idempotency=f"last-{number}") for _ in range(6))
        )
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.content for answer in answers}) == 1
