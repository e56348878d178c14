"""Token ids that the model moves about and puts its own beside: each value belongs to the token that it stands at, and
the model's own tokens are constants. The oracle is autograd at the embeddings."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

import apportion as ap

IDS = torch.tensor([[9, 16, 3, 12], [5, 7, 21, 2]])


def own(ids: Tensor) -> Tensor:
    """Two tokens of the model's own for each text."""
    return torch.tensor([1, 2]).expand(len(ids), -1)


def slice_assigned(ids: Tensor) -> Tensor:
    whole = torch.full((len(ids), 7), 3)
    whole[:, 2:6] = ids
    return whole


# What the model makes of its ids, and where each of them stands in it.
WAYS: dict[str, tuple[Callable[[Tensor], Tensor], list[int]]] = {
    "pad at the end": (lambda ids: F.pad(ids, (0, 3)), [0, 1, 2, 3]),
    "pad at both ends with a value": (lambda ids: F.pad(ids, (2, 1), value=3), [2, 3, 4, 5]),
    "constant_pad_nd": (lambda ids: torch.constant_pad_nd(ids, (1, 0), 1), [1, 2, 3, 4]),
    "pad_sequence": (
        lambda ids: pad_sequence([*ids, ids.new_zeros(7)], batch_first=True, padding_value=1)[:-1],
        [0, 1, 2, 3],
    ),
    "cat with tokens of its own": (lambda ids: torch.cat([own(ids), ids], 1), [2, 3, 4, 5]),
    "a slice is assigned": (slice_assigned, [2, 3, 4, 5]),
    "slice_scatter": (
        lambda ids: torch.slice_scatter(torch.full((len(ids), 7), 1), ids, 1, 3, 7),
        [3, 4, 5, 6],
    ),
    "scatter": (
        lambda ids: torch.full((len(ids), 7), 2).scatter(
            1, torch.tensor([6, 0, 2, 4]).expand(len(ids), -1), ids
        ),
        [6, 0, 2, 4],
    ),
    "scatter into the ids": (
        lambda ids: F.pad(ids, (0, 2)).scatter(1, torch.tensor([4, 5]).expand(len(ids), -1), own(ids)),
        [0, 1, 2, 3],
    ),
    "index_copy": (
        lambda ids: torch.zeros(len(ids), 5).long().index_copy(1, torch.tensor([4, 3, 2, 1]), ids),
        [4, 3, 2, 1],
    ),
    "index_put": (
        lambda ids: (
            torch.zeros(len(ids), 4)
            .long()
            .index_put((torch.arange(len(ids))[:, None], torch.tensor([[3, 2, 1, 0]])), ids)
        ),
        [3, 2, 1, 0],
    ),
    "masked_scatter": (
        lambda ids: (
            torch.ones(len(ids), 5).long().masked_scatter(torch.tensor([True, True, False, True, True]), ids)
        ),
        [0, 1, 3, 4],
    ),
    "flipped and rolled": (lambda ids: ids.flip(1).roll(1, 1), [0, 3, 2, 1]),
}


class Reader(nn.Module):
    def __init__(self, way: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.way, self.embedding = way, nn.Embedding(25, 6)
        self.hidden, self.head = nn.Conv1d(6, 8, 3), nn.Linear(8, 2)

    def read(self, rows: Tensor) -> Tensor:
        return self.head(self.hidden(rows.mT).tanh().mean(2))

    def forward(self, ids: Tensor) -> Tensor:
        return self.read(self.embedding(self.way(ids)))


def at_the_embeddings(model: Reader) -> tuple[Tensor, Tensor]:
    """Gradient times embedding at every place, and the embeddings."""
    rows = model.embedding(model.way(IDS)).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model.read(rows)[:, 1].sum(), rows)
    return (gradient * rows.detach()).sum(2), rows.detach()


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_the_value_of_a_token_is_that_of_its_place(way: tuple[Callable[[Tensor], Tensor], list[int]]) -> None:
    make, places = way
    model = Reader(make).double().eval()
    everywhere, _ = at_the_embeddings(model)
    found = ap.InputXGradient()(model, IDS, target=1)
    torch.testing.assert_close(found.values, everywhere[:, places])


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(
    "method", [ap.IntegratedGradients("zero", tolerance=1e-6), ap.DeepLIFT("zero")], ids=["ig", "deeplift"]
)
def test_tokens_of_the_models_own_stay_where_they_are(
    way: tuple[Callable[[Tensor], Tensor], list[int]], method: ap.IntegratedGradients | ap.DeepLIFT
) -> None:
    make, places = way
    model = Reader(make).double().eval()
    _, rows = at_the_embeddings(model)
    without = rows.clone()
    without[:, places] = 0
    total = (model.read(rows) - model.read(without))[:, 1].detach()
    found = method(model, IDS, target=1)
    torch.testing.assert_close(found.total, total)
    torch.testing.assert_close(found.apportioned, total, rtol=1e-5, atol=1e-6)
    assert found.warnings == ()


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_the_ledger_says_what_went_to_tokens_of_the_models_own(
    way: tuple[Callable[[Tensor], Tensor], list[int]],
) -> None:
    make, places = way
    model = Reader(make).double().eval()
    found = ap.LRP("epsilon", ledger=True)(model, IDS, target=1)
    assert abs(found.ledger.residual) < 1e-9
    absorbed = [row.bias for row in found.ledger if row.operation == "tokens of the model's own"]
    assert len(absorbed) == (len(places) < model.way(IDS).shape[1])
    assert all(absorbed)
