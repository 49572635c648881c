"""The sample with a fallback serves every page through an outage of its API."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOREIGN = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY",
           "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")  # fmt: skip


@pytest.mark.slow
def test_every_page_comes_in_time() -> None:
    """With fewer calls at the API than pages, and fresh recommendations when it is back."""
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    ended = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "reduced_experience" / "run.py")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "pages that failed: 0" in ended.stdout
    found = re.search(r"the API hangs: +(\d+) pages, (\d+) fresh, (\d+) calls", ended.stdout)
    assert found, ended.stdout
    pages, fresh, calls = map(int, found.groups())
    assert (fresh, calls < pages / 2) == (0, True)
