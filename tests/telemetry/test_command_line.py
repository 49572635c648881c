"""The commands of `resilient-auth`, their help, and an emulator that is commanded from another program."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from resilient_auth import __version__
from resilient_auth.cli import main
from resilient_auth.emulator import Emulator
from resilient_auth.emulator.remote import announced, the_one_that_runs

ROOT = Path(__file__).parents[2]
#: What no dependency of the package brings either, as httpx brings h11.
EXTRAS = ("trustme", "rich", "redis", "fastapi", "flask", "django")


@pytest.fixture
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place for temporary files in which no other emulator is announced."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture(scope="module")
def idp() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def unused_port() -> int:
    """A port on loopback that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def status_of(idp: Emulator) -> int:
    """Return the status of the provider's discovery document."""
    url = f"{idp.authority('contoso')}/v2.0/.well-known/openid-configuration"
    with httpx.Client(verify=__import__("ssl").create_default_context(cafile=idp.ca_file), trust_env=False) as client:
        return client.get(url).status_code


@pytest.mark.parametrize("command", ["", "doctor", "health", "forecast", "drill", "emulator"])
def test_help_needs_no_extra(command: str) -> None:
    """In an interpreter that can import none of what extras bring."""
    blocked = "".join(f"sys.modules[{name!r}] = None\n" for name in EXTRAS)
    arguments = [*filter(None, [command]), "--help"]
    code = f"import sys\n{blocked}from resilient_auth.cli import main\nsys.exit(main({arguments!r}))"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"usage: resilient-auth {command}".rstrip() in ended.stdout
    if command in ("drill", "emulator"):
        assert "pip install 'resilient-auth[emulator]'" in ended.stdout


def test_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Without an argument too."""
    assert main([]) == 0
    assert re.findall(r"^    (\w+) ", capsys.readouterr().out, re.MULTILINE) == [
        "doctor",
        "health",
        "forecast",
        "drill",
        "emulator",
    ]
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"resilient-auth {__version__}\n"


def test_bad_usage_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown command, and an unknown option of one that is known."""
    assert main(["dorctor"]) == 2
    assert "invalid choice: 'dorctor'" in capsys.readouterr().err
    for command in ("doctor", "health", "drill", "emulator"):
        assert main([command, "--no-such-option"]) == 2
        assert f"usage: resilient-auth {command}" in capsys.readouterr().err


@pytest.mark.usefixtures("own_directory")
def test_an_emulator_is_failed_and_healed(idp: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """The one that runs is found; a fault ends by itself, or by `heal`."""
    with announced(idp.control_url):
        assert main(["emulator", "fail", "503", "--for", "60"]) == 0
        assert capsys.readouterr().out == "failing: everything, by 503 for 60 s\n"
        assert status_of(idp) == 503
        assert main(["emulator", "heal"]) == 0
        assert status_of(idp) == 200
        assert main(["emulator", "fail", "429:30", "--endpoint", "token", "--count", "1"]) == 0
        assert status_of(idp) == 200
        assert [fault["endpoint"] for fault in idp.state()["faults"]] == ["token"]
        assert main(["emulator", "heal", "--endpoint", "token"]) == 0
        assert not idp.state()["faults"]


@pytest.mark.usefixtures("own_directory")
def test_what_cannot_be_commanded_is_told(idp: Emulator, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """No emulator, several of them, one that was killed, a wrong fault, and an address that isn't one."""

    def told(*arguments: str) -> str:
        assert main(["emulator", *arguments]) == 1
        return capsys.readouterr().err

    assert "no emulator of this user runs" in told("heal")
    assert "unknown fault 'earthquake'" in told("fail", "earthquake")  # whether one runs or not
    with announced(idp.control_url):
        directory = next(tmp_path.glob("resilient-auth-emulator-*"))
        assert directory.stat().st_mode & 0o777 == 0o700
        (directory / "999999999").write_text("http://127.0.0.1:1")  # a process that isn't there
        assert the_one_that_runs() == idp.control_url
        assert "unknown fault 'earthquake'" in told("fail", "earthquake")
        assert "nowhere" in told("fail", "503", "--endpoint", "nowhere")
        assert "unknown endpoint 'nowhere'" in told("heal", "--endpoint", "nowhere")
        (directory / str(os.getppid())).write_text("http://127.0.0.1:2")
        assert re.search(r"give --control and one of http://127\.0\.0\.1:\d+, http://127\.0\.0\.1:\d+$", told("heal"))
        assert main(["emulator", "heal", "--control", idp.control_url]) == 0
    assert not list(directory.glob(str(os.getpid())))
    assert "isn't the address of a control port" in told("heal", "--control", "https://elsewhere.example")
    assert told("heal", "--control", idp.metadata_url)


@pytest.mark.usefixtures("own_directory")
def test_a_directory_of_somebody_else_is_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever makes it first could have commands sent elsewhere; a link is somebody else's too."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"resilient-auth-emulator-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    assert main(["emulator", "heal"]) == 1
    assert "is somebody else's" in capsys.readouterr().err


def ended(*arguments: str, stdout: int, stderr: int = subprocess.PIPE) -> tuple[int, str]:
    """Run the program and return its status, and what it said beside its output."""
    ended = subprocess.run(
        [sys.executable, "-m", "resilient_auth", *arguments],
        cwd=ROOT,
        stdout=stdout,
        stderr=stderr,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.returncode, ended.stderr or ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("doctor", "--timeout", "0.2"),
        ("doctor", "--timeout", "0.2", "--json"),
        ("emulator",),
        ("drill", "--fault", "http_503", "--no-report"),
    ],
    ids=" ".join,
)
def test_a_command_whose_output_nobody_reads_ends_quietly(arguments: tuple[str, ...]) -> None:
    """As behind `| head`: by the status of SIGPIPE, which no finding has; and no emulator goes on unseen."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert ended(*arguments, stdout=writing) == (141, "")
    finally:
        os.close(writing)


def test_an_error_that_nobody_reads_is_no_verdict(unused_port: int) -> None:
    """The same with standard error in that pipe."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        status, _ = ended("health", f"http://127.0.0.1:{unused_port}/health", stdout=writing, stderr=writing)
    finally:
        os.close(writing)
    assert status == 141


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-15", "cp1252"])
def test_what_a_terminal_has_no_letters_for_is_told_all_the_same(encoding: str, tmp_path: Path) -> None:
    """A traceback would end with 1, which says that there are warnings, or that an application is at risk."""
    given = (sys.executable, "-m", "resilient_auth", "doctor", "--timeout", "0.2")
    environ = os.environ | {"PYTHONIOENCODING": encoding}
    told = subprocess.run(
        [*given, "--certificate", str(tmp_path / "ключ.pem")],
        cwd=ROOT, env=environ, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert (told.returncode, told.stderr) == (3, b"")
    assert b"\\u043a\\u043b\\u044e\\u0447.pem" in told.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_findings_that_cannot_be_written_are_no_verdict() -> None:
    """A traceback would end with 1, which says that there are warnings."""
    with open("/dev/full", "w") as full:
        status, said = ended("doctor", "--timeout", "0.2", stdout=full.fileno())
    assert (status, said) == (2, "resilient-auth: what it says can't be written: No space left on device\n")


@pytest.mark.parametrize("seconds", ["inf", "nan", "-1", "0", "1e300", "soon", ""])
@pytest.mark.parametrize("command", ["health", "forecast"])
def test_a_time_that_is_none_is_bad_usage(command: str, seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    """And not the verdict 1, `at risk`, of a traceback, or 3."""
    assert main([command, "http://127.0.0.1:9/health", f"--timeout={seconds}"]) == 2
    assert "argument --timeout: it must be" in capsys.readouterr().err


def test_an_emulator_that_cannot_start_says_why(capsys: pytest.CaptureFixture[str], unused_port: int) -> None:
    """Which of its ports is taken, and what is out of range."""

    def told(*arguments: str) -> str:
        assert main(["emulator", *arguments]) == 1
        return capsys.readouterr().err

    with socket.create_server(("127.0.0.1", unused_port)):
        for option in ("--port", "--control-port"):
            told_of = told(option, str(unused_port))
            assert told_of == f"the emulator can't start: port {unused_port}: Address already in use\n"
    for number in ("65536", "-1"):
        assert f"api_port must be a number from 0 to 65535, not {number}" in told("--api-port", number)
    for seconds in ("inf", "nan", "-1", "1e300"):
        assert "token_lifetime must be a number from 0" in told("--token-lifetime", seconds)
        assert "refresh_in must be a number from 0" in told("--refresh-in", seconds)


@pytest.mark.usefixtures("own_directory")
def test_a_fault_for_a_time_that_is_none_is_told(idp: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """Before it is in force."""
    with announced(idp.control_url):
        for seconds in ("nan", "inf", "-1"):
            assert main(["emulator", "fail", "503", f"--for={seconds}"]) == 1
            assert "seconds must be a number from 0" in capsys.readouterr().err
    assert not idp.state()["faults"]
