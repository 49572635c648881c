"""What type checkers are told of MSAL is what the installed MSAL has: what a release adds is noticed here."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import msal
import pytest

import resilient_auth as ra

PACKAGE = Path(__file__).parents[2] / "resilient_auth"
DECLARED = PACKAGE / "_msal" / "declared" / "classes.py"
KINDS = ("ClientApplication", "ConfidentialClientApplication", "PublicClientApplication", "ManagedIdentityClient")
#: Name, kind and default of each parameter.
Parameters = list[tuple[str, str, Any]]


def members(path: Path, name: str) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef | ast.AnnAssign]:
    """What a class's body declares, in a TYPE_CHECKING block too."""
    (found,) = (c for c in ast.walk(ast.parse(path.read_text())) if isinstance(c, ast.ClassDef) and c.name == name)
    declared: dict[str, Any] = {}
    for node in ast.walk(found):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            declared.setdefault(node.name, node)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            declared.setdefault(node.target.id, node)
    return declared


def declared_parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Parameters:
    given = function.args
    missing = inspect.Parameter.empty
    positional = [*given.posonlyargs, *given.args][1:]
    defaults = [missing] * (len(positional) - len(given.defaults)) + [ast.literal_eval(d) for d in given.defaults]
    found: Parameters = [(a.arg, "positional", d) for a, d in zip(positional, defaults, strict=True)]
    found += [("*", "rest", missing)] if given.vararg else []
    found += [
        (a.arg, "keyword", missing if d is None else ast.literal_eval(d))
        for a, d in zip(given.kwonlyargs, given.kw_defaults, strict=True)
    ]
    return found + ([("**", "rest", missing)] if given.kwarg else [])


def real_parameters(function: Any) -> Parameters:
    found: Parameters = []
    for one in list(inspect.signature(function).parameters.values())[1:]:
        if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            found.append(("*" if one.kind is one.VAR_POSITIONAL else "**", "rest", one.empty))
        else:
            kind = "keyword" if one.kind is one.KEYWORD_ONLY else "positional"
            default = one.default
            found.append((one.name, kind, default if default is one.empty else _plain(default)))
    return found


def _plain(default: Any) -> Any:
    return default if isinstance(default, str | int | float | bool | type(None)) else None


def public(kind: type[Any]) -> dict[str, Any]:
    """What a class of MSAL's has itself."""
    return {n: v for n, v in vars(kind).items() if not n.startswith("_") or n == "__init__"}


def check_parameters(method: str, ours: Parameters, theirs: Parameters) -> None:
    """The same parameters in the same places with the same defaults; what goes on to MSAL's as it is may be `*args`."""
    rest = ("*", "rest", inspect.Parameter.empty)
    if rest in ours:
        named = ours[: ours.index(rest)]
        assert [n for n, _, _ in named] == [n for n, _, _ in theirs[: len(named)]], method
    else:
        assert ours == theirs, method


@pytest.mark.parametrize("name", KINDS)
def test_each_class_has_what_msals_has(name: str) -> None:
    """The same names, each with the same parameters: in ours, or declared where ours inherits it."""
    real, declared, ours = public(getattr(msal, name)), members(DECLARED, name), getattr(ra.msal, name)
    for method, value in real.items():
        own = getattr(ours, method)
        if method == "__init__":
            assert own is not value  # its arguments are declared by name, which another test looks at
        elif not callable(value):
            assert method in declared
        elif own is value:
            assert declared_parameters(declared.pop(method)) == real_parameters(value), method
        else:
            check_parameters(method, real_parameters(own), real_parameters(value))
    declared.pop("__init__", None)
    assert not [n for n, d in declared.items() if isinstance(d, ast.FunctionDef)], "declared in vain"


def test_the_managed_identity_clients_constructor_is_declared_as_it_is() -> None:
    """It is the one of MSAL's that ours calls."""
    declared = members(DECLARED, "ManagedIdentityClient")["__init__"]
    assert isinstance(declared, ast.FunctionDef)
    assert declared_parameters(declared) == real_parameters(msal.ManagedIdentityClient.__init__)


@pytest.mark.parametrize(
    ("kind", "arguments"), [("ConfidentialClientApplication", "Client"), ("PublicClientApplication", "Public")]
)
def test_constructors_are_declared_with_all_that_msals_take(kind: str, arguments: str) -> None:
    """By name, as our own constructors hand them on."""
    named = {*members(DECLARED, "CommonArguments"), *members(DECLARED, f"{arguments}Arguments")}
    real = {n for n, _, _ in real_parameters(msal.ClientApplication.__init__)}
    real |= {n for n, _, _ in real_parameters(getattr(msal, kind).__init__)} - {"**"}
    assert named == real - {"client_id"} - ({"client_credential"} if arguments == "Public" else set())


def test_asyncio_has_the_same_as_coroutines() -> None:
    """Each method of both kinds of application, with its parameters, to be awaited."""
    declared = members(PACKAGE / "aio.py", "Application")
    for kind in (msal.ConfidentialClientApplication, msal.PublicClientApplication, msal.ClientApplication):
        for name, method in public(kind).items():
            if not callable(method) or name == "__init__":
                continue
            ours = declared[name]
            assert isinstance(ours, ast.AsyncFunctionDef), name
            check_parameters(name, declared_parameters(ours), real_parameters(method))
    for_client = members(PACKAGE / "aio.py", "ManagedIdentity")["acquire_token_for_client"]
    assert isinstance(for_client, ast.AsyncFunctionDef)
    assert declared_parameters(for_client) == real_parameters(msal.ManagedIdentityClient.acquire_token_for_client)
