"""Integrated Hessians against path_explain at equal error, and their cost on a transformer and a CNN.

    python benchmarks/hessians.py [--peers FOLDER] [--only mlp|…]

FOLDER holds path_explain (`pip install --no-deps --target FOLDER path-explain tqdm`); only its PyTorch file
is loaded, since the package imports TensorFlow. Ratios are taken in one process, on the same model and input,
with one thread (`--threads`).
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from apportion import IntegratedHessians, Interactions


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = run()
    return result, time.perf_counter() - start


def path_explainer() -> Any:
    """The class PathExplainerTorch, or None where path_explain cannot be found."""
    spec = importlib.util.find_spec("path_explain")
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent / "explainers" / "path_explainer_torch.py"
    own = importlib.util.spec_from_file_location("path_explainer_torch", file)
    assert own is not None
    assert own.loader is not None
    module = importlib.util.module_from_spec(own)
    own.loader.exec_module(module)
    return module.PathExplainerTorch


def trained() -> nn.Module:
    """A SoftPlus network that has learned products of its inputs, and so has something to interact."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(100, 64), nn.Softplus(), nn.Linear(64, 64), nn.Softplus(), nn.Linear(64, 3)
    )
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(600):
        x = torch.randn(256, 100)
        products = x[:, 0:50] * x[:, 50:100]
        goal = torch.stack([products[:, part].sum(1) for part in (slice(0, 2), slice(2, 4), slice(4, 6))], 1)
        optimiser.zero_grad()
        nn.functional.mse_loss(model(x), goal).backward()
        optimiser.step()
    return model.eval()


def mlp() -> None:
    model, x = trained(), torch.randn(1, 100)
    exact = IntegratedHessians(nodes=96)(model.double(), x.double(), target=1).values[0]

    def error(values: torch.Tensor) -> float:
        return float((values.double() - exact).norm() / exact.norm())

    model.float()
    mine = []
    for nodes in (1, 2, 3, 4, 5, 6, 8, 12, 16, 32):
        method = IntegratedHessians(nodes=nodes)
        method(model, x, target=1)  # the first call loads code
        found, seconds = timed(lambda method=method: method(model, x, target=1))
        mine.append((error(found.values[0]), nodes, seconds))
        print(f"apportion     {nodes:6d} Hessians  error {mine[-1][0]:.1e}  {seconds:8.3f} s")
    found, seconds = timed(lambda: IntegratedHessians()(model, x, target=1))
    print(
        f"apportion  tolerance=0.01     error {error(found.values[0]):.1e}  {seconds:8.3f} s  {found.notes}"
    )
    peer = path_explainer()
    if peer is None:
        print("path_explain was not found: no ratios")
        return
    explainer, start, which = peer(model), torch.zeros(1, 100), torch.tensor([1])
    for expectation, counts in ((False, (100, 900)), (True, (900, 2500)), (False, (6400,))):
        for samples in counts:
            point = x.clone().requires_grad_()
            options = {"num_samples": samples, "use_expectation": expectation, "output_indices": which}
            theirs, seconds = timed(
                lambda p=point, o=options: explainer.interactions(p, start, verbose=False, **o)
            )
            gap = error(theirs[0].detach())
            _, nodes, own = next((m for m in mine if m[0] <= gap), mine[-1])
            kind = "random" if expectation else "grid"
            print(
                f"path_explain {samples:7d} Hessians  error {gap:.1e}  {seconds:8.3f} s  ({kind}); apportion "
                f"with {nodes}: {samples / nodes:.0f}x fewer, {seconds / own:.0f}x less time"
            )


def tokens(layers: int = 6, width: int = 768) -> None:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    torch.manual_seed(0)
    config = DistilBertConfig(dim=width, hidden_dim=4 * width, n_layers=layers, n_heads=12)
    model = DistilBertForSequenceClassification(config).eval()
    ids = torch.randint(1000, 30000, (1, 20), generator=torch.Generator().manual_seed(0))
    report(
        f"20 tokens, {layers} layers of {width}", IntegratedHessians()(model, {"input_ids": ids}, target=1)
    )


def forward(vectors: int = 4) -> None:
    """Hessian products by a forward pass over the backward pass, and by a backward pass over it, as ours are."""
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    torch.manual_seed(0)
    config = DistilBertConfig(n_layers=3, attn_implementation="eager")
    text = DistilBertForSequenceClassification(config).eval().requires_grad_(False)
    points, network = torch.rand(2, 20, 768), trained()
    cases = {
        "100-feature MLP": (lambda x: network(x)[:, 1].sum(), torch.rand(8, 100)),
        "20 tokens, 3 layers": (lambda x: text(inputs_embeds=x).logits[:, 1].sum(), points),
    }
    for name, (score, x) in cases.items():
        directions = torch.randn(vectors, *x.shape)
        slope = torch.func.grad(score)

        def over_forward(slope: Any = slope, x: torch.Tensor = x, directions: Any = directions) -> Any:
            return [torch.func.jvp(slope, (x,), (each,))[1] for each in directions]

        def over_backward(score: Any = score, x: torch.Tensor = x, directions: Any = directions) -> Any:
            leaf = x.clone().requires_grad_()
            first = torch.autograd.grad(score(leaf), leaf, create_graph=True)[0]
            return [torch.autograd.grad(first, leaf, each, retain_graph=True)[0] for each in directions]

        assert all(
            torch.allclose(a, b, atol=1e-4) for a, b in zip(over_forward(), over_backward(), strict=True)
        )
        times = [min(timed(run)[1] for _ in range(3)) for run in (over_forward, over_backward)]
        print(
            f"{name}: {vectors} products, forward over backward {times[0] / times[1]:.1f}x backward over backward"
        )


class CNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.head = nn.Linear(32 * 49, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.max_pool2d(torch.relu(self.first(x)), 2)
        return self.head(torch.max_pool2d(torch.relu(self.second(x)), 2).flatten(1))


def patches() -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 1, 28, 28)
    report(
        "28 x 28 in 49 patches, beta=10", IntegratedHessians(groups=4, beta=10.0)(CNN().eval(), x, target=3)
    )


def memory() -> None:
    """Peak memory of separate processes: it follows `chunk`, not the number of nodes."""
    for chunk in (1, 32):
        for nodes in (32, 96):
            command = [sys.executable, __file__, "--peak", str(chunk), str(nodes)]
            found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
            print(f"chunk={chunk:3d} nodes={nodes:4d}: {found}")


def peak(chunk: int, nodes: int) -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 1, 64, 64)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.Softplus(), nn.Conv2d(16, 16, 3), nn.Softplus(), nn.Flatten()
    )
    model.append(nn.Linear(16 * 60 * 60, 1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    IntegratedHessians(groups=32, chunk=chunk, nodes=nodes)(model, x)
    print(f"{(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024:.0f} MB above the model")


def report(what: str, found: Interactions) -> None:
    total, remainder = float(found.total), float(found.remainder)
    smooth = 0.0 if found.smoothing is None else float(found.smoothing)
    share = abs(remainder - smooth) / abs(total)
    print(
        f"{what}: {found.cost}; {found.notes['nodes']} nodes, integration remainder {share:.1e} of the total"
    )
    print(f"    {found.summary()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--only", choices=["mlp", "tokens", "patches", "memory", "forward"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak", nargs=2, type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.peers:
        sys.path.append(str(given.peers))
    if given.peak:
        peak(*given.peak)
    else:
        for part in (mlp, patches, memory, tokens, forward):
            if given.only in (None, part.__name__):
                print(f"--- {part.__name__}", flush=True)
                part()
