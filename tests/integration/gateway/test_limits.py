"""Limits and the gate over HTTP: headers on every answer, 429, and refusals that store nothing."""

import asyncio

from app.infra.postgres.api_keys import SCOPES
from tests.integration.gateway.served import Gateway, opened, problem, serving

NOBODY = "redis://127.0.0.1:1/0"


async def limited(gateway: Gateway, rate_limit_per_s: int) -> dict[str, str]:
    """Headers with a new API key that has a limit of its own."""
    text = f"hf_test_limited_{rate_limit_per_s}"
    async with opened(gateway.services) as keys:
        await keys.add(text, name="crawler", scopes=SCOPES, rate_limit_per_s=rate_limit_per_s)
    return {"Authorization": f"Bearer {text}"}


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
    reads = [gateway.client.get(f"/v1/orders/{order['id']}", headers=headers) for _ in range(12)]
    orders = [gateway.post("/v1/orders", gateway.order(), headers=headers) for _ in range(12)]
    for policy, good, asked in (("read", 200, reads), ("write", 202, orders)):
        answers = await asyncio.gather(*asked)
        refused = [answer for answer in answers if answer.status_code != good]
        assert 3 <= len(answers) - len(refused) <= 6
        for answer in refused:
            problem(answer, 429, "rate-limited")
            assert answer.headers["retry-after"] == "1"
            assert answer.headers.get_list("ratelimit") == [f'"{policy}";r=0;t=1']
            assert answer.headers.get_list("ratelimit-policy") == [f'"{policy}";q=3;w=1']
        assert len(await gateway.database.fetch("SELECT 1 FROM orders")) <= 7
    assert (await gateway.client.get(f"/v1/orders/{order['id']}")).status_code == 200


async def test_limits_hold_without_redis(database_url: str):
    """In each process by itself."""
    async with serving(database_url, NOBODY) as gateway:
        headers = await limited(gateway, 2)
        answers = await asyncio.gather(
            *(gateway.post("/v1/orders", gateway.order(), headers=headers) for _ in range(10))
        )
        codes = [answer.status_code for answer in answers]
        assert set(codes) == {202, 429}
        assert 2 <= codes.count(202) <= 5


async def test_what_the_gate_knows_to_be_sold_out_is_refused(gateway: Gateway):
    """As many are accepted as there are; stock that comes is sold at once."""
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
    async with asyncio.timeout(1):
        while (await gateway.post("/v1/orders", wanted)).status_code != 202:
            await asyncio.sleep(0.01)


async def test_a_refusal_before_any_question_counts_too(gateway: Gateway):
    """An expected total in another currency is wrong without Redis and PostgreSQL."""
    headers = await limited(gateway, 2)
    wrong = gateway.order(expected_total={"amount": 1, "currency": "EUR"})
    answers = [await gateway.post("/v1/orders", wrong, headers=headers) for _ in range(8)]
    assert {answer.status_code for answer in answers} == {422, 429}
    assert all("ratelimit" in answer.headers for answer in answers)


async def test_reads_beyond_the_limit_read_nothing(gateway: Gateway):
    """And one of an order that is not there counts once."""
    headers = await limited(gateway, 1)
    paths = [f"/v1/orders/ord_{number:026d}" for number in range(60)]
    loads = gateway.services.cached._cache.statistics
    answers = [await gateway.client.get(paths[0], headers=headers)]
    before = loads.loads
    answers += [await gateway.client.get(path, headers=headers) for path in paths]
    codes = [answer.status_code for answer in answers]
    assert codes[0] == 404
    assert codes.count(429) >= 55
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
