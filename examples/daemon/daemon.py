"""A daemon that signs in with a certificate and keeps its token fresh ahead of need.

It reads its configuration from the environment (see README.md) and runs until SIGTERM or Ctrl+C.
"""

import logging
import os
import signal
import sys
import threading
from collections import Counter

import requests
import resilient_auth as ra
from resilient_auth import msal

INTERVAL = 0.5  # seconds between two requests
log = logging.getLogger("daemon")


def make_app(scope: str) -> msal.ConfidentialClientApplication:
    # Followed while the daemon runs: a new certificate is tried before the old one is dropped.
    credential = ra.CertificateFile(os.environ["CERTIFICATE_FILE"], private_key=os.environ["KEY_FILE"])
    # One fixed set of scopes, pinned: its token is had now and refreshed ahead, with or without requests.
    settings = ra.Settings(keep_fresh=((scope,),))
    return msal.ConfidentialClientApplication(
        os.environ["CLIENT_ID"],
        authority=os.environ["AUTHORITY"],
        client_credential=credential,
        resilience=settings,
    )


def call_api(app: msal.ConfidentialClientApplication, scope: str, api_url: str) -> str:
    try:
        result = app.acquire_token_for_client([scope])
    except ra.ProviderUnavailable as error:
        # Nothing valid is left to serve. The message says what happened; retry_after, when to ask again.
        return f"failed, no token: {error}"
    if "access_token" not in result:
        return f"failed, denied: {result['error']!r}: {result.get('error_description')!r}"
    headers = {"Authorization": f"Bearer {result['access_token']}"}
    try:
        response = requests.get(api_url, headers=headers, timeout=5)
    except requests.RequestException as error:
        return f"failed at the API: {type(error).__name__}"
    if not response.ok:
        return f"failed at the API: status {response.status_code}"
    why = result.get("resilience", {}).get("reason")
    return f"served, while the token is due ({why})" if why else "served"


def describe_health() -> str:
    health = ra.health()
    left = "nothing held" if health.time_to_dark is None else f"{health.time_to_dark:.0f} s to dark"
    troubled = [f"{b.name} is {b.state} ({b.last_code})" for b in health.breakers if b.state != "closed"]
    return ", ".join([health.verdict, left, *troubled])


def main() -> int:
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s", stream=sys.stdout)
    logging.getLogger("daemon").setLevel(logging.INFO)
    # The package tells its events to its logger too; this is what it says of the outage.
    logging.getLogger("resilient_auth").setLevel(logging.INFO)
    events: Counter[str] = Counter()
    ra.subscribe(lambda event: events.update([type(event).__name__]))
    stopping = threading.Event()
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, lambda *_: stopping.set())

    scope, api_url = os.environ["SCOPE"], os.environ["API_URL"]
    number = 0
    with make_app(scope) as app:
        while not stopping.wait(INTERVAL):
            number += 1
            log.info("request %d: %s", number, call_api(app, scope, api_url))
            if number % 8 == 0:
                log.info("health: %s", describe_health())
    log.info("stopped after %d requests; events: %s", number, dict(events))
    return 0


if __name__ == "__main__":
    sys.exit(main())
