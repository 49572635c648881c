"""What an owner sees: metrics and traces, by OpenTelemetry or Prometheus; service levels, and alerts."""

from __future__ import annotations

import atexit
import importlib
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from .._credentials.credential import cores
from .._engine.cache import forget_hits
from .._process import forks, observing
from .._process.extras import raise_missing
from ..errors import ConfigurationError
from ..verify.counted import count_anew
from .listening import Listening
from .reading import begin_anew, current, handing_on

if TYPE_CHECKING:
    from ..clock import Clock
    from ..store import Store
    from .levels.endings import SecretExpires
    from .levels.graph import graph_secret_ends as graph_secret_ends
    from .levels.values import Alert as Alert
    from .levels.values import Bucket as Bucket
    from .levels.values import Comparison as Comparison
    from .levels.values import ServiceLevel as ServiceLevel
    from .levels.values import ServiceLevels as ServiceLevels
    from .levels.values import Totals as Totals
    from .levels.watching import Watch as Watch
    from .levels.webhooks import Webhook as Webhook
    from .meters import Meters
    from .prometheus import PrometheusCollector

#: Names that are loaded when they are first used, and where they are.
_LATER = {
    **dict.fromkeys(("Alert", "Bucket", "Comparison", "ServiceLevel", "ServiceLevels", "Totals"), "values"),
    "Watch": "watching",
    "Webhook": "webhooks",
    "graph_secret_ends": "graph",
}

__all__ = ["instrument", "prometheus_collector", "service_levels", "uninstrument", "watch", *_LATER]

_SCOPE = "resilient_auth"


class _State:
    """What is on."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        #: The owner's providers of meters and tracers.
        self.providers: tuple[Any, Any] | None = None
        #: The instruments that were made, by provider: they can't be taken back, and aren't made twice.
        self.meters: list[tuple[Any, Meters]] = []
        #: Whether OpenTelemetry or Prometheus are told; and what measures service levels.
        self.exports = False
        self.watch: Watch | None = None


_state = _State()


def instrument(meter_provider: Any = None, tracer_provider: Any = None) -> None:
    """Give OpenTelemetry this process's metrics and spans from now on.

    A second call with the same providers changes nothing. Callers are never held up, and never fail, because of it.

    Args:
        meter_provider: The owner's; OpenTelemetry's global one when not given.
        tracer_provider: The owner's; OpenTelemetry's global one when not given.

    Raises:
        ConfigurationError: A provider isn't one, or others are in use: call `uninstrument` first.
        ModuleNotFoundError: The extra `otel` isn't installed.
    """
    try:
        from opentelemetry import metrics, trace

        from .meters import Meters
        from .tracing import Spans
    except ImportError as error:
        raise_missing("resilient_auth.telemetry.instrument", "otel", error)
    for name, given, method in (
        ("meter_provider", meter_provider, "get_meter"),
        ("tracer_provider", tracer_provider, "get_tracer"),
    ):
        if given is not None and not callable(getattr(given, method, None)):
            raise ConfigurationError(f"{name} must be one of OpenTelemetry's, with {method}(), not {given!r}")
    from .. import __version__

    meter_provider = metrics.get_meter_provider() if meter_provider is None else meter_provider
    tracer_provider = trace.get_tracer_provider() if tracer_provider is None else tracer_provider
    forks.notice()
    with _state.lock:
        if _state.providers is not None:
            if _state.providers[0] is meter_provider and _state.providers[1] is tracer_provider:
                return
            raise ConfigurationError("other providers are in use already: call resilient_auth.telemetry.uninstrument()")
        meters = next((made for provider, made in _state.meters if provider is meter_provider), None)
        if meters is None:
            # At the exit, what came last goes first: the owner's provider, which was made before, ends after it.
            atexit.register(_flush)
            meters = Meters(meter_provider.get_meter(_SCOPE, __version__), partial(_tells, meter_provider))
            _state.meters.append((meter_provider, meters))
        _state.providers, _state.exports = (meter_provider, tracer_provider), True
        record = meters.record
        current.summed = lambda *value: handing_on.put(partial(record, *value))
        current.tracer = Spans(tracer_provider.get_tracer(_SCOPE, __version__), handing_on)
        _begin()


def prometheus_collector() -> PrometheusCollector:
    """Return a collector of this process's metrics, which are counted from now on until `uninstrument`.

    Give it to a registry, once: `prometheus_client.REGISTRY.register(ra.telemetry.prometheus_collector())`. Each
    process has numbers of its own.

    Raises:
        ModuleNotFoundError: The extra `prometheus` isn't installed.
    """
    from .prometheus import PrometheusCollector

    forks.notice()
    with _state.lock:
        _state.exports = True
        _begin()
    return PrometheusCollector()


def watch(
    *,
    store: Store | None = None,
    name: str = "application",
    webhook: Webhook | None = None,
    fall: float | None = 0.25,
    objective: float | None = 0.999,
    least: int = 100,
    secret_expires: SecretExpires | None = None,
    clock: Clock | None = None,
) -> Watch:
    """Measure service levels from now on, and tell of alerts and of credentials that end (G25, G24).

    Once a minute, on a thread of its own, it looks at what was counted. Alerts are events, and messages to a webhook;
    `service_levels` tells the numbers. A token that memory serves costs what it costs with metrics.

    Args:
        store: Where counts and alerts outlive the process, and are summed over a fleet: then each alert is told once by
            all of them together. Without one, by each process.
        name: What is watched: processes with the same name in a store are one fleet.
        webhook: Who is told, besides listeners and the log.
        fall: Share by which requests of half an hour must be fewer than those a day before and those a week before,
            from 0.05 to 1; None for no such alert.
        objective: Share of requests that is to succeed, from 0.95 to 0.99999; None for no such alert.
        least: Requests in the half hour before, at least, for a fall to mean anything.
        secret_expires: When client secrets end: a date, an aware datetime or several of them by client id; or a
            function that returns that, such as one of `graph_secret_ends`, which is asked once a day. What certificates
            say is known without.
        clock: Where the time comes from; for tests.

    Returns:
        What `close` ends; a context manager.

    Raises:
        ConfigurationError: An option is wrong, or a watch is on already.
    """
    from .levels.options import WatchOptions
    from .levels.watching import Watch

    options = WatchOptions(
        store=store,
        name=name,
        webhook=webhook,
        fall=fall,
        objective=objective,
        least=least,
        secret_expires=secret_expires,
        clock=clock,
    )
    forks.notice()
    made = Watch(options, current.tally, _end_watch)
    with _state.lock:
        if _state.watch is not None:
            raise ConfigurationError("a watch is on already: close() that one first")
        _begin()
        _state.watch = made
    # An exit writes down what was counted last.
    atexit.register(made.close)
    made.begin()
    return made


def service_levels() -> ServiceLevels:
    """Return requests and success rates, against the periods before, and what alerts are open (G25).

    Nobody is asked: with a store, what was read of it last is told, and it is read again in the background. Without a
    `watch` all is zero.
    """
    from .levels.counts import Counts
    from .levels.watching import levels_of

    on = _state.watch
    return levels_of(Counts(), time.time(), watched=False) if on is None else on.levels()


def uninstrument() -> None:
    """Observe nothing more, and forget what was counted: it costs nothing from now on, unless a watch is on."""
    forks.notice()
    with _state.lock:
        _state.providers = current.summed = current.tracer = None
        _state.exports = False
        _end()


def _end_watch(one: Watch) -> None:
    atexit.unregister(one.close)
    with _state.lock:
        if _state.watch is one:
            _state.watch = None
        _end()


def _end() -> None:
    """Observe no more where nobody wants it."""
    if _state.exports or _state.watch is not None:
        return
    observing.observe(None)
    begin_anew()
    for _, meters in _state.meters:
        meters.begin_anew()
    _swap()


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.levels.{_LATER[name]}"), name)


def _begin() -> None:
    if observing.observer is not current:
        current.listening = Listening(current)
        observing.observe(current)
        _swap()


def _swap() -> None:
    """Have what answers from memory made anew: what counts takes the place of what doesn't, or the other way round."""
    forget_hits()
    for core in cores.all():
        core.ready.clear()
    count_anew()


def _tells(provider: Any) -> bool:
    return _state.providers is not None and _state.providers[0] is provider


def _flush() -> None:
    current.settle()
    handing_on.flush(1.0)


@forks.renewed
def _after_fork() -> None:
    _state.lock = threading.Lock()
    for _, meters in _state.meters:
        meters.begin_anew()


@forks.resumed
def _resume() -> None:
    if _state.watch is not None:
        _state.watch.begin()
