"""The mail server of development: takes all, delivers none, shows what it took."""

import smtplib
from email.message import EmailMessage
from pathlib import Path

import httpx

from app.dev.sandbox import mails
from app.dev.stack.ports import any_free
from tests.integration.sandbox.process import SandboxProcess


def send(port: int, subject: str, to: str = "ada@example.com") -> None:
    """Send a mail, as anybody would."""
    message = EmailMessage()
    message["From"] = "Shop <orders@shop.example>"
    message["To"] = to
    message["Subject"] = subject
    message["Message-ID"] = f"<{subject.replace(' ', '.')}@shop.example>"
    message.set_content(f"{subject}, in text: ä")
    message.add_alternative(f"<p>{subject}, on a page</p>", subtype="html")
    with smtplib.SMTP("127.0.0.1", port) as client:
        client.send_message(message)


async def test_what_was_taken_can_be_read_and_outlives_a_kill(tmp_path: Path):
    """As a list, newest first, as a page, and as text."""
    port = any_free()
    sandbox = SandboxProcess(tmp_path / "sandbox.sqlite3", None, "--smtp-port", str(port))
    await sandbox.start()
    try:
        async with httpx.AsyncClient(base_url=sandbox.url) as http:
            assert (await http.get("/mails")).json() == []
            for number in range(3):
                send(port, f"No {number}", to=f"c{number}@example.com")
            await sandbox.kill()
            await sandbox.start()
            found = (await http.get("/mails")).json()
            assert [mail["subject"] for mail in found] == ["No 2", "No 1", "No 0"]
            assert found[0]["message_id"] == "<No.2@shop.example>"
            assert found[0]["from"] == "Shop <orders@shop.example>"
            assert found[0]["to"] == "c2@example.com"
            page = await http.get(found[0]["url"])
            assert page.headers["content-type"] == "text/html; charset=utf-8"
            assert page.headers["content-security-policy"].startswith("default-src 'none'")
            assert page.text.strip() == "<p>No 2, on a page</p>"
            assert (await http.get(found[0]["text"])).text.strip() == "No 2, in text: ä"
            assert len((await http.get("/mails?limit=1")).json()) == 1
            only = (await http.get("/mails", params={"to": "c1@example.com"})).json()
            assert [mail["subject"] for mail in only] == ["No 1"]
            for wrong, status in {
                "/mails?limit=0": 400,
                "/mails?limit=x": 400,
                "/mails?limit=201": 400,
                "/mails/99": 404,
                "/mails/x": 404,
                "/mails/1/x": 404,
                f"/mails/{'9' * 40}": 404,
            }.items():
                assert (await http.get(wrong)).status_code == status, wrong
            assert (await http.delete("/mails")).status_code == 405
    finally:
        assert await sandbox.stop() == 0


async def test_the_newest_are_kept(tmp_path: Path, monkeypatch):
    """A stack that runs for weeks fills no disk."""
    monkeypatch.setattr(mails, "KEPT_MAX", 3)
    store = mails.Store(tmp_path / "sandbox.sqlite3")
    taken = mails.Mails(store)
    for number in range(5):
        await store.run(lambda database, n=number: mails._keep(database, [f"c{n}@example.com"], b"\r\n"))
    answer = await taken.handle(mails.Request("GET", "/mails", "", {}, b""))
    assert [mail["to"] for mail in mails.msgspec.json.decode(answer.body)] == [
        f"c{number}@example.com" for number in (4, 3, 2)
    ]
    store.close()
