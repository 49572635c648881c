"""The pages that sign-in shows by itself: small, without a script, and without a request to anybody."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Final, Literal

from .messages import Answer, Arrival

__all__ = ["HEADERS", "Choice", "Field", "Page", "PageKind", "answer_of"]

PageKind = Literal[
    "unavailable",
    "store_unavailable",
    "sign_in_needed",
    "refused",
    "cancelled",
    "forbidden",
    "code_wanted",
    "code_sent",
    "sign_out",
    "signed_out",
]
_log = logging.getLogger("resilient_auth")

#: Of every answer that is about who is signed in.
HEADERS: Final = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    # Not `no-referrer`: browsers would hide their origin from our own forms, by which these are told from others'.
    ("Referrer-Policy", "same-origin"),
)
_STYLE: Final = (
    "body{font:1.1rem/1.5 system-ui,sans-serif;color:#1a1a1a;background:#fff;margin:0}"
    "main{max-width:34rem;margin:12vh auto;padding:0 1.25rem}h1{font-size:1.6rem;line-height:1.25}"
    "a,button{font:inherit;color:#0b4f9e}button,.b{display:inline-block;margin:.35rem .5rem .35rem 0;"
    "padding:.55rem 1rem;border:1px solid #0b4f9e;border-radius:.35rem;background:#fff;"
    "text-decoration:none;cursor:pointer}"
    "input{font:inherit;display:block;width:100%;max-width:22rem;box-sizing:border-box;padding:.5rem;"
    "margin:.3rem 0 .8rem;border:1px solid #555;border-radius:.35rem}"
    ":focus-visible{outline:3px solid #0b4f9e;outline-offset:2px}"
    "@media(prefers-color-scheme:dark){body{color:#eee;background:#161616}a,button,.b{color:#9cc8ff}"
    "button,.b{background:#161616;border-color:#9cc8ff}input{color:#eee;background:#222;border-color:#aaa}"
    ":focus-visible{outline-color:#9cc8ff}}"
)
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_CSP: Final = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'; style-src "
#: What an owner's page may load: what is the application's own.
_OWNERS_CSP: Final = "default-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"


@dataclass(frozen=True, slots=True)
class Field:
    """What a person is asked for, or, of the type `hidden`, what is sent along."""

    name: str
    label: str = ""
    type: str = "hidden"
    value: str = ""
    autocomplete: str = "off"


@dataclass(frozen=True, slots=True)
class Choice:
    """What a person may do.

    Args:
        kind: Stable, for an owner's words: `retry`, `sign_in`, `other_provider`, `code`, `guest`, `send_code`, `home`,
            `sign_out`.
        label: In ours.
        action: The address.
        fields: A form's, which is posted; None for a link.
    """

    kind: str
    label: str
    action: str
    fields: tuple[Field, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page, for an owner's `render` to write in other words.

    Args:
        kind: What it is.
        status: The HTTP status.
        title: In ours.
        text: In ours.
        code: A stable code of why.
        retry_after: Seconds after which to try again, where that makes sense.
        choices: What the person may do.
        languages: The browser's `Accept-Language`.
        leads_to: Origins to which a form of it may lead in the end: browsers hold its answer to that too.
    """

    kind: PageKind
    status: int
    title: str
    text: str
    code: str = ""
    retry_after: int | None = None
    choices: tuple[Choice, ...] = ()
    languages: str = ""
    leads_to: tuple[str, ...] = ()


def answer_of(arrival: Arrival, page: Page, render: Callable[[Page], str | None] | None = None) -> Answer:
    """Return a page as an answer; JSON to who wants no page."""
    headers: tuple[tuple[str, str], ...] = HEADERS
    if page.retry_after is not None:
        headers += (("Retry-After", str(page.retry_after)),)
    if "text/html" not in arrival.header("accept") and not arrival.is_page:
        told = {"code": page.code or page.kind, "message": page.text}
        return Answer(page.status, json.dumps({"detail": told}), (("Content-Type", "application/json"), *headers))
    html = None
    if render is not None:
        try:
            html = render(page)
        except Exception as error:  # noqa: BLE001 - the owner's code, and a person waits
            _log.error("render failed with %s; our own page is shown", type(error).__name__)
    csp = _OWNERS_CSP if isinstance(html, str) else f"{_CSP}'sha256-{_STYLE_HASH}'"
    csp = csp.replace("form-action 'self'", " ".join(("form-action 'self'", *page.leads_to)))
    body = html if isinstance(html, str) else _written(page)
    return Answer(
        page.status, body, (("Content-Type", "text/html; charset=utf-8"), ("Content-Security-Policy", csp), *headers)
    )


def whole(seconds: float | None) -> int:
    """Return seconds as `Retry-After` has them."""
    return max(1, math.ceil(30.0 if seconds is None else min(seconds, 86_400.0)))


def _written(page: Page) -> str:
    choices = "".join(_choice(choice) for choice in page.choices)
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(page.title)}</title><style>{_STYLE}</style></head>"
        f"<body><main><h1>{escape(page.title)}</h1><p>{escape(page.text)}</p>{choices}</main></body></html>"
    )


def _choice(choice: Choice) -> str:
    action, label = escape(choice.action), escape(choice.label)
    if choice.fields is None:
        return f'<a class="b" href="{action}">{label}</a>'
    fields = "".join(_field(field) for field in choice.fields)
    return f'<form method="post" action="{action}">{fields}<button>{label}</button></form>'


def _field(field: Field) -> str:
    shared = f'name="{escape(field.name)}" type="{escape(field.type)}" value="{escape(field.value)}"'
    if field.type == "hidden":
        return f"<input {shared}>"
    name = f"f-{escape(field.name)}"
    mode = ' inputmode="numeric"' if field.autocomplete == "one-time-code" else ""
    return (
        f'<label for="{name}">{escape(field.label)}</label>'
        f'<input id="{name}" {shared} required autocomplete="{escape(field.autocomplete)}"{mode}>'
    )
