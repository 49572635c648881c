"""How an owner's own credential stands, in the words of who is paged: by the name that it has everywhere else."""

from __future__ import annotations

from typing import Any

import resilient_auth as ra
from resilient_auth.telemetry.labels import Addresses
from resilient_auth.telemetry.standing import standing


class Vault:
    """A credential of somebody else's that gives nothing."""

    def get_token(self, *_: str, **__: Any) -> Any:
        raise ConnectionError("nobody is there")


def test_who_fails_is_told_by_name() -> None:
    """In the reasons, beside its circuits and since when; and in the metrics. It has no URL."""
    with ra.ResilientCredential(Vault(), settings=ra.Settings(wait=0.5)) as credential:
        try:
            credential.get_token("https://orders.example/.default")
        except ra.ProviderUnavailable as failure:
            name = failure.authority
        health = ra.health()
        (reason,) = [each for each in health.reasons if each.startswith(name)]
        assert "has failed since" in reason
        assert (health.verdict, "://" in reason) == ("down", False)
        (token,) = [each for each in health.tokens if each.authority == name]
        assert (token.tenant, token.time_to_dark) == ("", 0.0)
        told = [labels for metric, labels, _ in standing(Addresses()) if metric == "resilient_auth.tokens"]
        assert (name, "expired") in told
