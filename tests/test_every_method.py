"""What every method promises. A method is tested here by being listed in `apportion.methods`.

What a method cannot explain is declared in `CANNOT` with the reason; it must then raise an InputError.
"""

from __future__ import annotations

import json
import threading
import warnings
from contextlib import nullcontext
from functools import cache
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import small
from apportion.core.registry import from_repr
from apportion.core.target import Contrast
from apportion.errors import InputError
from apportion.methods.propagation.deeplift import DeepLIFT
from apportion.methods.propagation.lrp import LRP
from apportion.names import INTERACTIONS, METHODS
from apportion.results.result import SCHEMA

# Settings under which a method is quick on the small models; without an entry it is tested as it is.
QUICK = {
    "smoothgrad": "SmoothGrad(samples=4)",
    "vargrad": "VarGrad(samples=4)",
    "ig": "IntegratedGradients(nodes=4)",
    "lime": "LIME(samples=64)",
    "kernelshap": "KernelSHAP(samples=64)",
    "owen": "Owen(samples=64)",
    "rise": "RISE(samples=64)",
    "taylor": "Taylor(steps=40, tolerance=0.05)",
    "ih": "IntegratedHessians(nodes=2)",
    "shapleyinteractions": "ShapleyInteractions(budget=64)",
    # Pairs of patches, since a Hessian product for each of 192 pixels is slow.
    "ih cnn": "IntegratedHessians(nodes=2, groups=4)",
    "inputhessian cnn": "InputHessian(groups=4)",
    "shapleyinteractions cnn": "ShapleyInteractions(budget=64, groups=4)",
}

# What a method cannot explain: the small models → why. It must then raise an InputError.
_CAM = "a class activation map is laid over a picture"
CANNOT = {
    "rise": ("mlp lstm bert exported", "its masks are laid over a picture"),
    "gradcam": ("mlp lstm bert exported", _CAM),
    "gradcamplusplus": ("mlp lstm bert exported", _CAM),
    "layercam": ("mlp lstm bert exported", _CAM),
    "attention": ("mlp cnn lstm exported", "there is no attention in it"),
}

# Methods that read scores only: they explain a function without a gradient too.
BLACK_BOX = {"auto", "occlusion", "lime", "kernelshap", "rise", "owen", "shapleyinteractions"}

# Methods whose values are in double precision whatever the model's → why.
IN_DOUBLE = {
    "lime": "a regression is solved in it",
    "kernelshap": "a regression is solved in it",
    "owen": "weights of many coalitions are added up in it",
}

# A plain gradient, summed over an embedding that a LayerNorm follows, is zero: shifting all of the embedding
# changes nothing.
ZERO_BEFORE_LAYERNORM = {"smoothgrad", "guidedbackprop", "deconvnet"}

# Methods that need a package which is not among what the tests install → the package.
NEEDS = {"shapleyinteractions": "shapiq"}

every_method = pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=pytest.mark.skipif(find_spec(needs) is None, reason=f"{needs} is not installed")
        )
        if (needs := NEEDS.get(name))
        else name
        for name in (*METHODS, *INTERACTIONS)
    ],
)


def method(name: str, model: str = "") -> Any:
    """The method, with the settings that are quick on this model."""
    return from_repr(QUICK.get(f"{name} {model}", QUICK.get(name, name)))


@cache
def made(model: str) -> small.Made:
    return small.SMALL[model]()


def able(name: str, model: str) -> bool:
    """Whether the method can explain this model; if not, `test_result` sees it refuse."""
    return model not in CANNOT.get(name, ("",))[0].split()


def able_or_skip(name: str, model: str) -> None:
    if not able(name, model):
        pytest.skip(CANNOT[name][1])


@cache
def explained(name: str, model: str) -> Any:
    """One model explained by one method."""
    network, inputs = made(model)
    return method(name, model)(network, inputs)


def suited(name: str, *models: str) -> str:
    """The first of these models that the method can explain."""
    for model in (*models, *small.SMALL):
        if able(name, model):
            return model
    raise AssertionError(f"{name} can explain none of the small models")


def numbers(explanation: Any) -> list[Tensor]:
    return small.tensors(explanation.values)


def equal(a: Any, b: Any, rtol: float = 1e-6) -> None:
    """Equal up to a share of the largest value, and to what rounding leaves of a sum that is zero."""
    pairs = list(zip(numbers(a), numbers(b), strict=True))
    scale = max(float(x.abs().max()) for x, _ in pairs)
    for x, y in pairs:
        torch.testing.assert_close(x, y, rtol=rtol, atol=max(rtol * scale, 1e-12), check_dtype=False)


# ---- the result ----


@every_method
@pytest.mark.parametrize("model", list(small.SMALL))
def test_result(name: str, model: str) -> None:
    network, inputs = made(model)
    before, state = [tensor.clone() for tensor in small.tensors(inputs)], small.fingerprint(network)
    if able(name, model):
        check_result(name, model, explained(name, model))
    else:
        with pytest.raises(InputError):
            method(name, model)(network, inputs)
    assert small.fingerprint(network) == state
    for tensor, old in zip(small.tensors(inputs), before, strict=True):
        assert torch.equal(tensor, old)
        assert not tensor.requires_grad
        assert tensor.grad is None


def check_result(name: str, model: str, explanation: Any) -> None:
    inputs = made(model)[1]
    batch = small.tensors(inputs)[0].shape[0]
    assert len(explanation) == batch
    assert explanation.output.shape == (batch, 3)
    assert torch.equal(explanation.target, explanation.output.argmax(1))
    # What chooses a method is not the method that was used.
    if name == "auto":
        assert isinstance(explanation.method, LRP if model in ("cnn", "bert") else DeepLIFT)
    else:
        assert explanation.method == method(name, model)
    assert explanation.cost.forwards >= 1
    assert explanation.cost.seconds > 0
    for tensor in (*numbers(explanation), explanation.output):
        assert not tensor.requires_grad
        assert tensor.dtype == torch.float64
        assert bool(torch.isfinite(tensor).all())
        assert tensor.shape[0] == batch
    if not (model == "bert" and name in ZERO_BEFORE_LAYERNORM):
        assert any(bool((tensor.abs() > 1e-9).any()) for tensor in numbers(explanation)), (
            "nothing but rounding"
        )
    if explanation.total is not None:
        assert explanation.total.shape == (batch,)
        sums = sum(v.flatten(1).sum(1) for v in numbers(explanation)).double()
        torch.testing.assert_close(explanation.remainder, explanation.total - sums)
    assert type(explanation.method).__name__ in repr(explanation)
    assert len(explanation.top(2)) == 2


@every_method
@pytest.mark.parametrize("model", list(small.SMALL))
def test_values_have_the_shape_of_the_input(name: str, model: str) -> None:
    able_or_skip(name, model)
    values, inputs = explained(name, model).values, made(model)[1]
    if name in INTERACTIONS:
        assert values.dim() == 3
        torch.testing.assert_close(values, values.mT)
    elif isinstance(inputs, Tensor):
        assert values.shape == inputs.shape
    else:  # masks and position numbers say how to read an input; they are not explained
        assert {key: value.shape for key, value in values.items()} == {"input_ids": inputs["input_ids"].shape}


@every_method
def test_same_call_same_values(name: str) -> None:
    model = suited(name, "cnn")
    first, second = explained(name, model), method(name, model)(*made(model))
    assert all(torch.equal(a, b) for a, b in zip(numbers(first), numbers(second), strict=True))


@every_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_dtypes(name: str, model: str, dtype: torch.dtype) -> None:
    able_or_skip(name, model)
    network, x = small.SMALL[model]()
    explanation = method(name, model)(network.to(dtype), x.to(dtype))
    expected = torch.float64 if name in IN_DOUBLE else dtype
    assert all(value.dtype == expected for value in numbers(explanation))
    assert explanation.output.dtype == dtype
    if dtype == torch.float32:
        equal(explanation, explained(name, model), rtol=1e-3)


@every_method
@pytest.mark.parametrize("model", list(small.SMALL))
def test_a_sample_is_explained_as_if_alone(name: str, model: str) -> None:
    able_or_skip(name, model)
    network, inputs = made(model)
    whole = method(name, model)(network, inputs)
    for index in range(len(whole)):
        alone = method(name, model)(network, small.take(inputs, slice(index, index + 1)))
        assert len(alone) == 1
        equal(alone, whole[index])


# ---- targets ----


@every_method
def test_target_forms(name: str) -> None:
    model = suited(name, "mlp")
    network, inputs = made(model)
    run = method(name, model)
    predicted = run(network, inputs)
    labels = predicted.target
    for same in (labels, labels.tolist(), labels - 3):
        equal(run(network, inputs, target=same), predicted)
    ones = run(network, inputs, target=1)
    assert ones.target.tolist() == [1, 1, 1]
    for same in (torch.tensor(1), [1, 1, 1], -2, lambda scores: scores[:, 1]):
        equal(run(network, inputs, target=same), ones)
    contrast = run(network, inputs, target=Contrast(1, 2))
    assert contrast.target == "Contrast(positive=1, negative=2)"
    equal(contrast, run(network, inputs, target=lambda scores: scores[:, 1] - scores[:, 2]))
    assert contrast.total is None or contrast.total.shape == (3,)


@every_method
@pytest.mark.parametrize(
    "target",
    [
        3,
        -4,
        [0, 1],
        torch.tensor([0.0, 1.0, 2.0]),
        True,
        lambda scores: scores,
        lambda scores: 1.0,
        Contrast(0, 3),
    ],
    ids=["too high", "too low", "too few", "float", "bool", "unreduced", "no tensor", "contrast too high"],
)
def test_wrong_targets_are_refused(name: str, target: Any) -> None:
    network, inputs = made(suited(name, "mlp"))
    with pytest.raises(InputError):
        method(name)(network, inputs, target=target)


# ---- the model is left as it was ----


class Failing(nn.Module):
    """Passes its input on `after` times, then raises."""

    def __init__(self, error: type[BaseException], after: int) -> None:
        super().__init__()
        self.error, self.left = error, [after]

    def forward(self, x: Tensor) -> Tensor:
        self.left[0] -= 1
        if self.left[0] < 0:
            raise self.error("from the middle of the model")
        return x


@every_method
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("after", [0, 1])
def test_untouched_after_an_exception(name: str, error: type[BaseException], after: int) -> None:
    model = suited(name, "cnn", "mlp")
    network, inputs = small.SMALL[model]()
    failing = Failing(error, after)
    if isinstance(network, nn.Sequential):
        network.insert(2, failing)
    else:
        list(network.modules())[-1].register_forward_hook(lambda _, inputs, output: failing(output))
    state = small.fingerprint(network)
    try:
        method(name, model)(network, inputs)
    except error:
        assert failing.left[0] < 0
    else:
        assert failing.left[0] >= 0, "the exception was swallowed"
    assert small.fingerprint(network) == state
    failing.left[0] = 10**9
    equal(method(name, model)(network, inputs), explained(name, model))  # and the next call is right


@every_method
def test_untouched_in_training_mode(name: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(64, 3)
    )
    x = torch.randn(4, 2, 6, 6)
    able_or_skip(name, "cnn")
    state = small.fingerprint(network)
    # The samples of a batch norm in training mode move each other's roots, so that Taylor may find none.
    refused = pytest.raises(InputError, match="no root") if name == "taylor" else nullcontext()
    found: list[Any] = []
    with pytest.warns(UserWarning, match=r"training mode: 1, 3 make its output random"), refused:
        found.append(method(name)(network, x))
    assert small.fingerprint(network) == state
    assert all("training mode" in explanation.warnings[0] for explanation in found)


@every_method
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_under_no_grad_and_inference_mode(name: str, mode: Any) -> None:
    model = suited(name, "cnn")
    network, inputs = made(model)
    with mode():
        fresh = {key: t.clone() for key, t in inputs.items()} if isinstance(inputs, dict) else inputs.clone()
        found = method(name, model)(network, fresh)
        assert not torch.is_grad_enabled()
    equal(found, explained(name, model))


@every_method
def test_two_threads_at_once(name: str) -> None:
    model = suited(name, "cnn")
    network, inputs = made(model)
    state = small.fingerprint(network)
    expected = [method(name, model)(network, inputs, target=target) for target in (0, 1)]
    found: dict[int, Any] = {}

    def run(target: int) -> None:
        for _ in range(3):
            found[target] = method(name, model)(network, inputs, target=target)

    threads = [threading.Thread(target=run, args=(target,)) for target in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for target in (0, 1):
        equal(found[target], expected[target])
    assert small.fingerprint(network) == state


# ---- written down and read again ----


@every_method
def test_repr_rebuilds_the_method(name: str) -> None:
    assert from_repr(name) == from_repr(repr(from_repr(name)))
    assert from_repr(repr(method(name))) == method(name)
    assert hash(from_repr(name)) == hash(from_repr(name))
    with pytest.raises((AttributeError, TypeError)):
        method(name).anything = 1


@every_method
def test_save_and_load(name: str, tmp_path: Any) -> None:
    explanation = explained(name, suited(name, "bert", "cnn"))
    path = explanation.save(tmp_path / "folder" / "explanation.safetensors")
    again = type(explanation).load(path)
    assert again == explanation
    assert again.method == explanation.method
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@every_method
def test_file_of_a_newer_schema_is_refused(name: str, tmp_path: Any) -> None:
    explanation = explained(name, suited(name, "mlp"))
    path = explanation.save(tmp_path / "explanation.safetensors")
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    (key,) = metadata
    header = json.loads(metadata[key])
    save_file(tensors, path, {key: json.dumps({**header, "schema": SCHEMA + 1})})
    with pytest.raises(InputError, match="newer"):
        type(explanation).load(path)


# ---- what cannot be explained ----


@every_method
def test_scores_that_are_not_finite_are_refused(name: str) -> None:
    network, inputs = made(suited(name, "mlp"))

    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network

        def forward(self, *args: Any, **kwargs: Any) -> Tensor:
            found = self.inner(*args, **kwargs)
            found = found if isinstance(found, Tensor) else found.logits
            return found * torch.tensor([1.0, float("nan"), 1.0], dtype=found.dtype)

    with pytest.raises(InputError, match="NaN"):
        method(name)(Broken().eval(), inputs)


WRONG_INPUTS = {
    "list": [1.0, 2.0],
    "nothing": None,
    "string": "a sentence",
    "no batch": torch.tensor(1.0),
    "empty batch": torch.ones(0, 6),
    "not finite": torch.full((2, 6), float("nan")),
    "no tensors": {},
    "other than tensors": (torch.ones(2, 6), "x"),
    "batches that differ": (torch.ones(2, 6), torch.ones(3, 6)),
}


@every_method
@pytest.mark.parametrize("inputs", list(WRONG_INPUTS.values()), ids=list(WRONG_INPUTS))
def test_wrong_inputs_are_refused(name: str, inputs: Any) -> None:
    network, _ = made("mlp")
    with pytest.raises(InputError):
        method(name)(network, inputs)


@every_method
@pytest.mark.parametrize("model", [None, "model", 3])
def test_what_is_no_model_is_refused(name: str, model: Any) -> None:
    with pytest.raises(InputError):
        method(name)(model, torch.ones(2, 6))


@every_method
@pytest.mark.parametrize(
    "model",
    [
        lambda x: "no scores",
        lambda x: x.sum(),
        lambda x: x[:1],
        lambda x: x.argmax(1),
        lambda x: x[:, :, None],
    ],
    ids=["a string", "one number", "another batch", "integers", "three dimensions"],
)
def test_wrong_outputs_are_refused(name: str, model: Any) -> None:
    with pytest.raises(InputError):
        method(name)(model, torch.ones(2, 6))


@every_method
@pytest.mark.parametrize(
    "function",
    [lambda x: x.detach() * 2, lambda x: torch.ones(x.shape[0], 3), lambda x: (x > 0).double()],
    ids=["detached", "constant", "compared"],
)
def test_without_a_gradient(name: str, function: Any) -> None:
    """Methods that read gradients say that there is none; methods that hide features do not need one."""

    class Blocked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x).flatten(1)

    x = torch.randn((2, 6) if able(name, "mlp") else (2, 3, 8, 8), dtype=torch.float64)
    if name in BLACK_BOX:
        method(name)(Blocked(), x)
        return
    with pytest.raises(InputError) as raised:
        method(name)(Blocked(), x)
    assert "Occlusion" in str(raised.value) or not able(name, "mlp")


@every_method
def test_no_warning_without_a_reason(name: str) -> None:
    model = suited(name, "mlp")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explained(name, model)
