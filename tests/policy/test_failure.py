"""What an answer of the provider means, for every status, purpose and kind of body."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_auth._policy.failure import (
    LONGEST_RETRY_AFTER,
    Purpose,
    judge,
    parse_retry_after,
    readable,
    retry_after_of,
)
from resilient_auth.errors import MalformedAnswer, ProviderUnavailable, ServerFailed, Throttled

WALL = 1_700_000_000.0
HOST = "https://login.example"
GOOD = '{"access_token": "tOkEn", "expires_in": 3600, "token_type": "Bearer"}'
HTML = "<html><body>Sign in to the hotel's network</body></html>"
NO_SECONDS: list[object] = ["", "soon", "1e3", "-5", "1_000", "٣", "9" * 13, -1, 10**12, True, [], {}, 1e308]
JSON_PURPOSES = [
    Purpose.TOKEN,
    Purpose.DISCOVERY,
    Purpose.ALIASES,
    Purpose.USER_REALM,
    Purpose.MANAGED_IDENTITY,
]


def verdict(
    status: int, body: object = GOOD, *, purpose: Purpose = Purpose.TOKEN, retry_after: str | None = None
) -> ProviderUnavailable | None:
    text = body if isinstance(body, str) else json.dumps(body)
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return judge(purpose, HOST, status, headers, text, WALL)


class TestStatus:
    def test_a_token_is_a_success(self) -> None:
        """200 with a token is what was wanted."""
        assert verdict(200) is None

    @pytest.mark.parametrize("purpose", list(Purpose))
    @pytest.mark.parametrize("body", ["{}", "", HTML, GOOD])
    def test_429_is_throttling_whatever_it_says(self, purpose: Purpose, body: str) -> None:
        """A cool-down, and not a failure of the provider (G8)."""
        fault = verdict(429, body, purpose=purpose, retry_after="17")
        assert type(fault) is Throttled
        assert fault.retry_after == 17.0
        assert fault.authority == HOST
        assert "17 s" in str(fault)

    @pytest.mark.parametrize("purpose", list(Purpose))
    @pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 529, 599])
    @pytest.mark.parametrize("body", ["{}", HTML, '{"error": "temporarily_unavailable"}'])
    def test_5xx_is_a_failure_whatever_it_says(self, purpose: Purpose, status: int, body: str) -> None:
        """Even with a well-formed body, and for every purpose (G9)."""
        fault = verdict(status, body, purpose=purpose)
        assert type(fault) is ServerFailed
        assert str(status) in str(fault)
        assert fault.retry_after is None

    def test_a_5xx_carries_the_retry_after(self) -> None:
        """It is honoured later (G9)."""
        fault = verdict(503, HTML, retry_after="120")
        assert fault is not None
        assert fault.retry_after == 120.0

    @pytest.mark.parametrize("status", [404, 410])
    def test_instance_metadata_being_updated_is_a_failure(self, status: int) -> None:
        """The managed identity endpoint says 404 and 410 when it means "ask again"."""
        assert type(verdict(status, "{}", purpose=Purpose.MANAGED_IDENTITY)) is ServerFailed

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
    @pytest.mark.parametrize("error", ["invalid_grant", "invalid_client", "authorization_pending"])
    def test_a_denial_is_no_failure(self, status: int, error: str) -> None:
        """The provider works and says no."""
        assert verdict(status, {"error": error}) is None


class TestBody:
    @pytest.mark.parametrize("purpose", JSON_PURPOSES)
    @pytest.mark.parametrize(
        "body",
        [HTML, "", " ", "null", "[]", "[{}]", '"text"', "1", "NaN", "true", GOOD[:-1], GOOD[:20], "\ufeff" + GOOD,
         "{" * 5000, "[" * 100_000, "9" * 6000, "\x00", "{'access_token': 1}"],
    )  # fmt: skip
    def test_what_isnt_an_object_is_malformed_with_200(self, purpose: Purpose, body: str) -> None:
        """A captive portal, a cut-off body and anything that isn't a JSON object are failures."""
        fault = verdict(200, body, purpose=purpose)
        assert type(fault) is MalformedAnswer
        assert "200" in str(fault)

    @pytest.mark.parametrize("purpose", [Purpose.TOKEN, Purpose.ALIASES])
    def test_a_4xx_that_isnt_json_is_no_denial(self, purpose: Purpose) -> None:
        """A proxy's own 403 page says nothing about the client."""
        assert type(verdict(403, HTML, purpose=purpose)) is MalformedAnswer

    @pytest.mark.parametrize("purpose", [Purpose.DISCOVERY, Purpose.USER_REALM])
    @pytest.mark.parametrize("body", [HTML, "", "[]"])
    def test_a_tenant_that_doesnt_exist_may_be_said_with_any_body(self, purpose: Purpose, body: str) -> None:
        """MSAL turns these into its own message."""
        assert verdict(404, body, purpose=purpose) is None

    @pytest.mark.parametrize("purpose", [Purpose.REGION, Purpose.WS_TRUST])
    @pytest.mark.parametrize("body", ["westeurope", "<xml/>", ""])
    def test_where_json_isnt_the_language_any_body_will_do(self, purpose: Purpose, body: str) -> None:
        """The instance's region is plain text, WS-Trust is XML."""
        assert verdict(200, body, purpose=purpose) is None

    @pytest.mark.parametrize("purpose", list(Purpose))
    def test_a_fault_of_the_senders_is_a_denial_where_soap_is_spoken(self, purpose: Purpose) -> None:
        """AD FS tells a wrong password with 500, and its own faults too."""
        fault = "<s:Fault><s:Code><s:Value>s:{}</s:Value></s:Code></s:Fault>"
        assert (verdict(500, fault.format("Sender"), purpose=purpose) is None) is (purpose is Purpose.WS_TRUST)
        assert type(verdict(500, fault.format("Receiver"), purpose=purpose)) is ServerFailed

    @pytest.mark.parametrize("body", [{}, {"access_token": ""}, {"access_token": None}, {"access_token": 5},
                                      {"access_token": ["t"]}, {"token": "t"}, {"id_token": ""}])  # fmt: skip
    def test_a_success_without_a_token_is_malformed(self, body: dict[str, Any]) -> None:
        """An object alone is no token."""
        assert type(verdict(200, body)) is MalformedAnswer

    def test_a_managed_identitys_success_without_a_token_is_malformed(self) -> None:
        """`{}` with 200 is a malformed answer from this endpoint too."""
        assert type(verdict(200, {}, purpose=Purpose.MANAGED_IDENTITY)) is MalformedAnswer

    @pytest.mark.parametrize(("status", "body"), [(403, HTML), (400, ""), (407, HTML), (400, "[]")])
    def test_a_page_before_a_managed_identitys_endpoint_is_malformed(self, status: int, body: str) -> None:
        """MSAL reads it as JSON, and raises what no caller expects; Azure Arc's challenge has its own."""
        assert type(verdict(status, body, purpose=Purpose.MANAGED_IDENTITY)) is MalformedAnswer
        assert verdict(401, body, purpose=Purpose.MANAGED_IDENTITY) is None

    @pytest.mark.parametrize("name", ["expires_in", "expires_on"])
    @pytest.mark.parametrize("value", NO_SECONDS)
    def test_a_lifetime_that_isnt_seconds_is_malformed(self, name: str, value: object) -> None:
        """MSAL would raise on it, or keep the token for ever; it tells nothing of what others would be answered."""
        fault = verdict(200, {"access_token": "t", name: value})
        assert type(fault) is MalformedAnswer
        assert fault.of_request

    @pytest.mark.parametrize("name", ["ext_expires_in", "refresh_in", "expires_on"])
    @pytest.mark.parametrize("value", [*NO_SECONDS, None])
    def test_what_only_says_when_to_refresh_costs_no_token(self, name: str, value: object) -> None:
        """An odd time beside a good lifetime is left out before MSAL trips over it."""
        body = {"access_token": "t", "expires_in": 3600, name: value}
        assert verdict(200, body) is None
        assert json.loads(readable(json.dumps(body))) == {"access_token": "t", "expires_in": 3600}

    @pytest.mark.parametrize("value", [3599, "3599", 3599.0, "3599.0", 3599.9, "03599"])
    def test_seconds_may_be_written_in_any_of_the_ways_of_providers(self, value: object) -> None:
        """MSAL reads whole seconds alone, and so is given them."""
        body = {"access_token": "t", "expires_in": value, "refresh_in": value}
        assert verdict(200, body) is None
        assert json.loads(readable(json.dumps(body))) == {"access_token": "t", "expires_in": 3599, "refresh_in": 3599}

    def test_null_for_a_lifetime_is_none_given(self) -> None:
        """It is left out, and MSAL assumes what it does without one."""
        body = {"access_token": "t", "expires_in": None, "expires_on": None}
        assert verdict(200, body) is None
        assert json.loads(readable(json.dumps(body))) == {"access_token": "t"}

    @pytest.mark.parametrize("name", ["id_token", "client_info", "scope", "refresh_token", "foci", "token_type"])
    def test_null_is_not_there(self, name: str) -> None:
        """As some JSON writers say it of what they leave out; MSAL would take it for a text."""
        body = {"access_token": "t", "expires_in": 3600}
        assert json.loads(readable(json.dumps({**body, name: None}))) == body

    @pytest.mark.parametrize(("value", "read"), [("5", 5), ("5.0", 5), (5.0, 5), (None, None), ("soon", None)])
    def test_how_often_to_poll_may_be_written_so_too(self, value: object, read: int | None) -> None:
        """A device flow begins, with MSAL's own interval where there is none that could be read."""
        body = {"device_code": "d", "expires_in": 900}
        more = {} if read is None else {"interval": read}
        assert json.loads(readable(json.dumps({**body, "interval": value}))) == {**body, **more}

    @pytest.mark.parametrize(
        "text", [GOOD, "", "[1]", '{"error": "invalid_grant", "expires_in": "soon"}', '{"access_token": "t"}']
    )
    def test_what_can_be_read_is_left_as_it_is(self, text: str) -> None:
        """The provider's own text goes on to MSAL."""
        assert readable(text) is text

    @given(
        st.dictionaries(
            st.sampled_from(["expires_in", "expires_on", "ext_expires_in", "refresh_in"]),
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats()
            | st.lists(st.sampled_from("0123456789.-e_ ٣"), max_size=14).map("".join)
            | st.just([]),
        )
    )
    def test_what_passes_is_whole_seconds(self, times: dict[str, Any]) -> None:
        """Whatever a provider writes, MSAL is given non-negative integers, or an error is told."""
        text = json.dumps({"access_token": "t", **times})
        if verdict(200, text) is None:
            body = json.loads(readable(text))
            assert body.pop("access_token") == "t"
            assert all(type(value) is int and 0 <= value < 10**11 for value in body.values())

    @pytest.mark.parametrize("value", [0, "0", "00", 0.5, "0.9"])
    def test_a_token_that_is_over_on_arrival_is_malformed(self, value: object) -> None:
        """Serving it would only move the failure to the API."""
        assert type(verdict(200, {"access_token": "t", "expires_in": value})) is MalformedAnswer

    @pytest.mark.parametrize(("ahead", "fits"), [(-1, False), (0, False), (1, True), (3600, True)])
    def test_so_is_one_whose_end_has_passed(self, ahead: int, fits: bool) -> None:
        """Managed identities say when it ends."""
        body = {"access_token": "t", "expires_on": str(int(WALL) + ahead)}
        assert (verdict(200, body, purpose=Purpose.MANAGED_IDENTITY) is None) is fits

    @pytest.mark.parametrize("value", [1, 3600, "1", "3600", "03600"])
    def test_seconds_may_be_text(self, value: object) -> None:
        """Version 1 endpoints send numbers as strings."""
        assert verdict(200, {"access_token": "t", "expires_in": value, "refresh_in": value}) is None

    def test_a_token_without_a_lifetime_is_accepted(self) -> None:
        """`expires_in` is recommended, not required (RFC 6749, section 5.1)."""
        assert verdict(200, {"access_token": "t"}) is None

    @pytest.mark.parametrize("body", [{"id_token": "t"}, {"error": "x"}, {"device_code": "d", "user_code": "u"}])
    def test_other_answers_of_a_token_endpoint_pass(self, body: dict[str, Any]) -> None:
        """An ID token alone, an error with 200, a device authorization."""
        assert verdict(200, body) is None

    @given(
        purpose=st.sampled_from(list(Purpose)),
        status=st.integers(100, 599),
        text=st.text() | st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["access_token", "expires_in", "error", "id_token"]), inner, max_size=4),
            max_leaves=8,
        ).map(json.dumps),
        retry_after=st.none() | st.text(max_size=40),
        wall=st.floats(0, 4e9),
    )  # fmt: skip
    def test_no_answer_is_too_odd_to_be_judged(
        self, purpose: Purpose, status: int, text: str, retry_after: str | None, wall: float
    ) -> None:
        """Every answer has a verdict; none raises."""
        headers = {} if retry_after is None else {"retry-after": retry_after}
        fault = judge(purpose, HOST, status, headers, text, wall)
        if fault is not None:
            assert isinstance(fault, ProviderUnavailable)
            assert fault.retry_after is None or 0.0 <= fault.retry_after <= LONGEST_RETRY_AFTER
        if status >= 500 or status in (408, 429):
            assert fault is not None

    @given(body=st.text(min_size=8))
    def test_a_verdict_never_quotes_the_answer(self, body: str) -> None:
        """A body may hold a token: the message tells its shape only."""
        fault = verdict(200, f"TOP-SECRET {body}")
        assert fault is not None
        assert "TOP-SECRET" not in str(fault) + repr(fault)


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [("0", 0.0), ("1", 1.0), (" 30 ", 30.0), ("1.5", 1.5), ("3600", 3600.0), ("3601", 3600.0),
         ("99999999999999999999", 3600.0)],
    )  # fmt: skip
    def test_seconds_are_read_and_bounded(self, text: str, seconds: float) -> None:
        """From nothing to one hour."""
        assert parse_retry_after(text, WALL) == seconds

    @pytest.mark.parametrize("text", ["120, 5", "5, 120", "120, 120", "1, 2, 120"])
    def test_the_longest_of_several_holds(self, text: str) -> None:
        """A header that is there twice arrives as one: no attempt is made before any of them allows it (G8)."""
        assert parse_retry_after(text, WALL) == 120.0

    @pytest.mark.parametrize("text", [None, "", " ", "-5", "-0.1", "soon", "1e3", "inf", "nan", "٣٠", "1,5", "1 2",
                                      "5, soon", "5, ",
                                      "Wed, 99 Nov 2023 22:13:20 GMT", "Tue, 14 Nov 99999 22:13:20 GMT"])  # fmt: skip
    def test_what_cant_be_read_counts_as_none(self, text: str | None) -> None:
        """Garbage and negative seconds leave the wait to our own back-off."""
        assert parse_retry_after(text, WALL) is None

    @pytest.mark.parametrize(("ahead", "seconds"), [(0, 0.0), (45, 45.0), (3600, 3600.0), (9000, 3600.0), (-60, 0.0)])
    def test_a_date_means_the_time_until_then(self, ahead: float, seconds: float) -> None:
        """An HTTP date counts from the wall clock; one that has passed means now."""
        date = datetime.fromtimestamp(WALL, UTC) + timedelta(seconds=ahead)
        assert parse_retry_after(format_datetime(date, usegmt=True), WALL) == seconds

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({}, None),
            ({"retry-after": "2"}, 2.0),
            ({"retry-after-ms": "250"}, 0.25),
            ({"x-ms-retry-after-ms": " 1500.5 ", "retry-after": "2"}, 1.5005),
            ({"retry-after-ms": "99999999999"}, 3600.0),
            ({"retry-after-ms": "soon", "x-ms-retry-after-ms": "-1", "retry-after": "3"}, 3.0),
            ({"retry-after-ms": "9" * 400, "retry-after": "3"}, 3.0),
            ({"retry-after-ms": "", "x-ms-retry-after-ms": "٣"}, None),
        ],
    )  # fmt: skip
    def test_the_most_exact_header_is_read(self, headers: dict[str, str], seconds: float | None) -> None:
        """Milliseconds before seconds; what can't be read counts for nothing."""
        assert retry_after_of(headers, WALL) == seconds

    def test_a_provider_says_it_in_milliseconds_too(self) -> None:
        """As an API does."""
        fault = judge(Purpose.TOKEN, "https://login.example", 429, {"retry-after-ms": "7000"}, "{}", WALL)
        assert fault is not None
        assert fault.retry_after == 7.0

    @pytest.mark.parametrize("slow", [2400.0, -2400.0, 86_400.0 * 365])
    def test_a_date_counts_from_the_answers_own(self, slow: float) -> None:
        """Our wall clock may be wrong by minutes or by a year: the provider's two times are of one clock."""
        sent = datetime.fromtimestamp(WALL, UTC)
        until = format_datetime(sent + timedelta(seconds=5), usegmt=True)
        assert parse_retry_after(until, WALL - slow, format_datetime(sent, usegmt=True)) == 5.0

    @pytest.mark.parametrize(
        "date", [None, "", "soon", "Thu, 01 Jan 1970 00:00:00 GMT", "Tue, 14 Nov 2023 22:15:00 GMT"]
    )
    def test_a_date_of_the_answer_that_makes_no_sense_is_none(self, date: str | None) -> None:
        """A cache's, or one after the time that was named: then our own clock has to do."""
        until = format_datetime(datetime.fromtimestamp(WALL + 45, UTC), usegmt=True)
        assert parse_retry_after(until, WALL, date) == 45.0

    @pytest.fixture
    def _far_east(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
        monkeypatch.delenv("TZ")
        os.environ.pop("TZ", None)
        time.tzset()

    @pytest.mark.usefixtures("_far_east")
    @pytest.mark.parametrize(
        "date",
        [
            "Tue, 14 Nov 2023 22:14:05 GMT",
            "Tuesday, 14-Nov-23 22:14:05 GMT",
            "Tue Nov 14 22:14:05 2023",
        ],
    )
    def test_all_three_forms_of_an_http_date_are_read_as_utc(self, date: str) -> None:
        """Wherever the machine stands (RFC 9110, section 5.6.7)."""
        assert parse_retry_after(date, WALL) == 45.0

    @given(text=st.text(max_size=60), wall=st.floats(0, 4e9), date=st.none() | st.text(max_size=60))
    def test_nothing_makes_it_raise(self, text: str, wall: float, date: str | None) -> None:
        """Any header text gives seconds from 0 to one hour, or None."""
        seconds = parse_retry_after(text, wall, date)
        assert seconds is None or (math.isfinite(seconds) and 0.0 <= seconds <= LONGEST_RETRY_AFTER)

    @given(
        text=st.from_regex(
            r"(Mon|Tue)?,? ?\d{1,3} (Jan|Feb|Nov) \d{1,6} \d{1,3}:\d{1,3}(:\d{1,3})? ?(GMT|[+-]\d{1,6}|Z)?",
            fullmatch=True,
        )
    )
    def test_no_odd_date_makes_it_raise(self, text: str) -> None:
        """Days, years and zones that don't exist count as none, or as some time within the hour."""
        seconds = parse_retry_after(text, WALL)
        assert seconds is None or 0.0 <= seconds <= LONGEST_RETRY_AFTER
