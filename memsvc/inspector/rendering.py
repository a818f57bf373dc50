"""Templates, and what they may call.

Must not know: sessions, the protocol.
"""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from memsvc.inspector import assets, drawing, words


class Templates:
    """The pages' templates.

    Args:
        missing: Assets that are not there; pages say so in one line.
        with_login: Whether there is anything to log out of.
    """

    def __init__(self, missing: list[str], *, with_login: bool) -> None:
        self._missing = missing
        self._with_login = with_login
        # Everything that is not a template of ours is escaped.
        self._own = Environment(
            loader=PackageLoader("memsvc.inspector"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        for made in (words.shown, words.count, words.short, words.size, words.moment, words.path):
            self._own.filters[made.__name__] = made
        self._own.globals.update(drawing=drawing, runs=words.runs)
        self._own.globals["parts"] = self._own.get_template("parts.html").module

    def page(self, template: str, path: str, view: object, status: int = 200) -> Response:
        """A page of a view; `path` is its own."""
        lacking = ""
        if self._missing:
            lacking = f"expected {', '.join(self._missing)} in vendor/, got none: run {assets.COMMAND}"
        values: dict[str, Any] = {"view": view, "url": path, "lacking": lacking, "with_login": self._with_login}
        if (session := getattr(view, "session", None)) is not None:
            values.update(session=session, at=f"/sessions/{words.path(session.name)}")
        return HTMLResponse(self._own.get_template(template).render(values), status)
