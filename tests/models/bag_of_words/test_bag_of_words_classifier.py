"""The Bag-of-Words classifier: like any estimator of scikit-learn, explained to pixels, saved without pickle."""

import functools
import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils import estimator_checks

import apportion as ap
from apportion import BagOfWords, InputError, KernelDecomposition
from apportion.engines.masking.partitions import Patches
from apportion.models.bag_of_words import features as features_module
from apportion.models.bag_of_words.features import (
    DenseSIFT,
    LocalFeatures,
    PatchStatistics,
    extract,
    grid,
    moments,
)
from apportion.models.bag_of_words.kernels import Laplacian
from apportion.models.bag_of_words.mapping import Fisher, Rank, Soft

SMALL = DenseSIFT(patches=(8, 12), step=4)
NAMES = ("disc", "cross", "stripes")


def photo(kind, seed, height=44, width=52):
    """A shape of random place and shade on a noisy grey ground."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    cy, cx = random.integers(14, height - 14), random.integers(14, width - 14)
    inside = {
        "disc": (y - cy) ** 2 + (x - cx) ** 2 < 100,
        "cross": ((abs(y - cy) < 3) | (abs(x - cx) < 3)) & (abs(y - cy) < 12) & (abs(x - cx) < 12),
        "stripes": ((x - cx) % 6 < 3) & (abs(y - cy) < 12) & (abs(x - cx) < 12),
    }[kind]
    grey = random.normal(110, 4, (height, width)) + inside * 100
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, 2)


@functools.cache
def data(kinds=NAMES, each=5):
    labels = [kind for kind in kinds for _ in range(each)]
    return [photo(kind, seed) for seed, kind in enumerate(labels)], labels


@functools.cache
def trained(**settings):
    return BagOfWords(**{"words": 20, "features": SMALL, "C": 10.0, **settings}).fit(*data())


def inputs_of(picture):
    return torch.from_numpy(picture).movedim(-1, 0)[None] / 255


# ---- learning and deciding ----


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"kernel": "linear"},
        {"kernel": "chi2"},
        {"kernel": "exponential-chi2"},
        {"kernel": "rbf"},
        {"kernel": Laplacian()},
        {"mapping": "hard"},
        {"mapping": Soft(nearest=5)},
        {"mapping": Fisher(dimensions=8), "kernel": "linear", "words": 4},
        {"pooling": 2.0},
        {"pooling": "max"},
        {"pyramid": (1, 2)},
        {"kernel": ("intersection", "rbf")},
        {"features": (SMALL, PatchStatistics(patches=(8,))), "kernel": ("intersection", "chi2")},
        {"features": (SMALL, "grey"), "kernel_weights": (0.8, 0.2)},
    ],
    ids=str,
)
def test_every_setting_learns_and_adds_up(settings):
    if "grey" in settings.get("features", ()):
        settings = {**settings, "features": (SMALL, PatchStatistics(patches=(8,), colour=False))}
    bow = trained(**settings)
    pictures, labels = data()
    assert bow.score(pictures, labels) > (0.4 if settings.get("pooling") == "max" else 0.9)
    fresh = photo("disc", 100)
    e = bow.explain(fresh)
    assert e.values.shape == (1, 3, 44, 52)
    assert e.output[0].numpy() == pytest.approx(bow.decision_function([fresh])[0])
    (stages,) = e.notes["stages"]
    assert stages["features"] == pytest.approx(stages["dimensions"], abs=1e-9)
    assert stages["pixels"] == pytest.approx(stages["dimensions"], abs=1e-9)
    assert abs(float(e.remainder)) <= (1e-9 if e.notes["by"] == "sum" else 1.1e-3 * abs(float(e.total)))


def test_the_relevance_lies_on_the_shape():
    e = trained().explain(photo("stripes", 101), "stripes")
    map_ = e.values[0].sum(0).numpy()
    from scipy.ndimage import uniform_filter

    stripes = np.asarray(photo("stripes", 101))[..., 0] > 160
    near = uniform_filter(stripes.astype(float), 9) > 0.05
    positive = map_.clip(min=0)
    assert positive[near].sum() / positive.sum() > near.mean() + 0.2


def test_two_classes_have_one_score_in_scikit_learn_and_two_as_a_model():
    pictures, labels = data(NAMES[:2])
    bow = BagOfWords(words=10, features=SMALL, mapping=Rank(nearest=4)).fit(pictures, labels)
    scores = bow.decision_function(pictures[:3])
    assert scores.shape == (3,)
    both = bow(torch.cat([inputs_of(p) for p in pictures[:3]]))
    assert both[:, 1].numpy() == pytest.approx(scores)
    assert both[:, 0].numpy() == pytest.approx(-scores)
    one, other = (bow.explain(pictures[0], name).values for name in NAMES[:2])
    assert torch.allclose(one, -other)


def test_the_decisions_are_those_of_an_svm_on_the_vectors():
    from sklearn.svm import SVC

    bow = trained(kernel="rbf")
    pictures, labels = data()
    x = bow.transform(pictures)
    part = bow.machine_.parts[0]
    gram = part.weight * np.exp(-part.kernel.gamma * ((x[:, None] - x) ** 2).sum(2))
    truth = np.array(labels) == "disc"
    svm = SVC(C=10.0, kernel="precomputed", class_weight="balanced").fit(gram, truth)
    column = bow.classes_.tolist().index("disc")
    np.testing.assert_allclose(
        bow.decision_function(pictures)[:, column], svm.decision_function(gram), atol=1e-9
    )


def test_kernels_are_scaled_to_unit_variance():
    bow = trained(kernel="intersection")
    x = torch.as_tensor(bow.transform(data()[0]))
    (part,) = bow.machine_.parts
    gram = part.weight * part.kernel(x, x)
    assert float(gram.diagonal().mean() - gram.mean()) == pytest.approx(1.0)


def test_the_same_twice():
    pictures, labels = data()
    again = BagOfWords(words=20, features=SMALL, C=10.0).fit(pictures, labels)
    assert (again.decision_function(pictures) == trained().decision_function(pictures)).all()


# ---- scikit-learn ----

APPLIES = (
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_valid_tag_types",
)


@pytest.mark.parametrize("name", APPLIES)
def test_checks_of_scikit_learn_that_need_no_table(name):
    getattr(estimator_checks, name)("BagOfWords", BagOfWords())


def test_clone_pipeline_and_grid_search():
    pictures, labels = data()
    search = GridSearchCV(
        Pipeline([("bow", clone(BagOfWords(words=10, features=SMALL)))]),
        {"bow__kernel": ["intersection", "rbf"], "bow__mapping": [Rank(nearest=4)]},
        cv=2,
    ).fit(pictures, labels)
    assert search.best_score_ > 0.6
    e = search.best_estimator_["bow"].explain(pictures[0])
    assert abs(float(e.remainder)) < 1e-3


def test_a_clone_is_not_fitted():
    bow = clone(trained())
    assert bow.get_params()["words"] == 20
    for run in (
        lambda: bow.predict([photo("disc", 0)]),
        lambda: bow.explain(photo("disc", 0)),
        bow.classifier,
    ):
        with pytest.raises(InputError, match="not fitted; call fit"):
            run()
    with pytest.raises(NotFittedError):
        bow.transform([photo("disc", 0)])


# ---- as a model of this package ----


def test_methods_that_hide_features_take_it_as_it_is():
    bow, picture = trained(), photo("cross", 102)
    e = bow.explain(picture, "cross", ap.Occlusion(partition=Patches(11)))
    assert e.values.shape == (1, 3, 44, 52)
    assert e.label() == "cross"
    raw = ap.Occlusion(partition=Patches(11))(bow, inputs_of(picture), 0)
    assert torch.equal(raw.values, e.values)


def test_a_batch_is_its_pictures_one_by_one():
    bow = trained()
    pictures = [photo(kind, 103) for kind in NAMES]
    batch = torch.cat([inputs_of(p) for p in pictures])
    e = KernelDecomposition()(bow, batch, torch.tensor([0, 1, 2]))
    for i in range(3):
        alone = KernelDecomposition()(bow, batch[i : i + 1], i)
        assert torch.equal(alone.values[0], e.values[i])
        assert torch.equal(alone.total, e.total[i : i + 1])


def test_a_picture_of_which_all_is_hidden_has_a_score_but_no_explanation():
    bow = trained()
    blank = torch.full((1, 3, 40, 40), 0.5)
    expected = bow.machine_(torch.zeros(1, bow.machine_.points.shape[1], dtype=torch.float64))
    assert torch.equal(bow(blank), expected)
    with pytest.raises(InputError, match="no patch is above the contrast threshold"):
        bow.explain(blank)


def test_it_is_an_explanation_like_any_other(tmp_path):
    e = trained().explain(photo("disc", 104))
    assert ap.Explanation.load(e.save(tmp_path / "e.safetensors")) == e
    assert "KernelDecomposition" in e.to_html()
    assert e.features[0].picture.shape == (44, 52, 3)
    assert eval(repr(e.method), {"KernelDecomposition": KernelDecomposition}) == e.method


def test_the_difference_of_two_classes_is_the_difference_of_the_maps():
    bow, picture = trained(), photo("disc", 105)
    both = bow.explain(picture, ap.Contrast(0, 2))
    one, other = (bow.explain(picture, i).values for i in (0, 2))
    assert torch.allclose(both.values, one - other, atol=1e-12)


@pytest.mark.parametrize("kind", ["file", "PIL", "grey", "alpha", "float"])
def test_pictures_come_in_many_forms(kind, tmp_path):
    rgb = photo("disc", 106)
    forms = {
        "file": lambda: tmp_path / "p.png",
        "PIL": lambda: Image.fromarray(rgb),
        "grey": lambda: rgb[..., 0],
        "alpha": lambda: np.concatenate([rgb, np.full((44, 52, 1), 255, np.uint8)], 2),
        "float": lambda: rgb / 255,
    }
    Image.fromarray(rgb).save(tmp_path / "p.png")
    bow = trained()
    np.testing.assert_allclose(
        bow.decision_function([forms[kind]()]), bow.decision_function([rgb]), atol=1e-12
    )


# ---- local features ----


def test_sift_looks_at_the_box_and_hardly_beyond():
    """What changes outside of the box changes a descriptor little, what changes inside changes it much."""
    rough = np.random.default_rng(0).integers(0, 255, (80, 80)).astype(np.uint8)
    from scipy.ndimage import gaussian_filter

    picture = np.repeat(gaussian_filter(rough.astype(float), 2).astype(np.uint8)[..., None] * 3, 3, 2)
    sift = DenseSIFT(patches=(24,), step=28)
    before = sift(picture)
    top, left, bottom, right = before.boxes[4]
    outside = picture.copy()
    outside[: top - 6], outside[bottom + 6 :], outside[:, : left - 6], outside[:, right + 6 :] = 0, 0, 0, 0
    inside = picture.copy()
    inside[top + 4 : bottom - 4, left + 4 : right - 4] //= 2
    norm = np.linalg.norm(before.descriptors[4])
    far, near = (
        np.linalg.norm(
            extract(DenseSIFT(patches=(24,), step=28, contrast=0), p).descriptors[4] - before.descriptors[4]
        )
        for p in (outside, inside)
    )
    assert far < 0.25 * norm
    assert near > far


def test_moments_and_statistics_by_hand():
    picture = np.random.default_rng(1).integers(0, 255, (20, 24, 3), np.uint8)
    boxes = grid((20, 24), (8, 11), 5)
    mean, deviation = moments(picture.astype(float), boxes)
    for box, m, s in zip(boxes, mean, deviation, strict=True):
        patch = picture[box[0] : box[2], box[1] : box[3]].reshape(-1, 3)
        np.testing.assert_allclose(m, patch.mean(0))
        np.testing.assert_allclose(s, patch.std(0))
    found = PatchStatistics(patches=(11,), step=5, cells=2)(picture)
    top, left, _, _ = found.boxes[3]
    lower_right = picture[top + 5 : top + 11, left + 5 : left + 11].reshape(-1, 3) / 255
    np.testing.assert_allclose(found.descriptors[3, -6:-3], lower_right.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.descriptors[3, -3:], lower_right.std(0), rtol=1e-4)


def corners(picture):
    """A user's own local features: four patches with their mean colour."""
    boxes = grid(picture.shape[:2], (20,), 24)
    return LocalFeatures((moments(picture.astype(float), boxes)[0]).astype(np.float32), boxes)


def squared(a, b):
    """A user's own kernel, in torch."""
    return (a @ b.T + 1) ** 2


def plain(a, b):
    """A user's own kernel, in NumPy."""
    return np.sqrt(np.asarray(a)) @ np.sqrt(np.asarray(b)).T


def test_features_and_kernel_of_ones_own():
    bow = BagOfWords(squared, words=4, features=corners, mapping="hard").fit(*data())
    e = bow.explain(photo("disc", 107))
    assert e.notes["by"] == "path"
    assert abs(float(e.remainder)) < 1e-6 * max(1, abs(float(e.total)))


def test_a_kernel_with_neither_property_says_what_would_serve():
    bow = BagOfWords(plain, words=4, features=corners, mapping="hard").fit(*data())
    with pytest.raises(
        InputError, match=r"torch cannot differentiate .* accepted: a kernel written with torch"
    ):
        bow.explain(photo("disc", 107))
    with pytest.raises(InputError, match=r"not a sum over dimensions .* accepted: by='path', or by='taylor'"):
        bow.explain(photo("disc", 107), method=KernelDecomposition("sum"))


def test_kernels_without_the_needed_property_say_which_decomposition_serves():
    with pytest.raises(InputError, match=r"Intersection\(\) is not differentiable.*accepted: by='sum'"):
        trained().explain(photo("disc", 107), method=KernelDecomposition("taylor"))
    with pytest.raises(
        InputError, match=r"RBF\(gamma=.*\) is not a sum over dimensions.*accepted: by='path'"
    ):
        trained(kernel="rbf").explain(photo("disc", 107), method=KernelDecomposition("sum"))


# ---- files ----


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"kernel": ("rbf", "chi2"), "pyramid": (1, 2), "pooling": "max"},
        {"mapping": Fisher(dimensions=6), "kernel": "linear", "words": 3},
        {"features": (SMALL, PatchStatistics(patches=(8,)))},
    ],
    ids=str,
)
def test_saved_and_loaded_it_decides_alike(settings, tmp_path):
    bow = trained(**settings)
    again = BagOfWords.load(bow.save(tmp_path / "bow.safetensors"))
    pictures = data()[0][::5]
    np.testing.assert_allclose(again.decision_function(pictures), bow.decision_function(pictures), rtol=1e-12)
    assert again.get_params()["words"] == bow.words
    assert again.classes_.tolist() == bow.classes_.tolist()
    assert torch.allclose(again.explain(pictures[0]).values, bow.explain(pictures[0]).values)
    assert clone(again).get_params().keys() == bow.get_params().keys()


def test_a_file_and_a_factory_are_models_by_name(tmp_path):
    picture = photo("disc", 0)
    path = trained().save(tmp_path / "bow.safetensors")
    (tmp_path / "mine.py").write_text(
        f"from apportion import BagOfWords\ndef bow():\n    return BagOfWords.load({str(path)!r})\n"
    )
    expected = trained().explain(picture, "disc")
    for name in (str(path), f"{tmp_path}/mine.py:bow"):
        classifier = ap.load(name)
        assert classifier.labels == ("cross", "disc", "stripes")
        found = ap.explain(classifier, picture, method="kerneldecomposition", target="disc")
        assert torch.equal(found.values, expected.values)


def test_the_file_holds_no_pickle(tmp_path):
    path = trained().save(tmp_path / "bow.safetensors")
    raw = path.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert set(header["__metadata__"]) == {"bag_of_words"}
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(raw)


def test_callables_of_ones_own_must_be_given_again(tmp_path):
    bow = BagOfWords(squared, words=4, features=corners, mapping="hard").fit(*data())
    path = bow.save(tmp_path / "own.safetensors")
    with pytest.raises(InputError, match="saved with a kernel of its owner's"):
        BagOfWords.load(path, features=corners)
    again = BagOfWords.load(path, kernel=squared, features=corners)
    pictures = data()[0][:3]
    np.testing.assert_allclose(again.decision_function(pictures), bow.decision_function(pictures), rtol=1e-12)
    with pytest.raises(InputError, match="load got words; accepted: kernel, features, mapping"):
        BagOfWords.load(path, words=3)


def test_files_that_are_none(tmp_path):
    with pytest.raises(InputError, match="no Bag-of-Words classifier file at"):
        BagOfWords.load(tmp_path / "nothing")
    (tmp_path / "text").write_text("not a classifier")
    with pytest.raises(InputError, match="is not an apportion Bag-of-Words classifier"):
        BagOfWords.load(tmp_path / "text")
    e = trained().explain(photo("disc", 0)).save(tmp_path / "explanation")
    with pytest.raises(InputError, match="is not an apportion Bag-of-Words classifier"):
        BagOfWords.load(e)


# ---- wrong input ----

FLAT = np.full((40, 40, 3), 128, np.uint8)


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (
            [np.zeros((10, 60, 3), np.uint8)],
            "image 0: the picture is 60x10, smaller than a patch of 12 pixels",
        ),
        ([photo("disc", 0), FLAT], "image 1: .* found no local feature"),
        ([np.zeros((40, 40, 2), np.uint8)], "image 0: the array has shape"),
        ([photo("disc", 0) * 1.0], "values from"),
        ([], "images is an empty list"),
        ("photo.jpg", "images is 'photo.jpg'; accepted: a list of pictures"),
        (7, "images is int"),
        (photo("disc", 0), r"images is one picture, \(44, 52, 3\); accepted: a list of pictures"),
    ],
)
def test_pictures_that_cannot_be_used(pictures, message):
    with pytest.raises(InputError, match=message):
        trained().predict(pictures)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (photo("disc", 0), "inputs are ndarray; accepted: a floating point tensor"),
        (torch.zeros(1, 1, 40, 40), r"inputs are \(1, 1, 40, 40\)"),
        (torch.zeros(1, 3, 40, 40, dtype=torch.uint8), "torch.uint8"),
        (torch.full((1, 3, 40, 40), 200.0), r"values from 200 to 200; accepted: \[0, 1\]"),
        (torch.full((1, 3, 40, 40), torch.nan), "NaN"),
    ],
)
def test_inputs_that_cannot_be_used(x, message):
    with pytest.raises(InputError, match=message):
        KernelDecomposition()(trained(), x)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel": "intersect"}, "did you mean 'intersection'"),
        ({"mapping": "ranks"}, "did you mean 'rank'"),
        ({"features": "surf"}, "accepted: sift, colour, grey, or a callable"),
        ({"pooling": 0.5}, "p of the p-means, at least 1"),
        ({"pooling": "max", "mapping": "fisher"}, "may be negative; accepted: 'sum'"),
        ({"kernel": "intersection", "mapping": Fisher(4), "words": 2}, "for numbers from zero on"),
        ({"words": 0}, "words is 0"),
        ({"words": "many"}, "words is 'many'; accepted: an integer from 1 on"),
        ({"C": "1"}, "C is '1'; accepted: a positive number"),
        ({"words": 4}, "takes the 8 nearest of 4 words"),
        ({"words": 10_000}, "there are only"),
        ({"C": 0}, "C is 0"),
        ({"pyramid": ()}, "pyramid is"),
        ({"kernel": ("rbf", "chi2"), "features": (SMALL, SMALL, SMALL)}, "2 kernels and 3 features"),
        ({"kernel_weights": (1.0, 1.0)}, "accepted: 1 numbers from zero on"),
        ({"features": lambda picture: picture}, "accepted: \\(descriptors, boxes\\)"),
        ({"features": lambda p: (np.zeros((2, 3)), np.zeros((3, 4), int))}, "descriptors of shape"),
        ({"features": lambda p: (np.zeros((1, 3)), np.array([[0, 0, 900, 900]]))}, "not within the picture"),
        ({"features": lambda p: (np.full((1, 3), np.nan), np.array([[0, 0, 9, 9]]))}, "NaN"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(InputError, match=message):
        BagOfWords(**{"words": 10, "features": SMALL, **settings}).fit(*data())


@pytest.mark.parametrize("kernel", ["intersection", "chi2", ("linear", "intersection")])
def test_kernels_for_histograms_are_refused_for_signed_mappings_before_any_picture_is_read(kernel):
    def unread(picture):
        raise AssertionError("a picture was read")

    with pytest.raises(InputError, match="for numbers from zero on, but the weights of Fisher"):
        BagOfWords(kernel=kernel, mapping="fisher", features=unread).fit(*data())


def test_a_search_over_bags_of_words_is_seen_through():
    pictures, labels = data()
    search = GridSearchCV(BagOfWords(words=10, features=SMALL), {"C": [1.0]}, cv=2).fit(pictures, labels)
    x = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    found, expected = (KernelDecomposition()(model, x) for model in (search, search.best_estimator_))
    assert torch.equal(found.values, expected.values)


def test_labels_must_fit():
    pictures, _ = data()
    with pytest.raises(InputError, match="one for each of 15 images"):
        BagOfWords(features=SMALL).fit(pictures, [1, 2])
    with pytest.raises(InputError, match="labels contain NaN"):
        BagOfWords(features=SMALL).fit(pictures[:2], [1.0, np.nan])
    with pytest.raises(InputError, match="at least 2 classes"):
        BagOfWords(features=SMALL).fit(pictures, [1] * 15)


def test_settings_of_features_and_method_are_checked():
    for make in (
        lambda: DenseSIFT(patches=()),
        lambda: DenseSIFT(step=0),
        lambda: PatchStatistics(cells=0),
        lambda: KernelDecomposition("lrp"),
        lambda: KernelDecomposition(nodes=0),
        lambda: KernelDecomposition(tolerance=0.0),
    ):
        with pytest.raises(InputError, match="accepted"):
            make()


def test_a_target_that_is_not_linear_is_refused():
    with pytest.raises(InputError, match="not a linear function of the scores"):
        trained().explain(photo("disc", 0), lambda scores: scores.softmax(1)[:, 0])
    with pytest.raises(InputError, match="unknown class 'disk'; nearest: disc"):
        trained().explain(photo("disc", 0), "disk")


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(InputError, match=r"pip install 'apportion\[sift\]'"):
        features_module.DenseSIFT()(photo("disc", 0))


def test_a_model_is_not_changed_by_being_explained():
    bow = trained()
    before = [t.clone() for t in (bow.machine_.points, bow.machine_.coefficients, bow.machine_.bias)]
    picture = photo("disc", 108)
    kept = picture.copy()
    bow.explain(picture)
    with pytest.raises(InputError):
        bow.explain(picture, method=KernelDecomposition("taylor"))
    assert all(map(torch.equal, before, (bow.machine_.points, bow.machine_.coefficients, bow.machine_.bias)))
    assert (picture == kept).all()
    assert replace(KernelDecomposition(), nodes=3).nodes == 3


@pytest.mark.slow
@pytest.mark.skipif("APPORTION_DATA" not in os.environ, reason="APPORTION_DATA names no folder with data")
def test_real_photos(tmp_path):
    import tarfile

    with tarfile.open(Path(os.environ["APPORTION_DATA"]) / "images" / "caltech101_10cls.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    parts = {part: sorted(tmp_path.glob(f"**/{part}/*/*.jpg")) for part in ("train", "test")}
    pictures, fresh = parts["train"][::4], parts["test"][::5]
    bow = BagOfWords(features=DenseSIFT(step=8), samples=20_000).fit(
        pictures, [p.parent.name for p in pictures]
    )
    assert bow.score(fresh, [p.parent.name for p in fresh]) > 0.6
    assert abs(float(bow.explain(fresh[0]).remainder)) < 1e-9
