"""What an owner sees: metrics and traces, by OpenTelemetry or Prometheus."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from .._credentials.credential import cores
from .._engine.cache import forget_hits
from .._process import forks, observing
from .._process.extras import raise_missing
from ..errors import ConfigurationError
from ..events import subscribe
from ..verify.counted import count_anew
from .levels.values import KINDS, Comparison, ServiceLevel, ServiceLevels, Totals
from .listening import Listening
from .reading import begin_anew, current, handing_on

if TYPE_CHECKING:
    from .meters import Meters
    from .prometheus import PrometheusCollector

__all__ = ["instrument", "prometheus_collector", "service_levels", "uninstrument"]

_SCOPE = "resilient_auth"


class _State:
    """What is on."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.unsubscribe: Callable[[], None] | None = None
        #: The owner's providers of meters and tracers.
        self.providers: tuple[Any, Any] | None = None
        #: The instruments that were made, by provider: they can't be taken back, and aren't made twice.
        self.meters: list[tuple[Any, Meters]] = []


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
            atexit.register(handing_on.flush, 1.0)
            meters = Meters(meter_provider.get_meter(_SCOPE, __version__), partial(_tells, meter_provider))
            _state.meters.append((meter_provider, meters))
        _state.providers = meter_provider, tracer_provider
        record = meters.record
        current.summed = lambda *value: handing_on.put(partial(record, *value))
        current.tracer = Spans(tracer_provider.get_tracer(_SCOPE, __version__), handing_on)
        _begin()


def prometheus_collector() -> PrometheusCollector:
    """Return a collector of this process's metrics, which are counted from now on until `uninstrument`.

    Give it to a registry: `prometheus_client.REGISTRY.register(ra.telemetry.prometheus_collector())`. Each process has
    numbers of its own.

    Raises:
        ModuleNotFoundError: The extra `prometheus` isn't installed.
    """
    from .prometheus import PrometheusCollector

    forks.notice()
    with _state.lock:
        _begin()
    return PrometheusCollector()


def service_levels() -> ServiceLevels:
    """Return requests and success rates, against the periods before, and what alerts are open (G25).

    Nobody is asked: with a store, what was read of it last is told, and it is read again in the background.
    """
    none = Comparison(now=Totals(), before=None)
    levels = tuple(ServiceLevel(kind=kind, minutes=(), hours=(), day=none, week=none) for kind in KINDS)
    return ServiceLevels(at=time.time(), watched=False, levels=levels)


def uninstrument() -> None:
    """Observe nothing more, and forget what was counted: it costs nothing from now on."""
    forks.notice()
    with _state.lock:
        _state.providers = current.summed = current.tracer = None
        unsubscribe, _state.unsubscribe = _state.unsubscribe, None
        observing.observe(None)
        begin_anew()
        _swap()
    if unsubscribe is not None:
        unsubscribe()


def _begin() -> None:
    if _state.unsubscribe is None:
        _state.unsubscribe = subscribe(Listening(current))
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


@forks.renewed
def _after_fork() -> None:
    _state.lock = threading.Lock()
