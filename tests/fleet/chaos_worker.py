"""One process of the chaos: carries out what it is told in a thread for each order, and may die at any moment."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import threading
import time
import traceback
from typing import Any

for _name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
    os.environ.pop(_name, None)

import resilient_auth as ra  # noqa: E402 - after the environment is cleaned
from resilient_auth import msal  # noqa: E402

OWN_SCOPE = ["https://graph.microsoft.com/.default"]
_out = threading.Lock()


def _say(answer: dict[str, Any]) -> None:
    with _out:
        print(json.dumps(answer), flush=True)


class Process:
    """An application, and what it is asked to do."""

    def __init__(self, where: dict[str, Any]) -> None:
        key = bytes.fromhex(where["key"])
        store = ra.RedisStore(where["redis"], key=key) if "redis" in where else ra.FileStore(where["file"], key=key)
        self.app = msal.ConfidentialClientApplication(
            "daemon",
            client_credential="s3cret-of-the-daemon",
            authority=where["authority"],
            instance_discovery=False,
            verify=where["ca_file"],
            resilience=ra.Settings(
                store=store,
                freshness=ra.FreshnessOptions(expiry_margin=1.0, due_jitter=0.0),
                breaker=ra.BreakerOptions(first_break=5.0, longest_break=5.5, urgent_break=(5.0, 5.5)),
                attempt_timeout=2.0,
                connect_timeout=1.0,
                discovery_wait=1.0,
            ),
        )

    def sign_in(self, code: str, back: str, scopes: list[str]) -> dict[str, Any]:
        """Redeem a code."""
        result = self.app.acquire_token_by_authorization_code(code, scopes, redirect_uri=back)
        subject = self._shown(result).get("of")
        accounts = [a for a in self.app.get_accounts() if a["local_account_id"] == subject]
        return self._shown(result) | {"account": accounts[0] if accounts else None}

    def ask(self, account: dict[str, Any], scopes: list[str], *, force: bool, by_name: bool) -> dict[str, Any]:
        """Get a user's token without interaction."""
        if by_name:
            found = self.app.get_accounts(account["username"])
            if not found:
                return {"accounts": 0}
            account = found[0]
        return self._shown(self.app.acquire_token_silent(scopes, account, force_refresh=force))

    def ask_own(self) -> dict[str, Any]:
        """Get the application's own token."""
        return self._shown(self.app.acquire_token_for_client(OWN_SCOPE))

    def sign_out(self, account: dict[str, Any]) -> dict[str, Any]:
        """Remove an account."""
        self.app.remove_account(account)
        return {}

    def settle(self, seconds: float) -> dict[str, Any]:
        """Wait until all is written."""
        ends = time.monotonic() + seconds
        while not self._settled() and time.monotonic() < ends:
            time.sleep(0.05)
        return {}

    def _settled(self) -> bool:
        shelf = self.app._ra_session.memory.shelf
        return bool(shelf.settled)

    def _shown(self, result: Any) -> dict[str, Any]:
        if result is None or "access_token" not in result:
            return {"denied": None if result is None else str(result.get("error_description"))}
        return {"token": result["access_token"], "of": _claim(result["access_token"], "oid"),
                "app": _claim(result["access_token"], "azp", "appid"), "source": result["token_source"]}  # fmt: skip

    def known(self) -> dict[str, Any]:
        """Tell which refresh tokens it holds, and whether the store has them too."""
        cache = self.app.token_cache
        held = [hashlib.sha256(e["secret"].encode()).hexdigest() for e in list(cache.search("RefreshToken"))]
        time.sleep(0.002)  # a change is noted right after it was made
        return {"held": held, "settled": self._settled(), "stores": [str(store) for store in ra.health().stores]}

    def obey(self, order: dict[str, Any]) -> None:
        """Carry one order out, and tell how that went."""
        number, do, wait = order.pop("number"), order.pop("do"), order.pop("wait")
        try:
            with ra.wait_at_most(wait):
                said = getattr(self, do)(**order)
        except ra.ProviderUnavailable as error:
            said = {"failed": type(error).__name__, "detail": str(error)}
        except BaseException:
            said = {"crashed": traceback.format_exc()}
        _say({"number": number} | said | self.known())


def _claim(token: str, *names: str) -> str | None:
    part = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return next((claims[name] for name in names if name in claims), None)


def main() -> None:
    try:
        process = Process(json.loads(sys.argv[1]))
    except BaseException:
        _say({"number": 0, "crashed": traceback.format_exc()})
        raise
    _say({"number": 0} | process.known())
    for line in sys.stdin:
        threading.Thread(target=process.obey, args=(json.loads(line),), daemon=True).start()


main()
