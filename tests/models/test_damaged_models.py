"""Model files that are damaged or odd: each loads and explains, is refused in one line, or fails with an error of the
model's own that says what it was called with."""

from __future__ import annotations

import io
import json
import random
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import apportion as ap
from apportion.errors import CONTROLS, InputError

DAMAGES, OF_FOLDERS = 150, 60  # which take longer to be loaded
ODD: list[Any] = [
    None, True, -1, 0, 1e308, 10**30, "", "x" * 1000, [], {}, [1], {"a": 1}, "../../x", float("nan"), "\x1b[2J",
    "__import__('os')",
]  # fmt: skip
ROWS = np.random.default_rng(0).random((40, 3))


class Pictures(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x).view(x.shape[0], 2, -1).sum(2)


def exported(path: Path) -> None:
    shapes = ({0: torch.export.Dim.AUTO},)
    program = torch.export.export(Pictures().eval(), (torch.rand(3, 3, 8, 8),), dynamic_shapes=shapes)
    torch.export.save(program, path)


def graph(path: Path) -> None:
    onnx: Any = pytest.importorskip("onnx", reason="needs onnx, which writes such files")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    make, number = onnx.helper, onnx.TensorProto.FLOAT
    weights = onnx.numpy_helper.from_array(np.ones((3, 2), np.float32), "w")
    takes, gives = (
        make.make_tensor_value_info(name, number, ["n", wide]) for name, wide in (("x", 3), ("y", 2))
    )
    made = make.make_graph([make.make_node("MatMul", ["x", "w"], ["y"])], "g", [takes], [gives], [weights])
    opset = [make.make_opsetid("", 17)]
    path.write_bytes(make.make_model(made, opset_imports=opset, ir_version=9).SerializeToString())


def estimator(path: Path) -> None:
    skops: Any = pytest.importorskip("skops.io", reason="needs skops, which writes such files")
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
    from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]
    from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]

    skops.dump(make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, ROWS[:, 0] > 0.5), path)


def estimated(path: Path) -> Any:
    from pandas import DataFrame

    frame = DataFrame(ROWS)
    return ap.explain(ap.load(path, background=frame), frame[:2], "occlusion")


def language_model(path: Path) -> None:
    pytest.importorskip("transformers")
    import small_language_models as small

    small.saved(small.causal(window=64), path)


def answered(path: Path) -> Any:
    return ap.explain(ap.load(path), "the capital of", "saliency", max_new_tokens=2)


KINDS: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any]]] = {
    "m.pt2": (exported, lambda p: ap.Saliency()(ap.load(p), torch.ones(2, 3, 8, 8), 0)),
    "m.onnx": (graph, lambda p: ap.Occlusion()(ap.load(p), torch.ones(2, 3), 0)),
    "m.skops": (estimator, estimated),
    "folder": (language_model, answered),
}


def changed_json(data: bytes, draw: random.Random) -> bytes:
    """One of its fields gone or replaced."""
    found = json.loads(data)
    places = list(fields_of(found))
    holder, key = draw.choice(places)
    if draw.random() < 0.2:
        del holder[key]
    else:
        holder[key] = draw.choice([*ODD, [holder[key]]])
    return json.dumps(found).encode()


def fields_of(found: Any) -> Iterator[tuple[Any, Any]]:
    pairs = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    for key, value in pairs:
        yield found, key
        yield from fields_of(value)


def changed_bytes(data: bytes, draw: random.Random) -> bytes:
    """Cut off, with bits turned over, zeros or more bytes in it."""
    found, at = bytearray(data or b"x"), draw.randrange(max(1, len(data)))
    kind = draw.randrange(4)
    if kind == 0:
        return bytes(found[:at])
    if kind == 1:
        for _ in range(draw.choice([1, 3, 20])):
            found[draw.randrange(len(found))] ^= 1 << draw.randrange(8)
    elif kind == 2:
        found[at : at + 16] = draw.choice([b"\0" * 16, b"\xff\xff\xff\x7f"])
    else:
        found[at:at] = draw.randbytes(draw.choice([1, 8, 100]))
    return bytes(found)


def changed_archive(data: bytes, draw: random.Random) -> bytes:
    """One of its members changed, under a checksum that is right."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as before, zipfile.ZipFile(made, "w") as after:
        one = draw.choice(before.namelist())
        for member in before.infolist():
            held = before.read(member)
            if member.filename == one:
                if draw.random() < 0.1:
                    continue
                held = changed_json(held, draw) if held[:1] == b"{" else changed_bytes(held, draw)
            after.writestr(member, held, member.compress_type)
    return made.getvalue()


def damage(path: Path, draw: random.Random) -> str:
    file = draw.choice(sorted(path.iterdir())) if path.is_dir() else path
    held = file.read_bytes()
    if held[:2] == b"PK" and draw.random() < 0.8:
        file.write_bytes(changed_archive(held, draw))
    elif file.suffix == ".json" and draw.random() < 0.8:
        file.write_bytes(changed_json(held, draw))
    else:
        file.write_bytes(changed_bytes(held, draw))
    return file.name


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_model_is_refused_in_one_line_or_says_what_it_was_called_with(
    kind: str, tmp_path: Path
) -> None:
    write, use = KINDS[kind]
    good, bad = tmp_path / "good" / kind, tmp_path / "bad" / kind
    good.parent.mkdir()
    write(good)
    use(good)
    for number in range(OF_FOLDERS if kind == "folder" else DAMAGES):
        shutil.rmtree(bad.parent, ignore_errors=True)
        shutil.copytree(good.parent, bad.parent)
        told = f"damage {number}: {damage(bad, random.Random(number))}"
        failed = error_of(use, bad)
        if isinstance(failed, InputError):
            assert not CONTROLS.search(str(failed)), told
        elif failed is not None:
            notes = " ".join(getattr(failed, "__notes__", ()))
            assert "the model was called with" in notes, f"{told}: {failed!r}"


def error_of(use: Callable[[Path], Any], path: Path) -> Exception | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            use(path)
    except Exception as error:
        return error
    return None


def test_an_expression_that_takes_for_ever_is_none_of_sizes() -> None:
    from apportion.models._exported import _check_expression

    for text in ("Float('0.5', precision=53)", "Integer(3)", "Float('1.0e-5', precision=53)"):
        assert _check_expression(text) is None
    for text in (
        "Integer(Float('1e3000000'))",
        "Float('1.1', precision=100000000)",
        "Float('1.1', 100000000)",
        f"Float('1{'0' * 50}')",
    ):
        assert _check_expression(text) is not None


@pytest.mark.parametrize(
    ("file", "field", "value"),
    [("config.json", "architectures", [{}]), ("tokenizer_config.json", "model_max_length", "many")],
)
def test_an_odd_field_of_a_folder_is_named(file: str, field: str, value: Any, tmp_path: Path) -> None:
    language_model(tmp_path / "m")
    settings = json.loads((tmp_path / "m" / file).read_text())
    (tmp_path / "m" / file).write_text(json.dumps(settings | {field: value}))
    with pytest.raises(InputError, match=field):
        answered(tmp_path / "m")
