"""The table of operations: each name can be met, stands in one place, and passes all relevance on if it says so."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import get_overridable_functions

import apportion as ap
from apportion.engines.substitution.function_names import MOVES, identify
from apportion.methods.propagation.operations._elementwise import AWAY_FROM_ZERO, ELEMENTWISE
from apportion.methods.propagation.operations.table import HOMOGENEOUS, TABLE

aten: Any = torch.ops.aten
D = torch.float64
MASK = torch.tensor([True, False, True, False])
PLACES = torch.tensor([0, 2, 1, 2])


def line(f: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """A function of (4,) entries, fed with part of the picture."""
    return lambda x: f(x[0, 0, 0, :4])


def pair(f: Callable[[Tensor, Tensor], Any]) -> Callable[[Tensor], Any]:
    """A function of two tensors of (4,) entries."""
    return lambda x: f(x[0, 0, 0, :4], x[0, 1, 1, :4])


def volume(f: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    return lambda x: f(x.view(1, 1, 2, 6, 6))


def rows(f: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    return lambda x: f(x.view(1, 12, 6))


def unpooled(pool: Any, unpool: Any) -> Callable[[Tensor], Any]:
    def f(x: Tensor) -> Any:
        with torch.no_grad():
            places = pool(x.detach(), 2, return_indices=True)[1]
        return unpool(pool(x, 2), places, 2)

    return f


def spectrum(x: Tensor) -> Tensor:
    return torch.stft(x.view(1, -1), 16, window=torch.ones(16, dtype=D), return_complex=True)


def complex_of(x: Tensor) -> Tensor:
    return torch.complex(x[0, 0], x[0, 1])


# One call of each homogeneous function, on a picture of (1, 2, 6, 6) that holds both signs.
HOMOGENEOUS_CALLS: dict[str, Callable[[Tensor], Any]] = {
    **{
        name: getattr(torch, name)
        for name in """neg positive sum nansum mean nanmean abs max min amax amin sort msort median nanmedian mode
        aminmax conj conj_physical resolve_conj resolve_neg nan_to_num diff std std_mean norm""".split()
    },
    "hypot": pair(torch.hypot),
    "maximum": pair(torch.maximum),
    "minimum": pair(torch.minimum),
    "fmax": pair(torch.fmax),
    "fmin": pair(torch.fmin),
    "cumsum": lambda x: torch.cumsum(x, 3),
    "leaky_relu": F.leaky_relu,
    "rrelu": F.rrelu,
    "topk": lambda x: torch.topk(x, 2),
    "cummax": lambda x: torch.cummax(x, 3),
    "cummin": lambda x: torch.cummin(x, 3),
    "quantile": lambda x: torch.quantile(x, 0.3, 3),
    "nanquantile": lambda x: torch.nanquantile(x, 0.3, 3),
    "trapezoid": lambda x: torch.trapezoid(x, dim=3),
    "kthvalue": lambda x: torch.kthvalue(x, 2),
    "trace": lambda x: torch.trace(x[0, 0]),
    "frobenius_norm": lambda x: torch.frobenius_norm(x, (2, 3)),
    "linalg_vector_norm": lambda x: torch.linalg.vector_norm(x, 3, dim=1),
    "linalg_matrix_norm": torch.linalg.matrix_norm,
    "where": pair(lambda a, b: torch.where(MASK, a, b)),
    "masked_fill": pair(lambda a, b: a.masked_fill(MASK, b[0])),
    "fill": pair(lambda a, b: torch.fill(a, b[0])),
    "zero": lambda x: x + aten.zero(x),
    "scatter_add": pair(lambda a, b: a.scatter_add(0, PLACES, b)),
    "index_add": pair(lambda a, b: a.index_add(0, PLACES, b)),
    "native_dropout": lambda x: torch.native_dropout(x, 0.5, False),
    "fold": rows(lambda x: F.fold(x[:, :, :4], (3, 3), (2, 2))),
    "col2im": rows(lambda x: aten.col2im(x[:, :, :4], [3, 3], [2, 2], [1, 1], [0, 0], [1, 1])),
    # pooling
    "fractional_max_pool2d": lambda x: F.fractional_max_pool2d(
        x, 2, 3, _random_samples=torch.full((1, 2, 2), 0.3, dtype=D)
    ),
    "fractional_max_pool3d": volume(
        lambda x: F.fractional_max_pool3d(
            x, (1, 2, 2), (1, 3, 3), _random_samples=torch.full((1, 1, 3), 0.3, dtype=D)
        )
    ),
    "adaptive_max_pool1d": rows(lambda x: F.adaptive_max_pool1d(x, 2)),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, 2),
    "adaptive_max_pool3d": volume(lambda x: F.adaptive_max_pool3d(x, 2)),
    "max_pool1d_with_indices": rows(lambda x: F.max_pool1d(x, 2, return_indices=True)),
    "max_pool2d_with_indices": lambda x: F.max_pool2d(x, 2, return_indices=True),
    "max_pool3d_with_indices": volume(lambda x: F.max_pool3d(x, 2, return_indices=True)),
    "max_unpool1d": rows(unpooled(F.max_pool1d, F.max_unpool1d)),
    "max_unpool2d": unpooled(F.max_pool2d, F.max_unpool2d),
    "max_unpool3d": volume(unpooled(F.max_pool3d, F.max_unpool3d)),
    "avg_pool1d": rows(lambda x: F.avg_pool1d(x, 2)),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 2),
    "avg_pool3d": volume(lambda x: F.avg_pool3d(x, 2)),
    "adaptive_avg_pool1d": rows(lambda x: F.adaptive_avg_pool1d(x, 2)),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 2),
    "_adaptive_avg_pool2d": lambda x: aten._adaptive_avg_pool2d(x, [2, 2]),
    "adaptive_avg_pool3d": volume(lambda x: F.adaptive_avg_pool3d(x, 2)),
    "_adaptive_avg_pool3d": volume(lambda x: aten._adaptive_avg_pool3d(x, [2, 2, 2])),
    "lp_pool1d": rows(lambda x: F.lp_pool1d(x.abs(), 3, 2)),
    "lp_pool2d": lambda x: F.lp_pool2d(x.abs(), 3, 2),
    "lp_pool3d": volume(lambda x: F.lp_pool3d(x.abs(), 3, 2)),
    # resampling
    "interpolate": lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
    "upsample_nearest1d": rows(lambda x: aten.upsample_nearest1d(x, [9])),
    "upsample_nearest2d": lambda x: aten.upsample_nearest2d(x, [9, 9]),
    "upsample_nearest3d": volume(lambda x: aten.upsample_nearest3d(x, [3, 4, 9])),
    "upsample_linear1d": rows(lambda x: aten.upsample_linear1d(x, [9], False)),
    "upsample_bilinear2d": lambda x: aten.upsample_bilinear2d(x, [9, 9], False),
    "upsample_bicubic2d": lambda x: aten.upsample_bicubic2d(x, [9, 9], False),
    "upsample_trilinear3d": volume(lambda x: aten.upsample_trilinear3d(x, [3, 4, 9], False)),
    "_upsample_bilinear2d_aa": lambda x: aten._upsample_bilinear2d_aa(x, [4, 4], False),
    "_upsample_bicubic2d_aa": lambda x: aten._upsample_bicubic2d_aa(x, [4, 4], False),
    "affine_grid": lambda x: F.affine_grid(x[0, 0].reshape(-1)[None, :6].view(1, 2, 3), [1, 1, 4, 4], False),
    # complex numbers
    "complex": complex_of,
    "view_as_complex": lambda x: torch.view_as_complex(x.view(-1, 2)),
    "view_as_real": lambda x: torch.view_as_real(complex_of(x)),
    "imag": lambda x: torch.imag(complex_of(x)),
    "stft": spectrum,
    "istft": lambda x: torch.istft(spectrum(x), 16, window=torch.ones(16, dtype=D)),
}

# Others that have a rule by which nothing is lost: products of entries, bounds and norms that depend on the input.
CONSERVING_CALLS: dict[str, Callable[[Tensor], Any]] = {
    "prod": lambda x: torch.prod(x, 3),
    "cumprod": lambda x: torch.cumprod(x, 2),
    "linalg_vecdot": lambda x: torch.linalg.vecdot(x, x.flip(1)),
    "var": torch.var,
    "renorm": lambda x: torch.renorm(x[0], 2, 0, 1.0),
    "prelu": lambda x: F.prelu(x, torch.tensor([0.3, 2.0], dtype=D)),
    "clamp with constant bounds": lambda x: torch.clamp(x, -0.5, 0.5),
    "clamp with bounds of its own": lambda x: torch.clamp(x, x.amin(3, True) / 2, x.amax(3, True) / 2),
    "clamp_min": lambda x: x.clamp_min(x.mean()),
    "clamp_max": lambda x: x.clamp_max(x.mean()),
    "scatter_reduce": pair(lambda a, b: a.scatter_reduce(0, PLACES, b, "mean")),
    "index_reduce": pair(lambda a, b: a.index_reduce(0, PLACES, b, "amax")),
    "segment_reduce": line(lambda x: torch.segment_reduce(x, "mean", lengths=torch.tensor([1, 3]))),
}


def picture() -> Tensor:
    return torch.randn(1, 2, 6, 6, dtype=D, generator=torch.Generator().manual_seed(3))


def scores(result: Any) -> Tensor:
    """All numbers of a result in one row, those of a complex one as pairs."""
    found = result if isinstance(result, Tensor) else next(t for t in result if t.is_floating_point())
    return (torch.view_as_real(found) if found.is_complex() else found).reshape(1, -1)


@pytest.mark.parametrize("name", [*HOMOGENEOUS_CALLS, *CONSERVING_CALLS])
def test_eulers_theorem(name: str) -> None:
    """`Σ x · ∂y/∂x = y`, for any sum of the outputs: nothing is lost and nothing invented."""
    call, x = {**HOMOGENEOUS_CALLS, **CONSERVING_CALLS}[name], picture()
    try:
        many = scores(call(x.requires_grad_())).shape[1]
    except RuntimeError as error:  # `aminmax` before torch 2.12
        pytest.skip(f"this torch does not differentiate it: {error}")
    x = x.detach()
    weights = torch.randn(many, dtype=D, generator=torch.Generator().manual_seed(4))
    e = ap.LRP("epsilon", ledger=True, strict=True)(
        lambda z: scores(call(z)), x, target=lambda s: s @ weights
    )
    assert abs(e.remainder.item()) < 1e-9 * max(1, abs(e.total.item()))
    if name in HOMOGENEOUS_CALLS:
        assert name in {row.operation for row in e.ledger} | {"zero"}  # of which nothing is left


def test_every_homogeneous_function_is_called() -> None:
    assert set(HOMOGENEOUS_CALLS) == HOMOGENEOUS


@pytest.mark.parametrize(
    "call",
    [
        pair(lambda a, b: a.scatter_reduce(0, PLACES, b, "prod")),
        pair(lambda a, b: a.index_reduce(0, PLACES, b, "prod")),
        line(lambda x: torch.segment_reduce(x, reduce="prod", lengths=torch.tensor([1, 3]))),
        pair(lambda a, b: torch.polar(a, b)),
        pair(lambda a, b: a.exp() ** b),
        pair(lambda a, b: torch.xlogy(a, b.exp())),
        lambda x: torch.bernoulli(torch.sigmoid(x)) + x,
        lambda x: torch.normal(x, 1.0) + x,
    ],
    ids=["scatter_reduce", "index_reduce", "segment_reduce", "polar", "pow", "xlogy", "bernoulli", "normal"],
)
def test_what_is_not_homogeneous_has_no_rule(call: Callable[[Tensor], Any], request: Any) -> None:
    name = request.node.callspec.id
    found = ap.LRP("epsilon")(lambda z: scores(call(z)), picture(), target=0)
    assert any(f"no rule for '{name}'" in warning for warning in found.warnings)
    with pytest.raises(ap.InputError, match=f"no rule for '{name}'"):
        ap.LRP("epsilon", strict=True)(lambda z: scores(call(z)), picture(), target=0)


def test_a_running_product_shares_alike_among_its_factors() -> None:
    x = torch.tensor([[2.0, 3.0, 5.0]])
    for target, expected in enumerate(([2, 0, 0], [3, 3, 0], [10, 10, 10])):
        e = ap.LRP("epsilon")(lambda z: torch.cumprod(z, 1), x, target=target)
        torch.testing.assert_close(e.values, torch.tensor([expected], dtype=torch.float32))


def test_a_bound_that_depends_on_the_input_takes_what_it_gives() -> None:
    x = torch.tensor([[1.0, 3.0]])
    e = ap.LRP("epsilon")(lambda z: z[:, :1].clamp(min=z[:, 1:]), x)
    assert e.values.tolist() == [[0.0, 3.0]]


def test_each_name_stands_in_one_place() -> None:
    assert not HOMOGENEOUS & ELEMENTWISE
    assert not (HOMOGENEOUS | ELEMENTWISE) & TABLE.keys()
    assert not (HOMOGENEOUS | ELEMENTWISE) & MOVES
    assert not AWAY_FROM_ZERO - ELEMENTWISE - TABLE.keys()


def test_each_name_can_be_met() -> None:
    functions = [f for found in get_overridable_functions().values() for f in found if hasattr(f, "__name__")]
    packets = [getattr(aten, name) for name in dir(aten)]
    functions += [getattr(p, p.overloads()[0]) for p in packets if hasattr(p, "overloads") and p.overloads()]
    names = set()
    for function in functions:
        try:
            names.add(identify(function).name)
        except AttributeError:  # the getter of a Python property, which is not a function of torch
            continue
    assert not (HOMOGENEOUS | ELEMENTWISE) - names


@pytest.mark.parametrize("join", [torch.cat, torch.stack])
def test_a_gate_next_to_a_signal_in_one_tensor_is_a_signal(join: Callable[..., Tensor]) -> None:
    def model(x: Tensor, y: Tensor, z: Tensor, swapped: bool) -> Tensor:
        pair = [y, torch.sigmoid(x)] if swapped else [torch.sigmoid(x), y]
        return (join(pair, 1) * join([z, z], 1)).flatten(1).sum(1)

    one = [torch.tensor([[number]]) for number in (0.5, 2.0, 3.0)]
    gate, half = torch.sigmoid(one[0]) * one[2] / 2, one[1] * one[2] / 2
    for swapped in (False, True):
        values = ap.LRP("epsilon")(partial(model, swapped=swapped), tuple(one)).values
        torch.testing.assert_close(values, (gate, half, gate + half))


@pytest.mark.parametrize(
    ("function", "at_zero"),
    [
        (lambda z: torch.pow(2.0, z), 1.0),
        (lambda z: torch.pow(torch.tensor(2.0, dtype=D), z), 1.0),
        (lambda z: 2.0**z, 1.0),
        (lambda z: z**0.0, 1.0),
        (lambda z: torch.float_power(2.0, z), 1.0),
        (torch.exp, 1.0),
        (lambda z: F.hardtanh(z, 1.0, 2.0), 1.0),
        (lambda z: z.clamp(min=torch.tensor([0.7], dtype=D)), 0.7),
        (F.relu6, 0.0),
        (torch.tanh, 0.0),
    ],
)
def test_near_zero_a_constant_is_damped(function: Any, at_zero: float) -> None:
    x = torch.tensor([[1.0, 1.0 - 1e-9]], dtype=D)
    z = x[:, :1] - x[:, 1:]
    slope = (function(z) - at_zero) / z + at_zero / (z + torch.finfo(D).eps / z)
    e = ap.LRP("epsilon")(lambda v: function(v[:, :1] - v[:, 1:]), x)
    torch.testing.assert_close(e.values, slope * x * torch.tensor([[1.0, -1.0]], dtype=D), rtol=1e-4, atol=0)


def test_a_log_of_a_sum_of_exponentials_is_the_same_in_all_its_forms() -> None:
    forms = (
        lambda x: torch.logsumexp(x, 1),
        lambda x: torch.logaddexp(x[:, 0], x[:, 1]),
        lambda x: torch.logcumsumexp(x, 1)[:, -1],
    )
    x = torch.tensor([[0.3, -0.7]], dtype=D)
    for form in forms:
        e = ap.LRP("epsilon", strict=True)(form, x)
        torch.testing.assert_close(e.values, x * x.softmax(1))
