"""Methods beside each other on the same samples: every test, reference rows, and how far the result carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apportion.core.calling import Model
from apportion.core.classifier import Classifier
from apportion.core.features import Features, TabularFeatures
from apportion.core.registry import LISTED, Kind, from_repr, made_of
from apportion.core.target import Target, class_indices
from apportion.domains.language import LanguageModel
from apportion.engines.masking.replacements import Blur, Delete, Mean, Replacement
from apportion.errors import InputError, check, check_seed, shown
from apportion.evaluation.case import Case, CurveTest
from apportion.evaluation.reference_maps import Map, references, target_of, values_of
from apportion.results.explanation import Explanation
from apportion.results.scores import Scores
from apportion.results.table import Table, join_tables

QUICK_TESTS = ("pixel-flipping", "deletion-rate", "comprehensiveness", "sufficiency", "infidelity")


def compare(
    model: Model | Classifier | LanguageModel,
    inputs: Any,
    methods: Sequence[Any] | Mapping[str, Any],
    tests: Sequence[Any] | Mapping[str, Any] = QUICK_TESTS,
    target: Target = None,
    *,
    labels: Tensor | None = None,
    features: Sequence[Features] | None = None,
    mask: int | Tensor | None = None,
    chunk: int | None = None,
    replacements: Sequence[Replacement] | None = None,
    seed: int = 0,
) -> Table:
    """Put explanations of the same inputs through the same tests, beside the rows random, uniform and reversed.

    What is run for one test is not run again for another. A test that cannot take a method is not applicable there, and
    one that can take none has no column; the notes of the table say why. The row `reversed` is the first method's. The
    table warns where another method would win under one of `replacements`.

    Args:
        model (Model, Classifier or LanguageModel): The model.
        inputs (Inputs): A batch, as the model takes it. Of a `Classifier` also a list of texts, pictures or rows:
            each is explained by itself, and `target` and `labels` may have one number for each. Of a `LanguageModel` a
            `Question`, or a list of several.
        methods (list or dict): Methods, short names or reprs, or a dict name → method or map (an Explanation, or
            numbers in the shape of the inputs).
        tests (list of str or test, default QUICK_TESTS): Tests, short names or reprs, or a dict name → test.
        target (Target, default None): What is explained; None: the predicted class, or the target of a map given.
        labels (Tensor, default None): True classes, which some tests need.
        features (sequence of Features, default None): Features of the domain, one per sample; None: those of a map
            given.
        mask (int, default None): Id of a mask token, as in `Case`.
        chunk (int, default None): Rows that run at once, as in `Case`.
        replacements (list of Replacement, default None): Replacements to run again those tests with that leave theirs
            open; None: mean and blur for images, deletion for token ids; (): none.
        seed (int, default 0): Seed of the row random and of the bootstrap.

    >>> import apportion as ap
    >>> model, x = torch.nn.Linear(4, 1), torch.randn(8, 4)
    >>> table = ap.compare(model, x, ["inputxgradient", "saliency"], ["pixel-flipping"])
    >>> table.best("pixel-flipping"), list(table.scores)
    ('inputxgradient', ['inputxgradient', 'saliency', 'random', 'uniform', 'reversed'])
    """
    check_seed(seed)
    of_prompts = isinstance(model, LanguageModel) and isinstance(inputs, list) and bool(inputs)
    if of_prompts or (isinstance(model, Classifier) and model.are_several(inputs)):
        many, goals = len(inputs), [target]
        if target is not None and not callable(target):
            goals = class_indices(target, many).tolist()
        true = [None] * many if labels is None else torch.as_tensor(labels).split(1)
        if len(true) != many:
            raise InputError(f"{len(true)} labels for {many} inputs; accepted: one each")
        tables = [
            compare(
                model, x, methods, tests, goals[i % len(goals)],
                labels=true[i], mask=mask, chunk=chunk, replacements=replacements, seed=seed + i,
            )
            for i, x in enumerate(inputs)
        ]  # fmt: skip
        return join_tables(tables)
    chosen = _name_all(tests, "test")
    given = _name_all(methods, "method")
    if not chosen or not given:
        raise InputError(f"{'tests' if given else 'methods'} is empty; accepted: at least one")
    if replacements is not None:
        check("replacements", replacements, _are_replacements, "a list of replacements")
    known = [m for m in given.values() if isinstance(m, Explanation)]
    if target is None and known:
        target = target_of(known[0], None)
    if features is None and known:
        features = known[0].features
    for name, test in chosen.items():
        if not hasattr(test, "measure") or not hasattr(test, "blind"):
            raise InputError(
                f"{name} takes other arguments than a model, inputs and maps, so it is in no table"
            )
    case = Case(model, inputs, target, labels=labels, features=features, mask=mask, chunk=chunk)
    case.target = case.masking().resolved  # one target for all
    rows: dict[str, Map] = {name: _make_map(made, case) for name, made in given.items()}
    _check_targets(rows, case.target)
    beside = references(next(iter(rows.values())), seed)
    for name in beside:
        if name in rows:
            raise InputError(f"a method is called {name!r}, as a reference row is; accepted: another name")
    rows |= beside
    for row in rows.values():
        values_of(row, case.masking().inputs)  # a map that no test could take
    scores = {row: case.scores(chosen, m, refusals=True) for row, m in rows.items()}
    made = {row: m for row, m in rows.items() if row not in beside}
    taken = {name for row in made for name in chosen if not scores[row][name].refusal}
    if not taken:
        raise InputError("; ".join(dict.fromkeys(s.refusal for row in made for s in scores[row].values())))
    if replacements is None:
        replacements = _usual_replacements(case)
    open_tests = {
        n: t for n, t in chosen.items() if isinstance(t, CurveTest) and t.replacement is None and n in taken
    }
    default = repr(case.masking().parts[0].replacement)
    panel: dict[str, dict[str, dict[str, Scores]]] = {name: {} for name in open_tests if replacements}
    by_replacement = {default: {row: scores[row] for row in made}}
    for other in replacements:
        changed = {name: replace(test, replacement=other) for name, test in open_tests.items()}
        by_replacement[repr(other)] = {row: case.scores(changed, m, refusals=True) for row, m in made.items()}
    for name, by_name in panel.items():
        for used, found in by_replacement.items():
            by_name[used] = {row: of_row[name] for row, of_row in found.items()}
    blind = tuple(name for name, test in chosen.items() if test.blind)
    return Table(scores, tuple(beside), panel, seed, blind)


def _name_all(given: Sequence[Any] | Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """Name → what was given, or what its short name or repr stands for."""
    if isinstance(given, Mapping):
        return {name: made_of(item, kind) for name, item in given.items()}
    if not isinstance(given, list | tuple):
        what = "one text" if isinstance(given, str) else f"no list but {type(given).__name__}"
        raise InputError(
            f"{kind}s: {shown(given):.60} is {what}; accepted: a list of names, such as [{next(iter(LISTED[kind]))!r}]"
        )
    made = [made_of(item, kind) for item in given]
    names = [
        item.strip() if isinstance(item, str) else _short_name(own, kind)
        for item, own in zip(given, made, strict=True)
    ]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{name!r} is there twice")
    first: dict[str, str] = {}
    for name, own in zip(names, made, strict=True):
        if (
            is_dataclass(own)
            and not isinstance(own, Explanation)
            and first.setdefault(repr(own), name) != name
        ):
            raise InputError(f"{name!r} is the same as {first[repr(own)]!r}; accepted: each of them once")
    return dict(zip(names, made, strict=True))


def _short_name(made: Any, kind: Kind) -> str:
    """The short name of what has no settings of its own, and else the repr."""
    if isinstance(made, Explanation):
        made, kind = made.method, "method"
    for short, place in LISTED[kind].items():
        if place.endswith(f":{type(made).__name__}") and from_repr(short, kind) == made:
            return short
    return repr(made)


def _make_map(made: Any, case: Case) -> Map:
    """A map as it was given, or that of a method."""
    if isinstance(made, Explanation | Tensor | tuple | dict):
        return made
    if isinstance(made, np.ndarray):
        return torch.as_tensor(made)
    if not callable(made):
        raise InputError(f"{made!r} is neither a method nor a map; accepted: InputXGradient(), tensors, …")
    return case.explain(made)


def _check_targets(rows: Mapping[str, Map], target: Any) -> None:
    for name, row in rows.items():
        mine = row.target if isinstance(row, Explanation) else None
        if isinstance(mine, Tensor) and isinstance(target, Tensor) and mine.tolist() != target.tolist():
            raise InputError(
                f"{name} explains the classes {mine.tolist()[:5]}, the others {target.tolist()[:5]}"
            )


def _are_replacements(given: Any) -> bool:
    return isinstance(given, list | tuple) and all(isinstance(each, Replacement) for each in given)


def _usual_replacements(case: Case) -> tuple[Replacement, ...]:
    """Replacements that another person might have chosen for this kind of input."""
    masking = case.masking()
    x = masking.parts[0].x
    columns = masking.features is not None and isinstance(masking.features[0], TabularFeatures)
    if columns or len(masking.parts) > 1:
        return ()
    if not x.is_floating_point():
        return (Delete(),) if x.dim() == 2 else ()
    return (Mean(), Blur()) if x.dim() > 2 else ()
