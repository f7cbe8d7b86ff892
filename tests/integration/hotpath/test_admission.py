"""The first question: limit, then stored answer, then gate, in one round trip and in this order."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from app.hotpath.address import Address
from app.hotpath.admission import Admission, Verdict
from app.hotpath.admission_policy import Policy
from app.hotpath.buckets import Buckets
from app.hotpath.client import Client
from app.hotpath.errors import ErrorReply, NotNow, NotSent

COUNTS, PASSED = "{gate}:counts", "{gate}:passed"
HASH, OTHER_HASH = b"h" * 32, b"o" * 32
PLENTY = Policy("write", 1_000_000)


@pytest.fixture
async def client(redis_url) -> AsyncIterator[Client]:
    """Of the server."""
    async with Client(Address.parse(redis_url), name="admission", deadline_s=10) as opened:
        yield opened


@pytest.fixture
def admission(client) -> Admission:
    """Under test."""
    return Admission(client, Buckets())


async def ask(
    admission: Admission,
    wanted: Mapping[str, int],
    *,
    key: str = "key",
    body_hash: bytes = HASH,
    policy: Policy = PLENTY,
) -> Verdict:
    """Ask for one request of one caller."""
    return await admission.admit(
        "caller",
        policy,
        ("{caller}:limit:write", f"{{caller}}:answer:{key}", COUNTS, PASSED),
        body_hash=body_hash,
        items=tuple(wanted),
        quantities=tuple(wanted.values()),
    )


async def count(client: Client, **counts: int) -> None:
    """Let these be the gate's counts."""
    pairs = [part for pair in counts.items() for part in pair]
    await client.execute("HSET", COUNTS, ":generation", "1", *pairs)


async def counted(client: Client, name: str = COUNTS) -> dict[str, int]:
    """What a hash of counts says."""
    found = await client.execute("HGETALL", name)
    return {field.decode(): int(value) for field, value in found.items() if not field.startswith(b":")}


async def remember(client: Client, key: str, answer: bytes) -> None:
    """Store an answer as whoever commits does."""
    await client.execute("SET", f"{{caller}}:answer:{key}", HASH + answer)


async def test_a_request_that_may_pass_takes_what_it_wants(admission: Admission, client: Client):
    """And is told that the gate knew everything."""
    await count(client, cup=5, pot=2)
    verdict = await ask(admission, {"cup": 3, "pot": 2})
    assert (verdict.is_known, verdict.is_counted, verdict.sold_out, verdict.short) == (True, True, (), ())
    assert verdict.decision.remaining == 999_999
    assert await counted(client) == {"cup": 2, "pot": 0}


async def test_what_is_sold_out_or_short_is_named_and_nothing_is_taken(admission: Admission, client: Client):
    """All lines or none."""
    await count(client, cup=5, pot=0, jug=-2, tin=1)
    verdict = await ask(admission, {"cup": 1, "pot": 1, "jug": 1, "tin": 2})
    assert (verdict.is_known, verdict.is_counted) == (True, False)
    assert (verdict.sold_out, verdict.short) == (("pot", "jug"), ("tin",))
    assert await counted(client) == {"cup": 5, "pot": 0, "jug": -2, "tin": 1}


async def test_without_counts_everything_passes_and_is_remembered(admission: Admission, client: Client):
    """For whoever makes the counts; not for long."""
    for key, wanted in (("one", {"cup": 2}), ("two", {"cup": 1, "pot": 1})):
        verdict = await ask(admission, wanted, key=key)
        assert (verdict.is_known, verdict.is_open, verdict.is_counted) == (False, True, True)
    assert await counted(client, PASSED) == {"cup": 3, "pot": 1}
    assert 0 < await client.execute("PTTL", PASSED) <= 5_000


async def test_a_repetition_of_what_passed_without_counts_is_under_way(admission: Admission, client: Client):
    """Also when the counts are there by then and have nothing left; and it is remembered once."""
    assert (await ask(admission, {"cup": 1})).is_open
    assert (await ask(admission, {"cup": 1})).answer == b""
    await count(client, cup=0)
    assert (await ask(admission, {"cup": 1})).answer == b""
    assert await counted(client, PASSED) == {"cup": 1}


async def test_counts_without_a_generation_are_none(admission: Admission, client: Client):
    """What is left of them after an accident refuses nobody."""
    await client.execute("HSET", COUNTS, "cup", 0)
    assert (await ask(admission, {"cup": 1})).is_open


async def test_an_item_that_is_not_counted_passes(admission: Admission, client: Client):
    """The others are counted all the same, and the caller hears that not all were known."""
    await count(client, cup=5)
    verdict = await ask(admission, {"cup": 1, "new": 1})
    assert (verdict.is_known, verdict.is_open, verdict.is_counted) == (False, False, True)
    assert await counted(client) == {"cup": 4}


async def test_a_repetition_gets_its_answer_and_takes_nothing(admission: Admission, client: Client):
    """Byte for byte, even where the SKU is sold out by now."""
    await count(client, cup=0)
    await remember(client, "key", b"202 /v1/orders/x\n\x00{}\xff")
    verdict = await ask(admission, {"cup": 1})
    assert verdict.answer == b"202 /v1/orders/x\n\x00{}\xff"
    assert (verdict.is_reused, verdict.sold_out, verdict.is_counted) == (False, (), False)
    assert verdict.decision.remaining == 999_999
    assert (await ask(admission, {"cup": 1}, key="another")).sold_out == ("cup",)


async def test_a_repetition_of_what_is_under_way_takes_nothing(admission: Admission, client: Client):
    """It may have taken the last piece, and its answer is not there yet: for a moment, its key says so."""
    await count(client, cup=1)
    assert (await ask(admission, {"cup": 1})).is_counted
    verdict = await ask(admission, {"cup": 1})
    assert (verdict.answer, verdict.is_counted, verdict.sold_out) == (b"", False, ())
    assert (await ask(admission, {"cup": 1}, key="another")).sold_out == ("cup",)
    assert 14_000 < await client.execute("PTTL", "{caller}:answer:key") <= 15_000
    assert await client.execute("EXISTS", "{caller}:answer:another") == 0


async def test_a_key_of_another_body_is_reported(admission: Admission, client: Client):
    """And neither answered nor counted."""
    await count(client, cup=5)
    await remember(client, "key", b"202")
    verdict = await ask(admission, {"cup": 1}, body_hash=OTHER_HASH)
    assert (verdict.is_reused, verdict.answer, verdict.is_counted) == (True, None, False)
    assert await counted(client) == {"cup": 5}


async def test_a_caller_over_its_limit_gets_nothing(admission: Admission, client: Client):
    """No answer, nothing from the gate; and it is told when to come again."""
    await count(client, cup=5)
    await remember(client, "key", b"202")
    policy = Policy("write", 3, window_s=30)
    answers = [await ask(admission, {"cup": 1}, policy=policy) for _ in range(3)]
    assert [verdict.answer for verdict in answers] == [b"202"] * 3
    verdict = await ask(admission, {"cup": 1}, policy=policy)
    assert (verdict.decision.is_allowed, verdict.answer, verdict.is_counted) == (False, None, False)
    assert verdict.decision.retry_after_s == 10
    assert dict(verdict.decision.headers)[b"retry-after"] == b"10"
    assert await counted(client) == {"cup": 5}


async def test_a_server_that_lost_the_script_is_given_it_again(admission: Admission, client: Client):
    """Those who ask at that moment do not notice."""
    await ask(admission, {"cup": 1})
    await client.execute("SCRIPT", "FLUSH")
    verdicts = await asyncio.gather(*(ask(admission, {"cup": 1}) for _ in range(20)))
    assert [verdict.error for verdict in verdicts] == [None] * 20


async def test_a_server_that_is_away_leaves_the_limit_to_the_process():
    """At once; nothing is known, and nothing was taken."""
    async with Client(Address.parse("redis://127.0.0.1:1"), name="nobody") as client:
        admission, policy = Admission(client, Buckets()), Policy("write", 2, window_s=60)
        verdicts = [await ask(admission, {"cup": 1}, policy=policy) for _ in range(3)]
        assert [verdict.decision.is_allowed for verdict in verdicts] == [True, True, False]
        assert all(isinstance(verdict.error, NotSent) for verdict in verdicts)
        assert not any(verdict.is_known or verdict.is_counted for verdict in verdicts)
        started = time.process_time()
        for _ in range(1000):
            await ask(admission, {"cup": 1}, policy=policy)
        assert time.process_time() - started < 1


async def test_a_full_server_is_not_asked_for_more(admission: Admission, client: Client):
    """It says so, and the process goes on by itself."""
    await count(client, cup=5)
    await client.execute("CONFIG", "SET", "maxmemory", "1")
    try:
        verdict = await ask(admission, {"cup": 1})
    finally:
        await client.execute("CONFIG", "SET", "maxmemory", "0")
    assert isinstance(verdict.error, NotNow)
    assert verdict.decision.is_allowed


@pytest.mark.parametrize("key", ["{caller}:limit:write", "{caller}:answer:key", COUNTS])
async def test_what_somebody_else_wrote_is_reported_as_it_is(admission: Admission, client: Client, key: str):
    """The request goes on without; who knows what the keys are for mends them."""
    await client.execute("LPUSH", key, "x")
    verdict = await ask(admission, {"cup": 1})
    assert isinstance(verdict.error, ErrorReply)
    assert not isinstance(verdict.error, NotNow)
    assert verdict.decision.is_allowed


async def test_a_flash_sale_lets_as_many_pass_as_there_are(redis_url: str):
    """Twenty thousand want one of fifty, from four processes: fifty pass, the others hear it in one trip."""
    clients = [
        Client(Address.parse(redis_url), name=f"gateway-{number}", deadline_s=30).open()
        for number in range(4)
    ]
    for client in clients:
        assert await client.ready(60)
    await count(clients[0], cup=50)
    admissions = [Admission(client, Buckets()) for client in clients]
    await asyncio.gather(*(ask(admission, {"pot": 1}) for admission in admissions))  # they know the script
    before = sum(client.statistics.commands for client in clients)

    async def customer(number: int) -> list[bool]:
        admission = admissions[number % 4]
        verdicts = [await ask(admission, {"cup": 1}, key=f"{number}-{again}") for again in range(100)]
        assert all(verdict.is_counted or verdict.sold_out == ("cup",) for verdict in verdicts)
        return [verdict.is_counted for verdict in verdicts]

    passed = await asyncio.gather(*(customer(number) for number in range(200)))
    assert sum(map(sum, passed)) == 50
    assert sum(client.statistics.commands for client in clients) - before == 20_000
    assert await counted(clients[0]) == {"cup": 0}
    for client in clients:
        await client.close()


ITEMS = ["a", "b", "c", "d"]
ORDERS = st.lists(
    st.dictionaries(st.sampled_from([*ITEMS, "unknown"]), st.integers(1, 6), min_size=1),
    min_size=1,
    max_size=30,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stock=st.fixed_dictionaries({item: st.integers(-2, 20) for item in ITEMS}), orders=ORDERS)
async def test_the_gate_takes_all_or_nothing(
    admission: Admission, client: Client, stock: dict[str, int], orders: list[dict[str, int]]
):
    """Whatever is asked for at once, it is as if one had come after the other."""
    await client.execute("FLUSHALL")
    await count(client, **stock)
    left = dict(stock)
    verdicts = await asyncio.gather(
        *(ask(admission, order, key=f"key-{n}") for n, order in enumerate(orders))
    )
    for order, verdict in zip(orders, verdicts, strict=True):
        known = {item: quantity for item, quantity in order.items() if item in left}
        lacking = {item for item, quantity in known.items() if left[item] < quantity}
        assert {*verdict.sold_out, *verdict.short} == lacking
        assert verdict.is_counted == (not lacking)
        if not lacking:
            assert verdict.is_known == (known.keys() == order.keys())
            left |= {item: left[item] - quantity for item, quantity in known.items()}
    assert await counted(client) == left
