"""Settings: the only reader of the environment. Every setting is in the one table `SETTINGS`.

Settings that are missing, not understood or contradict others stop the program at start with one line that
names them all and says what each should be (exit 78). The value of a secret is never printed.
"""

import difflib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import msgspec

from app import values

MODES: Final = ("gateway", "worker", "consumer")
EXIT_CONFIGURATION: Final = 78
_MAIL_FROM: Final = "Holdfast <orders@localhost>"
_LIKE: Final = 0.87
"""How like a setting's name another one is that was meant to be it: a letter of eight may be wrong."""
_LIKE_FROM: Final = 8
"""Names shorter than this are like too many words."""


class ConfigurationError(Exception):
    """Settings are missing, wrong or contradictory; the message is the line that the operator reads."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the program may be told, checked. Times are seconds, sizes are counts."""

    environment: str
    database_url: str
    database_pool_size: int
    database_connections_max: int | None
    redis_url: str
    redis_db: int | None
    temporal_address: str
    temporal_namespace: str
    temporal_tls_cert: str | None
    temporal_tls_key: str | None
    temporal_api_key: str | None
    temporal_deployment_name: str | None
    temporal_worker_build_id: str | None
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
    otel_exporter_otlp_headers: tuple[tuple[str, str], ...] | None
    otel_traces_sampler_arg: float
    smtp_url: str | None
    mail_from: str
    shutdown_timeout_s: float
    event_shards: int
    rate_limit_per_s: int
    requests_max: int


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


SETTINGS: Final[tuple[Setting, ...]] = (
    Setting("MODE", "what this process is: `gateway`, `worker` or `consumer`", values.one_of(*MODES)),
    Setting(
        "ENVIRONMENT",
        "`dev`, `staging`, `production` or another name; all keys carry it",
        values.name,
        modes=MODES,
    ),
    Setting(
        "DATABASE_URL",
        "PostgreSQL, the truth: `postgresql://user:password@host:port/database`",
        values.database_url,
        modes=(*MODES, "tool"),
        secret=True,
    ),
    Setting("DATABASE_POOL_SIZE", "connections of one process", values.whole(1, 200), "10"),
    Setting(
        "DATABASE_CONNECTIONS_MAX",
        "connections of all processes together; a server with room for fewer is refused at the start",
        values.whole(1, 100_000),
    ),
    Setting(
        "REDIS_URL",
        "Redis ≥ 7.0 or Valkey: `redis://`, `rediss://` (TLS) or `unix://`",
        values.redis_url,
        modes=MODES,
        secret=True,
    ),
    Setting("REDIS_DB", "database number, where the URL names none", values.whole(0, 15)),
    Setting("TEMPORAL_ADDRESS", "Temporal's frontend, `host:port`", values.address, modes=("worker",)),
    Setting("TEMPORAL_NAMESPACE", "its namespace", values.namespace, modes=("worker",)),
    Setting("TEMPORAL_TLS_CERT", "file with a client certificate (PEM)", values.file),
    Setting("TEMPORAL_TLS_KEY", "file with its key (PEM)", values.file),
    Setting("TEMPORAL_API_KEY", "API key of Temporal Cloud", values.visible, secret=True),
    Setting(
        "TEMPORAL_DEPLOYMENT_NAME",
        "the Worker Deployment that a worker belongs to; set by Temporal's worker controller",
        values.visible,
    ),
    Setting(
        "TEMPORAL_WORKER_BUILD_ID", "the version of it that this worker is; set likewise", values.visible
    ),
    Setting(
        "WORKER_QUEUES", "the task queues a worker serves, comma list", values.queues, ",".join(values.QUEUES)
    ),
    Setting("LISTEN_HOST", "the address that PORT and HEALTH_PORT are opened on", values.host, "0.0.0.0"),  # noqa: S104
    Setting("PORT", "the gateway's HTTP port", values.whole(1, values.PORT_MAX), "8080"),
    Setting(
        "HEALTH_PORT", "health and metrics of worker and consumer", values.whole(1, values.PORT_MAX), "8081"
    ),
    Setting(
        "LOG_LEVEL",
        "`debug`, `info`, `warning` or `error`",
        values.one_of("debug", "info", "warning", "error"),
        "info",
    ),
    Setting(
        "LOG_FORMAT",
        "`json` or `console`; by default console in dev, json elsewhere",
        values.one_of("json", "console"),
    ),
    Setting(
        "STRIPE_API_KEY",
        "the payment provider's secret key: `sk_live_…` in production, `sk_test_…` elsewhere",
        values.visible,
        modes=("worker",),
        secret=True,
    ),
    Setting("STRIPE_API_BASE", "another address of the payment provider (the sandbox)", values.http_url),
    Setting("CARRIER_URL", "the carrier's API: `https://…`", values.http_url, modes=("worker",)),
    Setting(
        "CARRIER_WEBHOOK_SECRET",
        "the key that signs its webhooks",
        values.text,
        modes=("gateway",),
        secret=True,
    ),
    Setting(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "where traces go, by OTLP over HTTP: `http(s)://host:4318`; without it there are none",
        values.http_url,
    ),
    Setting(
        "OTEL_EXPORTER_OTLP_HEADERS",
        "what is sent with them: `name=value`, comma list, percent-encoded",
        values.pairs,
        secret=True,
    ),
    Setting(
        "OTEL_TRACES_SAMPLER_ARG",
        "the share of the traces that begin here which is kept, 0 to 1; who sends a `traceparent` decides",
        values.share,
        "1",
    ),
    Setting(
        "SMTP_URL",
        "the mail server: `smtp://`, `smtp+starttls://` or `smtps://user:password@host:port`; without it "
        "customers are not told of their orders",
        values.smtp_url,
        secret=True,
    ),
    Setting(
        "MAIL_FROM",
        "who mails are from: `Name <address>`; needed in production where SMTP_URL is set",
        values.mailbox,
        _MAIL_FROM,
    ),
    Setting(
        "SHUTDOWN_TIMEOUT_S",
        "how long a process may finish what it holds after SIGTERM",
        values.seconds(0.1, 3600),
        "25",
    ),
    Setting(
        "EVENT_SHARDS",
        "streams that events are spread over; the same in all processes",
        values.whole(1, 256),
        "4",
    ),
    Setting(
        "RATE_LIMIT_PER_S",
        "how often a key may read, and how often write, unless it has a limit of its own",
        values.whole(1, values.RATE_MAX_PER_S),
        "10000",
    ),
    Setting(
        "REQUESTS_MAX",
        "requests under way in one gateway; beyond half only orders get in, beyond 3/4 no new ones",
        values.whole(4, 8_192),
        "1024",
    ),
)
"""Every variable that the program reads."""


def load(mode: str, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of one mode (`gateway`, `worker`, `consumer`, or `tool` for commands on the database).

    Raises ConfigurationError, which names everything that is wrong.
    """
    given = os.environ if environ is None else environ
    known: dict[str, Any] = {}
    complaints: list[str] = []
    for setting in SETTINGS:
        if setting.name != "MODE":
            try:
                known[setting.name] = _read(setting, mode, given)
            except ConfigurationError as wrong:
                known[setting.name] = None
                complaints.append(str(wrong))
    complaints += _contradictions(known, given)
    if complaints:
        raise ConfigurationError(". ".join(complaints))
    if known["LOG_FORMAT"] is None:
        known["LOG_FORMAT"] = "console" if known["ENVIRONMENT"] == "dev" else "json"
    return Settings(**{name.lower(): value for name, value in known.items()})


def mode(environ: Mapping[str, str] | None = None) -> str | None:
    """The MODE that was asked for, None when none or an unknown one was."""
    asked = (os.environ if environ is None else environ).get("MODE", "")
    return asked if asked in MODES else None


def misspelt(environ: Mapping[str, str] | None = None) -> list[str]:
    """A line for each variable that is none of ours and that somebody seems to have meant for one."""
    given = os.environ if environ is None else environ
    names = {s.name for s in SETTINGS}
    lines = []
    for name in sorted(filter(str.isprintable, given.keys() - names)):
        alike = [known for known in names if len(name) >= _LIKE_FROM and abs(len(known) - len(name)) <= 1]
        for meant in difflib.get_close_matches(name, alike, 1, _LIKE):
            lines.append(f"{name} is not a setting, and nobody reads it: is {meant} meant?")  # noqa: PERF401
    return lines


def _read(setting: Setting, mode_name: str, given: Mapping[str, str]) -> Any:  # noqa: ANN401 - as the row's parse
    value = given.get(setting.name) or setting.default
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


def _contradictions(known: Mapping[str, Any], given: Mapping[str, str]) -> Iterator[str]:
    """A line for each contradiction; what is missing or wrong itself contradicts nothing."""
    for one, other in _BOTH_OR_NEITHER:
        if bool(given.get(one)) != bool(given.get(other)):
            yield f"{one} and {other} must be set both or not at all"
    named = _redis_database(known["REDIS_URL"] or "")
    if known["REDIS_DB"] is not None and named not in {None, known["REDIS_DB"]}:
        yield f"REDIS_DB must be {named}, as REDIS_URL says, or be left out"
    if known["ENVIRONMENT"] == "production" and known["SMTP_URL"] and known["MAIL_FROM"] == _MAIL_FROM:
        yield "MAIL_FROM must say who mails are from when ENVIRONMENT is production"
    if known["STRIPE_API_KEY"] and known["ENVIRONMENT"]:
        yield from _stripe(known["STRIPE_API_KEY"], known["STRIPE_API_BASE"], known["ENVIRONMENT"])


_BOTH_OR_NEITHER: Final = (
    ("TEMPORAL_TLS_CERT", "TEMPORAL_TLS_KEY"),
    ("TEMPORAL_DEPLOYMENT_NAME", "TEMPORAL_WORKER_BUILD_ID"),
)


def _redis_database(url: str) -> int | None:
    """The database that a Redis URL names, by its path or by `?db=`."""
    parts = urlsplit(url)
    names = [*parse_qs(parts.query).get("db", ()), parts.path.strip("/") if parts.scheme != "unix" else ""]
    return next((int(name) for name in names if name.isdigit()), None)


def _stripe(key: str, base: str | None, environment: str) -> Iterator[str]:
    """Real money in production only, play money elsewhere only, and a live key for nobody but Stripe."""
    kind = next((kind for kind in ("live", "test") if key.startswith((f"sk_{kind}_", f"rk_{kind}_"))), None)
    is_this = f": it is a {kind} key" if kind else ": it is no secret key of Stripe's"
    if environment == "production" and kind != "live":
        yield f"STRIPE_API_KEY must be a live key (sk_live_…) when ENVIRONMENT is production{is_this}"
    if environment != "production" and kind != "test":
        yield f"STRIPE_API_KEY must be a test key (sk_test_…) when ENVIRONMENT is {environment}{is_this}"
    if environment == "production" and base:
        yield "STRIPE_API_BASE must be left out with a live key: it would go to somebody else"
