"""Several threads that fork at the same time, as with `subprocess.Popen(preexec_fn=...)`, amid changes of a cache."""

from __future__ import annotations

import faulthandler
import os
import subprocess
import threading

import resilient_auth as ra
from resilient_auth import msal

faulthandler.dump_traceback_later(50, exit=True)
app = msal.ConfidentialClientApplication(
    "daemon", "s3cret", authority="https://localhost:9/contoso", instance_discovery=False, resilience=ra.Settings()
)
over, forks = threading.Event(), []


def change() -> None:
    while not over.is_set():
        for entry in ({"home_account_id": str(n), "environment": "e", "realm": "r"} for n in range(20)):
            app.token_cache.modify("Account", entry, entry)
            app.token_cache.modify("Account", entry)


def fork() -> None:
    for _ in range(120):
        subprocess.Popen(["true"], preexec_fn=lambda: None).wait()
        forks.append(None)


changing = threading.Thread(target=change)
changing.start()
threads = [threading.Thread(target=fork) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
over.set()
changing.join()
print(len(forks), "forks", flush=True)
os._exit(0)
