"""A fleet that is forked, as preforking servers do it: each child has a store and an engine of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from resilient_auth.emulator import Emulator

PROGRAM = """
import os, sys, threading
import resilient_auth as ra
from resilient_auth import msal

authority, ca_file, path = sys.argv[1:]
app = msal.ConfidentialClientApplication(
    "daemon", client_credential="s3cret-of-the-daemon", authority=authority, instance_discovery=False, verify=ca_file,
    resilience=ra.Settings(store=ra.FileStore(path, key=bytes(range(32)))),
)
shared = app.acquire_token_for_client(["https://graph.microsoft.com/.default"])["access_token"]
busy = threading.Thread(target=lambda: [app.acquire_token_for_client([f"api://{n}/.default"]) for n in range(40)])
busy.start()
children = []
for child in range(4):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            same = app.acquire_token_for_client(["https://graph.microsoft.com/.default"])["access_token"] == shared
            new = app.acquire_token_for_client([f"api://of-all-children/.default"])
            status = 0 if same and "access_token" in new else 2
        finally:
            os._exit(status)
    children.append(pid)
ended = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
busy.join()
app.close()
print(ended)
"""


def test_children_share_the_store_with_their_parent(idp: Emulator, tmp_path: Path) -> None:
    """Forked in the middle of exchanges: nobody hangs, and one call gets what all children want."""
    tmp_path.chmod(0o700)
    ended = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            PROGRAM,
            idp.authority("contoso"),
            idp.ca_file,
            str(tmp_path / "tokens"),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.stdout.strip() == "[0, 0, 0, 0]", ended.stdout + ended.stderr
    assert sum(call.scope == "api://of-all-children/.default" for call in idp.ledger.token_calls()) == 1
