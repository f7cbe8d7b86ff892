"""Settings: all that is wrong is said at one start, and a name that is nearly one of ours is pointed out."""

import pytest

from app import config
from app.config import SETTINGS
from tests.unit.test_config import ENVIRONMENT, NEEDED, complaint
from tests.unit.test_program import run

OTHERS = """
PATH HOME HOSTNAME LANG TERM PWD USER MODEL NODE PORTS HTTP_PORT HTTP_PROXY no_proxy PYTHONPATH
AWS_REGION LOG_FILE
POSTGRES_USER POSTGRES_PASSWORD POSTGRES_DB REDIS_PASSWORD REDIS_HOST SMTP_USER SMTP_HOST SMTP_PASSWORD
OTEL_TRACES_SAMPLER OTEL_SERVICE_NAME OTEL_EXPORTER_OTLP_TRACES_ENDPOINT OTEL_EXPORTER_OTLP_PROTOCOL
OTEL_EXPORTER_OTLP_TIMEOUT TEMPORAL_CLI_ADDRESS TEMPORAL_TLS_CA TEMPORAL_TLS_CERT_DATA
HOLDFAST_URL HOLDFAST_API_KEY HOLDFAST_STACK HOLDFAST_DEV_API_KEY
"""
"""Variables that are other programs', or our tools'."""


@pytest.mark.parametrize("mode", config.MODES)
def test_everything_that_is_missing_is_named_at_once(mode: str):
    """Not one at each start."""
    line = complaint(mode, dict.fromkeys(ENVIRONMENT))
    assert "\n" not in line
    for name in (name for asking, name in NEEDED if asking == mode):
        assert f"{name} is missing: " in line


def test_missing_wrong_and_contradictory_settings_are_named_together():
    """In the order of the table, contradictions last; no value of a secret among them."""
    line = complaint(
        "worker",
        {
            "TEMPORAL_NAMESPACE": None,
            "REDIS_URL": "http://s3cret",
            "REDIS_DB": "1",
            "PORT": "http",
            "STRIPE_API_KEY": "sk_live_s3cret",
            "TEMPORAL_TLS_CERT": "/no/such/file",
        },
    )
    said = [
        "REDIS_URL must ",
        "TEMPORAL_NAMESPACE is missing: ",
        "TEMPORAL_TLS_CERT must ",
        ". PORT must be a whole number from 1 to 65535, not 'http'. ",
        "TEMPORAL_TLS_CERT and TEMPORAL_TLS_KEY must be set both or not at all. ",
        "STRIPE_API_KEY must be a test key",
    ]
    places = [line.index(words) for words in said]
    assert places == sorted(places)
    assert line.count(" must ") + line.count(" is missing") == len(said)
    assert "s3cret" not in line


@pytest.mark.parametrize("name", ["ENVIRONMENT", "REDIS_URL", "STRIPE_API_KEY", "MAIL_FROM", "REDIS_DB"])
def test_what_is_wrong_itself_contradicts_nothing(name: str):
    """What it should have been is not known."""
    others = {"REDIS_DB": "1", "SMTP_URL": "smtp://relay", "STRIPE_API_BASE": "http://sandbox"}
    assert complaint("worker", {**others, name: "é\n"}).count(" must ") == 1


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("RATE_LIMIT_PERS", "RATE_LIMIT_PER_S"),
        ("DATABSE_POOL_SIZE", "DATABASE_POOL_SIZE"),
        ("LOG_LEVLE", "LOG_LEVEL"),
        ("SMTP_ULR", "SMTP_URL"),
        ("WORKER_QUEUE", "WORKER_QUEUES"),
        ("OTEL_EXPORTER_OTLP_ENDPIONT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    ],
)
def test_a_name_that_is_nearly_ours_is_pointed_out(name: str, meant: str):
    """It would be ignored, and nobody would know."""
    assert config.misspelt({**ENVIRONMENT, name: "s3cret"}) == [
        f"{name} is not a setting, and nobody reads it: is {meant} meant?"
    ]


def test_what_pods_and_shells_have_is_not():
    """Neither what Kubernetes says of services, nor other programs' variables, nor our own tools'."""
    services = [
        f"{service}_{what}"
        for service in ("REDIS", "TEMPORAL", "POSTGRES", "DATABASE", "HOLDFAST_GATEWAY", "KUBERNETES", "MAIL")
        for what in ("HOST", "PORT", "SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT_80_TCP_PORT")
    ]
    assert (
        config.misspelt(dict.fromkeys([*services, *OTHERS.split(), *(s.name for s in SETTINGS)], "x")) == []
    )


def test_a_mode_says_it_before_all_else():
    """A warning: what ends this start is something else."""
    done = run(**{**ENVIRONMENT, "MODE": "gateway", "PORT": "http", "RATE_LIMIT_PERS": "5"})
    said = done.stderr.splitlines()
    assert done.returncode == 78
    assert said[0] == (
        "holdfast: RATE_LIMIT_PERS is not a setting, and nobody reads it: is RATE_LIMIT_PER_S meant?"
    )
    assert said[1].startswith("holdfast: PORT must ")
