"""ONNX files run as functions: what they compute, what they are fed, and what is refused."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import apportion as ap
from apportion import InputError

WEIGHTS = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, -1.0]], np.float32)
X = torch.tensor([[1.0, 2.0, 3.0]])


def write(
    path: Path, takes: list[Any], nodes: list[tuple[str, ...]], weights: dict[str, Any], **more: Any
) -> Path:
    """A file with one input `x` and one output `y`; a node is (operator, inputs …, output)."""
    onnx: Any = pytest.importorskip("onnx", reason="needs onnx, which writes such files")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    make, number = onnx.helper, onnx.TensorProto.FLOAT
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
    for tensor in tensors:
        if more.get("outside"):
            onnx.external_data_helper.set_external_data(tensor, location=more["outside"])
            tensor.ClearField("raw_data")
    graph = make.make_graph(
        [make.make_node(n[0], list(n[1:-1]), [n[-1]], domain=more.get("domain", "")) for n in nodes],
        "g",
        [make.make_tensor_value_info("x", number, takes)],
        [make.make_tensor_value_info("y", number, [takes[0], 2])],
        tensors,
    )
    sets = [make.make_opsetid("", 17), *([make.make_opsetid(more["domain"], 1)] if "domain" in more else [])]
    path.write_bytes(make.make_model(graph, opset_imports=sets, ir_version=9).SerializeToString())
    return path


def linear(path: Path, batch: Any = "n", **more: Any) -> Path:
    return write(path, [batch, 3], [("MatMul", "x", "w", "y")], {"w": WEIGHTS}, **more)


@pytest.mark.parametrize("batch", ["n", 1, 4], ids=str)
def test_a_linear_file_is_explained_exactly_whatever_batch_it_takes(tmp_path: Path, batch: Any) -> None:
    model = ap.load(linear(tmp_path / "m.onnx", batch))
    expected = X * torch.from_numpy(WEIGHTS[:, 0])
    for method in (ap.KernelSHAP(), ap.Occlusion()):
        found = method(model, X, target=0)
        torch.testing.assert_close(found.values, expected.to(found.values.dtype), rtol=1e-4, atol=1e-4)
    assert ap.LIME(samples=64)(model, X, target=0).top(1)[0][0].endswith("[2]")
    torch.testing.assert_close(ap.Auto()(model, X, target=0).values.float(), expected, rtol=1e-4, atol=1e-4)


def test_a_picture_is_prepared_as_the_file_takes_it_and_the_guess_is_told(tmp_path: Path) -> None:
    nodes = [("GlobalAveragePool", "x", "p"), ("Flatten", "p", "f"), ("MatMul", "f", "w", "y")]
    path = write(tmp_path / "m.onnx", [1, 3, 16, 24], nodes, {"w": WEIGHTS})
    Image.new("RGB", (40, 40), (200, 0, 0)).save(tmp_path / "red.png")
    found = ap.explain(ap.load(path), tmp_path / "red.png", ap.Occlusion(partition=ap.Patches(8)), target=0)
    assert found.values.shape == (1, 3, 16, 24)
    told = "resized to 27, cropped to 24x16, ImageNet mean and std"
    assert any("guessed" in each and told in each for each in found.warnings), found.warnings


def test_gradients_of_a_file_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        ap.LRP()(ap.load(linear(tmp_path / "m.onnx")), X, target=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"domain": "my.own"}, "my.own"),
        ({"outside": "weights.bin"}, "weights.bin"),
        ({"outside": "../weights.bin"}, "weights.bin"),
    ],
    ids=["an operator of its own", "weights in another file", "weights elsewhere"],
)
def test_what_would_need_more_than_the_file_is_refused(
    tmp_path: Path, more: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    for place in (tmp_path, tmp_path / "in"):
        (place / "weights.bin").write_bytes(WEIGHTS.tobytes())
    with pytest.raises(InputError, match="is not an ONNX file that onnxruntime runs by itself") as caught:
        ap.load(linear(tmp_path / "in" / "m.onnx", **more))
    assert "\n" not in str(caught.value)
    assert told in str(caught.value)


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    (tmp_path / "m.onnx").write_bytes(b"\x80\x04 no model")
    with pytest.raises(InputError, match="not an ONNX file"):
        ap.load(tmp_path / "m.onnx")
    with pytest.raises(InputError, match="no such file"):
        ap.load(tmp_path / "none.onnx")


def test_a_shape_that_the_file_does_not_take_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"input 'x' has shape \(1, 2\); model 'm.onnx' takes \['n', 3\]"):
        ap.Occlusion()(ap.load(linear(tmp_path / "m.onnx")), X[:, :2], target=0)


def test_without_the_package_the_line_that_installs_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.onnx").write_bytes(b"any")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"pip install 'apportion\[onnx\]'"):
        importlib.import_module("apportion.models").load(tmp_path / "m.onnx")
