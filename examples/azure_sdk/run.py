"""Run read_blob.py against a provider and a blob on this machine, through an outage of the provider."""

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from blob_stub import BlobStub
from resilient_auth.emulator import Emulator, Fault

SAMPLE = Path(__file__).with_name("read_blob.py")
#: Seconds. The token lives longer than the whole run, so that a valid one is in hand all the time.
HEALTHY, OUTAGE, RECOVERY_AT_MOST = 3.0, 7.0, 14.0
TOKEN_LIFETIME, REFRESH_IN = 90.0, 2.0
FOREIGN = ("SSL_CERT_FILE", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


def environment(emulator: Emulator, blob: BlobStub, folder: Path) -> dict[str, str]:
    bundle = folder / "both.pem"
    bundle.write_text(Path(emulator.ca_file).read_text() + Path(blob.ca_file).read_text())
    kept = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    return kept | {
        "CLIENT_ID": "blob-reader",
        "CLIENT_SECRET": "a secret of the emulator",
        "AUTHORITY": "https://login.microsoftonline.com/contoso",
        "ACCOUNT_URL": blob.url,
        "CONTAINER": "container",
        "BLOB": "blob",
        # The sample doesn't know of the emulator: behind this proxy, every host is it, but for the blob's.
        "HTTPS_PROXY": emulator.proxy_url,
        "NO_PROXY": "localhost",
        "no_proxy": "localhost",
        "REQUESTS_CA_BUNDLE": str(bundle),
    }


def rehearse(emulator: Emulator) -> None:
    """Let it work, break the provider, heal it, and wait for a fresh token."""
    ends = time.monotonic() + 20
    while not emulator.ledger.tokens and time.monotonic() < ends:
        time.sleep(0.05)
    time.sleep(HEALTHY)
    print(f"--- for {OUTAGE:g} s the provider answers 503", flush=True)
    emulator.fail(Fault.http_503())
    time.sleep(OUTAGE)
    emulator.heal()
    healed = time.time()
    print("--- the provider works again", flush=True)
    while time.time() < healed + RECOVERY_AT_MOST:
        if any(token.issued_at >= healed for token in emulator.ledger.tokens):
            print(f"--- a fresh token, {time.time() - healed:.1f} s later", flush=True)
            time.sleep(1.0)
            return
        time.sleep(0.1)
    print(f"--- no fresh token within {RECOVERY_AT_MOST:g} s; the one in hand is still valid", flush=True)


def main() -> int:
    told: list[str] = []
    with tempfile.TemporaryDirectory() as folder, Emulator(TOKEN_LIFETIME, REFRESH_IN) as emulator:

        def is_valid(token: str) -> bool:
            issued = emulator.ledger.lookup(token)
            return issued is not None and time.time() < issued.expires_at

        with BlobStub(is_valid) as blob:
            process = subprocess.Popen(
                [sys.executable, str(SAMPLE)],
                env=environment(emulator, blob, Path(folder)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )

            def listen() -> None:
                for line in process.stdout or ():
                    told.append(line.strip())
                    print(line, end="", flush=True)

            listener = threading.Thread(target=listen, daemon=True)
            listener.start()
            try:
                rehearse(emulator)
                process.stdin.close()  # that is its sign to stop
                status = process.wait(timeout=10)
            finally:
                process.kill()
                process.wait()
            listener.join(timeout=5)

    reads = [line for line in told if re.match(r"read \d+: ", line)]
    served = [line for line in reads if ": served" in line]
    print(f"\n{len(served)} of {len(reads)} reads were served; the sample ended with status {status}.")
    # From the first read on, a valid token was in hand: nothing excuses a failure.
    return 0 if reads and len(served) == len(reads) and status == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
