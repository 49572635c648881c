"""The samples run through an outage and serve every request."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "examples"

# They beat verify= in requests, and would lead a sample past the emulator.
FOREIGN = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY",
           "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")  # fmt: skip


def run(sample: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, str(sample)], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.slow
def test_the_drop_in_serves_every_request_that_plain_msal_fails() -> None:
    ended = run(SAMPLES / "drop_in" / "run.py")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = re.search(r"^during the outage +(\d+) of (\d+) +(\d+) of (\d+)$", ended.stdout, re.MULTILINE)
    assert found, ended.stdout
    before, asked_before, after, asked_after = map(int, found.groups())
    assert before < asked_before
    assert after == asked_after > 0


@pytest.mark.slow
def test_the_daemon_serves_every_request_and_stops_in_order() -> None:
    ended = run(SAMPLES / "daemon" / "run.py")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "the daemon ended with status 0" in ended.stdout
    assert "daemon: health: at risk" in ended.stdout  # its tokens live ten minutes
    assert "BEGIN" not in ended.stdout + ended.stderr
    assert "eyJ" not in ended.stdout + ended.stderr


def test_one_import_is_all_that_changes() -> None:
    before, after = ((SAMPLES / "drop_in" / name).read_text().splitlines() for name in ("before.py", "after.py"))
    assert [line for line in before if line not in after] == ["import msal"]
    assert [line for line in after if line not in before] == ["from resilient_auth import msal"]
    assert sorted([*before, "from resilient_auth import msal"]) == sorted([*after, "import msal"])
