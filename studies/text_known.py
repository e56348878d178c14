"""Which test of the text study finds the truth? A model whose attribution is known, and maps that miss it by degrees.

    python studies/text_known.py [--texts 300] [--seeds 3]

Texts are random words of 200; forty of them have a weight, half of these against the other class, and the model's
score is the sum of the weights of a text: the true map is these weights, turned so that they speak for the predicted
class. Beside it stand its absolute value, the truth with noise of ½, 1 and 2 of its standard deviation, without half of
its words, with weights of random size, permuted, turned round, and the maps that know nothing. The weak learners are
trained on what the model predicts.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from scipy.stats import kendalltau
from torch import Tensor, nn

import apportion as ap
from apportion.evaluation.by_training.weak_learner import WeakLearner, random_maps, uniform_maps
from apportion.learning.documents import Documents
from apportion.learning.training import Training
from apportion.results.scores import Scores
from apportion.study.text._maps import run_test
from apportion.study.text.readings import Readings

WORDS, WEIGHTED, FIRST = 200, 40, 2  # ids 0 and 1 are padding and the unknown word
LADDER = ("truth", "noise ½", "noise 1", "noise 2", "random")  # each should be better than the next
READINGS = Readings(("deleted", "unknown"), ("learner", "model"))


class Planted(nn.Module):
    """The sum of the weights of the words, as a margin between two classes."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        weight = torch.zeros(FIRST + WORDS)
        chosen = FIRST + torch.randperm(WORDS, generator=draw)[:WEIGHTED]
        signs = torch.ones(WEIGHTED).index_fill(0, torch.arange(WEIGHTED // 2), -1)
        weight[chosen] = signs * (0.5 + torch.rand(WEIGHTED, generator=draw))
        self.register_buffer("weight", weight)

    def states(self, ids: Tensor) -> Tensor:
        return self.weight[ids][..., None]  # (batch, tokens, 1)

    def decide(self, states: Tensor, maps: Tensor) -> Tensor:
        """The sum, as if the map were even over sixteen words."""
        return self._scores(
            16 * (maps[..., None] * states.unsqueeze(1) if maps.dim() == 3 else maps[..., None] * states)
        )

    def forward(self, ids: Tensor) -> Tensor:
        return self._scores(self.states(ids))

    def _scores(self, parts: Tensor) -> Tensor:
        margin = parts.sum((-2, -1))
        return torch.stack([-margin / 2, margin / 2], -1)


def texts(model: Planted, many: int, seed: int) -> Documents:
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(8, 25, (many,), generator=draw).tolist()
    ids = tuple(torch.randint(FIRST, FIRST + WORDS, (n,), generator=draw) for n in lengths)
    sums = torch.stack([model.weight[each].sum() for each in ids])
    kept = (sums.abs() > 0.1).nonzero().flatten().tolist()
    return Documents(tuple(ids[i] for i in kept), (sums[kept] > 0).long())


def maps(model: Planted, documents: Documents, seed: int) -> dict[str, Documents]:
    draw = torch.Generator().manual_seed(seed)
    truth = [
        model.weight[ids] * (2 * int(label) - 1)
        for ids, label in zip(documents.ids, documents.labels, strict=True)
    ]

    def noise(share: float) -> list[Tensor]:
        return [t + share * t.std() * torch.randn(len(t), generator=draw) for t in truth]

    made = {
        "truth": truth,
        "absolute": [t.abs() for t in truth],
        "noise ½": noise(0.5),
        "noise 1": noise(1.0),
        "noise 2": noise(2.0),
        "half missing": [t * (torch.rand(len(t), generator=draw) < 0.5) for t in truth],
        "random sizes": [t.sign() * torch.rand(len(t), generator=draw) for t in truth],
        "permuted": [t[torch.randperm(len(t), generator=draw)] for t in truth],
        "reversed": [-t for t in truth],
    }
    found = {name: replace(documents, maps=tuple(values)) for name, values in made.items()}
    return found | {"uniform": uniform_maps(documents), "random": random_maps(documents, seed)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    together: dict[str, dict[str, list[Tensor]]] = {}
    for seed in range(given.seeds):
        model = Planted(seed).eval()
        parts = {
            name: maps(model, texts(model, many, 10 * seed + i), 10 * seed + i)
            for i, (name, many) in enumerate((("test", given.texts), ("train", 3000), ("valid", 500)))
        }
        tests = READINGS.tests(FIRST + WORDS) | {
            "single deletion": ap.SingleDeletion(replacement=ap.Constant(1))
        }
        learner = WeakLearner(32, 32, seeds=(seed,), training=Training(epochs=10))
        for name, documents in parts["test"].items():
            scores: dict[str, Scores] = {
                kind: run_test(test, model, documents) for kind, test in tests.items()
            }
            for kind, (one, shuffles) in READINGS.learners(learner).items():
                scores[kind], (made,) = one.learn(
                    parts["train"][name], parts["valid"][name], documents, FIRST + WORDS
                )
                for each, test in shuffles.items():
                    scores[each] = run_test(test, made.eval().requires_grad_(False), documents)
            for kind, found in scores.items():
                together.setdefault(kind, {}).setdefault(name, []).append(found.oriented)
        print(f"model {seed + 1} of {given.seeds}", flush=True)
    kinds, names = list(together), list(parts["test"])
    means = {
        kind: {name: float(torch.cat(together[kind][name]).nanmean()) for name in names} for kind in kinds
    }
    print("\nmeans, turned so that higher is better; bold: the best\n")
    print(f"| map | {' | '.join(kinds)} |\n|{'---|' * (len(kinds) + 1)}")
    for name in names:
        best = [means[kind][name] >= max(means[kind].values()) - 1e-9 for kind in kinds]
        cells = [
            f"**{means[kind][name]:.3f}**" if b else f"{means[kind][name]:.3f}"
            for kind, b in zip(kinds, best, strict=True)
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    print(
        "\n| test | maps above the truth | τ along the ladder | texts on which it beats noise 1 |\n|---|---|---|---|"
    )
    for kind in kinds:
        above = [name for name in names if means[kind][name] > means[kind]["truth"] + 1e-9]
        tau = kendalltau([means[kind][name] for name in LADDER], range(len(LADDER), 0, -1)).statistic
        one, other = (torch.cat(together[kind][name]) for name in ("truth", "noise 1"))
        share = f"{float((one > other).double().mean()):.0%}" if len(one) > given.seeds else "–"
        print(f"| {kind} | {', '.join(above) or 'none'} | {tau:.2f} | {share} |")


if __name__ == "__main__":
    main()
