"""LIME, Kernel SHAP and RISE against closed forms, brute force and the `lime` package."""

from __future__ import annotations

import itertools
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import apportion as ap
import peers
from apportion.core.features import TextFeatures
from apportion.engines.masking.binned import Quartiles
from apportion.engines.masking.partitions import Patches
from apportion.engines.masking.replacements import Background
from apportion.errors import InputError
from apportion.methods.hiding._coalitions import Design, _drawn
from apportion.methods.hiding._lime_table import draw
from apportion.methods.hiding._regression import constrained, highest, lasso, ridge
from apportion.methods.hiding.lime import kernel, sizes_of_masks


def network(inputs: int, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Linear(inputs, 16), nn.Tanh(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    return layers.double().eval()


def shapley(score, many: int) -> Tensor:
    """Shapley values by their definition; `score` takes (masks, features)."""
    masks = torch.tensor(list(itertools.product([False, True], repeat=many)))
    values = {tuple(m): v for m, v in zip(masks.tolist(), score(masks).tolist(), strict=True)}
    found = torch.zeros(many, dtype=torch.float64)
    for mask, value in values.items():
        size = sum(mask)
        for i in range(many):
            if not mask[i]:
                more = tuple(b or j == i for j, b in enumerate(mask))
                share = math.factorial(size) * math.factorial(many - size - 1) / math.factorial(many)
                found[i] += share * (values[more] - value)
    return found


# ---- Kernel SHAP ----


@pytest.mark.parametrize("many", [1, 2, 3, 8, 12])
def test_kernel_shap_is_exact_for_few_features(many: int) -> None:
    model, x = network(many), torch.randn(2, many, dtype=torch.float64)
    found = ap.KernelSHAP()(model, x, 1)
    for row, value in zip(x, found.values, strict=True):
        expected = shapley(lambda m, row=row: model(row * m)[:, 1].detach(), many)
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-10)
    assert found.remainder.abs().max() < 1e-12
    assert max(max(row) for row in found.notes["standard_errors"]) < 1e-12


def test_kernel_shap_over_a_background() -> None:
    model, x, data = (
        network(4),
        torch.randn(1, 4, dtype=torch.float64),
        torch.randn(7, 4, dtype=torch.float64),
    )

    def score(masks: Tensor) -> Tensor:
        mixed = torch.where(masks[:, None], x, data)
        return model(mixed.flatten(0, 1)).view(len(masks), len(data), 3)[..., 1].mean(1).detach()

    found = ap.KernelSHAP(replacement=Background(data))(model, x, 1)
    torch.testing.assert_close(found.values[0], shapley(score, 4), rtol=0, atol=1e-10)


def test_kernel_shap_samples_are_as_far_off_as_they_say() -> None:
    model, x = network(14), 2 * torch.randn(1, 14, dtype=torch.float64)
    exact = ap.KernelSHAP(exact=14)(model, x, 0).values[0]
    pulls = []
    for seed in range(10):
        found = ap.KernelSHAP(samples=600, seed=seed)(model, x, 0)
        errors = torch.tensor(found.notes["standard_errors"][0])
        pulls.append((found.values[0] - exact) / errors)
        assert found.remainder.abs().max() < 1e-10
    assert 0.5 < torch.stack(pulls).pow(2).mean().sqrt() < 1.6


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 9))
def test_shapley_axioms(seed: int, many: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(many, dtype=torch.float64, generator=generator)
    pair = torch.randn((), dtype=torch.float64, generator=generator)
    x = torch.ones(1, many, dtype=torch.float64)
    found = ap.KernelSHAP()(lambda z: z @ weights + pair * z[:, 0] * z[:, 1], x).values[0]
    expected = weights.clone()  # linear parts to themselves, the product to both alike
    expected[:2] += pair / 2
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


def test_tolerance_draws_until_the_errors_settle() -> None:
    model, x = network(30), 2 * torch.randn(1, 30, dtype=torch.float64)
    rough = ap.KernelSHAP(samples=200)(model, x, 0)
    fine = ap.KernelSHAP(samples=200, tolerance=0.01)(model, x, 0)
    assert rough.notes["samples"] == 200 < fine.notes["samples"]
    assert max(fine.notes["standard_errors"][0]) <= 0.01 * fine.values.abs().max()
    stopped = ap.KernelSHAP(samples=100, tolerance=1e-6, max_samples=400)(model, x, 0)
    assert stopped.notes["samples"] <= 400
    assert "above tolerance" in stopped.warnings[0]


def noisy(data: np.ndarray) -> np.ndarray:
    return data.sum(1) + data[:, 0] * data[:, 1] * data[:, 2]


@pytest.mark.parametrize("many", [1, 5, 13])
def test_kernel_shap_with_background_rows_that_are_drawn(many: int) -> None:
    """However they are drawn, the scores with all hidden and none are not those of one row."""
    rng = np.random.default_rng(0)
    data = torch.from_numpy(rng.normal(size=(100, max(3, many)))[:, :many])
    model = noisy if many > 1 else lambda rows: rows[:, 0] ** 2
    x, drawn = np.ones((1, many)), Background(data, many=1)
    exact = ap.KernelSHAP(replacement=Background(data), exact=13)(model, x)
    pulls = []
    for seed in range(12):
        found = ap.KernelSHAP(replacement=drawn, samples=500, seed=seed)(model, x)
        pulls.append((found.values[0] - exact.values[0]) / torch.tensor(found.notes["standard_errors"][0]))
        assert (found.total - exact.total).abs() < (2.5 if many > 1 else 3.5)
    assert 0.5 < torch.stack(pulls).pow(2).mean().sqrt() < 1.6


@pytest.mark.parametrize("method", [ap.LIME, ap.KernelSHAP])
def test_tolerance_repeats_all_masks_there_are(method) -> None:
    rng = np.random.default_rng(0)
    data, x = torch.from_numpy(rng.normal(size=(400, 4))), np.full((1, 4), 3.0)
    for replacement in (Background(data, many=1), Quartiles(data)):
        found = method(samples=100, tolerance=0.05, replacement=replacement)(noisy, x)
        assert not [told for told in found.warnings if not told.startswith("left over")]
        assert max(found.notes["standard_errors"][0]) <= 0.05 * found.values.abs().max()
        assert found.notes["samples"] > 100
        stopped = method(samples=100, tolerance=1e-4, max_samples=400, replacement=replacement)(noisy, x)
        assert stopped.notes["samples"] <= 400
        assert "above tolerance" in stopped.warnings[0]


# ---- LIME ----


@pytest.mark.parametrize("method", ["none", "highest_weights", "lasso_path"])
def test_the_regression_is_limes(method: str) -> None:
    """`lime` on the same samples."""
    base = pytest.importorskip("lime.lime_base")
    rng = np.random.default_rng(0)
    data = rng.integers(0, 2, (300, 20))
    data[0] = 1
    labels = np.stack([data @ rng.normal(size=20) + rng.normal(size=300)], 1)
    distances = rng.random(300)
    explainer = base.LimeBase(lambda d: np.sqrt(np.exp(-(d**2) / 0.25**2)), random_state=0)
    intercept, pairs, r2, _ = explainer.explain_instance_with_data(
        data, labels, distances, 0, 6, feature_selection=method
    )
    z, y = data.astype(bool), labels.T
    w = np.sqrt(np.exp(-(distances**2) / 0.25**2))
    pick = {"none": None, "highest_weights": highest, "lasso_path": lasso}[method]
    fit = ridge(z, y, w, 1.0, None if pick is None else pick(z, y, w, 6))
    expected = np.zeros(20)
    for feature, coefficient in pairs:
        expected[feature] = coefficient
    np.testing.assert_allclose(fit.coefficients[0], expected, atol=1e-6)
    assert fit.intercept.item() == pytest.approx(intercept, abs=1e-6)
    assert fit.r2.item() == pytest.approx(r2, abs=1e-6)


def test_fewer_masks_than_features() -> None:
    rng = np.random.default_rng(0)
    z, y = rng.random((6, 40)) < 0.5, rng.normal(size=(2, 6))
    for alpha in (1.0, 1e-300, 0.0):
        few = ridge(z, y, np.ones(6), alpha)
        more = ridge(z, y, np.ones(6), alpha, chosen=np.ones((2, 40), dtype=bool))
        np.testing.assert_allclose(few.coefficients, more.coefficients, atol=1e-12)
        np.testing.assert_allclose(few.errors, more.errors, atol=1e-12)


def test_the_regression_is_scikit_learns() -> None:
    """What `lime` does with its samples, written out: ridge, and the last lasso point with few enough."""
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(1)
    z, w = rng.random((200, 12)) < 0.5, rng.random(200)
    y = z @ rng.normal(size=12) + rng.normal(size=200)
    their = linear.Ridge(alpha=1.0).fit(z, y, sample_weight=w)
    fit = ridge(z, y[None], w)
    np.testing.assert_allclose(fit.coefficients[0], their.coef_, atol=1e-9)
    assert fit.r2.item() == pytest.approx(their.score(z, y, sample_weight=w))
    centred = (z - np.average(z, axis=0, weights=w)) * np.sqrt(w)[:, None]
    _, _, path = linear.lars_path(centred, (y - np.average(y, weights=w)) * np.sqrt(w), method="lasso")
    for keep in range(1, 12):
        last = next(c for c in path.T[::-1] if (c != 0).sum() <= keep)
        chosen = lasso(z, y[None], w, keep)
        assert chosen[0].tolist() == (last != 0).tolist()


def test_the_path_of_the_lasso_needs_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(sys.modules, "sklearn.linear_model", raising=False)
    with pytest.raises(InputError, match=r"needs scikit-learn: pip install 'apportion\[tabular\]'"):
        ap.LIME(keep=2, select="lasso")(network(4), torch.ones(1, 4, dtype=torch.float64))
    assert ap.LIME(keep=2)(network(4), torch.ones(1, 4, dtype=torch.float64)).values.count_nonzero() == 2


def test_where_few_masks_are_the_path_of_the_lasso_is_the_same() -> None:
    """More features than masks: no Gram matrix is made, which would be the larger of the two."""
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(2)
    z, y, w = rng.random((30, 80)) < 0.5, rng.normal(size=(1, 30)), rng.random(30)
    centred = (z - np.average(z, axis=0, weights=w)) * np.sqrt(w)[:, None]
    gap = (y[0] - np.average(y[0], weights=w)) * np.sqrt(w)
    _, _, path = linear.lars_path_gram(
        centred.T @ gap, centred.T @ centred, n_samples=30, method="lasso", max_iter=40
    )
    for keep in (1, 3, 8):
        few = next(c for c in path.T[::-1] if (c != 0).sum() <= keep)
        assert lasso(z, y, w, keep)[0].tolist() == (few != 0).tolist()


def test_lime_finds_a_linear_model() -> None:
    weights = torch.tensor([2.0, -3.0, 0.0, 1.0], dtype=torch.float64)
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.float64)
    found = ap.LIME(alpha=0.0)(lambda z: 7 + z @ weights, x)
    torch.testing.assert_close(found.values, weights * x)
    assert found.notes["intercept"][0] == pytest.approx(7)
    assert found.notes["r2"][0] == pytest.approx(1)
    assert found.remainder.abs().max() < 1e-8
    assert found.cost.forwards <= 17  # 2⁴ masks and the input


@pytest.mark.parametrize("sizes", ["coins", "uniform"])
def test_lime_solves_the_papers_problem(sizes: str) -> None:
    """The same model as weighted least squares over a large sample drawn as the paper draws it."""
    model, many = network(8), 8
    x = torch.randn(1, many, dtype=torch.float64)
    found = ap.LIME(alpha=0.0, sizes=sizes, distance="cosine", samples=10**6)(model, x, 1)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    masks = rng.random((200_000, many)) < 0.5
    if sizes == "uniform":
        gone = rng.integers(1, many + 1, 200_000)
        masks = rng.random((200_000, many)).argsort(1).argsort(1) >= gone[:, None]
    y = model(x * torch.tensor(masks))[:, 1].detach().numpy()
    w = kernel(many, "cosine", 0.25)[masks.sum(1)]
    fit = ridge(masks, y[None], w, alpha=0.0)
    np.testing.assert_allclose(found.values[0], fit.coefficients[0], rtol=0, atol=6 * fit.errors.max())


def test_standard_errors_are_those_of_repetition() -> None:
    generator = torch.Generator().manual_seed(0)
    pairs = 0.2 * torch.randn(12, 12, dtype=torch.float64, generator=generator)
    threes = 0.05 * torch.randn(12, 12, 12, dtype=torch.float64, generator=generator)

    def score(masks: np.ndarray) -> np.ndarray:
        z = torch.from_numpy(masks).double()
        twos = torch.einsum("ni,ij,nj->n", z, pairs, z)
        return (twos + torch.einsum("ni,nj,nk,ijk->n", z, z, z, threes)).numpy()

    spread = {}
    for paired in (False, True):
        found, errors = [], []
        for seed in range(40):
            design = Design(12, sizes_of_masks(12, "coins", 10**6), seed, paired)
            masks = design.draw(200)
            fit = ridge(
                masks, score(masks)[None], design.weights() * 200, 0.0, None, design.missing(), paired
            )
            found.append(fit.coefficients[0])
            errors.append(fit.errors[0])
        spread[paired] = np.stack(found).std(0, ddof=1).mean()
        assert np.mean(errors) == pytest.approx(spread[paired], rel=0.2)
    assert spread[True] < 0.7 * spread[False]  # half of the model calls for the same error


def test_keep_and_determinism() -> None:
    model, x = network(20), torch.randn(2, 20, dtype=torch.float64)
    state = torch.get_rng_state()
    for select in ("highest", "lasso"):
        found = ap.LIME(samples=200, keep=5, select=select)(model, x)  # type: ignore[arg-type]
        again = ap.LIME(samples=200, keep=5, select=select, chunk=7)(model, x)  # type: ignore[arg-type]
        assert ((found.values != 0).sum(1) <= 5).all()
        torch.testing.assert_close(found.values, again.values, rtol=0, atol=1e-12)
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(
        ap.LIME(samples=200, seed=1)(model, x).values, ap.LIME(samples=200)(model, x).values
    )


def test_a_sample_does_not_depend_on_the_others() -> None:
    labels = torch.tensor([[[0, 0], [1, 1]], [[0, 1], [2, 3]]])
    x = torch.rand(2, 1, 2, 2, dtype=torch.float64)
    model = lambda z: z.flatten(1).prod(1) + z.sum((1, 2, 3))  # noqa: E731
    for method in (ap.LIME(partition=labels), ap.KernelSHAP(partition=labels)):
        both = method(model, x)
        for i in range(2):
            alone = replace(method, partition=labels[i : i + 1])(model, x[i : i + 1])
            torch.testing.assert_close(both.values[i], alone.values[0], rtol=0, atol=1e-12)
        assert [len(row) for row in both.notes["coefficients"]] == [2, 4]


def test_words_of_a_text() -> None:
    class Count(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            return (ids == 7).double().sum(1, keepdim=True) - 2 * (ids == 8).double().sum(1, keepdim=True)

    text = TextFeatures("a b b c", ("a", "b", "b", "c"), ((0, 1), (2, 3), (4, 5), (6, 7)), (0, 1, 2, 3))
    found = ap.LIME(alpha=0.0)(Count(), torch.tensor([[7, 8, 5, 6]]), features=(text,), mask=1)
    assert found.values[0].tolist() == pytest.approx([1, -2, 0, 0], abs=1e-9)


def test_the_order_of_several_inputs_makes_no_difference() -> None:
    torch.manual_seed(0)
    weights = torch.randn(3, 2, 2, dtype=torch.float64)

    def model(row: Tensor, picture: Tensor) -> Tensor:
        return (1 + row.sum(1)) * torch.tanh((picture * weights).sum((1, 2, 3)))

    row, picture = torch.randn(1, 3, dtype=torch.float64), torch.randn(1, 3, 2, 2, dtype=torch.float64)
    one, two = ap.LIME()(model, (row, picture)), ap.LIME()(lambda b, a: model(a, b), (picture, row))
    torch.testing.assert_close(one.values, two.values[::-1])


def test_discretised_columns() -> None:
    data = torch.rand(400, 3, dtype=torch.float64)
    x = torch.tensor([[0.9, 0.5, 0.5]], dtype=torch.float64)
    found = ap.LIME(samples=2000, replacement=Quartiles(data))(lambda z: (z[:, 0] > 0.75).double(), x)
    assert found.values[0, 0] == pytest.approx(1, abs=0.05)
    assert found.values[0, 1:].abs().max() < 0.1


def test_peers_of_kernel_shap() -> None:
    attr = pytest.importorskip("captum.attr")
    model, x = network(6), torch.randn(1, 6, dtype=torch.float64)
    exact = attr.ShapleyValues(model).attribute(x, target=1)
    torch.testing.assert_close(ap.KernelSHAP()(model, x, 1).values, exact.double(), rtol=0, atol=1e-5)


def test_agrees_with_shap() -> None:
    try:
        shap = peers.shap()
    except ImportError:
        pytest.skip("shap is not installed")
    model, x = network(6), torch.randn(2, 6, dtype=torch.float64)
    data = torch.randn(5, 6, dtype=torch.float64)

    def scores(rows: np.ndarray) -> np.ndarray:
        return model(torch.from_numpy(rows)).detach().numpy()[:, 1]

    explainer = shap.KernelExplainer(scores, data.numpy())
    theirs = explainer.shap_values(x.numpy(), nsamples=2**6, silent=True, l1_reg="num_features(6)")
    ours = ap.KernelSHAP(replacement=Background(data))(model, x, 1)
    torch.testing.assert_close(ours.values, torch.from_numpy(theirs), rtol=0, atol=1e-6)


# ---- designs ----


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(1, 400), st.booleans(), st.integers(0, 10**6))
def test_masks_are_never_drawn_twice(features: int, many: int, paired: bool, seed: int) -> None:
    design = Design(features, np.random.default_rng(seed).random(features + 1), seed, paired)
    first = design.draw(many)
    second = design.draw(many)
    every = np.concatenate([first, second])
    assert len(np.unique(every, axis=0)) == len(every) == len(design.masks)
    if paired:
        assert np.array_equal(every[0::2], ~every[1::2])
    if design.complete:
        assert design.weights().sum() == pytest.approx(design.mass.sum())
        assert len(design.draw(100)) == 0


# ---- RISE ----


def test_rise_finds_where_the_score_is_read() -> None:
    x = torch.ones(2, 1, 12, 12, dtype=torch.float64)
    found = ap.RISE(samples=800, cells=4)(lambda z: 5 + z[:, 0, :3, :3].mean((1, 2)), x)
    corner = found.values[:, 0, :3, :3].mean((1, 2))
    assert (corner > 4 * found.values[:, 0, 6:, 6:].abs().mean((1, 2))).all()
    other = ap.RISE(samples=800, cells=4, chunk=17)(lambda z: 5 + z[:, 0, :3, :3].mean((1, 2)), x)
    torch.testing.assert_close(found.values, other.values, rtol=0, atol=1e-10)


def test_rise_counts_in_more_than_half_precision() -> None:
    x = torch.ones(1, 1, 6, 6)
    model = lambda z: 5 + z[:, 0, :2, :2].mean((1, 2))  # noqa: E731
    exact = ap.RISE(samples=600, cells=3)(model, x).values
    found = ap.RISE(samples=600, cells=3)(model, x.bfloat16()).values
    assert (found - exact).abs().max() < 0.1 * exact.abs().max()


def test_rise_is_the_papers_sum() -> None:
    x, seen = torch.ones(1, 1, 6, 6, dtype=torch.float64), []

    def model(z: Tensor) -> Tensor:
        seen.append(z.clone())
        return z.sum((1, 2, 3))

    found = ap.RISE(samples=20, cells=2, shown=0.4, centred=False)(model, x)
    masks = torch.cat(seen[1:])
    expected = (masks * model(masks).view(-1, 1, 1, 1)).sum(0) / (20 * 0.4)
    torch.testing.assert_close(found.values[0], expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ap.LIME(samples=0), "samples is 0"),
        (lambda: ap.LIME(samples=1.5), "samples is 1.5; accepted: a whole number"),  # type: ignore[arg-type]
        (lambda: ap.LIME(samples="10"), "samples is '10'"),  # type: ignore[arg-type]
        (lambda: ap.LIME(keep=2.5), "keep is 2.5"),  # type: ignore[arg-type]
        (lambda: ap.LIME(alpha=-1), "alpha is -1"),
        (lambda: ap.LIME(alpha=math.nan), "alpha is nan"),
        (lambda: ap.LIME(width="wide"), "width is 'wide'"),  # type: ignore[arg-type]
        (lambda: ap.LIME(seed=-1)(lambda z: z.sum(1), torch.ones(1, 3)), "seed is -1"),
        (lambda: ap.KernelSHAP(exact=-1), "exact is -1"),
        (lambda: ap.KernelSHAP(samples=0), "samples is 0"),
        (lambda: ap.RISE(shown="half"), "shown is 'half'"),  # type: ignore[arg-type]
        (
            lambda: ap.RISE(samples=1, cells=2)(lambda z: z.sum((1, 2, 3)), torch.ones(1, 1, 4, 4)),
            "samples is 1, and some place",
        ),
        (lambda: ap.LIME(keep=0), "keep is 0"),
        (lambda: ap.LIME(width=0.0), "width is 0"),
        (lambda: ap.LIME(select="best"), "select is 'best'"),  # type: ignore[arg-type]
        (lambda: ap.KernelSHAP(tolerance=0), "tolerance is 0"),
        (lambda: ap.RISE(shown=1.0), "shown is 1"),
        (lambda: ap.RISE()(lambda z: z.sum(1), torch.ones(1, 3)), "RISE explains pictures"),
        (lambda: ap.LIME()(lambda z: z.sum(1), torch.ones(1, 3), 5), "class 5"),
        (lambda: ap.LIME(partition=Patches())(lambda z: z.sum(1), torch.ones(1, 3)), "Patches need"),
    ],
)
def test_bad_input(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("method", [ap.LIME(samples=60), ap.KernelSHAP(samples=60)])
def test_fewer_equations_than_features_are_told_and_no_value_is_sure(method):
    weights = np.arange(40.0)
    with pytest.warns(UserWarning, match=r"60 masks are too few for the 40 features .*samples=160"):
        e = method(lambda rows: rows @ weights, np.ones((1, 40)))
    assert all(map(math.isinf, e.notes["standard_errors"][0]))
    assert e.notes["r2"] == (0.0,)
    sure = replace(method, tolerance=0.05)(lambda rows: rows @ weights, np.ones((1, 40)))
    assert sure.notes["samples"] > 80
    assert np.isfinite(sure.notes["standard_errors"]).all()


def test_standard_errors_cover_the_truth_where_features_are_many():
    random = np.random.default_rng(0)
    triples = random.integers(0, 30, (40, 3))

    def model(rows):
        return rows[:, triples].prod(2) @ np.linspace(-1, 1, 40)

    x = np.ones((1, 30))
    exact = ap.LIME(samples=16000, alpha=0.0)(model, x).values.numpy()[0]
    found = [ap.LIME(samples=100, alpha=0.0, seed=seed)(model, x) for seed in range(30)]
    inside = [
        np.abs(e.values.numpy()[0] - exact) < 1.96 * np.array(e.notes["standard_errors"][0]) for e in found
    ]
    assert 0.9 < np.mean(inside) < 0.99  # 0.95 but for chance


def test_a_model_that_depends_on_its_batch_does_not_add_up_without_a_word():
    def standardised(rows):
        return ((rows - rows.mean(0)) / (rows.std(0) + 1e-6)).sum(1)

    with pytest.warns(UserWarning, match="scores the same input differently each time"):
        ap.KernelSHAP()(standardised, np.array([[1.0, 2.0, 4.0]]))
    noise = np.random.default_rng(0)
    with pytest.warns(UserWarning, match="scores the same input differently each time"):
        ap.KernelSHAP()(lambda rows: rows.sum(1) + noise.normal(size=len(rows)), np.ones((1, 3)))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"feature_selection": "none"}, {}),
        ({"feature_selection": "highest_weights"}, {"keep": 2}),
        ({"feature_selection": "lasso_path"}, {"keep": 2, "select": "lasso"}),
        ({"feature_selection": "none", "kernel_width": 0.7}, {"width": 0.7}),
        ({"feature_selection": "none", "discretizer": "decile"}, {"bins": 10}),
    ],
)
def test_limes_own_sampling_gives_limes_numbers(theirs, ours) -> None:
    """Numbers of several kinds: normal, skewed, a column of categories, one that is mostly zero."""
    table = pytest.importorskip("lime.lime_tabular")
    rng = np.random.default_rng(0)
    columns = rng.normal(size=300), rng.exponential(size=300), rng.integers(0, 3, 300)
    data = np.stack([*columns, rng.integers(0, 20, 300) * (rng.random(300) < 0.3)], 1).astype(float)

    def chances(x):
        chance = 1 / (1 + np.exp(-(x[:, 0] * x[:, 1] + (x[:, 2] == 1) - 0.1 * x[:, 3])))
        return np.stack([1 - chance, chance], 1)

    settings = dict(ours)
    rows = ap.Quartiles(torch.from_numpy(data), bins=settings.pop("bins", 4))
    method = ap.LIME(
        sampling="lime", samples=300, seed=5, categorical=(2,), replacement=rows, chunk=77, **settings
    )
    found = method(chances, data[3:5], 1)
    for i in range(2):
        explainer = table.LimeTabularExplainer(data, categorical_features=[2], random_state=5, **theirs)
        expected = explainer.explain_instance(
            data[3 + i], chances, num_features=ours.get("keep", 4), num_samples=300
        )
        coefficients = np.zeros(4)
        for feature, coefficient in expected.local_exp[1]:
            coefficients[feature] = coefficient
        np.testing.assert_allclose(found.values[i], coefficients, atol=1e-9)
        assert found.notes["intercept"][i] == pytest.approx(expected.intercept[1], abs=1e-9)
        assert found.notes["r2"][i] == pytest.approx(expected.score, abs=1e-9)
    assert repr(ap.LIME()) == repr(ap.LIME(sampling="masks"))


def test_a_bin_with_one_value_has_that_value() -> None:
    pytest.importorskip("scipy")
    data = np.array([[17.0]] * 10 + [[float(v)] for v in range(18, 28)])
    kept, drawn = draw(np.array([17.0]), data, (), 4, 500, 0)
    assert set(drawn[kept[:, 0], 0]) == {17.0}
    assert kept.mean() == pytest.approx(0.5, abs=0.1)
    assert drawn[~kept[:, 0]].min() > 17
    assert drawn.max() <= 27


def test_limes_sampling_takes_the_background_of_a_frame() -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("scipy")
    frame = pandas.DataFrame({"age": np.arange(40.0), "job": ["cook", "vet"] * 20})

    def model(rows):
        return 1.0 * (rows.job == "vet").to_numpy()

    method = ap.LIME(sampling="lime", categorical=(1,), alpha=0.0)
    found = ap.explain(ap.Tabular(model, frame), frame.iloc[[39]], method)
    assert dict(found.top())["job = vet"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampling": "lime"}, "rows of data as the replacement"),
        (
            {"sampling": "lime", "replacement": ap.Quartiles(torch.rand(9, 2)), "categorical": (2,)},
            "columns 0 to 1",
        ),
    ],
)
def test_limes_sampling_is_of_rows_with_data(settings, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ap.LIME(**settings)(lambda x: x.sum(1), torch.ones(1, 2))
    with pytest.raises(InputError, match="sampling"):
        ap.LIME(sampling="gaussian")
    for name, value in (("sizes", "coins"), ("tolerance", 0.1)):
        with pytest.raises(InputError, match=f"{name} is"):
            ap.LIME(sampling="lime", **{name: value})
    with pytest.raises(InputError, match="categorical is"):
        ap.LIME(categorical=(1,))


@pytest.mark.parametrize(("masks", "features"), [(5, 9), (40, 41), (6, 6), (30, 7)])
def test_few_masks_of_many_features_give_the_least_values_that_fit(masks: int, features: int):
    """As by the pseudo-inverse of the (features, features) matrix, which takes hours for ten thousand of them."""
    random = np.random.default_rng(0)
    z, y, weights = (
        random.random((masks, features)) < 0.5,
        random.normal(size=(2, masks)),
        random.random(masks),
    )
    base, whole = random.normal(size=(2, 2))
    fit = constrained(z, y, weights, base, whole)
    root = np.sqrt(weights)[:, None] * z
    inverse = np.linalg.pinv(root.T @ root, hermitian=True)
    free = ((y - base[:, None]) * np.sqrt(weights)) @ root @ inverse
    step = inverse.sum(1) / inverse.sum()
    expected = free + (whole - base - free.sum(1))[:, None] * step
    np.testing.assert_allclose(fit.coefficients, expected, atol=1e-8)


def test_a_linear_control_variate_changes_no_value():
    """Why no gradient or LRP map can spare calls: a fit to the scores less a linear function of the mask, with that
    function's own values added back, is the fit to the scores."""
    random = np.random.default_rng(0)
    z, y, weights = random.random((60, 9)) < 0.5, random.normal(size=(2, 60)), random.random(60)
    base, whole, slope = random.normal(size=2), random.normal(size=2), random.normal(size=9)
    plain = constrained(z, y, weights, base, whole).coefficients
    less = constrained(z, y - z @ slope, weights, base, whole - slope.sum()).coefficients
    np.testing.assert_allclose(less + slope, plain, atol=1e-12)
    plain, less = (ridge(z, scores, weights, alpha=0.0).coefficients for scores in (y, y - z @ slope))
    np.testing.assert_allclose(less + slope, plain, atol=1e-12)


@pytest.mark.parametrize(
    "method",
    [
        ap.LIME(samples=200),
        ap.LIME(samples=200, alpha=0.1),
        ap.LIME(samples=200, keep=3),
        ap.LIME(samples=200, seed=1),
        ap.LIME(samples=200, paired=False),
        ap.LIME(samples=200, width=2.0),
        ap.LIME(samples=50, tolerance=1e-3, max_samples=400),
        ap.LIME(
            samples=200,
            replacement=Background(torch.linspace(-2, 2, 70, dtype=torch.float64).view(5, 14), many=1),
        ),
        ap.KernelSHAP(samples=200),
        ap.KernelSHAP(samples=50, tolerance=1e-4, max_samples=400),
    ],
    ids=repr,
)
def test_masks_that_were_drawn_and_factored_before_change_no_bit(method) -> None:
    """The first call draws, the others find the design with what fits to it have in common: whatever ran between."""
    model = network(14)
    rows = torch.randn(2, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    _drawn.cache_clear()
    first = method(model, rows)
    for other in (ap.LIME(samples=200), ap.LIME(samples=200, alpha=0.5), ap.KernelSHAP(samples=200)):
        other(model, rows)
    again = method(model, rows)
    assert torch.equal(first.values, again.values)
    assert first.notes == again.notes
    assert _drawn.cache_info().currsize <= 4
