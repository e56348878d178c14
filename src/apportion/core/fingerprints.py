"""What a thing is, as a hash of its content: the same in every process, another when the thing has changed.

Numbers, texts, tensors, arrays and pictures are hashed whole, with lists, dicts and settings made of them; a
model by its structure, weights, buffers and own attributes; the user's functions and classes by their bytecode,
with the closures and globals that it names. What comes with an installed package goes by its name, since its
insides may hold caches and counters, and of its modules by their plain settings; what is ours by a name that stays
when its file is moved. Not seen: what code
reads when it runs, and another version of a package.
"""

from __future__ import annotations

import copy
import hashlib
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from enum import Enum
from functools import cache, lru_cache, partial
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from apportion.core.classifier import Classifier
from apportion.core.content import ByContent
from apportion.core.lasting_names import CACHES, lasting_name
from apportion.core.settings import told

PLAIN = (bool, int, float, complex, str, Enum, type(None))
DEEPEST = 100  # levels of nesting; what is below goes by its type
WINDOW = 1 << 20

_TORCHS_OWN = frozenset(vars(nn.Module()))
_SHOWS_NONE = nn.Module.extra_repr
_OURS_AND_TORCHS = (str(Path(__file__).parents[1]), str(Path(torch.__file__).parent))  # wherever they lie
_INSTALLED = (sysconfig.get_path("stdlib"), *_OURS_AND_TORCHS, "<frozen")


def fingerprint(*values: Any) -> str:
    """
    >>> fingerprint([1, torch.ones(2)]) == fingerprint([1, torch.ones(2)])
    True
    >>> fingerprint(lambda scores: scores[:, 0]) == fingerprint(lambda scores: scores[:, 1])
    False
    """
    return _Walk().digest(values).hex()


def model_fingerprint(model: Any) -> str:
    """Of a model, and of a classifier's preparation; not of its name. Settings of installed modules that no repr shows,
    such as heads of attention, are in a part of its own behind a dash, so that what was known before stays what it was.

    >>> heads = [model_fingerprint(nn.MultiheadAttention(4, many)).partition("-")[2] for many in (1, 2)]
    >>> heads[0] == heads[1]
    False
    """
    walk = _Walk()
    if isinstance(model, Classifier):
        found = walk.digest((model.domain, model.labels, model.mask, model.encode, model.model)).hex()
    else:
        found = walk.digest((model,)).hex()
    return f"{found}-{fingerprint(walk.settings)[:16]}" if walk.settings else found


def code_fingerprint(model: nn.Module) -> str:
    """Of a module's code, attributes and shapes, whatever its weights, buffers and mode are."""
    made = copy.deepcopy(model).train()
    with torch.no_grad():
        for tensor in (*made.parameters(), *made.buffers()):
            tensor.zero_()
    return model_fingerprint(made)


def is_same_model(before: str, now: str) -> bool:
    """Whether two fingerprints of models are of the same one; one of before has no settings of installed modules."""
    return before == now or before == now.partition("-")[0]


def file_fingerprint(path: str | Path, window: int = WINDOW) -> str:
    """A hash of a file's size and of its first, middle and last `window` bytes: a change that keeps all four is
    not seen."""
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256(f"{size} ".encode())
        for start in (0, (size - window) // 2, size - window):
            file.seek(max(0, start))
            digest.update(file.read(window))
            if size <= window:
                break
    return digest.hexdigest()


class _Walk:
    """One look at a thing and at what it is made of; each object is hashed once."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[Any, bytes]] = {}  # with the object, so that its id is not given again
        self.depth = 0
        self.settings: list[Any] = []  # of installed modules, where their repr does not show them

    def digest(self, value: Any) -> bytes:
        if type(value) is str and len(value) < 80:
            return _of_short_text(value)
        if isinstance(value, PLAIN):
            return _of_plain(value)
        if isinstance(value, ByContent):
            value = value.fingerprinted
        if isinstance(value, bytes):
            return _hash("bytes", value)
        if isinstance(value, Tensor):
            return _hash(f"tensor {value.dtype} {tuple(value.shape)}", _bytes(value))
        if id(value) in self.known:
            return self.known[id(value)][1]
        self.known[id(value)] = value, b"a cycle"
        if isinstance(value, nn.Module):
            self.settings += _unseen_settings(value)
        self.depth += 1
        parts = [self.digest(part) for part in (_parts(value) if self.depth < DEEPEST else ())]
        self.depth -= 1
        unordered = isinstance(value, set | frozenset)
        found = _hash(_name(type(value)), *(sorted(parts) if unordered else parts))  # type: ignore[arg-type]
        self.known[id(value)] = value, found
        return found


def _of_plain(value: Any) -> bytes:
    return _hash(type(value).__name__, repr(value).encode(errors="backslashreplace"))


# Rows of a table repeat the names of their columns, and most of their cells.
_of_short_text = lru_cache(1 << 12)(_of_plain)


def _hash(name: str, *parts: Any) -> bytes:
    digest = hashlib.sha256(name.encode())
    for part in parts:
        digest.update(part)
    return digest.digest()


@cache
def _name(of: Any) -> str:
    return lasting_name(of) if _installed(of) else str(of.__name__)


def _bytes(tensor: Tensor) -> Any:
    dense = tensor.detach() if tensor.layout == torch.strided else tensor.detach().to_dense()
    return dense.cpu().resolve_conj().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _parts(value: Any) -> Iterable[Any]:
    """What makes a value what it is."""
    if isinstance(value, list | tuple | set | frozenset):
        return value
    if isinstance(value, Mapping):
        return [part for pair in value.items() for part in pair]
    if isinstance(value, type):
        return _class(value)
    if isinstance(value, FunctionType):
        # A call that is put back after an interrupt is the one inside.
        return _function(getattr(value, "__wrapped__", value) if hasattr(value, "outermost") else value)
    if isinstance(value, MethodType):
        return value.__func__, value.__self__
    if isinstance(value, partial):
        return value.func, value.args, value.keywords
    if isinstance(value, staticmethod | classmethod):
        return (value.__func__,)
    if isinstance(value, property):
        return value.fget, value.fset
    if isinstance(value, CodeType):
        return value.co_code, value.co_names, value.co_varnames, value.co_consts
    if isinstance(value, Path):
        return _path(value)
    if isinstance(value, nn.Module):
        return _module(value)
    if is_dataclass(value):
        return _dataclass(value)
    kind = type(value)  # an object that makes columns of names, such as polars.col, has every attribute
    if hasattr(kind, "__array__") or hasattr(kind, "__array_interface__"):
        return _array(np.asarray(value))
    if not _installed(type(value)) or isinstance(value, Dataset) or hasattr(value, "get_params"):
        return type(value), value.__getstate__()
    return (_text(value),)


def _dataclass(value: Any) -> Iterable[Any]:
    kind: Any = type(value)
    yield kind
    at_first = CACHES.get(_name(kind), {})
    yield from ((name, setting) for name, setting in told(value) if name not in at_first)
    yield from at_first.items()


def _text(value: Any) -> str:
    """The repr without the address, and with no file in the name of a class of ours."""
    kind: Any = type(value)
    return _without_addresses(repr(value)).replace(
        f"<{kind.__module__}.{kind.__qualname__}", f"<{_name(kind)}"
    )


def _array(array: np.ndarray[Any, Any]) -> Iterable[Any]:
    if array.dtype.hasobject:
        return array.shape, array.tolist()
    return array.dtype.str, array.shape, array.tobytes()


def _path(path: Path) -> Iterable[Any]:
    return (path.name, file_fingerprint(path)) if path.is_file() else (str(path),)


def _module(module: nn.Module) -> Iterable[Any]:
    yield _without_addresses(str(module))
    yield [*module.named_parameters(), *module.named_buffers()]
    for part in module.modules():
        yield part.training
        if not _installed(type(part)):
            yield type(part)
            # A tensor with a history is one that the last pass left behind.
            yield {
                name: value
                for name, value in vars(part).items()
                if name not in _TORCHS_OWN and getattr(value, "grad_fn", None) is None
            }


def _unseen_settings(module: nn.Module) -> Iterator[Any]:
    """The settings of modules of other packages whose repr shows none: numbers, texts, functions, configurations."""
    for name, part in module.named_modules():
        kind = type(part)
        if (
            not _installed(kind)
            or kind.__module__.startswith("apportion.")
            or kind.extra_repr is not _SHOWS_NONE
        ):
            continue
        found = {
            key: value
            for key, value in vars(part).items()
            if key not in _TORCHS_OWN and _is_setting(key, value)
        }
        if (config := getattr(getattr(part, "config", None), "to_dict", None)) is not None:
            found["config"] = {key: v for key, v in config().items() if _is_setting(key, v)}
        if found:
            yield name, found


def _is_setting(name: str, value: Any) -> bool:
    if name.startswith("_") or name in ("name_or_path", "transformers_version"):
        return False
    if isinstance(value, list | tuple):
        return all(_is_setting("", each) for each in value)
    if isinstance(value, dict):
        return all(_is_setting("", each) for pair in value.items() for each in pair)
    return isinstance(value, (*PLAIN, FunctionType, BuiltinFunctionType))


def _class(cls: type) -> Iterable[Any]:
    if _installed(cls):
        return (lasting_name(cls),)
    code = (FunctionType, staticmethod, classmethod, property)
    own = [(n, v) for n, v in vars(cls).items() if not n.startswith("__") or isinstance(v, code)]
    return cls.__name__, cls.__bases__, sorted(own, key=lambda pair: pair[0])


def _function(function: FunctionType) -> Iterable[Any]:
    yield from (function.__defaults__, function.__kwdefaults__)
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not yet filled
            yield None
    if _installed(function):
        yield lasting_name(function)
        return
    yield function.__code__
    names = sorted(set(_names(function.__code__)))
    for name in names:
        value = function.__globals__.get(name)
        if isinstance(value, ModuleType) and not _installed_file(getattr(value, "__file__", None)):
            yield [(n, getattr(value, n)) for n in names if not n.startswith("__") and hasattr(value, n)]
        elif not name.startswith("__"):
            yield name, value


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _installed(what: Any) -> bool:
    """True if a class or function comes with Python or a package, rather than from the user."""
    if isinstance(what, FunctionType):
        return _installed_file(what.__code__.co_filename)
    module = sys.modules.get(what.__module__)
    if what.__module__ == "__main__" or module is None:
        return False
    return _installed_file(getattr(module, "__file__", None))


@cache
def _installed_file(file: str | None) -> bool:
    if file is None or {"site-packages", "dist-packages"} & set(Path(file).parts):
        return True
    return file.startswith(_INSTALLED)


def _without_addresses(text: str) -> str:
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)
