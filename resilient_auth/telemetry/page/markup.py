"""Pieces of HTML. What is text is escaped here, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from ...errors import printable

__all__ = ["Html", "details", "element", "listed", "table"]


class Html(str):
    """Markup of ours, in which all text is escaped already."""

    __slots__ = ()


def _html(value: object) -> str:
    return value if isinstance(value, Html) else _text(str(value))


def _text(value: str) -> str:
    # What can't be printed, such as a mark that turns the direction of writing, shows what it is.
    return escape(printable(value))


def element(name: str, *inner: object, kind: str = "", **attributes: str) -> Html:
    """Return an element with what is in it: text, or markup of ours.

    Args:
        name: Its name.
        inner: What is in it.
        kind: Its class.
        attributes: The others; an underscore stands for a hyphen.
    """
    given = ({"class": kind} if kind else {}) | attributes
    written = "".join(f' {key.replace("_", "-")}="{_text(value)}"' for key, value in given.items())
    return Html(f"<{name}{written}>{''.join(map(_html, inner))}</{name}>")


def listed(items: Iterable[object], *, name: str = "ul") -> Html:
    """Return a list, without items nothing."""
    inner = [element("li", item) for item in items]
    return element(name, *inner) if inner else Html("")


def table(caption: str, columns: Sequence[object], rows: Iterable[Sequence[object]]) -> Html:
    """Return a table that can be scrolled by keyboard; its first column names the rows.

    Args:
        caption: What it tells, for those who hear it.
        columns: Their names.
        rows: Text or markup of ours.
    """
    head = element("tr", *(element("th", column, scope="col") for column in columns))
    body = [
        element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:])) for row in rows
    ]
    named = element("caption", caption, kind="heard")
    inner = element("table", named, element("thead", head), element("tbody", *body))
    return element("div", inner, kind="scroll", tabindex="0", role="region", aria_label=caption)


def details(name: str, summary: str, *inner: object) -> Html:
    """Return what is shown on demand; `name` is its id, by which it stays open when its section is renewed."""
    return element("details", element("summary", summary), *inner, id=name)
