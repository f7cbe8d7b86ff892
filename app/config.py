"""Settings: the only reader of the environment. Every setting is in the one table `SETTINGS`.

A setting that is missing, not understood or contradicts another stops the program at start with one line that
names the variable and says what it should be (exit 78). The value of a secret is never printed.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

MODES: Final = ("gateway", "worker", "consumer")
EXIT_CONFIGURATION: Final = 78

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


def _name(value: str) -> str:
    if not value or not value.replace("-", "").isalnum() or len(value) > 32 or value != value.lower():
        raise ValueError(
            "be a lower-case name such as dev, staging or production (letters, digits, hyphens, ≤ 32)"
        )
    return value


def _url(*schemes: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if urlsplit(value).scheme not in schemes:
            raise ValueError("be a URL that starts with " + " or ".join(f"{s}://" for s in schemes))
        return value.rstrip("/") if schemes[0].startswith("http") else value

    return parse


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not value.isascii() or not value.isdigit() or not low <= int(value) <= high:
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
        if value not in choices:
            raise ValueError("be one of " + ", ".join(choices))
        return value

    return parse


def _queues(value: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in value.split(",")))
    if not set(names) <= set(_QUEUES):
        raise ValueError("be a comma list of " + ", ".join(_QUEUES))
    return names


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("be host:port")
    return value


SETTINGS: Final[tuple[Setting, ...]] = (
    Setting("MODE", "what this process is: `gateway`, `worker` or `consumer`", _one_of(*MODES)),
    Setting(
        "ENVIRONMENT", "`dev`, `staging`, `production` or another name; all keys carry it", _name, modes=MODES
    ),
    Setting(
        "DATABASE_URL",
        "PostgreSQL, the truth",
        _url("postgresql", "postgres"),
        modes=(*MODES, "tool"),
        secret=True,
    ),
    Setting("DATABASE_POOL_SIZE", "connections of one process", _whole(1, 200), "10"),
    Setting("REDIS_URL", "Redis ≥ 7.0 or Valkey", _url("redis", "rediss", "unix"), modes=MODES, secret=True),
    Setting("REDIS_DB", "database number, where the URL names none", _whole(0, 15)),
    Setting("TEMPORAL_ADDRESS", "Temporal's frontend, `host:port`", _address, modes=("worker",)),
    Setting("TEMPORAL_NAMESPACE", "its namespace", _text, modes=("worker",)),
    Setting("TEMPORAL_TLS_CERT", "file with a client certificate (PEM)", _text),
    Setting("TEMPORAL_TLS_KEY", "file with its key (PEM)", _text),
    Setting("TEMPORAL_API_KEY", "API key of Temporal Cloud", _text, secret=True),
    Setting("WORKER_QUEUES", "the task queues a worker serves, comma list", _queues, ",".join(_QUEUES)),
    Setting("PORT", "the gateway's HTTP port", _whole(1, 65535), "8080"),
    Setting("HEALTH_PORT", "health and metrics of worker and consumer", _whole(1, 65535), "8081"),
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
    Setting("STRIPE_API_KEY", "the payment provider's secret key", _text, modes=("worker",), secret=True),
    Setting(
        "STRIPE_API_BASE", "another address of the payment provider (the sandbox)", _url("http", "https")
    ),
    Setting("CARRIER_URL", "the carrier's API", _url("http", "https"), modes=("worker",)),
    Setting(
        "CARRIER_WEBHOOK_SECRET", "the key that signs its webhooks", _text, modes=("gateway",), secret=True
    ),
    Setting(
        "OTEL_EXPORTER_OTLP_ENDPOINT", "where traces go; reserved, nothing is sent yet", _url("http", "https")
    ),
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
        return setting.parse(value)
    except ValueError as wrong:
        shown = "" if setting.secret else f", not {value!r}"
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
    path = urlsplit(known["REDIS_URL"]).path.strip("/")
    if known["REDIS_DB"] is not None and path.isdigit() and int(path) != known["REDIS_DB"]:
        raise ConfigurationError(f"REDIS_DB must be {path}, as REDIS_URL says, or be left out")
    live = known["STRIPE_API_KEY"].startswith(("sk_live_", "rk_live_"))
    if live and known["ENVIRONMENT"] != "production":
        raise ConfigurationError(
            "STRIPE_API_KEY must be a test key (sk_test_…) unless ENVIRONMENT is production"
        )
    if known["STRIPE_API_KEY"] and not live and known["ENVIRONMENT"] == "production":
        raise ConfigurationError(
            "STRIPE_API_KEY must be a live key (sk_live_…) when ENVIRONMENT is production"
        )
    if live and known["STRIPE_API_BASE"]:
        raise ConfigurationError(
            "STRIPE_API_BASE must be left out with a live key: it would go to somebody else"
        )
