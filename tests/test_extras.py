"""An extra that isn't installed is named by the error that misses it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from resilient_auth._process.extras import MODULES

ROOT = Path(__file__).parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

#: What a user does, the module that isn't there, and the extra that brings it.
USES = [
    pytest.param(f"import resilient_auth.{name}", module, extra, id=f"{name}-{module}")
    for name, extra in (
        ("emulator", "emulator"),
        *((f"integrations.{extra}", extra) for extra in sorted(MODULES)),
    )
    for module in sorted(MODULES[extra] - {"rich"})  # which the drill alone needs
    if (ROOT / "resilient_auth" / f"{name.replace('.', '/')}.py").exists()
    or (ROOT / "resilient_auth" / name.replace(".", "/")).is_dir()
]
USES.append(pytest.param("import resilient_auth.integrations.django.rest", "rest_framework", "drf", id="drf"))
_REDIS = "import resilient_auth as ra; ra.RedisStore('redis://x', key=bytes(32))"
USES += [
    pytest.param(f"import resilient_auth as ra; ra.telemetry.{call}()", module, extra, id=extra)
    for call, module, extra in (
        ("instrument", "opentelemetry", "otel"),
        ("prometheus_collector", "prometheus_client", "prometheus"),
    )
]
USES.append(pytest.param(_REDIS, "redis", "redis", id="redis"))


def without(module: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter that can't import a module."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules[{module!r}] = None\n{code}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


#: Goes through such programs, each in a child of its own, which needn't load again what stands below the package.
_EACH_IN_A_CHILD = """
import json, os, sys, tempfile, traceback
import cryptography.x509, httpx, msal

for module, code in json.load(sys.stdin):
    with tempfile.TemporaryFile("w+") as told:
        child = os.fork()
        if not child:
            os.dup2(told.fileno(), sys.stderr.fileno())
            for name in [name for name in sys.modules if name.startswith(module + ".")]:
                del sys.modules[name]
            sys.modules[module] = None
            try:
                exec(code, {})
            except BaseException:
                traceback.print_exc()
            sys.stderr.flush()
            os._exit(0)
        os.waitpid(child, 0)
        told.seek(0)
        print(json.dumps(told.read()))
"""


@pytest.fixture(scope="module")
def told() -> dict[tuple[str, str], str]:
    """What each use says where its module isn't there."""
    uses = [(str(use.values[1]), str(use.values[0])) for use in USES]
    ended = subprocess.run(
        [sys.executable, "-c", _EACH_IN_A_CHILD],
        input=json.dumps(uses),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    return dict(zip(uses, map(json.loads, ended.stdout.splitlines()), strict=True))


@pytest.mark.xdist_group("extras")
@pytest.mark.parametrize(("code", "module", "extra"), USES)
def test_an_error_names_the_extra(told: dict[tuple[str, str], str], code: str, module: str, extra: str) -> None:
    """The last line of the traceback is all that many see."""
    last = told[module, code].splitlines()[-1]
    assert f"needs {module}" in last
    assert last.endswith(f"pip install 'resilient-auth[{extra}]'")


@pytest.mark.parametrize("module", ["h11", "trustme", "rich"])
@pytest.mark.parametrize("command", ["cli", "drill"])
def test_the_drill_names_the_extra(command: str, module: str) -> None:
    """In one line, with the status for bad usage, however it is called; help is no usage."""
    call = "from resilient_auth.cli import main; sys.exit(main(['drill', '--quick']))"
    if command == "drill":
        call = "from resilient_auth.drill import main; sys.exit(main(['--help']))"
    ended = without(module, call)
    assert ended.returncode == 2
    before = "resilient-auth drill: " if command == "cli" else ""
    assert ended.stderr == (
        f"{before}the drill needs {module}, which isn't installed: pip install 'resilient-auth[emulator]'\n"
    )


def test_the_command_emulator_names_the_extra() -> None:
    """In one line."""
    ended = without("h11", "from resilient_auth.cli import main; sys.exit(main(['emulator']))")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.endswith("pip install 'resilient-auth[emulator]'\n")


def test_the_fixture_names_the_extra(tmp_path: Path) -> None:
    """A test that asks for it fails with the name; others run."""
    (tmp_path / "test_it.py").write_text("def test_it(identity_provider): pass\ndef test_other(): pass\n")
    arguments = ["-p", "resilient_auth.testing", "-p", "no:cacheprovider", "-q", str(tmp_path), f"--rootdir={tmp_path}"]
    ended = without("h11", f"import pytest; sys.exit(pytest.main({arguments!r}))")
    assert "pip install 'resilient-auth[emulator]'" in ended.stdout
    assert "1 passed, 1 error" in ended.stdout


def test_an_import_that_fails_otherwise_stays_what_it_is() -> None:
    """A module that no extra brings, or a package that is there and broken, isn't mended by an extra."""
    ended = without("flask.globals", "import resilient_auth.integrations.flask")
    assert "resilient-auth[flask]" in ended.stderr  # a part of what the extra brings
    ended = without("json", "import resilient_auth.integrations.flask")
    assert "resilient-auth[" not in ended.stderr
    assert "import of json halted" in ended.stderr


#: Modules that are called otherwise than what brings them.
_CALLED = {
    "opentelemetry-api": "opentelemetry",
    "prometheus-client": "prometheus_client",
    "azure-core": "azure",
    "djangorestframework": "rest_framework",
    "microsoft-kiota-abstractions": "kiota_abstractions",
    "redis-entraid": "redis_entraid",
}


def test_the_modules_are_those_that_the_extras_bring() -> None:
    """Each extra of the project is known, with what it brings."""
    assert {*MODULES} == {*EXTRAS}
    for extra, modules in MODULES.items():
        names = [Requirement(one).name for one in EXTRAS[extra]]
        assert modules == {_CALLED.get(name, name) for name in names}


def test_the_readme_names_every_extra() -> None:
    """In alphabetical order, the one that it shows left out."""
    text = (ROOT / "README.md").read_text()
    shown = re.search(r'pip install "resilient-auth\[(\w+)\]"', text)
    listed = re.search(r"the others are ([\w\s,#]+):", text)
    assert shown is not None
    assert listed is not None
    named = [word for word in re.findall(r"\w+", listed[1]) if word != "and"]
    assert named == sorted(EXTRAS.keys() - {shown[1]})
