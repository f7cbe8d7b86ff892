"""What a variable of the environment may say: one function for each kind of value.

Each takes the text and returns what the program works with, or raises ValueError saying what the text should
be ("be a whole number from 1 to 200"). None of them shows the text: it may be a secret.
"""

import ipaddress
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?\Z")
_ADDRESS: Final = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})\Z")
PORT_MAX: Final = 65535
RATE_MAX_PER_S: Final = 1_000_000
_HOST: Final = re.compile(r"(?=.{1,253}\Z)(?:[A-Za-z0-9_-]{1,63}\.)*(?![0-9]+\Z)[A-Za-z0-9_-]{1,63}\Z")
_VISIBLE: Final = re.compile(r"[!-~]+\Z")
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}\Z")
_FRAMING: Final = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that say what a request is and how it is sent. Whoever sends it knows, and nobody else."""
_MAIL_ADDRESS: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9.-]{1,189}"
_MAILBOX: Final = re.compile(rf"(?:{_MAIL_ADDRESS}|[\w .&'-]{{1,100}} <{_MAIL_ADDRESS}>)\Z")
_NAMESPACE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}\Z")
_DATABASE_OPTIONS: Final = {
    "port": r"[0-9]{1,5}(,[0-9]{1,5})*",
    "sslmode": r"disable|allow|prefer|require|verify-ca|verify-full",
    "target_session_attrs": r"any|primary|standby|read-write|read-only|prefer-standby",
}
"""Options of DATABASE_URL whose values are known; of the others, the server is the judge."""
_REDIS_OPTIONS: Final = {
    "db": r"[0-9]{1,4}",
    "username": r".+",
    "password": r".+",
    "ssl_cert_reqs": r"none|optional|required",
    "ssl_check_hostname": r"true|false|yes|no|1|0",
    "ssl_ca_certs": r".+",
    "ssl_certfile": r".+",
    "ssl_keyfile": r".+",
}
"""All options that REDIS_URL may have: deadlines and the like are the program's business."""
QUEUES: Final = ("orders", "payments", "inventory", "shipping", "notifications")


def text(value: str) -> str:
    """Anything but nothing."""
    if not value:
        raise ValueError("not be empty")
    return value


def visible(value: str) -> str:
    """ASCII without spaces, as keys are."""
    if not _VISIBLE.match(value):
        raise ValueError("be made of ASCII characters without spaces")
    return value


def namespace(value: str) -> str:
    """A Temporal namespace."""
    if not _NAMESPACE.match(value):
        raise ValueError("be a name of letters, digits, dots, hyphens and underscores")
    return value


def host(value: str) -> str:
    """An IP address, or the name of a host."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        if not _HOST.match(value):
            raise ValueError("be an IP address or the name of a host") from None
    return value


def file(value: str) -> str:
    """A file that is there and can be read."""
    if not Path(value).is_file() or not os.access(value, os.R_OK):
        raise ValueError("name a file that can be read")
    return value


def name(value: str) -> str:
    """A name of an environment: it becomes part of keys."""
    if not _NAME.match(value):
        raise ValueError(
            "be a lower-case name such as dev, staging or production (letters, digits, hyphens, ≤ 32)"
        )
    return value


def url(*schemes: str) -> Callable[[str], str]:
    """A URL with one of these schemes that leads somewhere."""

    def parse(value: str) -> str:
        parts = _parts(value)
        if parts is None or parts.scheme not in schemes:
            raise ValueError("be a URL that starts with " + " or ".join(f"{s}://" for s in schemes))
        return value

    return parse


def http_url(value: str) -> str:
    """The address of an API: host, port and path, without the last slash."""
    url("http", "https")(value)
    if not _VISIBLE.match(value) or any(sign in value for sign in "@?#\\"):
        raise ValueError("be a URL of host, port and path only: no user, query, fragment or space")
    return value.rstrip("/")


def pairs(value: str) -> tuple[tuple[str, str], ...]:
    """Names of headers with their values: `name=value`, a comma list, percent-encoded."""
    found = []
    for part in value.split(","):
        name, sign, text_ = (piece.strip() for piece in part.partition("="))
        decoded = unquote(text_)
        is_text = decoded.isascii() and decoded.isprintable() and decoded == decoded.strip()
        if not sign or not _HEADER.match(name) or not is_text:
            raise ValueError("be a comma list of name=value, percent-encoded, as headers are")
        if name.lower() in _FRAMING:
            raise ValueError(f"leave out {name.lower()}: that is made with each request")
        found.append((name.lower(), decoded))
    return tuple(found)


def share(value: str) -> float:
    """A number from 0 to 1."""
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise ValueError("be a number from 0 to 1")
    return number


def database_url(value: str) -> str:
    """A PostgreSQL URL, as asyncpg reads it; its password may be anything."""
    parts = urlsplit(url("postgresql", "postgres")(value))
    for place in parts.netloc.rpartition("@")[2].split(","):
        port = place.rpartition("]")[2].rpartition(":")[2] if ":" in place.rpartition("]")[2] else ""
        if port and not _is_port(port):
            raise ValueError(f"name ports from 1 to {PORT_MAX}")
    for option, said in parse_qsl(parts.query):
        if not re.fullmatch(_DATABASE_OPTIONS.get(option, r"(?s:.*)"), said) or (
            option == "port" and not all(map(_is_port, said.split(",")))
        ):
            raise ValueError(f"be a URL whose option {option} has a value that there is")
    return value


def _is_port(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,5}", text)) and 1 <= int(text) <= PORT_MAX


def _parts(value: str) -> SplitResult | None:
    """A URL's parts; None when it is none, or leads nowhere."""
    try:  # what urlsplit says may quote a password, so it is never passed on
        parts = urlsplit(value)
        # Lists of hosts have no one port.
        is_right = "," in parts.netloc or parts.port is None or parts.port > 0
    except ValueError:
        return None
    # PostgreSQL's host may be left out, or follow in the query.
    place = {"unix": parts.path, "postgresql": "/", "postgres": "/"}.get(parts.scheme, parts.hostname)
    return parts if is_right and place and value.startswith(f"{parts.scheme}://") else None


def redis_url(value: str) -> str:
    """The URL of one server."""
    parts = urlsplit(url("redis", "rediss", "unix")(value))
    if "," in value:
        raise ValueError("name one server: lists for Cluster and Sentinel are not taken yet")
    if parts.scheme != "unix" and not re.fullmatch(r"/?[0-9]{0,4}", parts.path):
        raise ValueError("end in the number of a database, or in the host")
    for option, said in parse_qsl(parts.query, keep_blank_values=True):
        if (
            option not in _REDIS_OPTIONS
            or (option.startswith("ssl_") and parts.scheme != "rediss")
            or not re.fullmatch(_REDIS_OPTIONS[option], said, re.IGNORECASE)
        ):
            allowed = ", ".join(_REDIS_OPTIONS)
            raise ValueError(f"be a URL with right values of no other options than {allowed} (ssl_: rediss)")
    if parts.fragment:
        raise ValueError("be a URL without a fragment (#)")
    return value


def smtp_url(value: str) -> str:
    """The URL of a mail server: who logs in, host and port, and nothing else."""
    parts = urlsplit(url("smtp", "smtp+starttls", "smtps")(value))
    if parts.path not in {"", "/"} or "?" in value or "#" in value or "," in value:
        raise ValueError("be a URL of user, password, host and port only (percent-encode other signs)")
    if not _HOST.match(parts.hostname or "") and not _is_ip(parts.hostname or ""):
        raise ValueError("be a URL with an IP address or the name of a host")
    return value


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def mailbox(value: str) -> str:
    """Who a mail is from: `orders@example.com`, or with a name, `Example <orders@example.com>`."""
    if not _MAILBOX.match(value):
        raise ValueError("be an address, or `Name <address>`, with plain letters in the name")
    return value


def whole(low: int, high: int) -> Callable[[str], int]:
    """A whole number between two, both included."""

    def parse(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", value) or not low <= int(value) <= high:
            raise ValueError(f"be a whole number from {low} to {high}")
        return int(value)

    return parse


def seconds(low: float, high: float) -> Callable[[str], float]:
    """A number of seconds between two, both included."""

    def parse(value: str) -> float:
        try:
            seconds = float(value)
        except ValueError:
            seconds = -1.0
        if not low <= seconds <= high:
            raise ValueError(f"be a number of seconds from {low:g} to {high:g}")
        return seconds

    return parse


def one_of(*choices: str) -> Callable[[str], str]:
    """One of a few words, whatever the case."""

    def parse(value: str) -> str:
        if value.lower() not in choices:
            raise ValueError("be one of " + ", ".join(choices))
        return value.lower()

    return parse


def queues(value: str) -> tuple[str, ...]:
    """The queues in order; one that is named twice is served once."""
    names = tuple(dict.fromkeys(name.strip() for name in value.split(",")))
    if not set(names) <= set(QUEUES):
        raise ValueError("be a comma list of " + ", ".join(QUEUES))
    return names


def address(value: str) -> str:
    """`host:port`."""
    match = _ADDRESS.match(value)
    if not match or not 1 <= int(match.group(1)) <= PORT_MAX:
        raise ValueError("be host:port")
    return value
