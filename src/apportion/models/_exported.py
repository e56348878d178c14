"""What an exported program (.pt2) may hold, so that reading and running it computes with tensors and does nothing else.

`torch.export.load` evaluates expressions, imports what the file names, looks functions up in the whole of torch (where
`torch.os.system` is one), writes names into the code of the program and loads compiled libraries. So each member of the
archive, each name, expression and operator is compared with what the exporter writes, as text, before torch sees any of
it; and torch is given an archive that is made of what was checked.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch._ops import HigherOrderOperator, OpOverload

from apportion.errors import InputError

_MEMBERS = re.compile(
    r"data/(weights/weight_\d+|constants/tensor_\d+|(weights|constants)/\w+_config\.json|sample_inputs/\w+\.pt)"
    r"|models/\w+\.json|extra/.*|archive_format|archive_version|byteorder|version|\.data/(version|serialization_id)"
)
_MEMBERS_OF_2_7 = re.compile(
    r"version|serialized_(exported_program|state_dict|constants)\.json"
    r"|serialized_(state_dict|constants|example_inputs)\.pt|extra_files/.*"
)
_PAYLOAD = re.compile(r"(weight|tensor)_\d+")
_NAME = re.compile(r"[\w.]*")
_VERSION = re.compile(r"[\w.+-]*")
_FREE = frozenset({"metadata", "as_string", "as_strings"})  # kept as text, or written into code as literals

# ---- operators ----

_OPERATOR = re.compile(r"torch\.ops\.(\w+)\.(\w+)(?:\.(\w+))?")
_FAMILIES = frozenset({"aten", "prim", "prims", "quantized", "quantized_decomposed", "torchvision"})
_HIGHER = frozenset(
    {"cond", "while_loop", "scan", "associative_scan", "map_impl", "wrap_with_set_grad_enabled", "wrap_with_autocast"}
)  # fmt: skip
_OF_NUMBERS = re.compile(
    r"_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|xor|not_|getitem|truth"
    r"|lshift|rshift|invert|matmul|is_|is_not)|math\.[a-z]\w*|torch\.(sym_[a-z]+|_sym_\w+)"
)
_FILES = frozenset({"filename", "path"})


def _check_operator(name: str) -> str | None:
    if _OF_NUMBERS.fullmatch(name):
        return None
    if (found := _OPERATOR.fullmatch(name)) is None:
        return "a function that is none of the exporter's"
    family, which, overload = found.groups()
    if family == "higher_order":
        known = which in _HIGHER and isinstance(
            getattr(torch.ops.higher_order, which, None), HigherOrderOperator
        )
        return None if known and overload is None else "a function that is none of the exporter's"
    if family not in _FAMILIES:
        return f"an operator of {family!r}"
    operator = getattr(getattr(getattr(torch.ops, family), which, None), overload or "default", None)
    if not isinstance(operator, OpOverload):
        return "an operator that this torch does not know"
    reads = {argument.name for argument in operator._schema.arguments} & _FILES
    return "an operator that opens files" if reads else None


# ---- expressions ----

_OF_SYMPY = frozenset(
    "Add Mul Pow Mod Max Min Abs Eq Equality Ne Unequality Lt StrictLessThan Le LessThan Gt StrictGreaterThan Ge "
    "GreaterThan And Or Not Xor Piecewise ExprCondPair Tuple floor ceiling Rational Integer Float Symbol".split()
)
_WORDS = frozenset({"true", "false", "True", "False"})
_LARGEST_POWER = 16
_MOST_PRECISE = 200
_LONGEST = 20_000


@cache
def _functions() -> frozenset[str]:
    # This imports sympy, which takes half a second that no other model need wait for.
    import torch.utils._sympy.functions as symbolic

    of_torch = (
        name
        for name, value in vars(symbolic).items()
        if isinstance(value, type) and value.__module__ == symbolic.__name__
    )
    return _OF_SYMPY.union(of_torch)


def _check_expression(text: str) -> str | None:
    """What is wrong with an expression of sizes, as `sympy.srepr` writes one."""
    tree = _parsed(text)
    return "an expression that is none of sizes" if tree is None or not _is_of_sizes(tree) else None


def _parsed(text: str) -> ast.expr | None:
    if len(text) > _LONGEST:
        return None
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _is_of_sizes(node: ast.expr, in_power: bool = False) -> bool:
    if isinstance(node, ast.Constant):
        return type(node.value) in (int, float, bool)
    if isinstance(node, ast.Name):
        return node.id in _WORDS
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return _is_of_sizes(node.operand, in_power)
    if (
        not isinstance(node, ast.Call)
        or not isinstance(node.func, ast.Name)
        or node.func.id not in _functions()
    ):
        return False
    # A string is evaluated by sympy wherever it is not the name of a symbol or the digits of a number.
    name, values = node.func.id, list(node.args)
    # Digits without end, whether written out, asked for or behind an exponent, take for ever to work out.
    texts = {"Symbol": r"\w+", "Float": r"[-+]?\d{1,40}(\.\d{0,40})?(e[-+]?\d{1,3})?"}
    if name in texts:
        first = values.pop(0) if values else None
        said = first.value if isinstance(first, ast.Constant) else None
        if not isinstance(said, str) or not re.fullmatch(texts[name], said) or values:
            return False
    power = name.endswith("Pow") or name in ("PowByNatural", "LShift")
    if power and (in_power or not _is_small(values[-1:])):
        return False
    settings = all(k.arg is not None and isinstance(k.value, ast.Constant) for k in node.keywords)
    numbers = all(
        type(k.value.value) is bool or (type(k.value.value) is int and 0 <= k.value.value <= _MOST_PRECISE)
        for k in node.keywords
        if isinstance(k.value, ast.Constant)
    )
    return settings and numbers and all(_is_of_sizes(value, in_power or power) for value in values)


def _is_small(exponent: list[ast.expr]) -> bool:
    """A power of a power, or a large one, takes for ever to work out."""
    numbers = [each.value for node in exponent for each in ast.walk(node) if isinstance(each, ast.Constant)]
    return all(isinstance(number, int | float) and abs(number) <= _LARGEST_POWER for number in numbers)


_READ = frozenset({"size", "stride", "storage_offset", "ndimension", "dim"})
_COMPUTE = frozenset("max min abs int float bool math.floor math.ceil math.trunc math.sqrt".split())


def _check_guard(text: str) -> str | None:
    """What is wrong with a condition on the inputs, which is Python that compares their sizes."""
    tree = _parsed(text)
    return "a condition that is none of sizes" if tree is None or not _compares_sizes(tree) else None


def _compares_sizes(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return type(node.value) in (int, float, bool)
    if isinstance(node, ast.Name):
        return node.id in _WORDS
    if isinstance(node, ast.Subscript):
        inside = node.slice
        fine = isinstance(inside, ast.Constant) and isinstance(inside.value, int | str)
        return fine and (
            _compares_sizes(node.value) or (isinstance(node.value, ast.Name) and node.value.id == "L")
        )
    if isinstance(node, ast.Call):
        if node.keywords or not all(map(_compares_sizes, node.args)):
            return False
        reads = isinstance(node.func, ast.Attribute) and node.func.attr in _READ
        return ast.unparse(node.func) in _COMPUTE or (reads and _compares_sizes(node.func.value))  # type: ignore[attr-defined]
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.Compare | ast.UnaryOp):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow | ast.LShift):
            return False
        return all(_compares_sizes(each) for each in ast.iter_child_nodes(node) if isinstance(each, ast.expr))
    return False


# ---- how inputs and outputs are nested ----

_CONTAINERS = frozenset({None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"})


def _check_nesting(text: str) -> str | None:
    """What is wrong with a description of nested inputs: others than plain containers import what they name."""
    try:
        fine = not text or _is_plain(json.loads(text)[1])
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        fine = False
    return None if fine else "inputs or outputs that are no plain tuples, lists or dicts"


def _is_plain(spec: dict[str, Any]) -> bool:
    context = spec["context"]
    keys = None if context is None else json.loads(context)
    listed = keys is None or (isinstance(keys, list) and all(isinstance(key, str | int) for key in keys))
    return spec["type"] in _CONTAINERS and listed and all(map(_is_plain, spec["children_spec"]))


# ---- the whole file ----

_CHECKS: dict[str, Callable[[str], str | None]] = {
    "target": _check_operator,
    "as_operator": _check_operator,
    "expr_str": _check_expression,
    "guards_code": _check_guard,
    "in_spec": _check_nesting,
    "out_spec": _check_nesting,
}


def _wrong_in(found: Any, key: str = "") -> Iterator[str]:
    """What in a description of a program the exporter does not write; `key` says what it stands under."""
    if key in _FREE:
        return
    if isinstance(found, dict):
        if key in ("custom_obj_values", "as_custom_obj", "custom_obj") and found:
            yield "an object of a class of its own"
        for name, value in found.items():
            if not _NAME.fullmatch(name):
                yield f"the name {name!r:.60}"
            yield from _wrong_in(value, name)
    elif isinstance(found, list):
        for value in found:
            yield from _wrong_in(value, key)
    elif isinstance(found, str):
        if (check := _CHECKS.get(key)) is not None:
            wrong = check(found)
            if wrong is not None:
                yield f"{wrong}: {found!r:.80}"
        elif not (_VERSION if key == "torch_version" else _NAME).fullmatch(found):
            yield f"the name {found!r:.60}"


def checked_archive(path: Path) -> io.BytesIO:
    """The archive of an exported program, made anew of what was checked. InputError for anything else in it."""
    what = f"model {str(path)!r}"
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            twice = [name for name, times in Counter(names).items() if times > 1]
            packed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
            strange = _strange_members(names)
            if strange or twice or packed:
                raise InputError(
                    f"{what} is not an exported program of tensors alone: it holds "
                    f"{(strange or twice or packed)[0]!r:.80}; it is not loaded"
                )
            if sum(member.file_size for member in members) > path.stat().st_size:
                raise InputError(f"{what} is not an exported program (its members lie over each other)")
            held = {name: archive.read(name) for name in names}
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{what} is not an exported program ({error})") from error
    for name in names:
        if name.endswith(".json") and "/extra/" not in name and not name.startswith("extra_files/"):
            _check_json(what, name, held[name])
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            archive.writestr(name, held[name])
    made.seek(0)
    return made


def _strange_members(names: list[str]) -> list[str]:
    """The members that an exporter does not write: all in one folder, or at the top as before torch 2.8."""
    if "version" in names:
        return [name for name in names if not _MEMBERS_OF_2_7.fullmatch(name)]
    root = names[0].split("/")[0] + "/" if names else ""
    return [name for name in names if not (name.startswith(root) and _MEMBERS.fullmatch(name[len(root) :]))]


def _check_json(what: str, name: str, data: bytes) -> None:
    try:
        found = json.loads(data)
        if name.endswith("_config.json"):
            places = [each["path_name"] for each in found["config"].values()]
            wrong = [f"the place {place!r:.60}" for place in places if not _PAYLOAD.fullmatch(str(place))]
        else:
            wrong = list(_wrong_in(found))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{what} is not an exported program ({name}: {error})") from None
    if wrong:
        raise InputError(
            f"{what} is not an exported program of tensors alone: it holds {wrong[0]}; it is not loaded. A model that "
            "you trust may be built by a factory (file.py:factory)"
        )
