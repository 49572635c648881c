"""One worker of a fleet: its tokens are shared with the others through Redis or Valkey, and outlive it.

It reads its configuration from the environment (see README.md) and runs until its input ends.
"""

import os
import sys
import threading
from collections import Counter

import resilient_auth as ra
from resilient_auth import msal

INTERVAL = 0.25  # seconds between two requests


def say(text: str) -> None:
    # In one piece: several threads have something to say.
    sys.stdout.write(f"{os.environ['WORKER']} {text}\n")
    sys.stdout.flush()


def make_app() -> msal.ConfidentialClientApplication:
    # The same store, the same key and the same client id in every worker: that makes a fleet of them.
    store = ra.RedisStore(os.environ["STORE_URL"], ra.EnvironmentKey("STORE_KEY"))
    return msal.ConfidentialClientApplication(
        os.environ["CLIENT_ID"],
        authority=os.environ["AUTHORITY"],
        client_credential=os.environ["CLIENT_SECRET"],
        resilience=ra.Settings(store=store),
    )


def stop_when_told(stopping: threading.Event) -> None:
    """Wait for the end of what comes in."""
    sys.stdin.read()
    stopping.set()


def main() -> int:
    scopes = [os.environ["SCOPE"]]
    asked: Counter[str] = Counter()

    def listen(event: ra.events.Event) -> None:
        # Where a token came from: the provider was asked, or another worker had asked it.
        if isinstance(event, ra.events.TokenAcquired):
            asked[event.source] += 1
            say(f"has a token from the {event.source.replace('_', ' ')}")

    ra.subscribe(listen)
    stopping = threading.Event()
    threading.Thread(target=stop_when_told, args=(stopping,), daemon=True).start()
    with make_app() as app:
        while not stopping.wait(INTERVAL):
            try:
                result = app.acquire_token_for_client(scopes)
            except ra.ProviderUnavailable as error:
                say(f"request failed: {error}")
                continue
            reason = result.get("resilience", {}).get("reason")
            say(f"request served{f' ({reason})' if reason else ''}")
    say(f"stopped: {dict(asked)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
