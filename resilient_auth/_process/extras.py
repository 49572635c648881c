"""What is said when the package that an extra brings isn't installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

__all__ = ["MODULES", "MissingExtra", "install", "raise_missing"]

#: The modules that each extra brings, of which one that can't be imported means that the extra isn't installed. The
#: extra `azure` is needed by its policies alone: without azure-core there are classes of the shape of its tokens.
MODULES: Mapping[str, frozenset[str]] = {
    "aiohttp": frozenset({"aiohttp"}),
    "anthropic": frozenset({"anthropic"}),
    "azure": frozenset({"azure"}),
    "django": frozenset({"asgiref", "django"}),
    "drf": frozenset({"asgiref", "django", "rest_framework"}),
    "emulator": frozenset({"h11", "rich", "trustme"}),
    "fastapi": frozenset({"fastapi", "starlette"}),
    "flask": frozenset({"flask", "werkzeug"}),
    "httpx2": frozenset({"httpx2"}),
    "kiota": frozenset({"kiota_abstractions"}),
    "otel": frozenset({"opentelemetry"}),
    "prometheus": frozenset({"prometheus_client"}),
    "psycopg": frozenset({"psycopg"}),
    "redis": frozenset({"redis"}),
    "redis_entraid": frozenset({"redis", "redis_entraid"}),
    "sqlalchemy": frozenset({"sqlalchemy"}),
}


class MissingExtra(ModuleNotFoundError):
    """Say which extra to install."""


def install(what: str, module: str | None, extra: str) -> str:
    """Return the sentence that names the extra to install."""
    return f"{what} needs {module}, which isn't installed: pip install 'resilient-auth[{extra}]'"


def raise_missing(what: str, extra: str, error: ImportError) -> NoReturn:
    """Raise an error that names the extra to install; the same again, if it isn't the extra that is missing.

    Args:
        what: What can't be used, as its user knows it.
        extra: The extra that it needs.
        error: The failed import.

    Raises:
        MissingExtra: A module that the extra brings isn't there.
    """
    if isinstance(error, ModuleNotFoundError) and str(error.name).partition(".")[0] in MODULES[extra]:
        raise MissingExtra(install(what, error.name, extra), name=error.name) from error
    raise error
