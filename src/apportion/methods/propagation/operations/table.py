"""How relevance passes each operation that is not left to its own gradient.

The gradient itself is the right rule (LRP-0) wherever an operation only moves entries, adds them up or selects
among them, and more generally wherever it is positively homogeneous: by Euler's theorem `Σ x · ∂y/∂x = y`.
`TABLE` maps the name of a function to its treatment; `other` takes every name that is not in it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from apportion.engines.substitution import Call, Substitute, native, no_derivatives
from apportion.engines.substitution.function_names import MOVES
from apportion.methods.propagation._softmax import from_equal_scores
from apportion.methods.propagation._tags import Tag, carry_kind, kind_of, state_of, tag
from apportion.methods.propagation.operations import (
    _attention,
    _elementwise,
    _layers,
    _normalisation,
    _products,
    _recurrent,
)

# Homogeneous functions that select among entries: of gates they make gates.
SELECTING = frozenset(
    "topk sort msort kthvalue max min amax amin maximum minimum cummax cummin where masked_fill".split()
)

HOMOGENEOUS = SELECTING | frozenset(
    """neg positive sum nansum mean nanmean cumsum leaky_relu rrelu abs fmax fmin
    median nanmedian quantile nanquantile trapezoid mode aminmax fractional_max_pool2d fractional_max_pool3d
    adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d max_pool2d_with_indices max_pool3d_with_indices
    max_pool1d_with_indices max_unpool1d max_unpool2d max_unpool3d avg_pool1d avg_pool2d avg_pool3d
    adaptive_avg_pool1d adaptive_avg_pool2d _adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool3d lp_pool1d
    lp_pool2d lp_pool3d interpolate upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d
    upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa norm
    linalg_vector_norm linalg_matrix_norm frobenius_norm fill zero col2im fold scatter_add
    index_add diff native_dropout std std_mean trace complex view_as_real view_as_complex imag conj conj_physical
    resolve_conj resolve_neg hypot stft istft nan_to_num affine_grid""".split()
)

# Sums of positive numbers are positive.
SUMS = frozenset({"sum", "mean", "cumsum", "index_add", "scatter_add"})

# Weights in [0, 1]: with one of these in a product, the other factor takes all the relevance.
GATES = frozenset({"sigmoid", "hardsigmoid", "special_ndtr"})
DROPOUTS = frozenset(
    "dropout dropout1d dropout2d dropout3d feature_dropout alpha_dropout feature_alpha_dropout".split()
)
TAYLOR = frozenset(
    {"log_softmax", "logsumexp", "logaddexp", "logcumsumexp", "softmin", "special_log_softmax"}
)


def other(call: Call, *args: Any, **kwargs: Any) -> Any:
    """Moves, homogeneous functions, comparisons; and functions that no rule is known for."""
    name = call.name
    if name in MOVES or name in SELECTING:
        result = call.native()
        carry_kind(call, result)
        return result
    if name in SUMS and all(kind_of(call, t) == "positive" for t in call.actives):
        return tag(call, call.native(), "positive")
    # With a sparse matrix that is constant, as the edges of a graph.
    sparse = name in ("_sparse_mm", "sparse_mm") and len(call.actives) == 1
    if sparse or name in HOMOGENEOUS or name.startswith(("fft_", "linalg_norm")):
        return call.native()
    if name in _elementwise.ELEMENTWISE:
        return _elementwise.elementwise(call, *args, **kwargs)
    return state_of(call).unruled(call)


def softmax(call: Call, input: Tensor, dim: int | None = None, *_: Any, **__: Any) -> Any:
    """Its own gradient (the Taylor form of AttnLRP), or the slope between equal scores and these; whether it is
    constant as a weight, the product knows."""
    result, state = call.native(), state_of(call)
    if state.places is not None and dim is not None and state.composite.softmax != "difference":
        result = state.placed_softmax(result, input, dim)
    if state.composite.softmax != "difference" or dim is None:
        return tag(call, result, "gate")
    result, uniform = from_equal_scores(input, result, dim)
    call.run.notes[result] = Tag("gate", uniform=uniform)
    return result


def dropout(
    call: Call, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, **kwargs: Any
) -> Any:
    if not kwargs.get("train", training):
        return input
    result = call.native()
    carry_kind(call, result)
    return result


def var(call: Call, *args: Any, **kwargs: Any) -> Any:
    """Homogeneous of degree two: half of its gradient."""
    result = call.native()
    if isinstance(result, Tensor):
        return _products.share_out(result, 2)
    return _products.share_out(result[0], 2), *result[1:]


COMPOSED: dict[str, Substitute] = {
    "scaled_dot_product_attention": _attention.attention,
    **dict.fromkeys(
        """_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention
        _scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention""".split(),
        _attention.attention_with_statistics,
    ),
    "multi_head_attention_forward": _attention.multi_head_attention,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent.recurrent),
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), _recurrent.recurrent_cell),
    **dict.fromkeys(("addmm", "baddbmm", "addmv", "addbmm", "addr", "addcmul"), _products.add_product),
    "addcdiv": _products.add_quotient,
    "glu": _products.glu,
    "cosine_similarity": _products.cosine_similarity,
}
"""Treatments that only call other operations: the ledger has rows for those."""

TABLE: dict[str, Substitute] = {
    **dict.fromkeys(GATES, _elementwise.gate),
    **dict.fromkeys(("tanh", "erf"), _elementwise.saturating),
    **dict.fromkeys(("softplus", "exp"), _elementwise.positive),
    **dict.fromkeys(("clamp", "clamp_min", "clamp_max"), _elementwise.clamp),
    **dict.fromkeys(("rsqrt", "sqrt", "reciprocal"), _elementwise.inverse),
    **dict.fromkeys(("pow", "float_power"), _elementwise.power),
    **dict.fromkeys(("add", "sub", "rsub"), _elementwise.add),
    **dict.fromkeys(("mul",), _products.product),
    **dict.fromkeys(("div", "rtruediv"), _elementwise.divide),
    **dict.fromkeys(("matmul", "rmatmul"), _products.matmul),
    **dict.fromkeys(("grouped_mm", "_grouped_mm", "grouped_mm_fallback"), _products.grouped_product),
    **dict.fromkeys(
        "einsum tensordot chain_matmul linalg_multi_dot inner linalg_vecdot outer ger kron".split(),
        _products.einsum,
    ),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _layers.convolution),
    **dict.fromkeys(
        ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _layers.transposed_convolution
    ),
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d"), _layers.max_pool),
    "softmax": softmax,
    **dict.fromkeys(DROPOUTS, dropout),
    **dict.fromkeys(("var", "var_mean"), var),
    **dict.fromkeys(("prod", "cumprod"), _products.multiply_along),
    **dict.fromkeys(("scatter_reduce", "index_reduce", "segment_reduce"), _products.reduce),
    **dict.fromkeys(TAYLOR, native),
    "relu": _elementwise.relu,
    "threshold": _elementwise.threshold,
    "pad": _layers.pad,
    "constant_pad_nd": _layers.pad,
    **dict.fromkeys(("linalg_solve", "linalg_solve_triangular", "linalg_inv", "inverse"), _products.solve),
    "lerp": _products.lerp,
    "grid_sample": _products.grid_sample,
    "linear": _layers.linear,
    "convolution": _layers.any_convolution,
    "bilinear": _products.bilinear,
    "layer_norm": _normalisation.layer_norm,
    "native_layer_norm": _normalisation.native_layer_norm,
    "native_group_norm": _normalisation.native_group_norm,
    "rms_norm": _normalisation.rms_norm,
    "group_norm": _normalisation.group_norm,
    "instance_norm": _normalisation.instance_norm,
    **dict.fromkeys(
        """batch_norm native_batch_norm cudnn_batch_norm _native_batch_norm_legit
        _native_batch_norm_legit_no_training""".split(),
        _normalisation.batch_norm,
    ),
    "normalize": _normalisation.normalize,
    "local_response_norm": _normalisation.local_response_norm,
    "grad": no_derivatives,
    **COMPOSED,
}
