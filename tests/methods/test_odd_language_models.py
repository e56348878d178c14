"""Models of tokens that are odd in one way: no padding that they know, one token, norms without an epsilon, weights in
half precision. Each method adds up to what it claims, or says in one line why not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import apportion as ap

IDS = torch.tensor([[5, 9, 3, 17, 8], [4, 11, 6, 2, 30]])
ADDITIVE = {
    "auto": ap.Auto(),
    "lrp placed": ap.LRP(bias="place"),
    "deeplift": ap.DeepLIFT(),
    "deeplift mean": ap.DeepLIFT("mean"),
    "ig": ap.IntegratedGradients(),
    "kernelshap": ap.KernelSHAP(),
}
MODELS = ["language", "classifier"]


class Scores(nn.Module):
    """A tiny Llama that says the next token, or a tiny BERT that says a class."""

    def __init__(self, kind: str, eps: float = 1e-6, pad: int | None = None) -> None:
        super().__init__()
        transformers = pytest.importorskip("transformers")
        torch.manual_seed(0)
        sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
        more = {"num_attention_heads": 4, "initializer_range": 0.3, "pad_token_id": pad}
        if kind == "language":
            ends = {"bos_token_id": None, "eos_token_id": None}
            config = transformers.LlamaConfig(**sizes, **more, **ends, rms_norm_eps=eps)
            self.model: Any = transformers.LlamaForCausalLM(config)
        else:
            config = transformers.BertConfig(**sizes, **more, layer_norm_eps=eps)
            self.model = transformers.BertForSequenceClassification(config)
        self.eval().requires_grad_(False)

    def forward(self, input_ids: Tensor) -> Tensor:
        scores: Tensor = self.model(input_ids).logits
        return scores[:, -1] if scores.dim() == 3 else scores


every_method = pytest.mark.parametrize("name", list(ADDITIVE))
every_model = pytest.mark.parametrize("kind", MODELS)


@every_model
@every_method
def test_without_a_padding_that_the_model_knows_values_add_up(kind: str, name: str) -> None:
    model = Scores(kind)
    found = ADDITIVE[name](model, IDS, 1)
    assert float(found.left_over.max()) <= 0.01
    if name in ("deeplift", "ig"):
        zero = kind == "language" and name == "deeplift"
        assert found.notes["baseline"] == ("zero" if zero else "mean")
    if name.startswith("lrp"):
        torch.testing.assert_close(found.total, model(IDS)[:, 1])


@every_model
@every_method
def test_one_token_has_all_of_the_total(kind: str, name: str) -> None:
    found = ADDITIVE[name](Scores(kind), IDS[:1, :1], 1)
    assert found.values.shape == (1, 1)
    assert float(found.values) == pytest.approx(float(found.total), rel=0.01)


@every_model
@every_method
def test_norms_without_an_epsilon(kind: str, name: str) -> None:
    """They divide by nothing at zero only, which is the default of DeepLIFT in a language model."""
    model = Scores(kind, eps=0.0)
    if kind == "language" and name == "deeplift":
        with pytest.raises(
            ap.InputError, match=r"^baseline is 'zero', where the model's scores are NaN .*'mean'$"
        ):
            ADDITIVE[name](model, IDS, 1)
        return
    assert float(ADDITIVE[name](model, IDS, 1).left_over.max()) <= 0.01


@pytest.mark.parametrize("method", [ap.DeepLIFT, ap.IntegratedGradients, ap.IntegratedHessians])
def test_a_baseline_without_scores_is_named(method: Any) -> None:
    model = Scores("language", eps=0.0)
    with pytest.raises(ap.InputError, match=r"^baseline is 'zero', where the model's scores are NaN"):
        method("zero")(model, IDS, 1)
    with pytest.raises(ap.InputError, match=r"^baseline was given, where the model's scores are NaN"):
        method()(model, IDS, 1, baseline=torch.zeros(2, 5, 32))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every_model
@every_method
def test_weights_in_half_precision(kind: str, name: str, dtype: torch.dtype) -> None:
    """What the rules share adds up by itself; a path adds up to the rounding of many passes, or says so."""
    model = Scores(kind).to(dtype)
    found = ADDITIVE[name](model, IDS, 1)
    if name == "ig":
        close = float(found.left_over.max()) <= 0.01
        assert close or any("a wider number format would tell" in told for told in found.warnings)
    else:
        assert float(found.left_over.max()) <= 0.01
        assert not found.warnings
    single = ADDITIVE[name](Scores(kind).to(dtype).float(), IDS, 1)
    if name == "lrp placed":
        near = (found.values.float() - single.values).abs().max() / single.values.abs().max()
        assert float(near) <= (0.1 if dtype == torch.bfloat16 else 0.02)


def test_what_is_placed_is_not_lost_where_float16_has_small_activations() -> None:
    """f = 3·(x₁ + x₂) + 10 with x₁ of the size of float16's smallest numbers: through a copy of x, which hands on what
    is placed entry by entry."""

    class Copied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(2, 2)
            self.last = nn.Linear(2, 1)
            with torch.no_grad():
                self.first.weight.copy_(torch.eye(2))
                self.first.bias.copy_(torch.tensor([0.0, 1.0]))
                self.last.weight.fill_(3.0)
                self.last.bias.fill_(10.0)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x) + 0.0)  # type: ignore[no-any-return]

    x = torch.tensor([[0.002, 0.004]])
    for dtype in (torch.float64, torch.float32, torch.float16):
        found = ap.LRP("epsilon", bias="place")(Copied().eval().to(dtype), x.to(dtype), 0)
        assert float(found.left_over) <= 0.01
