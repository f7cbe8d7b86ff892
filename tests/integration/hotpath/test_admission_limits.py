"""Limits let through what their policy says: by the server's clock, in portions, and without a server."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from fractions import Fraction
from itertools import count as counting

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from app.hotpath import budgets
from app.hotpath.address import Address
from app.hotpath.admission import Admission
from app.hotpath.admission_policy import Decision, Policy
from app.hotpath.buckets import Buckets
from app.hotpath.budgets import Budgets
from app.hotpath.client import Client
from app.hotpath.scripts import Script
from tests.busy import BUSY_S

EPOCH_US = 1_790_000_000_000_000
HASH = b"h" * 32
KEY = "{caller}:limit:read"
NOBODY = Address.parse("redis://127.0.0.1:1")


def told_the_time(name: str) -> Script:
    """A script that is told the time with its last key, so that it lasts as long as the test likes."""
    source = Script.load(name).source
    asks, expires = b"redis.call('TIME')", b", 'PX', math.ceil((used_until - now) / 1000))"
    assert (source.count(asks), source.count(expires)) == (1, 1)
    source = source.replace(asks, b"{string.match(KEYS[#KEYS], '(%d+) (%d+)')}")
    return Script.of(source.replace(expires, b")"))


ADMIT, LEASE = told_the_time("admit"), told_the_time("lease")


@pytest.fixture
async def client(redis_url) -> AsyncIterator[Client]:
    """Of the server."""
    async with Client(Address.parse(redis_url), name="limits", deadline_s=10) as opened:
        yield opened


class Model:
    """The limit in exact numbers: a window's worth at once, and then as fast as it refills."""

    def __init__(self, policy: Policy) -> None:
        self.interval = Fraction(policy.window_s * 1_000_000, policy.limit)
        self.window = policy.window_s * 1_000_000
        self.used_until = Fraction(0)

    def room(self, now: int) -> Fraction:
        """Microseconds' worth that is left."""
        return now + self.window - max(self.used_until, now)

    def take(self, now: int, count: int) -> None:
        """So many passed."""
        self.used_until = max(self.used_until, now) + count * self.interval


POLICIES = st.builds(Policy, st.just("read"), st.integers(1, 20_000), st.sampled_from([1, 1, 60]))
STEPS = st.lists(
    st.tuples(
        st.integers(0, 3) | st.integers(0, 2_000_000),  # microseconds since the step before
        st.just(0) | st.integers(1, 2_000),  # 0: one request is admitted; else so many are leased
        st.integers(1, 60),  # how often
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(policy=POLICIES, steps=STEPS)
async def test_the_limit_is_the_models(client: Client, policy: Policy, steps: list[tuple[int, int, int]]):
    """Whatever comes when, one by one or in portions: as many pass, as many are left, as long is the wait."""
    await client.execute("FLUSHALL")
    model, now, numbers = Model(policy), EPOCH_US, counting()
    for pause_us, wanted, times in steps:
        now += pause_us
        clock = f"{now // 1_000_000} {now % 1_000_000}"
        for _ in range(times):
            room = model.room(now)
            if wanted:
                reply = await client.evaluate(LEASE, (KEY, clock), (*policy.arguments, wanted))
                taken, left = (0, 0) if isinstance(reply, int) else reply
            else:
                keys = (KEY, f"{{caller}}:answer:{next(numbers)}", "{gate}:counts", "{gate}:passed", clock)
                reply = await client.evaluate(ADMIT, keys, (*policy.arguments, HASH))
                taken, left = (0, 0) if reply < 0 else (1, reply >> 2)
            # A microsecond either way is what floats may cost.
            fewest, most = int((room - 1) / model.interval), int((room + 1) / model.interval)
            assert min(fewest, wanted or 1) <= taken <= min(most, wanted or 1)
            if taken:
                assert fewest <= taken + left <= most
            else:
                assert abs(-reply - (model.interval - room)) <= 2
            model.take(now, taken)


async def test_a_key_of_a_limit_is_gone_when_the_limit_is_whole_again(client: Client):
    """Nothing is kept of callers that do not come."""
    policy = Policy("read", 20)
    await client.evaluate(Script.load("lease"), (KEY,), (*policy.arguments, 10))
    assert 400 <= await client.execute("PTTL", KEY) <= 501


async def test_a_limit_outlives_a_clock_that_was_set_back(client: Client):
    """Nobody waits for a day that was lived already."""
    policy = Policy("read", 10)
    for seconds, expected in ((2_000_000_000, [4, 6]), (1_900_000_000, None), (1_900_000_001, [4, 6])):
        reply = await client.evaluate(LEASE, (KEY, f"{seconds} 0"), (*policy.arguments, 4))
        if expected is None:
            assert -100_001 <= reply < 0
        else:
            assert reply == expected


@pytest.mark.parametrize("wrong", ["inf", "99999999999999999", "nan", "x", "1e400", "-inf"])
@pytest.mark.parametrize("name", ["admit", "lease"])
async def test_a_number_that_is_no_limit_is_forgotten(client: Client, name: str, wrong: str):
    """Whoever wrote it, a caller within its limit is refused for no longer than the limit's window."""
    policy, admission = Policy("read", 10), Admission(client, Buckets())
    budget = Budgets(client, Buckets(), lambda _: KEY)
    await client.execute("SET", KEY, wrong)

    async def passes() -> bool:
        if name == "lease":
            return (await budget.take("caller", policy)).is_allowed
        keys = (KEY, "{caller}:answer", "{gate}:counts", "{gate}:passed")
        verdict = await admission.admit("caller", policy, keys, body_hash=HASH, items=(), quantities=())
        if verdict.error is not None:
            await client.execute("UNLINK", KEY)  # as whoever is told of the error does
        return verdict.error is None and verdict.decision.is_allowed

    async with asyncio.timeout(2 + BUSY_S):
        while not await passes():
            await asyncio.sleep(0.02)


async def test_what_asks_once_more_counts_once(budget: Budgets, client: Client):
    """It was let through already; also where nothing else of its limit is left, and without a server."""
    policy = Policy("read", 1, window_s=60)
    assert (await budget.take("caller", policy)).is_allowed
    budget.give_back("caller", policy)
    assert (await budget.take("caller", policy)).is_allowed
    assert not (await budget.take("caller", policy)).is_allowed
    async with Client(NOBODY, name="nobody") as nobody:
        alone = Budgets(nobody, Buckets(), lambda caller: caller)
        for _ in range(3):
            assert (await alone.take("caller", policy)).is_allowed
            alone.give_back("caller", policy)
        assert (await alone.take("caller", policy)).is_allowed
        assert not (await alone.take("caller", policy)).is_allowed
        await alone.close()


async def take(budget: Budgets, policy: Policy, caller: str = "caller") -> Decision:
    """One request, as the gateway takes it."""
    return budget.try_take(caller, policy) or await budget.take(caller, policy)


@pytest.fixture
async def budget(client) -> AsyncIterator[Budgets]:
    """Of one process."""
    opened = Budgets(client, Buckets(), lambda caller: f"{{{caller}}}:limit:read")
    yield opened
    await opened.close()


async def test_what_is_left_counts_down_and_then_it_is_refused(budget: Budgets):
    """The headers say how many are left, and when to come again."""
    policy = Policy("read", 5, window_s=60)
    headers = [(await take(budget, policy)).headers for _ in range(6)]
    says = (b"ratelimit-policy", b'"read";q=5;w=60')
    assert headers == [
        (says, (b"ratelimit", b'"read";r=4;t=12')),
        (says, (b"ratelimit", b'"read";r=3;t=24')),
        (says, (b"ratelimit", b'"read";r=2;t=36')),
        (says, (b"ratelimit", b'"read";r=1;t=48')),
        (says, (b"ratelimit", b'"read";r=0;t=60')),
        (says, (b"ratelimit", b'"read";r=0;t=12'), (b"retry-after", b"12")),
    ]


async def test_a_caller_over_its_limit_is_refused_without_asking(budget: Budgets, client: Client):
    """A flood costs the server nothing."""
    policy = Policy("read", 2, window_s=60)
    while (await take(budget, policy)).is_allowed:
        pass
    asked = client.statistics.commands
    for _ in range(1000):
        assert not budget.try_take("caller", policy).is_allowed
    assert client.statistics.commands == asked


async def test_most_reads_ask_nobody(budget: Budgets, client: Client):
    """Portions grow while they are used up quickly, and come before they are needed."""
    policy, waited = Policy("read", 20_000), 0
    for _ in range(5_000):
        decision = budget.try_take("caller", policy)
        if decision is None:
            waited += 1
            decision = await budget.take("caller", policy)
        assert decision.is_allowed
        assert 0 <= decision.remaining < policy.limit
        await asyncio.sleep(0)
    assert waited <= 25
    assert client.statistics.commands <= 150


async def test_whoever_waits_together_asks_once(budget: Budgets, client: Client):
    """A hundred first requests at once are one question."""
    policy = Policy("read", 10_000)
    decisions = await asyncio.gather(*(take(budget, policy) for _ in range(100)))
    assert all(decision.is_allowed for decision in decisions)
    assert max(decision.remaining for decision in decisions) == 9_999
    assert client.statistics.commands <= 4


async def test_a_request_that_gives_up_takes_nobody_with_it(budget: Budgets):
    """Others wait for the same portion."""
    policy = Policy("read", 10_000)
    waiting = [asyncio.create_task(budget.take("caller", policy)) for _ in range(10)]
    await asyncio.sleep(0)
    for task in waiting[::2]:
        task.cancel()
    decisions = await asyncio.gather(*waiting, return_exceptions=True)
    assert [isinstance(decision, Decision) for decision in decisions] == [False, True] * 5


async def test_what_is_not_used_lapses(budget: Budgets):
    """What is left of a portion is not kept for later, and the next one is as small as was needed."""
    policy, clock = Policy("read", 10_000), asyncio.get_running_loop().time
    assert (await budget.take("caller", policy)).is_allowed
    assert budget.try_take("caller", policy)
    budget._time = lambda: clock() + budgets.LAPSE_S
    assert budget.try_take("caller", policy) is None
    decision = await budget.take("caller", policy)
    assert decision.remaining + 2 == budget.try_take("caller", policy).remaining + 3
    assert budget.try_take("caller", policy) is None


async def test_all_processes_together_keep_to_the_limit(redis_url: str):
    """Beyond it is only what they held: one and a half portions each."""
    policy, count = Policy("read", 2_000), 4
    passed = 0
    async with AsyncExitStack() as stack:
        processes: list[Budgets] = []
        for number in range(count):
            client = Client(Address.parse(redis_url), name=f"process-{number}", deadline_s=10)
            await (await stack.enter_async_context(client)).ready(60)
            processes.append(Budgets(client, Buckets(), lambda caller: f"{{{caller}}}:limit:read"))
            stack.push_async_callback(processes[-1].close)

        async def hammer(process: Budgets) -> None:
            nonlocal passed
            while time.perf_counter() < until:
                decision = await take(process, policy)
                passed += decision.is_allowed
                await asyncio.sleep(0)

        started = time.perf_counter()
        until = started + 1.5
        await asyncio.gather(*(hammer(process) for process in processes for _ in range(8)))
        elapsed = time.perf_counter() - started
    held = count * 3 * policy.limit // (2 * budgets.PORTIONS_MIN)
    assert policy.limit * 2 <= passed <= policy.limit * (1 + elapsed) + held


async def test_without_a_server_the_process_limits_by_itself():
    """At once, with the same headers; nothing waits for a server that is not there."""
    async with Client(NOBODY, name="nobody") as client:
        budget = Budgets(client, Buckets(), lambda caller: caller)
        policy = Policy("read", 3, window_s=60)
        started = time.perf_counter()
        decisions = [await take(budget, policy) for _ in range(5)]
        assert time.perf_counter() - started < 1 + BUSY_S
        assert [decision.remaining for decision in decisions] == [2, 1, 0, 0, 0]
        assert [decision.retry_after_s for decision in decisions] == [0, 0, 0, 20, 20]
        assert (await take(budget, policy, "another")).is_allowed
        await budget.close()


async def test_a_key_that_somebody_else_wrote_is_taken_back(budget: Budgets, client: Client):
    """The process limits by itself that once, and throws away what is not a limit."""
    policy = Policy("read", 10_000)
    await client.execute("LPUSH", KEY, "not a number")
    assert (await budget.take("caller", policy)).is_allowed
    async with asyncio.timeout(60):
        while await client.execute("TYPE", KEY) != b"string":
            await budget.take("caller", policy)


async def test_a_changed_limit_holds_from_the_next_request(budget: Budgets):
    """What was leased under the old one is given up, and counts as used."""
    assert (await budget.take("caller", Policy("read", 10_000))).is_allowed
    small = Policy("read", 2, window_s=60)
    decisions = [await take(budget, small) for _ in range(3)]
    assert (decisions[0].is_allowed, decisions[2].is_allowed) == (True, False)


async def test_buckets_forget_callers_that_do_not_come(monkeypatch: pytest.MonkeyPatch):
    """They hold a bounded number of callers, and drop who came least lately."""
    monkeypatch.setattr("app.hotpath.buckets.CALLERS_MAX", 3)
    buckets, policy = Buckets(), Policy("read", 1, window_s=60)
    for caller in ("a", "b", "c", "d"):
        assert buckets.take(caller, policy).is_allowed
    assert buckets.take("a", policy).is_allowed
    assert not buckets.take("d", policy).is_allowed


@settings(max_examples=200, deadline=None)
@given(limit=st.integers(1, 10_000), window_s=st.sampled_from([1, 60]), remaining=st.integers(0, 10_000))
def test_headers_are_whole_numbers_within_the_policy(limit: int, window_s: int, remaining: int):
    """Structured fields: an item with parameters, and never more than there can be."""
    policy = Policy("write", limit, window_s)
    remaining = min(remaining, limit - 1)
    (_, says), (name, left) = policy.allowed(remaining).headers
    assert says == f'"write";q={limit};w={window_s}'.encode()
    head, _, reset_s = left.partition(b";t=")
    assert (name, head) == (b"ratelimit", f'"write";r={remaining}'.encode())
    assert 1 <= int(reset_s) <= window_s


@pytest.mark.parametrize(("limit", "window_s"), [(0, 1), (-1, 1), (1_000_001, 1)])
def test_a_limit_that_cannot_be_counted_is_refused(limit: int, window_s: int):
    """Below one it would admit nobody, above a million the clock is too coarse."""
    with pytest.raises(ValueError, match="a limit is"):
        Policy("read", limit, window_s)
