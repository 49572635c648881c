"""Run daemon.py through an outage of a provider on this machine: it accepts requests and never answers."""

import datetime
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from resilient_auth.emulator import Emulator, Fault

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
    """Lead a program that knows nothing of an emulator to this one."""
    return {
        **{name: value for name, value in os.environ.items() if name != "CURL_CA_BUNDLE"},
        **make_certificate(folder),
        "AUTHORITY": "https://login.microsoftonline.com/contoso",
        "CLIENT_ID": "sample-daemon",
        "SCOPE": "api://sample/.default",
        "API_URL": f"{emulator.api_url}/api/orders",
        "PYTHONUNBUFFERED": "1",
        # Behind this proxy every host is the emulator, the one of the authority too.
        "HTTPS_PROXY": emulator.proxy_url,
        "NO_PROXY": "localhost",
        "REQUESTS_CA_BUNDLE": emulator.ca_file,
    }


def rehearse(emulator: Emulator, told: list[str]) -> None:
    """Let the daemon work, break the provider, and heal it."""
    ends = time.monotonic() + 15
    while not told and time.monotonic() < ends:
        time.sleep(0.05)
    time.sleep(HEALTHY)
    print(f"--- for {OUTAGE:g} s the provider accepts requests and never answers", flush=True)
    emulator.fail(Fault.black_hole())
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
        print(f"Tokens live {TOKEN_LIFETIME:g} s and are due for a refresh after {REFRESH_IN:g} s.", flush=True)
        process = subprocess.Popen(
            [sys.executable, str(DAEMON)],
            env=environment(emulator, Path(folder)),
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
            rehearse(emulator, told)
            process.terminate()
            status = process.wait(timeout=5)
        finally:
            process.kill()
            process.wait()
        listener.join(timeout=5)

    requests = [line for line in told if re.match(r"daemon: request \d+: ", line)]
    served = [line for line in requests if ": served" in line]
    print(f"\n{len(served)} of {len(requests)} requests were served; the daemon ended with status {status}.")
    # From the first request on, a valid token was in hand: nothing excuses a failure.
    return 0 if requests and len(served) == len(requests) and status == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
