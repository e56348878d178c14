"""Each test of explanations beside its definition, written out slowly for one sample at a time."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import apportion as ap
import small
from apportion.core.features import TextFeatures
from apportion.engines.masking.engine import Masking
from apportion.engines.masking.partitions import Pixels
from apportion.engines.masking.replacements import Blur, Delete, Mean
from apportion.errors import InputError
from apportion.evaluation._curve_limits import aopc_limits
from apportion.evaluation.case import Case
from apportion.evaluation.curves import (
    Order,
    counts_at_shares,
    even_steps,
    open_places,
    rank_features,
)
from apportion.evaluation.measures.randomisation import randomised_copies, similarity_in_rows
from apportion.evaluation.reference_maps import Reversed

settings.register_profile("slow machines", deadline=None, max_examples=50)
settings.load_profile("slow machines")

values_of_maps = st.lists(st.integers(-5, 5), min_size=2, max_size=8)


@pytest.fixture
def table() -> Any:
    """A model of six columns, three samples, a map of the predicted class and that class."""
    model, x = small.mlp()
    explanation = ap.Saliency()(model, x)
    return model, x, explanation, explanation.target


def probability(model: Any, x: Tensor, target: int) -> float:
    with torch.no_grad():
        return float(model(x[None]).softmax(1)[0, target])


def best_first(values: Tensor) -> list[int]:
    return values.argsort(descending=True).tolist()


def hidden(x: Tensor, which: list[int]) -> Tensor:
    y = x.clone()
    y[which] = 0
    return y


def curve(model: Any, x: Tensor, values: Tensor, target: int) -> list[float]:
    """The probability with 0, 1, … all of the most relevant columns at zero."""
    order = best_first(values)
    return [probability(model, hidden(x, order[:k]), target) for k in range(len(order) + 1)]


def each(table: Any) -> Any:
    model, x, explanation, target = table
    return [(model, x[i], explanation.values[i], int(target[i])) for i in range(len(x))]


# ---- curves ----


def test_pixel_flipping(table: Any) -> None:
    model, x, explanation, _ = table
    morf = [np.mean([c[0] - v for v in c]) for c in (curve(*one) for one in each(table))]
    lerf = [np.mean([c[0] - v for v in c]) for c in (curve(m, a, -v, t) for m, a, v, t in each(table))]
    assert ap.PixelFlipping()(model, x, explanation).values.tolist() == pytest.approx(morf)
    assert ap.PixelFlipping(order="lerf")(model, x, explanation).values.tolist() == pytest.approx(lerf)
    found = ap.PixelFlipping(order="symmetric")(model, x, explanation)
    assert found.values.tolist() == pytest.approx([a - b for a, b in zip(morf, lerf, strict=True)])
    means = np.mean([curve(*one) for one in each(table)], axis=0)
    assert found.notes["curves"]["morf"]["value"] == pytest.approx(means.tolist())
    few = [np.mean([c[0] - c[k] for k in (0, 2, 4, 6)]) for c in (curve(*one) for one in each(table))]
    assert ap.PixelFlipping(steps=3)(model, x, explanation).values.tolist() == pytest.approx(few)


def test_deletion_and_insertion(table: Any) -> None:
    model, x, explanation, _ = table
    deletion = [np.trapezoid(curve(*one), dx=1 / 6) for one in each(table)]
    insertion = [
        np.trapezoid([probability(m, hidden(a, best_first(v)[k:]), t) for k in range(7)], dx=1 / 6)
        for m, a, v, t in each(table)
    ]
    assert ap.Deletion()(model, x, explanation).values.tolist() == pytest.approx(deletion)
    assert ap.Insertion()(model, x, explanation).values.tolist() == pytest.approx(insertion)


def test_comprehensiveness_and_sufficiency(table: Any) -> None:
    model, x, explanation, _ = table
    shares = (0.01, 0.05, 0.1, 0.2, 0.5)
    many = [max(1, math.ceil(6 * s)) for s in shares]
    comprehensiveness, sufficiency = [], []
    for m, a, v, t in each(table):
        order, whole = best_first(v), probability(m, a, t)
        comprehensiveness.append(np.mean([whole - probability(m, hidden(a, order[:k]), t) for k in many]))
        sufficiency.append(np.mean([whole - probability(m, hidden(a, order[k:]), t) for k in many]))
    assert ap.Comprehensiveness()(model, x, explanation).values.tolist() == pytest.approx(comprehensiveness)
    assert ap.Sufficiency()(model, x, explanation).values.tolist() == pytest.approx(sufficiency)


def deletion_rate(model: Any, x: Tensor, values: Tensor) -> float:
    order = best_first(values)
    with torch.no_grad():
        label = int(model(x[None]).argmax())
        for k in range(1, len(order) + 1):
            if int(model(hidden(x, order[:k])[None]).argmax()) != label:
                return k / len(order)
    return 1.0


@pytest.mark.parametrize("block", [1, 2, 100])
def test_deletion_rate(block: int) -> None:
    model = small.perceptron(12).double().eval()
    x = torch.randn(20, 12, dtype=torch.float64, generator=small.seeded(1))
    explanation = ap.InputXGradient()(model, x)
    expected = [deletion_rate(model, a, v) for a, v in zip(x, explanation.values, strict=True)]
    found = ap.DeletionRate(block=block)(model, x, explanation)
    assert found.values.tolist() == pytest.approx(expected)
    assert len(set(expected)) > 3
    if block == 1:  # samples that have changed their label are not run further
        assert found.cost.forwards < 1 + 12 * max(expected)


def test_deletion_rate_is_defined_for_the_predicted_class_only() -> None:
    model, x = small.mlp()
    other = (model(x).argmax(1) + 1) % 3
    found = ap.DeletionRate()(model, x, ap.InputXGradient()(model, x, target=other))
    assert found.n == 0
    assert "not the predicted one" in found.undefined


def test_padding_and_special_tokens_are_not_counted() -> None:
    from apportion.core.features import TextFeatures

    embedding = nn.Embedding.from_pretrained(torch.tensor([[0.0], [1.0], [2.0], [-1.0], [50.0]]))

    def model(ids: Tensor) -> Tensor:
        total = embedding(ids).sum(1)
        return torch.cat([total, -total], 1) - torch.tensor([50.5, -50.5])

    ids = torch.tensor([[4, 1, 2, 3, 0]])  # a start token worth 50, three words, padding
    words = TextFeatures("a b c", ("",) * 5, ((0, 0),) * 5, (None, 0, 1, 2, None))
    values = torch.tensor([[99.0, 1.0, 2.0, -1.0, 77.0]])
    # 52 − 50.5 > 0; without "b" it is 50 − 50.5 < 0: one word of three.
    assert ap.DeletionRate()(model, ids, values, features=(words,)).mean == pytest.approx(1 / 3)


def test_one_score_is_a_binary_model() -> None:
    weights = torch.tensor([[3.0], [2.0], [1.0], [-1.0]])
    x = torch.ones(1, 4)
    order = Order(Masking(lambda rows: rows @ weights - 2.5, x), (x * weights.T))
    found = order.curve(even_steps(torch.tensor([4]), None))
    assert found.score.tolist() == [[2.5, -0.5, -2.5, -3.5, -2.5]]
    assert found.label.tolist() == [[1, 0, 0, 0, 0]]
    assert found.probability[0, 0] == pytest.approx(1 / (1 + math.exp(-2.5)))
    assert ap.DeletionRate()(lambda rows: rows @ weights - 2.5, x, x * weights.T).mean == 0.25


def test_a_callable_target_has_no_probability(table: Any) -> None:
    model, x, _, _ = table
    contrast = ap.Contrast(0, 1)
    explanation = ap.Saliency()(model, x, target=contrast)
    with pytest.raises(InputError, match="give the same target to the test"):
        ap.PixelFlipping()(model, x, explanation)
    with pytest.raises(InputError, match="use of='score'"):
        ap.PixelFlipping()(model, x, explanation, contrast)
    found = ap.PixelFlipping(of="score")(model, x, explanation, contrast).values[0]
    order = best_first(explanation.values[0])
    with torch.no_grad():
        scores = [contrast(model(hidden(x[0], order[:k])[None])).item() for k in range(7)]
    assert float(found) == pytest.approx(np.mean([scores[0] - s for s in scores]))


@given(values_of_maps)
def test_ranks_are_a_permutation_best_first(values: list[int]) -> None:
    map_ = torch.tensor([values], dtype=torch.float64)
    chance = torch.from_numpy(np.random.default_rng(0).random(len(values) + 3))[None]
    rank = rank_features(map_, torch.tensor([len(values)]), chance[:, : len(values)])
    assert sorted(rank[0].tolist()) == list(range(len(values)))
    ordered = map_[0][rank[0].argsort()]
    assert bool((ordered[:-1] >= ordered[1:]).all())
    # Features that come after do not change the order of these.
    longer = torch.cat([map_, torch.full((1, 3), 9.0, dtype=torch.float64)], 1)
    assert torch.equal(rank_features(longer, torch.tensor([len(values)]), chance)[:, : len(values)], rank)
    open_ = open_places(map_, torch.tensor([len(values)]))[0].tolist()
    best = sorted(values, reverse=True)
    assert open_ == [0 < k < len(best) and best[k - 1] == best[k] for k in range(len(best) + 1)]


@given(values_of_maps, st.floats(0.5, 100))
def test_scores_depend_on_the_order_only(values: list[int], factor: float) -> None:
    model = small.perceptron(len(values)).eval()
    x, map_ = torch.ones(1, len(values)), torch.tensor([values], dtype=torch.float32)
    for test in (ap.PixelFlipping(), ap.Deletion(), ap.DeletionRate(), ap.Comprehensiveness()):
        assert torch.equal(test(model, x, map_).values, test(model, x, map_ * factor).values)


@given(st.integers(1, 50), st.integers(1, 60))
def test_steps(count: int, steps: int) -> None:
    (found,) = even_steps(torch.tensor([count]), steps).tolist()
    assert found[0] == 0
    assert found[-1] == count
    assert len(set(found)) == len(found) == min(count, steps) + 1
    assert counts_at_shares(torch.tensor([count]), [0.3]).item() == math.ceil(count * 3 / 10)


def test_several_tests_share_one_pass(table: Any) -> None:
    model, x, explanation, _ = table
    calls = []
    counted = Case(lambda rows: (calls.append(len(rows)), model(rows))[1], x)
    counted.target = explanation.target
    counted.score(ap.PixelFlipping(steps=None), explanation)
    before = sum(calls)
    for test in (ap.Deletion(steps=None), ap.Comprehensiveness(), ap.DeletionRate()):
        counted.score(test, explanation)
    assert sum(calls) == before
    counted.score(ap.Insertion(steps=None), explanation)
    assert sum(calls) == before + 3 * 5  # what is hidden first is another set, none and all hidden are known


def test_several_tests_run_together(table: Any) -> None:
    model, x, explanation, target = table
    tests = {"c": ap.Comprehensiveness(), "s": ap.Sufficiency(), "p": ap.PixelFlipping(order="symmetric")}
    calls: list[int] = []
    case = Case(lambda rows: (calls.append(len(rows)), model(rows))[1], x, target)
    found = case.scores(tests, explanation)
    assert calls == [3, 3 * (6 + 5)]  # one pass, in which none and all hidden are there once
    for name, test in tests.items():
        torch.testing.assert_close(found[name].values, test(model, x, explanation).values)
    assert [scores.cost.forwards for scores in found.values()] == [12, 0, 0]


def test_normalised_aopc(table: Any) -> None:
    model, x, explanation, target = table
    x, values = x[:1, :5], explanation.values[:1, :5]
    model = small.perceptron(5).double().eval()
    falls = []
    for order in itertools.permutations(range(5)):
        c = [probability(model, hidden(x[0], list(order[:k])), int(target[0])) for k in range(6)]
        falls.append(np.mean([c[0] - v for v in c]))
    masking = Masking(model, x, target[:1])
    least, most = aopc_limits(masking, "probability", even_steps(masking.counts, None), beam=10)
    assert (float(least), float(most)) == (pytest.approx(min(falls)), pytest.approx(max(falls)))
    plain = ap.PixelFlipping()(model, x, values, target[:1]).mean
    found = ap.PixelFlipping(normalised=True, beam=10)(model, x, values, target[:1]).mean
    assert found == pytest.approx((plain - min(falls)) / (max(falls) - min(falls)))
    with pytest.raises(InputError, match="coarser partition"):
        ap.PixelFlipping(normalised=True)(nn.Linear(200, 2), torch.randn(1, 200), torch.randn(1, 200))


@pytest.mark.parametrize("replacement", [Mean(), Blur(2.0)])
def test_other_replacements(replacement: Any) -> None:
    model, x = small.cnn()
    explanation = ap.InputXGradient()(model, x)
    test = ap.Comprehensiveness(shares=(0.5,), partition=Pixels(), replacement=replacement)
    values, target = explanation.values.sum(1), explanation.target
    prepared = replacement.prepare(x, torch.zeros(1))
    for i, score in enumerate(test(model, x, explanation).values):
        keep = values[i] < values[i].flatten().topk(32).values[-1]
        masked = torch.where(keep, x[i], prepared[i])
        expected = probability(model, x[i], int(target[i])) - probability(model, masked, int(target[i]))
        assert float(score) == pytest.approx(expected)


def test_deleted_tokens() -> None:
    model, ids = small.lstm()
    explanation = ap.InputXGradient()(model, ids)
    test = ap.Comprehensiveness(shares=(0.4,), replacement=Delete())
    with torch.no_grad():
        for i, score in enumerate(test(model, ids, explanation).values):
            kept = explanation.values[i].argsort(descending=True)[2:].sort().values
            t = int(explanation.target[i])
            expected = model(ids[i : i + 1]).softmax(1)[0, t] - model(ids[i, kept][None]).softmax(1)[0, t]
            assert float(score) == pytest.approx(float(expected))


@pytest.mark.parametrize("replacement", [None, Delete(), Delete(padding=0)], ids=str)
def test_padding_changes_no_score(replacement: Any) -> None:
    model = small.bert()[0]
    long, short = torch.randint(3, 30, (2, 9), generator=small.seeded(1))
    padded = torch.stack([long, short.masked_fill(torch.arange(9) >= 4, 0)])
    both = {"input_ids": padded, "attention_mask": (padded > 0).long()}
    alone = {"input_ids": short[None, :4], "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    of_both, of_one = (ap.InputXGradient()(model, x) for x in (both, alone))
    for kind in (ap.PixelFlipping, ap.DeletionRate, ap.Comprehensiveness, ap.Sufficiency, ap.Infidelity):
        test = kind(replacement=replacement)
        expected = test(model, alone, of_one).values[0]
        torch.testing.assert_close(test(model, both, of_both).values[1], expected, rtol=1e-6, atol=1e-7)


# ---- values ----


def test_infidelity_of_hidden_features(table: Any) -> None:
    from apportion.evaluation.measures.fidelity import random_subsets

    model, x, explanation, target = table
    sets = random_subsets(torch.full((3,), 6), 6, 50, seed=3)
    assert bool((sets.sum(2) >= 1).all() & (sets.sum(2) <= 5).all())
    test = ap.Infidelity(samples=50, seed=3, scaled=False)
    with torch.no_grad():
        for i, score in enumerate(test(model, x, explanation).values):
            t, squares = int(target[i]), []
            for inside in sets[i]:
                said = float(explanation.values[i][inside].sum())
                done = float(model(x[i : i + 1])[0, t] - model((x[i] * ~inside)[None])[0, t])
                squares.append((said - done) ** 2)
            assert float(score) == pytest.approx(np.mean(squares))


def test_infidelity_is_scaled_by_what_suits_best(table: Any) -> None:
    model, x, explanation, target = table
    found = ap.Infidelity()(model, x, explanation).values
    same = ap.Infidelity()(
        model, x, ap.Explanation(**{**vars(explanation), "values": 7 * explanation.values})
    )
    torch.testing.assert_close(same.values, found)
    turned = ap.Infidelity()(model, x, -explanation.values, target).values
    zero = ap.Infidelity()(model, x, torch.zeros_like(x), target).values
    assert bool((found <= zero + 1e-12).all())
    assert bool((turned <= zero + 1e-12).all())


def test_infidelity_of_noise_is_zero_for_the_gradient_of_a_linear_model() -> None:
    model, x = nn.Linear(5, 3).double(), torch.randn(4, 5, dtype=torch.float64)
    slopes = model.weight.detach()[model(x).argmax(1)]
    test = ap.Infidelity(perturbation="noise", scaled=False)
    assert test(model, x, slopes).mean == pytest.approx(0, abs=1e-20)
    assert test(model, x, -slopes).mean == pytest.approx(float(4 * 0.01 * (slopes**2).sum(1).mean()), rel=0.3)


def test_completeness(table: Any) -> None:
    model, x, _, target = table
    converged = ap.IntegratedGradients(tolerance=1e-3)(model, x)
    assert ap.Completeness()(model, x, converged).mean < 0.01
    plain = ap.Completeness()(model, x, converged.values, target).values
    with torch.no_grad():
        total = (model(x) - model(0 * x)).gather(1, target[:, None])[:, 0]
    assert plain.tolist() == pytest.approx(((total - converged.values.sum(1)) / total).abs().tolist())
    nothing = ap.Completeness()(lambda rows: rows[:, :2] * 0, x, x)
    assert nothing.n == 0


def test_completeness_leaves_out_what_is_never_hidden() -> None:
    weights = torch.tensor([1.0, 2.0, 4.0, 8.0])

    def model(ids: Tensor) -> Tensor:
        return (ids * weights).sum(1, keepdim=True)

    words = TextFeatures(
        "a b", ("[CLS]", "a", "b", "[SEP]"), ((0, 0), (0, 1), (2, 3), (0, 0)), (None, 0, 1, None)
    )
    scores = ap.Completeness()(model, torch.ones(1, 4, dtype=torch.long), weights[None], features=[words])
    assert scores.mean == 0


# ---- sensitivity and sanity ----


def moves(radius: float, samples: int, *shape: int, number: int = 0) -> Tensor:
    """The perturbations of one input or lookup, (samples, …)."""
    random = [np.random.default_rng((0, number, i)) for i in range(samples)]
    return torch.stack([torch.from_numpy(r.uniform(-radius, radius, shape)) for r in random])


def test_max_sensitivity_and_lipschitz(table: Any) -> None:
    model, x, explanation, target = table
    drawn = moves(0.1, 7, 6)
    there = torch.stack([ap.Saliency()(model, x + d, target=target).values for d in drawn], 1)
    far = (there - explanation.values[:, None]).norm(dim=2)
    sensitivity = far.amax(1) / explanation.values.norm(dim=1)
    lipschitz = (far / drawn.norm(dim=1)).amax(1)
    for chunk in (None, 5):
        found = ap.MaxSensitivity(samples=7, radius=0.1)(model, x, explanation, chunk=chunk)
        torch.testing.assert_close(found.values, sensitivity)
        assert found.cost.backwards == 7
        slopes = ap.LocalLipschitz(samples=7, radius=0.1)(model, x, explanation, chunk=chunk).values
        torch.testing.assert_close(slopes, lipschitz)


def test_sensitivity_of_token_ids_is_that_of_their_embeddings() -> None:
    model, inputs = small.bert()
    explanation = ap.Saliency()(model, inputs)
    rows = model.get_input_embeddings()(inputs["input_ids"]).detach()
    mask, target = inputs["attention_mask"], explanation.target
    drawn = moves(0.1, 4, *rows.shape[1:])[:, None] * mask[..., None]  # padding stays as it is
    there = [{"inputs_embeds": rows + d, "attention_mask": mask} for d in drawn]
    maps = [ap.Saliency()(model, x, target=target).values["inputs_embeds"].norm(dim=2) for x in there]
    here = explanation.values["input_ids"]
    far = torch.stack([(found - here).norm(dim=1) for found in maps])
    for chunk in (None, 5):
        settings = {"samples": 4, "radius": 0.1}
        found = ap.MaxSensitivity(**settings)(model, inputs, explanation, chunk=chunk).values
        torch.testing.assert_close(found, far.amax(0) / here.norm(dim=1))
        found = ap.LocalLipschitz(**settings)(model, inputs, explanation, chunk=chunk).values
        torch.testing.assert_close(found, (far / drawn.flatten(2).norm(dim=2)).amax(0))


@pytest.mark.parametrize("embedded", [False, True])
def test_sensitivity_of_a_text_does_not_depend_on_its_padding(embedded: bool) -> None:
    model, inputs = small.bert()
    found = []
    for extra in (0, 5):
        padded = {name: nn.functional.pad(t, (0, extra)) for name, t in inputs.items()}
        if embedded:
            padded["inputs_embeds"] = model.get_input_embeddings()(padded.pop("input_ids")).detach()
        explanation = ap.Saliency()(model, padded)
        found.append(
            [test()(model, padded, explanation).mean for test in (ap.MaxSensitivity, ap.LocalLipschitz)]
        )
    assert found[1] == pytest.approx(found[0])


class Mean(nn.Module):
    """Of nonlinear embeddings, weighted by words that stand beside each other, where there is no padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(9, 4), nn.Linear(4, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        rows = self.embedding(input_ids) * attention_mask[..., None]
        return self.head((rows[:, 1:] * rows[:, :-1]).tanh().sum(1))


@pytest.mark.parametrize("method", [ap.Saliency(), ap.InputXGradient()])
def test_sensitivity_of_a_text_does_not_depend_on_padding_on_the_left(method: Any) -> None:
    model, texts, found = Mean(), torch.randint(1, 9, (3, 4), generator=small.seeded(6)), []
    for before, after in ((0, 0), (0, 3), (3, 0), (2, 2)):
        ids = nn.functional.pad(texts, (before, after))
        given = {"input_ids": ids, "attention_mask": (ids > 0).long()}
        explanation = method(model, given)
        found.append(
            torch.stack(
                [test()(model, given, explanation).values for test in (ap.MaxSensitivity, ap.LocalLipschitz)]
            )
        )
    for each in found[1:]:
        torch.testing.assert_close(each, found[0])
    rows = nn.functional.pad(model.embedding(texts).detach(), (0, 0, 3, 0))

    def of_rows(inputs_embeds: Tensor, attention_mask: Tensor) -> Tensor:
        kept = inputs_embeds * attention_mask[..., None]
        return model.head((kept[:, 1:] * kept[:, :-1]).tanh().sum(1))

    mask = nn.functional.pad(torch.ones_like(texts), (3, 0))
    left, whole = ({"inputs_embeds": rows[:, k:], "attention_mask": mask[:, k:]} for k in (0, 3))
    one, other = (
        ap.MaxSensitivity()(of_rows, given, method(of_rows, given)).values for given in (left, whole)
    )
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("test", [ap.MaxSensitivity, ap.LocalLipschitz])
def test_sensitivity_explains_again_with_the_label_map_of_each_sample(test: Any) -> None:
    """A map that differs from sample to sample goes with its sample, also where one is taken from the batch."""
    model = nn.Sequential(nn.Linear(6, 2), nn.Tanh(), nn.Linear(2, 2)).double()
    x = torch.randn(3, 6, generator=small.seeded(4)).double()
    labels = torch.tensor([[0, 0, 1, 1, 2, 2], [0, 1, 2, 0, 1, 2], [0, 1, 1, 1, 1, 2]])
    whole = ap.Occlusion(partition=labels)(model, x)
    found = test(samples=3)(model, x, whole).values
    for row in range(3):
        alone = ap.Occlusion(partition=labels[row])(model, x[row : row + 1], int(whole.target[row]))
        expected = test(samples=3)(model, x[row : row + 1], alone).values
        torch.testing.assert_close(found[row : row + 1], expected)
        cut = whole[row]
        torch.testing.assert_close(test(samples=3)(model, x[row : row + 1], cut).values, expected)
        assert torch.equal(cut.method.partition.labels, labels[row : row + 1])
    pictures = torch.randn(2, 3, 4, 4, generator=small.seeded(5)).double()
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 2), nn.Tanh()).double()
    grids = torch.stack([torch.arange(16).view(4, 4) // 4, torch.arange(16).view(4, 4) % 4])
    whole = ap.Occlusion(partition=grids)(net, pictures)
    found = test(samples=3)(net, pictures, whole).values
    for row in range(2):
        alone = ap.Occlusion(partition=grids[row])(net, pictures[row : row + 1], int(whole.target[row]))
        torch.testing.assert_close(
            test(samples=3)(net, pictures[row : row + 1], alone).values, found[row : row + 1]
        )


def test_sensitivity_of_token_ids_asks_for_a_method_that_sees_embeddings() -> None:
    model, ids = small.lstm()
    with pytest.raises(InputError, match=r"Occlusion\(.*hides tokens and does not see them; accepted"):
        ap.MaxSensitivity()(model, ids, ap.Occlusion()(model, ids))
    table = ap.compare(model, ids, ["saliency"], ["max-sensitivity", "local-lipschitz"])
    for test in table.tests:
        means = {row: table.scores[row][test].mean for row in table.scores}
        assert means["uniform"] == 0 < means["saliency"] == pytest.approx(means["reversed"])
        assert means["random"] > 10 * means["saliency"]


def test_sensitivity_of_two_inputs() -> None:
    first, second = nn.Linear(2, 3).double(), nn.Linear(4, 3).double()
    inputs = (torch.randn(2, 2, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64))

    def model(a: Tensor, b: Tensor) -> Tensor:
        return (first(a) * second(b)).tanh()

    explanation = ap.Saliency()(model, inputs, target=0)
    here = torch.cat(explanation.values, 1)
    far = []
    for a, b in zip(moves(0.02, 5, 2), moves(0.02, 5, 4, number=1), strict=True):
        moved = ap.Saliency()(model, (inputs[0] + a, inputs[1] + b), target=0)
        far.append((torch.cat(moved.values, 1) - here).norm(dim=1))
    expected = torch.stack(far).amax(0) / here.norm(dim=1)
    torch.testing.assert_close(ap.MaxSensitivity(samples=5)(model, inputs, explanation).values, expected)


@given(values_of_maps, values_of_maps)
def test_rank_correlation_beside_scipy(a: list[int], b: list[int]) -> None:
    from scipy import stats

    many = min(len(a), len(b))
    a, b = a[:many], b[:many]
    expected = stats.spearmanr(a, b).statistic if len(set(a)) > 1 < len(set(b)) else math.nan
    found = similarity_in_rows(torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64))
    assert float(found) == pytest.approx(float(expected), nan_ok=True)


def test_randomised_copies() -> None:
    model, _ = small.cnn()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    names = [name for name, m in model.named_modules() if list(m.parameters(recurse=False))]
    changed_by = {}
    for way in ("cascading", "independent"):
        changed_by[way] = [
            (name, {k for k, v in copy.state_dict().items() if not torch.equal(v, state[k])})
            for name, copy in randomised_copies(model, way)
        ]
        assert [name for name, _ in changed_by[way]] == names[::-1]
    for name, changed in changed_by["independent"]:
        assert all(key.startswith(f"{name}.") for key in changed)
    sizes = [len(changed) for _, changed in changed_by["cascading"]]
    assert sizes == sorted(sizes)
    ((_, everything),) = randomised_copies(model, "all")
    before, after = (m[0].weight for m in (model, everything))
    assert not torch.equal(before, after)
    assert float(after.detach().std()) == pytest.approx(float(before.detach().std()), rel=0.2)
    with pytest.raises(InputError, match="no weights"):
        list(randomised_copies(nn.ReLU(), "all"))


def test_parameter_randomisation_sees_who_does_not_look_at_the_model(cnn: Any) -> None:
    model, x = cnn
    gradient = ap.InputXGradient()(model, x)
    blind = ap.references(gradient)["random"]
    for test in (ap.ParameterRandomisation(), ap.ParameterRandomisation(way="independent"), ap.RandomLogit()):
        assert test(model, x, blind).mean == pytest.approx(1)
        assert test(model, x, gradient).mean < 0.9
    found = ap.ParameterRandomisation()(model, x, gradient)
    assert list(found.notes["layers"])[:2] == ["9", "5"]
    assert ap.ParameterRandomisation(way="complexity")(model, x, blind).mean == pytest.approx(0)


# ---- complexity ----


@given(st.lists(st.floats(0, 10), min_size=2, max_size=9))
def test_complexity(values: list[float]) -> None:
    model, x, map_ = (
        nn.Linear(len(values), 2),
        torch.ones(1, len(values)),
        torch.tensor([values], dtype=torch.float64),
    )
    gini, entropy = ap.Sparseness()(model, x, map_), ap.Complexity()(model, x, map_)
    total = sum(values)
    if total == 0:
        assert gini.n == entropy.n == 0
        return
    difference = sum(abs(a - b) for a in values for b in values)
    assert gini.mean == pytest.approx(difference / (2 * len(values) * total), abs=1e-6)
    shares = [v / total for v in values if v / total > 0]
    assert entropy.mean == pytest.approx(-sum(s * math.log(s) for s in shares), abs=1e-6)


# ---- retraining ----


def columns(many: int = 120) -> tuple[nn.Module, Tensor, Tensor]:
    """Six columns of which the first decides the class."""
    x = torch.randn(many, 6, generator=small.seeded(0))
    return nn.Linear(6, 2), x, (x[:, 0] > 0).long()


def test_roar_sees_which_column_matters() -> None:
    model, x, labels = columns()
    right = torch.zeros_like(x).index_fill_(1, torch.tensor([0]), 1.0)
    settings = {"shares": (0.15,), "epochs": 30, "rate": 0.05, "seeds": (0, 1)}
    for test, worse in ((ap.ROAR(**settings), 0.7), (ap.KAR(**settings), None)):
        good = test(model, x, right, labels=labels)
        assert good.n == 24
        assert good.undefined == "the sample was trained on"
        assert good.notes["curves"]["accuracy"]["value"][0] > 0.85
        assert good.mean < worse if worse else good.mean > 0.85
        # Without the sixth column nothing is lost; without the first all is, and that is the least relevant here.
        wrong = test(model, x, torch.arange(6.0).expand_as(x), labels=labels)
        assert wrong.mean > 0.85 if worse else wrong.mean < 0.7


def test_roar_goes_on_where_it_was(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from apportion.evaluation.by_training import retraining

    model, x, labels = columns()
    test = ap.ROAR(shares=(0.2, 0.5), epochs=2, folder=str(tmp_path))
    trained: list[int] = []
    train = retraining.train

    def counted(*arguments: Any) -> None:
        trained.append(1)
        if len(trained) == 2:
            raise KeyboardInterrupt
        train(*arguments)

    monkeypatch.setattr(retraining, "train", counted)
    with pytest.raises(KeyboardInterrupt):
        test(model, x, x, labels=labels)
    found = test(model, x, x, labels=labels)
    assert len(trained) == 2 + 2  # the first was kept
    again = test(model, x, x, labels=labels)
    assert len(trained) == 4
    assert torch.equal(again.values.nan_to_num(9), found.values.nan_to_num(9))
    damaged = sorted(tmp_path.iterdir())[0]
    damaged.write_bytes(damaged.read_bytes()[:40])
    with pytest.warns(UserWarning, match=f"{damaged.name}.*is trained again"):
        once_more = test(model, x, x, labels=labels)
    assert len(trained) == 5
    assert torch.equal(once_more.values.nan_to_num(9), found.values.nan_to_num(9))
    ap.ROAR(shares=(0.2,), epochs=3, folder=str(tmp_path))(model, x, x, labels=labels)
    assert len(trained) == 7  # other settings are other trainings


class Scaled(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(6, 2), scale

    def forward(self, rows: Tensor) -> Tensor:
        return self.layer(rows) * self.scale


class Shifted(Scaled):
    def forward(self, rows: Tensor) -> Tensor:
        return self.layer(rows + self.scale)


def test_finished_trainings_know_code_and_attributes_of_the_model(tmp_path: Any) -> None:
    _, x, labels = columns()
    folder = str(tmp_path)
    settings: dict[str, Any] = {"shares": (0.5,), "epochs": 8, "rate": 0.05}
    # The same class name and the same weights, but nothing of the input comes through the second.
    other = type("Scaled", (Shifted,), {"forward": lambda self, rows: self.layer(rows * 0)})
    means = []
    for model in (Scaled(1.0), Scaled(0.0), other(1.0), Scaled(1.0)):
        kept = ap.ROAR(**settings, folder=folder)(model, x, x, labels=labels)
        fresh = ap.ROAR(**settings)(model, x, x, labels=labels)
        torch.testing.assert_close(kept.values, fresh.values, equal_nan=True)
        means.append(kept.notes["curves"]["accuracy"]["value"][0])
    assert means[0] == means[3] > 0.8 > max(means[1:3])
    assert len(list(tmp_path.iterdir())) == 3 * 2


def test_what_cannot_be_trained() -> None:
    x, labels = torch.randn(8, 2), torch.arange(8) % 2
    with pytest.raises(InputError, match="a torch module, which can be trained"):
        ap.ROAR()(lambda rows: rows, x, x, labels=labels)

    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.eye(2))

        def forward(self, rows: Tensor) -> Tensor:
            return rows @ self.weight

    with pytest.raises(InputError, match="Fixed cannot be drawn anew"):
        ap.ROAR()(Fixed(), x, x, labels=labels)


def test_training_on_batches_of_one_more() -> None:
    x = torch.randn(22, 3, generator=small.seeded(0))
    labels = (x[:, 0] > 0).long()
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).eval()
    test = ap.ROAR(shares=(0.5,), epochs=1, batch=16, held_out=0.2)  # 18 = 17 + 1 are trained on
    assert test(model, x, x, labels=labels).n == 4
    test = ap.ROAR(shares=(0.5,), epochs=1, batch=17, held_out=0.2)
    assert test(model, x, x, labels=labels).n == 4
    with pytest.raises(InputError, match="no weights that could be trained"):
        ap.FFidelity(epochs=1)(nn.Flatten(), x, x)


def test_masks_that_a_model_gets_used_to_favour_no_place() -> None:
    from apportion.evaluation.measures.fidelity import random_subsets

    sets = random_subsets(torch.tensor([10, 4]), 10, 4000, 0, most=0.3)
    for row, many, most in ((0, 10, 3), (1, 4, 2)):
        sizes = sets[row].sum(1)
        assert set(sizes.tolist()) == set(range(1, most + 1))
        often = sets[row, :, :many].double().mean(0)
        assert float((often - often.mean()).abs().max()) < 0.03
    assert not sets[1, :, 4:].any()


# ---- references ----


def test_references(table: Any) -> None:
    model, x, explanation, target = table
    found = ap.references(explanation, seed=4)
    assert list(found) == ["random", "uniform", "reversed"]
    for made in found.values():
        assert torch.equal(made.target, target)
        assert made.values.shape == x.shape
        again = made.method(model, x)
        assert torch.equal(again.values, made.values)
    assert not torch.equal(ap.references(explanation)["random"].values, found["random"].values)
    assert found["reversed"].method == Reversed(explanation.method)
    from apportion.core.registry import from_repr

    assert from_repr(repr(found["reversed"].method)) == found["reversed"].method


@given(st.integers(0, 1000))
def test_the_reversed_map_is_hidden_in_the_opposite_order(seed: int) -> None:
    values = torch.randn(1, 9, generator=small.seeded(seed), dtype=torch.float64)
    model, x = small.perceptron(9).double().eval(), torch.ones(1, 9, dtype=torch.float64)
    assert torch.equal(
        ap.PixelFlipping(order="lerf")(model, x, values).values, ap.PixelFlipping()(model, x, -values).values
    )


def test_curves_of_a_model_that_gives_probabilities_are_those_of_its_scores():
    model, x = nn.Linear(4, 3), torch.randn(5, 4)
    found = ap.Saliency()(model, x)
    of_scores = ap.PixelFlipping()(model, x, found).values
    torch.testing.assert_close(ap.PixelFlipping()(lambda x: model(x).softmax(1), x, found).values, of_scores)
