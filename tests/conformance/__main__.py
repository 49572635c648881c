"""Run MSAL's own released tests against the drop-in classes, and say where they differ: `make conformance`.

The source distribution of the installed MSAL is taken from the package registry. Its tests run twice, against MSAL and
against the drop-in, with an emulated identity provider behind a proxy in place of the real hosts. What fails with MSAL
itself (the distribution lacks some of its test data) doesn't count.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

#: Where the drop-in does something else on purpose, and why.
DELIBERATE = {
    "MismatchingScopeTestCase::test_token_should_be_cached_with_response_scope": (
        "a token is held for the scopes that were asked for, whatever the provider calls them"
    ),
    "TestApplicationForRefreshInBehaviors::test_aging_token_and_available_aad_should_return_new_token": (
        "a token that is due is returned at once and refreshed behind"
    ),
    "TestApplicationForRefreshInBehaviors::test_expired_token_and_available_aad_should_return_new_token": (
        "its token has 60 s left, which are served"
    ),
    "TestApplicationForRefreshInBehaviors::test_expired_token_and_unavailable_aad_should_return_error": (
        "its token has 60 s left, which are served"
    ),
    "TestTelemetryMaintainingOfflineState::test_maintaining_offline_state_and_sending_them": (
        "hits in our memory aren't counted in MSAL's telemetry"
    ),
    "ThrottledHttpClientTestCase::test_throttled_http_client_should_cache_unsuccessful_http_response": (
        "Retry-After is hidden from MSAL but for 429 and 5xx, since it replays what carries it"
    ),
}

#: Whole classes that can't tell, and why.
CANT_TELL = {
    "ArcTestCase": "it puts stand-ins in place of open and os.stat, by which a session's authorities are read",
}

_PLUGIN = """
import os
import msal
from resilient_auth.emulator import Emulator

emulator = Emulator()
emulator.start()
os.environ.update(HTTPS_PROXY=emulator.proxy_url, HTTP_PROXY=emulator.proxy_url, NO_PROXY="localhost,127.0.0.1")
os.environ["REQUESTS_CA_BUNDLE"] = str(emulator.ca_file)
NAMES = ("ClientApplication", "ConfidentialClientApplication", "PublicClientApplication", "ManagedIdentityClient")
REAL = {name: getattr(msal, name) for name in NAMES}
if os.environ["DROP_IN"] == "1":
    from resilient_auth import msal as ours

    for name in NAMES:
        setattr(msal, name, getattr(ours, name))

    def pytest_collection_modifyitems(items):
        for module in {item.module for item in items}:
            for name in NAMES:
                if module.__dict__.get(name) is REAL[name]:
                    setattr(module, name, getattr(ours, name))


def pytest_unconfigure():
    emulator.stop()
"""

# The distribution's tests import these from files that it doesn't hold.
_HTTP_CLIENT = """
import requests


class MinimalHttpClient:
    def __init__(self, verify=True, proxies=None, timeout=None):
        self.session = requests.Session()
        self.session.verify, self.session.proxies, self.timeout = verify, proxies, timeout

    def post(self, url, params=None, data=None, headers=None):
        return MinimalResponse(self.session.post(url, params=params, data=data, headers=headers, timeout=self.timeout))

    def get(self, url, params=None, headers=None):
        return MinimalResponse(self.session.get(url, params=params, headers=headers, timeout=self.timeout))

    def close(self):
        self.session.close()


class MinimalResponse:
    def __init__(self, requests_resp=None, status_code=None, text=None, headers=None):
        self.status_code = requests_resp.status_code if status_code is None else status_code
        self.text = requests_resp.text if text is None else text
        self.headers = {} if headers is None else headers
        self.raw = requests_resp

    def raise_for_status(self):
        if self.raw is not None:
            self.raw.raise_for_status()
"""

_LEFT_OUT = ("e2e", "e2e_manual", "mi_e2e", "agentic_e2e", "fmi_e2e", "benchmark", "cryptography")


def fetch(folder: Path) -> None:
    """Put the tests of the installed MSAL into a folder."""
    release = f"msal=={importlib.metadata.version('msal')}"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "msal", release]
    subprocess.run([*command, "-d", str(folder)], check=True)
    with tarfile.open(next(folder.glob("msal-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    tests = next(folder.glob("msal-*/tests"))
    tests.rename(folder / "tests")
    (folder / "tests" / "__init__.py").write_text("import unittest\n")
    (folder / "tests" / "http_client.py").write_text(_HTTP_CLIENT)
    (folder / "conftest.py").write_text(_PLUGIN)


def failures(folder: Path, drop_in: bool) -> tuple[set[str], int]:
    """Run the tests, and tell which failed and how many ran."""
    result = folder / f"result-{int(drop_in)}.xml"
    ignored = [f"--ignore=tests/test_{name}.py" for name in _LEFT_OUT]
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-W", "ignore", "-p", "no:cacheprovider"]
    command += ["--timeout=60", "--continue-on-collection-errors", f"--junitxml={result}", *ignored, "tests"]
    here = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "DROP_IN": str(int(drop_in)), "PYTHONPATH": here}
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        environment.pop(name, None)
    subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=False)
    failed: set[str] = set()
    cases = list(ElementTree.parse(result).iter("testcase"))
    for case in cases:
        if case.find("failure") is not None or case.find("error") is not None:
            failed.add(f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}")
    return failed, len(cases)


def main() -> int:
    """Compare the two runs; exit status 1 where they differ otherwise than on purpose."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fetch(folder)
        with ThreadPoolExecutor() as pool:
            (theirs, _), (ours, count) = pool.map(lambda drop_in: failures(folder, drop_in), (False, True))
    differing = {test for test in ours - theirs if test.partition("::")[0] not in CANT_TELL}
    unexpected, stale = sorted(differing - DELIBERATE.keys()), sorted(DELIBERATE.keys() - differing)
    for name, why in CANT_TELL.items():
        print(f"can't tell: {name}\n    {why}")
    for test in unexpected:
        print(f"differs: {test}")
    for test in stale:
        print(f"doesn't differ any more, take it off the list: {test}")
    for test in sorted(differing & DELIBERATE.keys()):
        print(f"on purpose: {test}\n    {DELIBERATE[test]}")
    passed = count - len(ours)
    print(f"MSAL's tests against the drop-in: {passed} of {count} pass, {len(differing)} differ from MSAL's own run")
    return 1 if unexpected or stale else 0


sys.exit(main())
