"""`health()` in a signal's handler, which interrupts the main thread inside each of the package's locked regions."""

from __future__ import annotations

import faulthandler
import os
import signal
import ssl
import sys
import threading

import watched_locks

import resilient_auth as ra
from resilient_auth import msal
from resilient_auth.emulator.provider.realms import tenant_id

faulthandler.dump_traceback_later(50, exit=True)
url, api_url, ca_file, directory = sys.argv[1:]
looked = 0


def look(*_: object) -> None:
    global looked
    me = threading.get_ident()
    watched_locks.forbidden.add(me)
    try:
        assert ra.health().verdict
    finally:
        watched_locks.forbidden.discard(me)
    looked += 1


def interrupt() -> None:
    if threading.current_thread() is threading.main_thread():
        signal.raise_signal(signal.SIGUSR1)


signal.signal(signal.SIGUSR1, look)
store = ra.FileStore(f"{directory}/tokens", key=bytes(range(32)))
app = msal.ConfidentialClientApplication(
    "daemon",
    "s3cret-of-the-daemon",
    authority=f"{url}/contoso",
    instance_discovery=False,
    verify=ca_file,
    resilience=ra.Settings(store=store),
)
trust = ssl.create_default_context(cafile=ca_file)
api = ra.api_client(api_url, ra.ResilientCredential(app), "api://orders/.default", verify=trust)
verifier = ra.ClaimsVerifier.for_entra(tenant_id("contoso"), "api://orders", authority=url, verify=ca_file)
watched_locks.amid = interrupt
token = app.acquire_token_for_client(["api://orders/.default"])["access_token"]
assert api.get("/a").status_code == 200
assert verifier.verify(token)
app.remove_tokens_for_client()
app.keep_fresh(["api://pinned/.default"])
store.close()
app.close()
watched_locks.amid = None
print(looked > 20, *watched_locks.violations or ["none"], flush=True)
os._exit(0)
