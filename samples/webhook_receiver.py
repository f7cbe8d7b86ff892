"""A receiver of webhooks: verifies each, and prints what it was told. Needs nothing but Python.

WEBHOOK_SECRET=whsec_… python samples/webhook_receiver.py [PORT]
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOLERANCE_S = 300
BODY_BYTES_MAX = 1024 * 1024

secret = base64.b64decode(os.environ["WEBHOOK_SECRET"].removeprefix("whsec_"))
seen: set[str] = (
    set()
)  # a real receiver keeps these, or the highest sequence of each subject, in its database


def is_ours(headers: Message, body: bytes) -> bool:
    """Whether somebody who has the secret sent exactly this, just now."""
    identity, sent_at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not sent_at.isdigit() or abs(time.time() - int(sent_at)) > TOLERANCE_S:
        return False
    right = hmac.digest(secret, f"{identity}.{sent_at}.".encode() + body, hashlib.sha256)
    expected = "v1," + base64.b64encode(right).decode()
    # While a secret is being rotated there are two signatures: either is enough.
    given = headers.get("webhook-signature", "").split(" ")
    return any(hmac.compare_digest(expected.encode(), one.encode()) for one in given)


class Receiver(BaseHTTPRequestHandler):
    """Answers 204 to what is ours, 401 to everything else."""

    def do_POST(self) -> None:
        """One delivery."""
        length = int(self.headers.get("content-length", "0"))
        body = self.rfile.read(length) if length <= BODY_BYTES_MAX else b""
        good = is_ours(self.headers, body)
        if good and self.headers["webhook-id"] not in seen:
            seen.add(self.headers["webhook-id"])
            event = json.loads(body)
            told = [event[name] for name in ("time", "type", "subject", "sequence")]
            # One write: print() writes the line and its end apart, and another thread may come between.
            sys.stdout.write(" ".join(map(str, told)) + "\n")
            sys.stdout.flush()
        self.send_response(204 if good else 401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """What is received is printed above; how, nobody needs to know."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 9000), Receiver)
    print(f"listening on http://127.0.0.1:{server.server_address[1]}/", flush=True)
    server.serve_forever()
