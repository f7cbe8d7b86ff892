"""Owns what a person reads about a running stack: the summary after a start, and the status.

Pure functions from the status document to text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

FIRST_SKU = "tea-earl-grey"


def summary(document: dict[str, Any], headline: str) -> str:
    """Where everything is, the API key, the names that the documents use, and a first order to place."""
    rows = [
        ("Gateway", document["gateway"]["url"], "documentation: /docs"),
        ("Temporal UI", document["temporal"]["ui_url"], ""),
        ("Temporal", document["temporal"]["address"], f"namespace {document['temporal']['namespace']}"),
        ("PostgreSQL", document["postgres"]["dsn"], ""),
        ("Redis", document["redis"]["url"], ""),
        ("Sandbox", document["sandbox"]["url"], "payments and carrier"),
        ("Mails", document["mails"]["url"], "what customers were told"),
        ("API key", document["api_key"], ""),
    ]
    lines = [headline, ""]
    lines += [
        f"  {name:<12} {value}" + (f"   ({note})" if note else "") for name, value, note in rows if value
    ]
    if document["gateway"]["pids"]:
        lines += [*_names(document), "", "Place a first order:", "", first_order(document)]
    return "\n".join(lines)


def _names(document: dict[str, Any]) -> list[str]:
    return ["", "The variables that the documents use:", "", names(document)]


def names(document: dict[str, Any]) -> str:
    """A command that gives a shell the variables that README and docs/ use."""
    return (
        f"  export URL={document['gateway']['url']} SANDBOX={document['sandbox']['url']} \\\n"
        f"    KEY={document['api_key']} \\\n"
        f"    DATABASE_URL={document['postgres']['dsn']} \\\n"
        f"    REDIS_URL={document['redis']['url']} \\\n"
        f"    TEMPORAL_ADDRESS={document['temporal']['address']} "
        f"TEMPORAL_NAMESPACE={document['temporal']['namespace']}"
    )


def first_order(document: dict[str, Any]) -> str:
    """A curl command that places an order and waits until it is confirmed."""
    body = {
        "customer_id": "cus_ada",
        "currency": "USD",
        "lines": [{"sku": FIRST_SKU, "quantity": 2}],
        "payment_method": "pm_card_visa",
        "shipping_address": {
            "name": "Ada",
            "line1": "12 Main St",
            "city": "London",
            "postal_code": "SW1Y 4LB",
            "country": "GB",
            "email": "ada@example.com",
        },
    }
    return "\n".join(
        [
            f"  curl -i {document['gateway']['url']}/v1/orders \\",
            f"    -H 'Authorization: Bearer {document['api_key']}' \\",
            "    -H 'Content-Type: application/json' \\",
            '    -H "Idempotency-Key: first-$(date +%s)" \\',
            "    -H 'Prefer: wait=10' \\",
            f"    -d '{json.dumps(body)}'",
        ]
    )


def status(document: dict[str, Any], option: str = "", refused: Mapping[str, str] | None = None) -> str:
    """What runs, a line for each process; where there is a gateway, also what one needs to talk to it.

    `option` is what a command needs to mean this stack (DataFolder.option); `refused`
    holds what the modes said that ended over a wrong setting.
    """
    addresses = {
        "gateway": document["gateway"]["url"],
        "worker": document["worker"]["health_url"],
        "consumer": document["consumer"]["health_url"],
        "postgres": document["postgres"]["dsn"],
        "redis": document["redis"]["url"],
        "temporal": f"{document['temporal']['address']}, UI {document['temporal']['ui_url']}",
        "sandbox": document["sandbox"]["url"],
    }
    lines = [document["state"]]
    if document["state"] == "stopped":
        return f"stopped (start it with: holdfast up{option})"
    for name, address in addresses.items():
        pids = document[name]["pids"] if "pids" in document[name] else [document[name]["pid"]]
        pid = next((f"pid {pid}" for pid in pids if pid is not None), "-")
        lines.append(f"  {name:<9} {pid:<12} {_condition(name, document) or address}")
    for name, value in (("mails", document["mails"]["url"]), ("API key", document["api_key"])):
        if value:
            lines.append(f"  {name:<9} {'':<12} {value}")
    if document["gateway"]["pids"]:
        lines += _names(document)
    if document["state"] == "degraded":
        lines += ["", _advice(document, option)]
        lines += [
            f"{name} ended with exit code 78, a wrong setting. Its log says:\n  {said}"
            for name, said in (refused or {}).items()
            if name in document["missing"]
        ]
    return "\n".join(lines)


def _condition(name: str, document: dict[str, Any]) -> str | None:
    """What is wrong with a process; None when it serves."""
    if name in document["missing"]:
        return "does not serve"
    waits_for = document["not_ready"].get(name)
    return f"not ready (waits for {', '.join(waits_for)})" if waits_for else None


def _advice(document: dict[str, Any], option: str) -> str:
    """What to do about a stack that is not whole."""
    missing = document["missing"]
    if "supervisor" in missing:
        return (
            "The supervisor is gone: nobody starts again what dies, and its guard may be stopping the rest.\n"
            f"Stop what is left with: holdfast down{option}; "
            f"stop it and start anew with: holdfast up --detach{option}"
        )
    if missing:
        return (
            f"Start what is missing ({', '.join(missing)}) with: holdfast up --detach{option}; "
            "logs are in the data folder, under logs/"
        )
    return "What is not ready goes on by itself; logs are in the data folder, under logs/"
