"""ONNX files, run by `onnxruntime` as functions: explained by methods that hide features."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apportion.errors import InputError

# What `onnxruntime` calls the numbers of an input, and what they are here.
_NUMBERS = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


class OnnxFunction:
    """An ONNX file as a function of tensors: the inputs in their order or by their names, to the scores.

    The scores are the output called "logits", else the first of floating-point numbers with two axes or more. A file
    that takes batches of one size is given them; the last is filled up with copies of its last row.
    """

    def __init__(self, path: Path) -> None:
        try:
            onnxruntime: Any = importlib.import_module("onnxruntime")
        except ImportError:
            raise InputError(
                f"model {str(path)!r} needs onnxruntime: pip install 'apportion[onnx]'"
            ) from None
        self.name = path.name
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = torch.get_num_threads()
        with tempfile.TemporaryDirectory() as empty:
            # Weights in other files are looked for here, and nowhere else.
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", empty)
            self._session = onnxruntime.InferenceSession(
                path.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        self.inputs = self._session.get_inputs()
        strange = [f"{each.name} is a {each.type}" for each in self.inputs if each.type not in _NUMBERS]
        if strange:
            raise InputError(f"model {self.name!r}: input {strange[0]}; accepted: tensors of numbers")
        self._output = self._scores()

    def _scores(self) -> str:
        outputs = self._session.get_outputs()
        floats = [o for o in outputs if o.type in ("tensor(float)", "tensor(double)", "tensor(float16)")]
        named = [o.name for o in floats if o.name == "logits"]
        plain = [o.name for o in floats if len(o.shape) >= 2]
        if not named and not plain:
            found = ", ".join(f"{o.name}: {o.type} {o.shape}" for o in outputs)
            raise InputError(
                f"model {self.name!r} has the outputs {found}; accepted: scores as one tensor (batch, classes); a "
                "converter of scikit-learn writes one with zipmap=False"
            )
        return str((named or plain)[0])

    @property
    def batch(self) -> int | None:
        """The one size of batch that is taken; None: any."""
        sizes = {each.shape[0] for each in self.inputs if each.shape and isinstance(each.shape[0], int)}
        return sizes.pop() if len(sizes) == 1 else None

    def __call__(self, *given: Tensor, **named: Tensor) -> Tensor:
        arrays = self._arrays(given, named)
        rows = len(next(iter(arrays.values())))
        size = self.batch or rows
        found = []
        for begin in range(0, rows, size):
            part = {name: array[begin : begin + size] for name, array in arrays.items()}
            many = len(next(iter(part.values())))
            filled = {n: np.concatenate([a, np.repeat(a[-1:], size - many, 0)]) for n, a in part.items()}
            found.append(self._session.run([self._output], filled)[0][:many])
        tensors = [*given, *named.values()]
        return torch.from_numpy(np.concatenate(found)).to(tensors[0].device)

    def _arrays(self, given: Sequence[Tensor], named: dict[str, Tensor]) -> dict[str, np.ndarray]:
        names = [each.name for each in self.inputs]
        tensors = {**dict(zip(names, given, strict=False)), **named}
        if len(given) > len(names) or tensors.keys() != set(names):
            came = ", ".join(named) or f"{len(given)} tensors"
            raise InputError(f"model {self.name!r} was given {came}; accepted: {', '.join(names)}")
        arrays: dict[str, np.ndarray] = {}
        for each in self.inputs:
            tensor = tensors[each.name]
            shape, takes = tuple(tensor.shape), list(each.shape)
            fits = len(shape) == len(takes) and all(
                not isinstance(size, int) or size == have
                for size, have in zip(takes[1:], shape[1:], strict=True)
            )
            if not fits:
                raise InputError(f"input {each.name!r} has shape {shape}; model {self.name!r} takes {takes}")
            arrays[each.name] = tensor.detach().cpu().numpy().astype(_NUMBERS[each.type], copy=False)
        return arrays


def fixed_sides(shape: Sequence[Any]) -> tuple[int, int, int] | None:
    """(channels, height, width) of the pictures of a model that takes them in one size; None of others."""
    fixed = len(shape) == 4 and all(isinstance(size, int) for size in shape[1:])
    return (shape[1], shape[2], shape[3]) if fixed else None
