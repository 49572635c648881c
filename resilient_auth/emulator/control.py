"""The emulator's commands over HTTP and JSON, for programs in other processes; never failed, never in the ledger.

For programs alone: a page in a browser on this machine must be able to command nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from .commanded import Commanded
from .faults import Fault
from .wire.messages import Request, Response, json_response

_LOCAL_HOSTS: Final = ("127.0.0.1", "localhost")

Command = Callable[[dict[str, Any]], Any]


class Control:
    """Maps paths to the emulator's methods."""

    def __init__(self, emulator: Commanded) -> None:
        self._emulator = emulator
        self._reads: dict[str, Callable[[], Any]] = {
            "/state": emulator.state,
            "/ledger": self._ledger,
            "/called": self._called,
            "/deliveries": lambda: [asdict(delivery) for delivery in emulator.deliveries],
        }
        self._commands: dict[str, Command] = {
            "/call_out": self._call_out,
            "/fail": self._fail,
            "/schedule": self._schedule,
            "/heal": lambda body: emulator.heal(body.get("endpoint")),
            "/deny": lambda body: emulator.deny(**body),
            "/allow": lambda body: emulator.allow(body.get("grant")),
            "/roll_keys": lambda body: {"kid": emulator.roll_keys()},
            "/drop_old_keys": lambda body: emulator.drop_old_keys(),
            "/revoke": lambda body: emulator.revoke(
                body["subject"], refresh_tokens=bool(body.get("refresh_tokens", False))
            ),
            "/add_user": self._add_user,
            "/approve_device": lambda body: emulator.approve_device(body["user_code"], body["username"]),
            "/register_sign_out": lambda body: emulator.register_sign_out(**body),
            "/end_sessions": lambda body: emulator.end_sessions(body["username"]),
            "/transmit": self._transmit,
            "/set": emulator.change,
            "/clear": lambda body: emulator.ledger.clear(),
        }

    @staticmethod
    def endpoint_of(request: Request) -> str:
        """Return the path, which is the command."""
        return request.path

    def respond(self, request: Request) -> Response:
        """Carry out a command and answer what came of it."""
        # A page in a browser can reach loopback by a name of its own; it can't forge the Host header.
        if request.host.partition(":")[0] not in _LOCAL_HOSTS:
            return json_response({"error": "this port answers to loopback names only"}, 403)
        if request.headers.get("origin", f"http://{request.host}").lower() != f"http://{request.host}":
            return json_response({"error": "this port takes nothing from pages of other origins"}, 403)
        read, command = self._reads.get(request.path), self._commands.get(request.path)
        if read is None and command is None:
            return json_response({"error": f"unknown command: use one of {self._paths()}"}, 404)
        if read is not None:
            return json_response(read()) if request.method == "GET" else _not_allowed("GET")
        if command is None or request.method != "POST":
            return _not_allowed("POST")
        # Without asking first, a page can send forms and plain text anywhere, but no JSON (Fetch, safelisted headers).
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return json_response({"error": "send Content-Type: application/json, with an empty body too"}, 415)
        try:
            body = json.loads(request.body or b"{}")
            if not isinstance(body, dict):
                return json_response({"error": "the body must be a JSON object"}, 400)
            outcome = command(body)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return json_response({"error": f"{type(error).__name__}: {error}"}, 400)
        return json_response({"ok": True} | (outcome or {}))

    def _call_out(self, body: dict[str, Any]) -> None:
        """Begin a call; what comes of it is in `/called`, since the API may ask this very emulator for keys."""
        options = dict(body)
        if isinstance(options.get("basic"), list):
            options["basic"] = tuple(options["basic"])
        if isinstance(options.get("encrypt_for"), str):
            options["encrypt_for"] = options["encrypt_for"].encode()
        self._emulator.begin_call_out(options.pop("url"), **options)

    def _called(self) -> dict[str, Any]:
        return {"called": [asdict(one) | {"code": one.code, "says": dict(one.says)} for one in self._emulator.called]}

    def _fail(self, body: dict[str, Any]) -> None:
        options = {name: body[name] for name in ("count", "seconds", "probability", "match") if name in body}
        fault = Fault.parse(body["fault"], **body.get("options", {}))
        self._emulator.fail(fault, body.get("endpoint", "*"), **options)

    def _schedule(self, body: dict[str, Any]) -> None:
        self._emulator.schedule(
            (float(entry["start"]), float(entry["stop"]), Fault.parse(entry["fault"]), entry.get("endpoint", "*"))
            for entry in body["plan"]
        )

    def _add_user(self, body: dict[str, Any]) -> dict[str, Any]:
        user = self._emulator.add_user(body["username"], body.get("password", "pw"), body.get("oid"))
        return {"oid": user.oid}

    def _transmit(self, body: dict[str, Any]) -> None:
        """Push an event; `/deliveries` tells what came of it: the receiver may have to ask this provider first."""
        token = self._emulator.event_token(body["claims"], body.get("header"), forge=body.get("forge"))
        options = {name: body[name] for name in ("bearer", "content_type", "ca_file") if name in body}
        self._emulator.transmit_soon(body["url"], token, **options)

    def _ledger(self) -> dict[str, Any]:
        ledger = self._emulator.ledger
        return {
            "calls": [asdict(call) for call in ledger.calls],
            "tokens": [asdict(token) | {"revoked": ledger.is_revoked(token)} for token in ledger.tokens],
        }

    def _paths(self) -> str:
        return ", ".join((*self._reads, *self._commands))


def _not_allowed(method: str) -> Response:
    return json_response({"error": f"use {method}"}, 405, (("Allow", method),))
