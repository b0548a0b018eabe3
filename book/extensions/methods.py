"""Methods: the source of the method cards, checked, and what can be measured of an optimizer."""

import functools
import inspect
import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pybtex.database import parse_file

from book.extensions import ROOT, claims

METHODS = ROOT / "book" / "methods.toml"
REFERENCES = ROOT / "book" / "references.bib"
RESULTS = ROOT / "benchmarks" / "results"
#: Inputs and outputs of the layer that optimizers are measured on, and steps before they are.
WIDTH, STEPS = 20, 10

Row = dict[str, Any]


class MethodsError(ValueError):
    """The source of the method cards is wrong; the message says where."""


@dataclass(frozen=True)
class Method:
    """A table of ``book/methods.toml``, which says what its keys mean."""

    name: str
    where: list[str]
    equation: str
    typical: str
    use: str
    avoid: str
    papers: list[str]
    claims: list[str] = field(default_factory=list)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    listings: list[str] = field(default_factory=list)
    cost: str = ""
    bars: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Measured:
    """What an optimizer keeps and does.

    Args:
        state: numbers for each parameter, by name in a checkpoint and, in brackets, in the rule.
        numbers: names of what it keeps once for each tensor.
        rule: the rule's name; none, if it has none.
        operations: on each weight, so without those on a layer's norms; a product and a sum in one
            count as one.
    """

    state: dict[str, float]
    numbers: list[str]
    rule: str
    operations: int


def load(text: str | None = None) -> dict[str, Method]:
    """The methods, in the source's order.

    Raises:
        MethodsError: one is missing or unknown, or a key is, or what a value refers to.
    """
    import optlab

    tables = tomllib.loads(METHODS.read_text("utf-8") if text is None else text)
    _same("methods.toml", set(tables), set(optlab.__all__))
    ids = {id for chapter in claims.texts().values() for id in chapter}
    papers, bars = set(parse_file(REFERENCES).entries), set(rows())
    keys = {name: f.default for name, f in Method.__dataclass_fields__.items() if name != "name"}
    found = {}
    for name, table in tables.items():
        _known(name, "key", table, keys)
        try:
            method = Method(name, **table)
        except TypeError as error:
            raise MethodsError(f"{name}: {error}") from None
        _known(name, "claim", method.claims, ids)
        _known(name, "paper", method.papers, papers)
        _known(name, "bar", method.bars, bars)
        _known(name, "chapter", [w.partition("#")[0] for w in method.where], claims.TITLES)
        if bool(rules(name)) == bool(method.listings) or bool(rules(name)) == bool(method.cost):
            raise MethodsError(f"{name}: listings and cost are for classes that name no rule")
        found[name] = method
    return found


def _known(name: str, kind: str, given: Any, known: Any) -> None:
    for item in given:
        if item not in known:
            raise MethodsError(f"{name}: no {kind} {item!r}")


def _same(what: str, given: set[str], needed: set[str]) -> None:
    if missing := needed - given:
        raise MethodsError(f"{what} lacks {', '.join(sorted(missing))}")
    if unknown := given - needed:
        raise MethodsError(f"{what} has {', '.join(sorted(unknown))}, no optimizer of optlab")


def rules(name: str) -> list[str]:
    """The rules that an optimizer's docstring names: the first is the plainest."""
    return re.findall(r"~optlab\.rules\.(\w+)", _kind(name).__doc__ or "")


def listings(method: Method) -> list[str]:
    """The functions that a card shows, with their modules: the rules, or what the source names."""
    return [f"rules.{rule}" for rule in rules(method.name)] or method.listings


def path(name: str) -> str:
    """Where an optimizer is defined."""
    kind = _kind(name)
    return f"{kind.__module__}.{kind.__qualname__}"


def summary(name: str) -> str:
    """An optimizer's docstring's first line."""
    return inspect.getdoc(_kind(name)).partition("\n")[0]


def defaults(name: str) -> dict[str, Any]:
    """An optimizer's keywords, with their defaults."""
    parameters = inspect.signature(_kind(name)).parameters
    return {key: p.default for key, p in parameters.items() if p.default is not p.empty}


def rows() -> dict[str, Row]:
    """The rows of all benchmarks that have a measurement, by bar."""
    files = [json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    return {row["bar"]: row for file in files for row in file if row["value"] is not None}


def timings(setting: str) -> dict[str, Row]:
    """The rows on a step's time of the largest model, by ``default`` and ``compiled``."""
    found = {}
    for bar, row in rows().items():
        words, _, what = bar.partition(": ")
        if what == f"{setting}, ResNet-18" and words.startswith("step, "):
            found[words.split(", ")[1]] = row
    return found


def agreement(name: str) -> list[Row]:
    """The rows on how far an optimizer's training is from that of torch's namesake."""
    found = rows().items()
    return [row for bar, row in found if bar.startswith(f"{name}, ") and "torch's" in bar]


def measure(name: str, settings: dict[str, Any]) -> Measured:
    """Make an optimizer on one layer, step, and look at what it keeps and does."""
    from torch import random

    with random.fork_rng(devices=[]):
        optimizer, count = _stepped(_kind(name), settings)
    symbols = {theirs: ours for ours, theirs in getattr(optimizer, "memory", {}).items()}
    kept = optimizer.state_dict()
    del kept["param_groups"]
    state: dict[str, float] = {}
    numbers = []
    for key, tensor in _tensors(kept):
        if tensor.numel() == 1:
            numbers.append(key)
        else:
            shown = f"`{key}` (`{symbols[key]}`)" if key in symbols else f"`{key}`"
            state[shown] = state.get(shown, 0) + tensor.numel() / count
    rule, operations = _recorded(name, optimizer)
    return Measured(state, list(dict.fromkeys(numbers)), rule, operations)


def _kind(name: str) -> Any:
    import optlab

    return getattr(optlab, name)


def _stepped(kind: Any, settings: dict[str, Any]) -> tuple[Any, int]:
    """An optimizer after some steps, and the number of its parameters."""
    import torch

    torch.manual_seed(0)
    layer = torch.nn.Linear(WIDTH, WIDTH)
    x, y = torch.randn(2, 5 * WIDTH, WIDTH)
    takes = inspect.signature(kind).parameters
    given: list[Any] = [layer if "model" in takes else layer.parameters()]
    optimizer = kind(*given, *["gaussian"] * ("likelihood" in takes), **settings)
    needs = getattr(optimizer, "closure", "none")

    def closure() -> Any:
        outputs = layer(x)
        if needs == "outputs":
            return outputs, y
        loss = (outputs - y).square().mean() / 2
        if needs != "loss":
            optimizer.zero_grad()
            loss.backward()
        return loss

    for _ in range(STEPS):
        optimizer.step(closure)
    return optimizer, sum(p.numel() for p in layer.parameters())


def _tensors(kept: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The tensors of a state dict, each with the nearest key that is a name."""
    from torch import Tensor

    if isinstance(kept, Tensor):
        yield key, kept
    elif isinstance(kept, dict):
        for inner, value in kept.items():
            yield from _tensors(value, inner if isinstance(inner, str) else key)
    elif isinstance(kept, (list, tuple)):
        for value in kept:
            yield from _tensors(value, key)


def _recorded(name: str, optimizer: Any) -> tuple[str, int]:
    """The rule that an optimizer runs, and its operations on a weight."""
    from optlab.engine.tape import record
    from optlab.rules import RULES
    from optlab.signatures import hyperparameters, starts

    named = rules(name)
    if not named:
        return "", 0
    group = optimizer.param_groups[0]
    bound = optimizer.bind(group)[0].__name__
    rule = RULES[bound if bound in named else named[0]]
    given = {"step": STEPS, **group}
    if "betas" in group:
        given["beta1"], given["beta2"] = group["betas"]
    given.setdefault("beta", group.get("momentum"))
    chosen = {key: given[key] for key in hyperparameters(rule) if key in given}
    operands = [
        start if optimizer.memory[variable] in optimizer.numbers else None
        for variable, start in starts(rule).items()
    ]
    program = record(functools.partial(rule, **chosen), None, None, *operands).program
    numbers: set[int] = set()  # sums over a layer, and what is made of them alone
    for place, (operation, given_places, _) in enumerate(program.operations, program.inputs):
        if operation == "sum" or (given_places and numbers.issuperset(given_places)):
            numbers.add(place)
    sums = sum(operation == "sum" for operation, *_ in program.operations)
    return rule.__name__, len(program.operations) - len(numbers) + sums


def files() -> list[Path]:
    """What the cards depend on."""
    from book.extensions import fingerprint

    sources = fingerprint.files({"optlab.optimizers"})
    sources += [Path(__file__), Path(__file__).with_name("cards.py")]
    return [METHODS, REFERENCES, claims.CLAIMS, claims.TEXTS, *RESULTS.glob("*.json"), *sources]
