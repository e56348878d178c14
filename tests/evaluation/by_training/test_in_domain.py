"""The single deletion score against its definition, and what is learned before it in its own domain."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

import apportion as ap
import small

SQUARES = ap.SingleDeletion(partition=ap.Patches(4), replacement=ap.Constant(0))


def pictures(many: int = 24) -> tuple[Tensor, Tensor]:
    x = torch.randn(many, 3, 8, 8, generator=small.seeded(0))
    return x, (x[:, :, :4].mean((1, 2, 3)) > x[:, :, 4:].mean((1, 2, 3))).long()


def test_single_deletion_is_its_definition() -> None:
    model, x = small.convolutional(), pictures(3)[0]
    values = torch.randn(x.shape, generator=small.seeded(1))
    found = SQUARES(model, x, values, target=1).values
    model.requires_grad_(False)
    for i in range(len(x)):
        sums, falls = [], []
        for row in (0, 4):
            for column in (0, 4):
                without = x[i : i + 1].clone()
                without[..., row : row + 4, column : column + 4] = 0
                falls.append(float(model(x[i : i + 1])[0, 1] - model(without)[0, 1]))
                sums.append(float(values[i, :, row : row + 4, column : column + 4].sum()))
        assert found[i] == pytest.approx(spearmanr(sums, falls).statistic)


def test_texts_of_unlike_length_have_no_score_of_padding() -> None:
    weight = torch.randn(10, 2, generator=small.seeded(4)).index_fill(0, torch.tensor(0), 0.0)
    ids = torch.tensor([[3, 5, 7, 2, 9], [4, 6, 8, 0, 0]])
    values = torch.randn(2, 5, generator=small.seeded(2))
    places = torch.arange(5).expand(2, 5).masked_fill(ids == 0, -1)

    def score(rows: slice, tokens: int) -> Tensor:
        test = ap.SingleDeletion(partition=places[rows, :tokens], replacement=ap.Constant(1))
        return test(lambda t: weight[t].sum(1), ids[rows, :tokens], values[rows, :tokens], target=0).values

    assert score(slice(0, 2), 5)[1] == pytest.approx(float(score(slice(1, 2), 3)[0]))


def test_a_linear_model_has_one_and_a_map_that_knows_nothing_about_zero() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    x, labels = pictures(64)
    test = ap.IDSDS(SQUARES, epochs=2, rate=1e-3)
    table = ap.compare(model, x, {"exact": ap.InputXGradient()}, {"idsds": test}, labels=labels)
    scores = {name: by_test["idsds"] for name, by_test in table.scores.items()}
    assert scores["exact"].values.tolist() == pytest.approx([1.0] * 64)
    assert scores["reversed"].values.tolist() == pytest.approx([-1.0] * 64)
    assert abs(scores["random"].mean) < 0.25


def test_half_of_what_it_is_trained_on_has_one_feature_hidden() -> None:
    seen: list[Tensor] = []

    class Watched(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                seen.append(x.detach().clone())
            return super().forward(x)

    x = torch.ones(64, 5)
    labels = torch.arange(64) % 2
    test = ap.IDSDS(ap.SingleDeletion(replacement=ap.Constant(0)), epochs=20)
    model = Watched(5, 2)
    before = model.weight.clone()
    made = test.trained(model, x, labels)
    hidden = (torch.cat(seen) == 0).sum(1)
    assert set(hidden.tolist()) == {0, 1}
    assert float(hidden.double().mean()) == pytest.approx(
        0.5, abs=0.05
    )  # of 1280, three standard errors are .042
    places = (torch.cat(seen) == 0).double().mean(0)
    assert places.tolist() == pytest.approx([0.1] * 5, abs=0.03)
    assert torch.equal(model.weight, before)
    assert not torch.equal(made.weight, before)  # type: ignore[arg-type]
    assert torch.equal(test.trained(model, x, labels).weight, made.weight)  # type: ignore[arg-type]


def test_methods_of_a_table_share_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    from apportion.evaluation.by_training import in_domain

    calls, train = [], in_domain.train
    monkeypatch.setattr(in_domain, "train", lambda *given: (calls.append(1), train(*given)))
    x, labels = pictures(8)
    ap.compare(
        small.convolutional(), x, ["saliency", "lrp"], {"idsds": ap.IDSDS(SQUARES, epochs=1)}, labels=labels
    )
    assert len(calls) == 1


@pytest.mark.parametrize("given", [{"test": ap.LDS()}, {"epochs": 0}, {"rate": -1.0}, {"seed": -1}])
def test_says_what_is_wrong(given: dict) -> None:
    with pytest.raises(ap.InputError, match=next(iter(given))):
        ap.IDSDS(**given)
