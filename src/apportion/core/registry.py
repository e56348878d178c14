"""A class by its name, and a method or test from its repr. Nothing is reached but what `names.py` lists."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from inspect import signature
from typing import Any, Literal

from apportion import names
from apportion.errors import InputError, did_you_mean, shown

Kind = Literal["method", "test"]

METHODS = names.METHODS | names.INTERACTIONS | names.OF_ONE_KIND
LISTED: Mapping[str, Mapping[str, str]] = {"method": METHODS, "test": names.TESTS}

# What stands in the settings of methods and tests, by what one would call it.
SETTINGS: Mapping[str, Mapping[str, str]] = {
    "rule": names.RULES,
    "composite": names.COMPOSITES,
    "target": names.TARGETS,
    "partition": names.PARTITIONS,
    "replacement": names.REPLACEMENTS,
}


def class_named(name: str, kind: Kind = "method") -> Any:
    """The class of a method or test by its short name ("lrp") or its class name ("LRP"), in any case.

    >>> class_named("deletion-rate", "test").__name__
    'DeletionRate'
    >>> class_named("Epsilon")
    Traceback (most recent call last):
    apportion.errors.InputError: 'Epsilon' is a rule, not a method; accepted: auto, ...
    """
    listed = LISTED[kind]
    by_class = {place.split(":")[1].lower(): short for short, place in listed.items()}
    wanted = name.lower().replace("_", "-")
    short = by_class.get(wanted, wanted)
    if short in listed:
        return _imported(listed[short])
    accepted = f"accepted: {', '.join(listed)}"
    kinds = {**dict(LISTED), **SETTINGS}
    other = next((what for what, places in kinds.items() if name in _class_names(places)), "")
    if other:
        raise InputError(f"{name!r} is a {other}, not a {kind}; {accepted}")
    hint = did_you_mean(wanted, [*by_class, *listed], by_class)
    rest = f"apportion {kind}s lists all {len(listed)}" if hint else accepted
    raise InputError(f"unknown {kind} {name!r}; {hint}{rest}")


def from_repr(text: str, kind: Kind = "method") -> Any:
    """A method or test from its short name or its repr. Only literals and listed names are read.

    >>> from_repr("Saliency")
    Saliency(at=None)
    >>> from_repr("SmoothGrad(samples=8)").samples
    8
    >>> from_repr("ROAD(shares=(0.5,))", "test").shares, from_repr("deletion-rate", "test").higher_is_better
    ((0.5,), False)
    """
    name, opened, settings = text.strip().partition("(")
    if name in names.MAPS and kind == "method":
        return read_repr(text, partial(_setting, kind))
    made = class_named(name.strip(), kind)

    def named(inside: str) -> Any:
        return made if inside == made.__name__ else _setting(kind, inside)

    return read_repr(f"{made.__name__}({settings}", named, kind) if opened else made()


def read_repr(text: str, named: Callable[[str], Any], what: str = "") -> Any:
    """What a repr says, where `named` gives the class of a name; errors call it `what`."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        example = "a name such as lrp or LRP(at='conv1')"
        raise InputError(f"cannot read {what} {text!r:.200}; accepted: {example}") from None
    return _build(tree, text, named)


def made_of(item: Any, kind: Kind = "method") -> Any:
    """A method or test as it is, or by its name or repr; a class is refused."""
    if isinstance(item, type):
        name = item.__name__
        raise InputError(f"the {kind} {name} is a class; accepted: {name}(), with settings or without")
    return from_repr(item, kind) if isinstance(item, str) else item


def made_method(item: Any) -> Any:
    """The same of what has to be a method."""
    made = made_of(item)
    try:
        fits = callable(made)
        signature(made).bind("model", "inputs", "target")
    except TypeError:
        fits = False
    except ValueError:  # what is written in C says no more
        pass
    if not fits:
        raise InputError(f"method is {shown(made)}; accepted: a method, its short name or its repr")
    return made


def description(name: str, made: Any, **more: Any) -> dict[str, Any]:
    """What a list says of a class that can be made without settings.

    >>> description("saliency", class_named("saliency"))["settings"]
    'Saliency(at=None)'
    """
    about = " ".join((made.__doc__ or "").strip().split("\n\n")[0].split())
    return {"name": name, "settings": repr(made()), "about": about, **more}


def described_methods(*listed: Mapping[str, str]) -> list[dict[str, Any]]:
    """What a list says of all methods, or of those `listed`, by the question that each answers.

    >>> [(said["name"], said["question"]) for said in described_methods(names.INTERACTIONS)][:1]
    [('ih', 'What acts together?')]
    """
    asked = {name for places in listed or (METHODS,) for name in places}
    return [
        description(name, class_named(name), question=question, pairs=name in names.INTERACTIONS)
        for question, places in names.QUESTIONS.items()
        for name in places
        if name in asked
    ]


# ---- methods in files ----


@dataclass(frozen=True)
class Recorded:
    """A method of which only the repr is known: its settings hold data (a background, a label map), or its class is
    none of ours (not `listed`)."""

    text: str
    listed: bool = True

    def __repr__(self) -> str:
        return self.text

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise InputError(
            f"{self.text:.200} was read from a file without the data in its settings; make it anew"
        )


def is_listed(method: Any) -> bool:
    """Whether this is of one of our classes, and not of another that has the same name.

    >>> class LRP: ...
    >>> is_listed(LRP()), is_listed(class_named("lrp")())
    (False, True)
    """
    if isinstance(method, Recorded):
        return method.listed
    name, places = type(method).__name__, (*METHODS.values(), *names.MAPS.values())
    return any(place.endswith(f":{name}") and _imported(place) is type(method) for place in places)


def recorded(text: str, listed: bool = True) -> Any:
    """The method of a repr that was written to a file; a `Recorded`, called as its class was, where it cannot be made
    or is none of ours. InputError for what no method's repr looks like."""
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        tree = None  # somebody's own repr, or that of a large array
    if isinstance(tree, ast.Call) and not isinstance(tree.func, ast.Name):
        raise InputError(f"the method reads {text!r:.200}; accepted: the repr of a method")
    if listed:
        with suppress(InputError):
            return from_repr(text)
    name = re.match(r"\w*", text)
    return type(name[0] if name and name[0] else "Recorded", (Recorded,), {})(text, listed)


# ---- reading ----


def _imported(place: str) -> Any:
    module, attribute = place.split(":")
    return getattr(import_module(f"apportion.{module}"), attribute)


def _class_names(places: Mapping[str, str]) -> set[str]:
    return {place.split(":")[1] for place in places.values()}


def _setting(kind: Kind, name: str) -> Any:
    """A class that may stand inside a repr: a rule, a partition, a reference map, or another of the same kind."""
    for places in (*SETTINGS.values(), names.MAPS):
        if name in places:
            return _imported(places[name])
    return class_named(name, kind)


def _build(node: ast.expr, text: str, named: Callable[[str], Any]) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if any(keyword.arg is None for keyword in node.keywords):
            raise InputError(f"cannot read {text!r:.200}: ** is not accepted")
        arguments = [_build(argument, text, named) for argument in node.args]
        keywords = {str(keyword.arg): _build(keyword.value, text, named) for keyword in node.keywords}
        made = named(node.func.id)
        _check_settings(made, arguments, keywords)
        return made(*arguments, **keywords)
    if isinstance(node, ast.Tuple | ast.List):
        items = [_build(item, text, named) for item in node.elts]
        return tuple(items) if isinstance(node, ast.Tuple) else items
    try:
        if isinstance(node, ast.Dict):
            return {
                _build(k, text, named): _build(v, text, named)
                for k, v in zip(node.keys, node.values, strict=True)
                if k is not None
            }
        return ast.literal_eval(node)
    except InputError:
        raise
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):  # as of a key that is a list
        raise InputError(
            f"cannot read {ast.unparse(node)!r} in {text!r:.200}; accepted: literals and names of methods"
        ) from None


def _check_settings(made: Any, arguments: list[Any], keywords: dict[str, Any]) -> None:
    known = signature(made)
    accepted = f"accepted: {', '.join(known.parameters) or 'no settings'}"
    for name in keywords:
        if name not in known.parameters:
            hint = did_you_mean(name, known.parameters)
            raise InputError(f"{made.__name__} has no setting {name!r}; {hint}{accepted}")
    try:
        known.bind(*arguments, **keywords)
    except TypeError as error:
        raise InputError(f"{made.__name__}: {error}; {accepted}") from None
