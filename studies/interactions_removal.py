"""Remove and retrain, as the authors of Integrated Hessians simulate it.

    python studies/interactions_removal.py [--samples 5000] [--removed 2,5,10,20] [--retrainings 5] [--seeds 1]
    python studies/interactions_removal.py --draw PICTURE.png < TABLES

The label is a sum of one kind of interaction of 20 of the 45 pairs of 10 features, with weights from a normal. A
network learns it, and each method ranks the pairs of each sample. Of the k strongest of a sample, those that are in the
formula are computed from two numbers drawn anew, in training and test; networks are trained again from one start, and
their error says how much was taken away: more is better.

After `path_explain`, benchmarking/remove_and_retrain, which has the same kinds, samples, network, optimiser and β = 10,
every k from 0 to 44, and 25 retrainings. Different here: all retrainings run side by side for as many epochs, of which
the best on the validation part is kept; a pair that is drawn anew changes no other (there it does); Shapley
interactions are exact, of all 1024 sets (there sampled); contextual decomposition is left out.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from itertools import pairwise
from math import factorial

import numpy as np
import torch
from torch import Tensor, nn

import apportion as ap
from apportion.results.statistics import interval_of_mean, say_if_few

FEATURES, PAIRS, WIDTH = 10, 20, 64
BASELINES, NODES = 5, 5  # of expected Hessians
FIRST, SECOND = torch.triu_indices(FEATURES, FEATURES, 1)
KINDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "product": torch.mul,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "cosine of the sum": lambda a, b: torch.cos(a + b),
    "tanh of the sum": lambda a, b: torch.tanh(a + b),
}


def formula(kind: str, samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """The inputs, and the weight of each of the 45 pairs (zero of those that are not in the formula)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, FEATURES, generator=generator)
    weight = torch.zeros(len(FIRST))
    weight[torch.randperm(len(FIRST), generator=generator)[:PAIRS]] = torch.randn(PAIRS, generator=generator)
    return x, weight / (KINDS[kind](x[:, FIRST], x[:, SECOND]) @ weight).std()


def label(kind: str, x: Tensor, weight: Tensor, removed: Tensor, generator: torch.Generator) -> Tensor:
    """The labels, of which the pairs `removed` (samples, pairs) are of numbers drawn anew."""
    a, b = x[:, FIRST], x[:, SECOND]
    drawn = torch.randn(2, *a.shape, generator=generator)
    return KINDS[kind](torch.where(removed, drawn[0], a), torch.where(removed, drawn[1], b)) @ weight


def train(x: Tensor, ys: Tensor, epochs: int, seed: int) -> list[Tensor]:
    """Train a network on each of (models, samples) labels, all from one start; the weights of each one's best epoch on
    the last fifth."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (FEATURES, WIDTH, WIDTH, WIDTH, 1)
    weights = []
    for before, after in pairwise(sizes):  # as Keras begins: uniform (Glorot), biases zero
        limit = (6 / (before + after)) ** 0.5
        w = (2 * torch.rand(before, after, generator=generator) - 1) * limit
        weights += [w.repeat(len(ys), 1, 1).requires_grad_(), torch.zeros(len(ys), 1, after).requires_grad_()]
    optimiser = torch.optim.Adam(weights, 0.005, eps=1e-7)
    own = len(x) * 4 // 5
    best, kept = torch.full((len(ys),), torch.inf), [w.detach().clone() for w in weights]
    for _ in range(epochs):
        for rows in torch.randperm(own, generator=generator).split(128):
            optimiser.zero_grad()
            (run(weights, x[rows]) - ys[:, rows]).square().mean(1).sum().backward()
            optimiser.step()
        with torch.no_grad():
            loss = (run(weights, x[own:]) - ys[:, own:]).square().mean(1)  # (models,)
            better = loss < best
            best[better] = loss[better]
            for keep, w in zip(kept, weights, strict=True):
                keep[better] = w.detach()[better]
    return kept


def run(weights: list[Tensor], x: Tensor) -> Tensor:
    """The outputs of all networks, (models, samples)."""
    layers = list(zip(weights[::2], weights[1::2], strict=True))
    h = x.expand(len(weights[0]), *x.shape)
    for number, (w, b) in enumerate(layers):
        h = torch.baddbmm(b, h, w)
        h = h.relu() if number < len(layers) - 1 else h
    return h[..., 0]


def network(weights: list[Tensor]) -> nn.Sequential:
    """The first of these networks as a module."""
    parts: list[nn.Module] = []
    for w, b in zip(weights[::2], weights[1::2], strict=True):
        layer = nn.Linear(*w.shape[1:])
        layer.weight.data, layer.bias.data = w[0].T.clone(), b[0, 0].clone()
        parts += [layer, nn.ReLU()]
    return nn.Sequential(*parts[:-1]).eval().requires_grad_(False)


def interactions(model: nn.Sequential, x: Tensor, others: Tensor) -> dict[str, Tensor]:
    """The strength of the pairs of each sample by each method, (samples, pairs)."""
    smooth = ap.smooth(model, beta=10)

    def pairs(values: Tensor) -> Tensor:
        return values[:, FIRST, SECOND].abs()

    hessians = torch.func.vmap(torch.func.hessian(lambda row: smooth(row)[0]))(
        x
    )  # (samples, features, features)
    few = others[torch.randperm(len(others), generator=torch.Generator().manual_seed(0))[:BASELINES]]
    return {
        "Integrated Hessians": pairs(
            in_parts(lambda rows: ap.IntegratedHessians(beta=10.0)(model, rows, 0).values, x)
        ),
        f"expected Hessians, {BASELINES} baselines": pairs(expected_hessians(smooth, x, few)),
        "Hessian": pairs(hessians),
        "Hessian × inputs": pairs(hessians * x[:, :, None] * x[:, None]),
        "Shapley, exact": pairs(shapley(model, x)),
        "neural interaction detection": pairs(detection(model).expand(len(x), -1, -1)),
        "random": torch.rand(len(x), len(FIRST), generator=torch.Generator().manual_seed(1)),
    }


def in_parts(method: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.cat([method(rows) for rows in x.split(500)])


def expected_hessians(model: nn.Module, x: Tensor, baselines: Tensor) -> Tensor:
    """The mean of Integrated Hessians over baselines, with few nodes on each path; main effects are left out."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    total = torch.zeros(len(x), FEATURES, FEATURES)
    hessian = torch.func.vmap(torch.func.hessian(lambda row: model(row)[0]))
    for baseline in baselines:
        d = x - baseline
        for u, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            second = hessian(baseline + float(u) * d)  # (samples, features, features)
            total += float(-np.log(u) * u * weight) * second * d[:, :, None] * d[:, None]
    return total / len(baselines)


def shapley(model: nn.Module, x: Tensor) -> Tensor:
    """Shapley interaction indices (Grabisch & Roubens 1999) of the game whose absent features are zero, exactly."""
    sets = torch.arange(2**FEATURES)
    inside = (sets[:, None] >> torch.arange(FEATURES) & 1).float()  # (sets, features)
    values = torch.cat([model(row * inside).T for row in x])  # (samples, sets)
    total = torch.zeros(len(x), FEATURES, FEATURES)
    for i, j in zip(FIRST.tolist(), SECOND.tolist(), strict=True):
        s = sets[(inside[:, i] + inside[:, j]) == 0]
        size = inside[s].sum(1).long()
        n = FEATURES
        by = torch.tensor([factorial(k) * factorial(n - k - 2) / factorial(n - 1) for k in range(n - 1)])[
            size
        ]
        one, two = 1 << i, 1 << j
        differences = values[:, s + one + two] - values[:, s + one] - values[:, s + two] + values[:, s]
        total[:, i, j] = total[:, j, i] = differences @ by
    return total


def detection(model: nn.Sequential) -> Tensor:
    """Neural interaction detection (Tsang et al. 2018) of pairs: at each first unit the smaller of the two weights,
    times the unit's influence through the absolute weights above."""
    first, *later = [layer.weight.abs() for layer in model if isinstance(layer, nn.Linear)]
    influence = torch.ones(1, 1)
    for weight in reversed(later):
        influence = influence @ weight  # (1, units)
    smaller = torch.minimum(first[:, :, None], first[:, None])  # (units, features, features)
    return (influence[0, :, None, None] * smaller).sum(0)


def detected(strength: Tensor, wanted: Tensor) -> float:
    """Area under the ROC curve of the mean strength for "this pair is in the formula"."""
    mean = strength.mean(0)
    difference = mean[wanted][:, None] - mean[~wanted]
    return float(((difference > 0).double() + 0.5 * (difference == 0)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--removed", default="2,5,10,20")
    parser.add_argument("--retrainings", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument(
        "--draw", metavar="PICTURE", help="draw the curves of tables that were printed, from stdin"
    )
    given = parser.parse_args()
    if given.draw:
        draw(sys.stdin.read(), given.draw)
        return
    torch.set_num_threads(1)
    removed = [int(k) for k in given.removed.split(",")]
    areas: dict[str, dict[str, list[float]]] = {}
    for kind in given.kinds.split(","):
        errors: dict[str, list[Tensor]] = {}  # of each seed (k, retrainings)
        for seed in range(given.seeds):
            x, weight = formula(kind, given.samples, seed)
            own = given.samples * 4 // 5
            none = torch.zeros(given.samples, len(FIRST), dtype=torch.bool)
            y = label(kind, x, weight, none, torch.Generator())
            model = network(train(x[:own], y[None, :own], given.epochs, seed))
            left = float((model(x[own:])[:, 0] - y[own:]).square().mean())
            print(f"{kind}, seed {seed}: error of the network explained {left:.3f} of 1", flush=True)
            for name, strength in interactions(model, x, x).items():
                areas.setdefault(kind, {}).setdefault(name, []).append(detected(strength, weight != 0))
                place = strength.argsort(1, descending=True).argsort(1)  # (samples, pairs)
                generator = torch.Generator().manual_seed(100 + seed)
                ys = torch.stack(
                    [
                        label(kind, x, weight, place < k, generator)
                        for k in removed
                        for _ in range(given.retrainings)
                    ]
                )
                weights = train(x[:own], ys[:, :own], given.epochs, seed)
                with torch.no_grad():
                    error = (run(weights, x[own:]) - ys[:, own:]).square().mean(1)
                errors.setdefault(name, []).append(error.view(len(removed), given.retrainings))
        curves = {name: torch.cat(found, 1).numpy() for name, found in errors.items()}
        table(kind, curves, areas[kind], removed)


def table(
    kind: str, curves: dict[str, np.ndarray], areas: dict[str, list[float]], removed: list[int]
) -> None:
    """A row for each method: detection, the error at each k, and its mean over them."""
    print(f"\n| {kind} | detection | {' | '.join(f'k = {k}' for k in removed)} | mean |")
    print("|---" * (len(removed) + 3) + "|")
    for name, error in curves.items():
        cells = [f"{np.mean(areas[name]):.3f}"]
        for row in [*error, error.mean(0)]:
            low, high = interval_of_mean(row)
            cells.append(f"{row.mean():.3f} [{low:.3f}, {high:.3f}]")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    many = next(iter(curves.values())).shape[1]
    print(f"\n{many} retrainings{', ' + said if (said := say_if_few(many)) else ''}\n", flush=True)


def draw(tables: str, path: str) -> None:
    from matplotlib.figure import Figure

    found: dict[str, dict[str, list[list[float]]]] = {}
    kind, removed = "", [0]
    for line in tables.splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        if cells[1:2] == ["detection"]:
            kind, removed = cells[0], [int(cell.removeprefix("k = ")) for cell in cells[2:-1]]
        elif line.startswith("| ") and kind:  # mean, low, high at each k
            numbers = [[float(n) for n in re.findall(r"[\d.]+", cell)] for cell in cells[2:-1]]
            found.setdefault(kind, {})[cells[0]] = numbers
        elif not line.startswith("|"):
            kind = ""
    figure = Figure(figsize=(9.5, 6.2), layout="constrained")
    grid = figure.subplots(2, (len(found) + 2) // 2, squeeze=False, sharey=True)
    places = list(grid.flat)
    for ax, (kind, methods) in zip(places, found.items(), strict=False):
        for name, numbers in methods.items():
            mean, low, high = zip(*([0.0] * 3, *numbers), strict=True)
            style = {"linestyle": "--", "color": "0.5"} if name == "random" else {}
            (drawn,) = ax.plot([0, *removed], mean, label=name, marker=".", **style)
            ax.fill_between([0, *removed], low, high, alpha=0.2, color=drawn.get_color())
        ax.set_title(kind, fontsize=10)
    for ax in places[len(found) :]:
        ax.axis("off")
    for ax in grid[:, 0]:
        ax.set_ylabel("error of retrained networks")
    for ax in places[: len(found)]:
        ax.set_xlabel("pairs removed of each sample")
    handles, names = places[0].get_legend_handles_labels()
    places[-1].legend(handles, names, loc="center", frameon=False, fontsize="small")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
