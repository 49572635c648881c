from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from resilient_auth.emulator import serve

ROOT = Path(__file__).parents[2]


@pytest.fixture
def control(idp):
    with httpx.Client(base_url=idp.control_url, timeout=5, trust_env=False) as http:
        yield http


def test_state_tells_the_addresses_and_the_faults(idp, control):
    """Another process learns everything it needs from one address."""
    control.post("/fail", json={"fault": "429:5", "endpoint": "token"})
    state = control.get("/state").json()
    assert state["url"] == idp.url
    assert state["ca_file"] == idp.ca_file
    assert state["faults"] == [{"fault": "http_429", "endpoint": "token", "on": True, "left": None}]


def test_faults_are_injected_and_healed(idp, control, ask):
    """The commands do what the methods do, options included."""
    fault = {"fault": "http_503", "options": {"retry_after": 9}, "endpoint": "token", "match": {"client_id": "daemon"}}
    assert control.post("/fail", json=fault).json() == {"ok": True}
    assert ask().headers["retry-after"] == "9"
    assert ask(client_id="other").status_code == 200
    control.post("/heal", json={})
    assert ask().status_code == 200
    control.post("/schedule", json={"plan": [{"start": 0, "stop": 5, "fault": "html-200"}]})
    while ask().headers["content-type"] != "text/html; charset=utf-8":
        pass


def test_the_ledger_is_readable(idp, control, ask):
    """Calls and tokens come as JSON, with what is revoked marked."""
    ask()
    control.post("/revoke", json={"subject": "daemon"})
    books = control.get("/ledger").json()
    assert [call["endpoint"] for call in books["calls"]] == ["token"]
    assert books["tokens"][0]["revoked"] is True
    control.post("/clear", json={})
    assert control.get("/ledger").json() == {"calls": [], "tokens": []}


def test_everything_else_is_there_too(idp, control, ask, desktop):
    """Settings, keys, users, devices and denials can be commanded from outside."""
    control.post("/set", json={"token_lifetime": 60, "refresh_in": 30})
    assert ask().json()["refresh_in"] == 30
    assert control.post("/roll_keys", json={}).json()["kid"] == idp._running.keys.current.kid
    control.post("/drop_old_keys", json={})
    assert control.post("/add_user", json={"username": "eve@contoso.com"}).json()["oid"]
    app = desktop()
    flow = app.initiate_device_flow(["api://a/b"])
    control.post("/approve_device", json={"user_code": flow["user_code"], "username": "eve@contoso.com"})
    assert "access_token" in app.acquire_token_by_device_flow(flow)
    control.post("/deny", json={"grant": "*", "error": "access_denied"})
    assert ask().json()["error"] == "access_denied"
    control.post("/allow", json={})
    assert ask().status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/fail", b"{", 400),
        ("/fail", b"[]", 400),
        ("/fail", b"{}", 400),
        ("/fail", b'{"fault": "nonsense"}', 400),
        ("/fail", b'{"fault": "503", "options": 3}', 400),
        ("/set", b'{"token_lifetime": "long"}', 400),
        ("/set", b'{"ledger": 1}', 400),
        ("/revoke", b"{}", 400),
        ("/nothing", b"{}", 404),
        ("/state", b"{}", 405),
    ],
)
def test_bad_commands_are_told_so(control, path, body, status):
    """A command that can't be carried out answers with the reason."""
    answer = control.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert answer.json()["error"]


def test_control_is_never_failed_and_only_local(idp, control):
    """Faults don't reach the control port, and a foreign name doesn't either."""
    for fault in ("503", "refuse", "tls-failed"):
        control.post("/fail", json={"fault": fault})
    assert control.get("/state").status_code == 200
    assert control.get("/state", headers={"Host": "evil.example"}).status_code == 403
    assert idp.ledger.calls == ()


@pytest.mark.parametrize("path", ["/fail", "/heal", "/clear", "/roll_keys"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 415),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "text/plain; application/json"}, 415),
        ({"Content-Type": "application/json", "Origin": "https://evil.example"}, 403),
        ({"Content-Type": "application/json", "Origin": "http://localhost:3000"}, 403),
        ({"Content-Type": "application/json", "Origin": "null"}, 403),
        ({"Content-Type": "application/json", "Host": "evil.example"}, 403),
        ({"Content-Type": "application/json", "Host": "127.0.0.1.evil.example"}, 403),
        ({"Content-Type": "application/json", "Host": "evil.example", "Origin": "http://evil.example"}, 403),
    ],
)
def test_a_page_in_a_browser_commands_nothing(idp, control, ask, path, headers, status):
    """Neither by a form, nor by a script that may send what needs no question, nor by a name that leads to loopback."""
    ask()
    kid = idp._running.keys.current.kid
    control.post("/fail", json={"fault": "429:5", "endpoint": "api"})
    answer = control.post(path, content=b'{"fault": "503"}', headers=headers)
    assert answer.status_code == status
    assert answer.json()["error"]
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert [fault["fault"] for fault in control.get("/state").json()["faults"]] == ["http_429"]
    assert (len(idp.ledger.calls), idp._running.keys.current.kid) == (1, kid)


@pytest.mark.parametrize("path", ["/ledger", "/state"])
def test_a_page_in_a_browser_reads_nothing(control, path):
    """It isn't told that it may, and where it says whence it comes it gets nothing."""
    assert control.get(path, headers={"Origin": "https://evil.example"}).status_code == 403
    assert control.options(path, headers={"Origin": "https://evil.example"}).status_code == 403
    assert "access-control-allow-origin" not in control.get(path).headers


def test_programs_may_say_more_than_they_must(idp, control):
    """A charset, capitals and the port's own origin do no harm."""
    headers = {"Content-Type": "Application/JSON; charset=utf-8", "Origin": idp.control_url}
    assert control.post("/heal", content=b"", headers=headers).json() == {"ok": True}


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_serve_runs_until_it_is_told_to_stop(stop):
    """The program prints its addresses, serves, and ends cleanly at a signal."""
    code = "import sys; from resilient_auth.emulator import serve; sys.exit(serve(['--token-lifetime', '77']))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as process:
        greeting = ""
        while "Ctrl+C" not in greeting:
            greeting += process.stdout.readline()
        address = re.search(r"control +(\S+)", greeting)[1]
        assert httpx.get(f"{address}/state", trust_env=False).json()["token_lifetime"] == 77
        ca_file = re.search(r"CA certificate +(\S+)", greeting)[1]
        process.send_signal(stop)
        assert process.wait(5) == 0
    assert not Path(ca_file).exists()


def test_serve_tells_what_is_wrong(idp, capsys):
    """A port that is taken, or a lifetime that makes no sense, is told without a traceback."""
    taken = idp.control_url.rpartition(":")[2]
    assert serve(["--port", taken]) == 1
    assert "can't start" in capsys.readouterr().err
    assert serve(["--token-lifetime=-1"]) == 1
