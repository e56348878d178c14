"""LRP on models that stop other implementations: each is right, or says what it could not do.

Two oracles: on networks that are piecewise linear without biases, LRP-ε with a small ε is input times gradient; on
all others the ledger must account for the whole remainder.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import apportion as ap
from apportion.core.trees import tensors_in
from apportion.errors import InputError
from apportion.methods.propagation.composites import Composite
from apportion.methods.propagation.rules import AlphaBeta, Box, Epsilon, Flat, Gamma, WSquare

D = torch.float64
EXACT = Composite(linear=Epsilon(1e-12), convolution=Epsilon(1e-12), matmul=Epsilon(1e-12))


class M(nn.Module):
    """A model from its parts and a forward function `f(self, *inputs)`."""

    def __init__(self, f: Callable[..., Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.f = f
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.f(self, *args, **kwargs)


def conv(a: int, b: int) -> nn.Conv2d:
    return nn.Conv2d(a, b, 3, padding=1, bias=False)


def lin(a: int, b: int) -> nn.Linear:
    return nn.Linear(a, b, bias=False)


def image() -> Tensor:
    return torch.randn(2, 3, 8, 8, dtype=D)


def vector() -> Tensor:
    return torch.randn(2, 6, dtype=D)


def sequence() -> Tensor:
    return torch.randn(2, 7, 6, dtype=D)


def of_rules(e):
    """The warnings but that of the remainder, which random networks often have."""
    return [warning for warning in e.warnings if not warning.startswith("left over")]


def agree(model: Any, x: Any, oracle: bool, composite: Any = EXACT) -> Any:
    """Check one model under LRP and return the explanation with its ledger."""
    model = model.to(D).eval() if isinstance(model, M) else model
    plain = ap.LRP(composite)(model, x, target=0)
    e = ap.LRP(composite, ledger=True)(model, x, target=0)
    for a, b in zip(tensors_in(plain.values), tensors_in(e.values), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    size = max([1.0, *(abs(row.arrived) for row in e.ledger)])
    assert abs(e.ledger.residual) <= 1e-9 * size
    if oracle:
        reference = ap.InputXGradient()(model, x, target=0)
        for a, b in zip(tensors_in(e.values), tensors_in(reference.values), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8 * float(b.abs().max()))
    return e


def in_place(s: Any, x: Tensor) -> Tensor:
    y = s.c(x)
    y += x.mean(1, keepdim=True)
    F.relu_(y)
    y = F.relu(s.d(y), inplace=True)
    return s.l(y.mean((2, 3)))  # type: ignore[no-any-return]


def shared(s: Any, x: Tensor) -> Tensor:
    y = F.relu(s.c(x))
    for _ in range(2):
        y = F.relu(s.d(y))
    y = y + F.relu(s.d(y))
    return s.l(y.mean((2, 3)))  # type: ignore[no-any-return]


def writes_into_views(s: Any, x: Tensor) -> Tensor:
    y = s.c(x)
    y[:, 0] = F.relu(y[:, 1])
    y[:, 2] += y[:, 3]
    y[:, :2].mul_(2.0)
    y.view(2, -1).relu_()
    return s.l(y.mean((2, 3)))  # type: ignore[no-any-return]


def writes_into_the_input(s: Any, x: Tensor) -> Tensor:
    x.mul_(2.0)
    x += 0.0
    return s.l(F.relu(s.c(x)).mean((2, 3)))  # type: ignore[no-any-return]


def fills_a_new_tensor(s: Any, x: Tensor) -> Tensor:
    out = x.new_zeros(2, 4, 8, 8)
    out[:, :2] = s.c(x)
    out[:, 2:] = F.relu(s.d(x))
    return s.l(out.amax((2, 3)))  # type: ignore[no-any-return]


def pools(s: Any, x: Tensor) -> Tensor:
    y = F.max_pool2d(F.relu(s.c(x)), 2) + F.avg_pool2d(x.mean(1, keepdim=True), 2)
    return s.l(F.adaptive_max_pool2d(F.lp_pool2d(y, 2.0, 2), 1).flatten(1))  # type: ignore[no-any-return]


def joins(s: Any, x: Tensor) -> Tensor:
    halves = torch.stack(F.relu(s.c(x)).chunk(2, 1)).sum(0)
    return s.l(torch.cat([halves, x[:, :2].abs()], 1).mean((2, 3)))  # type: ignore[no-any-return]


def resamples(s: Any, x: Tensor) -> Tensor:
    y = F.interpolate(s.c(x), scale_factor=2, mode="bilinear")
    return s.l(F.unfold(F.pixel_shuffle(y, 2), 2).mean(-1))  # type: ignore[no-any-return]


def products_with_constants(s: Any, x: Tensor) -> Tensor:
    y = F.relu(torch.bmm(x[:, None], s.l.weight.T.expand(2, 6, 5))[:, 0])
    return torch.einsum("bi,io->bo", y, s.k.weight.T) + torch.addmm(torch.zeros(3, dtype=D), y, s.k.weight.T)


PIECEWISE_LINEAR: dict[str, Callable[[], tuple[Any, Any]]] = {
    "in place": lambda: (M(in_place, c=conv(3, 4), d=conv(4, 4), l=lin(4, 3)), image()),
    "shared module": lambda: (M(shared, c=conv(3, 4), d=conv(4, 4), l=lin(4, 3)), image()),
    "writes into views": lambda: (M(writes_into_views, c=conv(3, 4), l=lin(4, 3)), image()),
    "writes into the input": lambda: (M(writes_into_the_input, c=conv(3, 4), l=lin(4, 3)), image()),
    "fills a new tensor": lambda: (M(fills_a_new_tensor, c=conv(3, 2), d=conv(3, 2), l=lin(4, 3)), image()),
    "pools": lambda: (M(pools, c=conv(3, 4), l=lin(4, 3)), image()),
    "joins": lambda: (M(joins, c=conv(3, 4), l=lin(4, 3)), image()),
    "resamples": lambda: (M(resamples, c=conv(3, 4), l=lin(4, 3)), image()),
    "products with constants": lambda: (M(products_with_constants, l=lin(6, 5), k=lin(5, 3)), vector()),
    "circular padding": lambda: (
        M(
            lambda s, x: s.l(F.relu(s.c(x)).mean((2, 3))),
            c=nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular", bias=False),
            l=lin(4, 3),
        ),
        image(),
    ),
    "Fourier transform": lambda: (M(lambda s, x: s.k(torch.fft.fft(x).real.relu()), k=lin(6, 3)), vector()),
    "keyword inputs": lambda: (
        M(lambda s, a, b: s.k(F.relu(a * 1.0) + F.relu(b)), k=lin(6, 3)),
        {"a": vector(), "b": vector()},
    ),
    "two inputs": lambda: (M(lambda s, a, b: s.k(F.relu(a) - F.relu(b)), k=lin(6, 3)), (vector(), vector())),
    "plain function": lambda: (lambda z: F.relu(z @ torch.ones(6, 3, dtype=D)), vector()),
    "embeddings": lambda: (
        M(
            lambda s, i: s.k(s.e(i).mean(1) + s.b(i) + s.e(torch.cat([i[:, 1:], i[:, :1]], 1)).relu().sum(1)),
            e=nn.Embedding(10, 6, padding_idx=0),
            b=nn.EmbeddingBag(10, 6),
            k=lin(6, 3),
        ),
        torch.randint(1, 10, (2, 7)),
    ),
}


@pytest.mark.parametrize("name", PIECEWISE_LINEAR)
def test_piecewise_linear_models_are_input_times_gradient(name: str) -> None:
    model, x = PIECEWISE_LINEAR[name]()
    before = copy.deepcopy(x)
    e = agree(model, x, oracle=True)
    assert not of_rules(e)
    for a, b in zip(tensors_in(before), tensors_in(x), strict=True):
        assert torch.equal(a, b)


def gated(gate: Callable[[Tensor], Tensor]) -> M:
    return M(lambda s, x: s.k(F.relu(s.l(x)) * gate(s.g(x))), l=lin(6, 5), g=lin(6, 5), k=lin(5, 3))


def squeeze_and_excite(s: Any, x: Tensor) -> Tensor:
    y = F.relu(s.c(x))
    return s.k((y * torch.sigmoid(s.g(y.mean((2, 3))))[..., None, None]).mean((2, 3)))  # type: ignore[no-any-return]


def norms(s: Any, x: Tensor) -> Tensor:
    return s.l(s.r(s.i(s.g(s.c(x)))).mean((2, 3)))  # type: ignore[no-any-return]


def rms_by_hand(s: Any, x: Tensor) -> Tensor:
    h = s.l(x)
    return s.k(h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6))  # type: ignore[no-any-return]


def gelu_by_hand(s: Any, x: Tensor) -> Tensor:
    h = s.l(x)
    return s.k(0.5 * h * (1.0 + torch.tanh(0.7978845608 * (h + 0.044715 * torch.pow(h, 3.0)))))  # type: ignore[no-any-return]


def heads(x: Tensor) -> Tensor:
    return x.view(2, 7, 2, 3).transpose(1, 2)


# Models whose every operation keeps relevance: the remainder must be nothing but rounding.
CONSERVING: dict[str, Callable[[], tuple[Any, Any]]] = {
    "sigmoid gate": lambda: (gated(torch.sigmoid), vector()),
    "two signals": lambda: (gated(torch.tanh), vector()),
    "SwiGLU": lambda: (gated(F.silu), vector()),
    "GLU": lambda: (M(lambda s, x: s.k(F.glu(s.l(x))), l=lin(6, 8), k=lin(4, 3)), vector()),
    "squeeze and excite": lambda: (M(squeeze_and_excite, c=conv(3, 4), g=lin(4, 4), k=lin(4, 3)), image()),
    "layer norm": lambda: (
        M(lambda s, x: s.k(F.relu(s.n(s.l(x)))), l=lin(6, 5), n=nn.LayerNorm(5), k=lin(5, 3)),
        vector(),
    ),
    "group, instance and RMS norm": lambda: (
        M(
            norms,
            c=conv(3, 4),
            g=nn.GroupNorm(2, 4),
            i=nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
            r=nn.RMSNorm(8),
            l=lin(4, 3),
        ),
        image(),
    ),
    "RMS norm by hand": lambda: (M(rms_by_hand, l=lin(6, 5), k=lin(5, 3)), vector()),
    "GELU by hand": lambda: (M(gelu_by_hand, l=lin(6, 5), k=lin(5, 3)), vector()),
    "weights made from the input": lambda: (
        M(
            lambda s, x: s.k(F.conv2d(x, s.g(x.mean((2, 3))).mean(0).view(4, 3, 1, 1)).relu().mean((2, 3))),
            g=lin(3, 12),
            k=lin(4, 3),
        ),
        image()[:1],
    ),
    "spread": lambda: (
        M(lambda s, x: s.k(torch.stack([x.std(-1), x.var(-1), x.norm(dim=-1)], -1)), k=lin(3, 3)),
        vector(),
    ),
    "products": lambda: (
        M(lambda s, x: s.k(torch.stack([x.prod(-1), (x**2).sum(-1), x[:, 0] * x[:, 1]], -1)), k=lin(3, 3)),
        vector(),
    ),
}


def activated(name: str) -> tuple[M, Tensor]:
    function = getattr(F, name)
    return M(lambda s, x: s.k(function(s.l(x))), l=lin(6, 5), k=lin(5, 3)), vector()


ACTIVATIONS = (
    "gelu silu mish elu selu celu tanh softsign hardswish hardtanh relu6 leaky_relu tanhshrink softshrink "
    "hardshrink softplus sigmoid logsigmoid"
).split()
CONSERVING |= {name: partial(activated, name) for name in ACTIVATIONS}


@pytest.mark.parametrize("name", CONSERVING)
def test_models_without_constants_keep_all_relevance(name: str) -> None:
    model, x = CONSERVING[name]()
    e = agree(model, x, oracle=False)
    assert not of_rules(e)
    assert float(e.remainder.abs().max()) <= 1e-6 * max(1.0, float(e.total.abs().max()))


def test_a_gate_written_by_hand_is_the_activation() -> None:
    model, x = CONSERVING["GELU by hand"]()
    other = M(lambda s, x: s.k(F.gelu(s.l(x), approximate="tanh")), l=model.l, k=model.k)
    a, b = (ap.LRP(EXACT)(m.to(D), x, target=0).values for m in (model, other))
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def packed(s: Any, x: Tensor) -> Tensor:
    p = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([7, 4]), batch_first=True)
    out, (h, _) = s.r(p)
    out, _ = nn.utils.rnn.pad_packed_sequence(out, batch_first=True)
    return s.k(out.sum(1) + torch.cat([h[-1], h[-2]], -1))  # type: ignore[no-any-return]


def cells(s: Any, x: Tensor) -> Tensor:
    h = c = x.new_zeros(2, 5)
    for t in range(7):
        h, c = s.r(x[:, t], (h, c))
    return s.k(s.p(s.g(h)))  # type: ignore[no-any-return]


def masked_attention(s: Any, x: Tensor) -> Tensor:
    padding = torch.tensor([[False] * 6 + [True], [False] * 7])
    ahead = torch.triu(torch.ones(7, 7), 1).bool()
    return s.k(s.m(x, x, x, key_padding_mask=padding, attn_mask=ahead)[0].mean(1))  # type: ignore[no-any-return]


def grouped_attention(s: Any, x: Tensor) -> Tensor:
    q = torch.cat([heads(x)] * 2, 1)
    out = F.scaled_dot_product_attention(q, heads(x), heads(x), is_causal=True, enable_gqa=True)
    return s.k(out.transpose(1, 2).flatten(2).mean(1))  # type: ignore[no-any-return]


def attends_to_some(s: Any, x: Tensor) -> Tensor:
    before = torch.ones(7, 7).tril(-1).bool()
    added = torch.zeros(7, 7, dtype=D).masked_fill(~before, -torch.inf)
    return s.k(sum(F.scaled_dot_product_attention(x, x, x, mask) for mask in (before, added)).mean(1))  # type: ignore[no-any-return]


ACCOUNTED: dict[str, Callable[[], tuple[Any, Any]]] = {
    "packed BiLSTM": lambda: (
        M(packed, r=nn.LSTM(6, 5, bidirectional=True, batch_first=True), k=lin(10, 3)),
        sequence(),
    ),
    "cells": lambda: (
        M(cells, r=nn.LSTMCell(6, 5), g=nn.GRUCell(5, 5), p=nn.RNNCell(5, 5), k=lin(5, 3)),
        sequence(),
    ),
    "masked MultiheadAttention": lambda: (
        M(masked_attention, m=nn.MultiheadAttention(6, 2, batch_first=True), k=lin(6, 3)),
        sequence(),
    ),
    "grouped-query causal attention": lambda: (M(grouped_attention, k=lin(12, 3)), sequence()),
    "Transformer": lambda: (
        M(
            lambda s, x: s.k(s.m(x, x).mean(1)),
            m=nn.Transformer(6, 2, 1, 1, 12, batch_first=True),
            k=lin(6, 3),
        ),
        sequence(),
    ),
    "queries that may attend to nothing": lambda: (M(attends_to_some, k=lin(6, 3)), sequence()),
    "log-softmax": lambda: (
        M(lambda s, x: F.log_softmax(s.k(F.relu(s.l(x))), -1), l=lin(6, 5), k=lin(5, 3)),
        vector(),
    ),
}


def recurrent(kind: str) -> tuple[M, Tensor]:
    layers = getattr(nn, kind)(6, 5, num_layers=2, batch_first=True, bidirectional=True)
    return M(lambda s, x: s.k(s.r(x)[0][:, -1]), r=layers, k=lin(10, 3)), sequence()


ACCOUNTED |= {f"2-layer bidirectional {kind}": partial(recurrent, kind) for kind in ("LSTM", "GRU", "RNN")}


@pytest.mark.parametrize("name", ACCOUNTED)
def test_the_ledger_accounts_for_recurrent_and_attention_models(name: str) -> None:
    model, x = ACCOUNTED[name]()
    assert not of_rules(agree(model, x, oracle=False))


@pytest.mark.parametrize(
    "name",
    [
        "packed BiLSTM",
        "cells",
        "masked MultiheadAttention",
        "Transformer",
        "queries that may attend to nothing",
    ],
)
def test_parts_written_out_compute_the_same(name: str) -> None:
    model, x = ACCOUNTED[name]()
    model = model.to(D).eval()
    torch.testing.assert_close(ap.LRP(EXACT)(model, x).output, model(x).detach(), rtol=1e-9, atol=1e-12)


def test_lstm_gates_take_nothing() -> None:
    """One step of an LSTM cell, with the formulas of Arras et al. 2017 written out."""
    cell = nn.LSTMCell(3, 2, bias=False).double()
    x, h, c = torch.randn(1, 3, dtype=D), torch.randn(1, 2, dtype=D), torch.randn(1, 2, dtype=D)
    e = ap.LRP(EXACT)(lambda x, h, c: cell(x, (h, c))[0], (x, h, c), target=1)
    assert isinstance(e.values, tuple)
    z = x @ cell.weight_ih.T + h @ cell.weight_hh.T
    i, f, g, _ = z.chunk(4, 1)
    old, new = torch.sigmoid(f) * c, torch.sigmoid(i) * torch.tanh(g)
    to_old, to_new = (float(e.total) * part[0, 1] / (old + new)[0, 1] for part in (old, new))
    assert float(e.values[2][0, 1]) == pytest.approx(to_old.item())
    row = 2 * 2 + 1  # the candidate's second unit: the gates' rows get no relevance
    expected = x[0] * cell.weight_ih[row] / g[0, 1] * to_new
    torch.testing.assert_close(e.values[0][0], expected.detach(), rtol=1e-6, atol=1e-9)


# The same sum of values, weighed by attention in as many ways; the weights are constants to "recurrent".
WEIGHED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "product": lambda w, h: (w.softmax(1)[..., None] * h).sum(1),
    "weights first": lambda w, h: (w.softmax(1)[:, None] @ h)[:, 0],
    "weights last": lambda w, h: (h.mT @ w.softmax(1)[..., None])[..., 0],
    "einsum": lambda w, h: torch.einsum("btd,bt->bd", h, w.softmax(1)),
    "masked": lambda w, h: (w.softmax(1).masked_fill(w < -99, 0.0)[..., None] * h).sum(1),
    "normalised": lambda w, h: ((w.softmax(1) / w.softmax(1).sum(1, keepdim=True))[..., None] * h).sum(1),
    "dropped out": lambda w, h: (F.dropout(w.softmax(1), 0.0, True)[..., None] * h).sum(1),
    "dense layer": lambda w, h: F.linear(h[0].T, w.softmax(1)).T,
}


@pytest.mark.parametrize("form", WEIGHED)
def test_attention_weights_are_constant_however_they_weigh(form: str) -> None:
    weights, x = lin(6, 1).to(D), torch.randn(1, 7, 6, dtype=D)
    e = ap.LRP("recurrent")(lambda h: WEIGHED[form](weights(h)[..., 0], h), x, target=2)
    expected = torch.zeros_like(x)
    expected[..., 2] = (weights(x)[..., 0].softmax(1) * x[..., 2]).detach()
    torch.testing.assert_close(e.values, expected, rtol=1e-4, atol=1e-6)


def test_a_softmax_at_the_end_passes_relevance_by_its_gradient() -> None:
    model, x = recurrent("LSTM")
    model.to(D)
    p = model(x).softmax(1).detach()
    slopes = p[:, :1] * (torch.eye(3, dtype=D)[:1] - p)
    e = ap.LRP("recurrent")(lambda v: model(v).softmax(1), x, target=0)
    expected = ap.LRP("recurrent")(model, x, target=lambda s: (s * slopes).sum(1))
    torch.testing.assert_close(e.values, expected.values)
    attention = nn.MultiheadAttention(6, 2, batch_first=True).to(D)
    e = ap.LRP(EXACT)(lambda v: attention(v, v, v)[1][:, 0], x, target=0)

    def shown(v: Tensor) -> Tensor:
        q, k, _ = F.linear(v, attention.in_proj_weight, attention.in_proj_bias).chunk(3, -1)
        scores = (heads(q) * 3**-0.5) @ heads(k).mT
        return scores.softmax(-1).mean(1)[:, 0]

    torch.testing.assert_close(e.values, ap.LRP(EXACT)(shown, x, target=0).values)


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return 3 * ctx.saved_tensors[0] ** 2 * gradient


HIDDEN: dict[str, Callable[[], M]] = {
    "CubeBackward": lambda: M(lambda s, x: s.k(Cube.apply(s.l(x))), l=lin(6, 5), k=lin(5, 3)),
    "cdist": lambda: M(lambda s, x: s.k(torch.cdist(s.l(x), s.l.weight.T)), l=lin(6, 5), k=lin(6, 3)),
    "multi_head_attention_forward": lambda: M(
        lambda s, x: s.k(s.m(x, x, x)[0]), m=nn.MultiheadAttention(6, 2, add_zero_attn=True), k=lin(6, 3)
    ),
    "lstm": lambda: M(lambda s, x: s.k(s.r(x)[0]), r=nn.LSTM(6, 5, proj_size=4), k=lin(4, 3)),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_has_no_rule_is_named_with_its_amount(name: str) -> None:
    e = agree(HIDDEN[name](), vector(), oracle=False)
    assert any(name in warning for warning in e.warnings)
    assert abs(e.ledger.absorbed["unruled"]) > 1e-6
    assert e.remainder.sum().item() == pytest.approx(sum(e.ledger.absorbed.values()), rel=1e-6)
    plain = ap.LRP(EXACT)(HIDDEN[name]().to(D), vector(), target=0)
    assert any(name in warning for warning in plain.warnings)
    assert len(of_rules(plain)) == len(of_rules(e))
    with pytest.raises(ap.InputError, match=name):
        ap.LRP(EXACT, strict=True)(HIDDEN[name]().to(D), vector(), target=0)


def autocast(s: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=s.k.weight.dtype == torch.float32):
        y = F.relu(s.b(s.t(F.relu(s.c(x)))))
        y = y.flatten(2)
        weights = (y @ y.mT).to(x.dtype).softmax(-1)
        return s.k((weights @ y).mean(-1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("rule", [Epsilon(), AlphaBeta(), Gamma(), Flat(), WSquare(), Box()], ids=repr)
def test_a_model_that_computes_in_mixed_precision(rule: Any) -> None:
    model, x = (
        M(autocast, c=conv(3, 4), t=nn.ConvTranspose2d(4, 4, 2), b=nn.BatchNorm2d(4), k=lin(4, 3)),
        image(),
    )
    composite = Composite(convolution=rule, linear=rule)
    low, output = ap.LRP(composite)(model.eval(), x.float(), target=0), model(x.float()).detach()
    torch.testing.assert_close(low.output, output, rtol=0, atol=0)
    assert low.values.dtype == torch.float32
    exact = ap.LRP(composite)(model.to(D), x, target=0).values
    assert float((low.values - exact).abs().sum()) < 0.2 * float(exact.abs().sum())


def test_weights_that_were_computed_before_are_constants() -> None:
    weights = torch.randn(6, 3, dtype=D, requires_grad=True) * 1.0
    constant, x = weights.detach(), vector()
    for ledger in (False, True):
        method = ap.LRP(EXACT, strict=True, ledger=ledger)
        e = method(lambda v: F.relu(v @ weights.abs()) * weights.norm(), x, target=0)
        expected = method(lambda v: F.relu(v @ constant.abs()) * constant.norm(), x, target=0)
        torch.testing.assert_close(e.values, expected.values)


@pytest.mark.parametrize("name", ["epsilon", "epsilon-plus-flat", "epsilon-gamma-box"])
def test_backward_hooks_of_the_user_change_nothing(name: str) -> None:
    net = nn.Sequential(
        nn.Flatten(), nn.Unflatten(1, (3, 8, 8)), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4),
        nn.Sequential(nn.ReLU(), nn.Flatten()), nn.Linear(144, 2),
    )  # fmt: skip
    net, x = net.double().eval(), image()
    expected = [ap.LRP(name, ledger=ledger)(net, x, target=0) for ledger in (False, True)]
    for module in net.modules():
        module.register_full_backward_hook(lambda module, arrived, left: (2 * arrived[0],))
    for e in expected:
        found = e.method(net, x, target=0)
        assert not of_rules(found)
        torch.testing.assert_close(found.values, e.values, rtol=1e-12, atol=0)


def test_torchscript_is_refused() -> None:
    scripted = torch.jit.trace(nn.Sequential(nn.Linear(6, 3), nn.ReLU()), torch.randn(2, 6))
    with pytest.raises(ap.InputError, match="TorchScript"):
        ap.LRP()(scripted, torch.randn(2, 6))


def batch_normed() -> M:
    return M(
        lambda s, x: s.l(F.relu(s.b(s.c(x))).mean((2, 3))),
        c=conv(3, 4),
        b=nn.BatchNorm2d(4),
        l=nn.Linear(4, 3),
    )


EXPORTED: dict[str, Callable[[], tuple[M, Tensor]]] = {
    "convolution and batch norm": lambda: (batch_normed(), image()),
    "transformer": lambda: (
        M(
            lambda s, x: s.k(s.m(x).mean(1)),
            m=nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 12, batch_first=True), 1),
            k=nn.Linear(6, 3),
        ),
        sequence(),
    ),
    "LSTM": lambda: (
        M(lambda s, x: s.k(s.r(x)[0][:, -1]), r=nn.LSTM(6, 5, batch_first=True), k=lin(5, 3)),
        sequence(),
    ),
}


@pytest.mark.parametrize("name", EXPORTED)
@pytest.mark.parametrize("composite", ["epsilon", "epsilon-alpha2beta1-flat", "epsilon-gamma-box"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_exported_programs_get_the_same_relevance(name: str, composite: str, tmp_path: Any) -> None:
    model, x = EXPORTED[name]()
    model = model.to(D).eval()
    program = torch.export.export(model, (x,))
    torch.export.save(program, tmp_path / "model.pt2")
    expected = ap.LRP(composite)(model, x, target=0).values
    for made in (program.module(), torch.export.load(tmp_path / "model.pt2").module()):
        e = agree(made, x, False, composite)
        torch.testing.assert_close(e.values, expected, rtol=1e-9, atol=1e-12)
        last = "l" if name == "convolution and batch norm" else "k"
        assert {row.module for row in e.ledger if row.operation == "linear"} >= {last}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_decomposed_programs_get_the_same_relevance() -> None:
    model, x = EXPORTED["convolution and batch norm"]()
    model = model.to(D).eval()
    made = torch.export.export(model, (x,)).run_decompositions().module()
    for name in ("epsilon", "epsilon-alpha2beta1-flat"):
        expected = ap.LRP(name)(model, x, target=0).values
        torch.testing.assert_close(agree(made, x, False, name).values, expected, rtol=1e-9, atol=1e-12)


def test_relevance_at_inner_layers() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(80, 2)
    )
    net, x = net.double(), image()
    for name in ("epsilon", "epsilon-plus-flat", "epsilon-gamma-box"):
        one, both = ap.LRP(name, at="2")(net, x, target=0), ap.LRP(name, at=("1", "2"))(net, x, target=0)
        assert isinstance(both.values, dict)
        torch.testing.assert_close(one.values, both.values["2"])
        with_ledger = ap.LRP(name, ledger=True)(net, x, target=0)
        arrived = {row.module: row.arrived for row in with_ledger.ledger}
        assert float(one.values.sum()) == pytest.approx(arrived["2"])
        assert float(both.values["1"].sum()) == pytest.approx(arrived["1"])
    with pytest.raises(ap.InputError, match="no layer 'conv1'"):
        ap.LRP(at="conv1")(net, x)


def test_rules_by_name_type_and_depth() -> None:
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    composite = Composite(first=Epsilon(0.1), last=Epsilon(0.2), names=(("2", Epsilon(0.3)),))
    e = ap.LRP(composite, ledger=True)(net, vector(), target=0)
    assert [row.rule for row in e.ledger if row.operation == "linear"] == [
        "Epsilon(ε=0.1)", "Epsilon(ε=0.3)", "Epsilon(ε=0.2)",
    ]  # fmt: skip
    typed = Composite(types=(("Lin*", Epsilon(0.4)),), first=Epsilon(0.1))
    assert "0.4" in ap.LRP(typed, ledger=True)(net, vector(), target=0).ledger.rows[0].rule


def test_contrast_is_the_difference_of_its_classes_in_a_linear_model() -> None:
    net, x = nn.Linear(6, 3, bias=False).double(), vector()
    composite = Composite(linear=Epsilon(0.0))
    a, b = (ap.LRP(composite)(net, x, target=t).values for t in (0, 2))
    torch.testing.assert_close(ap.LRP(composite)(net, x, target=ap.Contrast(0, 2)).values, a - b)


def test_two_threads_explain_the_same_model() -> None:
    model, x = batch_normed().eval(), torch.randn(2, 3, 8, 8)
    expected = {
        n: ap.LRP(n, at="b")(model, x, target=0).values for n in ("epsilon", "epsilon-alpha2beta1-flat")
    }
    found: list[tuple[str, Any]] = []

    def work(name: str) -> None:
        for _ in range(5):
            found.append((name, ap.LRP(name, at="b")(model, x, target=0).values))

    threads = [threading.Thread(target=work, args=(name,)) for name in expected for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    assert all(torch.equal(values, expected[name]) for name, values in found)
    assert not any(module._forward_hooks for module in model.modules())


def test_the_composite_is_picked_by_what_the_model_is_made_of() -> None:
    lstm = M(lambda s, x: s.k(s.r(x)[0][:, -1]), r=nn.LSTM(6, 5, batch_first=True), k=lin(5, 3))
    picks = [
        (batch_normed().double().eval(), image(), "epsilon-plus-flat"),
        (lstm.double(), sequence(), "recurrent"),
        (EXPORTED["transformer"]()[0].double().eval(), sequence(), "transformer"),
        (nn.Linear(6, 3).double(), vector(), "epsilon"),
    ]
    for model, x, name in picks:
        assert ap.LRP()(model, x).notes["composite"] == name


class Unseen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.tanh()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * (1 - ctx.saved_tensors[0] ** 2)


@pytest.mark.parametrize(
    "last", [lambda x: x, lambda x: x @ torch.ones(3, 2, dtype=D)], ids=["end", "before"]
)
def test_a_function_that_cannot_be_seen_is_told_wherever_it_is(last: Callable[[Tensor], Tensor]) -> None:
    net, x = nn.Linear(6, 3).double(), vector()

    def model(x: Tensor) -> Tensor:
        return last(Unseen.apply(net(x)))  # type: ignore[no-untyped-call]

    found = ap.LRP("epsilon", ledger=True)(model, x, target=0)
    assert any("cannot be seen (UnseenBackward)" in warning for warning in found.warnings)
    assert found.ledger is not None
    assert abs(found.ledger.residual) < 1e-9
    assert found.ledger.absorbed["unruled"] != 0
    with pytest.raises(InputError, match="cannot be seen"):
        ap.LRP("epsilon", strict=True)(model, x, target=0)


class Reversed(torch.autograd.Function):
    """Gradient reversal as it is usually written: a view whose gradient is its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


class Returned(Reversed):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize("function", [Reversed, Returned])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("hooked", [False, True])
def test_a_view_that_a_custom_autograd_function_makes_is_told(
    function: Any, place: int, hooked: bool
) -> None:
    net = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)).double()
    if hooked:  # whose views are no part of the model
        for layer in net:
            layer.register_full_backward_hook(lambda *_: None)
        assert not [w for w in ap.LRP("epsilon")(net, vector(), target=0).warnings if "cannot be seen" in w]

    def model(x: Tensor) -> Tensor:
        for i, layer in enumerate([*net, nn.Identity()]):
            x = layer(function.apply(x) if i == place else x)
        return x

    for method in (ap.LRP("epsilon"), ap.DeepLIFT(), ap.GuidedBackprop(), ap.Deconvnet()):
        warnings = method(model, vector(), target=0).warnings
        assert [w for w in warnings if f"cannot be seen ({function.__name__}Backward)" in w], method
    with pytest.raises(InputError, match="cannot be seen"):
        ap.LRP("epsilon", strict=True)(model, vector(), target=0)


@pytest.mark.parametrize("method", [ap.LRP("epsilon"), ap.DeepLIFT(), ap.GuidedBackprop(), ap.Deconvnet()])
def test_methods_that_replace_functions_do_not_pass_over_those_that_they_cannot_see(method: Any) -> None:
    torch.manual_seed(0)
    first, last = nn.Linear(6, 5).double(), nn.Linear(5, 3).double()

    @torch.jit.script
    def rectified(x: Tensor) -> Tensor:
        return torch.relu(x) * 2.0

    whole = nn.Sequential(first, nn.ReLU(), last)
    for scripted in (torch.jit.script(whole), nn.Sequential(first, torch.jit.script(last))):
        with pytest.raises(InputError, match="TorchScript, whose functions cannot be seen"):
            method(scripted, vector(), target=0)
    for unseen in (rectified, Unseen.apply):

        def model(x: Tensor, unseen: Any = unseen) -> Tensor:
            return last(unseen(first(x)))

        told = method(model, vector(), target=0).warnings
        assert [w for w in told if "cannot be seen" in w]
        assert not [w for w in told if "has no ReLU" in w]
    assert not [w for w in method(whole, vector(), target=0).warnings if "cannot be seen" in w]


def test_attention_over_the_edges_of_a_graph_passes_relevance_to_the_messages() -> None:
    """However the softmax over the neighbours is written, and whatever is subtracted to keep it finite."""
    source, target = torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 2]])
    w = torch.randn(6, 6, dtype=D) / 2

    def model(x: Tensor, shift: Callable[[Tensor], Any]) -> Tensor:
        h = x @ w
        score = F.leaky_relu((h[:, source] * h[:, target]).sum(-1), 0.2)
        weight = torch.exp(score - shift(score))
        sums = torch.zeros(len(x), 5, dtype=D).index_add(1, target, weight)[:, target]
        message = h[:, source] * (weight / (sums + 1e-16))[..., None]
        return torch.zeros_like(h).index_add(1, target, message).relu().mean(1)

    x = torch.randn(2, 5, 6, dtype=D)
    shifts = [lambda s: 0, lambda s: s.amax(-1, keepdim=True), lambda s: s.amax().detach()]
    for composite in ("epsilon", "recurrent"):
        plain, *others = (ap.LRP(composite)(lambda x, s=s: model(x, s), x, target=0) for s in shifts)
        assert plain.remainder.abs().max() < 1e-2 * plain.total.abs().max()
        for other in others:
            torch.testing.assert_close(other.values, plain.values)


def test_a_sparse_matrix_passes_relevance_along_the_edges_of_a_graph() -> None:
    torch.manual_seed(0)
    edges, x = torch.eye(6, dtype=D) + torch.rand(6, 6, dtype=D).round(), torch.randn(6, 4, dtype=D)
    sparse = edges.to_sparse()
    found = ap.LRP("epsilon", strict=True)(lambda x: torch.sparse.mm(sparse, x), x, target=1)
    assert not [warning for warning in found.warnings if "no rule" in warning]
    expected = torch.zeros_like(x)  # of all nodes together, whose scores are added
    expected[:, 1] = edges.sum(0) * x[:, 1]
    torch.testing.assert_close(found.values, expected)
