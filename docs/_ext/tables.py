"""Tables that are made from the code when the documentation is built, so that they can't go stale."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import logging
import pkgutil
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import resilient_auth
from resilient_auth import Settings, errors, events
from resilient_auth.emulator import Fault
from resilient_auth.health.verdict import WORDS
from resilient_auth.settings import _NOT_IN_THE_ENVIRONMENT
from resilient_auth.telemetry.doctor import CHECKS
from resilient_auth.telemetry.doctor.configuration import FLOWS, KEYS, Setup
from resilient_auth.telemetry.metrics import LABELS, METRICS
from resilient_auth.telemetry.prometheus import name_of

_DOCS = Path(__file__).parents[1]
_PREFIX = "RESILIENT_AUTH_"
_GROUPS = ("freshness", "retry", "breaker", "fallback")
_FOR_TESTS = ("clock", "jitter")


class _Table(SphinxDirective):
    """Draw a table of what `rows` tells."""

    head: ClassVar[Sequence[str]]
    widths: ClassVar[Sequence[int]]

    def rows(self) -> Iterable[Sequence[str]]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        group = nodes.tgroup(cols=len(self.head))
        group += [nodes.colspec(colwidth=width) for width in self.widths]
        group += nodes.thead("", _row(self.head))
        group += nodes.tbody("", *(_row(cells) for cells in self.rows()))
        return [nodes.table("", group)]


def _row(cells: Sequence[str]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", *_paragraphs(cell)) for cell in cells))


def _paragraphs(cell: str) -> Iterable[nodes.Node]:
    return [nodes.paragraph("", "", *_inline(line)) for line in cell.splitlines()]


def _inline(text: str) -> Iterable[nodes.Node]:
    for part in re.split(r"(`[^`]+`)", text):
        yield nodes.literal(part[1:-1], part[1:-1]) if part.startswith("`") else nodes.Text(part)


def _summary(documented: Any) -> str:
    """Tell the first paragraph of a docstring."""
    return " ".join((inspect.getdoc(documented) or "").partition("\n\n")[0].split())


def _arguments(kind: type[Any]) -> dict[str, str]:
    """Tell what the section `Args` of a docstring says of each argument."""
    _, _, section = (inspect.getdoc(kind) or "").partition("Args:\n")
    found: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc(section.partition("\n\n")[0]).splitlines():
        if not line.startswith(" "):
            name, _, line = line.partition(":")
        found[name] = f"{found.get(name, '')} {line.strip()}".strip()
    return found


def _unit(default: object, meaning: str) -> str:
    if isinstance(default, bool):
        return ""
    if meaning.startswith("Bytes"):
        return "bytes"
    if isinstance(default, int):
        return "count"
    if "econds" in meaning:
        return "seconds"
    if isinstance(default, float):
        return "factor" if meaning.startswith("Factor") else "share"
    return "scopes" if meaning.startswith("Scopes") else ""


def _default(default: object) -> str:
    """Write a default as code."""
    return f"`{default:g}`" if isinstance(default, float) else f"`{default!r}`"


class SettingsTable(_Table):
    """List the options of a group, or those of `Settings` itself."""

    optional_arguments = 1
    head = ("Option and environment variable", "Default", "Unit", "Meaning")
    widths = (40, 10, 8, 44)

    def rows(self) -> Iterable[Sequence[str]]:
        group = self.arguments[0] if self.arguments else ""
        kind: Any = type(getattr(Settings(), group)) if group else Settings
        meanings = _arguments(kind)
        for option in dataclasses.fields(kind):
            if not group and option.name in (*_GROUPS, *_FOR_TESTS):
                continue
            variable = (f"{_PREFIX}{group}_{option.name}" if group else f"{_PREFIX}{option.name}").upper()
            meaning = meanings[option.name]
            name = f"`{option.name}`" if option.name in _NOT_IN_THE_ENVIRONMENT else f"`{option.name}`\n`{variable}`"
            yield name, _default(option.default), _unit(option.default, meaning), meaning


class ArgumentTable(_Table):
    """List what a class takes, from its signature and its docstring."""

    required_arguments = 1
    head = ("Argument", "Default", "Unit", "Meaning")
    widths = (22, 20, 8, 60)

    def rows(self) -> Iterable[Sequence[str]]:
        module, _, name = self.arguments[0].rpartition(".")
        kind = getattr(importlib.import_module(module), name)
        meanings = _arguments(kind)
        for given in inspect.signature(kind).parameters.values():
            default, meaning = given.default, meanings[given.name]
            if default is given.empty:
                yield f"`{given.name}`", "", "", meaning
            else:
                yield f"`{given.name}`", _default(default), _unit(default, meaning), meaning


def _follows(kind: type[events.Event]) -> bool:
    """Return whether an event's authority follows from another field of its."""
    return isinstance(getattr(kind, "authority", None), property)


class CodeTable(_Table):
    """List the codes of events that aren't an error's."""

    head = ("Code", "Meaning")
    widths = (24, 76)

    def rows(self) -> Iterable[Sequence[str]]:
        for code, meaning in events.CODES.items():
            yield f"`{code}`", meaning


class EventTable(_Table):
    """List the events."""

    head = ("Event and name", "Level", "Fields besides `at`", "When")
    widths = (24, 10, 30, 46)

    def rows(self) -> Iterable[Sequence[str]]:
        for name in events.__all__:
            kind = getattr(events, name)
            if isinstance(kind, type) and issubclass(kind, events.Event) and kind is not events.Event:
                own = [f.name for f in dataclasses.fields(kind) if f.name != "at"]
                told = ", ".join(f"`{f}`" for f in (["authority"] if _follows(kind) else []) + own)
                yield f"`{name}`\n`{kind.name}`", logging.getLevelName(kind.level), told, _summary(kind)


def _error_modules() -> Iterable[ModuleType]:
    """Find the public modules of errors: the package's own, then that of each room which has one."""
    yield errors
    for found in pkgutil.iter_modules(resilient_auth.__path__):
        name = f"{resilient_auth.__name__}.{found.name}.errors"
        if found.ispkg and not found.name.startswith("_") and importlib.util.find_spec(name):
            yield importlib.import_module(name)


class ErrorTable(_Table):
    """List the exceptions with their codes, and where they are imported from."""

    head = ("Exception", "`code`", "Meaning")
    widths = (24, 24, 60)

    def rows(self) -> Iterable[Sequence[str]]:
        for module in _error_modules():
            for name in module.__all__:
                kind = getattr(module, name)
                if isinstance(kind, type) and issubclass(kind, BaseException) and kind.__module__ == module.__name__:
                    meaning = _summary(kind).removeprefix("Say that ")
                    door = "" if module is errors else f"\n`{module.__name__.rpartition('.')[0]}`"
                    yield f"`{name}`{door}", f"`{kind.code}`", meaning[0].upper() + meaning[1:]


class ErrorTree(SphinxDirective):
    """Show the trees that are drawn at the top of the modules."""

    def run(self) -> list[nodes.Node]:
        return [nodes.literal_block(tree, tree, language="text") for tree in map(_tree, _error_modules())]


def _tree(module: ModuleType) -> str:
    drawn = [line for line in (module.__doc__ or "").splitlines() if line.startswith("    ")]
    return inspect.cleandoc("\n" + "\n".join(drawn))


class NameTable(_Table):
    """List the names of the package itself."""

    head = ("Name", "What it is")
    widths = (30, 70)

    def rows(self) -> Iterable[Sequence[str]]:
        for name in resilient_auth.__all__:
            if name != "__version__":
                yield f"`{name}`", _summary(getattr(resilient_auth, name))


class MetricTable(_Table):
    """List the metrics, with their names by Prometheus."""

    head = ("Metric", "Kind and unit", "Labels", "What it tells")
    widths = (34, 12, 26, 40)

    def rows(self) -> Iterable[Sequence[str]]:
        for metric in METRICS.values():
            names = f"`{metric.name}`\n`{name_of(metric)}`"
            yield (
                names,
                f"{metric.kind}\n{metric.unit}",
                "\n".join(f"`{label}`" for label in metric.labels),
                metric.text,
            )


class LabelTable(_Table):
    """List the metrics' labels, which are the spans' attributes too."""

    head = ("Label", "Values at most", "What it says")
    widths = (30, 14, 60)

    def rows(self) -> Iterable[Sequence[str]]:
        for name, (meaning, bound) in LABELS.items():
            yield f"`{name}`", bound, meaning


class FaultTable(_Table):
    """List the emulator's faults."""

    head = ("Name", "Constructor", "What it does")
    widths = (22, 40, 50)

    def rows(self) -> Iterable[Sequence[str]]:
        for name in Fault.all():
            make = getattr(Fault, name)
            parameters = inspect.signature(make).parameters.values()
            told = ", ".join(p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters)
            yield f"`{name}`", f"`Fault.{name}({told})`", _summary(make)


class DoctorTable(_Table):
    """List what the doctor looks at."""

    head = ("Check", "What it does", "Not made where these found an error")
    widths = (18, 60, 22)

    def rows(self) -> Iterable[Sequence[str]]:
        for check in CHECKS:
            yield f"`{check.name}`", _summary(check.run), ", ".join(f"`{name}`" for name in check.needs)


class DoctorKeyTable(_Table):
    """List the keys of the doctor's file."""

    head = ("Key", "Meaning")
    widths = (24, 76)

    def rows(self) -> Iterable[Sequence[str]]:
        meanings = _arguments(Setup)
        for name in KEYS:
            yield f"`{name}`", meanings[name]


class FlowTable(_Table):
    """List the flows, and whether the provider's backup system serves them."""

    head = ("Flow", "Backed up", "Why, or when")
    widths = (22, 12, 66)

    def rows(self) -> Iterable[Sequence[str]]:
        for name, (backed, why) in FLOWS.items():
            yield f"`{name}`", "yes" if backed else "no", why


class AdviceTable(_Table):
    """List the codes that a verdict has words for."""

    head = ("Code", "What happens", "What to do")
    widths = (22, 34, 44)

    def rows(self) -> Iterable[Sequence[str]]:
        for code, (what, advice) in WORDS.items():
            yield f"`{code}`", what, advice


class AlertTable(_Table):
    """List the alert rules."""

    head = ("Alert", "Severity", "After", "Says")
    widths = (38, 10, 8, 44)

    def rows(self) -> Iterable[Sequence[str]]:
        for group in yaml.safe_load((_DOCS / "alerts" / "resilient-auth.rules.yml").read_text())["groups"]:
            for rule in group["rules"]:
                # What a rule says of a label or a value is a template.
                says = re.sub(
                    r"\{\{ \$(?:labels\.)?(?:resilient_auth_)?(\w+)[^}]*\}\}", r"`\1`", rule["annotations"]["summary"]
                )
                yield f"`{rule['alert']}`", rule["labels"]["severity"], rule.get("for", "at once"), says


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("settings-table", SettingsTable)
    app.add_directive("argument-table", ArgumentTable)
    app.add_directive("event-table", EventTable)
    app.add_directive("code-table", CodeTable)
    app.add_directive("error-table", ErrorTable)
    app.add_directive("error-tree", ErrorTree)
    app.add_directive("name-table", NameTable)
    app.add_directive("fault-table", FaultTable)
    app.add_directive("metric-table", MetricTable)
    app.add_directive("label-table", LabelTable)
    app.add_directive("doctor-table", DoctorTable)
    app.add_directive("doctor-key-table", DoctorKeyTable)
    app.add_directive("flow-table", FlowTable)
    app.add_directive("advice-table", AdviceTable)
    app.add_directive("alert-table", AlertTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
