"""A sample application that is loaded before its server forks: Flask for gunicorn and uWSGI, tasks for Celery."""

from __future__ import annotations

import os
from typing import Any

import resilient_auth as ra
from resilient_auth import msal

app_at_provider = msal.ConfidentialClientApplication(
    "daemon",
    "s3cret-of-the-daemon",
    authority=os.environ["SERVED_AUTHORITY"],
    instance_discovery=False,
    verify=os.environ["SERVED_CA_FILE"],
)
SCOPE = ["api://orders/.default"]
# The parent has held tokens, started threads and opened connections before it forks.
app_at_provider.keep_fresh(SCOPE)
app_at_provider.acquire_token_for_client(SCOPE)


def look(scope: list[str] | None = None) -> dict[str, Any]:
    """Return which token this process has, and how it stands."""
    token = app_at_provider.acquire_token_for_client(scope or SCOPE)["access_token"]
    return {"process": os.getpid(), "token": token[-12:], "verdict": ra.health().verdict}


def web() -> Any:
    """Make the WSGI application."""
    from flask import Flask, jsonify, request

    made = Flask("served")
    made.add_url_rule("/", view_func=lambda: jsonify(look(request.args.getlist("scope"))), endpoint="look")
    return made


def tasks() -> Any:
    """Make the Celery application, whose broker is a directory."""
    from celery import Celery

    folder = os.environ["SERVED_FOLDER"]
    made = Celery("served", broker="filesystem://", backend=f"file://{folder}/results")
    made.conf.update(
        broker_transport_options={
            "data_folder_in": f"{folder}/queue",
            "data_folder_out": f"{folder}/queue",
            "control_folder": f"{folder}/control",
        },
        worker_hijack_root_logger=False,
    )
    made.task(look, name="look")
    return made


if "SERVED_FOLDER" in os.environ:
    celery_app = tasks()
else:
    application = web()
