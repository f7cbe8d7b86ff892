"""A lock that is held long is renewed; one that is lost says so at once, whatever took it away."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.dev.servers import EmbeddedValkey
from app.hotpath.errors import HotpathError
from app.hotpath.locks import Lease, LockLost, LockNotAcquired
from tests.busy import BUSY_S
from tests.integration.hotpath.lock_world import Process, nothing_is_left, process, queued, until
from tests.proxy import FaultProxy


@pytest.fixture
async def one(redis_url) -> AsyncIterator[Process]:
    """A process."""
    async with process(redis_url) as opened:
        yield opened


@pytest.fixture
async def two(redis_url) -> AsyncIterator[Process]:
    """Another."""
    async with process(redis_url) as opened:
        yield opened


async def seconds_until_lost(lease: Lease) -> float:
    """How long it takes until the holder is told."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with asyncio.timeout(60):
        assert await lease.lost
    assert lease.is_lost
    assert not lease.is_held
    with pytest.raises(LockLost):
        lease.check()
    return loop.time() - started


async def test_a_lock_that_is_held_long_is_renewed(one, two):
    """Six lifetimes later it is still ours, and no other process had it."""
    async with one.locks.hold("n", lifetime_s=0.3) as lease:
        waiting = asyncio.create_task(two.locks.hold("n", wait_s=30).__aenter__())
        before = one.client.statistics.commands
        await asyncio.sleep(1.8)  # time itself is under test
        assert lease.is_held
        assert not waiting.done()
        assert 12 <= one.client.statistics.commands - before <= 30
    assert (await waiting).token > lease.token


async def test_one_timer_serves_all_leases(one):
    """Hundreds of leases of different lifetimes live on, without a task of their own."""
    tasks = len(asyncio.all_tasks())
    leases = [one.locks.hold(f"n{n}", lifetime_s=1.5 + n % 3) for n in range(500)]
    await asyncio.gather(*(lease.__aenter__() for lease in leases))
    assert len(asyncio.all_tasks()) == tasks
    await asyncio.sleep(2)  # time itself is under test
    assert all(lease.is_held for lease in leases)
    assert all(await asyncio.gather(*(lease.release() for lease in leases)))
    assert one.locks.watch.held == {}


async def test_short_holds_cost_the_watch_nothing(one):
    """A lease that is over when it would be looked at is not renewed."""
    for n in range(300):
        async with one.locks.hold(f"n{n % 7}", lifetime_s=0.3):
            pass
    before = one.client.statistics.commands
    await asyncio.sleep(0.4)  # time itself is under test
    assert one.client.statistics.commands == before


@pytest.mark.parametrize("how", ["DEL", "FLUSHALL", "stolen"])
async def test_a_lock_that_was_taken_away_is_told_at_the_next_renewal(one, two, how):
    """A third of the lifetime, at most."""
    async with one.locks.hold("n", lifetime_s=0.6) as lease:
        assert not lease.is_lost
        if how == "FLUSHALL":
            await one.client.execute("FLUSHALL")
        else:
            await one.client.execute("DEL", lease.key)
        if how == "stolen":
            async with two.locks.hold("n") as other:
                assert await seconds_until_lost(lease) < 0.35 + BUSY_S
                assert other.is_held
        else:
            assert await seconds_until_lost(lease) < 0.35 + BUSY_S
    await nothing_is_left(one.client)


async def test_who_leaves_a_lost_lock_wakes_those_who_wait(one, two, monkeypatch):
    """A lock that was deleted wakes nobody; its late release does, at once."""
    monkeypatch.setattr("app.hotpath.locks_line.NET_S", 60.0)  # nobody asks but who is woken
    loop = asyncio.get_running_loop()
    for _ in range(3):
        async with one.locks.hold("n") as lease:
            waiting = asyncio.create_task(two.locks.hold("n").__aenter__())
            await queued(one.client, "n", 1)
            await one.client.execute("DEL", lease.key)
            started = loop.time()
        next_lease = await waiting
        assert loop.time() - started < 0.3 + BUSY_S
        assert await next_lease.release()


async def test_a_server_that_does_not_answer_lets_the_lease_run_out_here_first(fault_proxy: FaultProxy, two):
    """Before the lock can be another's, its holder knows that it is not ours."""
    async with process(fault_proxy.url, deadline_s=0.1) as one:
        lease = await one.locks.hold("n", lifetime_s=0.8).__aenter__()
        fault_proxy.to_server.silence()
        waiting = asyncio.create_task(two.locks.hold("n", wait_s=30).__aenter__())
        assert await seconds_until_lost(lease) < 0.85
        assert not waiting.done()
        other = await waiting
        assert other.token > lease.token
        assert not await lease.release()
        fault_proxy.heal()
        await two.client.execute("PING")
        assert other.is_held
        assert await other.release()
        await nothing_is_left(two.client)


async def test_short_breaks_are_survived(fault_proxy: FaultProxy):
    """Connections that end, end to end: the watch asks again until the lifetime has ended."""
    async with process(fault_proxy.url, deadline_s=0.1) as one:
        lease = await one.locks.hold("n", lifetime_s=3).__aenter__()
        for _ in range(15):
            await fault_proxy.end(by_reset=True)
            await asyncio.sleep(0.25)  # longer than a lifetime, all together
            lease.check()
        await until(lambda: one.client.is_up)
        assert await lease.release()


async def test_a_process_that_slept_knows_when_it_wakes(one, two):
    """Nobody could tell it meanwhile, but the first look at the lease says it."""
    lease = await one.locks.hold("n", lifetime_s=0.1).__aenter__()
    lease.expires_at -= 0.2  # as if this process had not run for so long
    assert lease.is_lost
    with pytest.raises(LockLost):
        lease.check()


async def test_those_who_listen_are_independent(one):
    """One who stops listening deafens nobody; giving back cancels who listens, also who comes late."""
    async with one.locks.hold("n", lifetime_s=0.3) as lease:
        first, second = asyncio.ensure_future(lease.lost), asyncio.ensure_future(lease.lost)
        first.cancel()
        await one.client.execute("DEL", lease.key)
        assert "does not know" in await second
        assert await lease.lost == await second
    async with one.locks.hold("n") as lease:
        listening = lease.lost
    assert listening.cancelled()
    assert lease.lost.cancelled()
    assert not lease.is_lost


async def test_a_shorter_lifetime_is_believed_before_it_is_confirmed(fault_proxy: FaultProxy):
    """An extension whose answer stays away leaves only what is certain: the sooner end."""
    async with process(fault_proxy.url, deadline_s=0.1) as one:
        lease = await one.locks.hold("n", lifetime_s=60).__aenter__()
        fault_proxy.to_client.silence()
        with pytest.raises(HotpathError):
            await lease.extend(0.3)
        assert await seconds_until_lost(lease) < 0.35 + BUSY_S
        fault_proxy.heal()


@pytest.fixture
async def own_server(tmp_path: Path) -> AsyncIterator[EmbeddedValkey]:
    """A server that may be killed."""
    server = EmbeddedValkey(tmp_path, durable=False)
    await server.start()
    yield server
    await server.stop()


async def test_a_server_that_was_restarted_has_no_locks_and_everybody_knows(own_server):
    """The holder is told when the connection is back, not a third of a lifetime later; who waits goes on."""
    async with process(own_server.url) as one, process(own_server.url) as two:
        lease = await one.locks.hold("n", lifetime_s=60).__aenter__()
        waiting = [
            asyncio.create_task(process_.locks.hold("n", wait_s=30).__aenter__()) for process_ in (one, two)
        ]
        await queued(one.client, "n", 2)
        await own_server.kill()
        await until(lambda: not one.client.is_up)
        assert lease.is_held  # its lifetime has not ended, and nobody knows better
        await own_server.start()
        assert await seconds_until_lost(lease) < 5 + BUSY_S
        done, _ = await asyncio.wait(waiting, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        first = done.pop().result()
        assert (
            first.token == 1
        )  # the counter went with the data: what is exclusive needs the database's tokens
        assert await first.release()
        (other,) = set(waiting) - {task for task in waiting if task.done() and task.result() is first}
        assert await (await other).release()
        await nothing_is_left(one.client)


async def test_waiting_ends_in_time_though_the_server_is_gone(own_server):
    """The reason is the one behind the other."""
    async with (
        process(own_server.url) as one,
        process(own_server.url) as two,
        one.locks.hold("n", lifetime_s=0.2) as lease,
    ):
        waiting = asyncio.create_task(two.locks.hold("n", wait_s=2).__aenter__())
        await queued(one.client, "n", 1)
        await own_server.kill()
        await until(lambda: lease.is_lost)
        with pytest.raises(LockNotAcquired) as refusal:
            await waiting
        assert isinstance(refusal.value.__cause__, HotpathError)
