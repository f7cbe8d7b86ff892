"""Webhooks: their signature is the one that everybody else checks."""

import json
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from app.domain.webhooks import Post, Receipt, secret_of, signature

BODY = json.dumps({"id": "ord_1:1", "name": "Ünïcode"}, ensure_ascii=False).encode()
OLD, NEW = secret_of(bytes(range(32))), secret_of(bytes(range(32, 64)))


def headers(*secrets: str) -> dict[str, str]:
    """The headers of a delivery that was sent just now."""
    now = int(time.time())
    signed = signature(secrets, "msg_1", now, BODY)
    return {"webhook-id": "msg_1", "webhook-timestamp": str(now), "webhook-signature": signed}


def test_the_official_verifier_takes_our_signature():
    """Its own example of a secret, and ours."""
    assert OLD.startswith("whsec_")
    assert Webhook(OLD).verify(BODY, headers(OLD)) == json.loads(BODY)
    known = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    assert Webhook(known).verify(BODY, headers(known)) == json.loads(BODY)


def test_whoever_has_either_secret_can_check_while_they_overlap():
    """Two signatures, with a space between."""
    given = headers(NEW, OLD)
    assert given["webhook-signature"].count("v1,") == 2
    for secret in (NEW, OLD):
        assert Webhook(secret).verify(BODY, given)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret_of(b"x" * 32)).verify(BODY, given)


def test_another_body_or_id_does_not_fit():
    """What is signed is id, time and body."""
    with pytest.raises(WebhookVerificationError):
        Webhook(OLD).verify(BODY + b" ", headers(OLD))
    with pytest.raises(WebhookVerificationError):
        Webhook(OLD).verify(BODY, {**headers(OLD), "webhook-id": "msg_2"})


def test_nobody_reads_a_secret_in_a_traceback():
    """What is sent is shown by its ids."""
    post = Post("msg_1", "whe_1", "https://example.com/?token=x", b"body", (OLD,))
    assert repr(post) == "Post('msg_1', 'whe_1')"


@pytest.mark.parametrize(
    ("status", "good", "gone"),
    [(200, True, False), (299, True, False), (302, False, False), (410, False, True), (None, False, False)],
)
def test_only_a_2xx_is_good(status: int | None, good: bool, gone: bool):
    """And 410 is the wish to be left alone for good."""
    assert (Receipt(status).is_good, Receipt(status).is_gone) == (good, gone)
