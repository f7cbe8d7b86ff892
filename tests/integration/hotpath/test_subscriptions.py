"""Subscriptions hear everything while their connection lasts, and know when it did not."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest

from app.hotpath.address import Address
from app.hotpath.client import Client
from app.hotpath.subscriptions import Subscriptions

NAME = "subscriptions-test"


class Heard:
    """One subscriber: what it heard, and how often it was told that it may have missed something."""

    def __init__(self, subscriptions: Subscriptions, channel: str) -> None:
        self.messages: list[bytes] = []
        self.confirmations = 0
        self._changed = asyncio.Event()
        self.subscription = subscriptions.subscribe(channel, self._hear, missed=self._missed)

    def _hear(self, payload: bytes) -> None:
        self.messages.append(payload)
        self._changed.set()

    def _missed(self) -> None:
        self.confirmations += 1
        self._changed.set()

    async def until(self, *, messages: int = 0, confirmations: int = 0) -> None:
        """Wait until at least so much was heard."""
        async with asyncio.timeout(60):
            while len(self.messages) < messages or self.confirmations < confirmations:
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
async def client(redis_url) -> AsyncIterator[Client]:
    """Publishes."""
    async with Client(Address.parse(redis_url), name="publisher", deadline_s=5) as opened:
        yield opened


@pytest.fixture
async def subscriptions(redis_url) -> AsyncIterator[Subscriptions]:
    """Under test."""
    async with Subscriptions(Address.parse(redis_url), name=NAME) as opened:
        yield opened


async def kill_connection(client: Client) -> None:
    """End the connection from the server's side."""
    listed = (await client.execute("CLIENT", "LIST")).decode().splitlines()
    fields = [dict(field.split("=", 1) for field in line.split(" ") if "=" in field) for line in listed]
    ids = [one["id"] for one in fields if one["name"] == NAME]
    assert len(ids) == 1
    assert await client.execute("CLIENT", "KILL", "ID", ids[0]) == 1


async def test_a_message_is_heard_in_order_and_whole(client, subscriptions):
    """Payloads are bytes and come as they were published, and PUBLISH counts us."""
    heard = Heard(subscriptions, "c")
    await heard.until(confirmations=1)
    assert heard.subscription.is_confirmed
    payloads = [bytes([n % 256]) * n for n in range(300)]
    assert set(await asyncio.gather(*(client.execute("PUBLISH", "c", one) for one in payloads))) == {1}
    await heard.until(messages=len(payloads))
    assert heard.messages == payloads


async def test_a_subscriber_is_told_after_every_reconnect(client, subscriptions):
    """Whatever was said in between is lost, so each new confirmation says: look yourself."""
    heard = Heard(subscriptions, "c")
    for lost in range(1, 4):
        await heard.until(confirmations=lost)
        await client.execute("PUBLISH", "c", str(lost))
        await heard.until(messages=lost)
        await kill_connection(client)
    await heard.until(confirmations=4)
    assert heard.messages == [b"1", b"2", b"3"]
    assert subscriptions.statistics.connections == 4


async def test_many_channels_share_one_connection_and_come_back_together(client, subscriptions):
    """More channels than one SUBSCRIBE takes, before and after a reconnect."""
    all_heard = [Heard(subscriptions, f"c{n}") for n in range(1200)]
    await asyncio.gather(*(heard.until(confirmations=1) for heard in all_heard))
    await kill_connection(client)
    await asyncio.gather(*(heard.until(confirmations=2) for heard in all_heard))
    await asyncio.gather(*(client.execute("PUBLISH", f"c{n}", str(n)) for n in range(1200)))
    await asyncio.gather(*(heard.until(messages=1) for heard in all_heard))
    assert [heard.messages for heard in all_heard] == [[str(n).encode()] for n in range(1200)]


async def test_subscribers_of_one_channel_share_it(client, subscriptions):
    """The second subscriber is confirmed as well, and the first one's end does not end it."""
    first = Heard(subscriptions, "c")
    await first.until(confirmations=1)
    second = Heard(subscriptions, "c")
    await second.until(confirmations=1)
    assert first.confirmations == 1
    await client.execute("PUBLISH", "c", "both")
    await asyncio.gather(first.until(messages=1), second.until(messages=1))
    first.subscription.close()
    first.subscription.close()
    await client.execute("PUBLISH", "c", "one")
    await second.until(messages=2)
    assert first.messages == [b"both"]
    second.subscription.close()
    async with asyncio.timeout(60):
        while await client.execute("PUBLISH", "c", "nobody"):
            await asyncio.sleep(0.001)


async def test_a_channel_may_be_left_and_joined_again_at_once(client, subscriptions):
    """The server's late word about the first subscription does not silence the second."""
    for _ in range(50):
        Heard(subscriptions, "c").subscription.close()
    heard = Heard(subscriptions, "c")
    await heard.until(confirmations=1)
    async with asyncio.timeout(60):
        while not heard.messages:
            await client.execute("PUBLISH", "c", "x")
    assert heard.subscription.is_confirmed


async def test_a_subscriber_that_raises_disturbs_nobody(client, subscriptions):
    """Its error goes where asyncio's errors go; the connection and the others hear on."""
    reported = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    try:

        def fail(*_: bytes) -> None:
            raise ValueError("a subscriber's bug")

        subscriptions.subscribe("c", fail, missed=fail)
        heard = Heard(subscriptions, "c")
        await heard.until(confirmations=1)
        await client.execute("PUBLISH", "c", "x")
        await heard.until(messages=1)
    finally:
        loop.set_exception_handler(before)
    assert [type(error) for error in reported] == [ValueError, ValueError]
    assert subscriptions.statistics.connections == 1


async def test_nothing_is_heard_after_the_end(client, redis_url):
    """Closing ends the subscriptions at the server too, and is quick."""
    async with Subscriptions(Address.parse(redis_url), name=NAME) as opened:
        heard = Heard(opened, "c")
        await heard.until(confirmations=1)
    async with asyncio.timeout(60):
        while await client.execute("PUBLISH", "c", "x"):
            await asyncio.sleep(0.001)
    assert heard.messages == []


async def test_a_server_that_says_nothing_is_found_out(own_redis):
    """No reset ever comes from a frozen peer: the heartbeat ends the connection and a new one is made."""
    address = Address.parse(own_redis.url)
    async with (
        Client(address, name=NAME) as client,
        Subscriptions(address, name=NAME, heartbeat_s=0.1) as opened,
    ):
        heard = Heard(opened, "c")
        await heard.until(confirmations=1)
        os.kill(own_redis.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(60):
                while opened.is_up:
                    await asyncio.sleep(0.01)
        finally:
            os.kill(own_redis.pid, signal.SIGCONT)
        assert not heard.subscription.is_confirmed
        await heard.until(confirmations=2)
        await client.execute("PUBLISH", "c", "x")
        await heard.until(messages=1)
