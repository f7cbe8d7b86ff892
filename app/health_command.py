"""`holdfast health`: asks the process of this container how it is, where an engine has no probes of its own.

Reads the environment that the process was started with, asks it over the loopback and exits with 0 or 1. It
holds nothing, so nothing is lost if it dies here.
"""

import http.client
from typing import Final

from app import config
from app.usage import Parser

TIMEOUT_S: Final = 3.0
EXIT_FAILED: Final = 1
OK: Final = 200


def main(arguments: list[str]) -> int:
    """0 when the process answers that it is well, 1 when it does not."""
    parser = Parser(
        prog="holdfast health", description="Ask the process that MODE, PORT and HEALTH_PORT name."
    )
    parser.add_argument("--live", action="store_true", help="ask whether it runs, not whether it is ready")
    options = parser.parse_args(arguments)
    mode = config.mode()
    if mode is None:
        parser.error(f"MODE must be one of {', '.join(config.MODES)}")
    settings = config.load(mode)
    port = settings.port if mode == "gateway" else settings.health_port
    # A wildcard is no address to connect to; every other one may be the only one that is listened on.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.listen_host, settings.listen_host)  # noqa: S104
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/livez" if options.live else "/readyz")
        answer = connection.getresponse()
        print(answer.read().decode(errors="replace").strip())
    except (OSError, http.client.HTTPException) as error:
        print(f"holdfast: {mode} does not answer on {host}:{port}: {error}")
        return EXIT_FAILED
    finally:
        connection.close()
    return 0 if answer.status == OK else EXIT_FAILED
