"""Engine 1: run a model with some of its functions replaced, its parameters constant, and nothing mutated.

`torch.overrides.TorchFunctionMode` sees every torch function that a model calls, however it calls it. A method
is a table from a function's *name* ("linear" stands for `F.linear`, `torch._C._nn.linear` and
`aten.linear.default`) to its substitute; `+=`, `relu_` and `inplace=True` arrive as their out-of-place twins.
"""

from __future__ import annotations

import sys
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Function = Callable[..., Any]

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
    broadcast_to broadcast_tensors as_strided copy meshgrid _pack_padded_sequence _pad_packed_sequence setitem
    slice_scatter select_scatter scatter index_copy index_put masked_scatter select_backward unsafe_chunk
    unsafe_split split_copy detach_copy native_channel_shuffle unflatten_dense_tensors real""".split()
)

# Attribute access that carries a tensor's entries; every other `__get__` (shape, dtype, device …) is passive.
_MOVING_ATTRIBUTES = frozenset({"T", "mT", "H", "mH", "real"})
_PASSIVE = frozenset(
    """size dim stride numel is_floating_point is_complex is_contiguous storage_offset element_size type_as_dtype
    get_device is_signed ndimension nelement data_ptr __len__ __bool__ __int__ __float__ __index__ __hash__ __repr__
    __format__ item tolist numpy requires_grad_ retain_grad register_hook is_same_size sym_size sym_numel sym_stride
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
    if isinstance(function, torch._ops.OpOverload):
        raw = str(function._schema.name).split("::")[-1]
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
        if isinstance(function, torch._ops.OpOverload):
            packet = getattr(torch.ops.aten, name, None)
            twin = getattr(packet, function._overloadname, None)
        return Identity(_plain(name), False, True, twin)
    return Identity(_plain(raw), False, False, None)


_SAME = {
    "truediv": "div", "true_divide": "div", "divide": "div", "itruediv": "div", "radd": "add", "rmul": "mul",
    "multiply": "mul", "subtract": "sub", "rdiv": "rtruediv", "negative": "neg", "absolute": "abs", "clip": "clamp",
    "fix": "trunc", "mm": "matmul", "bmm": "matmul", "mv": "matmul", "dot": "matmul", "inner_product": "matmul",
    "_softmax": "softmax", "special_softmax": "softmax",
    "_log_softmax": "log_softmax", "_convolution": "convolution",
    "expit": "sigmoid", "special_expit": "sigmoid", "special_erf": "erf",
    "_fused_rms_norm": "rms_norm", "__and__": "and", "multi_head_attention": "multi_head_attention_forward",
}  # fmt: skip


def _plain(name: str) -> str:
    return _SAME.get(name, name)


class Notes:
    """What is known of tensors while they live: a dictionary by identity that forgets with them."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Tensor], Any]] = {}

    def __setitem__(self, tensor: Tensor, value: Any) -> None:
        key, entries = id(tensor), self._entries
        entries[key] = (weakref.ref(tensor, lambda _: entries.pop(key, None)), value)

    def get(self, tensor: Tensor) -> Any:
        found = self._entries.get(id(tensor))
        return None if found is None or found[0]() is not tensor else found[1]

    def __bool__(self) -> bool:
        return bool(self._entries)


@dataclass(slots=True)
class Call:
    """One function call that an active tensor (one that depends on the explained input) takes part in."""

    run: Substitution
    function: Function
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def native(self) -> Any:
        """What the model asked for."""
        return self.function(*self.args, **self.kwargs)

    @property
    def actives(self) -> list[Tensor]:
        return [t for t in tensors_in((self.args, self.kwargs)) if t.requires_grad]


Substitute = Callable[..., Any]
"""`substitute(call, *args, **kwargs)` returns what the function is to return."""


def _exported_name(owner: Any, line: int) -> str:
    """The module that a line of an exported program came from; such programs have lost their modules' calls."""
    lines = getattr(owner, "_lineno_map", None) if isinstance(owner, torch.fx.GraphModule) else None
    if not lines:
        return ""
    node = list(owner.graph.nodes)[lines.get(line - (owner._prologue_start or 0), 0)]
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


def native(call: Call, *args: Any, **kwargs: Any) -> Any:
    return call.native()


def tensors_in(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, tuple | list):
        for item in tree:
            yield from tensors_in(item)
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from tensors_in(item)


def map_tensors(tree: Any, change: Callable[[Tensor], Any]) -> Any:
    if isinstance(tree, Tensor):
        return change(tree)
    if type(tree) in (tuple, list, torch.Size):
        return type(tree)(map_tensors(item, change) for item in tree)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(map_tensors(item, change) for item in tree))
    if isinstance(tree, dict):
        return {key: map_tensors(item, change) for key, item in tree.items()}
    return tree


@dataclass(eq=False)
class Substitution(TorchFunctionMode):
    """Runs whatever is called inside `with` under a table of substitutes.

    `default` receives active calls whose name is not in `table`. `follow` also moves *shadows* (see
    `shadows`) along with floating-point inputs, not only with token ids.

    >>> double = Substitution({"relu": lambda call, input, **_: 2 * input})
    >>> x = torch.ones(2, requires_grad=True) * 1  # leaves are taken for parameters, which are constant
    >>> with double:
    ...     print(torch.nn.functional.relu(x).tolist())
    [2.0, 2.0]
    """

    table: Mapping[str, Substitute] = field(default_factory=lambda: HARMLESS)
    default: Substitute = native
    model: Any = None
    follow: bool = False

    def __post_init__(self) -> None:
        super().__init__()
        self.notes = Notes()
        # Where each entry of a tensor came from: positions in the token ids, or a zero probe beside a float input.
        self.shadows = Notes()
        self.on_embedding: Callable[[Tensor, Tensor], Tensor] | None = None
        self.prepare: Callable[[Call, Tensor], Tensor] | None = None
        self.state: Any = None
        self.own: set[int] = set()
        self._redirects = Notes()
        modules = self.model if isinstance(self.model, torch.nn.Module) else None
        self._names = {} if modules is None else {id(m): name for name, m in modules.named_modules()}
        self._constants = (
            set() if modules is None else {id(t) for t in (*modules.parameters(), *modules.buffers())}
        )

    # ---- the mode ----

    def __torch_function__(
        self, func: Function, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        identity = identify(func)
        if identity.passive:
            return func(*args, **kwargs)
        in_place = identity.in_place or bool(kwargs.get("inplace"))
        written = args[0] if in_place and args else kwargs.get("input") if in_place else None
        if kwargs.get("inplace"):
            kwargs = {**kwargs, "inplace": False}
        active = False

        def ready(tensor: Tensor) -> Tensor:
            nonlocal active
            tensor = self.current(tensor)
            if tensor.requires_grad:
                if tensor.is_leaf and id(tensor) not in self.own:
                    return tensor.detach()
                active = True
            return tensor

        args, kwargs = map_tensors(args, ready), map_tensors(kwargs, ready)
        # Without gradients nothing leads back to the input; a custom autograd function runs its forward like that.
        if not active or not (in_place or torch.is_grad_enabled()):
            return self._inactive(func, identity, args, kwargs, written)
        if identity.in_place:
            func = identity.twin or _on_a_copy(func)
        call = Call(self, func, identity.name, args, kwargs)
        if self.prepare is not None:
            call.args = map_tensors(call.args, lambda t: self.prepare(call, t))  # type: ignore[misc]
            call.kwargs = map_tensors(call.kwargs, lambda t: self.prepare(call, t))  # type: ignore[misc]
        result = self.table.get(identity.name, self.default)(call, *call.args, **call.kwargs)
        if self.follow and self.shadows:
            self._move_shadows(call, result)
        return self._rewrite(written, result) if isinstance(written, Tensor) else result

    def again(self, function: Function, *args: Any, **kwargs: Any) -> Any:
        """Call a torch function from inside a substitute so that it is substituted in its turn."""
        return self.__torch_function__(function, (), args, kwargs)

    def where(self) -> str:
        """The dotted name of the module whose code is running, found on the call stack ("" for the model)."""
        frame = sys._getframe(1)
        while frame is not None:
            if "self" in frame.f_code.co_varnames:
                owner = frame.f_locals.get("self")
                name = self._names.get(id(owner))
                if name is not None:
                    return _exported_name(owner, frame.f_lineno) or name
            frame = frame.f_back  # type: ignore[assignment]
        return ""

    # ---- in-place operations, without writing into anything ----

    def current(self, tensor: Tensor) -> Tensor:
        """The tensor that stands for this one after all that was written into it or into what it views."""
        if not self._redirects:
            return tensor
        found = self._redirects.get(tensor)
        if found is not None:
            return self.current(found)
        base = tensor._base if tensor._is_view() else None
        if base is not None and (now := self.current(base)) is not base:
            return now.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())
        return tensor

    def _rewrite(self, written: Tensor, result: Tensor) -> Tensor:
        if result is written:  # dropout in eval mode gives back what it was given
            return result
        base = written._base if written._is_view() else None
        if result is written or (result._is_view() and result._base is (written if base is None else base)):
            if result.shape == written.shape:  # nothing was written: a dropout that is switched off
                return result
            result = self.again(torch.clone, result)  # another view of the same, as by `unsqueeze_`
            self._redirects[written] = result
            return result
        shape = self.current(written).shape if base is None else written.shape
        if result.shape != shape or result.dtype != written.dtype:
            result = result.expand(shape).to(written.dtype)
        if base is not None:
            place = (written.size(), written.stride(), written.storage_offset())
            whole = place == (base.size(), base.stride(), base.storage_offset())
            now = result
            if not whole:  # torch.as_strided_scatter has a wrong gradient for what it does not write
                now = self.current(base).clone()
                now.as_strided(*place).copy_(result)
            self._redirects[base] = now
        self._redirects[written] = result
        return result

    def _inactive(
        self, func: Function, identity: Identity, args: tuple[Any, ...], kwargs: dict[str, Any], written: Any
    ) -> Any:
        if identity.name in ("batch_norm", "instance_norm"):
            args, kwargs = without_running_updates(args, kwargs)
        if isinstance(written, Tensor) and identity.in_place and id(written) in self._constants:
            fresh = args[0].clone()
            result = func(fresh, *args[1:], **kwargs)
            self._redirects[written] = fresh
            # Not `fresh`: `self.count += 1` would bind it to the model's attribute. `current` finds it.
            return written if isinstance(result, Tensor) else result
        if self.shadows and identity.name in ("embedding", "embedding_bag"):
            found = self._embed(func, identity, args, kwargs)
            if found is not None:
                return found
        result = func(*args, **kwargs)
        if self.shadows and not (isinstance(result, Tensor) and result.is_floating_point()):
            moved = args[0] if identity.in_place and isinstance(written, Tensor) else result
            self._move_shadows(Call(self, func, identity.name, args, kwargs), moved)
        return result

    # ---- where each entry came from ----

    def _move_shadows(self, call: Call, result: Any) -> None:
        shadowed = [t for t in tensors_in((call.args, call.kwargs)) if self.shadows.get(t) is not None]
        if not shadowed:
            return
        probing = shadowed[0].is_floating_point()
        outputs = [
            t for t in tensors_in(result) if t.is_floating_point() == probing and t.dtype != torch.bool
        ]
        if not outputs:
            return
        if call.name in MOVES:
            contents = [t for t in tensors_in((call.args, call.kwargs)) if _is_content(call, t)]
            if probing and any(self.shadows.get(t) is None for t in contents):
                return  # partly something else: no longer the input alone
            numbers = call.name == "setitem"

            def shadow_of(t: Tensor) -> Tensor:
                known = self.shadows.get(t)
                if known is not None:
                    return known  # type: ignore[no-any-return]
                if t.is_floating_point() != probing or t.dtype == torch.bool or not _is_content(call, t):
                    return t
                return t.new_zeros(t.shape) if probing else torch.full_like(t, -1)

            args = map_tensors(call.args, shadow_of)
            kwargs = map_tensors(call.kwargs, shadow_of)
            if numbers:
                fresh = args[0].clone()
                if not isinstance(args[2], Tensor):
                    args = (args[0], args[1], 0.0 if probing else -1)
                fresh[args[1]] = args[2]
                self.shadows[outputs[0]] = fresh
                return
            for output, shadow in zip(
                tensors_in(result), tensors_in(call.function(*args, **kwargs)), strict=True
            ):
                if output is not shadow and output.shape == shadow.shape and self.shadows.get(output) is None:
                    self.shadows[output] = shadow
        elif len(shadowed) == 1 and (not probing or call.name in _AFFINE):
            known = self.shadows.get(shadowed[0])
            for output in outputs:
                if output.shape == known.shape:
                    self.shadows[output] = known

    def _embed(
        self, func: Function, identity: Identity, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        ids = next((t for t in tensors_in((args, kwargs)) if self.shadows.get(t) is not None), None)
        if ids is None or self.on_embedding is None:
            return None
        if identity.name == "embedding_bag":
            return _embedding_bag(self, ids, *args, **kwargs)
        return self.on_embedding(func(*args, **kwargs), self.shadows.get(ids))


@cache
def _on_a_copy(function: Function) -> Function:
    """An in-place function without an out-of-place twin, as one."""

    def out_of_place(written: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        fresh = written.clone()
        function(fresh, *args, **kwargs)
        return fresh

    return out_of_place


# Re-scaling an input by constants leaves each entry the same feature.
_AFFINE = frozenset({"add", "sub", "mul", "div", "dropout", "clamp"})


def _is_content(call: Call, tensor: Tensor) -> bool:
    """Whether a tensor argument of a move holds entries that are moved, not indices that say where."""
    if call.name in ("cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack", "setitem"):
        return (
            call.name != "setitem"
            or tensor.is_floating_point()
            or tensor is call.args[0]
            or tensor is call.args[2]
        )
    return tensor is (call.args[0] if call.args else call.kwargs.get("input"))


def _embedding_bag(run: Substitution, ids: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    names = ("input", "weight", "offsets", "max_norm", "norm_type", "scale_grad_by_freq", "mode", "sparse")
    bound = {**dict(zip(names, args, strict=False)), **kwargs}
    if bound["weight"] is ids:  # torch.embedding_bag takes the weight first and the mode as a number
        bound["input"], bound["weight"] = bound["weight"], bound["input"]
    rows, mode = run.again(torch.nn.functional.embedding, ids, bound["weight"]), bound.get("mode", "mean")
    weights = bound.get("per_sample_weights")
    if weights is not None:
        rows = run.again(torch.mul, rows, weights.unsqueeze(-1))
    if mode not in ("sum", "mean"):
        raise NotImplementedError(f"embedding_bag with mode={mode!r}; accepted: 'sum', 'mean'")
    if ids.dim() == 2:
        return run.again(torch.sum if mode == "sum" else torch.mean, rows, 1)  # type: ignore[no-any-return]
    offsets = bound["offsets"]
    bags = torch.zeros(offsets.shape[0], ids.shape[0], dtype=rows.dtype, device=rows.device)
    ends = torch.cat([offsets[1:], offsets.new_tensor([ids.shape[0]])])
    place = torch.arange(ids.shape[0], device=ids.device)
    bags[(place >= offsets[:, None]) & (place < ends[:, None])] = 1
    if mode == "mean":
        bags = bags / bags.sum(1, keepdim=True).clamp(min=1)
    return run.again(torch.matmul, bags, rows)  # type: ignore[no-any-return]


def without_running_updates(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a batch or instance norm with copies of the running statistics, which training mode
    writes into."""
    if not (kwargs.get("training") or kwargs.get("use_input_stats") or True in args[5:6]):
        return args, kwargs
    copied = tuple(
        a.clone() if i in (1, 2, 3, 4) and isinstance(a, Tensor) else a for i, a in enumerate(args)
    )
    return copied, {
        k: v.clone() if k.startswith("running") and v is not None else v for k, v in kwargs.items()
    }


def _normalise(call: Call, *args: Any, **kwargs: Any) -> Any:
    args, kwargs = without_running_updates(args, kwargs)
    return call.function(*args, **kwargs)


def _recurrent(call: Call, *args: Any, **kwargs: Any) -> Any:
    # cuDNN has a backward pass in training mode only; with dropout 0 that mode computes the same.
    if not call.actives[0].is_cuda:
        return call.native()
    padded = isinstance(
        args[3], bool
    )  # (input, hx, weights, bias, layers, dropout, train, …) or packed: one more
    place = 5 if padded else 6
    dropout, train = args[place], args[place + 1]
    return call.function(*args[:place], dropout if train else 0.0, True, *args[place + 2 :], **kwargs)


HARMLESS: Mapping[str, Substitute] = {
    **dict.fromkeys(("batch_norm", "instance_norm"), _normalise),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
}
"""Substitutes that change no value and no gradient: they keep buffers untouched and gradients defined."""


def warn_about_training(model: Any) -> tuple[str, ...]:
    """Warn of modules whose output is random or depends on the rest of the batch, and name them."""
    if not isinstance(model, torch.nn.Module):
        return ()
    kinds = (torch.nn.modules.batchnorm._BatchNorm, torch.nn.modules.dropout._DropoutNd)
    found = [
        name or type(module).__name__
        for name, module in model.named_modules()
        if module.training and isinstance(module, kinds) and getattr(module, "p", 1) > 0
    ]
    if not found:
        return ()
    some = ", ".join(found[:4]) + (f" and {len(found) - 4} more" if len(found) > 4 else "")
    message = (
        f"the model is in training mode: {some} make its output random or dependent on the rest of the batch; "
        "call model.eval() first"
    )
    warnings.warn(message, stacklevel=4)
    return (message,)
