"""Files of results and models, damaged in every field and every tensor in turn: each is refused in one line that names
the file, or is what can be used."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import apportion as ap
from apportion.core.checksummed import seal
from apportion.core.features import ImageFeatures, TabularFeatures, TextFeatures
from apportion.core.files import stored
from apportion.errors import InputError
from apportion.results.grid import TextTable
from apportion.results.scores import Scores
from apportion.study.tables import read_tables, write_tables

# What stands in the place of a field, or of what is in it.
OTHERS: list[Any] = [None, True, -1, 10**30, 1.5, "x", "", [], {}, [[]], [None], {"a": 1}, ["x"]]


def damaged(found: Any, deep: int = 3) -> Iterator[tuple[str, Any]]:
    """(place, the same JSON with one thing in it replaced or gone), for each thing in it."""
    items = list(found.items()) if isinstance(found, dict) else list(enumerate(found[:2]))
    for key, value in items:
        rest = dict(found) if isinstance(found, dict) else list(found)
        del rest[key]
        yield f"{key} gone", rest
        for other in OTHERS:
            changed = dict(found) if isinstance(found, dict) else list(found)
            changed[key] = other
            yield f"{key} = {other!r}", changed
        if isinstance(value, dict | list) and value and deep:
            for place, inside in damaged(value, deep - 1):
                changed = dict(found) if isinstance(found, dict) else list(found)
                changed[key] = inside
                yield f"{key}.{place}", changed


def other_tensors(tensor: Tensor) -> list[Tensor]:
    """Tensors that may stand in the place of one."""
    kinds = (torch.int64, torch.uint8, torch.bool, torch.float16, torch.float64, torch.complex64)
    shapes = (
        [tensor[:0], tensor[:1], tensor.flatten(), tensor[None], torch.cat([tensor, tensor])]
        if tensor.dim()
        else []
    )
    nan = [torch.full_like(tensor, torch.nan)] if tensor.is_floating_point() else [tensor - 10**6]
    return [
        *(tensor.to(kind) for kind in kinds),
        *shapes,
        *nan,
        torch.zeros(()),
        torch.zeros(0),
        torch.zeros(1, 1, 1, 1, 1),
    ]


def damages_of(path: Path, kind: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Tensor]]]:
    """(what was done, the header, the tensors) for every damage to a file."""
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()[kind])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for place, changed in damaged(header):
        yield place, changed, tensors
    for name, tensor in tensors.items():
        yield f"{name} gone", header, {key: t for key, t in tensors.items() if key != name}
        for other in other_tensors(tensor):
            yield (
                f"{name} as {other.dtype} {tuple(other.shape)}",
                header,
                {**tensors, name: other.contiguous()},
            )


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).eval()


def rows() -> ap.Explanation:
    x = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    found = ap.LRP(ledger=True)(network(), x, 1)
    own = TabularFeatures(("a", "b", "c"), ("1", "2", "3"), (0, 1, 2))
    return found.with_features([own, own], ("no", "yes"))


def text() -> ap.Explanation:
    x = torch.rand(1, 3, generator=torch.Generator().manual_seed(0))
    features = TextFeatures("a b c", ("a", "b", "c"), ((0, 1), (2, 3), (4, 5)), (0, 1, 2))
    return ap.IntegratedGradients(nodes=2)(network(), x, [0]).with_features([features], ("no", "yes"))


def picture() -> ap.Explanation:
    model = torch.nn.Sequential(torch.nn.Flatten(), network())
    features = ImageFeatures(torch.zeros(1, 3, 3, dtype=torch.uint8), "cut")
    return ap.Saliency()(model, torch.rand(1, 1, 1, 3), 1).with_features([features], ("no", "yes"))


def named() -> ap.Explanation:
    class Two(torch.nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return (a * b).sum(1, keepdim=True)

    return ap.Saliency()(Two(), {"a": torch.ones(2, 3), "b": torch.ones(2, 3)}, lambda s: s[:, 0])


def pairs() -> ap.Interactions:
    return ap.IntegratedHessians(nodes=2)(network(), torch.ones(2, 3), 1)


KINDS: dict[str, tuple[Callable[[], Any], Any]] = {
    "rows": (rows, ap.Explanation),
    "text": (text, ap.Explanation),
    "picture": (picture, ap.Explanation),
    "named": (named, ap.Explanation),
    "pairs": (pairs, ap.Interactions),
}


def read_and_use(kind: Any, path: Path) -> None:
    found = kind.load(path)
    repr(found)
    found.to_html()
    for i in range(len(found)):
        found.top(2, i) if isinstance(found, ap.Explanation) else found.top(2)
        found.label(i)


def ends(path: Path, read: Callable[[], Any]) -> str:
    """Nothing if what is in the file can be used, or it is refused in one line that names it; else what happened."""
    try:
        read()
    except InputError as error:
        return "" if path.name in str(error) and "\n" not in str(error) else f"unnamed: {error}"
    except Exception as error:
        return f"raw {type(error).__name__}: {error}"
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_result_with_damage_anywhere_is_refused_by_its_name_or_can_be_used(
    name: str, tmp_path: Path
) -> None:
    make, kind = KINDS[name]
    path, lost, many = make().save(tmp_path / "whole.safetensors"), [], 0
    for place, header, tensors in damages_of(path, kind.kind):
        many += 1
        bad = tmp_path / "bad.safetensors"
        save_file(tensors, bad, {kind.kind: json.dumps(header)})
        if told := ends(bad, partial(read_and_use, kind, bad)):
            lost.append(f"{place}: {told}")
    assert many > 100
    assert not lost, f"{len(lost)} of {many}:\n" + "\n".join(lost)


def lost_of(path: Path, damages: Iterator[tuple[str, Any]], read: Callable[[], Any]) -> list[str]:
    """What is lost of the damages to a file of JSON."""
    lost = []
    for place, changed in damages:
        path.write_text(json.dumps(changed))
        if told := ends(path, read):
            lost.append(f"{place}: {told}")
    return lost


def test_scores_with_damage_anywhere_are_refused_by_their_name_or_can_be_used(tmp_path: Path) -> None:
    path = Scores(torch.ones(3), "A()", True).save(tmp_path / "scores.json")
    assert not lost_of(path, damaged(json.loads(path.read_text())), lambda: repr(Scores.load(path)))


def test_tables_of_a_study_with_damage_anywhere_are_refused_by_their_name_or_can_be_used(
    tmp_path: Path,
) -> None:
    rows = (("Saliency", ".67"), ("Random", ".5"))
    table = TextTable("F1", ("map", "SST"), rows, ("a note",), ("Random",), ((0, 1),))
    path = write_tables(tmp_path, "A study", [table, table])[1]

    def read() -> None:
        for each in read_tables(tmp_path)[1]:
            each.markdown(), each.html()

    assert not lost_of(path, damaged(json.loads(path.read_text())), read)


@pytest.mark.slow
def test_a_prototype_network_with_damage_anywhere_is_refused_by_its_name_or_can_be_used(
    tmp_path: Path,
) -> None:
    meta, tensors = stored(
        Path(__file__).parent.parent / "files_of_85d223a" / "prototypes-on-digits.safetensors"
    )
    header, bad, lost = json.loads(meta["numbers"]), tmp_path / "bad.safetensors", []
    cases = [(place, changed, tensors) for place, changed in damaged(header, 1)]
    for name, tensor in tensors.items():
        cases.append((f"{name} gone", header, {key: t for key, t in tensors.items() if key != name}))
        cases += [(name, header, {**tensors, name: other.contiguous()}) for other in other_tensors(tensor)]

    def read() -> None:
        ap.explain(ap.load(bad), torch.zeros(28, 28).numpy(), "saliency")

    for place, changed, kept in cases:
        seal(bad, changed, kept)
        if told := ends(bad, read):
            lost.append(f"{place}: {told}")
    assert not lost


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bag-of-words", "bag-of-words-kernels", "bag-of-words-fisher"])
def test_a_bag_of_words_with_damage_anywhere_is_refused_by_its_name_or_can_be_used(
    name: str, tmp_path: Path
) -> None:
    path = Path(__file__).parent.parent / "files_of_85d223a" / f"{name}.safetensors"
    picture, bad = torch.rand(1, 3, 64, 64).movedim(1, 3).numpy(), tmp_path / "bad.safetensors"
    lost = []
    for place, header, tensors in damages_of(path, "bag_of_words"):
        save_file(tensors, bad, {"bag_of_words": json.dumps(header)})
        if told := ends(bad, lambda: ap.BagOfWords.load(bad).predict(picture)):
            lost.append(f"{place}: {told}")
    assert not lost
