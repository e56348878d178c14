"""Explanations: book-keeping, one sample of many, files that come back as they were."""

import json
import os
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

import apportion as ap
from apportion.core.features import ImageFeatures, TabularFeatures, TextFeatures
from apportion.core.files import write_whole
from apportion.core.registry import from_repr
from apportion.engines.masking.replacements import Background
from apportion.engines.subject import Subject
from apportion.errors import InputError
from apportion.results.explanation import Explanation
from apportion.results.result import SCHEMA


def linear(bias=False):
    torch.manual_seed(0)
    return torch.nn.Linear(3, 2, bias=bias)


@pytest.fixture
def explanation():
    return ap.InputXGradient()(linear(bias=True), torch.randn(7, 3), target=1)


def test_remainder_is_what_the_values_leave(explanation):
    bias = linear(bias=True).bias[1].item()
    torch.testing.assert_close(explanation.remainder, torch.full((7,), bias, dtype=torch.float64))
    torch.testing.assert_close(explanation.apportioned, explanation.total.double() - bias)


def test_remainder_is_summed_in_double_precision():
    values = torch.full((1, 10**6), 0.1)
    found = replace(ap.Saliency()(linear(), torch.ones(1, 3)), values=values, total=values.double().sum(1))
    assert abs(found.remainder.item()) < 1e-6


def test_methods_that_do_not_add_up_have_no_remainder():
    found = ap.Saliency()(linear(), torch.ones(1, 3))
    assert found.total is None
    assert found.remainder is None
    assert "do not claim to add up" in found.summary()


def test_one_sample_of_many(explanation):
    last = explanation[-1]
    assert len(last) == 1
    assert torch.equal(last.values, explanation.values[6:])
    assert torch.equal(last.total, explanation.total[6:])
    assert last == explanation[6]
    assert [len(sample) for sample in explanation] == [1] * 7
    for wrong in (7, -8):
        with pytest.raises(IndexError, match=f"sample {wrong} of 7"):
            explanation[wrong]


def test_one_sample_of_several_inputs():
    found = ap.InputXGradient()(lambda a, b: a + b, (torch.ones(3, 2), torch.ones(3, 2)), target=0)
    assert [v.shape for v in found[1].values] == [(1, 2), (1, 2)]
    named = ap.InputXGradient()(lambda a, b: a * b, {"a": torch.ones(3, 2), "b": torch.ones(3, 2)}, target=0)
    assert {key: v.shape for key, v in named[1].values.items()} == {"a": (1, 2), "b": (1, 2)}


def test_repr_says_what_is_explained_and_left_over(explanation):
    lines = repr(explanation).splitlines()
    assert len(lines) == 6
    assert lines[0].startswith("InputXGradient of class 1: explained ")
    assert lines[0].endswith(("left over", "too much"))
    assert lines[-1] == "… and 2 more"


def test_equal_only_if_all_is_equal(explanation):
    assert explanation == replace(explanation)
    assert explanation != replace(explanation, values=explanation.values + 1e-6)
    assert explanation != replace(explanation, method=ap.Saliency())
    assert explanation != replace(explanation, warnings=("w",))
    assert explanation != "an explanation"
    with pytest.raises(TypeError, match="unhashable"):
        hash(explanation)


def test_top_is_ordered_by_size():
    found = ap.InputXGradient()(lambda x: (x * torch.tensor([1.0, -3.0, 2.0])).sum(1), torch.ones(1, 3))
    assert found.top(2) == [("input[1]", -3.0), ("input[2]", 2.0)]


def test_words_have_the_sum_of_their_tokens():
    offsets = ((0, 0), (0, 3), (4, 5), (5, 7))
    features = TextFeatures("not bad", ("[CLS]", "not", "b", "ad"), offsets, (None, 0, 1, 1))
    found = ap.InputXGradient()(lambda x: x.sum(1), torch.tensor([[9.0, 1.0, 2.0, 4.0]]))
    named = found.with_features([features], ["negative"])
    assert named.top() == [("bad", 6.0), ("not", 1.0)]
    assert named.label() == "negative"
    with pytest.raises(InputError, match="2 features for 1 samples"):
        found.with_features([features, features])


# ---- files ----


def text_features():
    return TextFeatures("a “film”", ("a", "“film”"), ((0, 1), (2, 8)), (0, 1))


FEATURES = {
    "none": None,
    "text": text_features(),
    "image": ImageFeatures(torch.randint(0, 256, (4, 5, 3), dtype=torch.uint8), "resized"),
    "table": TabularFeatures(("a", "b"), ("1", "2"), (0, 0, 1)),
}


@pytest.mark.parametrize("features", list(FEATURES.values()), ids=list(FEATURES))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_round_trip(tmp_path, features, dtype):
    found = ap.InputXGradient()(linear().to(dtype), torch.randn(2, 3, dtype=dtype))
    if features is not None:
        found = found.with_features([features] * 2, ["no", "yes"])
    found = replace(found, warnings=("a warning",), notes={"nodes": 8, "model": "münchen"})
    again = Explanation.load(found.save(tmp_path / "e.safetensors"))
    assert again == found
    assert again.features == found.features
    assert again.labels == found.labels
    assert again.warnings == found.warnings
    assert again.notes == found.notes
    assert again.cost == found.cost
    assert again.values.dtype == dtype


def test_round_trip_of_several_inputs_and_a_callable_target(tmp_path):
    a, b = torch.ones(2, 2), torch.ones(2, 2)
    for inputs in ((a, b), {"a": a, "b": b}):
        found = ap.InputXGradient()(lambda a, b: a * b, inputs, target=ap.Contrast(0, 1))
        again = Explanation.load(found.save(tmp_path / "e.safetensors"))
        assert again == found
        assert again.target == "Contrast(positive=0, negative=1)"


def test_round_trip_of_a_ledger(tmp_path):
    found = ap.LRP("epsilon", ledger=True)(linear(bias=True), torch.randn(2, 3))
    again = Explanation.load(found.save(tmp_path / "e.safetensors"))
    assert again == found
    assert again.ledger.absorbed == found.ledger.absorbed


def header_of(path, **changes):
    """The same file with another header."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(file.metadata()["apportion"])
    save_file(tensors, path, {"apportion": json.dumps({**header, **changes})})


def test_files_that_are_refused(tmp_path, explanation):
    path = explanation.save(tmp_path / "e.safetensors")
    header_of(path, schema=SCHEMA + 1)
    with pytest.raises(InputError, match=r"newer than the 1 .* install a newer apportion"):
        Explanation.load(path)
    explanation.save(path)
    header_of(path, method="__import__('os').system('true')")
    with pytest.raises(InputError):
        Explanation.load(path)
    with pytest.raises(InputError, match="no explanation file"):
        Explanation.load(tmp_path / "missing")
    for name, content in {"empty": b"", "text": b"values", "pickle": b"\x80\x04."}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="not an apportion explanation"):
            Explanation.load(tmp_path / name)
    save_file({"values": torch.ones(1)}, tmp_path / "other")
    with pytest.raises(InputError, match="not an apportion explanation"):
        Explanation.load(tmp_path / "other")


def test_incomplete_files_are_refused(tmp_path, explanation):
    path = explanation.save(tmp_path / "e.safetensors")
    header_of(path, cost=None)
    with pytest.raises(InputError, match="not an apportion explanation"):
        Explanation.load(path)
    header = {"schema": SCHEMA}
    save_file({"output": torch.ones(1)}, path, {"apportion": json.dumps(header)})
    with pytest.raises(InputError, match="not an apportion explanation"):
        Explanation.load(path)


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written(tmp_path, explanation):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        explanation.save(tmp_path / "file" / "e.safetensors")


def test_one_sample_of_many_leaves_the_rest_behind():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    assert ap.LRP(ledger=True)(model, torch.randn(2, 3))[1].ledger is None  # it is of both
    assert ap.LRP(ledger=True)(model, torch.randn(1, 3))[0].ledger is not None
    shap = ap.KernelSHAP()(model, torch.randn(3, 3))
    assert shap[2].notes["coefficients"] == shap.notes["coefficients"][2:]
    assert shap[2].notes["samples"] == shap.notes["samples"]


def test_the_largest_of_several_inputs():
    found = ap.InputXGradient()(
        lambda a, b: a.sum(1) + 3 * b[:, :1, 0].sum(1), (torch.ones(2, 2), torch.ones(2, 2, 1))
    )
    assert found.top(1) == [("input 1[0, 0]", 3.0)]
    names, values = found.relevance()
    assert names == ("input 0[0]", "input 0[1]", "input 1[0, 0]", "input 1[1, 0]")
    assert values.tolist() == [1, 1, 3, 0]


def test_the_words_of_a_layer_have_the_sums_of_its_dimensions():
    layer = torch.nn.Embedding(5, 3)
    model = torch.nn.Sequential(layer, torch.nn.Flatten(), torch.nn.Linear(6, 2))
    found = ap.InputXGradient(at="0")(model, torch.tensor([[1, 4]]))
    features = TextFeatures("not bad", ("not", "bad"), ((0, 3), (4, 7)), (0, 1))
    names, values = found.with_features([features]).relevance()
    assert names == ("not", "bad")
    torch.testing.assert_close(values, found.values[0].sum(1))


def test_the_units_of_a_layer_are_no_columns_even_if_there_are_as_many():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    row = TabularFeatures(("age", "sex"), ("41", "female"), (0, 1, 1))
    found = ap.LRP(at="0")(model, torch.ones(1, 3)).with_features([row])
    assert found.relevance()[0] == ("0[0]", "0[1]", "0[2]")


def test_words_of_texts_that_were_padded():
    texts = [
        TextFeatures("a b", ("a", "b"), ((0, 1), (2, 3)), (0, 1)),
        TextFeatures("c", ("c",), ((0, 1),), (0,)),
    ]
    values = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    found = replace(ap.Saliency()(linear(), torch.ones(2, 3)), values=values).with_features(texts)
    assert found.top(3, 1) == [("c", 3.0)]


def test_a_method_whose_settings_hold_data_comes_back_as_a_record(tmp_path):
    data = torch.randn(5, 3)
    for method in (
        ap.KernelSHAP(replacement=Background(data)),
        ap.Occlusion(partition=torch.tensor([0, 0, 1])),
    ):
        found = method(linear(), torch.ones(1, 3))
        back = Explanation.load(found.save(tmp_path / "e.safetensors"))
        assert type(back.method).__name__ == type(method).__name__
        assert repr(back.method) == repr(method)
        assert back == found
        with pytest.raises(InputError, match="make it anew"):
            back.method(linear(), torch.ones(1, 3))


def test_methods_of_one_kind_of_model_go_by_either_name():
    assert repr(from_repr("prototypes")) == "Prototypes()"
    assert from_repr("kerneldecomposition") == from_repr("KernelDecomposition") == ap.KernelDecomposition()


# ---- what is left over ----


def left_over_by(shares: list[float], total: float = 2.0) -> ap.Explanation:
    """An explanation that leaves these shares of its totals."""

    def method(model, x, target=None):
        subject = Subject(model, x, target)
        values = total * (1 - torch.tensor(shares))[:, None]
        return subject.result(ap.Explanation, method, values, torch.full((len(shares),), total), model(x))

    return method(lambda x: total * x, torch.ones(len(shares), 1))


def test_what_is_left_over_is_a_share_and_a_word():
    e = left_over_by([0.0, 0.005, 0.03, 0.5, 1.25])
    assert e.left_over.tolist() == pytest.approx([0.0, 0.005, 0.03, 0.5, 1.25], abs=1e-6)
    assert [e.verdict(i) for i in range(5)] == [
        "0 % left over: adds up",
        "0.5 % left over: adds up",
        "3 % left over: nearly adds up",
        "50 % left over: does not add up",
        "125 % left over: does not add up",
    ]
    assert e.account(3) == "explained 1.00 of 2.00: 1.00 left over (50 %, does not add up)"


def test_the_warning_is_of_the_samples_that_it_is_about():
    e = left_over_by([0.0, 0.3, 0.5])
    (told,) = e.warnings
    assert told.startswith("left over: 50 % of the total at most, and more than 20 % in 2 of 3 samples")
    assert [len(e[i].warnings) for i in range(3)] == [0, 1, 1]
    assert e[1].warnings[0].startswith("left over: 30 % of the total:")
    assert not left_over_by([0.0, 0.1]).warnings


def test_the_share_to_warn_from_can_be_set():
    e = left_over_by([0.3, 0.1])
    assert not e.warn_from(0.4).warnings
    asked = e.warn_from(0.05)
    assert "more than 5 % in 2 of 2 samples" in asked.warnings[0]
    assert asked[1].warnings[0].startswith("left over: 10 %")
    model = torch.nn.Linear(2, 1)
    e = ap.explain(model, torch.ones(1, 2), "lrp", warn_from=1e-9)
    assert e.warnings[0].startswith("left over: ")
    for wrong in (0, -1, float("nan"), "much"):
        with pytest.raises(InputError, match="warn_from"):
            e.warn_from(wrong)


def test_a_total_of_zero_leaves_nothing_or_all():
    assert left_over_by([0.0], total=0.0).verdict() == "0 % left over: adds up"
    e = ap.InputXGradient()(lambda x: x - 1, torch.ones(1, 1))
    assert e.verdict() == "more than 10000 % left over: does not add up"
    assert e.warnings
    assert ap.Saliency()(lambda x: x - 1, torch.ones(1, 1)).verdict() == ""


def test_the_top_of_a_picture_are_pixels_of_the_photo():
    values = torch.zeros(1, 3, 2, 4)
    values[0, :, 1, 3] = torch.tensor([1.0, 2.0, -0.5])
    values[0, 0, 0, 1] = -2.0
    picture = torch.zeros(2, 4, 3, dtype=torch.uint8)
    plain = ap.InputXGradient()(lambda x: x.flatten(1).sum(1, keepdim=True), torch.ones(1, 3, 2, 4), 0)
    for part, names in (
        (None, ["x 3, y 1", "x 1, y 0"]),
        ((10.0, 20.0, 50.0, 30.0), ["x 45, y 27", "x 25, y 22"]),
    ):
        found = replace(plain, values=values).with_features(
            (ImageFeatures(picture, photo=(80, 60), part=part),)
        )
        assert found.top(2) == [(names[0], 2.5), (names[1], -2.0)]
