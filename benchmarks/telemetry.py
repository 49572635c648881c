"""What telemetry costs: a token that memory holds, a token that was seen, and an exchange, with it off and on."""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from typing import Any

import httpx
import prometheus_client
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import resilient_auth as ra
from resilient_auth.drill.plan import Plan, scenario
from resilient_auth.drill.run import run as run_drill
from resilient_auth.emulator import Emulator
from resilient_auth.emulator.provider.realms import tenant_id

from .measure import in_turns, table

SCOPES = ["api://bench/.default"]
TENANT = tenant_id("contoso")
_ROUNDS = 30


def run() -> None:
    """Measure in turns against one emulator, so that a machine whose speed drifts treats both alike."""
    with Emulator(token_lifetime=24 * 3600.0) as idp:
        app = ra.msal.ConfidentialClientApplication(
            "bench", "secret", authority=idp.authority("contoso"), instance_discovery=False, verify=str(idp.ca_file)
        )
        token = app.acquire_token_for_client(SCOPES)["access_token"]
        credential = ra.ResilientCredential(app)
        about: dict[str, Any] = {"authority": idp.url, "verify": idp.ca_file}
        with ra.ClaimsVerifier.for_entra(TENANT, "api://bench", **about) as verifier:
            calls = {
                "a held token": lambda: app.acquire_token_for_client(SCOPES),
                "a credential's held token": lambda: credential.get_token(*SCOPES),
                "a token that was verified before": lambda: verifier.verify(token),
            }
            costs: dict[str, list[dict[str, float]]] = {"off": [], "on": []}
            provider = _on()
            for _ in range(_ROUNDS):
                for state in ("off", "on"):
                    if state == "on":
                        ra.telemetry.instrument(*provider)
                    for call in calls.values():
                        call()
                    costs[state].append(in_turns(calls, rounds=3, seconds=0.01))
                    ra.telemetry.uninstrument()
        for name in calls:
            # The least of each is what it takes; the rest is the machine's.
            off, on = (min(each[name] for each in costs[state]) for state in ("off", "on"))
            table(name, {"off": off, "on": on})
            print(f"  {(on - off) * 1e9:.0f} ns more")
        _exchanges(app, provider)
        _api_calls(provider)
        app.close()
    _scrape()
    _drill()


def _on() -> tuple[MeterProvider, TracerProvider]:
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
    return MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False), tracers


def _exchanges(app: Any, provider: tuple[MeterProvider, TracerProvider]) -> None:
    """Measure whole exchanges, each for a scope of its own."""
    numbers = itertools.count()
    costs: dict[str, list[float]] = {"off": [], "on": []}
    for _ in range(100):
        for state, taken in costs.items():
            if state == "on":
                ra.telemetry.instrument(*provider)
            begun = time.perf_counter()
            app.acquire_token_for_client([f"api://bench-{next(numbers)}/.default"])
            taken.append(time.perf_counter() - begun)
            ra.telemetry.uninstrument()
    medians = {state: statistics.median(taken) for state, taken in costs.items()}
    table("an exchange", medians, unit="ms", scale=1e3)


def _api_calls(provider: tuple[MeterProvider, TracerProvider]) -> None:
    """Measure calls to an API that answers at once, in memory: what is ours of them."""
    answers = httpx.MockTransport(lambda _: httpx.Response(200))
    costs: dict[str, list[float]] = {"off": [], "on": []}
    with httpx.Client(transport=ra.ResilientTransport(answers)) as client:
        for _ in range(_ROUNDS):
            for state, taken in costs.items():
                if state == "on":
                    ra.telemetry.instrument(*provider)
                taken.append(in_turns({"": lambda: client.get("https://api.example")}, rounds=3, seconds=0.01)[""])
                ra.telemetry.uninstrument()
    table("a call to an API, without a network", {state: statistics.median(taken) for state, taken in costs.items()})


def _scrape() -> None:
    registry = prometheus_client.CollectorRegistry()
    registry.register(ra.telemetry.prometheus_collector())
    costs = in_turns({"Prometheus": lambda: prometheus_client.generate_latest(registry)})
    table("a scrape", costs, unit="ms", scale=1e3)
    ra.telemetry.uninstrument()


def _drill() -> None:
    """Count what the drill's process serves at its highest rate, in turns."""
    served: dict[str, list[float]] = {"off": [], "on": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(5):
            for state, counts in served.items():
                plan = Plan(
                    scenarios=(scenario("http_503"),),
                    rate=1000.0,
                    healthy=2.0,
                    outage=6.0,
                    recovery=0.0,
                    telemetry=folder if state == "on" else None,
                )
                (outcome,) = run_drill(plan, lambda _: None)
                counts.append(outcome.sdk.served / plan.outage)
    off, on = (statistics.median(counts) for counts in served.values())
    print("\na drill at 1,000 requests a second, in its outage")
    print(f"  served with telemetry off {off:.0f} a second, on {on:.0f}: {100 * (1 - on / off):.1f} % fewer")
