"""What led to an exception, whichever library says so and how."""

from __future__ import annotations

from resilient_auth._process.causes import causes_of


def test_whatever_libraries_link_causes_by_is_followed() -> None:
    """Python's own links, urllib3's reason, azure-core's inner exception, arguments and groups."""
    raised_from, reason, inner, argument, of_group = (
        OSError(name) for name in ("from", "reason", "inner", "arg", "one")
    )
    error = ValueError(argument, ExceptionGroup("several", [of_group]))
    error.__cause__ = raised_from
    error.reason, error.inner_exception = reason, inner  # type: ignore[attr-defined]
    assert {raised_from, reason, inner, argument, of_group} < set(causes_of(error))


def test_a_circle_ends_and_the_nearest_come_first() -> None:
    """Each is given once."""
    first, second, third = OSError(1), OSError(2), OSError(3)
    first.__cause__, second.__cause__, third.__cause__ = second, third, first
    assert list(causes_of(first)) == [first, second, third]


def test_a_chain_is_followed_only_so_far() -> None:
    """One that somebody builds without end costs no more than a long one."""
    error = OSError()
    for _ in range(1000):
        error, former = OSError(), error
        error.__cause__ = former
    assert len(list(causes_of(error))) == 30
