"""Classes by name and methods from their reprs: by kind, and only what is listed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import apportion as ap
from apportion import names
from apportion.core.registry import class_named, described_methods, from_repr, made_of, recorded
from apportion.engines.substitution import Gradients
from apportion.errors import InputError
from small import perceptron

KINDS = {
    "a rule": names.RULES,
    "a composite": names.COMPOSITES,
    "a partition": names.PARTITIONS,
    "a replacement": names.REPLACEMENTS,
    "a test": names.TESTS,
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [(place.split(":")[1], kind) for kind, places in KINDS.items() for place in places.values()],
)
def test_a_name_of_another_kind_as_a_method_is_one_line(name: str, kind: str) -> None:
    for text in (name, f"{name}()"):
        with pytest.raises(InputError, match=f"'{name}' is {kind}, not a method; accepted: auto"):
            from_repr(text)


@pytest.mark.parametrize(
    "text", ["Layer", "Layer()", "Rule", "InputError()", "names", "os", "Note", "Path('x')"]
)
def test_what_is_not_listed_cannot_be_reached(text: str) -> None:
    with pytest.raises(InputError, match="unknown method"):
        from_repr(text)
    with pytest.raises(InputError, match="unknown method"):
        from_repr(f"LRP(composite={text if text.endswith(')') else text + '()'})")


def test_a_method_as_a_test_is_said_to_be_one() -> None:
    with pytest.raises(InputError, match="'Saliency' is a method, not a test; accepted: pixel-flipping"):
        class_named("Saliency", "test")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("LPR", "unknown method 'LPR'; did you mean "),
        ("LRP(composit='epsilon')", "LRP has no setting 'composit'; did you mean 'composite'"),
        ("LRP('epsilon', composite='gamma')", "LRP: multiple values for argument 'composite'; accepted: "),
        ("LRP(**{'composite': 'epsilon'})", "is not accepted"),
        ("SmoothGrad(samples=1 + x)", r"cannot read '1 \+ x' in 'SmoothGrad"),
    ],
)
def test_what_a_repr_gets_wrong_is_said(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        from_repr(text)


def test_a_class_is_no_method_and_a_method_is_one_already() -> None:
    with pytest.raises(InputError, match=r"LRP is a class; accepted: LRP\(\), with settings or without"):
        made_of(ap.LRP)
    method = ap.LRP()
    assert made_of(method) is method
    assert made_of("lrp") == method


def test_a_file_that_names_no_method_is_refused() -> None:
    with pytest.raises(InputError, match=r"the method reads .*os\.system"):
        recorded("os.system('true')")
    assert repr(recorded("<a method of one's own>")) == "<a method of one's own>"


def test_lists_and_dicts_are_read() -> None:
    read = from_repr("LIME(replacement={'a': [Mean(), None]})").replacement
    assert read.of("a") == [ap.Mean(), None]
    assert repr(read) == "{'a': [Mean(), None]}"


def test_a_hopelessly_nested_text_is_one_line() -> None:
    with pytest.raises(InputError, match="cannot read method"):
        from_repr("LRP(" + "(" * 100_000)


@pytest.mark.parametrize("places", [*KINDS.values(), names.METHODS, names.INTERACTIONS, names.MAPS])
def test_every_listed_class_is_where_the_list_says(places: dict[str, str]) -> None:
    from importlib import import_module

    for place in places.values():
        module, name = place.split(":")
        assert getattr(import_module(f"apportion.{module}"), name).__name__ == name


@dataclass(frozen=True)
class Own:
    """The example of CONTRIBUTING."""

    times: float = 1.0

    def __call__(self, model: Any, inputs: Any, target: Any = None) -> ap.Explanation:
        subject = Gradients(model, inputs, target)
        score = subject.forward()
        values = [x * g * self.times for x, g in zip(score.leaves, score.gradients(), strict=True)]
        return subject.explanation(self, score, values, total=score.value)


def named_like(ours: str) -> type[Own]:
    return dataclass(frozen=True)(type(ours, (Own,), {"__doc__": Own.__doc__, "__annotations__": {}}))


@pytest.mark.parametrize("method", [Own(), Own(2.0), named_like("LRP")(2.0), named_like("Saliency")()])
def test_an_explanation_by_a_method_of_ones_own_is_saved_and_read_again(method: Own, tmp_path: Path) -> None:
    made = method(perceptron(4), torch.ones(2, 4), 0)
    read = ap.Explanation.load(made.save(tmp_path / "own.safetensors"))
    assert read == made
    assert repr(read.method) == repr(method)
    assert read.summary() == made.summary()
    assert not isinstance(read.method, type(method) | ap.LRP | ap.Saliency)
    assert ap.Explanation.load(read.save(tmp_path / "again.safetensors")) == made
    with pytest.raises(InputError, match="was read from a file without"):
        read.method(perceptron(4), torch.ones(2, 4))


@pytest.mark.parametrize(
    "make",
    [
        lambda n: ap.Background(torch.arange(6.0).view(3, 2) + n),
        lambda n: ap.Quartiles(torch.arange(6.0).view(3, 2) + n),
        lambda n: ap.LIME(partition=torch.tensor([0, 0, n])),
        lambda n: ap.Occlusion(partition=torch.tensor([0, 0, n])),
        lambda n: ap.KernelSHAP(replacement=ap.Background(torch.arange(6.0).view(3, 2) + n)),
        lambda n: ap.PixelFlipping(partition=torch.tensor([0, 0, n])),
        lambda n: ap.Sparseness(partition=torch.tensor([0, 0, n])),
    ],
)
def test_settings_that_hold_numbers_are_told_apart(make: Any) -> None:
    one, same, other = make(1), make(1), make(2)
    assert one == same
    assert hash(one) == hash(same)
    assert repr(one) == repr(same)
    assert one != other
    assert repr(one) != repr(other)


def test_numbers_that_are_given_are_not_those_that_are_kept() -> None:
    data = torch.ones(3, 2)
    background, before = ap.Background(data), repr(ap.Background(data))
    data.zero_()
    assert repr(background) == before
    assert bool((background.data == 1).all())


@pytest.mark.parametrize("text", ["LRP({[]: 1})", "LRP({{1}})", "LRP(1 + 'a')", "LRP({1: {[]}})"])
def test_values_that_python_cannot_make_are_one_line(text: str) -> None:
    with pytest.raises(InputError, match="cannot read"):
        from_repr(text)


@pytest.mark.parametrize("target", ["²", "--5", "٣", "1_0", "-"])
def test_a_class_that_only_looks_like_a_number_is_one_line(target: str) -> None:
    with pytest.raises(InputError, match="unknown class"):
        ap.explain(ap.load("sentiment"), "fine", "saliency", target)


def test_every_method_answers_one_question_and_the_documentation_says_which() -> None:
    answered = [name for places in names.QUESTIONS.values() for name in places]
    assert sorted(answered) == sorted(names.METHODS | names.INTERACTIONS | names.OF_ONE_KIND)
    assert [said["name"] for said in described_methods()] == answered
    text = (Path(__file__).parents[2] / "docs/methods.md").read_text(encoding="utf-8")
    for question, places in names.QUESTIONS.items():
        assert f"| {question} | {', '.join(f'`{name}`' for name in places)} |" in text
