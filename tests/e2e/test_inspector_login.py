"""Logging in to the inspector with a real browser, which says where a form comes from."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.credential_book import CredentialBook
from tests.e2e.inspector_book import watched

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
TIMEOUT_MS = 30_000


def _logged_in(page: Any, address: str, secret: str) -> None:
    page.goto(f"http://{address}/sessions")
    page.fill("input[name=token]", secret)
    page.keyboard.press("Enter")
    page.wait_for_url(f"http://{address}/sessions", timeout=TIMEOUT_MS)


def test_a_person_logs_in_and_out(tmp_path: Path) -> None:
    """Proves that a browser's own form is taken: it leads to the sessions, and the logout back to the login."""
    book = CredentialBook(tmp_path / "tokens.toml")
    secret = book.bearer("acme")
    with (
        watched(tmp_path, "--token-file", str(book.path)) as (_, address),
        sync_api.sync_playwright() as play,
    ):
        browser = play.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        page = browser.new_page()
        _logged_in(page, address, secret)
        assert "Sessions" in page.inner_text("h1")
        page.click("form[action='/logout'] button")
        page.wait_for_url(f"http://{address}/login*", timeout=TIMEOUT_MS)
        assert page.context.cookies() == []
        browser.close()
