"""Settings: the only reader of the environment. Every setting is in the one table `SETTINGS`.

A setting that is missing, not understood or contradicts another stops the program at start with one line that
names the variable and says what it should be (exit 78). The value of a secret is never printed.
"""

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, parse_qs, parse_qsl, urlsplit

import msgspec

MODES: Final = ("gateway", "worker", "consumer")
EXIT_CONFIGURATION: Final = 78

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?\Z")
_ADDRESS: Final = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})\Z")
_PORT_MAX: Final = 65535
_HOST: Final = re.compile(r"(?=.{1,253}\Z)(?:[A-Za-z0-9_-]{1,63}\.)*(?![0-9]+\Z)[A-Za-z0-9_-]{1,63}\Z")
_VISIBLE: Final = re.compile(r"[!-~]+\Z")
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
_QUEUES: Final = ("orders", "payments", "inventory", "shipping", "notifications")


class ConfigurationError(Exception):
    """A setting is missing, wrong or contradictory; the message is the line that the operator reads."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the program may be told, checked. Times are seconds, sizes are counts."""

    environment: str
    database_url: str
    database_pool_size: int
    redis_url: str
    redis_db: int | None
    temporal_address: str
    temporal_namespace: str
    temporal_tls_cert: str | None
    temporal_tls_key: str | None
    temporal_api_key: str | None
    worker_queues: tuple[str, ...]
    listen_host: str
    port: int
    health_port: int
    log_level: str
    log_format: str
    stripe_api_key: str
    stripe_api_base: str | None
    carrier_url: str
    carrier_webhook_secret: str
    otel_exporter_otlp_endpoint: str | None
    smtp_url: str | None
    shutdown_timeout_s: float
    event_shards: int


class Setting(msgspec.Struct, frozen=True):
    """One row of the table: its `parse` raises ValueError saying what the value should be.

    `modes` are those that cannot do without it; elsewhere it may be missing.
    """

    name: str
    about: str
    parse: Callable[[str], Any]
    default: str | None = None
    modes: tuple[str, ...] = ()
    secret: bool = False


def _text(value: str) -> str:
    if not value:
        raise ValueError("not be empty")
    return value


def _visible(value: str) -> str:
    if not _VISIBLE.match(value):
        raise ValueError("be made of ASCII characters without spaces")
    return value


def _namespace(value: str) -> str:
    if not _NAMESPACE.match(value):
        raise ValueError("be a name of letters, digits, dots, hyphens and underscores")
    return value


def _host(value: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        if not _HOST.match(value):
            raise ValueError("be an IP address or the name of a host") from None
    return value


def _file(value: str) -> str:
    if not Path(value).is_file() or not os.access(value, os.R_OK):
        raise ValueError("name a file that can be read")
    return value


def _name(value: str) -> str:
    if not _NAME.match(value):
        raise ValueError(
            "be a lower-case name such as dev, staging or production (letters, digits, hyphens, ≤ 32)"
        )
    return value


def _url(*schemes: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        parts = _parts(value)
        if parts is None or parts.scheme not in schemes:
            raise ValueError("be a URL that starts with " + " or ".join(f"{s}://" for s in schemes))
        return value

    return parse


def _http_url(value: str) -> str:
    url = _url("http", "https")(value)
    if not _VISIBLE.match(url) or any(sign in url for sign in "@?#\\"):
        raise ValueError("be a URL of host, port and path only: no user, query, fragment or space")
    return url.rstrip("/")


def _database_url(value: str) -> str:
    parts = urlsplit(_url("postgresql", "postgres")(value))
    for place in parts.netloc.rpartition("@")[2].split(","):
        port = place.rpartition("]")[2].rpartition(":")[2] if ":" in place.rpartition("]")[2] else ""
        if port and not _is_port(port):
            raise ValueError(f"name ports from 1 to {_PORT_MAX}")
    for name, text in parse_qsl(parts.query):
        if not re.fullmatch(_DATABASE_OPTIONS.get(name, r"(?s:.*)"), text) or (
            name == "port" and not all(map(_is_port, text.split(",")))
        ):
            raise ValueError(f"be a URL whose option {name} has a value that there is")
    return value


def _is_port(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,5}", text)) and 1 <= int(text) <= _PORT_MAX


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


def _redis_url(value: str) -> str:
    url = _url("redis", "rediss", "unix")(value)
    parts = urlsplit(url)
    if "," in url:
        raise ValueError("name one server: lists for Cluster and Sentinel are not taken yet")
    if parts.scheme != "unix" and not re.fullmatch(r"/?[0-9]{0,4}", parts.path):
        raise ValueError("end in the number of a database, or in the host")
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if (
            name not in _REDIS_OPTIONS
            or (name.startswith("ssl_") and parts.scheme != "rediss")
            or not re.fullmatch(_REDIS_OPTIONS[name], text, re.IGNORECASE)
        ):
            allowed = ", ".join(_REDIS_OPTIONS)
            raise ValueError(f"be a URL with right values of no other options than {allowed} (ssl_: rediss)")
    if parts.fragment:
        raise ValueError("be a URL without a fragment (#)")
    return url


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", value) or not low <= int(value) <= high:
            raise ValueError(f"be a whole number from {low} to {high}")
        return int(value)

    return parse


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(value: str) -> float:
        try:
            seconds = float(value)
        except ValueError:
            seconds = -1.0
        if not low <= seconds <= high:
            raise ValueError(f"be a number of seconds from {low:g} to {high:g}")
        return seconds

    return parse


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value.lower() not in choices:
            raise ValueError("be one of " + ", ".join(choices))
        return value.lower()

    return parse


def _queues(value: str) -> tuple[str, ...]:
    """The queues in order; one that is named twice is served once."""
    names = tuple(dict.fromkeys(name.strip() for name in value.split(",")))
    if not set(names) <= set(_QUEUES):
        raise ValueError("be a comma list of " + ", ".join(_QUEUES))
    return names


def _address(value: str) -> str:
    match = _ADDRESS.match(value)
    if not match or not 1 <= int(match.group(1)) <= _PORT_MAX:
        raise ValueError("be host:port")
    return value


SETTINGS: Final[tuple[Setting, ...]] = (
    Setting("MODE", "what this process is: `gateway`, `worker` or `consumer`", _one_of(*MODES)),
    Setting(
        "ENVIRONMENT", "`dev`, `staging`, `production` or another name; all keys carry it", _name, modes=MODES
    ),
    Setting(
        "DATABASE_URL",
        "PostgreSQL, the truth: `postgresql://user:password@host:port/database`",
        _database_url,
        modes=(*MODES, "tool"),
        secret=True,
    ),
    Setting("DATABASE_POOL_SIZE", "connections of one process", _whole(1, 200), "10"),
    Setting(
        "REDIS_URL",
        "Redis ≥ 7.0 or Valkey: `redis://`, `rediss://` (TLS) or `unix://`",
        _redis_url,
        modes=MODES,
        secret=True,
    ),
    Setting("REDIS_DB", "database number, where the URL names none", _whole(0, 15)),
    Setting("TEMPORAL_ADDRESS", "Temporal's frontend, `host:port`", _address, modes=("worker",)),
    Setting("TEMPORAL_NAMESPACE", "its namespace", _namespace, modes=("worker",)),
    Setting("TEMPORAL_TLS_CERT", "file with a client certificate (PEM)", _file),
    Setting("TEMPORAL_TLS_KEY", "file with its key (PEM)", _file),
    Setting("TEMPORAL_API_KEY", "API key of Temporal Cloud", _visible, secret=True),
    Setting("WORKER_QUEUES", "the task queues a worker serves, comma list", _queues, ",".join(_QUEUES)),
    Setting("LISTEN_HOST", "the address that PORT and HEALTH_PORT are opened on", _host, "0.0.0.0"),  # noqa: S104
    Setting("PORT", "the gateway's HTTP port", _whole(1, _PORT_MAX), "8080"),
    Setting("HEALTH_PORT", "health and metrics of worker and consumer", _whole(1, _PORT_MAX), "8081"),
    Setting(
        "LOG_LEVEL",
        "`debug`, `info`, `warning` or `error`",
        _one_of("debug", "info", "warning", "error"),
        "info",
    ),
    Setting(
        "LOG_FORMAT",
        "`json` or `console`; by default console in dev, json elsewhere",
        _one_of("json", "console"),
    ),
    Setting(
        "STRIPE_API_KEY",
        "the payment provider's secret key: `sk_live_…` in production, `sk_test_…` elsewhere",
        _visible,
        modes=("worker",),
        secret=True,
    ),
    Setting("STRIPE_API_BASE", "another address of the payment provider (the sandbox)", _http_url),
    Setting("CARRIER_URL", "the carrier's API: `https://…`", _http_url, modes=("worker",)),
    Setting(
        "CARRIER_WEBHOOK_SECRET", "the key that signs its webhooks", _text, modes=("gateway",), secret=True
    ),
    Setting("OTEL_EXPORTER_OTLP_ENDPOINT", "where traces go; reserved, nothing is sent yet", _http_url),
    Setting(
        "SMTP_URL", "where e-mail goes; reserved, nothing is sent yet", _url("smtp", "smtps"), secret=True
    ),
    Setting(
        "SHUTDOWN_TIMEOUT_S",
        "how long a process may finish what it holds after SIGTERM",
        _seconds(0.1, 3600),
        "25",
    ),
    Setting(
        "EVENT_SHARDS", "streams that events are spread over; the same in all processes", _whole(1, 256), "4"
    ),
)
"""Every variable that the program reads."""


def load(mode: str, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of one mode (`gateway`, `worker`, `consumer`, or `tool` for commands on the database).

    Raises ConfigurationError.
    """
    values = os.environ if environ is None else environ
    known = {s.name: _read(s, mode, values) for s in SETTINGS if s.name != "MODE"}
    _check_together(known)
    if known["LOG_FORMAT"] is None:
        known["LOG_FORMAT"] = "console" if known["ENVIRONMENT"] == "dev" else "json"
    return Settings(**{name.lower(): value for name, value in known.items()})


def mode(environ: Mapping[str, str] | None = None) -> str | None:
    """The MODE that was asked for, None when none or an unknown one was."""
    asked = (os.environ if environ is None else environ).get("MODE", "")
    return asked if asked in MODES else None


def _read(setting: Setting, mode_name: str, values: Mapping[str, str]) -> Any:  # noqa: ANN401 - as the row's parse
    value = values.get(setting.name) or setting.default
    if value is None:
        if mode_name in setting.modes:
            raise ConfigurationError(f"{setting.name} is missing: {setting.about}")
        return "" if setting.name in _TEXT_WHERE_MISSING else None
    try:
        if not value.isprintable() or value != value.strip():  # often the line end of a mounted file
            raise ValueError("hold printable characters only, with no space around them")  # noqa: TRY301
        return setting.parse(value)
    except ValueError as wrong:
        # A URL may carry a password or a key where none is expected.
        shown = "" if setting.secret or "@" in value or "?" in value else f", not {value!r}"
        raise ConfigurationError(f"{setting.name} must {wrong}{shown}") from None


_TEXT_WHERE_MISSING: Final = frozenset(
    {
        "ENVIRONMENT",
        "DATABASE_URL",
        "REDIS_URL",
        "TEMPORAL_ADDRESS",
        "TEMPORAL_NAMESPACE",
        "STRIPE_API_KEY",
        "CARRIER_URL",
        "CARRIER_WEBHOOK_SECRET",
    }
)
"""Settings that some mode needs: empty in the modes that do not, so that the others need no None checks."""


def _check_together(known: Mapping[str, Any]) -> None:
    """Refuse settings that contradict one another."""
    if bool(known["TEMPORAL_TLS_CERT"]) != bool(known["TEMPORAL_TLS_KEY"]):
        raise ConfigurationError("TEMPORAL_TLS_CERT and TEMPORAL_TLS_KEY must be set both or not at all")
    named = _redis_database(known["REDIS_URL"])
    if known["REDIS_DB"] is not None and named not in {None, known["REDIS_DB"]}:
        raise ConfigurationError(f"REDIS_DB must be {named}, as REDIS_URL says, or be left out")
    _check_stripe(known["STRIPE_API_KEY"], known["STRIPE_API_BASE"], known["ENVIRONMENT"])


def _redis_database(url: str) -> int | None:
    """The database that a Redis URL names, by its path or by `?db=`."""
    parts = urlsplit(url)
    names = [*parse_qs(parts.query).get("db", ()), parts.path.strip("/") if parts.scheme != "unix" else ""]
    return next((int(name) for name in names if name.isdigit()), None)


def _check_stripe(key: str, base: str | None, environment: str) -> None:
    """Real money in production only, play money elsewhere only, and a live key for nobody but Stripe."""
    if not key or not environment:
        return
    if environment == "production" and not key.startswith(("sk_live_", "rk_live_")):
        raise ConfigurationError(
            "STRIPE_API_KEY must be a live key (sk_live_…) when ENVIRONMENT is production"
        )
    if environment != "production" and not key.startswith(("sk_test_", "rk_test_")):
        raise ConfigurationError(
            "STRIPE_API_KEY must be a test key (sk_test_…) unless ENVIRONMENT is production"
        )
    if environment == "production" and base:
        raise ConfigurationError(
            "STRIPE_API_BASE must be left out with a live key: it would go to somebody else"
        )
