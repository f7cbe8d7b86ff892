"""Where webhooks may go: to the public internet, over HTTPS; in development to anywhere.

A customer names the URL, so it must not lead back to us: not to this host, not to a neighbour, not to the
metadata service of a cloud. A name is resolved here, every address it has is looked at, and the sender
connects to one of these very addresses; so a name that says something else the next moment changes nothing.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeAlias
from urllib.parse import urlsplit

import msgspec

from app.infra.webhooks.faults import SaidError

URL_CHARACTERS_MAX: Final = 2048
HTTPS_PORT: Final = 443
OPEN_PORTS_FROM: Final = 1024
"""Below it only the port of HTTPS: the others belong to services that are not webhooks."""
_RESOLVERS: Final = 16

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses (texts) that a host has. Raises OSError."""

_IPv4: TypeAlias = ipaddress.IPv4Address
_IPv6: TypeAlias = ipaddress.IPv6Address

_NOT_PUBLIC_4: Final = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # behind a carrier's NAT; some clouds' metadata, too
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local: metadata services
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
_PUBLIC_6: Final = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_6: Final = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",  # protocols; Teredo, which carries an IPv4 address
        "2001:db8::/32",
        "2002::/16",  # 6to4, which carries an IPv4 address
        "3fff::/20",
    )
)
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")

_URL: Final = re.compile(r"[\x21-\x7e]+\Z")
_HOST: Final = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?\Z")


class ForbiddenError(Exception):
    """A webhook must not go there; the message says why."""


class Target(msgspec.Struct, frozen=True):
    """A URL taken apart. `authority` is what the Host header says, `path` what is asked for."""

    is_secure: bool
    host: str
    port: int
    authority: str
    path: str


def is_public(text: str) -> bool:
    """Whether an address is of the public internet; an IPv6 one that holds an IPv4 one counts as that."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, _IPv6):
        if address in _MAPPED or address in _NAT64:
            return _is_public_4(_IPv4(int(address) & 0xFFFFFFFF))
        is_odd = address.scope_id is not None or any(address in network for network in _NOT_PUBLIC_6)
        return address in _PUBLIC_6 and not is_odd
    return _is_public_4(address)


def _is_public_4(address: _IPv4) -> bool:
    return not any(address in network for network in _NOT_PUBLIC_4)


def target_of(url: str, *, private_allowed: bool) -> Target:
    """A URL taken apart. Raises ForbiddenError for one that no webhook may go to, whatever its name means."""
    if len(url) > URL_CHARACTERS_MAX or not _URL.match(url) or "\\" in url:
        raise ForbiddenError(f"It has to be a URL of at most {URL_CHARACTERS_MAX} printable characters.")
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
    except ValueError:
        raise ForbiddenError("It has to be a URL.") from None
    is_secure = parts.scheme == "https"
    if not is_secure and not (private_allowed and parts.scheme == "http"):
        raise ForbiddenError("It has to be https://….")
    if "@" in parts.netloc or "#" in url:
        raise ForbiddenError("It must not have a user, a password or a fragment.")
    bare = host if ":" not in host else ""
    if not host or (bare and not _HOST.match(bare)):
        raise ForbiddenError("It has to name a host (in ASCII).")
    port = port if port is not None else (HTTPS_PORT if is_secure else 80)
    if not private_allowed:
        if port != HTTPS_PORT and port < OPEN_PORTS_FROM:
            raise ForbiddenError(f"Its port has to be {HTTPS_PORT}, or {OPEN_PORTS_FROM} and above.")
        if _is_address(host) and not is_public(host):
            raise ForbiddenError("Its address is not one of the public internet.")
    if port == 0:
        raise ForbiddenError("It has to have a port.")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(is_secure, host, port, parts.netloc, path)


async def addresses_of(target: Target, resolve: Resolve, *, private_allowed: bool) -> Sequence[str]:
    """The addresses to connect to. Raises ForbiddenError where any is not public, and OSError."""
    found = await resolve(target.host, target.port)
    if not private_allowed and not all(is_public(address) for address in found):
        raise ForbiddenError("the host has an address that is not of the public internet")
    if not found:
        raise SaidError("the host has no address")
    return found


class Resolver:
    """Asks the system, on threads of its own: names that nobody answers for keep nobody else waiting."""

    def __init__(self) -> None:
        """Start with no thread."""
        self._threads = ThreadPoolExecutor(_RESOLVERS, thread_name_prefix="resolver")

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """The addresses of a host, in the order in which to try them. Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _look_up, host, port)
        return tuple(dict.fromkeys(str(address[0]) for *_, address in found))

    def close(self) -> None:
        """Wait for nobody."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int) -> list[tuple[object, object, object, str, tuple[object, ...]]]:
    try:
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except UnicodeError:  # of what is no name it says so
        raise SaidError("the host has no name that can be looked up") from None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
