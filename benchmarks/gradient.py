"""Gradient methods beside Captum on a ResNet-18 and a BERT."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

import apportion as ap
import architectures
import peers

Row = tuple[str, str, dict[str, Callable[[], object]]]


def plain(model: Any, x: Tensor, target: int = 0) -> Tensor:
    """The gradient of one score at the input, as anyone would write it."""
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(model(leaf)[:, target].sum(), leaf)[0]


def frozen(model: torch.nn.Module) -> torch.nn.Module:
    """Without gradients for the weights, which nobody needs here: the fair reference."""
    return model.requires_grad_(False)


class FromEmbeddings(torch.nn.Module):
    """A transformer from its embeddings on, for packages that need a floating point input."""

    def __init__(self, model: Any, mask: Tensor) -> None:
        super().__init__()
        self.model, self.mask = model, mask

    def forward(self, rows: Tensor) -> Tensor:
        mask = self.mask[:1].expand(rows.shape[0], -1)
        return self.model(inputs_embeds=rows, attention_mask=mask).logits


def subjects() -> Iterator[tuple[str, Any, Tensor]]:
    model = frozen(architectures.trained_like(architectures.resnet18()))
    yield "ResNet-18, 4 × 224²", model, architectures.pictures(4)
    bert, inputs = frozen(architectures.bert(layers=4)), architectures.tokens(4)
    rows = bert.bert.embeddings.word_embeddings(inputs["input_ids"]).detach()
    yield "BERT, 4 layers, 4 × 128", FromEmbeddings(bert, inputs["attention_mask"]), rows


def saliency() -> Iterator[Row]:
    captum = peers.captum()
    for name, model, x in subjects():
        theirs = captum.Saliency(model)
        yield (
            name,
            "plain gradient",
            {
                "plain gradient": lambda model=model, x=x: plain(model, x),
                "apportion Saliency": lambda model=model, x=x: ap.Saliency()(model, x, target=0),
                "captum Saliency": lambda theirs=theirs, x=x: theirs.attribute(x, target=0),
            },
        )


def integrated_gradients() -> Iterator[Row]:
    captum = peers.captum()
    for name, model, x in subjects():
        x = x[:1]
        theirs = captum.IntegratedGradients(model)
        ours = ap.IntegratedGradients(nodes=32, chunk=8)
        yield (
            name.replace("4 ×", "1 ×"),
            "captum",
            {
                "captum": lambda theirs=theirs, x=x: theirs.attribute(
                    x, target=0, n_steps=32, internal_batch_size=8
                ),
                "apportion": lambda model=model, x=x, ours=ours: ours(model, x, target=0),
                "apportion, to 1 %": lambda model=model, x=x: ap.IntegratedGradients(chunk=8)(
                    model, x, target=0
                ),
            },
        )
