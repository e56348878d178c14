"""What a torch function is called, however a model calls it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from apportion.core.private_torch import Operator, named_operator, overload_of

Function = Callable[..., Any]

# The namespaces of operators whose names mean what they mean in torch.
_OURS = frozenset({"aten", "prim", "prims"})

# Functions that only place their input's entries elsewhere: whatever is known of an entry moves with it.
MOVES = frozenset(
    """view reshape flatten unflatten ravel transpose t permute movedim moveaxis swapaxes swapdims squeeze unsqueeze
    expand expand_as expand_copy view_as reshape_as contiguous clone alias lift_fresh_copy to _to_copy float double
    half bfloat16 long int type type_as cpu cuda T mT H mH adjoint getitem select narrow slice index index_select
    gather take take_along_dim chunk split split_with_sizes tensor_split unbind hsplit vsplit dsplit cat concat
    concatenate stack hstack vstack dstack column_stack row_stack flip fliplr flipud roll rot90 repeat
    repeat_interleave tile pad constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d
    replication_pad2d replication_pad3d unfold im2col pixel_shuffle pixel_unshuffle channel_shuffle masked_select
    diagonal diag tril triu atleast_1d atleast_2d atleast_3d _unsafe_view view_copy slice_copy select_copy
    broadcast_to broadcast_tensors as_strided copy meshgrid pad_sequence _pack_padded_sequence _pad_packed_sequence
    setitem slice_scatter select_scatter scatter index_copy index_put masked_scatter select_backward unsafe_chunk
    unsafe_split split_copy detach_copy native_channel_shuffle unflatten_dense_tensors real""".split()
)

# Attribute access that carries a tensor's entries; every other `__get__` (shape, dtype, device …) is passive.
_MOVING_ATTRIBUTES = frozenset({"T", "mT", "H", "mH", "real"})
_PASSIVE = frozenset(
    """size dim stride numel is_floating_point is_complex is_contiguous storage_offset element_size type_as_dtype
    get_device is_signed ndimension nelement data_ptr __len__ __bool__ __int__ __float__ __index__ __hash__ __repr__
    __format__ __array__ item tolist numpy
    requires_grad_ retain_grad register_hook is_same_size sym_size sym_numel sym_stride
    is_nonzero has_names _has_compatible_shallow_copy_type __contains__ is_inference is_pinned is_shared""".split()
)


@dataclass(frozen=True)
class Identity:
    """What a torch function is: its plain name, and whether it writes into its first argument."""

    name: str
    passive: bool
    in_place: bool
    twin: Function | None


@cache
def identify(function: Function) -> Identity:
    """The plain name of a torch function, method, operator or `OpOverload`."""
    if isinstance(function, Operator):
        space, raw = named_operator(function)
        if space not in _OURS:  # `mylib::relu` is somebody's own
            raw = f"{space}::{raw}"
    else:
        raw = function.__name__
    if raw in ("__get__", "__set__", "__delete__"):
        attribute = function.__self__.__name__  # type: ignore[attr-defined]
        return Identity(attribute, raw != "__get__" or attribute not in _MOVING_ATTRIBUTES, False, None)
    if raw in _PASSIVE:
        return Identity(raw, True, False, None)
    if raw == "__setitem__":
        return Identity("setitem", False, True, None)
    if raw.startswith("__") and raw.endswith("__"):
        name = raw[2:-2]
        if name.startswith("i") and hasattr(torch.Tensor, f"__{name[1:]}__"):
            return Identity(_plain(name[1:]), False, True, getattr(torch.Tensor, f"__{name[1:]}__"))
        return Identity(_plain(name), False, False, None)
    if raw.endswith("_"):
        name = raw[:-1]
        twin = getattr(torch.Tensor, name, None) or getattr(torch.nn.functional, name, None)
        if isinstance(function, Operator):
            twin = overload_of(function, name)
        return Identity(_plain(name), False, True, twin)
    return Identity(_plain(raw), False, False, None)


_SAME = {
    "truediv": "div", "true_divide": "div", "divide": "div", "itruediv": "div", "radd": "add", "rmul": "mul",
    "multiply": "mul", "subtract": "sub", "rdiv": "rtruediv", "negative": "neg", "absolute": "abs", "clip": "clamp",
    "fix": "trunc", "mm": "matmul", "bmm": "matmul", "mv": "matmul", "dot": "matmul", "inner_product": "matmul",
    "_softmax": "softmax", "_safe_softmax": "softmax", "special_softmax": "softmax",
    "_log_softmax": "log_softmax", "_threshold": "threshold", "_convolution": "convolution",
    # `torch.dsmm == torch.spmm == torch.mm`, so whichever is met first names all three.
    "dsmm": "matmul", "spmm": "matmul",
    "expit": "sigmoid", "special_expit": "sigmoid", "special_erf": "erf",
    "_fused_rms_norm": "rms_norm", "__and__": "and", "multi_head_attention": "multi_head_attention_forward",
}  # fmt: skip


def _plain(name: str) -> str:
    return _SAME.get(name, name)
