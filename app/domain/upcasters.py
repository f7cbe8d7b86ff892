"""Upcasters: how events of old versions are read. Events are kept for ever, and each stays readable.

When an event's data changes shape, its class gets the next version as its tag (`order.accepted.v2`), and
`UPCASTERS` gets one function that makes data of the new version from data of the one before. Chains are
followed up to the version of today; `Versions` refuses a table with a hole in it when it is made. Nothing
stored is ever rewritten: what the hash chain covers stays as it was.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias, cast

import msgspec

from app.domain.events import TYPES, Event

Data: TypeAlias = dict[str, Any]
Upcaster: TypeAlias = Callable[[Data], Data]


class Version(NamedTuple):
    """A name without its version, and the version: `order.accepted.v1` is `("order.accepted", 1)`."""

    name: str
    number: int

    @property
    def type(self) -> str:
        """The public type."""
        return f"{self.name}.v{self.number}"


class UnreadableEvent(Exception):
    """A stored event cannot be read. `type` is the type that it was stored under."""

    def __init__(self, type: str, why: str) -> None:
        """Name the event's `type`, and what is wrong with it."""
        super().__init__(f"{type}: {why}")
        self.type = type


class UnknownEvent(UnreadableEvent):
    """This release knows no such type, or not this version of it: a newer one may have written it."""


_PUBLIC: Final = re.compile(r"([a-z_]+(?:\.[a-z_]+)+)\.v(0|[1-9]\d{0,5})", re.ASCII)


def version(type: str) -> Version:
    """Take a public type apart. Raises UnknownEvent when it is not built like one."""
    found = _PUBLIC.fullmatch(type)
    if found is None:
        raise UnknownEvent(type, "this is no type of an event")
    return Version(found[1], int(found[2]))


class Versions:
    """Which versions of which events can be read, and how. `old` are the types that nobody writes now."""

    def __init__(self, events: Iterable[type[msgspec.Struct]], upcasters: Mapping[Version, Upcaster]) -> None:
        """Read the classes of today, and what `upcasters` lead to them.

        An upcaster stands under the version that it takes and gives the next one. Raises ValueError for one
        that leads nowhere, or past the version of today.
        """
        self._upcasters = dict(upcasters)
        self.old = frozenset(known.type for known in self._upcasters)
        self._today: dict[str, int] = {}
        self._decoders: dict[str, msgspec.json.Decoder[Any]] = {}
        self._classes: dict[str, type[msgspec.Struct]] = {}
        for cls in events:
            kind = str(cls.__struct_config__.tag)
            name, number = version(kind)
            self._today[name] = number
            self._decoders[kind] = msgspec.json.Decoder(cls)
            self._classes[kind] = cls
        for known in self._upcasters:
            after = Version(known.name, known.number + 1)
            if after not in self._upcasters and self._today.get(known.name) != after.number:
                raise ValueError(f"the upcaster of {known.type} leads to no version that can be read")

    @property
    def types(self) -> frozenset[str]:
        """Every public type that can be read, old ones with them."""
        return frozenset(self._decoders) | self.old

    def read(self, type: str, data: bytes | str | msgspec.Raw) -> msgspec.Struct:
        """An event as it is today, from the JSON that was stored under `type`, whenever that was.

        Raises UnknownEvent for a type or a version that is not known, UnreadableEvent for data that is not
        what its type says.
        """
        decoder = self._decoders.get(type)
        try:
            if decoder is not None:
                return cast("msgspec.Struct", decoder.decode(data))
            return self._brought_up(type, data)
        except msgspec.DecodeError as wrong:
            raise UnreadableEvent(type, str(wrong)) from wrong

    def _brought_up(self, type: str, data: bytes | str | msgspec.Raw) -> msgspec.Struct:
        name, number = version(type)
        known = Version(name, number)
        if known not in self._upcasters:
            newest = self._today.get(name)
            why = "no such event is known" if newest is None else f"version {newest} is the one of today"
            raise UnknownEvent(type, why)
        value = msgspec.json.decode(data, type=Data)
        if value.get("type") != type:
            raise UnreadableEvent(type, "its data names another type")
        while (upcaster := self._upcasters.get(known)) is not None:
            known = Version(name, known.number + 1)
            try:
                value = {**upcaster(value), "type": known.type}
            except (LookupError, TypeError, ValueError) as wrong:
                raise UnreadableEvent(type, f"it has no form as {known.type}: {wrong!r}") from wrong
        return msgspec.convert(value, self._classes[known.type])


UPCASTERS: Final[Mapping[Version, Upcaster]] = {}
"""Old version → what makes data of the next one from it. Nothing has changed shape yet.

    Version("order.accepted", 1): lambda data: {**data, "channel": "web"},
"""

VERSIONS: Final = Versions(TYPES, UPCASTERS)
"""Every event that was ever stored."""


def read(type: str, data: bytes | str | msgspec.Raw, versions: Versions = VERSIONS) -> Event:
    """Read a stored event of any version as it is today. Raises UnknownEvent, UnreadableEvent."""
    return cast("Event", versions.read(type, data))
