"""Rows that are one row in memory are run forward once, and each has the values that it has alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import apportion as ap
import small_language_models as small
from apportion.core.inputs import runs_once
from apportion.engines.substitution import gradients
from apportion.methods.explain import explain_answer

METHODS = {
    "saliency": ap.Saliency(),
    "inputxgradient": ap.InputXGradient(),
    "smoothgrad": ap.SmoothGrad(samples=5, chunk=8),
    "vargrad": ap.VarGrad(samples=5, chunk=8),
    "deconvnet": ap.Deconvnet(),
    "guided": ap.GuidedBackprop(),
    "ig": ap.IntegratedGradients(nodes=6, chunk=8),
    "ig to a tolerance": ap.IntegratedGradients(tolerance=1e-3, chunk=8),
    "ig doubled": ap.IntegratedGradients(rule="trapezoid", max_nodes=32),
    "deeplift": ap.DeepLIFT(),
    "lrp": ap.LRP(),
    "lrp placed": ap.LRP(bias="place"),
    "lrp measured": ap.LRP(bias="place", ledger=True),
    "lrp probed": ap.LRP("epsilon-plus-flat"),
}
every_method = pytest.mark.parametrize("name", METHODS)
CLASSES = torch.tensor([0, 1, 2, 1])


@pytest.fixture(autouse=True)
def _any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "runs_once", lambda inputs, few: runs_once(inputs, 1))


class Pictures(nn.Module):
    """A convolutional network; it counts the rows that it runs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(2, 4, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(36, 8),
            nn.GELU(),
            nn.Linear(8, 3),
        )
        self.rows = 0
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        return self.layers(x)  # type: ignore[no-any-return]


class Tokens(nn.Module):
    """A tiny Llama with two inputs of token ids, looked up one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.model = small.causal()
        self.rows = 0
        self.eval()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        self.rows += len(first)
        embedded = [self.model.get_input_embeddings()(ids) for ids in (first, second)]
        return self.model(inputs_embeds=torch.cat(embedded, 1), use_cache=False).logits[:, -1]  # type: ignore[no-any-return]


def pictures() -> Any:
    return torch.randn(1, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def tokens() -> Any:
    return torch.tensor([[5, 9, 3]]), torch.tensor([[17, 8, 40, 41]])


def many(inputs: Any, once: bool) -> Any:
    def rows(t: Tensor) -> Tensor:
        return t.expand(len(CLASSES), *t.shape[1:]) if once else t.repeat(len(CLASSES), *[1] * (t.dim() - 1))

    return rows(inputs) if isinstance(inputs, Tensor) else tuple(map(rows, inputs))


@every_method
@pytest.mark.parametrize("kind", ["pictures", "tokens"])
def test_all_classes_of_one_row_have_the_values_of_rows_that_run_apart(kind: str, name: str) -> None:
    model: Any = Pictures() if kind == "pictures" else Tokens()
    x = pictures() if kind == "pictures" else tokens()
    apart = METHODS[name](model, many(x, once=False), CLASSES)
    rows, model.rows = model.rows, 0
    once = METHODS[name](model, many(x, once=True), CLASSES)
    assert model.rows <= rows / (2 if name in ("ig to a tolerance", "ig doubled") else 3)
    torch.testing.assert_close(once.values, apart.values, atol=1e-9, rtol=1e-7)
    assert (once.total is None) == (apart.total is None)
    if once.total is not None:
        torch.testing.assert_close(once.total, apart.total, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(once.output, apart.output, atol=1e-12, rtol=1e-12)
    assert (once.cost.forwards, once.cost.backwards) <= (apart.cost.forwards, apart.cost.backwards)
    if name == "lrp measured":
        lost = [sum(e.ledger.absorbed.values()) for e in (once, apart)]
        assert lost[0] == pytest.approx(lost[1], abs=1e-9)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("smoothgrad", "vargrad")])
def test_tokens_of_an_answer_run_once_are_each_alone(name: str) -> None:
    """But for noise, which is drawn for all tokens that are run, and of one token alone there are fewer."""
    lm = ap.LanguageModel(small.causal(), small.tokenizer(), "llama")
    question = lm.question("The capital of France is", " Paris . The")
    together = explain_answer(question, METHODS[name])
    for i in range(len(together)):
        alone = explain_answer(question.part(slice(i, i + 1)), METHODS[name])
        torch.testing.assert_close(together.values[i], alone.values[0], atol=1e-6, rtol=1e-5)


def test_layers_between_are_explained_of_rows_that_run_once() -> None:
    model, x = Pictures(), pictures()
    for method in (ap.InputXGradient(at="layers.4"), ap.IntegratedGradients(nodes=4, at="layers.4")):
        apart, once = (method(model, many(x, how), CLASSES) for how in (False, True))
        torch.testing.assert_close(once.values, apart.values, atol=1e-10, rtol=1e-8)


def test_baselines_that_differ_from_sample_to_sample_are_kept_apart() -> None:
    model, x = Pictures(), many(pictures(), once=True)
    starts = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for method in (ap.IntegratedGradients(nodes=4), ap.DeepLIFT()):
        once = method(model, x, CLASSES, baseline=starts)
        apart = method(model, x.clone(), CLASSES, baseline=starts)
        torch.testing.assert_close(once.values, apart.values, atol=1e-10, rtol=1e-8)


def test_several_baselines_of_one_row_are_run_once_for_all_classes() -> None:
    model, x = Pictures(), many(pictures(), once=True)
    starts = torch.randn(3, 1, *x.shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for method in (ap.IntegratedGradients(nodes=4), ap.DeepLIFT()):
        model.rows = 0
        once = method(model, x, CLASSES, baseline=starts)
        assert model.rows <= 1 + 3 + 3 * 4
        apart = method(model, x.clone(), CLASSES, baseline=starts)
        torch.testing.assert_close(once.values, apart.values, atol=1e-10, rtol=1e-8)


def test_functions_of_the_scores_are_targets_of_rows_that_run_once() -> None:
    model, x = Pictures(), pictures()
    for target in (ap.Contrast(0, 2), None, ap.Neuron("layers.4", 3)):
        apart, once = (ap.InputXGradient()(model, many(x, how), target) for how in (False, True))
        torch.testing.assert_close(once.values, apart.values, atol=1e-10, rtol=1e-8)


def test_all_classes_of_one_row_have_their_nodes_in_common() -> None:
    """No more gradients are taken than `max_nodes`, and it is told whose were too few."""
    torch.manual_seed(0)
    steep = nn.Sequential(
        nn.Linear(4, 6), nn.Sigmoid(), nn.Linear(6, 6), nn.Sigmoid(), nn.Linear(6, 3)
    ).double()
    with torch.no_grad():
        steep[0].weight.mul_(60)
        steep[2].weight.mul_(30)
    x = torch.randn(1, 4, dtype=torch.float64).expand(3, -1)
    found = ap.IntegratedGradients(tolerance=1e-9, max_nodes=96)(steep, x, torch.arange(3))
    assert 3 * found.cost.backwards <= 96
    assert "not within tolerance after max_nodes=96 nodes of all together" in found.warnings[0]
    whole = ap.IntegratedGradients(max_nodes=4096, tolerance=1e-6)(steep, x, torch.arange(3))
    assert float(whole.left_over.max()) < 1e-5


@pytest.mark.parametrize(
    "method", [ap.Occlusion(patch=2), ap.KernelSHAP(partition=ap.Patches(4)), ap.LIME(samples=40)]
)
def test_where_features_are_hidden_they_take_what_one_takes(method: Any) -> None:
    one, model = Pictures(), Pictures()
    alone = [method(one, pictures(), int(label)) for label in CLASSES]
    found = method(model, many(pictures(), once=True), CLASSES)
    assert model.rows == one.rows / len(CLASSES)
    torch.testing.assert_close(found.values, torch.cat([each.values for each in alone]), atol=1e-9, rtol=1e-7)
    torch.testing.assert_close(found.output, one(pictures()).detach().repeat(len(CLASSES), 1))
