"""Claims and decisions go wherever plain values do: into JSON, copies, pickles and sessions; and can't be changed."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from resilient_auth import Decision
from resilient_auth.claims_service.decision import shaped
from resilient_auth.testing import claims
from resilient_auth.verify.claims import Claims, FrozenDict

NESTED = {"address": {"city": "Zürich", "lines": ["a", {"b": 1}]}, "realm_access": {"roles": ["admin"]}}


@pytest.fixture(params=["flat", "nested"])
def ada(request: pytest.FixtureRequest) -> Claims:
    return claims("ada.lovelace", scopes="orders.read orders.list", **(NESTED if request.param == "nested" else {}))


@pytest.fixture
def decision() -> Decision:
    return shaped({"allowed": True, "reason": "ok", "attributes": NESTED})


WAYS: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "pickle 0": lambda value: pickle.loads(pickle.dumps(value, 0)),
    "replace": dataclasses.replace,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_is_the_same(ada: Claims, decision: Decision, way: str) -> None:
    """Whole and frozen, whichever way it is made."""
    for value, held in ((ada, "raw"), (decision, "attributes")):
        again = WAYS[way](value)
        assert again == value
        assert type(getattr(again, held)) is FrozenDict
        assert getattr(again, held) == getattr(value, held)


def test_what_they_hold_is_json(ada: Claims, decision: Decision) -> None:
    """As it stands, as a dict of it, and as a part of anything else."""
    for held in (ada.raw, decision.attributes):
        said = json.dumps({"user": [held]})
        assert json.loads(said)["user"] == [json.loads(json.dumps(dict(held)))]
        assert pickle.loads(pickle.dumps(held)) == copy.deepcopy(held) == held
    assert json.loads(json.dumps(ada.raw))["scp"] == "orders.list orders.read"


def test_dataclasses_take_them_apart(ada: Claims, decision: Decision) -> None:
    assert dataclasses.asdict(ada)["raw"] == ada.raw
    assert dataclasses.asdict(ada)["scopes"] == {"orders.read", "orders.list"}
    assert dataclasses.asdict(decision)["attributes"] == decision.attributes
    assert dataclasses.astuple(decision)[2] == decision.attributes


def test_to_dict_is_plain_and_ones_own(ada: Claims, decision: Decision) -> None:
    """Sets become sorted lists; what is changed there is changed nowhere else."""
    told = ada.to_dict()
    assert json.loads(json.dumps(told)) == told
    assert told["scopes"] == ["orders.list", "orders.read"]
    assert told["provenance"] == {"keys": "fresh", "keys_age": 0.0, "grace": False, "past_expiry": 0.0}
    assert type(told["raw"]) is dict
    told["raw"]["sub"] = "eve"
    assert ada.raw["sub"] == "ada.lovelace"
    said = decision.to_dict()
    assert json.loads(json.dumps(said)) == said
    said["attributes"]["address"]["lines"].append("x")
    assert decision.attributes["address"]["lines"] == ("a", {"b": 1})


CHANGES: dict[str, Callable[[Any], Any]] = {
    "set": lambda held: held.__setitem__("sub", "eve"),
    "delete": lambda held: held.__delitem__("sub"),
    "update": lambda held: held.update(sub="eve"),
    "or": lambda held: held.__ior__({"sub": "eve"}),
    "setdefault": lambda held: held.setdefault("x", 1),
    "pop": lambda held: held.pop("sub"),
    "popitem": lambda held: held.popitem(),
    "clear": lambda held: held.clear(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_in_them_changes(change: str) -> None:
    """At any depth; the error says what to do instead."""
    ada = claims("ada.lovelace", **NESTED)
    for held in (ada.raw, ada.raw["address"], ada.raw["address"]["lines"][1]):
        before = dict(held)
        with pytest.raises(TypeError, match="dict"):
            CHANGES[change](held)
        assert held == before
    assert {**ada.raw, "sub": "eve"}["sub"] == (ada.raw | {"sub": "eve"})["sub"] == "eve"
    assert type(ada.raw.copy()) is dict  # type: ignore[attr-defined]
    assert "lovelace" not in repr(ada)
