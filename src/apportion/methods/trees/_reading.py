"""Fitted ensembles of scikit-learn, XGBoost, LightGBM and CatBoost as plain trees.

Each reader takes the trees from what the library itself writes or documents, and says how its rows are compared with
thresholds. Whatever it misses (a weight, a constant, a rule for missing values) is found by whoever asks: the sum of
the leaves is compared with the library's own scores.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from apportion.core.numbers import as_pandas, is_frame
from apportion.errors import InputError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Whole = npt.NDArray[np.int64]

ACCEPTED = (
    "a fitted forest, decision tree or gradient boosting of scikit-learn, XGBoost, LightGBM or CatBoost, a pipeline "
    "that ends in one, or a predict_proba, decision_function or predict of these"
)


@dataclass(frozen=True)
class Tree:
    """One tree: all arrays are of its nodes. At a leaf `left` is -1, and `values` (nodes, outputs) are what it adds to
    the scores. A row goes left where its number is at most the threshold, or is among the `sets` of a node with one."""

    left: Whole
    right: Whole
    feature: Whole
    threshold: Floats
    missing_left: Bools
    values: Floats
    sets: Mapping[int, npt.NDArray[Any]] = field(default_factory=dict)

    def goes_left(self, columns: Floats) -> Bools:
        """Of (columns, rows) numbers, where each node sends each row: (nodes, rows), of no meaning at leaves."""
        numbers = columns[self.feature]
        with np.errstate(invalid="ignore"):
            left = numbers <= self.threshold[:, None]
        left |= np.isnan(numbers) & self.missing_left[:, None]
        for node, members in self.sets.items():
            missing = np.isnan(numbers[node])
            left[node] = np.where(missing, self.missing_left[node], np.isin(numbers[node], members))
        return left

    def leaves_of(self, columns: Floats) -> Whole:
        """The leaf of each row."""
        left, rows = self.goes_left(columns), np.arange(columns.shape[1])
        at = np.zeros(columns.shape[1], np.int64)
        while (inner := self.left[at] >= 0).any():
            at = np.where(inner, np.where(left[at, rows], self.left[at], self.right[at]), at)
        return at


@dataclass(frozen=True)
class Ensemble:
    """Trees whose leaves add up, but for a constant, to `raw(given)`, (rows, outputs). `numbers(given)`, (rows,
    columns), is what their thresholds are compared with."""

    trees: tuple[Tree, ...]
    numbers: Callable[[Any], Floats]
    raw: Callable[[Any], Any]

    def sums(self, numbers: Floats) -> Floats:
        """What the leaves of rows add up to, (rows, outputs)."""
        columns = np.ascontiguousarray(numbers.T)
        found: Floats = np.sum([tree.values[tree.leaves_of(columns)] for tree in self.trees], axis=0)
        return found


def ensemble_of(estimator: Any) -> Ensemble:
    """The trees of a fitted estimator. InputError for any other."""
    kinds = type(estimator).__mro__
    for library, read in _READERS.items():
        names = {kind.__name__ for kind in kinds if kind.__module__.split(".")[0] == library}
        if names and (found := read(estimator, names)) is not None:
            return found
    raise InputError(
        f"the model is {type(estimator).__name__}, which is no sum of trees; accepted: {ACCEPTED}"
    )


# ---- scikit-learn ----


def _of_sklearn(estimator: Any, names: set[str]) -> Ensemble | None:
    classifies = hasattr(estimator, "classes_")
    if "BaseDecisionTree" in names or "BaseForest" in names:
        trees = getattr(estimator, "estimators_", None) if "BaseForest" in names else [estimator]
        if not trees or not hasattr(trees[0], "tree_") or trees[0].tree_.n_outputs > 1:
            return None
        read = tuple(_sklearn_tree(each.tree_, 1 / len(trees), classifies) for each in trees)
        return Ensemble(read, _single, estimator.predict_proba if classifies else estimator.predict)
    if "BaseGradientBoosting" in names:
        rounds = estimator.estimators_
        outputs, rate = rounds.shape[1], estimator.learning_rate
        read = tuple(
            _at(_sklearn_tree(each.tree_, rate, False), output, outputs)
            for stage in rounds
            for output, each in enumerate(stage)
        )
        return Ensemble(read, _single, estimator.decision_function if classifies else estimator.predict)
    if "BaseHistGradientBoosting" in names:
        rounds = estimator._predictors
        read = tuple(
            _at(_hist_tree(each), output, len(stage)) for stage in rounds for output, each in enumerate(stage)
        )
        encoder = getattr(estimator, "_preprocessor", None)  # of categories, which it also moves to the front

        def numbers(given: Any) -> Floats:
            return _double(given if encoder is None else encoder.transform(given))

        in_logs = not classifies and getattr(estimator, "loss", "") in ("poisson", "gamma")
        raw = estimator.decision_function if classifies else estimator.predict
        return Ensemble(read, numbers, (lambda given: np.log(raw(given))) if in_logs else raw)
    return None


def _sklearn_tree(tree: Any, weight: float, classifies: bool) -> Tree:
    values = tree.value[:, 0, :].astype(np.float64)
    if classifies:  # counts in older versions
        values = values / values.sum(1, keepdims=True)
    left = tree.children_left.astype(np.int64)
    missing = getattr(tree, "missing_go_to_left", np.zeros(len(left)))
    return Tree(
        left,
        tree.children_right.astype(np.int64),
        np.where(left < 0, 0, tree.feature).astype(np.int64),
        tree.threshold.astype(np.float64),
        np.asarray(missing).astype(bool),
        values * weight,
    )


def _hist_tree(predictor: Any) -> Tree:
    nodes = predictor.nodes
    leaf = nodes["is_leaf"].astype(bool)
    sets = {
        int(node): np.flatnonzero(
            np.unpackbits(
                predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]].astype("<u4").view(np.uint8),
                bitorder="little",
            )
        )
        for node in np.flatnonzero(nodes["is_categorical"].astype(bool) & ~leaf)
    }
    return Tree(
        np.where(leaf, -1, nodes["left"].astype(np.int64)),
        np.where(leaf, -1, nodes["right"].astype(np.int64)),
        np.where(leaf, 0, nodes["feature_idx"]).astype(np.int64),
        nodes["num_threshold"].astype(np.float64),
        nodes["missing_go_to_left"].astype(bool),
        nodes["value"].astype(np.float64)[:, None],
        sets,
    )


# ---- XGBoost ----


def _of_xgboost(estimator: Any, names: set[str]) -> Ensemble | None:
    if "XGBModel" not in names:
        return None
    booster = estimator.get_booster()
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]
    weights = learner.get("weight_drop")  # of DART
    learner = learner.get("gbtree", learner)
    if "model" not in learner or "trees" not in learner["model"]:
        return None
    model = learner["model"]
    best = getattr(booster, "best_iteration", None) if booster.attr("best_iteration") is not None else None
    until = len(model["trees"]) if best is None else model["iteration_indptr"][best + 1]
    outputs = max(model["tree_info"]) + 1
    read = tuple(
        _at(_xgboost_tree(tree, 1.0 if weights is None else weights[i]), model["tree_info"][i], outputs)
        for i, tree in enumerate(model["trees"][:until])
    )
    none = getattr(estimator, "missing", np.nan)

    def numbers(given: Any) -> Floats:
        found = _single(given, np.nan)  # what a sparse matrix leaves out is missing to it
        return found if none is None or none != none else np.where(found == none, np.nan, found)

    return Ensemble(read, numbers, lambda given: estimator.predict(given, output_margin=True))


def _xgboost_tree(tree: Mapping[str, Any], weight: float) -> Tree:
    left = np.asarray(tree["left_children"], np.int64)
    conditions = np.asarray(tree["split_conditions"], np.float32)
    if int(tree["tree_param"].get("size_leaf_vector", 1)) > 1:
        raise InputError("the trees have several outputs a leaf; accepted: one tree for each output")
    sets, features = {}, np.asarray(tree["split_indices"], np.int64)
    right, missing = np.asarray(tree["right_children"], np.int64), np.asarray(tree["default_left"], bool)
    begins = zip(tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True)
    for node, begin, size in begins:  # these go right: the children change places
        sets[int(node)] = np.asarray(tree["categories"][begin : begin + size])
        left[node], right[node] = right[node], left[node]
        missing[node] = not missing[node]
    # A number goes left that is less than its condition, in single precision.
    below = np.nextafter(conditions, np.float32(-np.inf)).astype(np.float64)
    leaf = np.asarray(tree["left_children"]) < 0
    values = np.where(leaf, conditions.astype(np.float64), 0)[:, None] * weight
    return Tree(left, right, np.where(leaf, 0, features), below, missing, values, sets)


# ---- LightGBM ----


def _of_lightgbm(estimator: Any, names: set[str]) -> Ensemble | None:
    if "LGBMModel" not in names:
        return None
    told = estimator.booster_.dump_model()
    each = told["num_tree_per_iteration"]
    # Its random forests average their trees, but not in raw scores.
    weight = each / len(told["tree_info"]) if told.get("average_output") else 1.0
    read = tuple(
        _at(_nested(tree["tree_structure"], _lightgbm_node, weight), i % each, each)
        for i, tree in enumerate(told["tree_info"])
    )
    known = told.get("pandas_categorical") or []

    def numbers(given: Any) -> Floats:
        if known and hasattr(given, "dtypes"):
            given = given.copy()
            names = [name for name in given.columns if hasattr(given[name].dtype, "categories")]
            for name, categories in zip(names, known, strict=True):
                given[name] = given[name].cat.set_categories(categories)
        return _double(given)

    return Ensemble(read, numbers, lambda given: weight * estimator.predict(given, raw_score=True))


def _lightgbm_node(node: Mapping[str, Any]) -> _Node:
    if "leaf_value" in node:
        if node.get("leaf_coeff"):
            raise InputError("the leaves hold linear models; accepted: trees with one number a leaf")
        return _Node(value=float(node["leaf_value"]))
    children = node["left_child"], node["right_child"]
    if node["decision_type"] == "==":
        members = np.asarray([int(each) for each in str(node["threshold"]).split("||")])
        return _Node(children, node["split_feature"], 0.0, False, members)
    threshold = float(node["threshold"])
    # Where a column had none, a missing number counts as zero.
    missing_left = node["default_left"] if node["missing_type"] == "NaN" else threshold >= 0
    return _Node(children, node["split_feature"], threshold, bool(missing_left))


# ---- CatBoost ----


def _of_catboost(estimator: Any, names: set[str]) -> Ensemble | None:
    if "CatBoost" not in names:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        estimator.save_model(str(path), format="json")
        told = json.loads(path.read_text(encoding="utf-8"))
    columns = told["features_info"].get("float_features", [])
    others = [kind for kind, found in told["features_info"].items() if kind != "float_features" and found]
    if others or "oblivious_trees" not in told:
        raise InputError(
            f"the CatBoost model has {', '.join(others) or 'trees that are not oblivious'}; accepted: symmetric trees "
            "over numbers"
        )
    scale = float(told["scale_and_bias"][0])
    read = tuple(_catboost_tree(tree, columns, scale) for tree in told["oblivious_trees"])
    return Ensemble(read, _single, lambda given: estimator.predict(given, prediction_type="RawFormulaVal"))


def _catboost_tree(tree: Mapping[str, Any], columns: Sequence[Mapping[str, Any]], scale: float) -> Tree:
    splits = (tree["splits"] or [])[::-1]  # the last is the highest bit of a leaf's number
    depth, inner = len(splits), 2 ** len(splits) - 1
    leaves = np.asarray(tree["leaf_values"], np.float64).reshape(2**depth, -1) * scale
    level = np.repeat(np.arange(depth), 2 ** np.arange(depth))
    flat = [columns[each["float_feature_index"]] for each in splits]
    numbers = np.arange(inner)
    out = np.full(2**depth, -1)
    pad = np.zeros(2**depth)
    return Tree(
        np.concatenate([2 * numbers + 1, out]),
        np.concatenate([2 * numbers + 2, out]),
        np.concatenate([np.asarray([each["flat_feature_index"] for each in flat], int)[level], pad]).astype(
            int
        ),
        np.concatenate([np.asarray([each["border"] for each in splits], float)[level], pad]),
        np.concatenate(
            [np.asarray([each["nan_value_treatment"] != "AsTrue" for each in flat], bool)[level], pad]
        ).astype(bool),
        np.concatenate([np.zeros((inner, leaves.shape[1])), leaves]),
    )


# ---- what they share ----


_READERS: dict[str, Callable[[Any, set[str]], Ensemble | None]] = {
    "xgboost": _of_xgboost,  # first: its classes and LightGBM's are also scikit-learn's
    "lightgbm": _of_lightgbm,
    "catboost": _of_catboost,
    "sklearn": _of_sklearn,
}


@dataclass(frozen=True)
class _Node:
    """A node of nested trees: a leaf if it has no children."""

    children: tuple[Any, ...] = ()
    feature: int = 0
    threshold: float = 0.0
    missing_left: bool = False
    members: npt.NDArray[Any] | None = None
    value: float = 0.0


def _nested(root: Any, read: Callable[[Any], _Node], weight: float) -> Tree:
    """A tree from nested nodes, numbered as they are met."""
    found: list[_Node] = []
    places: list[list[int]] = []
    waiting: list[tuple[Any, int, int]] = [(root, -1, 0)]
    while waiting:
        node, parent, side = waiting.pop()
        if parent >= 0:
            places[parent][side] = len(found)
        found.append(read(node))
        places.append([-1, -1])
        waiting += [(child, len(found) - 1, side) for side, child in enumerate(found[-1].children)]
    left, right = np.asarray(places, np.int64).T
    return Tree(
        left,
        right,
        np.asarray([node.feature for node in found], np.int64),
        np.asarray([node.threshold for node in found]),
        np.asarray([node.missing_left for node in found]),
        np.asarray([[node.value * weight] for node in found]),
        {i: node.members for i, node in enumerate(found) if node.members is not None},
    )


def _at(tree: Tree, output: int, outputs: int) -> Tree:
    """The tree of one output among several."""
    if outputs == 1:
        return tree
    values = np.zeros((len(tree.values), outputs))
    values[:, output] = tree.values[:, 0]
    return Tree(tree.left, tree.right, tree.feature, tree.threshold, tree.missing_left, values, tree.sets)


def _double(given: Any, absent: float = 0.0) -> Floats:
    """The numbers in what an estimator is given: categories go by their codes."""
    if hasattr(given, "toarray"):
        dense: Floats = given.toarray().astype(np.float64)
        if absent == absent:
            return dense
        stored = given.copy()
        stored.data = np.ones_like(stored.data)
        found: Floats = np.where(stored.toarray() == 0, absent, dense)
        return found
    given = as_pandas(given)
    if not is_frame(given):
        return np.asarray(given, np.float64)
    return np.stack(list(_columns(given)), 1)


def _columns(frame: Any) -> Iterator[Floats]:
    for i in range(len(frame.columns)):
        series = frame.iloc[:, i]
        if hasattr(series.dtype, "categories"):
            codes = np.asarray(series.cat.codes, np.float64)
            yield np.where(codes < 0, np.nan, codes)
        else:
            yield series.to_numpy(np.float64, na_value=np.nan)


def _single(given: Any, absent: float = 0.0) -> Floats:
    """The same as they are after rounding to single precision."""
    with np.errstate(over="ignore"):
        found: Floats = _double(given, absent).astype(np.float32).astype(np.float64)
    return found
