"""A function that answers for the current user: with `subject`, nobody is ever given another user's token."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import random
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

import resilient_auth as ra
from resilient_auth import events
from resilient_auth.errors import Throttled
from resilient_auth.testing import capture_events

CLAIMS = '{"access_token":{"nbf":{"essential":true,"value":"1"}}}'

#: Whose request this thread or task is serving, as a web framework keeps it.
user = contextvars.ContextVar("user", default=None)


class Provider:
    """Gives tokens that say for whom, to whoever the context variables name."""

    def __init__(self, clock):
        self.clock = clock
        self.life = 3600.0
        self.down = set()
        self.throttled = set()
        #: For whom it was asked.
        self.asked = []
        self._lock = threading.Lock()

    def __call__(self, scopes, claims=None, tenant_id=None, enable_cae=False):
        who = user.get()
        with self._lock:
            self.asked.append(who)
            number = len(self.asked)
        if "everybody" in self.down or who in self.down:
            raise ConnectionError("down")
        if who in self.throttled:
            raise Throttled("429", retry_after=3600.0)
        return f"{who}|{' '.join(scopes)}|{tenant_id}|{enable_cae}|{number}", self.clock.wall() + self.life

    async def coroutine(self, scopes, claims=None, tenant_id=None, enable_cae=False):
        await asyncio.sleep(0)
        return self(scopes, claims, tenant_id, enable_cae)


@pytest.fixture
def provider(clock):
    return Provider(clock)


@pytest.fixture
def credential(provider, settings):
    with ra.ResilientCredential(provider, settings=settings(), subject=user.get) as made:
        yield made


@pytest.fixture
def new_clock(clock):
    """Make clocks like the test's own: an example must not see how far another one has skipped."""
    return type(clock)


def as_user(name, call, *args, **options):
    """Call as a framework does that serves this user's request."""
    context = contextvars.copy_context()
    context.run(user.set, name)
    return context.run(call, *args, **options)


def whose(token):
    return token.split("|")[0]


def test_each_user_has_a_token_of_their_own_and_it_is_held(provider, credential):
    """One call each, however often it is asked for; the application's own is one more."""
    for _ in range(3):
        for name in ("ada", "bob", None):
            assert whose(as_user(name, credential.get_token, "s").token) == str(name)
            assert whose(as_user(name, credential.get_token_info, "s").token) == str(name)
    assert provider.asked == ["ada", "bob", None]


def test_without_a_subject_the_function_answers_for_everybody(provider, settings):
    """That is what it promises then: it is asked once, and its docstring says so."""
    with ra.ResilientCredential(provider, settings=settings()) as credential:
        assert whose(as_user("ada", credential.get_token, "s").token) == "ada"
        assert whose(as_user("bob", credential.get_token, "s").token) == "ada"
    assert "same identity always" in " ".join(ra.ResilientCredential.__doc__.split())


async def test_tasks_of_two_users_never_meet(provider, settings):
    """Awaited functions see the variables of the task that asks."""
    async with ra.aio.ResilientCredential(provider.coroutine, settings=settings(), subject=user.get) as credential:

        async def serve(name):
            user.set(name)
            tokens = [(await credential.get_token("s")).token, (await credential.get_token_info("s")).token]
            return {name} == {whose(token) for token in tokens}

        assert all(await asyncio.gather(*(serve(f"user{n % 20}") for n in range(200))))
    assert len(provider.asked) == 20


def test_threads_of_many_users_at_once_share_by_user_alone(provider, credential, together):
    """Sixty-four callers, two users, two calls."""
    names = iter(["ada", "bob"] * 32)
    got = together(64, lambda: (name := next(names), whose(as_user(name, credential.get_token, "s").token)))
    assert all(name == of for name, of in got)
    assert sorted(provider.asked) == ["ada", "bob"]


def test_a_refresh_behind_runs_for_whom_the_token_is(provider, credential, clock, eventually):
    """Ada's call is answered with what is held, and renewed as Ada."""
    for name in ("ada", "bob"):
        as_user(name, credential.get_token, "s")
    clock.skip(3000)
    held = as_user("ada", credential.get_token, "s").token
    eventually(lambda: len(provider.asked) == 3)
    assert provider.asked[2] == "ada"
    eventually(lambda: as_user("ada", credential.get_token, "s").token != held)
    assert whose(as_user("ada", credential.get_token, "s").token) == "ada"


def test_what_another_users_success_wakes_runs_for_its_own_user(provider, credential, clock, eventually):
    """After an outage Bob's answer has Ada's refresh begun, on Bob's thread and as Ada."""
    provider.down = {"everybody"}
    for name in ("ada", "bob"):
        with ra.wait_at_most(0.2), pytest.raises(ra.ProviderUnavailable):
            as_user(name, credential.get_token, "s")
    provider.down.clear()
    provider.asked.clear()
    clock.skip(60)
    assert whose(as_user("bob", credential.get_token, "s").token) == "bob"
    eventually(lambda: "ada" in provider.asked)
    assert set(provider.asked) == {"ada", "bob"}
    calls = len(provider.asked)
    eventually(lambda: whose(as_user("ada", credential.get_token, "s").token) == "ada")
    assert len(provider.asked) == calls


def test_a_recovery_timer_asks_for_its_own_user(provider, credential, clock, eventually):
    """Nobody calls: the timer's thread has nobody's variables, and Ada's are used."""
    provider.down = {"everybody"}
    with ra.wait_at_most(0.2), pytest.raises(ra.ProviderUnavailable):
        as_user("ada", credential.get_token, "s")
    provider.down.clear()
    provider.asked.clear()
    clock.skip(60)
    eventually(lambda: provider.asked)
    assert set(provider.asked) == {"ada"}


def test_nobody_is_asked_for_a_user_who_has_signed_out_meanwhile(settings, clock, eventually):
    """Their last context names somebody else by then: the refresh in the background isn't made at all."""
    request, asked, up = {"user": "ada"}, [], threading.Event()
    current = contextvars.ContextVar("current", default=request)

    def token(scopes):
        asked.append(current.get()["user"])
        if not up.is_set():
            raise ConnectionError("down")
        return f"{current.get()['user']}|", clock.wall() + 3600

    with ra.ResilientCredential(token, settings=settings(), subject=lambda: current.get()["user"]) as credential:
        with ra.wait_at_most(0.2), pytest.raises(ra.ProviderUnavailable):
            credential.get_token("s")
        with capture_events() as told:
            request["user"] = "bob"
            up.set()
            clock.skip(60)
            # What went on when the first caller had given up may be told here too.
            eventually(lambda: "exchange_error" in {e.code for e in told if isinstance(e, events.ExchangeFailed)})
        assert set(asked) == {"ada"}
        assert whose(credential.get_token("s").token) == "bob"


def test_no_users_context_is_kept_once_they_have_a_token(credential, eventually):
    """It may hold a whole request; what is renewed later is renewed in the context of who asks then."""

    class Request:
        pass

    current = contextvars.ContextVar("current")
    request = Request()
    gone = weakref.ref(request)

    def serve(request):
        current.set(request)
        return as_user("ada", credential.get_token, "s")

    contextvars.copy_context().run(serve, request)
    del request
    eventually(lambda: gc.collect() >= 0 and gone() is None)


def test_a_user_who_changes_while_the_function_runs_gives_no_token_to_either(settings, clock):
    """A token that came under two names is nobody's."""
    request = {"user": "ada"}
    current = contextvars.ContextVar("current", default=request)

    def token(scopes):
        request["user"] = "bob"
        return "whose?", clock.wall() + 3600

    with ra.ResilientCredential(token, settings=settings(), subject=lambda: current.get()["user"]) as credential:
        with pytest.raises(ra.ConfigurationError, match="subject named somebody else"):
            credential.get_token("s")
        assert not credential._ready


def test_a_claims_challenge_and_a_refusal_are_one_users(provider, credential):
    """Ada's token is replaced; Bob's stays, and isn't asked for."""
    ada, bob = (as_user(name, credential.get_token, "s").token for name in ("ada", "bob"))
    renewed = as_user("ada", credential.get_token, "s", claims=CLAIMS).token
    assert whose(renewed) == "ada"
    assert renewed != ada
    assert as_user("bob", credential.get_token, "s").token == bob
    credential.invalidate(renewed)
    assert as_user("ada", credential.get_token, "s").token not in (ada, renewed)
    assert as_user("bob", credential.get_token, "s").token == bob


def test_one_users_failures_and_cool_down_are_no_other_users(provider, credential, clock):
    """Ada's provider session is broken for good, Eve is throttled for an hour; Bob and others never notice."""
    provider.down, provider.throttled = {"ada"}, {"eve"}
    for n in range(30):
        for name in ("ada", "eve"):
            with ra.wait_at_most(0.05), pytest.raises(ra.ProviderUnavailable):
                as_user(name, credential.get_token, f"s{n}")
        clock.skip(6)
        assert whose(as_user(f"bob{n}", credential.get_token, "s").token) == f"bob{n}"


def test_each_user_switches_sources_alone(provider, settings, clock):
    """The first source fails for Ada alone: she is served by the second one, and Bob by the first."""
    first, second = Provider(clock), Provider(clock)
    first.down = {"ada"}
    with ra.ResilientCredential(first, second, settings=settings(), subject=user.get) as credential:
        with capture_events() as told:
            for name in ("ada", "bob", "ada"):
                assert whose(as_user(name, credential.get_token, "s").token) == name
            told.wait_for(events.SourceSwitched)
        assert len(told.of(events.SourceSwitched)) == 1
    assert set(second.asked) == {"ada"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_keeps_users_apart(credential):
    """What was held is served to whom it belongs; what wasn't is asked for as they are."""
    as_user("ada", credential.get_token, "s")
    child = os.fork()
    if child == 0:
        good = all(
            whose(as_user(name, credential.get_token, scope).token) == name
            for scope in ("s", "t")
            for name in ("bob", "ada", "eve")
        )
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_nothing_that_shows_it_tells_who_the_user_is(provider, credential):
    """Events and health have a hash."""
    with capture_events() as told:
        as_user("ada@contoso.com", credential.get_token, "s")
        told.wait_for(events.TokenAcquired)
    shown = repr(list(told)) + repr(ra.health()) + repr(credential)
    assert "ada@contoso.com" not in shown


async def _coroutine():
    return "ada"


class _Proxy:
    """Says that it is a string, as Flask's and Django's proxies for the current user do."""

    @property
    def __class__(self):
        return str


@pytest.mark.parametrize(
    ("subject", "named"),
    [("ada", "a function of no argument"), (_coroutine, "coroutine function")],
)
def test_what_is_no_subject_is_refused_at_construction(provider, subject, named):
    """Before anything is asked."""
    with pytest.raises(ra.ConfigurationError, match=named):
        ra.ResilientCredential(provider, subject=subject)


def test_an_application_has_no_subject(idp, app_at):
    """It gives everybody the same token."""
    with pytest.raises(ra.ConfigurationError, match="subject means nothing to sources"):
        ra.ResilientCredential(app_at(idp), subject=user.get)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("", id="empty"),
        pytest.param(7, id="a number"),
        pytest.param(b"ada", id="bytes"),
        pytest.param(["ada"], id="a list"),
        pytest.param(_Proxy(), id="a proxy"),
        pytest.param(_coroutine, id="a coroutine function"),
    ],
)
def test_what_names_nobody_is_refused_before_anybody_is_asked(provider, settings, name):
    """An empty name would be everybody's who has none; a proxy would be another one at the next call."""
    subject = (lambda: name()) if name is _coroutine else lambda: name
    with (
        ra.ResilientCredential(provider, settings=settings(), subject=subject) as credential,
        pytest.raises(ra.ConfigurationError, match="subject must return a non-empty string"),
    ):
        credential.get_token("s")
    assert not provider.asked


def test_what_a_subject_raises_is_the_callers(provider, settings):
    """Outside of a request, say: nobody's token is given."""

    def subject():
        raise LookupError("outside of a request")

    with (
        ra.ResilientCredential(provider, settings=settings(), subject=subject) as credential,
        pytest.raises(LookupError, match="outside of a request"),
    ):
        credential.get_token("s")


def test_no_argument_of_a_call_can_pass_for_a_subject(provider, credential):
    """Scopes that look like what is kept inside find nothing."""
    as_user("ada", credential.get_token, "s")
    for key in list(credential._ready):
        scopes = tuple("ada" if part is key[0] else part for part in key)
        with pytest.raises(ra.ConfigurationError):
            as_user("bob", credential.get_token, *scopes)


STEP = st.tuples(
    st.sampled_from(["get", "info", "claims", "tenant", "cae", "invalidate", "skip", "due", "fail", "heal", "awaited"]),
    st.integers(0, 5),
    st.sampled_from(["s", "t"]),
)


@examples(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, min_size=20, max_size=80), seed=st.integers(0, 2**32))
def test_no_user_is_ever_given_another_users_token(new_clock, steps, seed):
    """Many users at once, through refreshes, outages, challenges and refusals, on two faces of one function."""
    clock = new_clock()
    provider = Provider(clock)
    settings = ra.Settings(clock=clock, wait=0.2, exchange_deadline=5.0, attempt_timeout=2.0, connect_timeout=2.0)
    crossings, last = [], {}
    order = random.Random(seed)
    blocking = ra.ResilientCredential(provider, settings=settings, subject=user.get)
    awaited = ra.aio.ResilientCredential(provider.coroutine, settings=settings, subject=user.get)

    def note(name, scope, token):
        if token.split("|")[:2] != [str(name), scope]:
            crossings.append((name, scope, token))
        last[name] = token

    def take(step):
        kind, who, scope = step
        name = None if who == 0 else f"user{who}"
        try:
            if kind == "skip":
                clock.skip(float(who))
            elif kind == "due":
                clock.skip(2000.0)
            elif kind == "fail":
                provider.down.add(name or "everybody")
            elif kind == "heal":
                provider.down.clear()
            elif kind == "invalidate":
                blocking.invalidate(last.get(name, "none"))
            elif kind == "awaited":
                note(name, scope, as_user(name, asyncio.run, awaited_token(scope)))
            else:
                options = {"claims": {"claims": CLAIMS}, "tenant": {"tenant_id": "t1"}, "cae": {"enable_cae": True}}
                call = blocking.get_token_info if kind == "info" else blocking.get_token
                given = options.get(kind, {})
                note(name, scope, as_user(name, call, scope, **({} if kind == "info" else given)).token)
        except ra.ProviderUnavailable:
            pass

    async def awaited_token(scope):
        return (await awaited.get_token(scope)).token

    order.shuffle(steps)
    with blocking, ThreadPoolExecutor(6) as pool:
        list(pool.map(take, steps))
        provider.down.clear()
    assert not crossings


def test_a_hundred_thousand_calls_of_forty_users_cross_nowhere(provider, credential, clock):
    """Threads that change users at every call, while tokens fall due and the provider comes and goes."""
    crossings, served = [], [0] * 8

    def work(thread):
        order = random.Random(thread)
        for number in range(12_500):
            name = f"user{order.randrange(40)}"
            try:
                with ra.wait_at_most(0.005):
                    token = as_user(name, credential.get_token, "s").token
            except ra.ProviderUnavailable:
                continue
            served[thread] += 1
            if whose(token) != name:
                crossings.append((name, token))
            if number % 2000 == 1000:
                clock.skip(1900.0)
                provider.down = {f"user{order.randrange(40)}"}
            elif number % 2000 == 1050:
                provider.down = set()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not crossings
    assert sum(served) > 50_000
