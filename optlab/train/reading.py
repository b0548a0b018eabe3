"""Where a configuration is read from: a YAML file, ready or one's own, and ``key=value`` pairs."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from optlab.errors import nearest
from optlab.train.configuration import Configuration, validated

READY = Path(__file__).with_name("configurations")


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML in which ``1e-3`` is a number, as in version 1.2."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+"),
    [*"-+.0123456789"],
)


def ready() -> list[str]:
    """The names of configurations that come with the package."""
    return sorted(path.stem for path in READY.glob("*.yaml"))


def read(name: str, pairs: Sequence[str] = ()) -> Configuration:
    """A configuration, from a file and what is to be different.

    Args:
        name: a file's path, or the name of one of those that are ready.
        pairs: ``key=value``, with dots between the keys of sections, and values in YAML.

    Raises:
        ValueError: there is no such file, it is no YAML, or what it says is not allowed.

    >>> read("digits-mlp", ["optimizer.lr=1e-2", "folder=here"]).optimizer.settings["lr"]
    0.01
    """
    path = Path(name)
    if not path.is_file():
        path = READY / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"{name} is neither a file nor ready: {nearest(name, ready())}")
    values = _parsed(path.read_text("utf-8"), str(path))
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold keys with values, got {values!r}")
    values.setdefault("folder", str(Path("runs") / path.stem))
    for pair in pairs:
        _put(values, pair)
    return validated(values)


def written(configuration: Configuration) -> str:
    """As YAML, from which it can be read again."""
    text: str = yaml.safe_dump(configuration.model_dump(), sort_keys=False)
    return text


def pairs_of(configuration: Configuration) -> list[tuple[str, str]]:
    """All keys, with dots, and values as texts; but for the folder, which changes nothing."""
    return [*_flat(configuration.model_dump(exclude={"folder"}))]


def _flat(values: dict[str, Any], above: str = "") -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", repr(value)


def _parsed(text: str, source: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{source} is no YAML: {error}") from None


def _put(values: dict[str, Any], pair: str) -> None:
    key, equals, text = pair.partition("=")
    if not equals or not key:
        raise ValueError(f"a change must be key=value, got {pair!r}")
    *sections, last = key.split(".")
    for section in sections:
        inner = values.get(section)
        if isinstance(inner, str):
            inner = {"name": inner}
        values[section] = values = inner if isinstance(inner, dict) else {}
    values[last] = _parsed(text, pair)
