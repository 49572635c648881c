"""What a handler may answer, in one set of words for every contract; how each contract writes them is beside it.

A message is a text, or texts by language, of which the user's own is picked (`ui_locales`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias, TypeGuard

from .._policy.checks import require, require_number
from ..verify.claims import FrozenDict, frozen

__all__ = [
    "Answer",
    "Continue",
    "LastKnown",
    "Message",
    "MigratePassword",
    "RetryPassword",
    "SendByProvider",
    "ShowBlockPage",
    "ShowValidationError",
    "UpdatePassword",
    "localized",
    "longest",
]

Message: TypeAlias = str | Mapping[str, str]

_NOTHING: Final[Mapping[str, Any]] = FrozenDict()
_LONGEST_MESSAGE: Final = 1000
#: Parts of a language such as `zh-Hant-TW`, at most.
_LONGEST_LOCALE: Final = 8


@dataclass(frozen=True, slots=True)
class Continue:
    """Let the user go on.

    Args:
        claims: What the provider is to know: claims for the token, values to fill the form in with, values in place of
            those that were submitted. Their names are the contract's own. They are as they were when this was made.
    """

    claims: Mapping[str, Any] = field(default_factory=lambda: _NOTHING, repr=False)

    def __post_init__(self) -> None:
        fits = isinstance(self.claims, Mapping) and all(isinstance(name, str) and name for name in self.claims)
        require(fits, "claims must be a mapping of names to values")
        _keep(self, "claims")


@dataclass(frozen=True, slots=True)
class ShowBlockPage:
    """End this user's sign-in or sign-up with a message."""

    message: Message
    title: Message = ""

    def __post_init__(self) -> None:
        _check_message("message", self.message)
        _check_message("title", self.title, empty=True)
        _keep(self, "message", "title")


@dataclass(frozen=True, slots=True)
class ShowValidationError:
    """Have the user correct what they gave, and try again.

    Args:
        message: What is wrong.
        attributes: What is wrong with each attribute, by its name; where the contract knows that.
        code: For the REST technical profile's policy, such as `DUPLICATE`; other contracts know none.
    """

    message: Message
    attributes: Mapping[str, Message] = field(default_factory=lambda: _NOTHING)
    code: str = ""

    def __post_init__(self) -> None:
        _check_message("message", self.message)
        require(isinstance(self.attributes, Mapping), "attributes must be a mapping of names to messages")
        for name, message in self.attributes.items():
            require(_is_text(name), "attributes must be named by texts")
            _check_message(f"attributes[{name!r}]", message)
        require(_is_text(self.code), "code must be a text")
        _keep(self, "message", "attributes")


@dataclass(frozen=True, slots=True)
class MigratePassword:
    """Say that the password is right, and may be kept by the provider from now on."""


@dataclass(frozen=True, slots=True)
class UpdatePassword:
    """Say that the password is right, and that the user must choose another one."""


@dataclass(frozen=True, slots=True)
class RetryPassword:
    """Say that the password is wrong."""


@dataclass(frozen=True, slots=True)
class SendByProvider:
    """Have the provider send the one-time code itself: a status of 503, which Entra takes as that where the extension's
    configuration has `fallbackToMicrosoftProviderOnError`, and as the end of the sign-in where it hasn't.
    """


Answer: TypeAlias = (
    Continue | ShowBlockPage | ShowValidationError | MigratePassword | UpdatePassword | RetryPassword | SendByProvider
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LastKnown:
    """As a default: the claims that the handler gave last for the same user, tenant and application.

    Args:
        otherwise: The answer where there are none, or they are too old.
        max_age: Seconds for which claims may stand in, from 1 to 604,800.
        most: Claims that this process keeps beside the store, at most; the least recently used go first.
    """

    otherwise: Answer
    max_age: float = 3600.0
    most: int = 10_000

    def __post_init__(self) -> None:
        require_number("max_age", self.max_age, low=1.0, high=7 * 86_400.0)
        require(isinstance(self.most, int) and self.most >= 1, "most must be a whole number, at least 1")


def localized(message: Message, locales: Sequence[str]) -> str:
    """Return a message in the first of the languages that it is there in; else in English, else in its own first one.

    Args:
        message: A text, or texts by language.
        locales: The user's languages, such as `de-AT`, the best first.
    """
    if isinstance(message, str):
        return message
    texts = {_tag(language): text for language, text in message.items()}
    for locale in (*locales, "en"):
        parts = _tag(locale).split("-")
        # Shortened from its end (RFC 4647, section 3.4): `zh-Hant-TW`, `zh-Hant`, `zh`.
        for number in range(min(len(parts), _LONGEST_LOCALE), 0, -1):
            language = "-".join(parts[:number])
            if language in texts:
                return texts[language]
    return next(iter(texts.values()))


def _keep(answer: Answer, *names: str) -> None:
    """Keep what an answer was made of: whoever made it may write the next user's into the same dict."""
    for name in names:
        object.__setattr__(answer, name, frozen(getattr(answer, name)))


def _tag(language: str) -> str:
    return language.lower().replace("_", "-")


def longest(answer: Answer) -> Answer:
    """Return an answer with its messages in the language that takes most bytes each, whatever a user's languages."""

    def widest(message: Message) -> str:
        return message if isinstance(message, str) else max(message.values(), key=lambda text: len(text.encode()))

    match answer:
        case ShowBlockPage():
            return replace(answer, message=widest(answer.message), title=widest(answer.title))
        case ShowValidationError():
            attributes = {name: widest(message) for name, message in answer.attributes.items()}
            return replace(answer, message=widest(answer.message), attributes=attributes)
    return answer


def _is_text(text: object) -> TypeGuard[str]:
    """Return whether something is a text that can be sent: half of a surrogate pair can't."""
    try:
        return isinstance(text, str) and text.encode() is not None
    except UnicodeEncodeError:
        return False


def _check_message(name: str, message: object, *, empty: bool = False) -> None:
    texts = list(message.values()) if isinstance(message, Mapping) else [message]
    fits = bool(texts) and all(_is_text(text) and (empty or text) and len(text) <= _LONGEST_MESSAGE for text in texts)
    require(fits, f"{name} must be a text of 1 to {_LONGEST_MESSAGE} characters, or such texts by language")
    if isinstance(message, Mapping):
        require(
            all(isinstance(language, str) and language for language in message),
            f"{name} must have languages such as 'de' as its keys",
        )
