"""One user's refresh token, which works once, in an application and in its sibling for continuous access evaluation."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import resilient_auth as ra
from resilient_auth.emulator import Emulator
from resilient_auth.emulator.faults import Slow

OTHER_SCOPE = ["https://graph.microsoft.com/Mail.Read"]


@pytest.fixture(autouse=True)
def one_time(idp: Emulator) -> None:
    idp.one_time_refresh_tokens = True


def _ask(app: Any, account: Any, scope: list[str], *, cae: bool) -> str:
    credential = ra.ResilientCredential(app, account=account)
    return str(credential.get_token(*scope, enable_cae=cae).token)


@pytest.mark.parametrize("first", [True, False], ids=["the sibling first", "the application first"])
def test_siblings_in_several_processes_take_turns(
    life: Callable[..., Any], sign_in: Callable[..., Any], first: bool
) -> None:
    """Each rotation builds on the one before, whoever of them made it."""
    here = life("desktop")
    account = sign_in(here)
    there = life("desktop")
    for number in range(3):
        assert _ask(here, account, [f"api://{number}/a"], cae=first)
        assert _ask(there, account, [f"api://{number}/b"], cae=not first)
    third = life("desktop")
    assert third.get_accounts("ann@contoso.com")
    assert _ask(third, account, OTHER_SCOPE, cae=True)
    assert _ask(life("desktop"), account, OTHER_SCOPE, cae=False)


def test_siblings_dont_overlap(idp: Emulator, life: Callable[..., Any], sign_in: Callable[..., Any]) -> None:
    """At the same moment, one of them waits for the other."""
    here = life("desktop")
    account = sign_in(here)
    there = life("desktop")
    idp.fail(Slow(0.5), "token")
    answers: list[str] = []
    asking = [
        threading.Thread(target=lambda app=app, cae=cae: answers.append(_ask(app, account, OTHER_SCOPE, cae=cae)))
        for app, cae in ((here, True), (there, False))
    ]
    for thread in asking:
        thread.start()
    while any(thread.is_alive() for thread in asking):
        assert sum(1 for call in idp.ledger.token_calls() if call.status is None) <= 1
        time.sleep(0.01)
    assert len(answers) == 2
