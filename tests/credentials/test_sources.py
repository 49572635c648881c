"""Several sources in order: the next one is asked when one fails, and the first again when it has recovered (G12)."""

from __future__ import annotations

import asyncio
import time

import pytest
from azure.core.exceptions import ClientAuthenticationError

import resilient_auth as ra
from resilient_auth import events
from resilient_auth.emulator import Fault
from resilient_auth.testing import capture_events


def came_from(idp, token):
    return idp.ledger.lookup(token) is not None


@pytest.mark.parametrize("fault", ["refuse", "reset", "black_hole", "http_503", "http_429", "html_200"])
def test_the_second_source_serves_while_the_first_fails(idp, second_idp, app_at, scope, fault):
    """Fast: nobody waits through the first one's back-off."""
    credential = ra.ResilientCredential(app_at(idp), app_at(second_idp), failover_after=0.5)
    idp.fail(Fault.all()[fault])
    with capture_events() as told:
        begun = time.monotonic()
        assert came_from(second_idp, credential.get_token(scope).token)
        assert time.monotonic() - begun < 1.5
        begun = time.monotonic()
        for _ in range(50):
            assert came_from(second_idp, credential.get_token_info(scope).token)
        assert time.monotonic() - begun < 0.5
        (switched,) = told.wait_for(events.SourceSwitched)
    assert switched.previous == f"application daemon at {idp.url}"
    assert switched.source == f"application daemon at {second_idp.url}"
    assert switched.code != "recovered"


@pytest.mark.parametrize("asked", [{"tenant_id": "fabrikam"}, {"enable_cae": True}, {}], ids=str)
def test_a_source_has_its_time_once(idp, app_at, settings, scope, clock, asked):
    """Though it has to find out first whom to ask: another tenant, a token under continuous access evaluation."""
    hidden = app_at(idp, resilience=settings(discovery_wait=1.0))
    credential = ra.ResilientCredential(
        hidden, lambda scopes: ("second", clock.wall() + 3600), additionally_allowed_tenants=["*"], failover_after=1.0
    )
    idp.fail(Fault.black_hole())
    begun = time.monotonic()
    assert credential.get_token(scope, **asked).token == "second"
    assert time.monotonic() - begun < 1.6


def test_it_goes_back_when_the_first_has_recovered(idp, second_idp, app_at, scope, clock, eventually):
    """Found out behind, by the first one's own back-off, and told."""
    credential = ra.ResilientCredential(app_at(idp), app_at(second_idp))
    idp.fail(Fault.http_503())
    with capture_events() as told:
        assert came_from(second_idp, credential.get_token(scope).token)
        idp.heal()
        clock.skip(60)
        eventually(lambda: came_from(idp, credential.get_token(scope).token))
        told.wait_for(events.SourceSwitched, count=2)
    assert [event.code for event in told.of(events.SourceSwitched)] == ["server_failed", "recovered"]


def test_it_goes_back_after_a_long_time_without_anybody_asking(idp, second_idp, app_at, scope, clock, eventually):
    """Nobody looked for an hour; the next caller is served at once, and the first source is looked at behind."""
    credential = ra.ResilientCredential(app_at(idp), app_at(second_idp))
    idp.fail(Fault.http_503())
    credential.get_token(scope)
    idp.heal()
    clock.skip(3500)
    credential.get_token(scope)
    eventually(lambda: came_from(idp, credential.get_token(scope).token))


def test_a_valid_token_of_the_first_is_preferred_to_another_source(idp, second_idp, app_at, scope, clock):
    """As long as it lasts nobody switches; then the second takes over."""
    credential = ra.ResilientCredential(app_at(idp), app_at(second_idp))
    held = credential.get_token(scope).token
    idp.fail(Fault.refuse())
    clock.skip(3590)
    assert credential.get_token(scope).token == held
    clock.skip(20)
    assert came_from(second_idp, credential.get_token(scope).token)


def test_a_denial_does_not_switch(idp, second_idp, app_at, scope):
    """The first one works and said no: another identity isn't tried behind the owner's back."""
    idp.deny("client_credentials", "invalid_client")
    credential = ra.ResilientCredential(app_at(idp), app_at(second_idp))
    with capture_events() as told, pytest.raises(ClientAuthenticationError, match="invalid_client"):
        credential.get_token(scope)
    assert not told.of(events.SourceSwitched)
    assert not [call for call in second_idp.ledger.calls if call.endpoint == "token"]


def test_when_all_fail_the_last_error_is_told_with_the_soonest_retry(idp, second_idp, app_at, scope):
    """It names what happened before."""
    idp.fail(Fault.http_503())
    second_idp.fail(Fault.refuse())
    credential = ra.ResilientCredential(app_at(idp), app_at(second_idp))
    with ra.wait_at_most(1.0), pytest.raises(ra.ProviderUnavailable) as caught:
        credential.get_token(scope)
    assert "server_failed" in "".join(caught.value.__notes__)


def test_sixty_four_threads_switch_once(idp, second_idp, app_at, scope, together):
    """One exchange with each source, one event."""
    credential = ra.ResilientCredential(app_at(idp), app_at(second_idp), failover_after=0.5)
    idp.fail(Fault.black_hole(), "token")
    with capture_events() as told:
        got = together(64, lambda: credential.get_token(scope).token)
        told.wait_for(events.SourceSwitched)
    assert len(set(got)) == 1
    assert len([call for call in second_idp.ledger.calls if call.endpoint == "token"]) == 1
    assert len(told.of(events.SourceSwitched)) == 1


async def test_tasks_switch_too(idp, second_idp, app_at, scope):
    """The same steps, awaited."""
    async with ra.aio.ResilientCredential(app_at(idp), app_at(second_idp), failover_after=0.5) as credential:
        idp.fail(Fault.black_hole(), "token")
        assert came_from(second_idp, (await credential.get_token(scope)).token)


def test_an_open_breaker_is_passed_by_at_once(idp, second_idp, app_at, scope):
    """Nobody waits for what isn't asked."""
    first = app_at(idp)
    credential = ra.ResilientCredential(first, app_at(second_idp))
    first._ra_session.engine.breaker(first._ra_authorities[0], _token()).isolate()
    begun = time.monotonic()
    assert came_from(second_idp, credential.get_token(scope).token)
    assert time.monotonic() - begun < 1.0


def _token():
    from resilient_auth._policy.failure import Purpose

    return Purpose.TOKEN


def test_a_function_takes_over_from_an_application(idp, app_at, scope, settings):
    """Sources of all kinds mix."""
    idp.fail(Fault.http_503())
    credential = ra.ResilientCredential(app_at(idp), lambda _: ("spare", time.time() + 600), settings=settings())
    assert credential.get_token(scope).token == "spare"


class Closing:
    """A credential that is closed, and may fail at that."""

    def __init__(self, error=None):
        self.error = error
        self.closed = 0

    def get_token(self, *scopes, **options):
        return "t", time.time() + 3600

    def close(self):
        self.closed += 1
        if self.error is not None:
            raise self.error


class AwaitedClosing(Closing):
    async def close(self):
        await asyncio.sleep(0)
        super().close()


@pytest.mark.parametrize("kind", [Closing, AwaitedClosing])
def test_each_source_is_closed_whatever_another_raises(kind):
    """And what was raised is told."""
    three = kind(RuntimeError("it hangs up")), kind(), kind(asyncio.CancelledError())
    if kind is Closing:
        three = *three[:2], kind(ValueError("no"))
        with pytest.raises((RuntimeError, ValueError)):
            ra.ResilientCredential(*three).close()
        assert [each.closed for each in three] == [1, 1, 1]
    with pytest.raises((RuntimeError, ValueError, asyncio.CancelledError)):
        asyncio.run(ra.aio.ResilientCredential(*three).close())
    assert all(each.closed for each in three)


@pytest.mark.parametrize("secret", ["of-a-file\n", "of-a-file\r\n", "fïle", "two\x00", "\ud800", "a\tb"])
def test_a_token_that_no_header_can_hold_is_none(settings, scope, clock, secret):
    """The next source is asked, and what is held goes on being served: as from a file with a line end."""
    given = ["good"]

    def ask(scopes):
        return given[0], clock.wall() + 3600

    alone = ra.ResilientCredential(ask, settings=settings())
    held = alone.get_token(scope).token
    given[0] = secret
    clock.skip(3000)
    assert alone.get_token(scope).token == held
    clock.skip(700)
    with pytest.raises(ra.MalformedAnswer) as caught:
        alone.get_token(scope)
    assert secret.strip() not in str(caught.value)
    both = ra.ResilientCredential(ask, lambda scopes: ("second", clock.wall() + 3600), settings=settings())
    assert both.get_token(scope).token == "second"
