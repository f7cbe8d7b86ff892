"""The cache: one load a key, never too old, and no worse than its loader when Redis is away."""

import asyncio
from time import monotonic

import pytest

from app.hotpath import cache_entries
from app.hotpath.address import Address
from app.hotpath.cache import Cache
from app.hotpath.cache_clock import ServerClock
from app.hotpath.cache_entries import Entry, Loaded, judge
from app.hotpath.client import Client
from app.hotpath.errors import Overloaded
from app.hotpath.flights import Flights
from tests.busy import BUSY_S


class Source:
    """Where values come from: counts how often it was asked, may be slow, may be away."""

    def __init__(self, body: bytes | None = b"value", **limits) -> None:
        self.body = body
        self.limits = {"lifetime_s": 60.0, **limits}
        self.asked = 0
        self.takes_s = 0.0
        self.may_end: asyncio.Event | None = None
        self.is_away = False

    async def load(self) -> Loaded:
        """The value as it is when it is asked for."""
        self.asked += 1
        body = self.body
        if self.takes_s:
            await asyncio.sleep(self.takes_s)
        if self.may_end:
            await self.may_end.wait()
        if self.is_away:
            raise OSError("away")
        return Loaded(body, **self.limits)


async def until(is_so, timeout_s: float = 60) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(timeout_s):
        while not is_so():
            await asyncio.sleep(0.002)


async def until_put(cache: Cache, count: int = 1) -> None:
    """Wait until so many values were written."""
    await until(lambda: cache.statistics.puts >= count)


@pytest.fixture
async def client(redis_url):
    """A client of an empty Redis."""
    async with Client(Address.parse(redis_url), name="cache") as one:
        assert await one.ready(60)
        yield one


@pytest.fixture
async def cache(client):
    """A cache in it."""
    one = Cache(client)
    yield one
    await one.close()


async def test_what_was_loaded_once_is_read_from_redis(cache):
    """Byte for byte."""
    source = Source(b'{"a":\n1}')
    assert await cache.read("k", source.load) == source.body
    await until_put(cache)
    for _ in range(5):
        assert await cache.read("k", source.load) == source.body
    assert (source.asked, cache.statistics.hits, cache.statistics.misses) == (1, 5, 1)


async def test_readers_of_one_moment_share_a_load(client):
    """A thousand who want the same ask once."""
    cache = Cache(client, join_s=60.0)  # however long a busy machine takes over a thousand
    source = Source()
    source.may_end = asyncio.Event()
    reading = [asyncio.create_task(cache.read("k", source.load)) for _ in range(1000)]
    await until(lambda: cache.statistics.misses + cache.statistics.errors == 1000)
    source.may_end.set()
    assert {await task for task in reading} == {b"value"}
    await cache.close()
    assert source.asked == 1


async def test_a_reader_who_gives_up_disturbs_nobody(cache):
    """The load is for the others too."""
    source = Source()
    source.takes_s = 0.05
    reading = [asyncio.create_task(cache.read("k", source.load)) for _ in range(10)]
    await until(lambda: source.asked == 1)
    for task in reading[:9]:
        task.cancel()
    assert await reading[9] == b"value"
    assert source.asked == 1


async def test_a_load_that_fails_fails_for_those_who_waited_and_nobody_else(cache):
    """Errors are not kept."""
    source = Source()
    source.is_away = True
    found = await asyncio.gather(*(cache.read("k", source.load) for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in found] == [OSError] * 3
    source.is_away = False
    assert await cache.read("k", source.load) == b"value"


async def test_an_old_load_is_joined_by_nobody(client):
    """Whoever comes later wants what was true when it came."""
    cache = Cache(client, join_s=0.05)
    source = Source(b"old")
    source.takes_s = 0.2
    first = asyncio.create_task(cache.read("k", source.load))
    await until(lambda: source.asked == 1)
    await asyncio.sleep(0.08)
    source.body, source.takes_s = b"new", 0.0
    assert await cache.read("k", source.load) == b"new"
    assert await first == b"old"
    await cache.close()


async def test_a_load_has_a_deadline(client):
    """Whoever waits is told in time; the load itself goes on and is written."""
    cache = Cache(client, load_deadline_s=0.05)
    source = Source()
    source.takes_s = 1.0
    started = monotonic()
    with pytest.raises(TimeoutError):
        await cache.read("k", source.load)
    assert monotonic() - started < 0.95
    await until_put(cache)
    await cache.close()


async def test_loads_are_limited():
    """More than so many are refused at once, and room comes back."""
    flights: Flights[int, None] = Flights(deadline_s=1, join_s=1, flights_max=10)
    held = asyncio.Event()

    async def load() -> None:
        await held.wait()

    waiting = [asyncio.create_task(flights.join(number, load)) for number in range(10)]
    await until(lambda: len(flights) == 10)
    with pytest.raises(Overloaded):
        await flights.join(10, load)
    held.set()
    await asyncio.gather(*waiting)
    assert len(flights) == 0
    await flights.join(10, load)


async def test_that_there_is_nothing_is_remembered_too(cache):
    """For as long as the loader says."""
    source = Source(None, lifetime_s=0.1)
    assert await cache.read("k", source.load) is None
    await until_put(cache)
    assert await cache.read("k", source.load) is None
    assert source.asked == 1
    await asyncio.sleep(0.12)
    assert await cache.read("k", source.load) is None
    assert source.asked == 2


async def test_something_replaces_nothing(cache):
    """Whoever makes a value writes it through."""
    source = Source(None)
    await cache.read("k", source.load)
    await until_put(cache)
    await cache.put_all([Entry("k", Loaded(b"made", 60, version=1), monotonic())])
    assert await cache.read("k", source.load) == b"made"


async def test_the_newer_version_wins_in_whatever_order_they_come(cache):
    """Versions first, then changes within one, then when they were loaded."""
    now = monotonic()

    def entry(version: int, change: int, ago_s: float) -> Entry:
        return Entry("k", Loaded(b"%d %d %g" % (version, change, ago_s), 60, 0, version, change), now - ago_s)

    for later, earlier in (
        (entry(2, 0, 9), entry(1, 5, 1)),
        (entry(3, 5, 9), entry(3, 4, 1)),
        (entry(4, 1, 1), entry(4, 1, 9)),
        (entry(10, 0, 1), entry(9, 0, 1)),
    ):
        assert await cache.put_all([later]) == 1
        assert await cache.put_all([earlier]) == 0
        assert (await cache.find("k")).body == later.loaded.body


async def test_lifetimes_differ_and_are_never_longer_than_said(cache, client):
    """What was written together does not end together."""
    now = monotonic()
    await cache.put_all([Entry(f"k{n}", Loaded(b"v", 100), now) for n in range(50)])
    left = [await client.execute("PTTL", f"k{n}") for n in range(50)]
    assert max(left) <= 100_000
    assert min(left) >= 89_000
    assert len({ms // 1000 for ms in left}) > 3


async def test_a_dear_load_is_begun_before_the_lifetime_ends(cache):
    """Behind the reader's back: nobody waits for it."""
    source = Source(lifetime_s=0.5)
    source.takes_s = 0.1
    await cache.read("k", source.load)
    await until_put(cache)
    source.body = b"fresh"
    waited = 0.0
    ends = monotonic() + 3
    while source.asked < 2:
        assert monotonic() < ends
        started = monotonic()
        await cache.read("k", source.load)
        waited = max(waited, monotonic() - started)
        await asyncio.sleep(0.005)
    assert cache.statistics.early
    assert waited < 0.09
    await until_put(cache, 2)
    assert await cache.read("k", source.load) == b"fresh"


async def test_a_load_is_likelier_to_begin_the_dearer_it_is_and_the_nearer_the_end():
    """XFetch: certain to be rare far from the end, certain to be frequent close to it."""

    def due(left_s: float, cost_s: float, beta: float = 1.0) -> float:
        now = 1e15
        header = b"1 0 %d %d %d %d\n" % (now - 1e6, now + left_s * 1e6, now + 9e9, cost_s * 1e6)
        return sum(judge(header + b"v", now, beta).is_due for _ in range(2000)) / 2000

    assert due(10, 0.1) == 0
    assert 0.3 < due(0.1, 0.1) < 0.45  # 1/e
    assert due(0.01, 0.1) > 0.85
    assert due(0.2, 0.1) < due(0.2, 0.1, beta=3)
    assert due(0.01, 0.1, beta=0) == 0


async def test_a_stale_value_stands_in_for_a_loader_that_is_away(cache):
    """For a bounded time; a loader that is there is always asked."""
    source = Source(b"old", lifetime_s=0.1, stale_s=0.4)
    await cache.read("k", source.load)
    await until_put(cache)
    source.is_away = True
    await asyncio.sleep(0.11)
    for _ in range(3):
        assert await cache.read("k", source.load) == b"old"
    assert cache.statistics.stale == 3
    await asyncio.sleep(0.4)
    with pytest.raises(OSError):
        await cache.read("k", source.load)
    source.is_away, source.body = False, b"new"
    assert await cache.read("k", source.load) == b"new"


async def test_what_the_loader_refuses_is_no_reason_for_a_stale_value(cache):
    """Only "away" is; a defect stays loud."""
    await cache.put_all([Entry("k", Loaded(b"old", 0.01, 60), monotonic())])
    await asyncio.sleep(0.02)

    async def load() -> Loaded:
        raise KeyError("defect")

    with pytest.raises(KeyError):
        await cache.read("k", load)


async def test_without_redis_the_loader_is_asked_once_for_all():
    """A dead Redis costs next to nothing."""
    async with Client(Address.parse("redis://127.0.0.1:1/0"), name="nobody") as client:
        cache = Cache(client)
        source = Source()
        assert await cache.read("k", source.load) == b"value"
        source.takes_s = 0.05
        started = monotonic()
        found = await asyncio.gather(*(cache.read("k", source.load) for _ in range(100)))
        assert set(found) == {b"value"}
        assert source.asked == 2
        assert monotonic() - started < 0.2 + BUSY_S
        await cache.close()


@pytest.mark.parametrize("value", ["", "nonsense", "1 2 3 4 5 6", "1 2 3 4 5 x\nbody", "1 2\nbody"])
async def test_what_is_none_of_ours_is_not_read(cache, client, value):
    """Anybody may have written there; the next load replaces it."""
    await client.execute("SET", "k", value)
    assert await cache.read("k", Source().load) == b"value"
    await until_put(cache)
    assert (await cache.find("k")).body == b"value"


async def test_a_key_of_another_type_is_replaced(cache, client):
    """The error is the cache's business, not the reader's."""
    await client.execute("LPUSH", "k", "x")
    assert await cache.read("k", Source().load) == b"value"
    await until_put(cache)
    assert (await cache.find("k")).body == b"value"


async def test_many_values_are_written_by_a_server_that_lost_the_script(cache, client):
    """SCRIPT FLUSH in the middle: they are written all the same."""
    await cache.put_all([Entry("k", Loaded(b"v", 60), monotonic())])
    await client.execute("SCRIPT", "FLUSH")
    assert await cache.put_all([Entry(f"k{n}", Loaded(b"v", 60), monotonic()) for n in range(20)]) == 20


async def test_a_write_that_was_stuck_on_its_way_comes_to_nothing(fault_proxy, redis_url):
    """It arrives after its time, and must not begin to live then."""
    address = Address.parse(fault_proxy.url)
    async with (
        Client(address, name="a", deadline_s=0.05) as there,
        Client(Address.parse(redis_url), name="b") as here,
    ):
        assert await there.ready(60)
        cache = Cache(there)
        await cache.put_all([Entry("other", Loaded(b"v", 60), monotonic())])
        await here.execute("CONFIG", "RESETSTAT")
        fault_proxy.to_server.silence()
        cache.put_soon(Entry("k", Loaded(b"old", 0.3), monotonic()))
        await until(lambda: cache.statistics.unput == 1)
        await asyncio.sleep(0.3)
        fault_proxy.heal()
        async with asyncio.timeout(60):
            while b"cmdstat_evalsha:calls=1," not in await here.execute("INFO", "commandstats"):
                await asyncio.sleep(0.005)
        assert not await here.execute("EXISTS", "k")
        await cache.close()


async def test_a_server_whose_clock_was_set_back_keeps_nothing_for_longer(cache, client, monkeypatch):
    """A value from the future is not read, and is replaced by one from now."""
    hour = 3_600_000_000
    seconds, microseconds = await client.execute("TIME")
    now = int(seconds) * 1_000_000 + int(microseconds)
    header = b"5 0 %d %d %d 0\n" % (now + hour, now + hour + 1_000_000, now + hour + 1_000_000)
    await client.execute("SET", "k", header + b"from the future")
    assert await cache.find("k") is None
    source = Source(b"now", version=4)
    assert await cache.read("k", source.load) == b"now"
    await until_put(cache)
    assert (await cache.find("k")).body == b"now"


async def test_the_servers_clock_is_known_within_bounds(client):
    """However long a question took: the truth is between the bounds, and a sharper answer is kept."""
    clock = ServerClock(client)
    assert not clock.is_known(monotonic())
    await asyncio.gather(*(clock.know() for _ in range(20)))
    assert client.statistics.commands <= 2
    for _ in range(20):
        before = monotonic()
        seconds, microseconds = await client.execute("TIME")
        shown = int(seconds) * 1_000_000 + int(microseconds)
        assert clock.earliest(before) <= shown <= clock.latest(monotonic())
    blur = clock.latest(100.0) - clock.earliest(100.0)
    clock.learn(shown, asked_at=monotonic() - 1, heard_at=monotonic())
    assert clock.latest(100.0) - clock.earliest(100.0) == blur


async def test_after_a_reconnect_the_clock_is_asked_again(redis_url):
    """The new connection may lead to another server."""
    async with Client(Address.parse(redis_url), name="clock") as client:
        clock = ServerClock(client)
        await clock.know()
        me = await client.execute("CLIENT", "ID")
        await client.execute("CLIENT", "KILL", "ID", me, "SKIPME", "no")
        await until(lambda: not clock.is_known(monotonic()))
        assert await client.ready(60)
        await clock.know()
        assert clock.is_known(monotonic())


async def test_an_empty_value_is_a_defect(cache):
    """It could not be told from none."""
    with pytest.raises(AssertionError):
        cache_entries.stored_as(Entry("k", Loaded(b"", 1), 0.0), loaded_at=0)
