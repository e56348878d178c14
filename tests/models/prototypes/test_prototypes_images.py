"""What ProtoPNet takes as images, labels and backbones, and what it says of anything else."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import apportion as ap
from apportion.errors import InputError
from squares import GREY, LABELS, QUICK, X, backbone, data, equal, fast, fitted, photos


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return photos(tmp_path)


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


# ---- anything else ----


class Gives(nn.Module):
    """A backbone that gives whatever `change` makes of its images."""

    def __init__(self, change) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(x)


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


def test_an_empty_class_is_not_blamed_on_the_files_of_another(folder: Path):
    (folder / "nothing").mkdir()
    gone = next(iter(sorted((folder / "class <1>").iterdir())))
    gone.write_bytes(b"gone")
    model = ap.ProtoPNet(backbone(), 2, recipe="fast", preparation=GREY)
    said = "class nothing has no image; accepted: at least one for every class"
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
        (lambda: model.gallery(0, 0, train=x), "k is 0; accepted: a whole number, at least 1"),
        (lambda: model.predict(torch.rand(2, 3, 12, 12)), "accepted: 1 channels"),
        (lambda: model.reasons(x[0], target="7"), "there is no class '7'"),
        (lambda: model.gallery(7), "there is no class 7; accepted: 0, 1, 2"),
    ):
        with pytest.raises(InputError, match=said):
            call()
