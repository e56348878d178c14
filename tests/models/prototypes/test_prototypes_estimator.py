"""ProtoPNet as people use it: fitting, and what its explanations say."""

from __future__ import annotations

import copy
import json
import re
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import apportion as ap
from apportion.display.page_data import Panel
from apportion.errors import InputError
from apportion.models.prototypes.settings import Fast, LastLayer, Paper, Pruning
from squares import GREY, LABELS, QUICK, X, backbone, data, equal, fast, fitted, photos
from surfaces import data_of
from typed import fits


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return photos(tmp_path)


# ---- real data, in CI ----


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    load = pytest.importorskip("sklearn.datasets").load_digits()
    x, y = torch.tensor(load.images, dtype=torch.float32)[:, None] / 16, torch.tensor(load.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return x[order[:1200]], y[order[:1200]], x[order[1200:]], y[order[1200:]]


def plain(x: Tensor, y: Tensor) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    grid = nn.Sequential(
        nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
    )  # fmt: skip
    model = nn.Sequential(grid, nn.Flatten(), nn.Linear(32 * 16, 10))
    adam = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(5):
        for rows in torch.randperm(len(x)).split(50):
            adam.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            adam.step()
    return grid, model


def test_digits_by_both_recipes():
    """Within ten points of the plain network that the frozen backbone comes from, in seconds."""
    x, y, test, truth = digits()
    grid, model = plain(x, y)
    with torch.no_grad():
        right = float((model(test).argmax(1) == truth).double().mean())
    assert right > 0.93
    quick = Paper(
        epochs=6, warm_epochs=2, push_from=6, decay_every=10, width=32, last=LastLayer(iterations=300)
    )
    for recipe in ("fast", quick):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = ap.ProtoPNet(grid, recipe=recipe).fit(x, y)
        assert found.score(test, truth) > right - 0.1
        e = found.explain(test[:5])
        assert e.remainder.abs().max() < 1e-3
        assert found.predict(test[:5]).tolist() == e.target.tolist()


# ---- fitting ----


@pytest.mark.parametrize(("recipe", "tune"), [("fast", False), (QUICK, False), (QUICK, True)])
def test_prototypes_are_patches_of_training_images_of_their_class(recipe, tune: bool):
    model = fitted(recipe, tune=tune)
    x, labels = data()
    patches = model.net_.features(x)
    for j, source in enumerate(model.sources_):
        number = int(source.name.split()[1])
        label = int(model.net_.class_of[j])
        assert labels[number] == label
        assert source.label == str(label)
        flat = patches[number].flatten(1).t()
        assert (flat - model.net_.prototypes[j]).square().sum(1).min() < 1e-8
    assert model.history_[-1]["prototypes"] == (36 if recipe == "fast" else 9)  # candidates
    assert max(model.net_.class_of.bincount()) <= 3


def test_push_and_last_layer_are_in_the_history():
    history = fitted(QUICK).history_
    assert [row.get("epoch") for row in history] == [1, 2, 3, 4, None]
    assert all({"after_push", "after_last_layer", "duplicates"} <= set(history[i]) for i in (1, 3))


def test_the_user_s_backbone_is_left_alone(untouched):
    mine = backbone().train()
    untouched(mine)  # nor the global random state
    before = copy.deepcopy(mine.state_dict())
    for tune in (False, True):
        ap.ProtoPNet(mine, 2, recipe=QUICK, tune=tune).fit(*data())
    assert all(torch.equal(before[k], t) for k, t in mine.state_dict().items())
    assert mine.training
    assert all(p.requires_grad for p in mine.parameters())


def test_a_tuned_backbone_learns_and_a_frozen_one_does_not():
    first = backbone()[0].weight
    assert torch.equal(fitted(QUICK).net_.backbone.module[0].weight, first)
    assert not torch.equal(fitted(QUICK, tune=True).net_.backbone.module[0].weight, first)


def test_what_is_frozen_in_a_tuned_backbone_stays():
    def learnt(*frozen: int) -> list[bool]:
        mine = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2))
        for layer in frozen:
            mine[layer].requires_grad_(False)
        model = ap.ProtoPNet(mine, 2, recipe=replace(QUICK, pruning=None), tune=True).fit(*data())
        return [not torch.equal(mine[i].weight, model.net_.backbone.module[i].weight) for i in (0, 2)]

    assert learnt(0) == [False, True]
    assert learnt() == learnt(0, 2) == [True, True]


def test_the_same_seed_gives_the_same_model():
    assert equal(fitted(QUICK), fitted(QUICK))
    assert not equal(fitted(QUICK), fitted(QUICK, seed=1))


def test_each_image_passes_a_frozen_backbone_once():
    seen = []
    mine = backbone()
    mine.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    ap.ProtoPNet(mine, 2, recipe="fast", layer=None).fit(*data())
    # The examples by which the grid is found, all images, and those that the prototypes come from.
    assert sum(seen) <= 60 + 2 + 6


def test_explaining_is_one_forward_pass():
    model = fitted()
    calls = []
    model.net_.backbone.register_forward_hook(lambda *_: calls.append(1))
    model.explain(data()[0][:1])
    assert len(calls) == 1
    model.reasons(data()[0][0])
    assert len(calls) == 2


def test_all_prototypes_of_a_class_alike_are_one_and_said_so():
    x, labels = torch.rand(3, 1, 12, 12), torch.arange(3)  # one image a class: its best patch attracts all
    with pytest.warns(UserWarning, match="few are left after duplicates and pruning"):
        model = ap.ProtoPNet(backbone(), 20, recipe=replace(QUICK, epochs=30, batch=3)).fit(x, labels)
    assert model.history_[-1]["duplicates"] > 20


def test_without_pruning_all_stay():
    assert len(fitted(Fast(pruning=None)).sources_) == 9


def test_explaining_leaves_the_network_as_it_is(untouched):
    model = fitted()
    untouched(model.net_)
    for over in ("prototypes", "upsampled", "lrp"):
        model.explain(data()[0][:2], over=over)


def test_pruning_drops_what_is_nearer_to_others():
    kept_all = fitted(Fast(pruning=None))
    strict = fitted(Fast(pruning=Pruning(nearest=6, own=6)))
    assert len(strict.sources_) <= len(kept_all.sources_)
    assert set(strict.net_.class_of.tolist()) == {0, 1, 2}


# ---- explanations ----


def test_reasons_are_the_explanation_in_other_words(folder: Path):
    model = ap.ProtoPNet(backbone(), 2, recipe="fast", preparation=GREY).fit(folder)
    file = next(folder.rglob("*.png"))
    e, why = model.explain(file), model.reasons(file, top=3)
    assert why.label == e.label()
    assert why.score == pytest.approx(float(e.total[0]), abs=1e-4)
    assert sum(m.contribution for m in why.matches) + why.others == pytest.approx(why.score)
    assert [m.contribution for m in why.matches] == pytest.approx([value for _, value in e.top(3)])
    for match in why.matches:
        assert match.contribution == pytest.approx(match.similarity * match.connection, abs=1e-4)
        top, bottom, left, right = match.box
        assert 0 <= top < bottom <= 12
        assert 0 <= left < right <= 12
    named = model.reasons(file, target="class <2>")
    assert named.label == "class <2>"
    assert e.features[0].names[0].startswith("prototype 0 of class <0>")


def test_galleries_show_the_nearest_first(folder: Path):
    model = ap.ProtoPNet(backbone(), 2, recipe=Fast(pruning=None), preparation=GREY).fit(folder)
    gallery = model.gallery("class <1>", 3, train=folder, test=data(12))
    assert len(gallery.rows) == 2
    for row in gallery.rows:
        assert row.nearest["train"][0].name == row.source.name
        assert row.nearest["train"][0].similarity == pytest.approx(1, abs=1e-5)
        falling = [patch.similarity for patch in row.nearest["test"]]
        assert falling == sorted(falling, reverse=True)


def test_pages_are_whole_and_escaped(folder: Path, tmp_path: Path):
    model = ap.ProtoPNet(backbone(), 2, recipe="fast", preparation=GREY).fit(folder)
    file = next(folder.rglob("*.png"))
    evil = file.with_name("<script>alert(1)<x>.png")
    evil.write_bytes(file.read_bytes())
    pages = [
        model.reasons(evil).to_html(tmp_path / "why.html"),
        model.gallery("class <0>", 2, train=folder).to_html(tmp_path / "all.html"),
    ]
    assert [data_of(page)["title"] for page in pages] == [
        f"{evil.name} looks like class <0>",
        "Prototypes of class <0>",
    ]
    for page in pages:
        assert "<script>alert" not in page
        assert "class <0>" not in page
        assert page.count("<script") == 2  # the data and the code
        assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert (tmp_path / "why.html").read_text(encoding="utf-8") == pages[0]
    assert (
        model.reasons(evil)._repr_html_().count("<")
        == model.gallery("class <0>", 2)._repr_html_().count("<")
        == 2
    )
    model.reasons(evil).plot().savefig(tmp_path / "why.png")
    model.gallery("class <0>", 2, train=folder).plot().savefig(tmp_path / "all.png")


def test_the_classifier_takes_every_other_method(folder: Path):
    model = ap.ProtoPNet(backbone(), 2, recipe="fast", preparation=GREY).fit(folder)
    e = ap.explain(model.classifier(), next(folder.rglob("*.png")), method="saliency")
    assert e.values.shape == (1, 1, 12, 12)
    assert e.labels == ("class <0>", "class <1>", "class <2>")


def test_a_classifier_names_prototypes_and_gives_its_panels(folder: Path):
    model = ap.ProtoPNet(backbone(), 2, recipe="fast", preparation=GREY).fit(folder)
    classifier, file = model.classifier(), next(folder.rglob("*.png"))
    e = ap.explain(classifier, file, method="Prototypes()")
    assert e == replace(model.explain(file), method=e.method, cost=e.cost)
    name, value = e.top(1)[0]
    panels = classifier.panels(file, top=3)
    assert json.loads(json.dumps(panels)) == panels
    fits(panels, list[Panel], set())
    first = panels[0]
    assert name == f"{first['name']} = {Path(first['source']['name']).name}"
    assert first["contribution"] == pytest.approx(value, abs=1e-5)
    assert first["similarity"] * first["weight"] == pytest.approx(value, abs=1e-5)
    assert first["source"]["picture"].startswith("data:image/")
    for panel in panels:
        for top, bottom, left, right in (panel["box"], panel["source"]["box"]):
            assert 0 <= top < bottom <= 1
            assert 0 <= left < right <= 1
    other = classifier.panels(file, target="class <2>", top=1)
    assert other[0]["contribution"] == pytest.approx(model.reasons(file, "class <2>").matches[0].contribution)


def test_a_class_has_a_number_and_a_name():
    model = fast().fit(X, LABELS + 5)
    assert model.reasons(X[0], target=1).label == model.reasons(X[0], target="6").label == "6"
    assert model.gallery(6).label == model.gallery("6").label == "6"
    with pytest.raises(InputError, match="there is no class True"):
        model.gallery(True)


def test_quality_is_that_of_the_parts(folder: Path):
    model = ap.ProtoPNet(backbone(), 2, recipe="fast", preparation=GREY).fit(folder)
    found = model.quality(folder, k=3, noise=0)
    assert found.purity.shape == (len(model.sources_),)
    assert found.stability.tolist() == [1.0] * 30
    assert found.duplicates == 0
    assert re.fullmatch(r"purity \d+%, stability 100%, 0 duplicates among \d prototypes", str(found))
    for call, said in (
        (lambda: model.quality(data(3)[0]), "labels are missing"),
        (lambda: model.quality(folder, k=0), "k is 0"),
        (lambda: model.quality(folder, noise=-1), "noise is -1"),
    ):
        with pytest.raises(InputError, match=said):
            call()
