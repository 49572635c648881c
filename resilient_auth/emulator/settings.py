"""What can be set about the emulator while it runs."""

from __future__ import annotations

from typing import Any, Final, Literal

#: Seconds; a hundred years, so that every moment is one that a clock can tell.
_LONGEST: Final = 100 * 365 * 86400


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
    """

    def __init__(self) -> None:
        self.token_lifetime = 3600.0
        self.refresh_in: float | None = None
        self.revocable = False
        self.rotate: Literal["always", "never"] = "always"
        self.one_time_refresh_tokens = False
        self.device_code_interval = 1
        self.refresh_token_lifetime = 90 * 86400.0
        self.policy_claim: Literal["tfp", "acr"] = "tfp"
        self.region = "westus2"
        self.missing_tenants: set[str] = {"nonexistent"}
        self.met_contexts: set[str] = set()

    def change(self, changes: dict[str, Any]) -> None:
        """Set several attributes at once, from values that came as JSON.

        Raises:
            ValueError: An attribute is unknown or its value is of the wrong type.
        """
        checked = {name: _checked(name, value) for name, value in changes.items()}
        for name, value in checked.items():
            setattr(self, name, value)


def _checked(name: str, value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LONGEST
    match name:
        case "token_lifetime" | "device_code_interval" | "refresh_token_lifetime":
            valid = number
        case "refresh_in":
            valid = number or value is None
        case "revocable" | "one_time_refresh_tokens":
            valid = isinstance(value, bool)
        case "rotate":
            valid = value in ("always", "never")
        case "policy_claim":
            valid = value in ("tfp", "acr")
        case "region":
            valid = isinstance(value, str)
        case "missing_tenants" | "met_contexts":
            valid = isinstance(value, list | set) and all(isinstance(one, str) for one in value)
            value = set(value) if valid else value
        case _:
            raise ValueError(f"there is no setting {name!r}")
    if not valid:
        raise ValueError(f"{value!r} isn't a value for {name}")
    return value
