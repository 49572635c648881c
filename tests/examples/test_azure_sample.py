"""The sample of the Azure SDK runs through an outage and serves every read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOREIGN = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY",
           "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")  # fmt: skip


@pytest.mark.slow
def test_the_sample_serves_every_read_through_an_outage() -> None:
    """A real client, a real process, and a provider that answers 503."""
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    ended = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "azure_sdk" / "run.py")],
        env=environment, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    told = ended.stdout + ended.stderr
    assert ended.returncode == 0, told
    assert "the sample ended with status 0" in told
    assert "RetryScheduled" in told
    assert "eyJ" not in told
    assert "a secret of the emulator" not in told
