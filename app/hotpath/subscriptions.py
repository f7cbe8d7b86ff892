"""`Subscriptions`: pub/sub on a connection of its own, subscribed again by itself.

A message may be lost whenever the connection is: so every subscriber is told `missed` each time the server
has confirmed its subscription, the first time too, and looks for itself what it did not hear. A connection
that died silently is found by a heartbeat. If the process dies here, the server forgets the subscriptions
with the connection; the count of receivers that PUBLISH answers never includes them.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, Self, TypeAlias

from app.hotpath.address import Address
from app.hotpath.client import Client
from app.hotpath.dialing import Examine
from app.hotpath.statistics import Statistics

HEARTBEAT_S: Final = 2.0
"""A connection that said nothing for this long is asked whether it lives."""
CHANNELS_A_COMMAND_MAX: Final = 500

Handler: TypeAlias = Callable[[bytes], None]
"""Takes a message's payload. It must not wait; what it raises goes to the loop's exception handler."""


class Subscription:
    """One subscriber of one channel. `close` ends it at once."""

    __slots__ = ("_subscriptions", "channel", "handler", "is_confirmed", "missed")

    def __init__(
        self,
        subscriptions: "Subscriptions",
        channel: bytes,
        handler: Handler,
        missed: Callable[[], None],
    ) -> None:
        """Made by `Subscriptions.subscribe`."""
        self.channel = channel
        self.handler = handler
        self.missed = missed
        self.is_confirmed = False  # messages are heard just now
        self._subscriptions = subscriptions

    def close(self) -> None:
        """Hear nothing more. Safe to call twice."""
        self._subscriptions.unsubscribe(self)


class Subscriptions:
    """The channels that one process hears on one server. Use `async with`; opening never fails."""

    def __init__(
        self,
        address: Address,
        *,
        name: str,
        heartbeat_s: float = HEARTBEAT_S,
        examine: Examine | None = None,
    ) -> None:
        """Prepare; `open` connects, as `name` in the server's CLIENT LIST. `examine` is the client's."""
        self._client = Client(
            address,
            name=name,
            breaker=False,
            heartbeat_s=heartbeat_s,
            examine=examine,
            on_push=self._pushed,
        )
        self._client.when_connected.append(self._connected)
        self._client.when_lost.append(self._lost)
        self._channels: dict[bytes, list[Subscription]] = {}
        self._confirmed: set[bytes] = set()
        self._loop = asyncio.get_running_loop()

    @property
    def is_up(self) -> bool:
        """Whether there is a connection."""
        return self._client.is_up

    @property
    def statistics(self) -> Statistics:
        """What the connection counts."""
        return self._client.statistics

    def subscribe(
        self, channel: str | bytes, handler: Handler, *, missed: Callable[[], None] = lambda: None
    ) -> Subscription:
        """Hear a channel from about now on, through every reconnect, until the subscription is closed.

        `handler` is called with each payload. `missed` is called whenever the server has confirmed that it
        will send what comes from then on: what came before, since the last message, was not heard.
        """
        key = channel.encode() if isinstance(channel, str) else channel
        subscription = Subscription(self, key, handler, missed)
        others = self._channels.get(key)
        if others is None:
            self._channels[key] = [subscription]
            self._client.send_unanswered("SUBSCRIBE", key)
        else:
            self._channels[key] = [*others, subscription]
            if key in self._confirmed:
                self._loop.call_soon(self._confirm, subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Hear nothing more for this subscriber; the channel's last one ends it at the server."""
        subscription.is_confirmed = False
        key = subscription.channel
        before = self._channels.get(key, [])
        # A list of its own for each state: a handler may unsubscribe while the list is gone through.
        after = [other for other in before if other is not subscription]
        if after:
            self._channels[key] = after
        elif before:
            del self._channels[key]
            self._confirmed.discard(key)
            self._client.send_unanswered("UNSUBSCRIBE", key)

    def open(self) -> Self:
        """Start to connect, in the background."""
        self._client.open()
        return self

    async def close(self) -> None:
        """End all subscriptions and the connection."""
        self._channels.clear()
        await self._client.close()

    async def __aenter__(self) -> Self:
        return self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _connected(self) -> None:
        channels = list(self._channels)
        for start in range(0, len(channels), CHANNELS_A_COMMAND_MAX):
            self._client.send_unanswered("SUBSCRIBE", *channels[start : start + CHANNELS_A_COMMAND_MAX])

    def _lost(self) -> None:
        self._confirmed.clear()
        for subscribers in self._channels.values():
            for subscription in subscribers:
                subscription.is_confirmed = False

    def _pushed(self, push: list[Any]) -> None:
        kind, channel = push[0], push[1]
        if kind == b"message":
            for subscription in self._channels.get(channel, ()):
                self._call(subscription, subscription.handler, push[2])
        elif kind == b"subscribe" and channel in self._channels:
            self._confirmed.add(channel)
            for subscription in self._channels[channel]:
                self._confirm(subscription)

    def _confirm(self, subscription: Subscription) -> None:
        if subscription.channel in self._confirmed and subscription in self._channels[subscription.channel]:
            subscription.is_confirmed = True
            self._call(subscription, subscription.missed)

    def _call(self, subscription: Subscription, function: Callable[..., None], *arguments: bytes) -> None:
        """Call a subscriber; what it raises is reported and disturbs nobody else."""
        try:
            function(*arguments)
        except Exception as error:  # noqa: BLE001 - another's code
            self._loop.call_exception_handler(
                {"message": f"a subscriber of {subscription.channel!r} failed", "exception": error}
            )
