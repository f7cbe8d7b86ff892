"""Settings: what is missing, wrong or contradictory stops the program with one line that names it."""

import re

import hypothesis.strategies as st
import pytest
from hypothesis import given

from app import config
from app.config import MODES, SETTINGS, ConfigurationError

ENVIRONMENT = {
    "ENVIRONMENT": "staging",
    "DATABASE_URL": "postgresql://holdfast:s3cret@db/holdfast",
    "REDIS_URL": "redis://:s3cret@cache:6379",
    "TEMPORAL_ADDRESS": "temporal:7233",
    "TEMPORAL_NAMESPACE": "holdfast",
    "STRIPE_API_KEY": "sk_test_s3cret",
    "CARRIER_URL": "https://carrier.example",
    "CARRIER_WEBHOOK_SECRET": "s3cret",
}
"""Enough for every mode."""

WRONG = {
    "ENVIRONMENT": ["Production", "a b", "dev:1", "*", "x" * 33, "-dev", "dev-", "dév", "٣", "a/b", "{dev}"],
    "DATABASE_URL": [
        "mysql://s3cret@db/x",
        "s3cret",
        "postgresql:s3cret",
        "postgresql://u:s3cret@h:port/x",
        "postgresql://u:s3cret@h/x?sslmode=foo",
        "postgresql://u:s3cret@h/x?port=abc",
        "postgresql://u:s3cret@h/x?port=0",
        "postgresql://u:s3cret@a:1,b:x/d",
    ],
    "DATABASE_POOL_SIZE": ["0", "201", "-1", "1.5", "ten", "1e1", "٣", "9" * 5000, "+5", "1_0"],
    "REDIS_URL": [
        "http://s3cret",
        "s3cret:6379",
        "redis://",
        "redis://u:s3cret@h:0/",
        "redis://h/s3cret",
        "unix://",
        "redis://a:1,b:2,c:3",
        "redis://a:1,redis://b:2",
        "redis://:s3cret@h?socket_timeout=abc",
        "redis://:s3cret@h?foo=bar",
        "redis://:s3cret@h/99999999999999999999",
        "redis://:s3cret@h?db=99999999999999999999",
        "redis://:s3cret@h?db=x",
        "redis://:s3cret@h?ssl_cert_reqs=none",
        "redis://:s3cret@h/0#x",
    ],
    "REDIS_DB": ["-1", "16", "x"],
    "TEMPORAL_ADDRESS": [
        "temporal",
        "http://temporal:7233",
        ":7233",
        "a:0",
        "a:65536",
        "a:٣",
        "a b:1",
        "a:1/x",
    ],
    "TEMPORAL_NAMESPACE": ["a b", "-", "é", "a/b"],
    "TEMPORAL_API_KEY": ["s3cret é"],
    "STRIPE_API_KEY": ["sk_test_s3cret_é", "sk_test_s3cret x"],
    "LISTEN_HOST": ["999.1.1.1", "1.2.3", "a b", "h:80", "[::1]", "a..b"],
    "TEMPORAL_TLS_CERT": ["/no/such/file", "/"],
    "TEMPORAL_TLS_KEY": ["/no/such/file"],
    "WORKER_QUEUES": [",", "orders,", "orders;payments", "order", "Orders"],
    "PORT": ["0", "65536", "http", "80 80"],
    "HEALTH_PORT": ["0", "99999999999"],
    "LOG_LEVEL": ["loud", "10", "warn ing"],
    "LOG_FORMAT": ["xml"],
    "STRIPE_API_BASE": [
        "sandbox:1234",
        "ftp://sandbox",
        "https://",
        "http:///v1",
        "http://[::1",
        "http://u:s3cret@x",
        "http://x/?s3cret",
        "http://x#f",
    ],
    "CARRIER_URL": [
        "carrier.example",
        "file:///etc/passwd",
        "http://h:99999",
        "http://h#f",
        "http://h/ a",
        "http://h/é",
    ],
    "OTEL_EXPORTER_OTLP_ENDPOINT": ["collector:4317"],
    "OTEL_EXPORTER_OTLP_HEADERS": [
        "a=%20b",
        "token",
        "=x",
        "a b=c",
        "a=b,",
        "a=%0a",
        "x-token=s3cret,Content-Length=5",
        "transfer-encoding=chunked",
        "HOST=elsewhere",
        "connection=close",
        "content-encoding=gzip",
    ],
    "OTEL_TRACES_SAMPLER_ARG": ["always", "-0.1", "1.1", "nan"],
    "SMTP_URL": [
        "mailto:s3cret@example.com",
        "smtp://",
        "smtp://u:s3cret@h/inbox",
        "smtp://u:s3cret@h?x=1",
        "smtp://u:s3cret@h:25#f",
        "smtp://u:s3cret@a,b",
        "smtp://u:s3cret@h:0",
        "smtp+tls://h",
    ],
    "MAIL_FROM": ["nobody", "a@b, c@d", "<a@b>", "Ada <a@b", '"A" <a@b>', "a b@c", "A <a@b> <c@d>"],
    "SHUTDOWN_TIMEOUT_S": ["0", "-1", "nan", "inf", "3601", "soon", "1,5"],
    "RATE_LIMIT_PER_S": ["0", "-1", "1000001", "1.5", "many"],
    "REQUESTS_MAX": ["0", "3", "8193", "1.5", "many"],
}
"""Setting → values that it refuses."""

RIGHT = {
    "ENVIRONMENT": {"dev": "dev", "preview-12": "preview-12", "x": "x"},
    "DATABASE_URL": {
        url: url
        for url in [
            "postgres://h/d",
            "postgresql:///d",
            "postgresql://a:1,b:2/d",
            "postgresql://h/d?sslmode=verify-full&application_name=x",
            "postgresql:///d?host=/run&port=5433",
            "postgresql://[::1]:5432/d",
        ]
    },
    "REDIS_URL": {
        url: url
        for url in [
            "rediss://u:p@h:6380/3",
            "unix:///run/redis.sock?db=2",
            "redis://[::1]:6379/0",
            "rediss://h/0?ssl_cert_reqs=required&ssl_ca_certs=/etc/ca.pem",
        ]
    },
    "REDIS_DB": {"0": 0, "15": 15},
    "TEMPORAL_ADDRESS": {x: x for x in ["127.0.0.1:7233", "[::1]:7233", "ns.acct.tmprl.cloud:7233"]},
    "WORKER_QUEUES": {"payments": ("payments",), "orders, payments,orders": ("orders", "payments")},
    "LISTEN_HOST": {x: x for x in ["0.0.0.0", "::", "::1", "localhost", "gateway-1.internal"]},
    "PORT": {"1": 1, "65535": 65535, "08080": 8080},
    "LOG_LEVEL": {"debug": "debug", "INFO": "info"},
    "LOG_FORMAT": {"json": "json", "console": "console"},
    "CARRIER_URL": {
        "https://carrier.example/api/": "https://carrier.example/api",
        "http://[::1]:8090": "http://[::1]:8090",
    },
    "SMTP_URL": {
        url: url
        for url in ["smtp://relay", "smtps://u:p%40ss@[::1]:465/", "smtp+starttls://u:p@127.0.0.1:587"]
    },
    "MAIL_FROM": {x: x for x in ["orders@example.com", "Tea & Söhne <orders+x@mail.example.com>"]},
    "SHUTDOWN_TIMEOUT_S": {"0.1": 0.1, "25": 25.0, "1e2": 100.0},
    "EVENT_SHARDS": {"1": 1, "256": 256},
    "RATE_LIMIT_PER_S": {"1": 1, "1000000": 1_000_000},
    "REQUESTS_MAX": {"4": 4, "8192": 8_192},
}
"""Setting → what becomes of values that it takes."""

NEEDED = [(mode, s.name) for s in SETTINGS for mode in s.modes if s.name != "MODE"]


def complaint(mode: str, changes: dict[str, str | None]) -> str:
    """The line that a start with these changes ends with."""
    values = {name: value for name, value in {**ENVIRONMENT, **changes}.items() if value is not None}
    with pytest.raises(ConfigurationError) as raised:
        config.load(mode, values)
    return str(raised.value)


def outcome(changes: dict[str, str]) -> str:
    """What a start with these changes says: a line, or nothing when all is well."""
    try:
        config.load("worker", {**ENVIRONMENT, **changes})
    except ConfigurationError as wrong:
        return str(wrong)
    return ""


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_starts_with_what_it_needs(mode: str):
    """And only with that: what other modes need may be missing."""
    needed = {name: ENVIRONMENT[name] for asking, name in NEEDED if asking == mode}
    settings = config.load(mode, needed)
    assert settings.environment == "staging"
    assert settings.port == 8080
    assert settings.health_port == 8081
    assert settings.worker_queues == ("orders", "payments", "inventory", "shipping", "notifications")


def test_a_command_on_the_database_needs_the_database_only():
    """`holdfast migrate` runs where nothing else is known."""
    assert config.load("tool", {"DATABASE_URL": "postgresql://h/d"}).redis_url == ""
    with pytest.raises(ConfigurationError, match="DATABASE_URL is missing"):
        config.load("tool", {})


@pytest.mark.parametrize(("mode", "name"), NEEDED)
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_setting_is_named(mode: str, name: str, value: str | None):
    """Empty is missing: that is how an unset variable arrives through many a template."""
    assert complaint(mode if mode != "tool" else "gateway", {name: value}).startswith(f"{name} is missing: ")


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_wrong_setting_is_named_and_said_what_it_should_be(name: str, value: str):
    """In one line, whatever was in it, and whichever mode it is."""
    for mode in MODES:
        line = complaint(mode, {name: value})
        assert line.startswith(f"{name} must ")
        assert "\n" not in line
        assert "s3cret" not in line


@pytest.mark.parametrize("name", [s.name for s in SETTINGS if s.name != "MODE"])
@pytest.mark.parametrize("value", ["x\n", "a\nb", "\x00", " x", "x ", "\udcff", "\x1b[2J", "x\u2028y"])
def test_no_setting_holds_control_characters_or_spaces_around_it(name: str, value: str):
    """A line end that came with a mounted file is found at start, not in the first request."""
    line = complaint("worker", {name: value})
    assert line.startswith(f"{name} must hold printable characters only")
    assert line.isprintable()


@pytest.mark.parametrize(
    ("name", "value", "parsed"), [(name, *pair) for name, values in RIGHT.items() for pair in values.items()]
)
def test_a_right_setting_is_taken(name: str, value: str, parsed: object):
    """As what the program works with."""
    settings = config.load("worker", {**ENVIRONMENT, name: value})
    assert getattr(settings, name.lower()) == parsed


SECRETS = [s.name for s in SETTINGS if s.secret]


def test_what_holds_a_password_is_a_secret():
    """Keys, and URLs that carry passwords."""
    assert set(SECRETS) == {
        "DATABASE_URL",
        "REDIS_URL",
        "TEMPORAL_API_KEY",
        "STRIPE_API_KEY",
        "CARRIER_WEBHOOK_SECRET",
        "OTEL_EXPORTER_OTLP_HEADERS",
        "SMTP_URL",
    }


@pytest.mark.parametrize("name", SECRETS)
@given(value=st.text(min_size=1).filter(lambda text: "\0" not in text))
def test_a_secret_is_never_shown(name: str, value: str):
    """Whatever is wrong with it."""
    assert "hunter2" not in outcome({name: f"{value}hunter2hunter2"})


@pytest.mark.parametrize("host", ["h", "pa\u2100ss@h", "[::1", "h]", "h:99999"])
@pytest.mark.parametrize("scheme", ["postgresql", "redis", "http"])
@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL", "CARRIER_URL", "OTEL_EXPORTER_OTLP_ENDPOINT"])
def test_a_password_in_a_broken_url_is_not_shown(name: str, scheme: str, host: str):
    """Not by us, and not by the library that takes it apart."""
    line = outcome({name: f"{scheme}://user:hunter2@{host}/x/y"})
    assert "hunter2" not in line
    assert re.match(rf"$|{name} must (be|end|name) ", line)


def test_a_certificate_needs_its_key(tmp_path):
    """Both or none."""
    file = tmp_path / "client.pem"
    file.write_text("PEM")
    for name in ("TEMPORAL_TLS_CERT", "TEMPORAL_TLS_KEY"):
        assert "TEMPORAL_TLS_CERT and TEMPORAL_TLS_KEY" in complaint("worker", {name: str(file)})
    both = {"TEMPORAL_TLS_CERT": str(file), "TEMPORAL_TLS_KEY": str(file)}
    assert config.load("worker", {**ENVIRONMENT, **both}).temporal_tls_key == str(file)


@pytest.mark.parametrize(
    "url", ["redis://h/1", "redis://h:6379/1", "unix:///run/redis?db=1", "redis://h?db=1"]
)
def test_two_numbers_of_a_redis_database_must_agree(url: str):
    """Else one process would read what the other never wrote."""
    assert complaint("gateway", {"REDIS_URL": url, "REDIS_DB": "2"}).startswith("REDIS_DB must be 1")
    config.load("gateway", {**ENVIRONMENT, "REDIS_URL": url, "REDIS_DB": "1"})


def test_a_redis_database_may_be_named_beside_a_url_that_names_none():
    """The path of a socket is no database."""
    for url in ("redis://h", "redis://h/", "unix:///run/1"):
        assert config.load("gateway", {**ENVIRONMENT, "REDIS_URL": url, "REDIS_DB": "2"}).redis_db == 2


@pytest.mark.parametrize("key", ["sk_test_x", "rk_test_x", "pk_live_x", "x"])
def test_production_takes_no_play_money(key: str):
    """A test key in production would ship for nothing."""
    line = complaint("worker", {"ENVIRONMENT": "production", "STRIPE_API_KEY": key})
    assert line.startswith("STRIPE_API_KEY must be a live key")


@pytest.mark.parametrize("key", ["sk_live_x", "rk_live_x", "pk_test_x", "x"])
@pytest.mark.parametrize("environment", ["dev", "staging", "preview"])
def test_only_production_takes_real_money(key: str, environment: str):
    """A live key anywhere else would charge real cards."""
    line = complaint("worker", {"ENVIRONMENT": environment, "STRIPE_API_KEY": key})
    assert line.startswith("STRIPE_API_KEY must be a test key")


@pytest.mark.parametrize(
    ("environment", "key", "said"),
    [
        ("production", "rk_test_x", "it is a test key"),
        ("dev", "sk_live_x", "it is a live key"),
        ("dev", "pk_live_x", "it is no secret key of Stripe's"),
    ],
)
def test_the_line_says_what_kind_of_key_it_is(environment: str, key: str, said: str):
    """Whoever mixed two secrets up sees which of them this is, not its value."""
    line = complaint("worker", {"ENVIRONMENT": environment, "STRIPE_API_KEY": key})
    assert line.endswith(said)
    assert key not in line


def test_a_live_key_goes_to_nobody_but_stripe():
    """A forgotten sandbox address would read it."""
    live = {"ENVIRONMENT": "production", "STRIPE_API_KEY": "sk_live_s3cret"}
    line = complaint("worker", {**live, "STRIPE_API_BASE": "http://sandbox"})
    assert line.startswith("STRIPE_API_BASE must be left out")
    assert "s3cret" not in line
    assert config.load("worker", {**ENVIRONMENT, **live}).stripe_api_key == "sk_live_s3cret"


@pytest.mark.parametrize(("environment", "form"), [("dev", "console"), ("staging", "json")])
def test_logs_are_readable_in_development_and_json_elsewhere(environment: str, form: str):
    """Unless somebody says otherwise."""
    assert config.load("gateway", {**ENVIRONMENT, "ENVIRONMENT": environment}).log_format == form
    asked = {**ENVIRONMENT, "ENVIRONMENT": environment, "LOG_FORMAT": "json"}
    assert config.load("gateway", asked).log_format == "json"


@pytest.mark.parametrize("asked", [None, "", "Gateway", "gateways", "tool", "worker "])
def test_an_unknown_mode_is_none(asked: str | None):
    """The program then says what there is."""
    assert config.mode({} if asked is None else {"MODE": asked}) is None


def test_settings_and_the_table_agree():
    """Each row has its field, each field its row; defaults are values that are taken."""
    assert [s.name.lower() for s in SETTINGS if s.name != "MODE"] == list(config.Settings.__struct_fields__)
    for setting in SETTINGS:
        if setting.default is not None:
            setting.parse(setting.default)


def test_settings_cannot_be_changed():
    """What was checked at start stays as it was."""
    with pytest.raises(AttributeError):
        config.load("gateway", ENVIRONMENT).port = 1


def test_other_variables_are_nobodys_business():
    """A shell has many."""
    assert config.load("gateway", {**ENVIRONMENT, "PATH": "/bin", "HOME": "/"}) == config.load(
        "gateway", ENVIRONMENT
    )
