"""Everything gives on another device what it gives on the CPU, mixes the two nowhere, and leaves results there."""

from __future__ import annotations

import copy
import functools
import html
import importlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import apportion as ap
import pretended
import squares
from apportion.core.registry import from_repr
from apportion.core.trees import tensors_in
from apportion.learning.documents import Documents
from apportion.learning.networks import AttentionClassifier
from apportion.learning.training import Training, scores_by_model, train
from apportion.names import INTERACTIONS, METHODS, TESTS


class Reader(nn.Module):
    """Token ids through an attention with heads."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 12)
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)
        self.classify = nn.Linear(12, 2)

    def forward(self, ids: Tensor) -> Tensor:
        words = self.embedding(ids)
        return self.classify(self.attention(words, words, words)[0].mean(1))


@functools.cache
def subjects() -> dict[str, tuple[nn.Module, Tensor]]:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 3)
    )  # fmt: skip
    table = nn.Sequential(nn.Linear(5, 8), nn.Softplus(), nn.Linear(8, 3))
    ids = torch.randint(1, 50, (2, 7))
    padded = ids.clone()
    padded[1, 5:] = 0
    return {
        "pictures": (network.eval(), torch.randn(2, 3, 10, 10)),
        "rows": (table.eval(), torch.randn(2, 5)),
        "texts": (AttentionClassifier(50, 8, 6).eval(), padded),
        "heads": (Reader().eval(), ids),
    }


def on_both(subject: str, use: Callable[[nn.Module, Tensor], Any]) -> tuple[Any, Any]:
    """What a use of the model gives on the CPU and on the device; what it refuses is given as text."""
    model, x = subjects()[subject]

    def tried(model: nn.Module, x: Tensor) -> Any:
        try:
            return use(model, x)
        except ap.InputError as error:
            return str(error)

    near = tried(model, x)
    with pretended.device():
        return near, tried(pretended.moved(copy.deepcopy(model)), pretended.moved(x))


def assert_alike(near: Any, away: Any, there: bool = True) -> None:
    if isinstance(near, str):
        assert _words(away) == _words(near)
        return
    assert not isinstance(away, str), away
    for one, other in zip(tensors_in(near), tensors_in(away), strict=True):
        assert isinstance(other, pretended.Away) == there
        assert torch.allclose(other.cpu(), one, rtol=1e-4, atol=1e-5, equal_nan=True)


def _words(refusal: str) -> list[str]:
    """Without the numbers, which rounding may change."""
    return re.findall(r"[a-zA-Z]+", refusal)


def test_the_device_refuses_what_a_gpu_refuses() -> None:
    x = torch.ones(2, 3)
    with pretended.device():
        away = pretended.moved(x)
        with pytest.raises(RuntimeError, match="same device"):
            away + x
        with pytest.raises(RuntimeError, match="same device"):
            away.index_select(0, torch.tensor([0]))
        with pytest.raises(RuntimeError, match="numpy"):
            away.numpy()
        assert isinstance(torch.zeros(2, device=away.device), pretended.Away)
        assert isinstance(away[torch.tensor([1])], pretended.Away)
        assert type((away + 2 * torch.tensor(1.0)).cpu()) is Tensor


GRIDS = {"rise", "gradcam", "gradcamplusplus", "layercam"}
REFUSED = {
    "pictures": {"attention", "shuffle-tvd"},
    "rows": {*GRIDS, "attention", "shuffle-tvd", "road"},
    "texts": {*GRIDS, "road"},
    "heads": {*GRIDS, "road", "shuffle-tvd"},
}


@pytest.mark.parametrize("subject", REFUSED)
@pytest.mark.parametrize("name", sorted({**METHODS, **INTERACTIONS}))
def test_methods(name: str, subject: str) -> None:
    if name == "shapleyinteractions" and subject == "pictures":
        name += "(groups=5)"  # it takes long for many features
    method = from_repr("Taylor(steps=20)" if name == "taylor" else name)

    def use(model: nn.Module, x: Tensor) -> Any:
        found = method(model, x, 1)
        return found.values, found.total, found.output

    near, away = on_both(subject, use)
    assert_alike(near, away)
    assert isinstance(near, str) == (name in REFUSED[subject]), near


@pytest.mark.parametrize("subject", REFUSED)
@pytest.mark.parametrize("name", sorted(TESTS))
def test_tests(name: str, subject: str) -> None:
    test = from_repr(name, "test")

    def use(model: nn.Module, x: Tensor) -> Tensor:
        labels = torch.tensor([1, 0], device=x.device)
        return test(model, x, ap.Saliency()(model, x, 1), labels=labels).values

    near, away = on_both(subject, use)
    assert_alike(near, away, there=False)
    assert isinstance(near, str) == (name in REFUSED[subject]), near


FIXED = torch.Generator().manual_seed(0)  # the names of tests have what is drawn
HIDDEN = {
    "pictures": (
        ap.Constant(0.5), ap.Mean(), ap.RegionMean(), ap.Blur(2.0), ap.NoisyLinear(),
        ap.Background(torch.randn(3, 3, 10, 10, generator=FIXED)),
    ),
    "rows": (
        ap.Background(torch.randn(4, 5, generator=FIXED)),
        ap.Quartiles(torch.randn(50, 5, generator=FIXED)),
    ),
    "texts": (ap.Constant(3), ap.Delete(padding=0)),
}  # fmt: skip


@pytest.mark.parametrize(
    ("subject", "replacement"), [(s, r) for s, rs in HIDDEN.items() for r in rs], ids=repr
)
def test_replacements(subject: str, replacement: Any) -> None:
    method = ap.KernelSHAP(
        samples=40, replacement=replacement, partition=ap.Patches(5) if subject == "pictures" else None
    )
    assert_alike(*on_both(subject, lambda model, x: method(model, x, 1).values))


RULES = (
    ap.Epsilon(),
    ap.Gamma(),
    ap.AlphaBeta(2.0, 1.0),
    ap.Proportional(),
    ap.WSquare(),
    ap.Flat(),
    ap.Zero(),
)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_rules(rule: Any) -> None:
    lrp = ap.LRP(ap.Composite(convolution=rule, linear=rule, first=ap.Box(-3.0, 3.0)))
    assert_alike(*on_both("pictures", lambda model, x: lrp(model, x, 1).values))


def test_explanations_are_shown_compared_and_kept(tmp_path: Path) -> None:
    model, x = subjects()["pictures"]
    with pretended.device():
        away, place = pretended.moved(copy.deepcopy(model)), pretended.moved(x)
        found = ap.IntegratedGradients()(away, place, 1)
        found.save(tmp_path / "explanation.safetensors")
        kept = ap.Explanation.load(tmp_path / "explanation.safetensors")
        assert torch.equal(kept.values, found.values.cpu())
        assert "IntegratedGradients" in repr(found)
        assert found.account(0) in html.unescape(found._repr_html_())
        table = ap.compare(away, place, [ap.Saliency(), ap.LRP()], [ap.PixelFlipping()], target=1)
        assert "saliency" in str(table)


@pytest.mark.parametrize("name", ["sentiment", "digits"])
def test_a_classifier_is_given_what_it_reads_on_its_device(name: str) -> None:
    classifier = ap.load(name)
    raw = "a warm and funny film" if name == "sentiment" else (255 * torch.eye(28)).byte().numpy()

    def shown(classifier: ap.Classifier) -> Any:
        e = ap.explain(classifier, raw, "lime(samples=200)")
        table = ap.compare(classifier, raw, [ap.Saliency()], [ap.Deletion()])
        return e.values, torch.tensor(table.scores["saliency"]["deletion"].values.tolist())

    near = shown(classifier)
    with pretended.device():
        away = shown(replace(classifier, model=pretended.moved(copy.deepcopy(classifier.model))))
    assert_alike(near[0], away[0])
    assert_alike(near[1], away[1], there=False)


def test_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text models, the weak learner and ProtoPNet are trained where their data or their backbone are."""
    optimizer = importlib.import_module("torch.optim.optimizer")
    monkeypatch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: ["cpu", "lazy"])
    training = Training(epochs=2)

    def learned(place: Callable[[Tensor], Tensor], model: nn.Module) -> Tensor:
        texts = Documents(
            tuple(place(torch.arange(1, 4 + i % 4)) for i in range(24)), place(torch.arange(24) % 2)
        )
        train(model, texts, texts, training)
        learner = ap.WeakLearner(embedding=8, hidden=4, seeds=(0,), training=training)
        mapped = replace(texts, maps=tuple(ids / 5 for ids in texts.ids))
        return torch.cat(
            [scores_by_model(model, texts).cpu().flatten(), learner(mapped, mapped, mapped, 20).values]
        )

    def prototypes(grid: nn.Module) -> tuple[Tensor, float]:
        model = squares.fast(grid).fit(*squares.data())
        return model.net_.prototypes.cpu(), model.score(*squares.data())

    text = AttentionClassifier(20, 8, 4)
    near = learned(Tensor.clone, copy.deepcopy(text)), prototypes(squares.backbone())
    with pretended.device():
        away = (
            learned(pretended.moved, pretended.moved(text)),
            prototypes(pretended.moved(squares.backbone())),
        )
    assert_alike(near, away, there=False)
