"""Kernel decomposition of scikit-learn's models: the same scores, and relevance that adds up to them."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.cross_decomposition import PLSRegression
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC, NuSVC, OneClassSVM

import apportion as ap
from apportion import InputError, KernelDecomposition
from apportion.models.bag_of_words._machine import machine_of

X, Y = load_iris(return_X_y=True)
TWO = (X[:100], Y[:100])


def intersection(a, b):
    return np.minimum(np.asarray(a)[:, None], np.asarray(b)[None]).sum(2)


class Intersection:
    """A kernel of the user's own, with its terms."""

    def __call__(self, a, b):
        return intersection(a, b)

    def terms(self, a, b):
        return torch.minimum(a[:, None], b)


MACHINES = {
    "SVC linear": SVC(kernel="linear"),
    "SVC rbf": SVC(),
    "SVC poly": SVC(kernel="poly", coef0=1.0),
    "SVC sigmoid": SVC(kernel="sigmoid", gamma=0.01),
    "SVC own": SVC(kernel=Intersection()),
    "NuSVC": NuSVC(),
    "LinearSVC": LinearSVC(),
    "LogisticRegression": LogisticRegression(max_iter=1000),
    "one-vs-rest": OneVsRestClassifier(SVC(gamma=0.5)),
    "one-vs-rest linear": OneVsRestClassifier(LinearSVC()),
    "grid search": GridSearchCV(SVC(gamma=0.5), {"C": [1.0]}),
}


@pytest.mark.parametrize("name", MACHINES)
def test_two_classes(name):
    model = MACHINES[name].fit(*TWO)
    e = KernelDecomposition()(model, X[:100:9])
    theirs = model.decision_function(X[:100:9])
    np.testing.assert_allclose(e.output[:, 1], theirs, rtol=1e-5, atol=1e-7)
    assert torch.equal(e.output[:, 0], -e.output[:, 1])
    assert (e.target.numpy() == (theirs > 0)).all()
    assert e.values.shape == (12, 4)
    share = 1e-9 if e.notes["by"] == "sum" else 1.1e-3
    assert (e.remainder.abs() <= share * (1 + e.total.abs())).all()


@pytest.mark.parametrize("name", ["one-vs-rest", "one-vs-rest linear", "LinearSVC", "LogisticRegression"])
def test_scores_of_several_classes_are_the_models_own(name):
    model = MACHINES[name].fit(X, Y)
    e = KernelDecomposition()(model, X[::10], 1)
    np.testing.assert_allclose(e.output, model.decision_function(X[::10]), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_a_one_vs_one_machine_is_explained_by_the_sums_of_its_pairs(kernel):
    model = SVC(kernel=kernel, decision_function_shape="ovo").fit(X, Y)
    pairs = model.decision_function(X)
    sums = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 2] - pairs[:, 0], -pairs[:, 1] - pairs[:, 2]], 1)
    e = KernelDecomposition()(model, X)
    np.testing.assert_allclose(e.output, sums, rtol=1e-6, atol=1e-7)
    differ = (sums.argmax(1) != model.predict(X)).sum()
    assert len(e.warnings) == (differ > 0)
    if differ:
        assert f"for {differ} of 150 samples the model's votes predict another class" in e.warnings[0]
    contrast = KernelDecomposition()(model, X[:3], ap.Contrast(0, 1))
    np.testing.assert_allclose(contrast.total, sums[:3, 0] - sums[:3, 1], rtol=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        SVR(),
        Ridge(),
        KernelRidge(kernel="rbf"),
        KernelRidge(kernel="laplacian", gamma=0.3),
        KernelRidge(kernel="polynomial", degree=2),
        KernelRidge(kernel="chi2", gamma=0.5),
        KernelRidge(kernel="cosine"),
        KernelRidge(kernel=lambda a, b: float(np.minimum(a, b).sum())),
        OneClassSVM(gamma=0.1),
    ],
    ids=lambda model: str(model).split(" at ")[0],
)
def test_regressions_have_one_score(model):
    model.fit(X[:40], X[:40, 0] ** 2)
    theirs = model.decision_function(X[:5]) if hasattr(model, "decision_function") else model.predict(X[:5])
    machine = machine_of(model)
    np.testing.assert_allclose(machine(torch.as_tensor(X[:5]))[:, 0], theirs, rtol=1e-6, atol=1e-9)


def test_linear_models_are_weight_times_input_and_the_bias_in_equal_parts():
    model = LinearSVC().fit(*TWO)
    e = KernelDecomposition()(model, X[:4], 1)
    np.testing.assert_allclose(e.values, X[:4] * model.coef_ + model.intercept_ / 4, rtol=1e-12)


def test_text_counts():
    texts = ["a warm and funny film", "funny and warm", "a dull film", "dull and slow"]
    words = CountVectorizer().fit(texts)
    counts = words.transform(texts)
    for model in (SVC(kernel="linear"), LinearSVC(), SVC(kernel="rbf")):
        model.fit(counts, [1, 1, 0, 0])
        e = KernelDecomposition()(model, counts, 1)
        assert e.values.shape == counts.shape
        relevance = dict(zip(words.get_feature_names_out(), e.values[0].tolist(), strict=True))
        # By path, that a word is missing may speak for the class too.
        assert relevance["funny"] > relevance["film"]
        assert (e.remainder.abs() < 1e-3 * (1 + e.total.abs())).all()


def test_the_columns_of_a_data_frame_are_named():
    frame = pd.DataFrame(X[:100], columns=["a", "b", "c", "d"])
    names = np.array(["small", "large"])[Y[:100]]
    e = KernelDecomposition()(LinearSVC().fit(frame, names), frame.iloc[:2])
    assert e.relevance(0)[0] == ("a = 5.1", "b = 3.5", "c = 1.4", "d = 0.2")
    assert e.label() == "small"
    assert e.plot().get_xlabel() == "value (units of the score)"


def test_tensors_keep_the_way_back(tmp_path):
    rows = torch.as_tensor(X[:3], dtype=torch.float32)
    e = KernelDecomposition("taylor")(SVC().fit(*TWO), rows)
    assert e.notes["by"] == "taylor"
    assert ap.Explanation.load(e.save(tmp_path / "e")) == e


def test_taylor_leaves_more_than_the_path():
    model = SVC(gamma=1.0).fit(X, Y == 1)
    path, taylor = (KernelDecomposition(by)(model, X).remainder.abs() for by in ("path", "taylor"))
    assert path.median() < taylor.median() / 10


@pytest.mark.parametrize(
    ("model", "rows", "message"),
    [
        (SVC(), X, "the SVC is not fitted"),
        (LinearSVC(), X, "the LinearSVC is not fitted"),
        (
            RandomForestClassifier(n_estimators=2).fit(*TWO),
            X,
            "RandomForestClassifier, which is no kernel machine",
        ),
        (lambda x: x, X, "function, which is no kernel machine"),
        (
            make_pipeline(StandardScaler(), SVC()).fit(*TWO),
            X,
            r"accepted: its last step with transformed inputs",
        ),
        (SVC(kernel="precomputed").fit(np.eye(4), [0, 1, 0, 1]), np.eye(4), "precomputed kernel"),
        (SVC(kernel=intersection).fit(*TWO), X, "torch cannot differentiate"),
        (OneVsRestClassifier(SVC()).fit(csr_matrix(X), Y), X[:, :2], "have 2 columns; accepted: the 4"),
        (LinearSVC().fit(*TWO), X * np.nan, "NaN"),
        (LinearSVC().fit(*TWO), X[0], r"shape \(4,\); accepted: \(batch, columns\)"),
        (LinearSVC().fit(*TWO), [["a", "b", "c", "d"]], "accepted: rows of numbers"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_explained(model, rows, message):
    with pytest.raises(InputError, match=message):
        KernelDecomposition()(model, rows)


def test_one_vs_rest_with_a_gamma_of_each_is_refused():
    model = OneVsRestClassifier(SVC()).fit(X, Y)
    model.estimators_[0]._gamma *= 2
    with pytest.raises(InputError, match="different kernels"):
        KernelDecomposition()(model, X)


@pytest.mark.parametrize("model", [PLSRegression(), PoissonRegressor()])
def test_coefficients_that_are_not_all_of_a_model(model):
    with pytest.raises(InputError, match="score is not its coefficients times its inputs"):
        KernelDecomposition()(model.fit(X, Y), X[:2])
