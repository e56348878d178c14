"""Dense outputs, and several inputs: what is explained is asked, and one number a sample."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import apportion as ap

METHODS = (
    "inputxgradient",
    "saliency",
    "ig",
    "lrp",
    "deeplift",
    "occlusion",
    "kernelshap",
    "gradcam",
    "rise",
)
BOX = ap.Region(1, box=((1, 3), (2, 6)))
PLACES = torch.zeros(8, 8, dtype=torch.bool)
PLACES[[1, 6], [2, 7]] = True
MASK = ap.Region(1, mask=PLACES)


class Segments(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features, self.classes = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classes(self.features(x).relu())


def net() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Segments().eval(), torch.rand(2, 1, 8, 8)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("region", [BOX, MASK], ids=["box", "mask"])
def test_a_region_is_explained_as_the_mean_of_its_places(method: str, region: ap.Region) -> None:
    """As a model whose scores are these means."""
    model, x = net()
    where = torch.zeros(8, 8, dtype=torch.bool)
    if region.box is None:
        where = region.mask
    else:
        where[1:3, 2:6] = True

    class Means(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = model

        def forward(self, x: Tensor) -> Tensor:
            return (self.inside(x) * where).sum((2, 3)) / where.sum()

    found, wanted = ap.explain(model, x, method, region), ap.explain(Means().eval(), x, method, 1)
    torch.testing.assert_close(found.values, wanted.values, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found.output, wanted.output)
    assert found.target == repr(region)
    if found.total is not None and wanted.total is not None:
        torch.testing.assert_close(found.total, wanted.total)


def test_tests_of_a_region_are_given_the_region() -> None:
    model, x = net()
    e = ap.explain(model, x, "inputxgradient", BOX)
    with pytest.raises(ap.InputError, match="give the same target"):
        ap.Deletion(of="score")(model, x, e)
    assert len(ap.Deletion(of="score")(model, x, e, BOX)) == 2


@pytest.mark.parametrize(
    ("region", "said"),
    [
        (lambda: ap.Region(1), "a box or a mask"),
        (lambda: ap.Region(1, box=((0, 1),), mask=torch.ones(1, dtype=torch.bool)), "a box or a mask"),
        (lambda: ap.Region(1, box=((3, 3), (0, 1))), r"box is \(\(3, 3\)"),
        (lambda: ap.Region(1, box=(1, 2, 3, 4)), "box is"),
        (lambda: ap.Region(True, box=((0, 1),)), "index is True"),
        (lambda: ap.Region(1, mask=torch.ones(8, 8)), "mask is no tensor of bool"),
        (lambda: ap.Region(1, mask=torch.zeros(8, 8, dtype=torch.bool)), "with a place in it"),
    ],
)  # fmt: skip
def test_what_is_no_region_is_refused(region: Any, said: str) -> None:
    with pytest.raises(ap.InputError, match=said):
        region()


@pytest.mark.parametrize(
    ("region", "said"),
    [
        (ap.Region(1, box=((0, 9), (0, 1))), r"box is .*\(2, 3, 8, 8\).*a part of \(8, 8\)"),
        (ap.Region(1, box=((0, 1),)), r"a part of \(8, 8\)"),
        (ap.Region(1, mask=torch.ones(4, 4, dtype=torch.bool)), r"mask has shape \(4, 4\)"),
        (ap.Region(7, box=((0, 1), (0, 1))), "7"),
    ],
)
def test_a_region_beyond_the_output_is_refused(region: ap.Region, said: str) -> None:
    model, x = net()
    for method in ("saliency", "occlusion"):
        with pytest.raises(ap.InputError, match=said):
            ap.explain(model, x, method, region)
    with pytest.raises(ap.InputError, match="which this model does not return"):
        ap.explain(nn.Linear(3, 2), torch.ones(1, 3), "saliency", BOX)


class Alike(nn.Module):
    """How alike two pictures are, as of two towers."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(32, 4))

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return (self.tower(one) * self.tower(other)).sum(1, keepdim=True)


def test_of_two_pictures_both_are_explained_or_the_one_that_is_not_held() -> None:
    torch.manual_seed(0)
    model, one, other = Alike().eval(), torch.rand(2, 1, 6, 6), torch.rand(2, 1, 6, 6)
    both = ap.DeepLIFT()(model, (one, other))
    assert [tuple(v.shape) for v in both.values] == [(2, 1, 6, 6)] * 2
    torch.testing.assert_close(both.apportioned.float(), both.total, rtol=1e-4, atol=1e-5)
    for method in (ap.DeepLIFT(), ap.Occlusion(), ap.GradCAM(layer="tower.0")):
        single = (
            method(lambda x: model(x, other.repeat(len(x) // 2, 1, 1, 1)), one)
            if not isinstance(method, ap.GradCAM)
            else None
        )
        asked = method(model, (one, ap.held(other)))
        values = asked.values[0] if isinstance(asked.values, tuple) else asked.values
        assert values.shape == (2, 1, 6, 6)
        if single is not None:
            torch.testing.assert_close(values, single.values, rtol=1e-4, atol=1e-5)
    with pytest.raises(ap.InputError, match=r"of several, ap.held\(x\) marks those"):
        ap.GradCAM(layer="tower.0")(model, (one, other))


def test_scores_of_pictures_with_texts_are_explained_the_way_round_that_is_asked() -> None:
    torch.manual_seed(0)
    picture, words = nn.Sequential(nn.Flatten(), nn.Linear(16, 4)), nn.Embedding(9, 4)

    def clip(pixels: Tensor, ids: Tensor) -> SimpleNamespace:
        scores = picture(pixels) @ words(ids).mean(1).T
        return SimpleNamespace(logits_per_image=scores, logits_per_text=scores.T)

    pixels, ids = torch.rand(1, 1, 4, 4), torch.tensor([[1, 2, 3], [4, 5, 6]])
    with pytest.raises(ap.InputError, match=r"is told which is explained.*logits_per_image"):
        ap.Saliency()(lambda x: clip(x, ids), pixels)
    of_picture = ap.InputXGradient()(lambda x: clip(x, ids).logits_per_image, pixels, 1)
    assert of_picture.values.shape == pixels.shape
    of_text = ap.Occlusion()(lambda i: clip(pixels, i).logits_per_text, ids[:1], 0)
    assert of_text.values.shape == (1, 3)
