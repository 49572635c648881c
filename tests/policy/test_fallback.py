"""What may be served when no new token can be had: the table of the architecture page, cell by cell."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_auth._policy.fallback import Fallback, FallbackOptions, after_denial, after_failure
from resilient_auth.errors import ConfigurationError
from resilient_auth.token import Token

WALL, NOW, LIFE = 1_700_000_000.0, 1_000.0, 3600.0
NO_GRACE = FallbackOptions()
GRACE = FallbackOptions(grace=600.0, grace_outage=1800.0)
TOKEN = Token("secret", "Bearer", obtained_on=WALL, obtained_at=NOW, life=LIFE, due_after=1800.0)


def failed(left: float, *, down_for: float | None, options: FallbackOptions) -> Fallback:
    """Decide after a failure with so many seconds of life left."""
    age = LIFE - left
    return after_failure(TOKEN, WALL + age, NOW + age, down_for=down_for, options=options)


@pytest.mark.parametrize("left", [3600.0, 300.0, 299.0, 30.0, 0.001])
@pytest.mark.parametrize("down_for", [None, 0.0, 1e6])
@pytest.mark.parametrize("options", [NO_GRACE, GRACE])
def test_a_valid_token_is_served_after_any_failure(
    left: float, down_for: float | None, options: FallbackOptions
) -> None:
    """Any remaining life will do, however long the outage."""
    assert failed(left, down_for=down_for, options=options) is Fallback.SERVE


@pytest.mark.parametrize("left", [0.0, -0.001, -599.0])
@pytest.mark.parametrize("down_for", [None, 0.0, 60.0])
def test_an_expired_token_is_refused_by_default(left: float, down_for: float | None) -> None:
    """Grace is off unless the owner says so."""
    assert failed(left, down_for=down_for, options=NO_GRACE) is Fallback.REFUSE


@pytest.mark.parametrize(
    ("past", "down_for", "decision"),
    [
        (0.0, 0.0, Fallback.GRACE),
        (599.999, 60.0, Fallback.GRACE),
        (600.0, 60.0, Fallback.REFUSE),
        (60.0, 1800.0, Fallback.GRACE),
        (60.0, 1800.001, Fallback.REFUSE),
        (60.0, None, Fallback.REFUSE),
    ],
)
def test_grace_is_bounded_by_the_token_and_by_the_outage(
    past: float, down_for: float | None, decision: Fallback
) -> None:
    """It ends `grace` seconds past expiry and `grace_outage` into the outage, and needs one that was observed."""
    assert failed(-past, down_for=down_for, options=GRACE) is decision


@pytest.mark.parametrize("down_for", [None, 10.0])
@pytest.mark.parametrize("options", [NO_GRACE, GRACE])
def test_nothing_held_means_nothing_served(down_for: float | None, options: FallbackOptions) -> None:
    """Grace is for tokens that are there."""
    assert after_failure(None, WALL, NOW, down_for=down_for, options=options) is Fallback.REFUSE


@pytest.mark.parametrize(
    ("left", "decision"),
    [
        (3600.0, Fallback.SERVE),
        (300.0, Fallback.SERVE),
        (299.999, Fallback.SERVE),
        (0.001, Fallback.SERVE),
        (0.0, Fallback.REFUSE),
        (-1.0, Fallback.REFUSE),
    ],
)
def test_a_valid_token_is_served_to_its_end_after_a_denial(left: float, decision: Fallback) -> None:
    """What the provider refuses is a new one; an expired one isn't served."""
    age = LIFE - left
    assert after_denial(TOKEN, WALL + age, NOW + age, {"error": "invalid_client"}) is decision


@pytest.mark.parametrize("left", [3600.0, 299.0])
def test_a_token_whose_account_is_gone_isnt_served(left: float) -> None:
    """However long it would be valid."""
    age = LIFE - left
    gone = {"error": "invalid_grant", "error_codes": [50057]}
    assert after_denial(TOKEN, WALL + age, NOW + age, gone) is Fallback.REFUSE


def test_nothing_held_is_nothing_after_a_denial() -> None:
    """The denial stands."""
    assert after_denial(None, WALL, NOW, {"error": "invalid_grant"}) is Fallback.REFUSE


@given(
    left=st.floats(-1e5, LIFE),
    down_for=st.none() | st.floats(0, 1e6),
    grace=st.floats(0, 3600),
    outage=st.floats(3600, 10_000),
)
def test_an_expired_token_needs_grace_and_an_outage(
    left: float, down_for: float | None, grace: float, outage: float
) -> None:
    """In no combination is an expired token served as a valid one."""
    options = FallbackOptions(grace=grace, grace_outage=outage)
    decision = failed(left, down_for=down_for, options=options)
    if decision is Fallback.SERVE:
        assert left > 0
    if decision is Fallback.GRACE:
        assert left <= 1e-6
        assert down_for is not None
        assert -left <= grace + 1e-6


def test_a_wall_clock_set_back_gives_no_second_grace() -> None:
    """Time past expiry is counted on the clock that moved further."""
    assert after_failure(TOKEN, WALL, NOW + LIFE + 601, down_for=1.0, options=GRACE) is Fallback.REFUSE


def test_grace_longer_than_its_outage_is_refused() -> None:
    """The message names both options and the fix."""
    with pytest.raises(ConfigurationError, match=r"grace of 700 s exceeds grace_outage of 600 s.*raise the other"):
        FallbackOptions(grace=700.0, grace_outage=600.0)


@pytest.mark.parametrize(("option", "value"), [("grace", -1.0), ("grace", 1e6), ("grace_outage", -1.0)])
def test_an_option_out_of_range_is_refused_by_name(option: str, value: float) -> None:
    """The message says which option it is."""
    with pytest.raises(ConfigurationError, match=option):
        FallbackOptions(**{option: value})
