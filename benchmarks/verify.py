"""What it costs to verify a token: one seen before, a new one, one whose key isn't known; PyJWT asked for the same."""

from __future__ import annotations

import asyncio
import json
import ssl
import statistics
import threading
import time
import urllib.request
import uuid
from typing import Any

import jwt

import resilient_auth as ra
from resilient_auth.emulator import Emulator, Fault
from resilient_auth.emulator.provider.realms import tenant_id
from resilient_auth.verify import SeenOptions

from .measure import in_turns, table

AUDIENCE = "api://bench"
TENANT = tenant_id("contoso")


def run() -> None:
    """Measure against an emulator whose keys are fetched once."""
    with Emulator() as idp:
        issuer = f"{idp.url}/{TENANT}/v2.0"

        def mint(**changes: Any) -> str:
            now = int(time.time())
            claims = {
                "iss": issuer, "aud": AUDIENCE, "tid": TENANT, "sub": uuid.uuid4().hex, "oid": str(uuid.uuid4()),
                "azp": str(uuid.uuid4()), "azpacr": "1", "scp": "Orders.Read Orders.Write", "name": "Ann",
                "preferred_username": "ann@contoso.com", "uti": uuid.uuid4().hex[:22], "ver": "2.0", "rh": "0.AXQA.",
                "iat": now, "nbf": now, "exp": now + 3600,
            }  # fmt: skip
            return idp.sign(claims | changes)

        about: dict[str, Any] = {"authority": idp.url, "verify": idp.ca_file}
        with (
            ra.ClaimsVerifier.for_entra(TENANT, AUDIENCE, **about) as ours,
            ra.ClaimsVerifier.for_entra(TENANT, AUDIENCE, seen=SeenOptions(tokens=0), **about) as forgetful,
        ):
            ours.warm_up()
            token = mint()
            ours.verify(token)
            forgetful.verify(token)
            key = _key_of(idp)

            def pyjwt() -> Any:
                return jwt.decode(
                    token,
                    key,
                    algorithms=["RS256"],
                    audience=AUDIENCE,
                    issuer=issuer,
                    leeway=60,
                    options={"require": ["exp", "iss", "aud"]},
                )

            costs = in_turns(
                {
                    "resilient_auth, seen before": lambda: ours.verify(token),
                    "resilient_auth, seen before, with scopes": lambda: ours.verify(token, scopes=("Orders.Read",)),
                    "resilient_auth, new": lambda: forgetful.verify(token),
                    "PyJWT decode, the same checks": pyjwt,
                }
            )
            table("a token that arrives", costs)
            ratio = costs["resilient_auth, new"] / costs["PyJWT decode, the same checks"]
            print(f"  a new token takes {ratio:.2f} times PyJWT's")
            asyncio.run(_asynchronously(idp, token))
            _flood(idp, ours, [mint() for _ in range(1000)])


def _key_of(idp: Emulator) -> jwt.PyJWK:
    with urllib.request.urlopen(
        f"{idp.url}/{TENANT}/discovery/v2.0/keys", context=ssl.create_default_context(cafile=idp.ca_file)
    ) as answer:
        return jwt.PyJWK(json.load(answer)["keys"][-1])


async def _asynchronously(idp: Emulator, token: str) -> None:
    async with ra.aio.ClaimsVerifier.for_entra(TENANT, AUDIENCE, authority=idp.url, verify=idp.ca_file) as verifier:
        await verifier.verify(token)
        count = 50_000
        begun = time.perf_counter()
        for _ in range(count):
            await verifier.verify(token)
        table("a token seen before, awaited", {"resilient_auth.aio": (time.perf_counter() - begun) / count})


def _flood(idp: Emulator, verifier: ra.ClaimsVerifier, good: list[str]) -> None:
    """Good new tokens with the provider gone and 10,000 forged `kid`s meanwhile."""
    _, payload, signature = good[0].split(".")
    before = sum(call.endpoint == "jwks" for call in idp.ledger.calls)
    quiet = _p99(verifier, good[:500])
    idp.fail(Fault.http_503())

    def forge() -> None:
        for n in range(10_000):
            header = jwt.utils.base64url_encode(f'{{"alg":"RS256","typ":"JWT","kid":"forged{n}"}}'.encode()).decode()
            try:
                verifier.verify(f"{header}.{payload}.{signature}")
            except (ra.InvalidToken, ra.VerificationUnavailable):
                continue

    forger = threading.Thread(target=forge)
    forger.start()
    loud = _p99(verifier, good[500:])
    forger.join()
    fetches = sum(call.endpoint == "jwks" for call in idp.ledger.calls) - before
    table("new tokens, median of processor time", {"quiet": quiet[0], "in a flood and an outage": loud[0]})
    table("new tokens, 99th percentile of processor time", {"quiet": quiet[1], "in a flood and an outage": loud[1]})
    print(f"  10,000 forged kids caused {fetches} fetch(es)")


def _p99(verifier: ra.ClaimsVerifier, tokens: list[str]) -> tuple[float, float]:
    spent = []
    for token in tokens:
        begun = time.thread_time()
        verifier.verify(token)
        spent.append(time.thread_time() - begun)
    return statistics.median(spent), sorted(spent)[int(len(spent) * 0.99)]
