"""An application that is drilled in the SDK's place: found by its name, given a provider, and asked for a request."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from ...errors import printable
from . import Refused

__all__ = ["Provider", "build", "check", "token_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """The provider that an application is drilled with.

    Attributes:
        authority: Its authority, for an MSAL application.
        ca_file: Whom to trust: for `verify=`.
        client_id, client_credential: The application's; the emulator takes any.
        scopes: What to ask for.
        api_url: A protected API that works throughout, under `/api/`: it takes the provider's valid tokens alone.
    """

    authority: str
    ca_file: str
    client_id: str
    client_credential: str
    scopes: tuple[str, ...]
    api_url: str


def check(name: str) -> None:
    """Check that `name` is of the form `module:callable`, and that there is such a module, which isn't imported.

    Raises:
        ValueError: It isn't, or there is none.
    """
    module, colon, function = name.partition(":")
    parts = (*module.split("."), *function.split("."))
    if not colon or not all(part.isidentifier() for part in parts):
        raise ValueError(f"--app must be module:callable, such as shop.rehearsal:build, not {name!r}")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` has it, by which the client's process is started
    try:
        found = find_spec(module)
    except ImportError:
        found = None
    if found is None:
        raise ValueError(f"--app: there is no module {module} in this folder or on PYTHONPATH")


def build(name: str, provider: Provider) -> Callable[[], Any]:
    """Have an application made for a provider.

    Args:
        name: Where its builder is, as `module:callable`.
        provider: What it is given.

    Returns:
        What makes one request, and returns what `token_of` finds a token in.

    Raises:
        Refused: There is no such builder, or it doesn't return a function.
    """
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise Refused(f"{name} isn't a function")
    request = found(provider)
    if not callable(request):
        raise Refused(f"{name} must return a function that makes one request, not {type(request).__name__}")
    if not inspect.iscoroutinefunction(request):
        return request  # type: ignore[no-any-return]
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return lambda: asyncio.run_coroutine_threadsafe(request(), loop).result()


def token_of(result: object) -> tuple[str | None, str | None]:
    """Return the access token that a request was made with, and what went wrong where there is none.

    Args:
        result: The token itself, MSAL's result, a credential's token, or the answer of an API that the token went to.
    """
    if isinstance(result, str):
        return result, None
    if isinstance(result, Mapping):
        token = result.get("access_token")
        return (token, None) if isinstance(token, str) else (None, _error(result))
    token = getattr(result, "token", None)
    if isinstance(token, str):
        return token, None
    status = getattr(result, "status_code", getattr(result, "status", None))
    if isinstance(status, int) and status >= 400:
        return None, f"status {status}"
    asked = getattr(result, "request", getattr(result, "request_info", None))
    scheme, _, token = str(getattr(asked, "headers", {}).get("Authorization", "")).partition(" ")
    return (token, None) if scheme.lower() == "bearer" and token else (None, f"no token in {type(result).__name__}")


def _error(result: Mapping[Any, Any]) -> str:
    error = result.get("error")
    return printable(str(error))[:60] if error else "no token in a dict"
