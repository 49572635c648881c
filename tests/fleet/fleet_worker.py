"""One process of a fleet: told on its standard input what to do, it says how it went."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any

for _name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
    os.environ.pop(_name, None)

import resilient_auth as ra  # noqa: E402 - after the environment is cleaned
from resilient_auth import msal  # noqa: E402
from resilient_auth.token import fingerprint  # noqa: E402

SCOPE = ["https://graph.microsoft.com/.default"]


def _ask(app: Any, wait: float) -> dict[str, Any]:
    begun = time.perf_counter()
    try:
        with ra.wait_at_most(wait):
            result = app.acquire_token_for_client(SCOPE)
        said = {"token": fingerprint(result["access_token"]), "source": result["token_source"]}
    except Exception as error:
        said = {"error": type(error).__name__, "detail": str(error)}
    return said | {"took": time.perf_counter() - begun}


def _ask_together(app: Any, threads: int, wait: float) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = []
    barrier = threading.Barrier(threads)

    def work() -> None:
        barrier.wait()
        answers.append(_ask(app, wait))

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return answers


def main() -> None:
    where = json.loads(sys.argv[1])
    key = bytes.fromhex(where["key"])
    store = ra.RedisStore(where["redis"], key=key) if "redis" in where else ra.FileStore(where["file"], key=key)
    app: Any = None
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "build":
            app = msal.ConfidentialClientApplication(
                "daemon",
                client_credential="s3cret-of-the-daemon",
                authority=where["authority"],
                instance_discovery=False,
                verify=where["ca_file"],
                resilience=ra.Settings(store=store, **order["settings"]),
            )
            print(json.dumps("built"), flush=True)
        else:
            print(json.dumps(_ask_together(app, order["threads"], order["wait"])), flush=True)


main()
