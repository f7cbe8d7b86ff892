"""The program. `MODE=gateway|worker|consumer holdfast` runs a mode; with arguments it runs a command.

This is the only switch between modes and the only list of commands; each is imported when it is asked for.
Exit codes: 0 done, 1 failed, 64 wrong usage, 69 a needed server is unreachable, 78 wrong configuration.
"""

import importlib
import sys
from typing import Final

from app import config

EXIT_USAGE: Final = 64
_ARGPARSE_USAGE: Final = 2

RUN: Final = {
    "gateway": "app.gateway.run:run",
    "worker": "app.workers.run:run",
    "consumer": "app.consumer.run:run",
}
"""Mode → the function that runs it until SIGTERM and returns an exit code."""

COMMANDS: Final = {
    "up": ("app.dev.commands:up", "start the whole stack on this machine"),
    "down": ("app.dev.commands:down", "stop it"),
    "status": ("app.dev.commands:status", "show what runs"),
    "import": ("app.dev.importer:main", "place a purchase log as orders and audit the result"),
    "migrate": ("app.infra.postgres.migrate:main", "bring the database schema up to date"),
    "health": ("app.health_command:main", "ask the process of this container how it is"),
    "keys": ("app.infra.postgres.keys:main", "create, list and revoke API keys"),
    "dlq": ("app.infra.postgres.dead_letter_commands:main", "show, retry or discard events that failed"),
    "mails": ("app.infra.postgres.mail_commands:main", "show mails to customers, send failed ones after all"),
    "replay": ("app.replay.commands:main", "run events of the past through a handler again"),
    "audit": ("app.infra.postgres.audit:main", "check every chain of events and every daily seal"),
    "events": ("app.infra.archive.commands:main", "archive months of events, drop those that are archived"),
    "promote": ("app.dev.promote:main", "give an environment the image that another one has"),
    "seed": ("app.dev.seed:main", "put the development catalogue, stock and key in place"),
    "sandbox": ("app.dev.sandbox.server:main", "run the sandbox providers"),
}
"""Command → its function (arguments in, exit code out) and one line of help."""

USAGE: Final = "usage: holdfast COMMAND [--help], or MODE=gateway|worker|consumer holdfast"


def main() -> int:
    """Run the command named by the arguments, or the mode named by MODE."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in {"-h", "--help"}:
        print(USAGE)
        print("\n".join(f"  {name:10} {about}" for name, (_, about) in COMMANDS.items()))
        return 0
    if arguments:
        return _command(arguments[0], arguments[1:])
    mode = config.mode()
    if mode is None:
        print(
            f"holdfast: MODE must be one of {', '.join(config.MODES)}; see holdfast --help", file=sys.stderr
        )
        return EXIT_USAGE
    for line in config.misspelt():
        print(f"holdfast: {line}", file=sys.stderr)
    try:
        settings = config.load(mode)
    except config.ConfigurationError as wrong:
        print(f"holdfast: {wrong}", file=sys.stderr)
        return config.EXIT_CONFIGURATION
    return int(_load(RUN[mode])(settings))


def _command(name: str, arguments: list[str]) -> int:
    if name not in COMMANDS:
        print(f"holdfast: there is no command {name!r}; see holdfast --help", file=sys.stderr)
        return EXIT_USAGE
    try:
        return int(_load(COMMANDS[name][0])(arguments))
    except SystemExit as left:
        if left.code == _ARGPARSE_USAGE:  # its own number for wrong usage; ours is the same for all commands
            return EXIT_USAGE
        raise
    except config.ConfigurationError as wrong:
        print(f"holdfast: {wrong}", file=sys.stderr)
        return config.EXIT_CONFIGURATION


def _load(target: str):  # type: ignore[no-untyped-def]  # noqa: ANN202 - whatever the table names
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as missing:
        if (missing.name or "").startswith("app.dev"):
            print("holdfast: this belongs to development and is not in the image", file=sys.stderr)
            sys.exit(1)
        if (missing.name or "").startswith("app"):
            raise
        print(f"holdfast: {missing.name} is not installed; this needs the development extra", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
