"""The masking engine, its partitions and its replacements, against what they are by definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import apportion as ap
from apportion.core.features import ImageFeatures, TabularFeatures, TextFeatures
from apportion.engines.masking.binned import Quartiles
from apportion.engines.masking.engine import Masking
from apportion.engines.masking.partitions import (
    Channels,
    Columns,
    Patches,
    Pixels,
    Superpixels,
    Tokens,
    Words,
    from_labels,
)
from apportion.engines.masking.replacements import (
    Background,
    Blur,
    Constant,
    Delete,
    Mean,
    NoisyLinear,
    RegionMean,
    Replacement,
    interpolated,
)
from apportion.errors import InputError
from apportion.learning.networks import AttentionClassifier


class MeanOfEmbeddings(nn.Module):
    def __init__(self, words: int = 20) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(words, 4), nn.Linear(4, 3)
        self.double()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        rows = self.table(input_ids)
        if attention_mask is None:
            return self.head(rows.mean(1))
        weight = attention_mask[..., None].to(rows)
        return self.head((rows * weight).sum(1) / weight.sum(1))


def hide(x: Tensor, keep: Tensor, replacement: Replacement) -> Tensor:
    labels = torch.arange(x[0].numel()).view(1, *x.shape[1:])
    return replacement.hide(x, keep, replacement.prepare(x, labels), torch.zeros(len(x), dtype=torch.long))


def random_masks(many: int, features: int, seed: int = 0) -> Tensor:
    return torch.rand(many, features, generator=torch.Generator().manual_seed(seed)) < 0.5


# ---- the engine ----


@pytest.mark.parametrize("chunk", [1, 3, 7, None])
def test_scores_are_those_of_inputs_masked_one_by_one(chunk: int | None) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 16, 5)).double()
    x = torch.randn(3, 3, 6, 6, dtype=torch.float64)
    masking = Masking(model, x, 2, partition=Patches(3), replacement=Constant(0.5), chunk=chunk)
    masks = random_masks(5, 4)
    for i, sample in enumerate(x):
        for j, mask in enumerate(masks):
            picture = sample.clone()
            for place in range(4):
                if not mask[place]:
                    a, b = divmod(place, 2)
                    picture[:, 3 * a : 3 * a + 3, 3 * b : 3 * b + 3] = 0.5
            torch.testing.assert_close(
                masking.values(masks)[i, j], model(picture[None])[0, 2], rtol=0, atol=1e-12
            )


def test_masks_for_each_sample_and_chosen_rows() -> None:
    x = torch.randn(3, 4, dtype=torch.float64)
    masking = Masking(lambda z: z.cumsum(1), x, target=3)
    masks = torch.rand(3, 6, 4) < 0.5
    expected = (x[:, None] * masks).sum(2)
    torch.testing.assert_close(masking.values(masks), expected)
    rows = torch.tensor([2, 0])
    torch.testing.assert_close(masking.values(masks[rows], rows), expected[rows])


def test_each_input_under_its_own_mask_is_itself_with_any_replacement() -> None:
    """Also with one that draws several rows for each mask: all samples keep what their own mask keeps."""
    x, data = torch.arange(12.0).view(4, 3), -torch.arange(15.0).view(5, 3)
    masks = torch.tensor([[True, False, True], [False, True, True], [True, True, True], [True, False, False]])
    for replacement in (Constant(-1.0), Background(data), Background(data, many=2)):
        found = Masking(lambda t: t.sum(1), x, replacement=replacement).masked(masks)
        assert isinstance(found, Tensor)
        assert torch.equal(found[masks], x[masks])
        assert bool((found[~masks] <= 0).all())


def test_soft_masks_mix() -> None:
    x = torch.tensor([[2.0, 4.0]])
    masking = Masking(lambda z: z.sum(1), x, replacement=Constant(1.0))
    assert masking.values(torch.tensor([[0.5, 1.0]])).item() == pytest.approx(5.5)


def test_several_inputs_share_one_numbering() -> None:
    inputs = (torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0, 8.0, 16.0]]))
    masking = Masking(lambda a, b: a.sum(1) + b.sum(1), inputs)
    assert masking.many == 5
    assert (31 - masking.values(~torch.eye(5, dtype=torch.bool))).tolist() == [[1.0, 2.0, 4.0, 8.0, 16.0]]
    first, second = masking.spread(torch.arange(5.0)[None])
    assert first.tolist() == [[0.0, 1.0]]
    assert second.tolist() == [[2.0, 3.0, 4.0]]


def test_numpy_in_numpy_out() -> None:
    seen = []

    def model(rows: np.ndarray) -> np.ndarray:
        seen.append(type(rows))
        return np.stack([rows.sum(1), -rows.sum(1)], 1)

    masking = Masking(model, np.array([[1.0, 2.0]]), 1)
    assert masking.values(torch.eye(2).bool()).tolist() == [[-1.0, -2.0]]
    assert set(seen) == {np.ndarray}


def test_scikit_learn_probabilities() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    rows = np.random.default_rng(0).normal(size=(50, 3))
    fitted = linear.LogisticRegression().fit(rows, rows[:, 0] > 0)
    masking = Masking(fitted.predict_proba, rows[:2])
    expected = fitted.predict_proba(rows[:1] * [1, 0, 1])[0, int(masking.resolved[0])]
    assert masking.values(torch.tensor([[True, False, True]]))[0, 0].item() == pytest.approx(expected)


def test_model_and_random_state_are_untouched() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(32, 2)
    )
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    with pytest.warns(UserWarning, match="training mode"):
        Masking(model, torch.randn(2, 1, 6, 6), 0, partition=Pixels(), seed=3).values(random_masks(9, 36))
    torch.set_rng_state(state)  # drawing the inputs above moved it
    Masking(model.eval(), torch.ones(2, 1, 6, 6), 0, partition=Pixels(), seed=3).values(random_masks(9, 36))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


def test_a_model_that_counts_its_calls_is_untouched() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x.sum(1)

    model = Counting().eval()
    Masking(model, torch.ones(1, 3), chunk=1).values(random_masks(4, 3))
    assert model.calls.item() == 0


class Writing(nn.Module):
    """Writes into what it is given, and goes on with that."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "inplace=True":
            nn.functional.relu(x, inplace=True)
        elif self.how == "a view":
            x.view(-1).clamp_(min=0)
        else:
            x -= 1
        return x.sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("how", "score"), [("inplace=True", 5.0), ("a view", 5.0), ("an augmented assignment", 1.0)]
)
def test_a_model_that_writes_into_its_input(how: str, score: float) -> None:
    x = torch.tensor([[-1.0, 2.0, 3.0]])
    for _ in range(2):
        masking = Masking(Writing(how), x)
        assert masking.score.item() == score
        assert masking.values(torch.tensor([[True, True, True]])).item() == score
        assert x.tolist() == [[-1.0, 2.0, 3.0]]


def test_a_numpy_model_runs_its_inputs_along_with_the_first_masks() -> None:
    sizes = []

    def model(rows: np.ndarray) -> np.ndarray:
        sizes.append(len(rows))
        return np.where(rows.sum(1) > 90, np.nan, rows.sum(1))

    masking = Masking(model, np.array([[1.0, 2.0], [3.0, 4.0]]), chunk=3)
    assert masking.values(torch.eye(2).bool()).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert masking.score.tolist() == [3.0, 7.0]
    assert sizes == [2 + 3, 1]
    with pytest.raises(InputError, match=r"^the model returned NaN"):
        Masking(model, np.array([[90.0, 2.0]])).values(torch.eye(2).bool())
    with pytest.raises(InputError, match="with features hidden"):
        Masking(model, np.array([[99.0, -20.0]])).values(torch.eye(2).bool())


def test_out_of_memory_halves_the_chunk() -> None:
    sizes = []

    def model(x: Tensor) -> Tensor:
        sizes.append(len(x))
        if len(x) > 3:
            raise torch.OutOfMemoryError("too much")
        return x.sum(1)

    masking = Masking(model, torch.ones(1, 4), chunk=8)
    assert masking.values(torch.ones(8, 4).bool()).tolist() == [[4.0] * 8]
    assert max(sizes) == 8


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 5))
def test_spread_keeps_the_sum(seed: int, channels: int, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, channels, 7, 5, dtype=torch.float64, generator=generator)
    masking = Masking(lambda z: z.sum((1, 2, 3)), x, partition=Patches(size))
    effects = torch.randn(2, masking.many, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(masking.spread(effects).sum((1, 2, 3)), effects.sum(1))  # type: ignore[union-attr]


# ---- text ----


def text() -> TextFeatures:
    return TextFeatures(
        "unhappy end", ("[CLS]", "un", "##happy", "end", "[SEP]"), ((0, 0), (0, 2), (2, 7), (8, 11), (0, 0)),
        (None, 0, 0, 1, None),
    )  # fmt: skip


def test_special_tokens_are_never_hidden() -> None:
    ids = torch.tensor([[1, 7, 8, 9, 2]])
    seen = []

    def model(x: Tensor) -> Tensor:
        seen.append(x.clone())
        return x.double().sum(1)

    masking = Masking(model, ids, features=(text(),), mask=5)
    assert masking.many == 2
    masking.values(torch.zeros(1, 2).bool())
    assert seen[-1].tolist() == [[1, 5, 5, 5, 2]]
    assert Tokens()(ids, (text(),)).tolist() == [[-1, 0, 1, 2, -1]]
    assert Words()(ids, (text(),)).tolist() == [[-1, 0, 0, 1, -1]]


def test_deleted_tokens_leave_the_shorter_text() -> None:
    torch.manual_seed(0)
    model = MeanOfEmbeddings()
    ids = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 10]])
    masks = torch.tensor([[1, 0, 1, 1], [0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]).bool()
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    for inputs in (ids, given):
        scores = Masking(model, inputs, 0, replacement=Delete(empty=2), chunk=3).scores(masks)
        for i in range(2):
            for j, mask in enumerate(masks):
                short = ids[i][mask] if mask.any() else torch.tensor([2])
                torch.testing.assert_close(scores[i, j], model(short[None])[0])


@pytest.mark.parametrize("replacement", [Constant(0), Delete(), Delete(padding=0)])
@pytest.mark.parametrize("method", [ap.LIME, ap.KernelSHAP, ap.Occlusion])
def test_padding_on_either_side_makes_no_difference(method, replacement) -> None:
    """Nor does it stand for a text of which nothing is left: this model divides by what it looks at."""
    torch.manual_seed(0)
    model, ids = MeanOfEmbeddings(), torch.randint(1, 20, (3, 7))
    seen = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1, 1]])
    inputs = {"input_ids": ids * seen, "attention_mask": seen}
    found = method(replacement=replacement)(model, inputs, 1).values["input_ids"]
    for row in range(3):
        own = {key: x[row : row + 1, seen[row].bool()] for key, x in inputs.items()}
        alone = method(replacement=replacement)(model, own, 1).values["input_ids"]
        torch.testing.assert_close(found[row, seen[row].bool()], alone[0])
        assert (found[row, ~seen[row].bool()] == 0).all()


def test_texts_of_like_length_are_padded_together_where_the_model_allows_it() -> None:
    torch.manual_seed(0)
    model, short = AttentionClassifier(20, embedding=4, hidden=3).eval(), MeanOfEmbeddings()
    ids, masks = torch.randint(3, 20, (2, 30)), torch.arange(30) >= torch.arange(31)[:, None]
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    alone = Masking(model, ids, 0, replacement=Delete(empty=2)).scores(masks)
    calls = len(sizes)
    together = Masking(model, ids, 0, replacement=Delete(empty=2, padding=0)).scores(masks)
    torch.testing.assert_close(together, alone)
    assert (calls, len(sizes) - calls) == (1 + 31, 1 + 3)  # the texts themselves, and each length or third
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    padded = Masking(short, given, 0, replacement=Delete(empty=2, padding=1)).scores(masks)
    torch.testing.assert_close(padded, Masking(short, given, 0, replacement=Delete(empty=2)).scores(masks))


# ---- partitions ----


def test_partitions() -> None:
    x = torch.rand(2, 3, 4, 6)
    assert Pixels()(x, None).unique().numel() == 24
    assert Channels()(x, None).flatten().tolist() == [0, 1, 2]
    assert Patches((2, 4))(x, None)[0, 0].tolist() == [[0, 0, 0, 0, 1, 1]] * 2 + [[2, 2, 2, 2, 3, 3]] * 2
    assert Patches(2)(torch.zeros(1, 1, 5), None).tolist() == [[[0, 0, 1, 1, 2]]]
    row = TabularFeatures(("age", "sex"), ("41", "f"), (0, 1, 1))
    assert Columns()(torch.zeros(1, 3), (row,)).tolist() == [[0, 1, 1]]


def test_superpixels_follow_the_picture() -> None:
    pytest.importorskip("skimage")
    picture = torch.zeros(24, 24, 3, dtype=torch.uint8)
    picture[:, 12:] = 255
    labels = Superpixels(8, compactness=1.0)(torch.zeros(1, 3, 24, 24), (ImageFeatures(picture),))[0, 0]
    assert labels.max() >= 1
    assert not set(labels[:, :11].flatten().tolist()) & set(labels[:, 13:].flatten().tolist())
    assert Superpixels(method="felzenszwalb")(torch.rand(1, 3, 24, 24), None).min() == 0


@pytest.mark.parametrize("shape", [(4, 6), (2, 4, 6), (2, 1, 4, 6), (2, 3, 4, 6)])
def test_label_maps(shape: tuple[int, ...]) -> None:
    labels = from_labels(torch.randint(-1, 5, shape) * 7, torch.zeros(2, 3, 4, 6))
    assert labels.expand(2, 3, 4, 6).shape == (2, 3, 4, 6)
    assert labels.max() == len(labels.unique()) - 1 - int(bool((labels < 0).any()))


# ---- replacements ----


def test_constant_mean_region_and_blur() -> None:
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    keep = (torch.rand(2, 1, 8, 8) < 0.5).expand_as(x)
    torch.testing.assert_close(hide(x, keep, Constant(2.0)), torch.where(keep, x, 2.0))
    torch.testing.assert_close(hide(x, keep, Mean()), torch.where(keep, x, x.mean((2, 3), keepdim=True)))
    labels = Patches(4)(x, None)
    blocks = x.unflatten(2, (2, 4)).unflatten(4, (2, 4)).mean((3, 5))
    mean = blocks.repeat_interleave(4, 2).repeat_interleave(4, 3)
    torch.testing.assert_close(RegionMean().prepare(x, labels), mean)
    flat = torch.full_like(x, 3.0)
    torch.testing.assert_close(Blur(2.0).prepare(flat, labels), flat)


def test_blur_is_scipys() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    x = torch.rand(1, 1, 20, 20, dtype=torch.float64)
    expected = ndimage.gaussian_filter(x[0, 0].numpy(), 2.0, mode="nearest", truncate=3.0)
    np.testing.assert_allclose(Blur(2.0).prepare(x, x)[0, 0].numpy(), expected, atol=1e-10)


def test_linear_imputation_solves_its_equations() -> None:
    """Each hidden pixel is the weighted mean of its neighbours: the system of ROAD, written out densely."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 2, 7, 6, dtype=torch.float64, generator=generator)
    keep = torch.rand(2, 1, 7, 6, generator=generator) < 0.3
    found = hide(x, keep, NoisyLinear(noise=0.0, accuracy=1e-12))
    for b in range(2):
        hidden = [(i, j) for i in range(7) for j in range(6) if not keep[b, 0, i, j]]
        place = {at: n for n, at in enumerate(hidden)}
        for c in range(2):
            matrix, right = torch.zeros(len(hidden), len(hidden)).double(), torch.zeros(len(hidden)).double()
            for (i, j), row in place.items():
                for di in (-1, 0, 1):
                    for dj in (-1, 0, 1):
                        at = (i + di, j + dj)
                        if (di, dj) == (0, 0) or not (0 <= at[0] < 7 and 0 <= at[1] < 6):
                            continue
                        weight = 1 / 6 if 0 in (di, dj) else 1 / 12
                        matrix[row, row] += weight
                        if at in place:
                            matrix[row, place[at]] -= weight
                        else:
                            right[row] += weight * x[b, c, at[0], at[1]]
            solved = torch.linalg.solve(matrix, right)
            torch.testing.assert_close(found[b, c][~keep[b, 0]], solved, rtol=0, atol=1e-9)
    assert torch.equal(interpolated(x, torch.zeros_like(x).bool()), torch.zeros_like(x))


def test_background_rows_are_averaged() -> None:
    data = torch.tensor([[1.0, 10.0], [3.0, 30.0]])
    masking = Masking(lambda z: z[:, 0] * z[:, 1], torch.tensor([[5.0, 7.0]]), replacement=Background(data))
    masks = torch.tensor([[True, False], [False, True], [False, False]])
    assert masking.values(masks).tolist() == [[5 * 20.0, 2 * 7.0, (10 + 90) / 2]]
    one = Masking(lambda z: z[:, 0], torch.tensor([[5.0, 7.0]]), replacement=Background(data, many=1), seed=1)
    drawn = one.values(torch.zeros(200, 2).bool())
    assert set(drawn.flatten().tolist()) == {1.0, 3.0}


def test_quartiles_keep_the_bin_or_leave_it() -> None:
    data = torch.stack([torch.arange(8.0), torch.ones(8)], 1)
    x = torch.tensor([[0.5, 1.0]]).expand(100, 2)
    draw = torch.randint(8, (100,))
    quartiles = Quartiles(data)
    prepared = quartiles.prepare(x, torch.tensor([[0, 1]]))
    kept = quartiles.hide(x, torch.ones(100, 2).bool(), prepared, draw)
    gone = quartiles.hide(x, torch.zeros(100, 2).bool(), prepared, draw)
    assert kept[:, 0].max() <= 1.75
    assert gone[:, 0].min() > 1.75
    assert (gone[:, 1] == 1).all()


def test_quartiles_of_a_one_hot_block_are_categories() -> None:
    """As often as in the data: of the other categories the second has 3 rows of 4."""
    rows = torch.tensor([0] * 6 + [1] * 3 + [2])
    data = torch.cat([torch.arange(10.0)[:, None], F.one_hot(rows).float()], 1)
    x, groups = torch.tensor([[1.0, 1.0, 0.0, 0.0]]), torch.tensor([0, 1, 1, 1])
    seen = []

    def model(z: Tensor) -> Tensor:
        seen.append(z)
        return z.sum(1)

    masking = Masking(model, x, partition=groups[None], replacement=Quartiles(data, many=400))
    for mask, shares in ((True, [1.0, 0, 0]), (False, [0, 0.75, 0.25])):
        seen.clear()
        masking.values(torch.tensor([[True, mask]]))
        drawn = torch.cat(seen)
        assert drawn[:, 0].max() <= 2.25  # its bin
        assert (drawn[:, 1:].sum(1) == 1).all()
        assert (drawn[:, 1:].mean(0) - torch.tensor(shares)).abs().max() < 0.2
    with pytest.raises(InputError, match="same groups of columns in all samples"):
        Masking(
            model,
            x.repeat(2, 1),
            partition=torch.tensor([[0, 1, 1, 1], [0, 0, 1, 1]]),
            replacement=Quartiles(data),
        )


# ---- what is refused ----


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"partition": torch.zeros(5, 5, dtype=torch.long)}, r"label map has shape \(5, 5\)"),
        ({"partition": torch.zeros(4, 4)}, "accepted: integers"),
        ({"partition": -torch.ones(4, 4, dtype=torch.long)}, "no feature that may be hidden"),
        ({"partition": Words()}, "Words need|two dimensions"),
        ({"partition": Patches((1, 2, 3))}, "size is"),
        ({"replacement": Delete()}, "Delete needs token ids"),
        ({"replacement": Background(torch.zeros(2, 3, 5, 5))}, "the background has shape"),
        ({"target": 7}, "class 7"),
        ({"chunk": 0}, "chunk is 0"),
        ({"chunk": 1.5}, "chunk is 1.5"),
        ({"seed": "a"}, "seed is 'a'"),
        ({"partition": "slic"}, "partition is 'slic'; accepted: a partition such as"),
        ({"partition": Patches}, "partition is <class"),
        ({"replacement": 0.5}, "replacement is 0.5; accepted: a replacement such as"),
        ({"replacement": Blur}, "replacement is <class"),
        ({"features": ()}, "0 features for 1 samples"),
        ({"features": TextFeatures("", (), (), ())}, "TextFeatures features for 1 samples"),
        ({"mask": "[MASK]"}, r"mask is '\[MASK\]'"),
        ({"inputs": torch.zeros(1, 3, 4, 4, dtype=torch.uint8)}, "inputs of type torch.uint8 have shape"),
        (
            {"inputs": torch.zeros(3), "replacement": Mean()},
            "replacement is Mean, of several numbers a sample",
        ),
    ],
)
def test_bad_input(kwargs: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Masking(lambda z: z.flatten(1)[:, :2], **{"inputs": torch.zeros(1, 3, 4, 4), **kwargs})


def test_an_estimator_is_no_function() -> None:
    from sklearn.linear_model import LogisticRegression

    with pytest.raises(InputError, match=r"model is LogisticRegression.*such as its predict_proba"):
        Masking(LogisticRegression(), np.ones((1, 2)))


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (lambda rows: rows.sum(1), np.array([["a", "b"]]), "inputs has type <U1"),
        (lambda rows: rows.sum(1), np.array([[1.0, None]], dtype=object), "inputs has type object"),
        (lambda rows: np.array(["cat"] * len(rows)), np.ones((1, 2)), "the model returned has type <U3"),
        (lambda rows: [[1.0], [1.0, 2.0]], np.ones((1, 2)), "the model returned has type list"),
        (lambda rows: rows.sum(1)[1:], np.ones((1, 2)), "scores of shape"),
        (lambda rows: None, np.ones((1, 2)), "the model returned NoneType"),
    ],
)
def test_bad_arrays(model, inputs: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _ = Masking(model, inputs).score


def test_arrays_of_any_layout_and_models_of_torch() -> None:
    rows = np.arange(6.0).reshape(2, 3)
    rows.setflags(write=False)
    for array in (rows[:, ::-1], np.asfortranarray(rows), rows.astype(np.float32)):
        assert Masking(lambda r: r.sum(1).tolist(), array).score.tolist() == [3.0, 12.0]
    assert Masking(nn.Linear(3, 2).double(), rows).output.shape == (2, 2)


def test_bad_scores_and_masks() -> None:
    x = torch.ones(1, 3)
    with pytest.raises(InputError, match="NaN or infinite"):
        Masking(lambda z: z.sum(1) * torch.nan, x)
    with pytest.raises(InputError, match="with features hidden"):
        Masking(lambda z: 1 / z.sum(1), x).values(torch.zeros(1, 3).bool())
    with pytest.raises(InputError, match="masks have shape"):
        Masking(lambda z: z.sum(1), x).values(torch.zeros(1, 4).bool())
    with pytest.raises(InputError, match="soft masks"):
        Masking(lambda z: z.double().sum(1), torch.ones(1, 3, dtype=torch.long)).values(torch.zeros(1, 3))
    with pytest.raises(InputError, match="an empty text"):
        Masking(lambda z: z.double().sum(1), torch.ones(1, 0, dtype=torch.long))
    special = TextFeatures("", ("[CLS]",), ((0, 0),), (None,))
    with pytest.raises(InputError, match="special tokens only"):
        Masking(lambda z: z.double().sum(1), torch.ones(1, 1, dtype=torch.long), features=(special,))
    for bad in (
        lambda: Blur(0.0),
        lambda: Quartiles(torch.ones(3, 2), bins=1),
        lambda: Background(torch.ones(0, 2)),
    ):
        with pytest.raises(InputError):
            bad()


def test_a_label_map_that_may_be_of_samples_or_of_channels():
    x, labels = torch.zeros(3, 3, 2, 2), torch.arange(12).reshape(3, 2, 2)
    with pytest.raises(InputError, match="one map per sample or one per channel"):
        from_labels(labels, x)
    assert from_labels(labels[:, None], x).shape == (3, 1, 2, 2)
    assert from_labels(labels[None], x).shape == (1, 3, 2, 2)


# ---- padded texts ----


class Averages(nn.Module):
    """The mean of the embeddings of a text: of those that the mask leaves, or of all where it ignores the mask."""

    def __init__(self, ignore: bool, width: int | None = None) -> None:
        super().__init__()
        self.embedding, self.ignore, self.width = nn.Embedding(20, 3).double(), ignore, width
        self.seen: list[tuple[int, ...]] = []

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        self.seen.append(tuple(input_ids.shape))
        if self.width not in (None, input_ids.shape[1]):
            raise ValueError("texts of one length, please")
        here = torch.ones_like(attention_mask) if self.ignore else attention_mask
        return (self.embedding(input_ids) * here[..., None]).sum(1) / here.sum(1, keepdim=True)


@pytest.mark.parametrize("kind", ["heeds", "ignores", "fixed"])
def test_padding_is_left_out_only_where_the_model_says_the_same(kind: str) -> None:
    torch.manual_seed(0)
    model = Averages(kind == "ignores", 8 if kind == "fixed" else None).eval()
    mask = (torch.arange(8) < torch.tensor([[8], [3], [5]])).long()
    inputs = {"input_ids": torch.randint(1, 20, (3, 8)) * mask, "attention_mask": mask}
    masking = Masking(model, inputs, 0, chunk=2)
    assert masking.counts.tolist() == [8, 3, 5]
    shown = torch.eye(8, dtype=torch.bool)[:4]
    found = masking.values(shown)
    for i, row in enumerate(inputs["input_ids"]):
        keep = shown & (mask[i] > 0)
        given = {"input_ids": row * keep, "attention_mask": mask[i].expand(4, -1)}
        torch.testing.assert_close(found[i], model(**given)[:, 0].detach())
    widths = {shape[1] for shape in model.seen[2:]}
    assert widths == ({8, 5, 3} if kind == "heeds" else {8})


def test_pictures_with_their_channels_last() -> None:
    pictures = np.random.default_rng(0).random((2, 40, 30, 3))
    with pytest.warns(UserWarning, match=r"\(2, 40, 30, 3\) are read as \(batch, channels, height, width\)"):
        found = ap.LIME(samples=20)(lambda x: x.mean((1, 2, 3)), pictures)
    assert "if the channels are last" in found.warnings[0]
    first = pictures.transpose(0, 3, 1, 2)
    assert not ap.LIME(samples=600)(lambda x: x.mean((1, 2, 3)), first).warnings


def test_pictures_without_channels() -> None:
    with pytest.warns(UserWarning, match=r"\(1, 28, 28\) are read as \(batch, channels, length\)"):
        ap.Occlusion()(lambda x: x.mean((1, 2)), torch.rand(1, 28, 28))
    labels = torch.arange(784).view(28, 28) // 49
    assert not ap.Occlusion(partition=labels)(lambda x: x.mean((1, 2)), torch.rand(1, 28, 28)).warnings


def test_embeddings_of_tokens_are_tokens() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    model = transformers.BertForSequenceClassification(config).double().eval()
    words = torch.randn(2, 5, 8, dtype=torch.float64)
    seen = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    inputs = {"inputs_embeds": words, "attention_mask": seen}
    assert Masking(model, inputs).counts.tolist() == [5, 3]
    found = ap.Occlusion()(model, inputs, 1).values["inputs_embeds"].sum(2)
    for token in range(3):
        less = words.clone()
        less[:, token] = 0
        fall = model(**inputs).logits - model(inputs_embeds=less, attention_mask=seen).logits
        torch.testing.assert_close(found[:, token], fall[:, 1].detach())
    assert (found[1, 3:] == 0).all()


def test_whole_numbers_in_an_array_are_columns() -> None:
    rows = np.random.default_rng(0).integers(0, 9, (60, 3))
    model = lambda x: x @ np.array([1.0, 2.0, 3.0]) + x[:, 0] * x[:, 1]  # noqa: E731
    for replacement in (None, Background(torch.from_numpy(rows)), Quartiles(torch.from_numpy(rows))):
        whole, real = (ap.LIME(replacement=replacement)(model, x) for x in (rows[:2], rows[:2].astype(float)))
        torch.testing.assert_close(whole.values, real.values, rtol=1e-6, atol=1e-6)


def test_a_sample_with_several_inputs_does_not_depend_on_the_others() -> None:
    torch.manual_seed(0)
    table = torch.randn(10, 3, dtype=torch.float64)

    def model(ids: Tensor, attention_mask: Tensor, row: Tensor) -> Tensor:
        return (table[ids] * attention_mask[..., None]).sum((1, 2)) * (1 + row.sum(1))

    inputs = {
        "ids": torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
        "row": torch.randn(2, 3, dtype=torch.float64),
    }
    assert Masking(model, inputs).counts.tolist() == [8, 6]
    both = ap.LIME()(model, inputs)
    one = ap.LIME()(model, {key: x[1:] for key, x in inputs.items()})
    for key in ("ids", "row"):
        torch.testing.assert_close(both.values[key][1:], one.values[key])


def test_a_score_of_the_outputs_is_taken_before_the_mean_over_the_background() -> None:
    x, data = torch.tensor([[5.0]]), torch.tensor([[1.0], [3.0]])
    masking = Masking(lambda z: z, x, lambda scores: scores[:, 0] ** 2, replacement=Background(data), chunk=1)
    assert masking.values(torch.tensor([[True], [False]])).tolist() == [[25.0, (1 + 9) / 2]]
    above = Masking(lambda z: z, x, lambda scores: scores[:, 0] > 2, replacement=Background(data))
    assert above.values(torch.tensor([[False]])).tolist() == [[0.5]]


@pytest.mark.parametrize("side", [40, 224])
def test_superpixels_of_noise(side: int) -> None:
    noise = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    assert 12 < int(Superpixels()(noise).max()) < 60


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_replacements_in_half_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, keep = torch.rand(1, 3, 24, 24), torch.rand(1, 1, 24, 24) > 0.5
    labels = torch.zeros(1, 1, 24, 24, dtype=torch.long)
    exact = interpolated(x.to(dtype).float(), keep.expand(x.shape))
    assert torch.equal(interpolated(x.to(dtype), keep.expand(x.shape)), exact.to(dtype))
    mean = RegionMean().prepare(x.to(dtype), labels)
    assert torch.equal(mean, RegionMean().prepare(x.to(dtype).float(), labels).to(dtype))
    row = torch.rand(4, 5).to(dtype)
    found = hide(row, torch.zeros(4, 5).bool(), Quartiles(torch.rand(600, 5)))
    assert found.dtype == dtype


LINEAR = np.array([2.0, 3.0, 4.0])


@pytest.mark.parametrize(
    ("row", "data"),
    [
        (np.array([[3, 5, 10]]), np.array([[0.5, 0.9, 0.7]])),
        (np.array([[3, 5, 10]], np.uint8), np.array([[300.0, -1.0, 2.0]])),
        (np.array([[3, 5, 10]], np.int8), np.array([[300, -1, 2]])),
        (np.array([[3, 5, 10]], np.float32), np.array([[20110101.0, 0.1, 7e9]])),
        (np.array([[3, 5, 10]], np.float16), np.array([[3000.7, 0.0, 1e6]])),
    ],
)
def test_numbers_of_a_background_are_not_cut_to_the_format_of_the_rows(row, data):
    e = ap.KernelSHAP(replacement=ap.Background(data))(lambda a: a.astype(float) @ LINEAR, row)
    right = (row.astype(float) - data) * LINEAR
    assert np.allclose(e.values.numpy(), right, rtol=1e-9, atol=1e-5)


@pytest.mark.parametrize("method", [ap.KernelSHAP, ap.Occlusion])
def test_a_constant_is_not_cut_to_the_format_of_the_rows(method):
    e = method(replacement=ap.Constant(0.5))(lambda a: a.astype(float) @ LINEAR, np.array([[3, 5, 10]]))
    assert np.allclose(e.values.numpy(), [[5.0, 13.5, 38.0]])


def test_numbers_that_do_not_fit_are_refused_or_told():
    ids = torch.tensor([[1, 2]])
    with pytest.raises(InputError, match=r"Constant has numbers .*int64"):
        ap.Occlusion(replacement=ap.Constant(0.5))(lambda x: x.sum(1).float(), ids)
    with pytest.raises(InputError, match="float16"):
        ap.Occlusion(replacement=ap.Constant(1e6))(lambda x: x.sum(1), ids.half())
    data = torch.tensor([[20240121.0, 0.1]], dtype=torch.float64)
    with pytest.warns(UserWarning, match="rounded"):
        ap.Occlusion(replacement=ap.Background(data))(lambda x: x.sum(1), ids.float())


def test_an_error_of_a_function_of_arrays_says_what_it_was_called_with():
    def picky(rows):
        raise ValueError("expected 2 dimensions")

    with pytest.raises(ValueError, match="expected 2") as told:
        ap.Occlusion()(picky, np.ones(3))
    assert "array of shape (" in told.value.__notes__[0]
    assert "x[None]" in told.value.__notes__[0]


def test_a_group_of_columns_is_one_bar_with_its_name():
    row = TabularFeatures(("age", "city", "hours"), ("41", "Rome", "5"), (0, 1, 1, 2))
    weights = torch.tensor([3.0, 0.0, 0.0, 5.0])
    x = torch.ones(1, 4)
    together = ap.KernelSHAP(partition=[0, 0, 0, 1])
    found = together(lambda x: x @ weights, x, features=(row,))
    assert [(n, round(v, 4)) for n, v in found.top()] == [("hours = 5", 5.0), ("age + city = 41 + Rome", 3.0)]
    alone = ap.KernelSHAP()(lambda x: x @ weights, x, features=(row,))
    assert alone.features == (row,)
    plain = ap.KernelSHAP(partition=[[0, 1, 2], [3]])(lambda x: x @ np.array([1, 1, 1, 2.0]), np.ones((1, 4)))
    assert [(n, round(v, 4)) for n, v in plain.top()] == [
        ("input[0] + input[1] + input[2] = 1 + 1 + 1", 3.0),
        ("input[3] = 1", 2.0),
    ]


def test_tokens_of_a_word_that_were_hidden_one_by_one_are_shown_one_by_one():
    text = TextFeatures("so-so", ("so", "-", "so"), ((0, 2), (2, 3), (3, 5)), (0, 0, 0))
    effect = torch.tensor([0.0, 1.0, 2.0, 4.0])

    def model(ids):
        return effect[ids].sum(1)

    found = ap.Occlusion(partition=Tokens())(model, torch.tensor([[1, 2, 3]]), features=(text,))
    assert found.relevance()[0] == ("so", "-", "so")
    assert found.relevance()[1].tolist() == [1, 2, 4]
    assert ap.Occlusion()(model, torch.tensor([[1, 2, 3]]), features=(text,)).relevance()[0] == ("so-so",)


@pytest.mark.parametrize(
    ("partition", "words"),
    [
        ([["age", "sex"], ["city"]], "lists of the numbers"),
        ([[0, 1], [3]], "each column"),
        ([[0, 0], [1]], "once"),
    ],
)
def test_groups_that_are_none_are_told(partition, words):
    with pytest.raises(InputError, match=words):
        ap.LIME(partition=partition)


def test_a_table_of_yes_and_no_is_explained_as_numbers() -> None:
    table = np.array([[True, False, True], [False, True, True]])
    weight = np.array([1.0, 2.0, 4.0])
    found = ap.KernelSHAP()(lambda x: x @ weight, table, 0)
    np.testing.assert_allclose(found.values.numpy(), table * weight, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "words"),
    [((48, 64, 3), "channels last"), ((5, 28, 24), "without channels"), ((3, 48, 64), "one picture is")],
)  # fmt: skip
def test_pictures_without_a_batch_or_channels_are_told(shape, words):
    with pytest.warns(UserWarning, match=words):
        ap.Occlusion()(lambda x: x.reshape(len(x), -1)[:, :2], torch.rand(shape))
