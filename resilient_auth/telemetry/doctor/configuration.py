"""What is to be examined, as the environment, a file and options say it."""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from ..._policy.checks import nearest, require, require_number
from ..._policy.endpoint import host_of
from ...errors import ConfigurationError, printable

__all__ = ["FLOWS", "KEYS", "Setup", "read_setup"]

#: By name, whether the provider's backup system serves it, and why not, or under which condition (G27).
FLOWS: Final[Mapping[str, tuple[bool, str]]] = {
    "client_credentials": (False, "an application's own tokens aren't backed up"),
    "on_behalf_of": (False, "an API that exchanges its callers' tokens isn't backed up"),
    "web_app": (False, "a confidential web application that holds access or refresh tokens isn't backed up"),
    "web_app_id_token": (True, "for the same user, app and device within three days"),
    "native": (True, "where it acquires silently, for the same user, app and device within three days"),
    "device_code": (False, "device code isn't backed up"),
    "password": (False, "the password grant isn't backed up"),
    "managed_identity": (True, "managed identities are"),
}

_MOST = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Describe an application and its surroundings; each field is a key of the file.

    Args:
        authority: As MSAL takes it, such as `https://login.microsoftonline.com/<tenant>`.
        client_id: The application's.
        flows: How it gets tokens: names of `FLOWS`.
        scopes: Its scopes, as a list; or a list of such lists, where it asks for several sets.
        client_secret: Its secret. Better in the variable `AZURE_CLIENT_SECRET` than in the file.
        secret_expires: The day on which the secret runs out.
        certificate: The path of its certificate and key, in PEM or PFX.
        certificate_password: What opens that.
        client_capabilities: What it declares, such as `["cp1"]`.
        handles_challenges: Whether it answers claims challenges; `BearerAuth` and the transports do.
        verifies_tokens: Whether it is an API, to which tokens come.
        optional_claims: Those that the API's manifest asks for, such as `["xms_cc"]`.
        store: A file's path, or the URL of a Redis.
        trusted_group: As for `FileStore`.
        token_cache: The path of a serialised MSAL cache, where there is one.
        verify: As in MSAL: false, or the path of a CA bundle.
        discovery: The URL of the discovery document, where it isn't where MSAL looks for it.
        timeout: Seconds for each check, at most.
    """

    authority: str = ""
    client_id: str = ""
    flows: tuple[str, ...] = ()
    scopes: tuple[tuple[str, ...], ...] = ()
    client_secret: str = field(default="", repr=False)
    secret_expires: datetime.date | None = None
    certificate: str = ""
    certificate_password: str = field(default="", repr=False)
    client_capabilities: tuple[str, ...] = ()
    handles_challenges: bool = False
    verifies_tokens: bool = False
    optional_claims: tuple[str, ...] = ()
    store: str = field(default="", repr=False)  # a URL may hold a password
    trusted_group: int | None = None
    token_cache: str = ""
    verify: bool | str = True
    discovery: str = ""
    timeout: float = 5.0
    #: The file in which secrets stand, where they do; no key of the file.
    secrets_in: str = ""
    #: A user's name and password are in the environment; no key of the file.
    password_given: bool = False

    def __post_init__(self) -> None:
        for name in ("authority", "discovery"):
            url = getattr(self, name)
            require(
                not url or (url.startswith("https://") and host_of(url) is not None),
                f"{name} must be an https URL such as https://login.microsoftonline.com/<tenant>",
            )
        for flow in self.flows:
            require(flow in FLOWS, f"flows names {flow!r}{nearest(flow, FLOWS)}; there are {', '.join(FLOWS)}")
        require_number("timeout", self.timeout, low=0.1, high=60.0)

    @property
    def document_url(self) -> str:
        """Return where the discovery document is; "" where no authority is given."""
        if self.discovery or not self.authority:
            return self.discovery
        authority = self.authority.rstrip("/")
        version = "" if self.is_adfs else "/v2.0"
        return f"{authority.removesuffix('/v2.0')}{version}/.well-known/openid-configuration"

    @property
    def is_adfs(self) -> bool:
        """Return whether the authority is an AD FS."""
        return self.authority.lower().partition("://")[2].partition("/")[2].startswith("adfs")

    @property
    def is_b2c(self) -> bool:
        """Return whether the authority is Azure AD B2C's."""
        return ".b2clogin." in self.authority.lower() or "/tfp/" in self.authority.lower()


def read_setup(environ: Mapping[str, str], file: str | None = None, options: Mapping[str, Any] | None = None) -> Setup:
    """Put together what is to be examined; options win over the file, and the file over the environment.

    Args:
        environ: The process's environment, with azure-identity's names for credentials: `AZURE_TENANT_ID` and so on.
        file: The path of a TOML file.
        options: Fields of `Setup`.

    Raises:
        ConfigurationError: A key is unknown, or a value is of the wrong kind; names it, and never quotes a secret.
    """
    given = _from_environment(environ)
    if file is not None:
        given |= _from_file(file)
    given |= {name: value for name, value in (options or {}).items() if value not in (None, (), [])}
    return Setup(**{name: KEYS[name](name, value) if name in KEYS else value for name, value in given.items()})


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    given: dict[str, Any] = {
        key: environ[name]
        for name, key in (
            ("AZURE_CLIENT_ID", "client_id"),
            ("AZURE_CLIENT_SECRET", "client_secret"),
            ("AZURE_CLIENT_CERTIFICATE_PATH", "certificate"),
            ("AZURE_CLIENT_CERTIFICATE_PASSWORD", "certificate_password"),
        )
        if environ.get(name)
    }
    if tenant := environ.get("AZURE_TENANT_ID"):
        host = environ.get("AZURE_AUTHORITY_HOST") or "https://login.microsoftonline.com"
        given["authority"] = f"{host.rstrip('/') if '://' in host else f'https://{host}'}/{tenant}"
    if environ.get("AZURE_USERNAME") and environ.get("AZURE_PASSWORD"):
        given |= {"password_given": True, "flows": ["password"]}
    elif given.get("client_secret") or given.get("certificate") or environ.get("AZURE_FEDERATED_TOKEN_FILE"):
        given["flows"] = ["client_credentials"]
    elif environ.get("IDENTITY_ENDPOINT") or environ.get("AZURE_POD_IDENTITY_AUTHORITY_HOST"):
        given["flows"] = ["managed_identity"]
    return given


def _from_file(file: str) -> dict[str, Any]:
    try:
        with open(file, "rb") as stream:
            content = stream.read(_MOST + 1)
        require(len(content) <= _MOST, f"{file} is larger than {_MOST} bytes: that is no configuration of the doctor's")
        given = tomllib.loads(content.decode())
    except OSError as error:
        raise ConfigurationError(f"{file} can't be read: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        # Its text has a line and a column, and none of what stands there.
        raise ConfigurationError(f"{file} isn't TOML: {error}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file} isn't TOML: it must be UTF-8") from None
    except RecursionError:
        raise ConfigurationError(f"{file} can't be read: it nests too deep") from None
    except ValueError:  # Python's own, which says too little
        why = "a number in it has too many digits, or its path a null character"
        raise ConfigurationError(f"{printable(file)} can't be read: {why}") from None
    for name in given:
        known = sorted(KEYS)
        require(
            name in KEYS, f"{file} has the unknown key {name!r}{nearest(name, known)}; there are {', '.join(known)}"
        )
    if given.get("client_secret") or given.get("certificate_password"):
        given["secrets_in"] = str(Path(file))
    return given


def _text(name: str, value: object) -> str:
    require(isinstance(value, str), f"{name} must be a string, not {type(value).__name__}")
    return str(value)


def _truth(name: str, value: object) -> bool:
    require(isinstance(value, bool), f"{name} must be true or false, not {type(value).__name__}")
    return bool(value)


def _texts(name: str, value: object) -> tuple[str, ...]:
    require(
        isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value),
        f'{name} must be a list of strings, such as ["..."], not {type(value).__name__}',
    )
    return tuple(value)  # type: ignore[arg-type]


def _sets(name: str, value: object) -> tuple[tuple[str, ...], ...]:
    if isinstance(value, (list, tuple)) and value and all(isinstance(one, (list, tuple)) for one in value):
        return tuple(_texts(name, one) for one in value)
    found = _texts(name, value)
    return (found,) if found else ()


def _day(name: str, value: object) -> datetime.date:
    if isinstance(value, datetime.datetime):
        return value.date()
    if isinstance(value, str):
        try:
            value = datetime.date.fromisoformat(value)
        except ValueError:
            value = None
    if not isinstance(value, datetime.date):
        raise ConfigurationError(f"{name} must be a date such as 2027-01-31")
    return value


def _bundle(name: str, value: object) -> bool | str:
    require(isinstance(value, (bool, str)), f"{name} must be true, false or a path, not {type(value).__name__}")
    return value if isinstance(value, bool) else str(value)


def _group(name: str, value: object) -> int:
    require(isinstance(value, int) and not isinstance(value, bool), f"{name} must be a group's id, a whole number")
    return int(str(value))


def _seconds(name: str, value: object) -> float:
    require_number(name, value, low=0.1, high=60.0)
    return float(str(value))


_READERS: Final[Mapping[str, Callable[[str, object], Any]]] = {
    "flows": _texts,
    "scopes": _sets,
    "secret_expires": _day,
    "client_capabilities": _texts,
    "handles_challenges": _truth,
    "verifies_tokens": _truth,
    "optional_claims": _texts,
    "trusted_group": _group,
    "verify": _bundle,
    "timeout": _seconds,
}
#: How each key of the file is read.
KEYS: Final[Mapping[str, Callable[[str, object], Any]]] = {
    each.name: _READERS.get(each.name, _text)
    for each in fields(Setup)
    if each.name not in ("secrets_in", "password_given")
}
