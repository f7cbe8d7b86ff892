"""Pages for people: the API's documentation and what each type of problem means.

They are made from the OpenAPI document and the table of problems, and ask no other host for anything; the
Content-Security-Policy allows only the style and the script that are written into the page.
"""

import base64
import hashlib
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, Final

import msgspec

from app.contracts.asyncapi import async_api
from app.gateway.exchange import Call, Headers, Reply
from app.gateway.problem_kinds import BY_SLUG, KINDS
from app.gateway.problems import not_found
from app.gateway.services import Services

HTML: Final = b"text/html; charset=utf-8"

_STYLE: Final = (Path(__file__).parent / "docs.css").read_text(encoding="utf-8")
_SCRIPT: Final = (Path(__file__).parent / "docs.js").read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


_POLICY: Final = (
    f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final[Headers] = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
)


async def show_open_api(services: Services, call: Call) -> Reply:  # noqa: ARG001 - as every route
    """`GET /openapi.json`."""
    return Reply(200, services.open_api)


async def show_async_api(services: Services, call: Call) -> Reply:  # noqa: ARG001
    """`GET /asyncapi.json`."""
    return Reply(200, async_api())


async def show_docs(services: Services, call: Call) -> Reply:  # noqa: ARG001
    """`GET /docs`."""
    return Reply(200, services.docs_page, _HEADERS, HTML)


async def show_problem(services: Services, call: Call) -> Reply:  # noqa: ARG001
    """`GET /problems/{slug}`."""
    kind = BY_SLUG.get(call.parameters["slug"])
    if kind is None:
        raise not_found("such problem")
    head = f"<h1>{escape(kind.title)}</h1><p><code>{kind.status} {kind.slug}</code></p>"
    body = f"{head}<p>{_prose(kind.about)}</p>"
    return Reply(200, _page(kind.title, body, ""), _HEADERS, HTML)


def docs_page(specification: bytes) -> bytes:
    """The documentation, from the OpenAPI document."""
    document = msgspec.json.decode(specification)
    return _page(document["info"]["title"], "".join(_sections(document)), _SCRIPT)


def _page(title: str, body: str, script: str) -> bytes:
    tail = f"<script>{script}</script>" if script else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<style>{_STYLE}</style></head><body><main>{body}</main>{tail}</body></html>"
    ).encode()


def _sections(document: dict[str, Any]) -> Iterator[str]:
    info = document["info"]
    yield f"<h1>{escape(info['title'])}</h1>"
    yield "".join(f"<p>{_prose(part)}</p>" for part in info["description"].split("\n\n"))
    yield '<p><a href="/openapi.json">openapi.json</a> · <a href="/asyncapi.json">asyncapi.json</a></p>'
    yield '<p class="key"><label>API key <input id="key" type="password" autocomplete="off"></label></p>'
    for tag in document["tags"]:
        yield f"<h2>{escape(tag['name'])}</h2>"
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if tag["name"] in operation["tags"]:
                    yield _operation(path, method, operation)
    yield "<h2>documents</h2>"
    for name, schema in document["components"]["schemas"].items():
        summary = f"<summary><code>{escape(name)}</code></summary>"
        yield f'<details id="{escape(name)}">{summary}{_code(schema)}</details>'
    yield "<h2>problems</h2><ul>"
    for kind in KINDS:
        yield f'<li>{kind.status} <a href="/problems/{kind.slug}">{kind.slug}</a>: {escape(kind.title)}</li>'
    yield "</ul>"


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    scopes = [scope for need in operation["security"] for scope in need.get("apiKey", ())]
    needs = f"<p>Scope: <code>{escape(', '.join(scopes))}</code></p>" if scopes else ""
    about = f"<p>{_prose(operation['description'])}</p>" if "description" in operation else ""
    return (
        f'<details class="operation" id="{operation["operationId"]}"><summary><b class="{method}">'
        f"{method.upper()}</b> <code>{escape(path)}</code> {escape(operation['summary'])}</summary>"
        f"{about}{needs}{_try(path, method, operation)}{_responses(operation['responses'])}</details>"
    )


def _try(path: str, method: str, operation: dict[str, Any]) -> str:
    """A form that sends the request from this page: parameters, body, and where the answer goes."""
    rows = "".join(
        f"<tr><td><code>{escape(p['name'])}</code>{' *' if p['required'] else ''}</td>"
        f"<td>{escape(p['in'])}</td>"
        f'<td><input data-name="{escape(p["name"])}" data-in="{escape(p["in"])}"></td>'
        f"<td>{_prose(p['description'])}</td></tr>"
        for p in operation.get("parameters", ())
    )
    table = f"<table>{rows}</table>" if rows else ""
    body = ""
    if "requestBody" in operation:
        content = operation["requestBody"]["content"]["application/json"]
        example = escape(_pretty(content["example"]))
        body = f"<p>{_reference(content['schema'])}</p>"
        body += f'<textarea rows="12" spellcheck="false">{example}</textarea>'
    return (
        f'<form data-method="{method.upper()}" data-path="{escape(path)}">{table}{body}'
        '<p><button type="submit">Send</button></p><pre class="answer" hidden></pre></form>'
    )


def _responses(responses: dict[str, Any]) -> str:
    rows = []
    for status, response in responses.items():
        content: dict[str, Any] = next(iter(response.get("content", {}).values()), {})
        shown = _reference(content.get("schema", {}))
        if "examples" in content:
            shown = ", ".join(f'<a href="/problems/{slug}">{slug}</a>' for slug in content["examples"])
        elif "example" in content:
            shown += f"<details><summary>example</summary>{_code(content['example'])}</details>"
        rows.append(f"<tr><td>{status}</td><td>{escape(response['description'])}</td><td>{shown}</td></tr>")
    return f"<table>{''.join(rows)}</table>"


def _reference(schema: dict[str, Any]) -> str:
    name = schema.get("$ref", "").rpartition("/")[2]
    return f'<a href="#{escape(name)}"><code>{escape(name)}</code></a>' if name else ""


def _code(value: Any) -> str:  # noqa: ANN401 - any JSON
    return f"<pre>{escape(_pretty(value))}</pre>"


def _pretty(value: Any) -> str:  # noqa: ANN401 - any JSON
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _prose(text: str) -> str:
    """Text with its `code` marked up."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))
