"""What importing the package costs and gives."""

from __future__ import annotations

import ast
import inspect
import math
import os
import re
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


#: Of these, what MSAL doesn't load either is loaded with the first application, on its owner's thread.
LATER = ("httpx", "httpcore", "anyio", "rich", "tenacity", "pybreaker", "redis", "asyncio", "sqlite3")


def run(program: str, **environment: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    return finished.stdout


def test_importing_the_package_loads_nothing_heavy():
    """A fresh interpreter that imports the package has none of the libraries that it stands on."""
    loaded = run("import sys, resilient_auth; print(*sys.modules)").split()
    assert not {name.partition(".")[0] for name in loaded} & set(HEAVY)


@pytest.fixture(scope="module")
def cost_at_most(tmp_path_factory):
    """Return whether a statement costs at most so many times what `import msal` does.

    By the least processor time of each, from compiled files, to which neighbours only add: of five rounds, and of up to
    thirty where these don't do.
    """
    compiled = {"PYTHONPYCACHEPREFIX": str(tmp_path_factory.mktemp("compiled")), "PYTHONDONTWRITEBYTECODE": ""}
    taken: dict[str, float] = {}

    def measure(statement):
        program = f"import time; t = time.process_time(); {statement}; print(time.process_time() - t)"
        taken[statement] = min(taken.get(statement, math.inf), float(run(program, **compiled)))
        return taken[statement]

    def at_most(times, statement):
        run(statement, **compiled)
        rounds = (measure(statement) <= times * measure("import msal") for _ in range(30))
        return any(fits for number, fits in enumerate(rounds) if number >= 4)

    return at_most


@pytest.mark.xdist_group("what importing takes")
def test_importing_costs_at_most_a_third_of_msal(cost_at_most):
    """`import resilient_auth` takes a third of what `import msal` takes, or less."""
    assert cost_at_most(1 / 3, "import resilient_auth")


@pytest.mark.xdist_group("what importing takes")
def test_importing_the_drop_in_costs_hardly_more_than_importing_msal(cost_at_most):
    """`from resilient_auth import msal` takes at most 1.3 times what `import msal` takes."""
    assert cost_at_most(1.3, "from resilient_auth import msal")


@pytest.mark.parametrize(
    "statement",
    [
        "from resilient_auth import msal",
        "from resilient_auth import msal; msal.ConfidentialClientApplication",
        "from resilient_auth import Settings; Settings()",
    ],
    ids=["the drop-in", "a class of it", "settings"],
)
def test_importing_loads_no_library_that_only_an_application_needs(statement):
    """They come with the first application: neither httpx and its command line, nor pybreaker and its Redis client."""
    theirs, ours = (run(f"import sys; {each}; print(*sys.modules)").split() for each in ("import msal", statement))
    assert not ({name.partition(".")[0] for name in ours} & set(LATER)) - {name.partition(".")[0] for name in theirs}


def test_what_an_application_needs_is_loaded_on_its_owners_thread():
    """No worker loads a library: a process that forks meanwhile would leave it half loaded in the child for ever."""
    program = """
import sys, threading
from resilient_auth import RetryOptions, Settings, msal

elsewhere = set()

class Watch:
    def find_spec(self, name, path=None, target=None):
        if threading.current_thread() is not threading.main_thread():
            elsewhere.add(name.partition(".")[0])

sys.meta_path.insert(0, Watch())
settings = Settings(discovery_wait=5.0, retry=RetryOptions(attempts=1))
app = msal.ConfidentialClientApplication(
    "client", "secret", authority="https://localhost:1/contoso", instance_discovery=False, resilience=settings
)
for name in ("httpx", "tenacity", "pybreaker"):
    assert name in sys.modules, name
try:
    app.acquire_token_for_client(["https://graph.microsoft.com/.default"])
except msal_error():
    pass
print(*elsewhere)
""".replace("msal_error()", "__import__('requests').RequestException")
    assert not set(run(program).split()) & {*LATER, "msal", "jwt", "cryptography", "resilient_auth"}


def test_threads_may_make_the_first_application_at_the_same_time():
    """Each gets its own, whoever loads what it stands on."""
    program = """
import threading
from resilient_auth import Settings, msal

made, ready = [], threading.Barrier(8)

def make():
    ready.wait()
    made.append(msal.ConfidentialClientApplication(
        "client", "secret", authority="https://localhost:1/contoso", instance_discovery=False,
        resilience=Settings(discovery_wait=1.0)))

threads = [threading.Thread(target=make) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(made), *{type(app).__module__ for app in made})
"""
    assert run(program).split() == ["8", "resilient_auth._msal.applications"]


def test_a_process_that_forks_while_a_library_is_loaded_leaves_it_whole_in_the_child(tmp_path):
    """The fork waits for it. Else the child would wait for a thread that it hasn't got."""
    (tmp_path / "slow_library.py").write_text("import time\nimport begun\nbegun.set()\ntime.sleep(1.0)\nwhole = True\n")
    (tmp_path / "begun.py").write_text("import threading\nevent = threading.Event()\nset = event.set\n")
    program = f"""
import os, signal, sys, threading, warnings
sys.path.insert(0, {str(tmp_path)!r})
import begun
from resilient_auth._process.loading import load

warnings.simplefilter("ignore")
loader = threading.Thread(target=load, args=("slow_library",))
loader.start()
begun.event.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    load("slow_library")
    import slow_library
    load("slow_library")
    os._exit(0 if slow_library.whole else 1)
loader.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run(program).strip() == "0"


def test_a_server_that_imports_before_it_forks_has_working_children():
    """Whether it has made an application by then, or its children make their first."""
    program = """
import os, signal
from resilient_auth import RetryOptions, Settings, msal

def make():
    return msal.ConfidentialClientApplication(
        "client", "secret", authority="https://localhost:1/contoso", instance_discovery=False,
        resilience=Settings(discovery_wait=1.0, retry=RetryOptions(attempts=1)))

def ask(app):
    try:
        app.acquire_token_for_client(["https://graph.microsoft.com/.default"])
    except Exception as error:
        return type(error).__name__

def child(app=None):
    process = os.fork()
    if process == 0:
        signal.alarm(20)
        os._exit(0 if ask(app or make()) in ("ConnectionFailed", "CircuitOpen") else 1)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

print(child(), child(make()))
"""
    assert run(program).split() == ["0", "0"]


def test_the_exported_names_are_these():
    """A name that comes or goes is a decision, and shows here."""
    assert resilient_auth.__all__ == [
        "AcquisitionTimeout",
        "AnyOf",
        "AssertionUnavailable",
        "AsyncResilientTransport",
        "AttemptTimeout",
        "BearerAuth",
        "BreakerOptions",
        "CertificateFile",
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
        "assertion_from_application",
        "assertion_from_file",
        "assertion_from_managed_identity",
        "callouts",
        "downstream",
        "errors",
        "events",
        "forecast",
        "get_bearer_token_provider",
        "health",
        "import_msal_cache",
        "isolate",
        "msal",
        "reset",
        "signin",
        "subscribe",
        "telemetry",
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
    """No name depends on another one having been loaded before: one of each module that has some is tried."""
    program = """
import importlib, sys, resilient_auth
for name in {home: name for name, home in resilient_auth._PUBLIC.items() if home}.values():
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
