"""Django's settings for all tests of this process, and sites with URLs of a test's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import django
from django.conf import settings
from django.test import override_settings

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["testserver", "127.0.0.1", "localhost"],
        SECRET_KEY="x",
        ROOT_URLCONF=__name__,
        MIDDLEWARE=[],
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "file:site?mode=memory&cache=shared"}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    )
    django.setup()

urlpatterns: list[Any] = []


@contextmanager
def site(urls: list[Any], **changed: Any) -> Iterator[ModuleType]:
    """Have Django answer these URLs; what the settings name is looked for in the module `the_site`."""
    module: Any = ModuleType("the_site")
    module.urlpatterns = urls
    around = sys.modules.get("the_site")
    sys.modules["the_site"] = module
    try:
        with override_settings(ROOT_URLCONF=module, **changed):
            yield module
    finally:
        del sys.modules["the_site"]
        if around is not None:
            sys.modules["the_site"] = around


@contextmanager
def tables() -> Iterator[None]:
    """Make the tables of users."""
    from django.contrib.auth.models import Group, Permission, User
    from django.contrib.contenttypes.models import ContentType
    from django.db import connection, connections

    models = (ContentType, Permission, Group, User)
    connection.ensure_connection()
    with connection.schema_editor() as editor:
        for model in models:
            editor.create_model(model)
    try:
        yield
    finally:
        with connection.schema_editor() as editor:
            for model in reversed(models):
                editor.delete_model(model)
        connections.close_all()
