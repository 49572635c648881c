"""What the doctor reads, prints and ends with."""

from __future__ import annotations

import datetime
import inspect
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resilient_auth import ConfigurationError
from resilient_auth.cli import main
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.telemetry.doctor import CHECKS, Setup, read_setup
from resilient_auth.telemetry.doctor.configuration import KEYS

ROOT = Path(__file__).parents[3]
SECRET = "a-secret-that-nobody-may-see"


def write(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def test_the_environment_is_read_by_azure_identitys_names() -> None:
    """What runs with it is examined without a word more."""
    setup = read_setup(
        {"AZURE_TENANT_ID": "contoso", "AZURE_CLIENT_ID": "app", "AZURE_CLIENT_SECRET": SECRET, "PATH": "/bin"}
    )
    assert (setup.authority, setup.client_id) == ("https://login.microsoftonline.com/contoso", "app")
    assert setup.flows == ("client_credentials",)
    assert SECRET not in repr(setup)
    assert read_setup({"AZURE_USERNAME": "ann", "AZURE_PASSWORD": "pw"}).flows == ("password",)
    assert read_setup({"IDENTITY_ENDPOINT": "http://localhost:1/msi/token"}).flows == ("managed_identity",)
    assert read_setup({}) == Setup()


def test_options_win_over_the_file_and_the_file_over_the_environment(tmp_path: Path) -> None:
    """Key by key."""
    file = write(
        tmp_path / "app.toml",
        'authority = "https://file.example/t"\nclient_id = "file"\nscopes = [["a/.default"], ["b/.default"]]\n'
        "secret_expires = 2027-01-31\n",
    )
    environ = {"AZURE_TENANT_ID": "environment", "AZURE_CLIENT_ID": "environment", "AZURE_CLIENT_SECRET": "s"}
    setup = read_setup(environ, file, {"client_id": "option", "flows": None})
    assert (setup.authority, setup.client_id, setup.client_secret) == ("https://file.example/t", "option", "s")
    assert setup.scopes == (("a/.default",), ("b/.default",))
    assert setup.secret_expires == datetime.date(2027, 1, 31)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('autority = "x"', "unknown key 'autority' (did you mean 'authority'?)"),
        ("zzz = 1", "unknown key 'zzz'; there are authority"),
        ("authority = 1", "authority must be a string, not int"),
        ('authority = "http://login.example/t"', "authority must be an https URL"),
        ('flows = ["client_credential"]', "(did you mean 'client_credentials'?)"),
        ('flows = "native"', "flows must be a list of strings"),
        ('secret_expires = "soon"', "secret_expires must be a date"),
        ("verify = 3", "verify must be true, false or a path"),
        ("timeout = 0", "timeout must be from 0.1 to 60 s"),
        ('handles_challenges = "yes"', "handles_challenges must be true or false"),
        ("= 3", "isn't TOML"),
        ("secrets_in = 'x'", "unknown key 'secrets_in'"),
    ],
    ids=lambda value: value.split()[0] if " = " in value or value.startswith("=") else "",
)
def test_a_file_that_is_wrong(tmp_path: Path, text: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The key is named, and the nearest one; the exit status is that of bad usage."""
    assert main(["doctor", "--config", write(tmp_path / "app.toml", text)]) == 2
    assert told in capsys.readouterr().err


def test_a_file_that_is_not_there() -> None:
    """It is named."""
    with pytest.raises(ConfigurationError, match=r"/nowhere/app\.toml can't be read: No such file"):
        read_setup({}, "/nowhere/app.toml")


def test_the_command_finds_prints_and_ends(
    idp: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As JSON and as text: what is wrong, the fix, and a status by severity; the secret is nowhere."""
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    end = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=200)
    file = write(
        tmp_path / "app.toml",
        f'authority = "{idp.authority("contoso")}"\nclient_id = "app"\nscopes = ["api://mine/.default"]\n'
        f'flows = ["client_credentials"]\nstore = "{tmp_path / "state" / "tokens.db"}"\nverify = "{idp.ca_file}"\n'
        f"secret_expires = {end}\n",
    )
    monkeypatch.setenv("AZURE_CLIENT_SECRET", SECRET)
    assert main(["doctor", "--config", file, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["healthy"], told["summary"]) == (True, "healthy")

    monkeypatch.delenv("AZURE_CLIENT_SECRET")
    with open(file, "a") as more:
        more.write(f'client_secret = "{SECRET}"\n')
    assert main(["doctor", "--config", file]) == 1
    warned = capsys.readouterr().out
    assert "WARNING  secrets_on_disk" in warned
    assert warned.endswith("\n1 warning\n")

    idp.fail(Fault.http_503())
    assert main(["doctor", "--config", file, "--json"]) == 3
    failed = capsys.readouterr().out
    (found,) = [each for each in json.loads(failed)["findings"] if each["severity"] == "error"]
    assert (found["check"], found["code"]) == ("discovery", "provider_fails")
    assert "nothing to do on your side" in found["fix"]
    assert SECRET not in warned + failed


def test_it_ends_in_time_in_a_black_hole(idp: Emulator, tmp_path: Path) -> None:
    """The whole program, with a time-out of half a second for each check."""
    idp.fail(Fault.black_hole())
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "resilient_auth", "doctor", "--authority", idp.authority("contoso"), "--verify",
         idp.ca_file, "--timeout", "0.5"],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert ended.returncode == 3
    assert "ERROR    discovery" in ended.stdout
    assert time.monotonic() - began < 15


def test_the_page_has_every_check_and_every_key() -> None:
    """Checks are drawn from the code; the keys of the file are those of `Setup`."""
    page = (ROOT / "docs" / "doctor.md").read_text()
    assert "{doctor-table}" in page
    assert "{doctor-key-table}" in page
    assert all(f"    {key}: " in inspect.cleandoc(Setup.__doc__ or "") for key in KEYS)
    assert all(check.run.__doc__ for check in CHECKS)
    assert {name for check in CHECKS for name in check.needs} <= {check.name for check in CHECKS}
