"""Run read_blob.py against a provider and a blob on this machine, through an outage of the provider."""

import re
import sys
import tempfile
import time
from pathlib import Path

from blob_stub import BlobStub
from resilient_auth.emulator import Emulator, Fault

sys.path.insert(0, str(Path(__file__).parents[1]))

from rehearsal import Program, break_and_heal, led_to

SAMPLE = Path(__file__).with_name("read_blob.py")
#: Seconds. The token lives longer than the whole run, so that a valid one is in hand all the time.
HEALTHY, OUTAGE, RECOVERY_AT_MOST = 3.0, 7.0, 14.0
TOKEN_LIFETIME, REFRESH_IN = 90.0, 2.0


def environment(emulator: Emulator, blob: BlobStub, folder: Path) -> dict[str, str]:
    bundle = folder / "both.pem"
    bundle.write_text(Path(emulator.ca_file).read_text() + Path(blob.ca_file).read_text())
    return led_to(emulator, ca_file=str(bundle)) | {
        "CLIENT_ID": "blob-reader",
        "CLIENT_SECRET": "a secret of the emulator",
        "AUTHORITY": "https://login.microsoftonline.com/contoso",
        "ACCOUNT_URL": blob.url,
        "CONTAINER": "container",
        "BLOB": "blob",
    }


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, Emulator(TOKEN_LIFETIME, REFRESH_IN) as emulator:

        def is_valid(token: str) -> bool:
            issued = emulator.ledger.lookup(token)
            return issued is not None and time.time() < issued.expires_at

        with BlobStub(is_valid) as blob:
            sample = Program(SAMPLE, environment(emulator, blob, Path(folder)))
            try:
                sample.wait_for_first()
                time.sleep(HEALTHY)
                break_and_heal(
                    emulator, Fault.http_503(), "answers 503", seconds=OUTAGE, recovery_at_most=RECOVERY_AT_MOST
                )
                sample.close_input()  # that is its sign to stop
                status = sample.status()
            finally:
                sample.kill()

    reads = [line for line in sample.lines if re.match(r"read \d+: ", line)]
    served = [line for line in reads if ": served" in line]
    print(f"\n{len(served)} of {len(reads)} reads were served; the sample ended with status {status}.")
    # From the first read on, a valid token was in hand: nothing excuses a failure.
    return 0 if reads and len(served) == len(reads) and status == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
