"""Run daemon.py through an outage of a provider on this machine: it accepts requests and never answers."""

import datetime
import re
import sys
import tempfile
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from resilient_auth.emulator import Emulator, Fault

sys.path.insert(0, str(Path(__file__).parents[1]))

from rehearsal import Program, break_and_heal, led_to

DAEMON = Path(__file__).with_name("daemon.py")
#: Seconds. The token lives ten minutes, so that a valid one is in hand all the time.
HEALTHY, OUTAGE, RECOVERY_AT_MOST = 4.0, 6.0, 14.0
TOKEN_LIFETIME, REFRESH_IN = 600.0, 2.0


def make_certificate(folder: Path) -> dict[str, str]:
    """Write a key and a self-signed certificate, good for an hour and for this run."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sample daemon")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    files = {"KEY_FILE": private, "CERTIFICATE_FILE": certificate.public_bytes(pem)}
    for variable, content in files.items():
        (folder / variable).write_bytes(content)
    return {variable: str(folder / variable) for variable in files}


def environment(emulator: Emulator, folder: Path) -> dict[str, str]:
    return led_to(emulator) | {
        **make_certificate(folder),
        "AUTHORITY": "https://login.microsoftonline.com/contoso",
        "CLIENT_ID": "sample-daemon",
        "SCOPE": "api://sample/.default",
        "API_URL": f"{emulator.api_url}/api/orders",
    }


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, Emulator(TOKEN_LIFETIME, REFRESH_IN) as emulator:
        print(f"Tokens live {TOKEN_LIFETIME:g} s and are due for a refresh after {REFRESH_IN:g} s.", flush=True)
        daemon = Program(DAEMON, environment(emulator, Path(folder)))
        try:
            daemon.wait_for_first()
            time.sleep(HEALTHY)
            what = "accepts requests and never answers"
            break_and_heal(emulator, Fault.black_hole(), what, seconds=OUTAGE, recovery_at_most=RECOVERY_AT_MOST)
            daemon.terminate()
            status = daemon.status()
        finally:
            daemon.kill()

    requests = [line for line in daemon.lines if re.match(r"daemon: request \d+: ", line)]
    served = [line for line in requests if ": served" in line]
    print(f"\n{len(served)} of {len(requests)} requests were served; the daemon ended with status {status}.")
    # From the first request on, a valid token was in hand: nothing excuses a failure.
    return 0 if requests and len(served) == len(requests) and status == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
