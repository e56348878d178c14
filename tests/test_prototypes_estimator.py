"""ProtoPNet as people use it: their data, their backbone, a kill in the middle, and what goes wrong."""

from __future__ import annotations

import copy
import json
import re
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

import apportion as ap
from apportion.cli import app
from apportion.domains.image import ImagePreparation
from apportion.errors import InputError
from apportion.models.prototypes.settings import Fast, LastLayer, Paper, Pruning

QUICK = Paper(
    width=8, epochs=4, warm_epochs=1, push_from=2, push_every=2, batch=20, last=LastLayer(iterations=50)
)


def backbone() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(1, 6, 3, stride=2), nn.ReLU())


def data(many: int = 60) -> tuple[Tensor, Tensor]:
    """A bright square somewhere in one of three corners' quarters, with noise."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(many) % 3
    x = 0.2 * torch.rand(many, 1, 12, 12, generator=random)
    for i, label in enumerate(labels.tolist()):
        row, column = 6 * (label // 2) + i % 3, 6 * (label % 2) + i % 2
        x[i, 0, row : row + 3 + label, column : column + 5 - label] += 0.8
    return x, labels


def fitted(recipe: object = "fast", **settings) -> ap.ProtoPNet:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ap.ProtoPNet(backbone(), 3, recipe=recipe, **settings).fit(*data())


def quick() -> ap.ProtoPNet:
    """Not fitted; nothing is pruned, so that nothing is warned of."""
    return ap.ProtoPNet(backbone(), 2, recipe=replace(QUICK, pruning=None))


def state(model: ap.ProtoPNet) -> dict[str, Tensor]:
    return model.net_.state_dict()


def equal(one: ap.ProtoPNet, other: ap.ProtoPNet) -> bool:
    a, b = state(one), state(other)
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


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


# ---- what images may be ----


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    x, labels = data(30)
    for i, (image, label) in enumerate(zip(x, labels.tolist(), strict=True)):
        place = tmp_path / "photos" / f"class <{label}>"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image[0] * 255).clamp(0, 255).byte().numpy()).save(place / f"{i:02}.png")
    return tmp_path / "photos"


GREY = ImagePreparation(resize=None, crop=None, mean=(0.0,), std=(1.0,))


def test_a_folder_a_list_a_dataset_and_arrays_are_the_same(folder: Path):
    made = ap.ProtoPNet(backbone(), 2, recipe="fast", preparation=GREY)
    by_folder = copy.copy(made).fit(folder)
    files = sorted(folder.rglob("*.png"))
    by_list = copy.copy(made).fit(files, [file.parent.name for file in files])
    arrays = torch.cat([GREY(file)[0] for file in files])
    by_array = copy.copy(made).fit(arrays, np.array([file.parent.name for file in files]))
    items = [(image, file.parent.name) for image, file in zip(arrays, files, strict=True)]

    class Data(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(items)

        def __getitem__(self, number: int):
            return items[number]

    by_dataset = copy.copy(made).fit(Data())
    assert equal(by_folder, by_list)
    assert equal(by_folder, by_array)
    assert equal(by_folder, by_dataset)
    assert by_folder.classes_.tolist() == ["class <0>", "class <1>", "class <2>"]
    assert by_folder.predict(files[0]).shape == (1,)
    assert by_folder.predict(folder).tolist() == by_array.predict(arrays).tolist()
    assert by_folder.score(folder) == by_array.score(arrays, [file.parent.name for file in files])
    uint8 = np.stack([np.asarray(Image.open(file)) for file in files])
    assert np.array_equal(by_folder.predict_proba(uint8), by_folder.predict_proba(arrays))


def test_files_that_cannot_be_read_are_named_skipped_and_counted(folder: Path):
    (folder / "class <1>" / "broken.png").write_bytes(b"no picture")
    (folder / "class <2>" / "empty.png").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"2 of 32 images could not be read.*broken\.png.*empty\.png"):
        model = ap.ProtoPNet(backbone(), 2, recipe="fast", preparation=GREY).fit(folder)
    assert len(model.skipped_) == 2
    assert "broken.png" in model.skipped_[0]


def test_labels_and_images_may_be_lists_of_tensors():
    model, x = fast().fit(list(X), list(LABELS)), list(X.double())
    assert equal(model, fast().fit(X, LABELS))
    assert model.predict(x).tolist() == model.predict(X).tolist()
    assert model.classes_.tolist() == [0, 1, 2]


def test_items_of_a_dataset_that_cannot_be_read():
    x, labels = data(30)

    class Data(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 30

        def __getitem__(self, number: int):
            if number == 7:
                raise OSError("disk")
            return x[number], int(labels[number])

    with pytest.warns(UserWarning, match=r"1 of 30 .*item 7 \(disk\)"):
        model = ap.ProtoPNet(backbone(), 2, recipe="fast").fit(Data())
    assert model.classes_.tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["vit", "convnext", "resnet"])
def test_backbones_of_transformers(name: str):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if name == "vit":
        config = transformers.ViTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32,
            patch_size=8,
        )  # fmt: skip
        module = transformers.ViTForImageClassification(config)
    elif name == "convnext":
        module = transformers.ConvNextModel(
            transformers.ConvNextConfig(hidden_sizes=[4, 8], depths=[1, 1], num_stages=2)
        )
    else:
        module = transformers.ResNetModel(
            transformers.ResNetConfig(
                embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic"
            )
        )
    x, labels = torch.rand(12, 3, 32, 32), torch.arange(12) % 2
    for settings in ({"recipe": "fast"}, {"recipe": QUICK, "tune": True}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = ap.ProtoPNet(module, 2, **settings).fit(x, labels)
        assert model.net_.features(x).shape[2:] == (4, 4)
        for over in ("prototypes", "upsampled", "lrp"):
            assert len(model.explain(x[:2], over=over)) == 2


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
    for page in pages:
        assert "<script" not in page
        assert "class &lt;0&gt;" in page
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


# ---- files ----


@pytest.mark.parametrize(("recipe", "tune"), [("fast", False), (QUICK, True)])
def test_saved_and_loaded(recipe, tune: bool, tmp_path: Path):
    model = fitted(recipe, tune=tune)
    path = model.save(tmp_path / "model.safetensors")
    back = ap.ProtoPNet.load(path, backbone())
    x = data()[0]
    assert np.array_equal(back.predict_proba(x), model.predict_proba(x))
    assert back.recipe == model.recipe
    one, other = back.reasons(x[0]), model.reasons(x[0])
    assert [m.source.box for m in one.matches] == [m.source.box for m in other.matches]
    assert torch.equal(one.matches[0].source.picture, other.matches[0].source.picture)


def test_another_backbone_or_file_is_refused(tmp_path: Path):
    path = fitted().save(tmp_path / "model.safetensors")
    other = backbone()
    with torch.no_grad():
        other[0].weight.add_(1)
    with pytest.raises(InputError, match="backbone is not the one"):
        ap.ProtoPNet.load(path, other)
    (tmp_path / "other").write_bytes(b"what")
    with pytest.raises(InputError, match="other"):
        ap.ProtoPNet.load(tmp_path / "other", backbone())
    quick().fit(*data(), checkpoint=tmp_path / "run")
    with pytest.raises(InputError, match="holds no fitted ProtoPNet"):
        ap.ProtoPNet.load(tmp_path / "run", backbone())


@pytest.fixture
def on_digits(tmp_path: Path) -> tuple[Path, Path]:
    """A file of a ProtoPNet on the digits model that ships, and a picture."""
    digits = ap.load("digits")
    picture = tmp_path / "bar.png"
    pictures = np.zeros((12, 28, 28), dtype=np.uint8)
    for i in range(12):
        across, begin = slice(4, 24), 4 + i
        pictures[i][(slice(begin, begin + 2), across) if i % 2 else (across, slice(begin, begin + 2))] = 255
    Image.fromarray(pictures[2]).save(picture)
    model = ap.ProtoPNet(digits, 2, recipe=Fast(pruning=None))
    model.fit(list(pictures), ["tall", "wide"] * 6)
    return model.save(tmp_path / "bars.safetensors"), picture


def test_a_file_on_a_backbone_that_ships_needs_nothing_else(on_digits):
    path, picture = on_digits
    back = ap.ProtoPNet.load(path)
    assert back.predict(picture) == ["tall"]
    assert back.preparation == ap.load("digits").encode
    classifier = ap.load(path)
    assert classifier.name == path.name
    assert classifier.labels == ("tall", "wide")
    assert len(classifier.panels(picture)) == 4


def test_such_a_file_is_a_model_on_the_command_line(on_digits, tmp_path: Path):
    path, picture = map(str, on_digits)
    run = CliRunner().invoke(
        app,
        ["explain", picture, "--model", path, "--method", "Prototypes()", "--json"],
        catch_exceptions=False,
    )
    told = json.loads(run.stdout)
    assert told["target_label"] == "tall"
    assert re.fullmatch(r"prototype \d of (tall|wide) = image \d+", told["features"][0]["name"])
    assert abs(told["remainder"]) < 1e-4
    assert (
        CliRunner().invoke(app, ["explain", picture, "--model", path, "--out", str(tmp_path)]).exit_code == 0
    )


def test_a_preparation_comes_back_with_its_file(folder: Path, tmp_path: Path):
    path = ap.ProtoPNet(backbone(), 2, recipe="fast", preparation=GREY).fit(folder).save(tmp_path / "grey")
    file = next(folder.rglob("*.png"))
    back = ap.ProtoPNet.load(path, backbone())
    assert back.preparation == GREY
    assert back.predict(file).shape == (1,)
    with pytest.raises(
        InputError, match=r"backbone of your own; accepted: ProtoPNet\.load\(path, backbone\)"
    ):
        ap.ProtoPNet.load(path)
    own = ap.ProtoPNet(backbone(), 2, recipe="fast", preparation=lambda raw: GREY(raw))
    path = own.fit(folder).save(tmp_path / "own")
    with pytest.raises(InputError, match="preparation of its own; give it again"):
        ap.ProtoPNet.load(path, backbone())
    assert ap.ProtoPNet.load(path, backbone(), preparation=GREY).predict(file).shape == (1,)


KILLED = """
import sys, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
import test_prototypes_estimator as t
import apportion as ap
recipe = t.Paper(width=8, epochs=40, warm_epochs=5, push_from=10, push_every=7, batch=10)
model = ap.ProtoPNet(t.backbone(), 3, recipe=recipe, tune=True)
model.fit(*t.data(), checkpoint=sys.argv[1]).save(sys.argv[2])
"""


def test_a_killed_run_goes_on_to_the_same_result(tmp_path: Path):
    """Killed for real, some epochs in; the whole run in another process is the reference."""
    code = KILLED.format(tests=str(Path(__file__).parent))
    run, whole = tmp_path / "run", tmp_path / "whole"
    arguments = [sys.executable, "-c", code]
    process = subprocess.Popen([*arguments, str(run), str(tmp_path / "killed")])
    deadline = time.monotonic() + 120
    while not run.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert run.exists()
    assert not (tmp_path / "killed").exists(), "the run was over before it was killed"
    for place, out in ((run, tmp_path / "resumed"), (whole, tmp_path / "reference")):
        subprocess.run([*arguments, str(place), str(out)], check=True, timeout=300)
    one, other = (ap.ProtoPNet.load(tmp_path / name, backbone()) for name in ("resumed", "reference"))
    assert equal(one, other)
    assert one.history_ == other.history_


def test_a_run_that_is_over_is_not_done_again(tmp_path: Path):
    one = quick().fit(*data(), checkpoint=tmp_path / "run")
    written = (tmp_path / "run").stat().st_mtime_ns
    again = quick().fit(*data(), checkpoint=tmp_path / "run")
    assert equal(one, again)
    assert (tmp_path / "run").stat().st_mtime_ns == written


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path):
    path = tmp_path / "run"
    first = ap.ProtoPNet(backbone(), 3, recipe=QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first.fit(*data(), checkpoint=path)
    before = path.read_bytes()
    x, labels = data()
    others = {
        "prototypes_per_class is 3 there and 2 here": (ap.ProtoPNet(backbone(), 2, recipe=QUICK), x, labels),
        "seed is 0 there and 1 here": (ap.ProtoPNet(backbone(), 3, recipe=QUICK, seed=1), x, labels),
        "labels is": (ap.ProtoPNet(backbone(), 3, recipe=QUICK), x, labels.flip(0)),
        "first image is": (ap.ProtoPNet(backbone(), 3, recipe=QUICK), x + 1, labels),
    }
    for said, (model, images, truth) in others.items():
        with pytest.raises(InputError, match=f"another configuration: {said}"):
            model.fit(images, truth, checkpoint=path)
    assert path.read_bytes() == before
    path.write_bytes(before[:-100])
    with pytest.raises(InputError, match="run"):
        ap.ProtoPNet(backbone(), 3, recipe=QUICK).fit(x, labels, checkpoint=path)


# ---- bad input ----


class Gives(nn.Module):
    """A backbone that gives whatever `change` makes of its images."""

    def __init__(self, change) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(x)


X, LABELS = data()


def fast(module: nn.Module | None = None, many: int = 2, **settings) -> ap.ProtoPNet:
    return ap.ProtoPNet(module or backbone(), many, recipe="fast", **settings)


class Noisy(torch.utils.data.Dataset):
    """Another image each time, as by augmentation."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, number: int):
        return torch.rand(1, 12, 12), number % 2


WRONG = {
    "no labels": (lambda: fast().fit(X), "labels are missing"),
    "too few labels": (lambda: fast().fit(X, LABELS[:5]), "5 labels for 60 images"),
    "one label": (lambda: fast().fit(X, 3), "labels is 3; accepted: one for each image"),
    "floats": (lambda: fast().fit(X, LABELS.float()), "labels hold 0.0, a float; accepted: whole numbers"),
    "one-hot": (lambda: fast().fit(X, torch.eye(3)[LABELS]), "labels hold tensor.*, a Tensor"),
    "mixed labels": (lambda: fast().fit(X, [0, "a"] * 30), "labels hold whole numbers and names"),
    "one class": (lambda: fast().fit(X, [0] * 60), "one class only"),
    "class without images": (lambda: fast().fit(X, LABELS, classes=[0, 1, 2, 3]), "class 3 has no image"),
    "class named twice": (lambda: fast().fit(X, LABELS, classes=[0, 1, 2, 2]), "name one twice"),
    "unknown label": (lambda: fast().fit(X, LABELS, classes=[0, 1]), "labels hold 2; accepted: 0, 1"),
    "NaN": (lambda: fast().fit(X * float("nan"), LABELS), "NaN or infinite numbers, in image"),
    "no images": (lambda: fast().fit(X[:0], LABELS[:0]), "none could be read"),
    "wrong shape": (lambda: fast().fit(X[0, 0, 0], LABELS), "images have shape"),
    "no folder": (lambda: fast().fit("/nowhere/at/all"), "there is no /nowhere"),
    "not images": (lambda: fast().fit(3), "images is int"),
    "augmented": (lambda: fast().fit(Noisy()), "images are others each time they are read"),
    "too many prototypes": (
        lambda: fast(many=10_000).fit(X, LABELS),
        "20 images of 5 × 5 patches, 500 in all",
    ),
    "one-pixel grid": (lambda: fast(nn.Conv2d(1, 2, 12)).fit(X, LABELS), "grid of 1 × 1"),
    "smaller than a kernel": (
        lambda: fast().fit(X[:, :, :2, :2], LABELS),
        r"does not run on images of shape \(1, 2, 2\): RuntimeError",
    ),
    "other channels": (
        lambda: fast().fit(torch.rand(4, 3, 12, 12), [0, 1] * 2),
        r"does not run on images of shape \(3, 12, 12\)",
    ),
    "whole features": (lambda: fast(Gives(Tensor.long)).fit(X, LABELS), "gives .*int64.* of floats"),
    "NaN features": (
        lambda: fast(Gives(lambda x: x / 0 * 0)).fit(X, LABELS),
        "the backbone gives NaN or infinite features for image 0",
    ),
    "dead features": (lambda: fast(Gives(lambda x: x * 0)).fit(X, LABELS), "same features for every patch"),
    "backbone": (lambda: fast(lambda x: x), "backbone is function"),  # type: ignore[arg-type]
    "recipe": (
        lambda: ap.ProtoPNet(backbone(), recipe="best"),
        "recipe is 'best'; accepted: paper, frozen, fast",
    ),
    "prototypes": (lambda: ap.ProtoPNet(backbone(), 0), "prototypes_per_class is 0"),
    "seed": (lambda: fast(seed="a"), "seed is 'a'"),
    "tune": (lambda: fast(tune="yes"), "tune is 'yes'"),
    "layer": (lambda: fast(layer=0), "layer is 0; accepted: the name of a module"),
    "text": (lambda: ap.ProtoPNet(ap.load("sentiment")), "a Classifier of images"),
    "tuned and fast": (lambda: fast(tune=True), "learns no backbone"),
    "checkpoint and fast": (lambda: fast().fit(X, LABELS, checkpoint="x"), "takes no epochs"),
    "not fitted": (lambda: fast().predict(X), "not fitted"),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input_gets_one_clear_line(name: str):
    call, said = WRONG[name]
    with pytest.raises(InputError, match=said):
        call()


def test_a_training_that_diverges_is_said_and_leaves_no_file(tmp_path: Path):
    wild = replace(QUICK, rate=1e30)
    with pytest.raises(InputError, match=r"the loss is (nan|inf) in epoch 1.*a smaller rate"):
        ap.ProtoPNet(backbone(), 2, recipe=wild).fit(*data(), checkpoint=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_numbers_of_numpy_are_taken():
    x, labels = data()
    model = ap.ProtoPNet(backbone(), 2, recipe="fast").fit(x.double().numpy(), labels.numpy())
    assert equal(model, ap.ProtoPNet(backbone(), 2, recipe="fast").fit(x, labels))


def test_a_class_whose_files_cannot_be_read(folder: Path):
    for file in (folder / "class <1>").iterdir():
        file.write_bytes(b"gone")
    model = ap.ProtoPNet(backbone(), 2, recipe="fast", preparation=GREY)
    said = r"class class <1> has no image that can be read \(.*\.png"
    with pytest.warns(UserWarning, match="could not be read"), pytest.raises(InputError, match=said):
        model.fit(folder)


def test_bad_questions_to_a_fitted_model():
    model = fitted()
    x = data()[0]
    small = x[:2, :, :2, :2]
    for call, said in (
        *(
            (call, r"does not run on images of shape \(1, 2, 2\).*accepted: such as \(1, 12, 12\)")
            for call in (
                lambda: model.predict(small),
                lambda: model.explain(small),
                lambda: model.explain(small, over="lrp"),
                lambda: model.reasons(small[0]),
                lambda: model.gallery(0, train=small),
                lambda: model.quality(small, [0, 1]),
            )
        ),
        (lambda: model.explain(x[:1], over=3), "over is 3; accepted: prototypes"),
        (lambda: model.gallery(0, train=torch.rand(2, 3, 12, 12)), "accepted: 1 channels"),
        (lambda: model.score(x[:3], [0, 1, 9]), "labels hold 9"),
        (
            lambda: model.explain(x[:1], over="pixels"),
            "over is 'pixels'; accepted: prototypes, upsampled, lrp",
        ),
        (lambda: model.explain(x[:1], target=9), "target is class 9"),
        (lambda: model.reasons(x), "image holds 60 images"),
        (lambda: model.reasons(x[0], top=0), "top is 0"),
        (lambda: model.reasons(x[0], target=9), r"target is 9; accepted: a class, by its number \(0 to 2\)"),
        (lambda: model.reasons(x[0], target=True), "target is True"),
        (lambda: model.gallery(0, 0, train=x), "k is 0; accepted: a whole number of at least 1"),
        (lambda: model.predict(torch.rand(2, 3, 12, 12)), "accepted: 1 channels"),
        (lambda: model.reasons(x[0], target="7"), "there is no class '7'"),
        (lambda: model.gallery(7), "there is no class 7; accepted: 0, 1, 2"),
    ):
        with pytest.raises(InputError, match=said):
            call()


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
