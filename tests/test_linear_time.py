"""What strangers send is read in time that grows as its length does: every expression, and what reads whole texts.

A new expression is registered below with the method that the code calls and the texts that are worst for it; the tests
fail until it is.
"""

from __future__ import annotations

import ast
import functools
import importlib
import json
import math
import re
import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import resilient_auth
from resilient_auth._credentials.third_party_errors import verdict_on
from resilient_auth._wire.redaction import redact
from resilient_auth.claims_service.decision import MalformedDecision, read_answer
from resilient_auth.downstream.challenge import read
from resilient_auth.verify import InvalidToken, Presented
from resilient_auth.verify.bound.proof import _is_same
from resilient_auth.verify.errors import quoted
from resilient_auth.verify.http import bearer_token
from resilient_auth.verify.jose.compact import take_apart
from resilient_auth.verify.keys.documents import UnusableDocument, facts_in, keys_in
from resilient_auth.verify.trust import entra, host_of

Texts = tuple[tuple[str, str, str], ...]


def worst(*units: str) -> Texts:
    """Make texts of units that are repeated, from their beginning and behind a quote that never ends."""
    return tuple((before, unit, after) for unit in units for before in ("", '"') for after in ("", "\x00"))


#: By module and name: the method that is called, and what to repeat between a beginning and an end.
EXPRESSIONS: dict[str, tuple[str, Texts]] = {
    "_policy.failure._SECONDS": ("fullmatch", worst("1", "1.", "0")),
    "_policy.provider_errors._FIRST": ("search", worst("AADSTS", "AADSTS9", "AADSTS123456789 ", "a")),
    "_policy.provider_errors._LEADING": ("match", worst(" ", "\n ", "AADSTS", "AADSTS1")),
    "_policy.provider_errors._WORD_IN_TEXT": ("search", worst("temporarily_", "server_error_", "server_ ")),
    "_wire.discovery._COGNITO": ("fullmatch", worst("cognito-idp.", "a-", ".amazonaws.com")),
    "_credentials.third_party_errors._DENIED": (
        "search",
        worst("AADSTS", "AADSTS1", "invalid_", "MSIS0x", "consent_require"),
    ),
    "_credentials.third_party_errors._OAUTH_ERROR": ("search", worst("a", "a_", "a_a ", "client_", "aa_clien ")),
    "_wire.redaction._SECRETS": (
        "sub",
        worst("eyJ", "eyJaaaaaaaa", "eyJaaaaaaaa.", "code", "code ", "code=", 'code="', "code='", 'code="\\', "secret:",
              "code\n", "b'", "password = b'x\" ", '"secret"\t', "\\", "\\\\", "\\'"),
    ),
    "_credentials.request._TENANT": ("fullmatch", worst("a", "a.", ".-")),
    "_store.redis.store._PREFIX": ("fullmatch", worst("a", "a:", "-")),
    "_store.redis.answers._WORD": ("search", worst("OOM", "READONL", "-NOAUTH", " LOADING", "\t-", "OOM_")),
    "_store.sealing.sealed._KIND": ("fullmatch", worst("a", "a-")),
    "downstream.challenge._PARAMETER": (
        "match",
        (*worst("a", "a ", "a=", 'a="', "a\t", 'a="\\"', "="), ('a="', "x", ""), ('a="', "\\\\", ""),
         ("a=", "a", "\x00"),
         ("a", " ", "="), ("a=", " ", ""),
         ('a="x"', "\t", "x")),
    ),
    "downstream.challenge._SCHEME": ("match", (*worst("a", "a ", "a\t"), ("a", " ", "\x00"), ("a", "\t", "\x00"))),
    "downstream.challenge._TOKEN68": (
        "match", (*worst("a", "a=", "="), ("a", "=", "\x00"), ("a=", " ", "\x00"), ("a", "\t", "\x00"))
    ),
    "downstream.challenge._SEPARATORS": ("match", worst(" ", ",", "\t,")),
    "downstream.challenge._ESCAPE": ("sub", worst("\\", "\\a", "a\\")),
    "downstream.challenge._BASE64": ("fullmatch", worst("a", "a-", "+", "+-")),
    "emulator.provider.authorize._CHALLENGE": ("fullmatch", worst("a", "a" * 43, "a" * 128, "~", ".", "-")),
    "emulator.provider.realms._REGIONAL": ("fullmatch", worst("a", "a.", "-", "login.microsoft.com", "a.login")),
    "integrations.sqlalchemy._ELSEWISE": (
        "sub", worst("UID=", ";UID=", ";PWD={", ";PWD={}}", ";PWD={a", ";", "; ", ";UID ", ";UID=a")
    ),
    "telemetry.doctor.finding._USER": ("sub", worst("://", "://a", "://a@", "a", "@", "://a/")),
    "telemetry.doctor.installed._REQUIREMENT": ("fullmatch", worst("a", "a[", "a[a,", "a]", ">=", "a>=1.")),
    "telemetry.doctor.installed._BOUND": ("findall", worst(">=", ">=1", ">=1.1", "<1.")),
    "telemetry.doctor.installed._NUMBERS": ("match", worst("1", "1.", ".")),
    "settings._HOST": ("fullmatch", worst("a", "a.", "[", ":", "[:", "1:")),
    "verify.bound.confirmation._THUMBPRINT": ("fullmatch", worst("a", "-", "_")),
    "verify.bound.presented._SENT": (
        "fullmatch", (*worst("dpop ", "bearer ", "a", "a="), ("dpop", " ", "\x00"), ("dpop a", "=", "\x00"))
    ),
    "verify.deny._BETWEEN": ("match", worst(" ", "\n,", ":")),
    "verify.rules.revoked._GUID": ("fullmatch", worst("a", "-", "{", "urn:uuid:", "00000000-")),
    "verify.http.places._BEARER": (
        "fullmatch", (*worst("bearer ", "a", "a="), ("bearer", " ", "\x00"), ("bearer a", "=", "\x00"))
    ),
    "verify.http.places._OTHER_SCHEME": ("match", worst("bearer", "a", "bearer-", "a ")),
    "verify.http.places._BARE": ("fullmatch", worst("a", "=", "a=", ".")),
    "verify.http.places._NAME": ("fullmatch", worst("a", "-", "a-")),
    "verify.jose.compact._STRINGS": (
        "sub", worst('"', '\\"', '"\\', "[", "{", '["', '"[', '\\"[', "[]", '"a"', "\\", "\\\\", '{"\\":')
    ),
    "verify.jose.compact._COMPACT": ("fullmatch", worst("a", "a.", ".", "-_", "a.a.")),
    "verify.trust.IS_GUID": ("fullmatch", worst("a", "-", "00000000-")),
    "verify.trust._NAME": ("fullmatch", worst("a", ".", "a/")),
}  # fmt: skip


def expressions() -> dict[str, re.Pattern[str]]:
    """Find every compiled expression of the package, once each."""
    found: dict[str, re.Pattern[str]] = {}
    root = Path(resilient_auth.__path__[0])
    for source in _sources():
        compiled = _compiled_in(source)
        if not compiled:
            continue
        name = ".".join(source.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        module = importlib.import_module(f"resilient_auth.{name}")
        found |= {f"{name}.{one}": vars(module)[one] for one in compiled}
    return found


@functools.cache
def _sources() -> list[Path]:
    """Return the package's files that say `re.`, as all do that use it."""
    texts = {source: source.read_text() for source in Path(resilient_auth.__path__[0]).rglob("*.py")}
    assert not any(re.search(r"\bfrom re import|\bimport re as", text) for text in texts.values())
    return sorted(source for source, text in texts.items() if re.search(r"\bre\s*\.", text))


def _compiled_in(source: Path) -> set[str]:
    """Return the names of a module's own expressions."""
    return {
        target.id
        for statement in _tree(source).body
        if isinstance(statement, ast.Assign) and _is_call_of_re(statement.value, "compile")
        for target in statement.targets
        if isinstance(target, ast.Name)
    }


@functools.cache
def _tree(source: Path) -> ast.Module:
    return ast.parse(source.read_text())


def _is_call_of_re(node: ast.AST, *names: str) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "re"
        and (not names or node.func.attr in names)
    )


def apply(pattern: re.Pattern[str], method: str, text: str) -> None:
    """Call an expression as the code does, to the end."""
    if method == "finditer":
        for _ in pattern.finditer(text):
            pass
    elif method == "sub":
        pattern.sub("", text)
    else:
        getattr(pattern, method)(text)


def is_linear(call: Callable[[str], object], text_of: Callable[[int], str], sizes: tuple[int, ...]) -> bool:
    """Return whether the processor time grows as the text does, or nearly; what doesn't, does so each time."""
    return any(_growth(call, text_of, sizes) < MOST for _ in range(4))


def _growth(call: Callable[[str], object], text_of: Callable[[int], str], sizes: tuple[int, ...]) -> float:
    """Return with which power of the text's length the time grows: 1 is linear, 2 is quadratic.

    Medians of the thread's own processor time, each of enough calls to be measurable, of the shortest and the longest
    text. Those between are there to find out what takes so long that there is no doubt: it isn't measured further.
    """
    taken: list[float] = []
    for size in sizes:
        text, count = text_of(size), 1
        if size not in (sizes[0], sizes[-1]):
            taken.append(_spent(call, text, 1))
            if taken[-1] > 0.5 and len(taken) > 2:
                break
            continue
        while (once := _spent(call, text, count)) < 0.0005 and count < 1024:
            count *= 2
        measured = [once] if once > 0.1 else [once, *(_spent(call, text, count) for _ in range(2))]
        taken.append(statistics.median(measured) / count)
    return math.log(taken[-1] / taken[0]) / math.log(sizes[len(taken) - 1] / sizes[0])


def _spent(call: Callable[[str], object], text: str, count: int) -> float:
    begun = time.thread_time()
    for _ in range(count):
        call(text)
    return time.thread_time() - begun


def repeated(before: str, unit: str, after: str) -> Callable[[int], str]:
    return lambda size: before + unit * (size // len(unit)) + after


SIZES = (8_192, 16_384, 32_768, 65_536)
MOST = 1.5


def test_every_expression_is_registered() -> None:
    """With its worst texts; none is compiled elsewhere than at the top of a module, where it wouldn't be found."""
    assert set(expressions_by_name()) == set(EXPRESSIONS)
    for source in _sources():
        tree = _tree(source)
        top = {id(statement.value) for statement in tree.body if isinstance(statement, ast.Assign)}
        for node in ast.walk(tree):
            if _is_call_of_re(node) and not _is_call_of_re(node, "escape") and id(node) not in top:
                # An owner's issuers, each a literal with a GUID in it, matched against a token's.
                assert (source.name, ast.unparse(node)[:19]) == ("trust.py", "re.compile(first + "), ast.unparse(node)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_its_worst_texts_take_linear_time(name: str) -> None:
    """Twice the text takes about twice the time."""
    pattern, (method, texts) = expressions_by_name()[name], EXPRESSIONS[name]
    for text in texts:
        assert is_linear(lambda given: apply(pattern, method, given), repeated(*text), SIZES), text


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_no_text_made_of_its_own_parts_takes_long(name: str) -> None:
    """Pairs of the words and characters that stand in it: what nobody thought of when it was registered."""
    pattern, (method, _) = expressions_by_name()[name], EXPRESSIONS[name]
    for unit in _parts_of(pattern.pattern):
        for text in (unit * (4_096 // len(unit)), '"' + unit * (4_096 // len(unit)) + "\x00"):
            if _spent(lambda given: apply(pattern, method, given), text, 1) > 0.005:
                assert is_linear(
                    lambda given: apply(pattern, method, given), repeated(text[0], unit, text[-1]), SIZES
                ), unit


_found: dict[str, re.Pattern[str]] = {}


def expressions_by_name() -> dict[str, re.Pattern[str]]:
    if not _found:
        _found.update(expressions())
    return _found


def _parts_of(source: str) -> Iterable[str]:
    words = sorted(set(re.findall(r"[A-Za-z]{2,}", source)))
    characters = sorted({c for c in source if not c.isalnum() and c.isprintable()} | set('aA0 "\\\t'))
    yield from words
    for first in (*characters, *words):
        yield from (first + second for second in characters)


def trying(call: Callable[[str], object], *expected: type[Exception]) -> Callable[[str], object]:
    def attempt(text: str) -> None:
        with suppress(*expected):
            call(text)

    return attempt


class ClientAuthenticationError(Exception):
    """Azure-core's, which is known by its name."""


TRUST = entra("contoso.com")[0]
RS256 = frozenset({"RS256"})
PLAIN = ('{"keys":[', '{"kid":"a","kty":"RSA"},', "{}]}")
JSON = (
    ("", '"[]\\', ""), ("", '\\"{}', ""), ("", '"\\', ""),
    ('{"a":"', '\\"', ""), ("", "[", ""), ('{"a":', "[]", "}"), ('{"a":', '{"a":', ""),
    ('["', '["', ""),
    ('{"a":[', '"a",', '"a"]}'), ('{"a":"', "\\u0041", '"}'), ('{"a":', "1", "}"), ('{"a":1.', "1", "}"),
    ("{", '"a":1,', "}"),
    PLAIN, ('{"keys":[', '{"kid":"a","n":"' + "A" * 40 + '"},', "{}]}"),
    ('{"issuer":"', "https://login.microsoftonline.com/", '"}'), ('{"a":"', "\\ud800", '"}'), (" ", "\n", "{}"),
)  # fmt: skip
READERS: dict[str, tuple[Callable[[str], object], Any]] = {
    "a key set": (trying(lambda text: keys_in(text, RS256, 100), UnusableDocument), JSON),
    "a discovery document": (trying(lambda text: facts_in(text, TRUST, frozenset()), UnusableDocument), JSON),
    "a decision": (trying(lambda text: read_answer(text.encode(), None), MalformedDecision), JSON),
    "a token": (trying(take_apart, InvalidToken), (("", "a.", ""), ("", ".", ""), ("a.a.", "a", "."), ("", "é", ""))),
    "an Authorization header": (
        trying(lambda text: bearer_token([text]), InvalidToken),
        (("Bearer", " ", "x y"), ("Bearer ", "a=", ""), ("", "Bearer ", ""), ("Basic ", "a", "\x00"), ("", " ", "")),
    ),
    # What is found was looked for above; here it is replaced, as often as can be.
    "a log line": (redact, worst("eyJaaaaaaaa ", "code=a ", 'secret:"a" ', "code='")),
    "a credential's error": (
        lambda text: verdict_on(ClientAuthenticationError(text), "x", 0.0, lambda: False),
        (("", "a ", ""), ("", "invalid_", ""), ("", "eyJ", ""), ("", "\n", "")),
    ),
    "a quoted string": (quoted, (("", '"', ""), ("", "é", ""))),
    "a proof's address": (
        lambda text: _is_same(text, text),
        (("https://a/", "%", ""), ("https://a/", "%7e", ""), ("https://", "[", ""), ("", "/", "")),
    ),
    "a certificate": (
        lambda text: Presented(certificate=text).der(),
        (("", "%0a", ""), ("", "-----BEGIN CERTIFICATE-----", ""), (":", "A ", ":"), ("", " ", "x")),
    ),
    "an address": (trying(host_of, ValueError), (("https://", "[", ""), ("https://", "a:", ""), ("https://", "@", ""))),
}


@pytest.mark.parametrize("name", READERS)
def test_what_reads_whole_texts_takes_linear_time(name: str) -> None:
    """Loops of our own and of the libraries below, with the texts that are worst for them."""
    call, texts = READERS[name]
    for text in texts:
        assert is_linear(call, repeated(*text), SIZES), text


def test_challenges_take_linear_time() -> None:
    """Up to the longest header that is looked at."""
    for text in (
        *EXPRESSIONS["downstream.challenge._PARAMETER"][1],
        ("", "Bearer ", ""),
        ("", "a,", ""),
        ("", "a b=c,", ""),
    ):
        call, sizes = (lambda given: read([given])), (2_000, 4_000, 8_000, 16_000)
        assert is_linear(call, repeated(*text), sizes), text


@pytest.mark.parametrize("text", JSON, ids=lambda text: text[1][:12])
def test_the_longest_document_costs_little(text: tuple[str, str, str]) -> None:
    """2 MiB, the default bound: at most twenty times what parsing a plain one of that length takes."""
    read_it, _ = READERS["a key set"]
    document, plain = (repeated(*one)(2 * 1024 * 1024 - 64) for one in (text, PLAIN))
    # Whatever else the processor does adds to one or the other; what takes too long does so each time.
    assert any(_spent(read_it, document, 1) < 20 * _spent(json.loads, plain, 1) for _ in range(4))
