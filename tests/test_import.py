"""What importing the package costs and gives."""

from __future__ import annotations

import ast
import inspect
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import msal as plain_msal
import pytest

import resilient_auth
from resilient_auth import msal

HEAVY = (
    "msal",
    "httpx",
    "httpcore",
    "requests",
    "urllib3",
    "jwt",
    "cryptography",
    "tenacity",
    "pybreaker",
    "cachetools",
)


def run(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


def test_importing_the_package_loads_nothing_heavy():
    """A fresh interpreter that imports the package has none of the libraries that it stands on."""
    loaded = run("import sys, resilient_auth; print(*sys.modules)").split()
    assert not {name.partition(".")[0] for name in loaded} & set(HEAVY)


def test_importing_costs_at_most_a_third_of_msal():
    """`import resilient_auth` takes a third of what `import msal` takes, or less."""

    def seconds(module: str) -> float:
        program = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
        return statistics.median(float(run(program)) for _ in range(5))

    ours, theirs = seconds("resilient_auth"), seconds("msal")
    print(f"import resilient_auth {ours * 1e3:.1f} ms, import msal {theirs * 1e3:.1f} ms")
    assert ours < theirs / 3


def test_the_exported_names_are_these():
    """A name that comes or goes is a decision, and shows here."""
    assert resilient_auth.__all__ == [
        "AcquisitionTimeout",
        "AsyncResilientTransport",
        "AttemptTimeout",
        "BearerAuth",
        "BreakerOptions",
        "CircuitOpen",
        "Claims",
        "ClaimsVerifier",
        "Closed",
        "ConfigurationError",
        "ConnectionFailed",
        "Decision",
        "EnvironmentKey",
        "FallbackOptions",
        "FileStore",
        "FreshnessOptions",
        "InvalidToken",
        "LocalResourcesExhausted",
        "MalformedAnswer",
        "MountedKey",
        "NameNotResolved",
        "Overloaded",
        "ProviderUnavailable",
        "RedisStore",
        "RemoteClaimsVerifier",
        "ResilientAuthError",
        "ResilientCredential",
        "ResilientTransport",
        "RetryOptions",
        "SealedStore",
        "ServerFailed",
        "Settings",
        "StoreUnavailable",
        "TLSFailed",
        "Throttled",
        "TokenDenied",
        "TransportOptions",
        "VerificationUnavailable",
        "__version__",
        "aio",
        "api_client",
        "downstream",
        "errors",
        "events",
        "health",
        "import_msal_cache",
        "isolate",
        "msal",
        "reset",
        "subscribe",
        "verify",
        "wait_at_most",
        "wrap",
    ]
    assert set(resilient_auth.__all__) <= set(dir(resilient_auth))


def test_type_checkers_see_the_same_names():
    """What they are told to import is the table that the package is loaded by."""
    tree = ast.parse(Path(resilient_auth.__file__).read_text())
    (block,) = (n for n in tree.body if isinstance(n, ast.If))
    told = {
        alias.name: node.module or ""
        for node in block.body
        for alias in node.names
        if alias.name == alias.asname  # else it isn't public
    }
    assert told == resilient_auth._PUBLIC


def test_the_api_page_has_every_public_name():
    """Each is described there; errors are on a page of their own, drawn from the code."""
    page = (Path(resilient_auth.__file__).parents[1] / "docs" / "api.md").read_text()
    for name, home in resilient_auth._PUBLIC.items():
        described = (
            re.search(rf"^\.\. auto\w+:: resilient_auth\.{name}$", page, re.MULTILINE)
            if home
            else f"\n## resilient_auth.{name}\n" in page
        )
        assert described or home == "errors", name


@pytest.mark.parametrize("name", resilient_auth.__all__)
def test_every_exported_name_is_there(name):
    """Whatever is exported can be had, in a fresh interpreter too, and stays the same object."""
    assert getattr(resilient_auth, name) is getattr(resilient_auth, name)


def test_each_exported_name_can_be_the_first_one():
    """No name depends on another one having been loaded before."""
    program = """
import importlib, sys, resilient_auth
for name in resilient_auth.__all__:
    for module in [m for m in sys.modules if m.startswith("resilient_auth")]:
        del sys.modules[module]
    getattr(importlib.import_module("resilient_auth"), name)
"""
    run(program)


def test_a_name_that_is_not_there_is_an_attribute_error():
    """So that `hasattr` and `from resilient_auth import x` say what they should."""
    with pytest.raises(AttributeError, match="no_such_name"):
        resilient_auth.no_such_name  # noqa: B018


def test_the_drop_in_has_every_public_name_of_msal():
    """`from resilient_auth import msal` gives whatever `import msal` gives."""
    for name in dir(plain_msal):
        if not name.startswith("_"):
            assert hasattr(msal, name), name
            assert name in dir(msal)
    assert msal.__version__ == plain_msal.__version__
    assert msal.TokenCache is plain_msal.TokenCache
    with pytest.raises(AttributeError):
        msal.no_such_name  # noqa: B018


CLASSES = ("ClientApplication", "ConfidentialClientApplication", "PublicClientApplication", "ManagedIdentityClient")


@pytest.mark.parametrize("name", CLASSES)
def test_the_drop_in_classes_are_msals(name):
    """`isinstance` against MSAL's classes holds, and every public method is there."""
    ours, theirs = getattr(msal, name), getattr(plain_msal, name)
    assert issubclass(ours, theirs)
    assert {n for n in dir(theirs) if not n.startswith("_")} <= set(dir(ours))


@pytest.mark.parametrize("name", CLASSES)
def test_overridden_methods_take_what_msals_take(name):
    """Each parameter of MSAL's methods has its name and place in ours, or goes through `*args` and `**kwargs`."""
    ours, theirs = getattr(msal, name), getattr(plain_msal, name)
    for method in (n for n in dir(theirs) if not n.startswith("_") and callable(getattr(theirs, n))):
        mine = inspect.signature(getattr(ours, method)).parameters
        other = inspect.signature(getattr(theirs, method)).parameters
        kinds = {p.kind for p in mine.values()}
        if inspect.Parameter.VAR_POSITIONAL in kinds:
            named = [n for n, p in mine.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
            assert named == list(other)[: len(named)], method
            assert inspect.Parameter.VAR_KEYWORD in kinds, method
            continue
        for place, (parameter, described) in enumerate(other.items()):
            if described.kind is described.VAR_KEYWORD:
                assert inspect.Parameter.VAR_KEYWORD in kinds, method
            elif parameter in mine:
                assert list(mine).index(parameter) == place, (method, parameter)
                assert mine[parameter].default == described.default, (method, parameter)
                assert mine[parameter].kind == described.kind, (method, parameter)
            else:
                assert inspect.Parameter.VAR_KEYWORD in kinds, (method, parameter)
                assert described.kind is described.KEYWORD_ONLY, (method, parameter)


def test_importing_does_not_start_threads():
    """Nothing runs until somebody asks for something."""
    program = "import threading, resilient_auth\nfrom resilient_auth import msal, aio\nprint(threading.active_count())"
    assert run(program).strip() == "1"


def test_python_m_is_the_program():
    """`python -m resilient_auth` runs the command line."""
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "resilient_auth", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "drill" in done.stdout
    assert time.monotonic() - begun < 10
