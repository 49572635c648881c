"""Spans, by OpenTelemetry's API: begun where something begins, ended on a thread of their own."""

from __future__ import annotations

import weakref
from collections.abc import Callable, MutableMapping

from opentelemetry import context, propagate, trace
from opentelemetry.context import _SUPPRESS_HTTP_INSTRUMENTATION_KEY, Context
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from ..events import Delivery
from .labels import attributes
from .metrics import SPANS
from .observer import Facts

__all__ = ["Spans"]


class Spans:
    """Begin spans with an owner's tracer.

    A span is begun on the thread of whoever does the work: what the owner's code does meanwhile is a part of it.
    It is ended on another one: an exporter that blocks in there, as one without a batch does, holds up nobody.

    Args:
        tracer: The owner's.
        ending: Ends them.
    """

    def __init__(self, tracer: trace.Tracer, ending: Delivery[Callable[[], object]]) -> None:
        self._tracer = tracer
        self._ending = ending
        #: The last exchange for each cache entry: a background refresh that a timer began is due to it.
        self._last: weakref.WeakKeyDictionary[object, trace.SpanContext] = weakref.WeakKeyDictionary()

    def begin(self, kind: str, facts: Facts, *, about: object, unasked: bool) -> _Span:
        """Begin one; what nobody waits for is no part of who caused it, who is done before, and is linked to them."""
        attempt = kind not in SPANS
        within = context.get_current()
        links = []
        if unasked:
            cause = trace.get_current_span(within).get_span_context()
            if not cause.is_valid:
                cause = self._last.get(about, cause) if about is not None else cause
            links = [Link(cause)] if cause.is_valid else []
            within = Context()
        parent = _operation.get(within)
        resent = 0
        if attempt and parent is not None:
            purpose = facts["resilient_auth.purpose"]
            resent = parent.attempts.get(purpose, 0)
            parent.attempts[purpose] = resent + 1
        span = self._tracer.start_span(
            facts["http.request.method"] if attempt else SPANS[kind],
            context=within,
            kind=SpanKind.CLIENT if attempt else SpanKind.INTERNAL,
            attributes={**attributes(facts.items()), **({"http.request.resend_count": resent} if resent else {})},
            links=links,
        )
        if about is not None:
            self._last[about] = span.get_span_context()
        return _Span(span, self._ending, quiet=kind == "attempt")


class _Operations:
    """Find the operation of ours that a context is in."""

    KEY = context.create_key("resilient-auth-operation")

    def get(self, within: Context) -> _Span | None:
        found = context.get_value(self.KEY, within)
        return found if isinstance(found, _Span) else None


_operation = _Operations()


class _Span:
    """One span that is under way."""

    def __init__(self, span: trace.Span, ending: Delivery[Callable[[], object]], *, quiet: bool) -> None:
        self._span = span
        self._ending = ending
        self._quiet = quiet
        #: How many attempts it has made so far, by what for.
        self.attempts: dict[str, int] = {}

    def enter(self) -> Callable[[], None]:
        """Make what goes on in this context a part of it; return what ends that."""
        inner = trace.set_span_in_context(self._span, context.get_current())
        inner = context.set_value(_Operations.KEY, self, inner)
        if self._quiet:
            # The provider is told nothing of the owner's traces, nor by an instrumented HTTP library.
            inner = context.set_value(_SUPPRESS_HTTP_INSTRUMENTATION_KEY, True, inner)
        token = context.attach(inner)
        return lambda: context.detach(token)

    def carry(self, headers: MutableMapping[str, str]) -> None:
        """Write into headers what the owner's propagator tells others."""
        propagate.inject(headers, context=trace.set_span_in_context(self._span, context.get_current()))

    def end(self, facts: Facts, at: int) -> None:
        """End it with what is known of it by now, on another thread."""
        span = self._span
        if not span.is_recording():
            return
        found = attributes(facts.items())

        def end() -> None:
            span.set_attributes(found)
            if facts.get("error.type"):
                span.set_status(Status(StatusCode.ERROR))
            span.end(at)

        self._ending.put(end)
