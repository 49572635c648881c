"""What can be set about the emulator while it runs."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, Literal

from .checks import check, check_number, check_text


class Settings:
    """How the provider behaves when nothing is failed; every attribute may be set at any time.

    Attributes:
        token_lifetime: Life of access tokens in seconds.
        refresh_in: Sent as `refresh_in`, in seconds; None leaves it out.
        revocable: Give clients that declare `cp1` tokens of 20 to 28 hours, as Entra does.
        rotate: Whether the use of a refresh token issues a new one.
        one_time_refresh_tokens: Whether a used refresh token is refused from then on.
        device_code_interval: Seconds that a device-code client must leave between polls.
        refresh_token_lifetime: Life of refresh tokens in seconds.
        policy_claim: The claim that names the B2C policy, `tfp` or `acr`.
        region: The location that `/metadata/instance/compute` tells.
        missing_tenants: Tenants that don't exist: discovery and token answer 400 for them.
        met_contexts: The authentication contexts that sign-ins meet; an ID token tells the one that was asked for.

    Raises:
        ValueError: An attribute is set to what it can't be.
        AttributeError: There is no such attribute, and one of a name that is like it.
    """

    token_lifetime: float
    refresh_in: float | None
    revocable: bool
    rotate: Literal["always", "never"]
    one_time_refresh_tokens: bool
    device_code_interval: float
    refresh_token_lifetime: float
    policy_claim: Literal["tfp", "acr"]
    region: str
    missing_tenants: set[str]
    met_contexts: set[str]

    def __init__(self) -> None:
        self.token_lifetime = 3600.0
        self.refresh_in = None
        self.revocable = False
        self.rotate = "always"
        self.one_time_refresh_tokens = False
        self.device_code_interval = 1
        self.refresh_token_lifetime = 90 * 86400.0
        self.policy_claim = "tfp"
        self.region = "westus2"
        self.missing_tenants = {"nonexistent"}
        self.met_contexts = set()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in Settings.__annotations__:
            value = _checked(name, value)
        elif not name.startswith("_") and not hasattr(self, name):
            meant = get_close_matches(name, Settings.__annotations__, n=1, cutoff=0.8)
            if meant:
                raise AttributeError(f"there is no setting {name!r}: did you mean {meant[0]!r}?")
        super().__setattr__(name, value)

    def change(self, changes: dict[str, Any]) -> None:
        """Set several attributes at once, from values that came as JSON.

        Raises:
            ValueError: An attribute is unknown or its value is of the wrong type.
        """
        checked = {name: _checked(name, value) for name, value in changes.items()}
        for name, value in checked.items():
            setattr(self, name, value)


def _checked(name: str, value: Any) -> Any:
    match name:
        case "token_lifetime" | "device_code_interval" | "refresh_token_lifetime":
            check_number(name, value)
        case "refresh_in":
            if value is not None:
                check_number(name, value)
        case "revocable" | "one_time_refresh_tokens":
            check(isinstance(value, bool), f"{name} must be True or False, not {value!r}")
        case "rotate":
            check(value in ("always", "never"), f"rotate must be 'always' or 'never', not {value!r}")
        case "policy_claim":
            check(value in ("tfp", "acr"), f"policy_claim must be 'tfp' or 'acr', not {value!r}")
        case "region":
            check_text(name, value, "westus2")
        case "missing_tenants" | "met_contexts":
            fits = isinstance(value, list | set) and all(isinstance(one, str) for one in value)
            check(fits, f"{name} must be a set of texts, not {value!r}")
            return set(value)
        case _:
            raise ValueError(f"there is no setting {name!r}: use one of {', '.join(Settings.__annotations__)}")
    return value
