"""What is read: numbers that were counted, and how things stand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from .._process import forks
from ..events import Delivery
from .labels import Addresses
from .metrics import METRICS
from .observer import Telemetry, failed
from .standing import Standing, standing
from .tally import Labels, Tally

__all__ = ["MOST_KEPT", "Reading", "begin_anew", "current", "handing_on", "readings"]

#: A metric's labels, and its number.
Reading = tuple[Labels, float]

#: Seconds for which gauges aren't looked at again, since a reader asks for each of them; and how many times as long as
#: the look took, so that a flood of readers takes a tenth of the time at most.
_SAME, _SHARE = 0.1, 9.0
#: How many durations and spans are kept while an exporter blocks.
MOST_KEPT = 8192


class _Gauges:
    """Look how things stand once a reader's round."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read_at = -1e9
        self._rest = _SAME
        self._readings: list[Standing] = []

    def read(self, addresses: Addresses) -> list[Standing]:
        with self._lock:  # which readers alone wait for
            if time.monotonic() - self._read_at > self._rest:
                began = time.thread_time()
                self._readings = standing(addresses)
                self._read_at = time.monotonic()
                self._rest = max(_SAME, _SHARE * (time.thread_time() - began))
            return self._readings

    def renew(self) -> None:
        """Look anew, in a forked child too."""
        self._lock = threading.Lock()
        self._read_at = -1e9


current = Telemetry(Tally(), Addresses())
_gauges = _Gauges()


def _hand_on(call: Callable[[], object]) -> None:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - an owner's exporter may raise anything
        failed(error)


#: Hands on, on a thread of its own, to exporters that may block.
handing_on: Delivery[Callable[[], object]] = Delivery(_hand_on, capacity=MOST_KEPT, gather=0.05)


def readings(name: str) -> list[Reading]:
    """Return the readings of a counter or a gauge: its labels, and the number."""
    if name == "resilient_auth.telemetry.dropped":
        return [((), float(handing_on.dropped))]
    current.settle()
    counted = [(labels, float(number)) for labels, number in current.tally.counts(name)]
    if METRICS[name].kind == "counter":
        return [(labels, number) for labels, number in counted if number]
    if counted:
        return counted
    return [(labels, value) for known, labels, value in _gauges.read(current.addresses) if known == name]


def begin_anew() -> None:
    """Forget what was counted and seen."""
    current.tally.begin_anew()
    current.addresses.renew()
    _gauges.renew()


@forks.renewed
def _after_fork() -> None:
    begin_anew()
    handing_on.renew()
    handing_on.dropped = 0
