"""Answers to a provider that calls in the middle of a sign-in, which can't break it (G18, G19, G20).

enrich = Callout(TokenIssuanceStart, handler, caller=EntraCaller(verifier), default=Continue())
mount_callout(app, "/callouts/token", enrich)
"""

from .answers import (
    Answer,
    Continue,
    LastKnown,
    MigratePassword,
    RetryPassword,
    SendByProvider,
    ShowBlockPage,
    ShowValidationError,
    UpdatePassword,
)
from .b2c import ApiConnector, RestProfile
from .background_writes import BackgroundWrites
from .caller import AUTHENTICATION_EVENTS, BasicCaller, Caller, CertificateCaller, EntraCaller
from .callout import Callout
from .entra import (
    AttributeCollectionStart,
    AttributeCollectionSubmit,
    EmailOtpSend,
    PasswordSubmit,
    TokenIssuanceStart,
)
from .write import DeadLetter, Target, Undeliverable, Write, WritesFull

__all__ = [
    "AUTHENTICATION_EVENTS",
    "Answer",
    "ApiConnector",
    "AttributeCollectionStart",
    "AttributeCollectionSubmit",
    "BackgroundWrites",
    "BasicCaller",
    "Caller",
    "Callout",
    "CertificateCaller",
    "Continue",
    "DeadLetter",
    "EmailOtpSend",
    "EntraCaller",
    "LastKnown",
    "MigratePassword",
    "PasswordSubmit",
    "RestProfile",
    "RetryPassword",
    "SendByProvider",
    "ShowBlockPage",
    "ShowValidationError",
    "Target",
    "TokenIssuanceStart",
    "Undeliverable",
    "UpdatePassword",
    "Write",
    "WritesFull",
]
