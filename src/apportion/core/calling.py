"""Calling a model as it is, and leaving it and the world around it as they were."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from apportion.core.as_it_was import numpy_as_found
from apportion.core.classifier import Classifier
from apportion.core.inputs import Inputs, rekeyed, unmarked
from apportion.core.modules_behind import estimators_behind, modules_behind
from apportion.core.private_torch import BatchNorm, Dropout, without_functions
from apportion.core.progress import model_called
from apportion.core.random_state import RandomState
from apportion.core.target import one_number
from apportion.core.trees import keyed, map_tensors, tensors_in
from apportion.errors import InputError, first_line, nearest

Model = Callable[..., Any]


def behind(model: Any) -> Any:
    """The model of a Classifier; others as they are, also those that happen to have an attribute `model`."""
    return model.model if isinstance(model, Classifier) else model


def call_model(model: Model, inputs: Inputs) -> Any:
    """What the model returns. InputError for ids that it cannot look up; any other error of the model's own is
    raised with a note of what it was called with. An exported program that takes batches of one size is called as often
    as it needs to be."""
    model_called()
    try:
        return _called(model, inputs)
    except InputError:
        raise
    except Exception as error:
        if (size := _static_batch(model, error)) is not None:
            return _in_batches(model, inputs, size)
        refused = _ids_refused(model, inputs, str(error))
        if refused is not None:
            raise InputError(refused) from error
        called = "the model was called with"
        # As a person gave it.
        if not any(note.startswith(called) for note in getattr(error, "__notes__", ())):
            error.add_note(f"{called} {_described(inputs)}{_too_long(model, inputs)}")
        raise


def try_out(model: Model, inputs: Inputs, refused: str) -> Any:
    """What a model of the user's own returns; what does not fit is one line, which begins as `refused`."""
    try:
        with torch.no_grad():
            return call_model(model, inputs)
    except InputError:
        raise
    except Exception as error:  # whatever it raises
        raise InputError(f"{refused}: {type(error).__name__}: {first_line(error):.200}") from error


def _called(model: Model, inputs: Inputs) -> Any:
    with without_functions():
        inputs = rekeyed(inputs, lambda _, tensor: unmarked(tensor))
    if isinstance(inputs, Tensor):
        return model(inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(**inputs)


def _too_long(model: Model, inputs: Inputs) -> str:
    """What the configuration of a model of texts says of its length, where the ids are longer."""
    ids = [t for key, t in keyed(inputs) if key in (None, 0, "input_ids") and not t.is_floating_point()]
    behind = (getattr(one, "config", None) for one in modules_behind(model))
    limits = [
        most for one in behind if isinstance(most := getattr(one, "max_position_embeddings", None), int)
    ]
    longest = max((t.shape[1] for t in ids if t.dim() == 2), default=0)
    if not limits or longest <= min(limits):
        return ""
    return f"; its configuration takes at most {min(limits)} tokens"


def _static_batch(model: Model, error: Exception) -> int | None:
    """The one size of batch that an exported program takes, if this error says so."""
    found = re.search(r"Guard failed: \S*\.size\(\)\[0\] == (\d+)", str(error))
    exported = isinstance(model, torch.fx.GraphModule) and isinstance(error, AssertionError)
    return int(found[1]) if found and exported else None


def _in_batches(model: Model, inputs: Inputs, size: int) -> Any:
    """The outputs of all rows, `size` rows a call."""
    rows = next(tensors_in(inputs)).shape[0]
    if rows % size:
        raise InputError(
            f"the exported program takes batches of {size}, but {rows} rows are to be run; accepted: one that was "
            "exported with a batch of 1, or with a dynamic batch: torch.export.export(model, args, dynamic_shapes=…)"
        )
    parts = zip(*(t.split(size) for t in tensors_in(inputs)), strict=True)
    return _joined([_called(model, _of_form(inputs, part)) for part in parts])


def one_by_one(model: Model, inputs: Inputs) -> Tensor:
    """The number that a model returns for each row alone, (rows,), of one that returns one number a call."""
    model_called()
    parts = zip(*(t.split(1) for t in tensors_in(inputs)), strict=True)
    return torch.stack([one_number(_called(model, _of_form(inputs, part))).reshape(()) for part in parts])


def _of_form(inputs: Inputs, tensors: Sequence[Tensor]) -> Inputs:
    given = iter(tensors)
    return rekeyed(inputs, lambda _, __: next(given))


def _joined(outputs: Sequence[Any]) -> Any:
    """Outputs of some rows each as one of all rows."""
    first = outputs[0]
    if isinstance(first, Tensor):
        return torch.cat(list(outputs)) if first.dim() else first
    if isinstance(first, Mapping):
        return {key: _joined([output[key] for output in outputs]) for key in first}
    if isinstance(first, tuple | list):
        return tuple(_joined(parts) for parts in zip(*outputs, strict=True))
    return first


def _ids_refused(model: Model, inputs: Inputs, error: str) -> str | None:
    """What is wrong with the inputs if an embedding raised this error."""
    given = _described(inputs)
    if "scalar types: Long, Int" in error:
        return f"the model looks up ids, but was called with {given}; accepted: integers"
    if "index out of range in self" not in error:
        return None
    ids = [f"from {int(t.min())} to {int(t.max())}" for t in tensors_in(inputs) if not t.is_floating_point()]
    modules = [module for one in modules_behind(model) for module in one.modules()]
    rows = {str(m.num_embeddings): m for m in modules if isinstance(m, nn.Embedding | nn.EmbeddingBag)}
    known = f"; its embeddings have {', '.join(rows)} rows" if rows else ""
    return f"the model has no entry for one of the ids {', '.join(ids)} in {given}, or for its place{known}"


def _described(inputs: Inputs) -> str:
    return ", ".join(
        f"{'inputs' if key is None else f'input {key!r}'} of shape {tuple(t.shape)} and type {t.dtype}"
        for key, t in keyed(inputs)
    )


def map_tensors_of(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The scores in a model's output, with `change` applied; model output objects are read, not rebuilt."""
    if isinstance(output, Tensor | tuple | list):
        return map_tensors(output, change)
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    return change(logits) if isinstance(logits, Tensor) else output


def module_named(model: Model, name: str) -> torch.nn.Module:
    """The module of that dotted name, or an error that suggests the nearest."""
    if not isinstance(model, torch.nn.Module):
        raise InputError(
            f"layer {name!r} was asked for, but the model is a plain callable without named modules"
        )
    try:
        return model.get_submodule(name)
    except AttributeError:
        names = [known for known, _ in model.named_modules()]
    near = nearest(name, names) or [n for n in names if n][:3]
    raise InputError(f"the model has no layer {name!r}; nearest: {', '.join(near)}")


@contextmanager
def with_gradients() -> Iterator[None]:
    """What is computed here can be differentiated, also for a caller under `no_grad` or `inference_mode`."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


_CHECKPOINTS = (
    "the model uses torch.utils.checkpoint with use_reentrant=True, or around a custom autograd function, which runs a "
    "part of it again in the backward pass, where nothing is recorded or replaced; accepted: use_reentrant=False, or "
    "switch it off for explanations, as by memory_efficient=False or gradient_checkpointing_disable()"
)


@contextmanager
def no_checkpoints() -> Iterator[None]:
    """Refuse to run a part of a model again in a backward pass, as `torch.utils.checkpoint` does with what was not seen
    in the forward pass (which keeps what it sees itself)."""
    try:
        with torch.autograd.graph.disable_saved_tensors_hooks(_CHECKPOINTS):
            yield
    except RuntimeError as error:
        if "torch.utils.checkpoint" in str(error):
            raise InputError(_CHECKPOINTS) from error
        raise


@contextmanager
def same_random_state(inputs: Inputs) -> Iterator[list[str]]:
    """Put the global random states (PyTorch's, NumPy's, Python's) back if the model drew from them, and say so in the
    list that is given."""
    before = RandomState({t.device for t in tensors_in(inputs) if t.is_cuda}, numpy_as_found())
    told: list[str] = []
    try:
        yield told
    finally:
        if before.put_back():
            told.append(_DREW)


def warned(told: Sequence[str]) -> tuple[str, ...]:
    """The same as Python's warnings, too."""
    for message in told:
        warnings.warn(message, stacklevel=_caller())
    return tuple(told)


def _caller() -> int:
    """How far up the stack the first code outside the package is, as `warnings.warn` counts for whoever calls this."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("apportion."):
        frame, level = frame.f_back, level + 1
    return level


_DREW = (
    "the model drew random numbers, as dropout does in training mode: its output is not the same each time; call "
    "model.eval() first, or let it return a mean if it draws in evaluation mode too"
)


def is_multi_label(model: Any) -> bool:
    """Whether each class of a Hugging Face model is a question of its own, as its configuration says."""
    return "multi_label_classification" in _problem_types(model)


def is_regression(model: Any) -> bool:
    """Whether its scores are numbers and no classes: the configuration of a Hugging Face model says so, or the
    estimator of scikit-learn behind it is a regressor."""
    if "regression" in _problem_types(model):
        return True
    estimators = estimators_behind(model)
    return bool(estimators) and all(map(_is_regressor, estimators))


def _problem_types(model: Any) -> set[Any]:
    return {getattr(getattr(one, "config", None), "problem_type", None) for one in modules_behind(model)}


def _is_regressor(estimator: Any) -> bool:
    if getattr(estimator, "_estimator_type", None) == "regressor":  # of other packages and older versions
        return True
    base = sys.modules.get("sklearn.base")
    return (
        base is not None and isinstance(estimator, base.BaseEstimator) and bool(base.is_regressor(estimator))
    )


def is_classifier(model: Any) -> bool:
    """Whether an estimator of scikit-learn behind it has classes."""
    return any(hasattr(estimator, "classes_") for estimator in estimators_behind(model))


def is_training(model: Any) -> bool:
    """Whether any module of it is in training mode."""
    return any(module.training for one in modules_behind(model) for module in one.modules())


def warn_about_training(model: Any) -> tuple[str, ...]:
    """Warn of modules whose output is random or depends on the rest of the batch, and name them. Raise InputError for
    scripted norms among them: what they write into their buffers cannot be kept off."""
    if not is_training(model):
        return ()
    found = []
    for name, module in (named for one in modules_behind(model) for named in one.named_modules()):
        kind = getattr(module, "original_name", "") if isinstance(module, torch.jit.ScriptModule) else ""
        if module.training and ("BatchNorm" in kind or "InstanceNorm" in kind):
            raise InputError(
                f"{name or 'the model'} is a TorchScript {kind} in training mode, which writes into its buffers where "
                "nothing can be replaced; call model.eval() first"
            )
        if module.training and isinstance(module, BatchNorm | Dropout) and getattr(module, "p", 1) > 0:
            found.append(name or type(module).__name__)
    if not found:
        return ()
    some = ", ".join(found[:4]) + (f" and {len(found) - 4} more" if len(found) > 4 else "")
    message = (
        f"the model is in training mode: {some} make its output random or dependent on the rest of the batch; "
        "call model.eval() first"
    )
    return warned([message])
