"""Prometheus beside the server: it finds the numbers, and its rules can be reckoned."""

import json
import urllib.request
from typing import Any

from tests.compose.scenario import HEALTHY_WITHIN_S, Services
from tests.compose.steps import Steps, expect, until


def observed(services: Services, steps: Steps) -> None:
    """Start Prometheus as the compose file has it, and ask it what it sees."""
    project = services.project
    with steps.step("prometheus reads the server's numbers, and no rule fails"):
        project.up("prometheus")
        (container,) = project.ids("prometheus")
        address = f"http://127.0.0.1:{project.port(container, 9090)}/api/v1"
        until("a target that is up", lambda: _up(address), HEALTHY_WITHIN_S)
        until("rules that were reckoned", lambda: all(map(_reckoned, _rules(address))), HEALTHY_WITHIN_S)
        rules = _rules(address)
        wrong = [rule["name"] for rule in rules if rule["health"] != "ok"]
        expect(not wrong, "rules that can be reckoned", wrong)
        paging = [rule["name"] for rule in rules if rule["labels"]["severity"] == "page" and rule["state"] == "firing"]
        expect(not paging, "nothing to be woken for", paging)
        steps.note(f"{len(rules)} alert rules")


def inspected(services: Services, steps: Steps) -> None:
    """Look at the inspector as a browser would, and at a script that the image was built with."""
    with steps.step("the inspector shows the sessions"):
        address = f"http://127.0.0.1:{services.project.port(services.memsvc, 7601)}"
        page = _read(f"{address}/sessions")
        expect("shared" in page, "a page that names the session", page[:200])
        expect(len(_read(f"{address}/vendor/htmx.js")) > 1000, "a script", "none")


def _read(address: str) -> str:
    with urllib.request.urlopen(address, timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def _get(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=10) as answer:
        return json.loads(answer.read())["data"]


def _up(address: str) -> bool:
    try:
        return bool(_get(f"{address}/query?query=memsvc_ready")["result"])
    except OSError:
        # It does not listen yet.
        return False


def _rules(address: str) -> list[dict[str, Any]]:
    return [rule for group in _get(f"{address}/rules")["groups"] for rule in group["rules"]]


def _reckoned(rule: dict[str, Any]) -> bool:
    return bool(rule["health"] != "unknown")
