"""A token that was verified costs a hash and a look the next time; what was true then isn't taken for granted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from arriving import Signer

import resilient_auth as ra
from resilient_auth.emulator import Emulator
from resilient_auth.events import DenyListRejected, TokenOnDenyList
from resilient_auth.testing import capture_events
from resilient_auth.verify import DenyList, SeenOptions

Claims = Callable[..., dict[str, Any]]


def code_of(verifier: ra.ClaimsVerifier, token: str, **asked: Any) -> str:
    try:
        verifier.verify(token, **asked)
    except (ra.InvalidToken, ra.VerificationUnavailable) as error:
        return error.code
    return ""


def test_the_same_claims_come_back(offline: Any, signer: Signer, claims: Claims) -> None:
    """The very same object, as nobody can change it."""
    verifier, token = offline(), signer.token(claims())
    assert verifier.verify(token) is verifier.verify(token)


def test_a_token_that_has_expired_since(offline: Any, signer: Signer, claims: Claims, clock: Any) -> None:
    """To the second, leeway included."""
    verifier, token = offline(), signer.token(claims(exp=int(clock.wall()) + 100))
    assert not code_of(verifier, token)
    clock.skip(150.0)
    assert not code_of(verifier, token)
    clock.skip(15.0)
    assert [code_of(verifier, token) for _ in range(2)] == ["expired"] * 2


def test_a_clock_that_was_set_back(offline: Any, signer: Signer, claims: Claims, clock: Any) -> None:
    """A token isn't valid before its time, though it was a moment ago."""
    verifier, token = offline(), signer.token(claims())
    assert not code_of(verifier, token)
    clock.skip(-120.0)
    assert code_of(verifier, token) == "not_yet_valid"


def test_a_key_whose_life_is_over(idp: Emulator, at_idp: Any, mint: Any, clock: Any, eventually: Any) -> None:
    """Takes its tokens with it, though they have hours to go."""
    verifier = at_idp()
    token = mint(exp=int(clock.wall()) + 100 * 3600)
    assert not code_of(verifier, token)
    idp.roll_keys()
    idp.drop_old_keys()
    for _ in range(24):
        clock.skip(3600.0)
        assert not code_of(verifier, token)
    clock.skip(3601.0)
    eventually(lambda: code_of(verifier, mint()) == "")
    assert code_of(verifier, token) in ("unknown_key", "verification_unavailable")


def test_what_a_call_asks_is_asked_each_time(offline: Any, signer: Signer, claims: Claims) -> None:
    """One call's scopes aren't another's."""
    verifier, token = offline(), signer.token(claims())
    assert not code_of(verifier, token)
    assert code_of(verifier, token, scopes=["Orders.Delete"]) == "insufficient_scope"
    assert code_of(verifier, token, roles=["Admin"]) == "insufficient_role"
    assert code_of(verifier, token, app_only=True) == "app_only"
    assert not code_of(verifier, token, scopes=["Orders.Read"], app_only=False)


def test_a_failed_verification_isnt_remembered_as_a_good_one(
    offline: Any, signer: Signer, stranger: Signer, claims: Claims
) -> None:
    """Nor does a token's text that differs by one character profit from it."""
    verifier, token = offline(), signer.token(claims())
    assert code_of(verifier, token, scopes=["Orders.Delete"]) == "insufficient_scope"
    assert not code_of(verifier, token)
    assert code_of(verifier, token[:-8] + "AAAAAAAA") in ("signature", "malformed")
    forged = stranger.token(claims())
    assert [code_of(verifier, forged) for _ in range(2)] == ["signature"] * 2


def test_verifiers_dont_share_what_they_remember(offline: Any, signer: Signer, claims: Claims, settings: Any) -> None:
    """One's audience isn't the other's."""
    same, token = settings(), signer.token(claims())
    assert not code_of(offline(settings=same), token)
    assert code_of(offline(settings=same, audience="other"), token) == "audience"


@pytest.mark.parametrize(
    "seen", [SeenOptions(tokens=10), SeenOptions(tokens=1000, size=60_000), SeenOptions(tokens=0), SeenOptions(size=0)]
)
def test_a_bounded_number_is_remembered(offline: Any, signer: Signer, claims: Claims, seen: SeenOptions) -> None:
    """And a bounded number of bytes; what wasn't used for longest goes first, and is verified again."""
    verifier = offline(seen=seen)
    tokens = [signer.token(claims(uti=str(n))) for n in range(40)]
    for token in (*tokens, *tokens):
        assert not code_of(verifier, token)
    remembered = verifier._core._seen
    assert len(remembered) <= min(seen.tokens, seen.size // 3000)
    if len(remembered):
        assert verifier.verify(tokens[-1]) is verifier.verify(tokens[-1])


def test_the_keys_age_goes_on(at_idp: Any, mint: Any, idp: Emulator, clock: Any) -> None:
    """What a remembered verification stands on is told as of now."""
    from resilient_auth.emulator import Fault

    verifier, token = at_idp(), mint(exp=int(clock.wall()) + 100_000)
    assert verifier.verify(token).provenance.keys_age == 0.0
    idp.fail(Fault.refuse())
    clock.skip(3601.0)
    found = verifier.verify(token).provenance
    assert (found.keys, found.keys_age) == ("stale", 3600.0)


def test_a_closed_verifier(offline: Any, signer: Signer, claims: Claims) -> None:
    """Says so, for remembered tokens too; closing twice does nothing."""
    verifier, token = offline(), signer.token(claims())
    assert not code_of(verifier, token)
    verifier.close()
    verifier.close()
    with pytest.raises(ra.errors.Closed):
        verifier.verify(token)


class TestDenyList:
    @pytest.mark.parametrize(
        "listed",
        [{"kids": ["own"]}, {"oids": ["6f6e2c3a-ann"]}, {"oids": ["pairwise-of-ann"]}, {"sids": ["session-of-ann"]},
         {"token_ids": ["token-of-ann"]}, {"token_ids": ["by-jti"]}],
        ids=str,
    )  # fmt: skip
    def test_whatever_is_on_it_is_refused_at_once(
        self, offline: Any, signer: Signer, claims: Claims, listed: dict[str, list[str]]
    ) -> None:
        """A remembered token too, and without any network; taken off again, it is accepted."""
        deny = DenyList()
        verifier, token = offline(deny=deny), signer.token(claims(jti="by-jti"))
        assert not code_of(verifier, token)
        with capture_events() as events:
            deny.add(**listed)
            assert [code_of(verifier, token) for _ in range(2)] == ["denied"] * 2
            told = events.wait_for(TokenOnDenyList, count=2)
        assert {f"{event.code}s" for event in told} == set(listed)
        deny.remove(**listed)
        assert not code_of(verifier, token)
        assert code_of(offline(deny=DenyList(**listed)), token) == "denied"

    def test_others_arent_harmed(self, offline: Any, signer: Signer, claims: Claims) -> None:
        """Ids are compared whole, each with its own kind."""
        deny = DenyList(kids=["6f6e2c3a-ann"], oids=["own", "session-of-ann"], sids=["token-of-ann"], token_ids=["own"])
        assert not code_of(offline(deny=deny), signer.token(claims()))

    def test_a_file(
        self, offline: Any, signer: Signer, claims: Claims, tmp_path: Any, clock: Any, eventually: Any
    ) -> None:
        """Is read again when it changed; while it can't be read, what was read last holds."""
        import json

        file = tmp_path / "denied.json"
        file.write_text(json.dumps({"oids": ["mallory"]}))
        deny = DenyList(file=file, kids=["leaked"])
        verifier, token = offline(deny=deny), signer.token(claims())
        assert not code_of(verifier, token)

        def after(content: str | None) -> Callable[[], str]:
            file.write_text(content) if content is not None else file.unlink()

            def look() -> str:
                clock.skip(6.0)
                return code_of(verifier, token)

            return look

        listed = after('{"oids": ["6f6e2c3a-ann"]}')
        eventually(lambda: listed() == "denied")
        for broken in ("{", "[]", '{"oids": "x"}', '{"others": []}', '{"oids": [1]}', None):
            with capture_events() as events:
                look = after(broken)
                assert [look() for _ in range(5)] == ["denied"] * 5, broken
                assert events.wait_for(DenyListRejected)
        better = after("{}")
        eventually(lambda: better() == "")
        assert deny.current.kids == {"leaked"}

    @pytest.mark.parametrize("content", [None, "", "[]", '{"kid": ["x"]}'])
    def test_a_file_that_cant_be_read_at_first(self, tmp_path: Any, content: str | None) -> None:
        """Is a mistake that is told, since nothing would be denied."""
        file = tmp_path / "denied.json"
        if content is not None:
            file.write_text(content)
        with pytest.raises(ra.ConfigurationError, match="file"):
            DenyList(file=file)

    def test_a_function(self, offline: Any, signer: Signer, claims: Claims) -> None:
        """Is asked each time; one that fails lets nobody in, and nobody is signed out over it."""
        answers: list[Any] = [False, False, True, RuntimeError("secret"), False]

        def check(raw: Any) -> bool:
            assert raw["oid"] == "6f6e2c3a-ann"
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return bool(answer)

        verifier, token = offline(deny=DenyList(check=check)), signer.token(claims())
        codes = [code_of(verifier, token) for _ in range(5)]
        assert codes == ["", "", "denied", "verification_unavailable", ""]
        # What is listed needs no function to be refused.
        listed = offline(deny=DenyList(oids=["6f6e2c3a-ann"], check=lambda raw: 1 // 0 > 0))
        assert code_of(listed, token) == "denied"

    @pytest.mark.parametrize(
        "options", [{"kids": "own"}, {"oids": [1]}, {"sids": [""]}, {"check": 1}, {"look_every": 0}]
    )
    def test_wrong_arguments(self, options: dict[str, Any]) -> None:
        """A text in place of a list would deny its letters."""
        with pytest.raises(ra.ConfigurationError, match=next(iter(options))):
            DenyList(**options)

    def test_it_may_be_changed_by_many_at_once(
        self, offline: Any, signer: Signer, claims: Claims, together: Any
    ) -> None:
        """Nothing is lost."""
        deny = DenyList()
        names = [str(n) for n in range(200)]
        together(20, lambda: [deny.add(oids=[names.pop()]) for _ in range(10)])
        assert len(deny.current.oids) == 200
