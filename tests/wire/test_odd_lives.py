"""Lives of tokens as somebody's broker, client or cloud shell writes them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_auth import Settings, msal
from resilient_auth._msal.results import token_from
from resilient_auth._msal.session import Session
from resilient_auth._wire.exchange_context import ExchangeContext
from resilient_auth.testing import ManualClock, no_jitter

ODD: list[Any] = [math.nan, math.inf, -math.inf, 1e308, -1e308, "nan", "inf", True, False, "soon", "", [], {}, 10**400]
SETTINGS = Settings(clock=ManualClock(1_700_000_000.0), jitter=no_jitter)
SESSION = Session(SETTINGS, {"token_cache": msal.TokenCache()})


@pytest.mark.parametrize("name", ["expires_in", "refresh_in", "refresh_on", "expires_on"])
@pytest.mark.parametrize("value", ODD, ids=lambda value: repr(value)[:12])
def test_an_odd_number_is_none_at_all(name: str, value: Any) -> None:
    """A token without a life is taken to live for 600 s, as MSAL assumes (RFC 6749, section 5.1)."""
    result = {"access_token": "t", name: value}
    token = token_from(SESSION, result, result, ExchangeContext(0.0))
    assert token is not None
    assert token.life == 600.0


@given(
    st.dictionaries(
        st.sampled_from(["expires_in", "refresh_in", "refresh_on", "expires_on"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.lists(st.sampled_from("0123456789.-einfa "), max_size=12).map("".join)
        | st.just([]),
    ),
    st.dictionaries(st.sampled_from(["expires_in", "refresh_in", "expires_on"]), st.integers() | st.floats()),
)
def test_no_token_lives_for_ever_or_before_its_birth(told: dict[str, Any], answered: dict[str, Any]) -> None:
    """Whatever is written there, a life is finite, and due within it."""
    token = token_from(SESSION, {"access_token": "t", **told}, answered, ExchangeContext(0.0))
    assert token is not None
    assert 0.0 <= token.life < 1e11
    assert 0.0 <= token.due_after <= token.life
