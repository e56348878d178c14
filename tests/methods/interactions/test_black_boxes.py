"""Shapley interactions of functions that leave PyTorch, against their definition over all coalitions."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

import apportion as ap
from apportion import InputError
from apportion.domains.tabular import Numeric, TabularPreparation

pytest.importorskip("shapiq")

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(200, 4))
TREES = RandomForestClassifier(10, random_state=0).fit(ROWS, ROWS[:, 0] * ROWS[:, 1] + ROWS[:, 2] > 0)


def taylor(many, value):
    """Shapley-Taylor values of the second order (Sundararajan, Dhamdhere & Agarwal 2020, eq. 2), as a matrix in which
    those of pairs are halved; `value` is of a set of features."""
    found = np.diag([value({i}) - value(set()) for i in range(many)])
    for i, j in itertools.combinations(range(many), 2):
        rest = [k for k in range(many) if k not in (i, j)]
        for size in range(many - 1):
            weight = 2 / many / math.comb(many - 1, size) / 2
            for others in map(set, itertools.combinations(rest, size)):
                gain = value({*others, i, j}) - value({*others, i}) - value({*others, j}) + value(others)
                found[i, j] += weight * gain
        found[j, i] = found[i, j]
    return found


def game(function, row, background):
    return lambda kept: function(np.where([i in kept for i in range(len(row))], row, background)).mean()


def positive(rows):
    return TREES.predict_proba(rows)[:, 1]


def test_a_forest_behind_tensors_and_as_arrays_has_the_values_of_the_definition():
    few = ROWS[:2]
    right = [taylor(4, game(positive, row, np.zeros((1, 4)))) for row in few]
    method = ap.ShapleyInteractions(index="STII")
    tensors = method(
        lambda x: torch.from_numpy(TREES.predict_proba(x.numpy())), torch.from_numpy(few), target=1
    )
    arrays = method(TREES.predict_proba, few, target=1)
    for found in (tensors, arrays):
        np.testing.assert_allclose(found.values, right, atol=1e-9)
        np.testing.assert_allclose(found.remainder, 0, atol=1e-9)
    whole = np.round(few * 10).astype(int)
    np.testing.assert_allclose(
        method(TREES.predict_proba, whole, target=1, baseline=torch.full((4,), 0.5)).values,
        [taylor(4, game(positive, row, np.full((1, 4), 0.5))) for row in whole],
        atol=1e-9,
    )


@pytest.mark.parametrize("index", ["STII", "k-SII"])
def test_several_rows_of_a_background_are_averaged(index):
    few, background = ROWS[:2], ROWS[50:57]
    method = ap.ShapleyInteractions(index=index, baseline=ap.Background(background))
    found = method(TREES.predict_proba, few, target=1)
    each = [
        ap.ShapleyInteractions(index=index)(TREES.predict_proba, few, 1, baseline=b)
        for b in torch.tensor(background)
    ]
    np.testing.assert_allclose(found.values, torch.stack([one.values for one in each]).mean(0), atol=1e-9)
    np.testing.assert_allclose(found.total, positive(few) - positive(background).mean(), atol=1e-9)
    if index == "STII":
        right = [taylor(4, game(positive, row, background)) for row in few]
        np.testing.assert_allclose(found.values, right, atol=1e-9)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1)).double()
    inside = method(net, torch.from_numpy(few), target=0)
    values = [
        taylor(4, game(lambda x: net(torch.from_numpy(x)).detach().numpy(), r, background)) for r in few
    ]
    if index == "STII":
        np.testing.assert_allclose(inside.values, values, atol=1e-9)
    np.testing.assert_allclose(inside.remainder, 0, atol=1e-9)


def test_groups_missing_values_and_texts():
    holes = np.where(RANDOM.random(ROWS.shape) < 0.3, np.nan, ROWS)
    trees = HistGradientBoostingClassifier(max_iter=10).fit(holes, ROWS[:, 0] + np.isnan(holes[:, 1]) > 0)
    row = holes[np.isnan(holes).any(1)][:1]
    found = ap.ShapleyInteractions(index="STII", baseline=ap.Background(holes[:9]))(
        trees.predict_proba, row, 1
    )
    right = taylor(4, game(lambda x: trees.predict_proba(x)[:, 1], row[0], holes[:9]))
    np.testing.assert_allclose(found.values[0], right, atol=1e-9)
    grouped = ap.ShapleyInteractions(index="STII", groups=[[0, 1], [2, 3]])(TREES.predict_proba, ROWS[:1], 1)
    pairs = game(positive, ROWS[0], np.zeros((1, 4)))
    right = taylor(2, lambda kept: pairs({i for g in kept for i in ((0, 1), (2, 3))[g]}))
    np.testing.assert_allclose(grouped.values[0], right, atol=1e-9)
    with pytest.raises(InputError, match="feature 3 is in no group"):
        ap.ShapleyInteractions(groups=[[0, 1], [2]])(TREES.predict_proba, ROWS[:1], 1)

    with pytest.raises(InputError, match="baseline is 'mask'; accepted: a finite number, a Background"):
        ap.ShapleyInteractions(baseline="mask")(TREES.predict_proba, ROWS[:1], 1)

    def both(texts):
        return [1.0 * ("not" in text.split()) * ("bad" in text.split()) for text in texts]

    found = ap.explain(both, "not so bad", "shapleyinteractions")
    assert found.names_of() == ("not", "so", "bad")
    assert found.top(1) == [("not", "bad", pytest.approx(1.0))]
    np.testing.assert_allclose(found.main, 0, atol=1e-9)


def test_a_classifier_of_a_forest_is_explained_by_its_columns_and_on_the_command_line(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from apportion.cli.app import app

    names = ("a", "b", "c", "d")
    encode = TabularPreparation(tuple(map(Numeric, names)))
    model = ap.Classifier(
        lambda x: torch.from_numpy(TREES.predict_proba(x.numpy())), encode, ("no", "yes"), "tabular", "forest"
    )
    found = ap.explain(model, list(ROWS[0]), "shapleyinteractions", target="yes")
    assert [name.split(" = ")[0] for name in found.names_of()] == list(names)
    np.testing.assert_allclose(
        float(found.total), positive(ROWS[:1])[0] - positive(np.zeros((1, 4)))[0], atol=1e-6
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "forests.py").write_text(
        "import apportion as ap, torch\n"
        "from apportion.domains.tabular import Numeric, TabularPreparation\n"
        "def forest():\n"
        "    encode = TabularPreparation((Numeric('a'), Numeric('b')))\n"
        "    def both(x):\n"
        "        return torch.from_numpy(x.numpy()[:, :1] * x.numpy()[:, 1:])\n"
        "    return ap.Classifier(both, encode, (), 'tabular', 'product')\n"
    )
    (tmp_path / "rows.csv").write_text("a,b\n2,3\n")
    line = [
        "explain",
        "rows.csv",
        "--model",
        "forests.py:forest",
        "--method",
        "shapleyinteractions",
        "--json",
    ]
    ran = CliRunner().invoke(app, line)
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["total"] == pytest.approx(6.0)
