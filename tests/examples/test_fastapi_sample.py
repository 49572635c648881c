"""The sample of an API serves every request that can be served through an outage, and hands claims challenges on."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from resilient_auth import msal
from resilient_auth.emulator import Emulator, Fault

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "examples" / "fastapi_api"
SCOPE = "api://orders/orders.read"

FOREIGN = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY",
           "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")  # fmt: skip


def load_run() -> ModuleType:
    """Load the sample's run.py under a name of its own: another sample has one too."""
    spec = importlib.util.spec_from_file_location("fastapi_api_run", SAMPLE / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


class Api:
    """The sample as a process, and what its callers have."""

    def __init__(self, emulator: Emulator, folder: Path) -> None:
        self.run = load_run()
        self.emulator = emulator
        self.environment = self.run.environment(emulator, folder, self.run.free_port())
        self.url = f"http://127.0.0.1:{self.environment['PORT']}"
        self.program = self.run.start(self.environment)
        self.client = httpx.Client(base_url=self.url, trust_env=False, timeout=10)

    def get(self, path: str, token: str, method: str = "GET") -> httpx.Response:
        return self.client.request(method, path, headers={"Authorization": f"Bearer {token}"})

    def caller(self, **options: Any) -> Any:
        """Make an application of the API's callers, which declares cp1 unless it is told otherwise."""
        given = {"client_capabilities": ["cp1"]} | options
        return msal.ConfidentialClientApplication(
            f"caller-{uuid.uuid4()}",
            authority=self.run.AUTHORITY,
            client_credential="any will do here",
            proxies={"https": self.emulator.proxy_url},
            verify=self.emulator.ca_file,
            **given,
        )

    def new_user(self) -> str:
        name = f"{uuid.uuid4()}@contoso.com"
        self.emulator.add_user(name)
        return name

    def token(self, *scopes: str, user: str | None = None, **options: Any) -> str:
        with self.caller(**options) as app:
            result = app.acquire_token_by_username_password(user or self.new_user(), "pw", list(scopes or (SCOPE,)))
        return str(result["access_token"])

    def app_token(self) -> str:
        with self.caller() as app:
            return str(app.acquire_token_for_client(["api://orders/.default"])["access_token"])

    def restart(self) -> None:
        self.program.terminate()
        self.program.status()
        self.program.kill()
        self.program = self.run.start(self.environment)

    def close(self) -> None:
        self.client.close()
        self.program.kill()


@pytest.fixture(scope="module")
def api(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    running = Api(emulator, tmp_path_factory.mktemp("api"))
    yield running
    running.close()


@pytest.fixture(autouse=True)
def healthy(emulator: Emulator, own_environment: None) -> Iterator[None]:
    yield
    emulator.heal()
    emulator.allow()


def wanted(answer: httpx.Response) -> Any:
    """Read the claims that a 401 asks for."""
    found = re.search('error="insufficient_claims".*claims="([^"]+)"', answer.headers["WWW-Authenticate"])
    assert found is not None, answer.headers
    return json.loads(base64.b64decode(found[1]))


@pytest.mark.parametrize(
    ("path", "kind", "status", "code"),
    [
        ("/orders", None, 401, "missing"),
        ("/orders", "forged", 401, None),
        ("/orders", "other scope", 403, "insufficient_scope"),
        ("/orders", "app", 403, None),
        ("/audit", "user", 403, None),
        ("/audit", "app", 200, None),
        ("/me", "user", 200, None),
    ],
)
def test_each_route_admits_whom_it_should(api: Api, path: str, kind: str | None, status: int, code: str | None) -> None:
    """By scopes for users, by roles for applications."""
    if kind is None:
        answer = api.client.get(path)
    else:
        made = {
            "forged": lambda: api.token()[:-8] + "AAAAAAAA",
            "other scope": lambda: api.token("api://orders/other"),
            "user": api.token,
            "app": api.app_token,
        }
        answer = api.get(path, made[kind]())
    assert answer.status_code == status, answer.text
    if code is not None:
        assert answer.json()["detail"]["code"] == code


def test_the_inventory_is_asked_on_behalf_of_the_user_once_per_token(api: Api) -> None:
    """With a token for it, got for the caller's token, and held for that one."""
    user = api.new_user()
    token = api.token(user=user)
    before = len(api.emulator.ledger.token_calls())
    for _ in range(3):
        assert api.get("/orders", token).json()["stock"]["for"] == user
    calls = api.emulator.ledger.token_calls()[before:]
    made = [call for call in calls if "jwt-bearer" in (call.grant_type or "")]
    assert len(made) == 1
    other = api.new_user()
    assert api.get("/orders", api.token(user=other)).json()["stock"]["for"] == other


def test_a_challenge_of_the_inventory_reaches_a_caller_that_can_meet_it(api: Api) -> None:
    """One that declared cp1 gets the claims, and is served with a token that has them (G17)."""
    user = api.new_user()
    with api.caller() as app:
        result = app.acquire_token_by_username_password(user, "pw", [SCOPE])
        assert api.get("/orders", result["access_token"]).json()["stock"]
        api.emulator.revoke(user)
        refused = api.get("/orders", result["access_token"])
        assert refused.status_code == 401
        assert "nbf" in wanted(refused)["access_token"]
        (account,) = app.get_accounts()
        again = app.acquire_token_silent([SCOPE], account, claims_challenge=json.dumps(wanted(refused)))
    assert api.get("/orders", again["access_token"]).json()["stock"]["for"] == user


def test_a_challenge_of_the_inventory_is_a_plain_no_to_others(api: Api) -> None:
    """They would send the same token again for ever."""
    user = api.new_user()
    token = api.token(user=user, client_capabilities=None)
    assert api.get("/orders", token).json()["stock"]
    api.emulator.revoke(user)
    refused = api.get("/orders", token)
    assert (refused.status_code, refused.json()["detail"]["code"]) == (403, "insufficient_claims")
    assert "claims=" not in refused.headers["WWW-Authenticate"]


def test_a_user_whom_the_provider_wants_to_see_is_asked_to_sign_in(api: Api) -> None:
    """It named no claims, so there are none to hand on."""
    api.emulator.deny("jwt-bearer", "invalid_grant")
    refused = api.get("/orders", api.token())
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'


def test_our_own_fault_costs_the_user_the_stock_alone(api: Api) -> None:
    """A wrong client secret, for one."""
    api.emulator.deny("jwt-bearer", "invalid_client", status=401)
    answer = api.get("/orders", api.token()).json()
    assert (answer["stock"], bool(answer["orders"]), bool(answer["reduced"])) == (None, True, True)


def test_the_api_itself_asks_for_more_than_a_password(api: Api) -> None:
    """401 with the authentication context for who declared cp1, else 403; and the refund for who has it."""
    scope = "api://orders/orders.refund"
    refused = api.get("/orders/1001/refund", api.token(scope), "POST")
    assert refused.status_code == 401
    assert wanted(refused) == {"access_token": {"acrs": {"essential": True, "value": "c1"}}}
    token = api.token(scope, client_capabilities=None)
    assert api.get("/orders/1001/refund", token, "POST").status_code == 403
    # The emulator knows no authentication contexts: this is what a provider would issue after the step-up.
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    stepped_up = api.emulator.sign(claims | {"acrs": ["c1"]}, {"typ": "JWT"})
    assert api.get("/orders/1001/refund", stepped_up, "POST").json() == {"refunded": "1001"}
    assert api.get("/orders/7/refund", stepped_up, "POST").status_code == 404


def test_an_inventory_that_fails_costs_the_stock_alone(api: Api) -> None:
    token = api.token()
    api.emulator.fail(Fault.http_503(), endpoint="api")
    answer = api.get("/orders", token)
    assert (answer.status_code, answer.json()["stock"]) == (200, None)
    assert "can't be shown right now" in answer.json()["reduced"]


def test_the_documentation_names_the_scheme(api: Api) -> None:
    """Whoever looks at OpenAPI sees what to send."""
    document = api.client.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert document["paths"]["/orders"]["get"]["security"] == [{"bearer": []}]


def test_operators_alone_see_the_status_page_and_the_metrics(api: Api) -> None:
    """Probes are for everybody; the page and the numbers name whom the API asks."""
    api.get("/orders", api.token())
    password = api.environment["OPERATOR_PASSWORD"]
    for path in ("/status", "/status/now", "/status/events", "/metrics"):
        for given in (None, ("ops", "wrong")):
            assert api.client.get(path, auth=given).status_code == 401
    assert api.client.get("/health/ready").json() == {"ready": True}
    page = api.client.get("/status", auth=("ops", password))
    assert "All is well" in page.text
    assert "script-src 'sha256-" in page.headers["Content-Security-Policy"]
    assert "@contoso.com" not in page.text
    assert "resilient_auth_acquisitions_total" in api.client.get("/metrics", auth=("ops", password)).text


@pytest.mark.slow
def test_a_start_in_an_outage_serves_who_was_served_before(api: Api, emulator: Emulator) -> None:
    """Keys are pinned, tokens for the inventory are stored; a forged token is told from a good one all the same."""
    old, new, forged = api.token(), api.token(), api.token()[:-8] + "AAAAAAAA"
    assert api.get("/orders", old).json()["stock"]
    emulator.fail(Fault.refuse())
    api.restart()
    began = time.monotonic()
    answer = api.get("/me", old)
    assert (answer.status_code, answer.json()["keys"]) == (200, "pinned")
    assert api.get("/orders", old).json()["stock"]
    assert time.monotonic() - began < 2.0
    answer = api.get("/orders", new)
    assert (answer.status_code, answer.json()["stock"]) == (200, None)
    assert answer.json()["orders"]
    assert api.get("/orders", forged).status_code == 401
    assert api.client.get("/health").status_code == 200


@pytest.mark.slow
def test_the_sample_serves_every_request_through_an_outage() -> None:
    """As its README says: with nothing but this sample and the emulator."""
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    ended = subprocess.run(
        [sys.executable, str(SAMPLE / "run.py")],
        env=environment, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    told = ended.stdout + ended.stderr
    assert ended.returncode == 0, told
    assert "the API ended in order" in told
    assert "eyJ" not in told
    assert "a secret of the emulator" not in told
