"""A body that comes slowly, or can't be read for long, costs the caller no more than the deadline, under ASGI."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from provider_requests import event
from test_strangers_and_bad_input import BASIC, basic

from resilient_auth.callouts import Callout, Continue, TokenIssuanceStart

AUTHORIZED = basic("entra", "a password, in tests")


def made() -> Callout[TokenIssuanceStart]:
    return Callout(
        TokenIssuanceStart,
        lambda request: Continue({"by": "handler"}),
        caller=BASIC,
        default=Continue({"by": "default"}),
        timeout=1.0,
        deadline=0.4,
    )


def test_in_asgi_a_trickled_body_is_answered_for_in_time() -> None:
    from starlette.applications import Starlette

    from resilient_auth.integrations.fastapi import mount_callout

    app = Starlette()
    mount_callout(app, "/callouts/token", made())
    sent: list[Any] = []
    text = iter(json.dumps(event()).encode())

    async def receive() -> Any:
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": bytes([next(text)]), "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/callouts/token",
        "raw_path": b"/callouts/token",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"authorization", AUTHORIZED.encode()), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("localhost", 80),
        "scheme": "http",
        "http_version": "1.1",
        "asgi": {"version": "3.0"},
    }
    began = time.monotonic()
    asyncio.run(asyncio.wait_for(app(scope, receive, send), 5.0))
    assert time.monotonic() - began < 2.0
    assert b'"by":"default"' in sent[1]["body"]


def test_in_djangos_asgi_no_other_code_that_holds_all_threads_holds_up_the_answer() -> None:
    """The event loop's own threads, that is, on which the application has whatever it likes wait."""
    import sys
    from pathlib import Path

    sys.path.append(str(Path(__file__).parents[1] / "integrations"))
    import django_site
    from django.test import AsyncRequestFactory

    from resilient_auth.integrations.django import mount_callout

    patterns: list[Any] = []
    mount_callout(patterns, "/callouts/token", made(), asynchronous=True)
    hung = threading.Event()

    async def ask() -> Any:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        loop.run_in_executor(None, hung.wait, 5.0)
        request = AsyncRequestFactory().post(
            "/callouts/token",
            json.dumps(event()),
            content_type="application/json",
            headers={"Authorization": AUTHORIZED},
        )
        began = time.monotonic()
        answer = await patterns[0].callback(request)
        took = time.monotonic() - began
        hung.set()
        return answer, took

    with django_site.site(patterns):
        answer, took = asyncio.run(ask())
    assert took < 2.0
    assert b'"by":' in answer.content
