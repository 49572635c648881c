"""Each metric is told where what it is about has happened: none of them is a name alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from exported import SCOPE, Seen
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

import resilient_auth as ra
from resilient_auth.callouts import BackgroundWrites
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.telemetry.metrics import METRICS
from resilient_auth.telemetry.prometheus import name_of

#: Told only where there is something wrong that takes long to make, or a certificate.
_ELSEWHERE = {"resilient_auth.credential.remaining"}


def test_every_metric_is_told(
    seen: Seen,
    idp: Emulator,
    daemon: Callable[..., Any],
    settings: Callable[..., ra.Settings],
    clock: Any,
    tmp_path: Path,
    eventually: Callable[..., None],
) -> None:
    """By Prometheus, by the name on the page, with the labels on the page, in text that its own parser reads."""
    store = ra.FileStore(tmp_path / "store", key=os.urandom(32))
    wanted = {name_of(metric): metric for name, metric in METRICS.items() if name not in _ELSEWHERE}
    app = daemon(resilience=settings(store=store, keep_fresh=(tuple(SCOPE),), wait=0.2))
    token = app.acquire_token_for_client(SCOPE)["access_token"]
    app.acquire_token_for_client(SCOPE)
    issuer = jwt.decode(token, options={"verify_signature": False})["iss"]
    discovery = f"{idp.authority('contoso')}/v2.0/.well-known/openid-configuration"
    verifier = ra.ClaimsVerifier(issuer=issuer, audience="api://orders", discovery=discovery, verify=idp.ca_file)
    verifier.verify(token)
    with httpx.Client(transport=ra.ResilientTransport(httpx.MockTransport(lambda _: httpx.Response(200)))) as client:
        client.get("https://orders.example/1")
    writes = BackgroundWrites("told", lambda write: None, store=store)
    throttled = idp.fail(Fault.http_429(retry_after=3), "token", count=1)
    with pytest.raises(ra.ProviderUnavailable):
        app.acquire_token_for_client(["api://throttled/.default"])
    throttled.stop()
    ra.isolate(idp.url)
    with pytest.raises(ra.CircuitOpen):
        app.acquire_token_for_client(["api://last/.default"])
    found: dict[str, set[str]] = {}

    def told() -> dict[str, set[str]]:
        """What was told so far: a queue is told while it isn't empty."""
        for family in text_string_to_metric_families(generate_latest(seen.registry).decode()):
            for sample in family.samples:
                name = sample.name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum")
                found[name] = set(sample.labels) - {"le"}
        return found

    eventually(lambda: not wanted.keys() - told().keys())
    labels = {name: {label.replace(".", "_") for label in metric.labels} for name, metric in wanted.items()}
    assert labels == {name: found[name] for name in wanted}
    ra.reset(idp.url)
    verifier.close()
    writes.close()
    store.close()
