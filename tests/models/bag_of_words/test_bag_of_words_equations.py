"""Eq. 9 to 16 of Bach et al. 2015, written out slowly, and the conservation of every stage."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.sparse import csr_matrix

from apportion import InputError
from apportion.models.bag_of_words._decomposition import (
    decompose_by_path,
    decompose_by_sum,
    decompose_by_taylor,
    find_roots,
    score_of,
)
from apportion.models.bag_of_words._machine import KernelMachine, WeightedKernel
from apportion.models.bag_of_words._pooling import (
    pool,
    pooling_exponent,
    pyramid_cells,
    share_relevance,
    to_pixels,
)
from apportion.models.bag_of_words._vocabulary import Mixture, VisualWords
from apportion.models.bag_of_words.kernels import (
    RBF,
    ChiSquared,
    Cosine,
    ExponentialChiSquared,
    Intersection,
    Laplacian,
    Linear,
    Polynomial,
    Sigmoid,
    evaluate,
    fit_scale,
)
from apportion.models.bag_of_words.mapping import Fisher, Hard, Rank, Soft

POWERS = (1.0, 1.5, 2.0, 7.0, math.inf)


# ---- slow transcriptions ----


def eq9(m, p):
    features, words = m.shape
    if math.isinf(p):
        return [max(m[j, d] for j in range(features)) for d in range(words)]
    return [(sum(m[j, d] ** p for j in range(features)) / features) ** (1 / p) for d in range(words)]


def eq14_15(relevance, m, p):
    features, words = m.shape
    if math.isinf(p):  # the limit: who attains the maximum
        m, p = np.array([[float(v == max(column) > 0) for v in column] for column in m.T]).T, 1
    found = np.zeros(features)
    for d in range(words):
        total = sum(m[j, d] ** p for j in range(features))
        for j in range(features):
            found[j] += relevance[d] * m[j, d] ** p / total if total != 0 else relevance[d] / features
    return found


def eq16(relevance, boxes, shape):
    found = np.zeros(shape)
    for r, (top, left, bottom, right) in zip(relevance, boxes, strict=True):
        for y in range(top, bottom):
            for x in range(left, right):
                found[y, x] += r / ((bottom - top) * (right - left))
    return found


def one(name, a, b):
    """k^(d) of one pair of numbers."""
    if name == "intersection":
        return min(a, b)
    if name == "chi2":
        return 2 * a * b / (a + b) if a + b else 0.0
    return a * b


def eq12(name, alpha, bias, points, x):
    terms = [[a * one(name, p[d], x[d]) for a, p in zip(alpha, points, strict=True)] for d in range(len(x))]
    return [bias / len(x) + sum(term) for term in terms]


def derivative(name, gamma, point, x, d):
    """∂k(point, ·)/∂x_d at x."""
    if name == "rbf":
        return -2 * gamma * (x[d] - point[d]) * math.exp(-gamma * sum((x - point) ** 2))
    if name == "laplacian":
        return -gamma * np.sign(x[d] - point[d]) * math.exp(-gamma * sum(abs(x - point)))
    distance = sum((a - b) ** 2 / (a + b) for a, b in zip(x, point, strict=True))
    slope = (x[d] - point[d]) * (x[d] + 3 * point[d]) / (x[d] + point[d]) ** 2
    return -gamma * slope * math.exp(-gamma * distance)


def eq13(name, gamma, alpha, points, x, root):
    return [
        (x[d] - root[d])
        * sum(a * derivative(name, gamma, p, root, d) for a, p in zip(alpha, points, strict=True))
        for d in range(len(x))
    ]


# ---- pooling and the way back ----


def mapped(random, features=9, words=6, density=0.5):
    m = random.random((features, words)) * (random.random((features, words)) < density)
    m[:, 2] = 0  # one word that no feature has
    return m


@pytest.mark.parametrize("p", POWERS)
def test_pooling_is_eq_9(p):
    m = mapped(np.random.default_rng(0))
    np.testing.assert_allclose(pool(csr_matrix(m), p, [np.arange(9)]), eq9(m, p), rtol=1e-12)


def test_high_powers_tend_to_the_maximum_and_do_not_vanish():
    m = mapped(np.random.default_rng(0)) * 1e-3
    near = pool(csr_matrix(m), 2000.0, [np.arange(9)])
    np.testing.assert_allclose(near, m.max(0), rtol=5e-3)


@pytest.mark.parametrize("p", POWERS)
def test_sharing_is_eq_14_and_15(p):
    random = np.random.default_rng(1)
    m, relevance = mapped(random), random.normal(size=6)
    m[3] = m[4]  # two features that attain a maximum together
    np.testing.assert_allclose(
        share_relevance(relevance, csr_matrix(m), p, [np.arange(9)]),
        eq14_15(relevance, m, p),
        rtol=1e-10,
        atol=1e-12,
    )


def test_pixels_are_eq_16():
    random = np.random.default_rng(2)
    corners = random.integers(0, 8, (20, 2))
    boxes = np.hstack([corners, corners + random.integers(1, 5, (20, 2))])
    relevance = random.normal(size=20)
    np.testing.assert_allclose(
        to_pixels(relevance, boxes, (12, 13)), eq16(relevance, boxes, (12, 13)), atol=1e-12
    )


def test_cells_of_a_pyramid_pool_apart_and_empty_cells_share_with_all():
    random = np.random.default_rng(3)
    m = mapped(random, features=4)
    boxes = np.array([[0, 0, 4, 4], [1, 1, 5, 5], [0, 9, 4, 13], [12, 12, 16, 16]])
    places = pyramid_cells(boxes, (16, 16), (1, 2))
    assert [place.tolist() for place in places] == [[0, 1, 2, 3], [0, 1], [2], [], [3]]
    vector = pool(csr_matrix(m), 1.0, places).reshape(5, 6)
    np.testing.assert_allclose(vector[1], m[:2].mean(0))
    assert (vector[3] == 0).all()
    relevance = np.zeros((5, 6))
    relevance[3] = 1.0
    np.testing.assert_allclose(share_relevance(relevance.ravel(), csr_matrix(m), 1.0, places), 6 / 4)


numbers = st.floats(-1e3, 1e3, allow_nan=False)


@settings(max_examples=60, deadline=None)
@given(
    m=hnp.arrays(float, (5, 4), elements=st.one_of(st.just(0.0), st.floats(1e-3, 1.0)), fill=st.nothing()),
    relevance=hnp.arrays(float, 20, elements=numbers),
    p=st.sampled_from(POWERS),
    seed=st.integers(0, 1000),
)
def test_every_stage_keeps_the_sum(m, relevance, p, seed):
    """To 1e-9 of the numbers that are added up."""
    random = np.random.default_rng(seed)
    corners = random.integers(0, 12, (5, 2))
    boxes = np.hstack([corners, corners + random.integers(1, 5, (5, 2))])
    of_features = share_relevance(relevance, csr_matrix(m), p, pyramid_cells(boxes, (16, 16), (1, 2)))
    size = max(1.0, np.abs(relevance).sum())
    assert abs(of_features.sum() - relevance.sum()) <= 1e-9 * size
    assert abs(to_pixels(of_features, boxes, (16, 16)).sum() - relevance.sum()) <= 1e-9 * size


@pytest.mark.parametrize("pooling", ["median", 0.5, 0, math.nan])
def test_pooling_must_be_known(pooling):
    with pytest.raises(InputError, match="accepted: 'sum', 'max', or p of the p-means"):
        pooling_exponent(pooling)


# ---- the machine ----

SUMS = {"intersection": Intersection(), "chi2": ChiSquared(), "linear": Linear()}
SMOOTH = {"rbf": RBF(0.7), "laplacian": Laplacian(0.4), "exponential-chi2": ExponentialChiSquared(0.5)}


def machine(kernel, random, points=7, dimensions=5, classes=1):
    support = random.random((points, dimensions)) + 0.05
    alpha = random.normal(size=(classes, points))
    alpha -= alpha.mean(1, keepdims=True)
    parts = (WeightedKernel(kernel, 1.0, 0, dimensions),)
    bias = torch.full((classes,), 0.1, dtype=torch.float64)
    return KernelMachine(torch.as_tensor(support), torch.as_tensor(alpha), bias, parts)


def scored(made, x):
    return score_of(made, made(x), torch.zeros(len(x), dtype=torch.long))


@pytest.mark.parametrize("name", SUMS)
def test_relevance_of_sum_decomposable_kernels_is_eq_12(name):
    random = np.random.default_rng(4)
    made, x = machine(SUMS[name], random), torch.as_tensor(random.random((3, 5)))
    found = decompose_by_sum(scored(made, x), x).values
    for row, each in zip(found.numpy(), x.numpy(), strict=True):
        wanted = eq12(name, made.coefficients[0].numpy(), 0.1, made.points.numpy(), each)
        np.testing.assert_allclose(row, wanted, rtol=1e-12)


@pytest.mark.parametrize("name", SMOOTH)
def test_taylor_is_eq_13(name):
    random = np.random.default_rng(5)
    made, x = machine(SMOOTH[name], random), torch.as_tensor(random.random((4, 5)))
    score = scored(made, x)
    root, left = find_roots(score, x)
    assert left.abs().max() < 1e-12
    found = decompose_by_taylor(score, x).values
    gamma = SMOOTH[name].gamma
    for row, each, at in zip(found.numpy(), x.numpy(), root.numpy(), strict=True):
        wanted = eq13(name, gamma, made.coefficients[0].numpy(), made.points.numpy(), each, at)
        np.testing.assert_allclose(row, wanted, rtol=1e-9, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    points=hnp.arrays(float, (6, 4), elements=st.floats(0, 10)),
    x=hnp.arrays(float, (2, 4), elements=st.floats(0, 10)),
    alpha=hnp.arrays(float, (1, 6), elements=st.floats(-5, 5)),
    bias=st.floats(-5, 5),
    name=st.sampled_from(sorted(SUMS)),
)
def test_eq_12_adds_up_to_the_score(points, x, alpha, bias, name):
    rows = torch.as_tensor(x)
    made = KernelMachine(
        torch.as_tensor(points),
        torch.as_tensor(alpha),
        torch.tensor([bias], dtype=torch.float64),
        (WeightedKernel(SUMS[name], 1.0, 0, 4),),
    )
    found = decompose_by_sum(scored(made, rows), rows).values.sum(1)
    size = 1 + np.abs(alpha).sum() * 400
    assert (found - made(rows)[:, 0]).abs().max() <= 1e-9 * size


def test_the_path_adds_up_where_taylor_does_not():
    random = np.random.default_rng(6)
    made, x = machine(RBF(1.0), random, points=20), torch.as_tensor(random.random((30, 5)))
    score, total = scored(made, x), made(x)[:, 0]
    path, taylor = (
        (way.values.sum(1) - total).abs()
        for way in (decompose_by_path(score, x, 8, 1e-3), decompose_by_taylor(score, x))
    )
    assert (path <= 1e-3 * total.abs()).all()
    assert taylor.median() > 1e-3


def test_several_kernels_are_eq_11():
    random = np.random.default_rng(7)
    made = machine(Linear(), random)
    parts = (
        WeightedKernel(Intersection(), 0.5, 0, 2),
        WeightedKernel(ChiSquared(), 2.0, 2, 5),
        WeightedKernel(Linear(), 0.25, 0, 5),
    )
    made = KernelMachine(made.points, made.coefficients, made.bias, parts)
    x = torch.as_tensor(random.random((2, 5)))
    for row, each in zip(made(x).tolist(), x.numpy(), strict=True):
        wanted = 0.1
        for a, p in zip(made.coefficients[0].tolist(), made.points.numpy(), strict=True):
            wanted += a * 0.5 * sum(one("intersection", p[d], each[d]) for d in (0, 1))
            wanted += a * 2.0 * sum(one("chi2", p[d], each[d]) for d in (2, 3, 4))
            wanted += a * 0.25 * sum(p[d] * each[d] for d in range(5))
        assert row[0] == pytest.approx(wanted, rel=1e-12)
    assert decompose_by_sum(scored(made, x), x).values.sum(1) == pytest.approx(
        made(x)[:, 0].numpy(), rel=1e-12
    )


def test_without_a_root_the_nearest_to_zero_is_taken_and_said():
    made = KernelMachine(
        torch.tensor([[0.0], [1.0]]).double(),
        torch.tensor([[1.0, 1.0]]).double(),
        torch.ones(1).double(),
        (WeightedKernel(RBF(1.0), 1.0, 0, 1),),
    )
    x = torch.tensor([[3.0]]).double()
    found = decompose_by_path(scored(made, x), x, 8, 1e-3)
    assert found.root_score.item() == pytest.approx(2 + math.exp(-1))
    assert found.values.sum() == pytest.approx(float(made(x)) - found.root_score.item(), rel=1e-4)


@pytest.mark.parametrize("kernel", [Laplacian(2.0), Intersection()], ids=repr)
def test_the_path_takes_as_many_nodes_as_the_kinks_ask_for(kernel):
    random = np.random.default_rng(15)
    made, x = machine(kernel, random, points=20), torch.as_tensor(random.random((10, 5)))
    score, total = scored(made, x), made(x)[:, 0]
    few, enough = (decompose_by_path(score, x, 4, t).values.sum(1) - total for t in (1e9, 1e-3))
    assert (enough.abs() <= 1e-3 * total.abs()).all()
    assert (few.abs() > 1e-3 * total.abs()).any()


# ---- kernels ----

EVERY = {
    **SUMS,
    **SMOOTH,
    "polynomial": Polynomial(2, 0.5, 1.0),
    "sigmoid": Sigmoid(0.3, 0.1),
    "cosine": Cosine(),
}


@pytest.mark.parametrize("name", ["linear", "rbf", "laplacian", "polynomial", "sigmoid", "cosine", "chi2"])
def test_kernels_are_those_of_scikit_learn(name):
    from sklearn.metrics import pairwise

    random = np.random.default_rng(8)
    a, b = random.random((4, 5)), random.random((6, 5))
    theirs = {
        "linear": lambda: pairwise.linear_kernel(a, b),
        "rbf": lambda: pairwise.rbf_kernel(a, b, gamma=0.7),
        "laplacian": lambda: pairwise.laplacian_kernel(a, b, gamma=0.4),
        "polynomial": lambda: pairwise.polynomial_kernel(a, b, degree=2, gamma=0.5, coef0=1.0),
        "sigmoid": lambda: pairwise.sigmoid_kernel(a, b, gamma=0.3, coef0=0.1),
        "cosine": lambda: pairwise.cosine_similarity(a, b),
        "chi2": lambda: pairwise.chi2_kernel(a, b, gamma=0.5),
    }
    kernel = EVERY["exponential-chi2" if name == "chi2" else name]
    np.testing.assert_allclose(kernel(torch.as_tensor(a), torch.as_tensor(b)), theirs[name](), rtol=1e-10)


@pytest.mark.parametrize("name", SUMS)
def test_the_terms_add_up_to_the_kernel(name):
    random = np.random.default_rng(9)
    a, b = (torch.as_tensor(random.random((n, 5))) for n in (3, 4))
    a[0, 0] = b[0, 0] = 0
    kernel = SUMS[name]
    np.testing.assert_allclose(kernel.terms(a, b).sum(2), kernel(a, b), rtol=1e-12)
    slow = [[sum(one(name, u, v) for u, v in zip(x, y, strict=True)) for y in b.tolist()] for x in a.tolist()]
    np.testing.assert_allclose(kernel(a, b), slow, rtol=1e-12)


@pytest.mark.parametrize(
    "name", sorted(SMOOTH | {"polynomial": 0, "sigmoid": 0, "cosine": 0, "chi2": 0, "linear": 0})
)
def test_gradients_are_right(name):
    random = np.random.default_rng(10)
    a, b = (torch.as_tensor(random.random((n, 4)) + 0.1).requires_grad_() for n in (2, 3))
    assert torch.autograd.gradcheck(EVERY[name], (a, b))


def test_chi_squared_has_a_gradient_where_both_are_zero():
    a = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    for kernel in (ChiSquared(), ExponentialChiSquared(1.0)):
        (gradient,) = torch.autograd.grad(kernel(a, torch.tensor([[0.0, 1.0]]).double()).sum(), a)
        assert torch.isfinite(gradient).all()


def test_a_scale_that_was_left_open_is_the_inverse_mean_distance():
    x = torch.as_tensor(np.random.default_rng(11).random((6, 3)))
    slow = np.mean([[np.abs(a - b).sum() for b in x.numpy()] for a in x.numpy()])
    assert fit_scale(Laplacian(), x).gamma == pytest.approx(1 / slow)
    assert fit_scale(Laplacian(2.0), x).gamma == 2.0
    assert fit_scale(RBF(), torch.zeros(2, 2)).gamma == 1.0
    with pytest.raises(InputError, match="has no gamma yet"):
        RBF()(x, x)


def test_kernels_of_histograms_refuse_negative_numbers():
    with pytest.raises(InputError, match=r"Intersection\(\) is for numbers from zero on"):
        evaluate(Intersection(), torch.tensor([[-1.0]]), torch.ones(1, 1))


@pytest.mark.parametrize(
    ("returned", "message"),
    [(torch.zeros(2), "returned shape"), (torch.full((1, 1), torch.nan), "NaN or infinite")],
)
def test_what_a_kernel_returns_is_checked(returned, message):
    with pytest.raises(InputError, match=message):
        evaluate(lambda a, b: returned, torch.zeros(1, 1), torch.zeros(1, 1))


# ---- mappings ----


def words_of(random, words=10, dimensions=4):
    return VisualWords(random.normal(size=(words, dimensions)), np.array([2.0]))


def slow_distances(rows, words):
    return np.array([[sum((a - b) ** 2) for b in words.centres] for a in rows])


def test_rank_mapping_by_hand():
    random = np.random.default_rng(12)
    words, rows = words_of(random), random.normal(size=(7, 4))
    found = Rank()(rows, words).toarray()
    for row, distances in zip(found, slow_distances(rows, words), strict=True):
        rank = {int(word): place for place, word in enumerate(np.argsort(distances), 1)}
        wanted = [2.4 ** -rank[d] if rank[d] <= 8 else 0.0 for d in range(10)]
        np.testing.assert_allclose(row, wanted, rtol=1e-12)


@pytest.mark.parametrize("nearest", [None, 3])
def test_soft_mapping_by_hand(nearest):
    random = np.random.default_rng(13)
    words, rows = words_of(random), random.normal(size=(7, 4))
    found = Soft(nearest=nearest)(rows, words).toarray()
    for row, distances in zip(found, slow_distances(rows, words), strict=True):
        close = np.sort(distances)[: nearest or 10]
        weights = np.where(distances <= close[-1], np.exp(-distances / 2.0), 0)
        np.testing.assert_allclose(row, weights / weights.sum(), rtol=1e-9)


def test_hard_mapping_by_hand():
    random = np.random.default_rng(14)
    words, rows = words_of(random), random.normal(size=(7, 4))
    found = Hard()(rows, words).toarray()
    assert (found.argmax(1) == slow_distances(rows, words).argmin(1)).all()
    assert (found.sum(1) == 1).all()


def test_fisher_vectors_are_the_gradients_of_the_log_likelihood():
    """With respect to means and standard deviations, over the Fisher information's closed form."""
    torch.manual_seed(0)
    weights = torch.tensor([0.3, 0.7]).double()
    means, deviations = torch.randn(2, 3).double(), (torch.rand(2, 3) + 0.5).double()
    rows = torch.randn(5, 3).double()
    mixture = Mixture(weights.numpy(), means.numpy(), (deviations**2).numpy(), np.zeros(3), np.eye(3))
    found = Fisher()(rows.numpy(), mixture).toarray()
    means.requires_grad_()
    deviations.requires_grad_()
    for row, vector in zip(rows, found.reshape(5, 2, 6), strict=True):
        logs = torch.distributions.Normal(means, deviations).log_prob(row).sum(1) + weights.log()
        to_means, to_deviations = torch.autograd.grad(logs.logsumexp(0), (means, deviations))
        scale = (deviations / weights.sqrt()[:, None]).detach()
        np.testing.assert_allclose(vector[:, :3], to_means * scale, rtol=1e-8)
        np.testing.assert_allclose(vector[:, 3:], to_deviations * scale / math.sqrt(2), rtol=1e-8)


@pytest.mark.parametrize("make", [lambda: Rank(nearest=0), lambda: Rank(base=1.0), lambda: Soft(gamma=-1.0)])
def test_settings_of_mappings_are_checked(make):
    with pytest.raises(InputError, match="accepted"):
        make()
