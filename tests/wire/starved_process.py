"""A process that has no file descriptor left, and says on its standard output what it took that for."""

from __future__ import annotations

import json
import os
import resource
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import requests

for _name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
    os.environ.pop(_name, None)

import resilient_auth as ra  # noqa: E402 - after the environment is cleaned
from resilient_auth import msal  # noqa: E402
from resilient_auth.verify import GraceOptions  # noqa: E402

SCOPE = ["https://graph.microsoft.com/.default"]


class Clock:
    """The real one, which can skip ahead."""

    skipped = 0.0

    def wall(self) -> float:
        return time.time() + self.skipped

    def monotonic(self) -> float:
        return time.monotonic() + self.skipped

    def wait(self, condition: Any, timeout: float | None) -> bool:
        return bool(condition.wait(0.02 if timeout is None else min(timeout, 0.02)))


@contextmanager
def starved() -> Iterator[None]:
    """Leave no descriptor: a limit as low as can be, and every place below it taken."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
    held = []
    try:
        while True:
            held.append(os.dup(0))
    except OSError:
        pass
    try:
        yield
    finally:
        for one in held:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def main() -> None:
    about = json.loads(sys.argv[1])
    clock, said = Clock(), {}
    settings = ra.Settings(
        clock=clock,
        retry=ra.RetryOptions(attempts=1),
        breaker=ra.BreakerOptions(consecutive_failures=1),
        fallback=ra.FallbackOptions(grace=900.0),
        store=ra.FileStore(about["store"], key=bytes(range(32)), clock=clock),
    )
    app = msal.ConfidentialClientApplication(
        "daemon",
        client_credential="s3cret-of-the-daemon",
        authority=about["authority"],
        verify=about["ca_file"],
        instance_discovery=False,
        resilience=settings,
        http_client=_own_client(about) if about["client"] == "requests" else None,
    )
    verifier = ra.ClaimsVerifier.for_entra(
        "contoso", "api://orders", authority=about["url"], verify=about["ca_file"], settings=settings,
        grace=GraceOptions(),
    )  # fmt: skip
    transport = ra.ResilientTransport(
        httpx.HTTPTransport(verify=ssl.create_default_context(cafile=about["ca_file"])),
        options=ra.TransportOptions(attempts=1, breaker=ra.BreakerOptions(consecutive_failures=1), clock=clock),
    )
    api = httpx.Client(transport=transport, base_url=about["api_url"])
    token = app.acquire_token_for_client(SCOPE)
    verifier.warm_up()
    (source,) = verifier._core._sources.values()
    (watch,) = verifier._core._watches.values()

    def ask() -> str:
        try:
            answer = app.acquire_token_for_client(SCOPE)
        except ra.ProviderUnavailable as error:
            return error.code
        same = answer["access_token"] == token["access_token"]
        return f"{answer['token_source']} {'same' if same else 'other'}"

    _look(watch, clock)
    for each in (app._ra_transport, source.documents.transport):
        each.wire.close()
    with starved():
        clock.skipped += 0.9 * token["expires_in"]
        said["valid"] = ask()
        clock.skipped += 0.2 * token["expires_in"]
        said["expired"] = [ask() for _ in range(4)]
        for _ in range(4):
            _look(watch, clock)
        said["seen down"] = watch.observation.failed
        try:
            api.get("/")
        except httpx.ConnectError as error:
            said["api"] = type(error).__name__
    health = ra.health()
    troubled = [b for b in health.breakers if b.state != "closed" or b.failing_since]
    said["breakers"] = {f"{b.name} {b.wire}": b.state for b in troubled}
    said["hints"] = sum(1 for _ in settings.store.scan("hint"))
    said["stores"] = [store.state for store in health.stores]
    said["after"] = [ask(), api.get("/").status_code]
    print(json.dumps(said))


def _own_client(about: Any) -> requests.Session:
    session = requests.Session()
    session.verify = about["ca_file"]
    return session


def _look(watch: Any, clock: Clock) -> None:
    before = watch.observation
    clock.skipped += 61.0
    ends = time.monotonic() + 0.8
    while watch.observation is before and time.monotonic() < ends:
        time.sleep(0.01)


if __name__ == "__main__":
    main()
