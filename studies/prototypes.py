"""ProtoPNet on real pictures: accuracy beside a linear head, and how good its prototypes and maps are.

    python studies/prototypes.py DATA [--only flowers|animals|fashion] [--out FOLDER] [--images 100]

DATA holds `images/flowers17_192.tar` (Oxford 17 Flowers) and `images/tiny_imagenet_10cls.tar` (ten classes of
Tiny-ImageNet with their boxes), each with a folder for each class, and either Fashion-MNIST or MNIST as idx
files. The backbone of the photos is the EfficientNet-Lite0 that ships, frozen; that of the idx files is a small
network, tuned.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import apportion as ap
from apportion.faithfulness.flipping import PixelFlipping
from apportion.models.prototypes.explaining import PrototypeLRP, Upsampled
from apportion.models.prototypes.grids import Grids, kept
from apportion.models.prototypes.images import Images, images_of
from apportion.models.prototypes.matches import patches_of
from apportion.models.prototypes.network import Backbone
from apportion.models.prototypes.push import duplicates, nearest
from apportion.models.prototypes.quality import inside, purity, stability
from apportion.models.prototypes.settings import Fast, Paper
from apportion.partitions import Patches

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))
from train_digits import read_mnist

Line = tuple[str, str]


class Ready(nn.Module):
    """Stands for a backbone whose grids are computed: several runs share one pass over the photos."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def linear_head(train: Tensor, labels: Tensor, test: Tensor, truth: Tensor) -> float:
    """Logistic regression on the mean of the grid, the best of three strengths of its penalty."""
    from sklearn.linear_model import LogisticRegression

    scores = []
    for strength in (0.1, 1.0, 10.0):
        head = LogisticRegression(C=strength, max_iter=1000).fit(train.mean((2, 3)), labels)
        scores.append(head.score(test.mean((2, 3)), truth))
    return float(max(scores))


def grids(folder: Path, files: list[Path]) -> tuple[Images, Grids]:
    classifier = ap.load("imagenet")
    labels = [file.parent.name for file in files]
    images = images_of(files, labels, classifier.encode)
    backbone = Backbone(classifier.model, images.read(torch.zeros(1, dtype=torch.long)))
    return images, kept(images, backbone)


def compared(
    grids: Tensor, labels: Tensor, test: Tensor, truth: Tensor, recipes: dict[str, Any]
) -> Iterator[Line]:
    linear = linear_head(grids, labels, test, truth)
    yield "linear head on the same grids", f"{linear:.1%}"
    for name, recipe in recipes.items():
        begin = time.process_time()
        model = ap.ProtoPNet(Ready(), recipe=recipe).fit(grids, labels)
        spent, right = time.process_time() - begin, model.score(test, truth)
        yield (
            f"ProtoPNet, {name}",
            f"{right:.1%} ({100 * (right - linear):+.1f} points), {len(model.sources_)} prototypes, {spent:.0f} s",
        )


def flowers(data: Path, out: Path | None, many: int) -> Iterator[Line]:
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(data / "images" / "flowers17_192.tar") as tar:
            tar.extractall(folder, filter="data")
        files = sorted(Path(folder).rglob("*.jpg"))
        images, found = grids(Path(folder), files)
        assert found.kept is not None
        assert images.labels is not None
        order = torch.randperm(len(files), generator=torch.Generator().manual_seed(0))
        train, test = order[: len(order) * 3 // 4], order[len(order) * 3 // 4 :]
        yield "flowers: training and test photos", f"{len(train)}, {len(test)}"
        recipes = {"fast": Fast(), "paper, 5 passes an epoch": Paper(passes=5)}
        y = images.labels
        yield from compared(found.kept[train], y[train], found.kept[test], y[test], recipes)
        if out is not None:
            model = ap.ProtoPNet(ap.load("imagenet"), recipe="fast")
            model.fit([files[i] for i in train[:340]], [files[i].parent.name for i in train[:340]])
            model.reasons(files[int(test[0])]).to_html(out / "flower.html")


def animals(data: Path, out: Path | None, many: int) -> Iterator[Line]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with tarfile.open(data / "images" / "tiny_imagenet_10cls.tar") as tar:
            tar.extractall(folder, filter="data")
        words = dict(
            line.split("\t")[:2] for line in (folder / "words.tsv").read_text().splitlines() if "\t" in line
        )
        parts = {}
        for part, most in (("train", many), ("val", 50)):
            files = [f for c in sorted((folder / part).iterdir()) for f in sorted(c.glob("*.JPEG"))[:most]]
            parts[part] = files
        classifier = ap.load("imagenet")
        labels = [words.get(f.parent.name, f.parent.name).split(",")[0] for f in parts["train"]]
        train = images_of(parts["train"], labels, classifier.encode)
        truth = [words.get(f.parent.name, f.parent.name).split(",")[0] for f in parts["val"]]
        test = images_of(parts["val"], truth, classifier.encode)
        assert train.labels is not None
        assert test.labels is not None
        yield "animals and things: training and test pictures", f"{len(train)}, {len(test)}"
        model = ap.ProtoPNet(classifier, recipe="fast")
        begin = time.process_time()
        model.fit(train)
        yield (
            "fit, features included",
            f"{time.process_time() - begin:.0f} s, {len(model.sources_)} prototypes",
        )
        backbone = model.net_.backbone
        seen, unseen = kept(train, backbone), kept(test, backbone)
        assert seen.kept is not None
        assert unseen.kept is not None
        linear = linear_head(seen.kept, train.labels, unseen.kept, test.labels)
        with torch.no_grad():
            table = torch.cat(
                [model.net_.similarities(model.net_.add_on(g)).amax((2, 3)) for g in unseen.kept.split(64)]
            )
            right = float((model.net_.last(table).argmax(1) == test.labels).double().mean())
        yield "linear head, ProtoPNet", f"{linear:.1%}, {right:.1%} ({100 * (right - linear):+.1f} points)"
        yield from prototypes(model, folder, train, seen)
        chosen = torch.arange(len(test))[:: len(test) // 24][:24]
        x = test.read(chosen)
        steady = stability(model.net_, x, test.labels[chosen])
        yield "stability: patches that stay under noise of 0.1 deviations", f"{float(steady.mean()):.0%}"
        yield from faithfulness(model, x)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            pictures(model, parts["val"][int(chosen[5])], train, test, out)


def prototypes(model: Any, folder: Path, train: Images, seen: Grids) -> Iterator[Line]:
    """Purity of the ten nearest training pictures, and how much of a prototype's box is in the object's."""
    net = model.net_
    found = nearest(net, seen.patches(net, "nearest"), 10)
    yield (
        "purity: the 10 nearest pictures that are of the class",
        f"{float(purity(net, found, train.labels).mean()):.0%}",
    )
    with (folder / "boxes.tsv").open() as file:
        boxes = {row["file"]: row for row in csv.DictReader(file, delimiter="\t")}
    # 64 x 64 pictures are enlarged to 256 and cropped to the middle 224.
    known = {}
    for name, row in boxes.items():
        known[name] = tuple(
            min(224, max(0, 4 * int(row[side]) + more - 16))
            for side, more in (("y1", 0), ("y2", 4), ("x1", 0), ("x2", 4))
        )
    patches = patches_of(net, train, found.image[:, 0], torch.arange(len(found.image)))
    objects = [known[patch.name] for patch in patches]
    share = inside([patch.box for patch in patches], objects)
    whole = inside([(0, 224, 0, 224)] * len(objects), objects)
    yield (
        "prototype boxes inside the object's (all of the picture)",
        f"{float(share.mean()):.0%} ({float(whole.mean()):.0%})",
    )
    place = duplicates(net.class_of, found.image[:, 0], found.place[:, 0])
    yield "duplicates among the prototypes that are left", str(len(place) - len(place.unique()))
    row = model.history_[-1]
    yield (
        "prototypes dropped: duplicates, pruned",
        f"{row['duplicates']}, {row['pruned']} of {row['prototypes']}",
    )


def faithfulness(model: Any, x: Tensor) -> Iterator[Line]:
    """Pixel flipping of 8 x 8 patches, most relevant first: the mean fall of the score."""
    test = PixelFlipping(partition=Patches(28), steps=8)
    random = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    maps = {
        "upsampled": Upsampled()(model.net_, x),
        "LRP, epsilon-plus": PrototypeLRP("epsilon-plus")(model.net_, x),
        "LRP, epsilon-gamma-box": PrototypeLRP("epsilon-gamma-box")(model.net_, x),
        "random": random,
    }
    target = maps["upsampled"].target
    for name, values in maps.items():
        yield f"pixel flipping: {name}", str(test(model.net_, x, values, target))


def pictures(model: Any, file: Path, train: Images, test: Images, out: Path) -> None:
    why = model.reasons(file, top=4)
    why.plot().savefig(out / "prototypes-reasons.png", dpi=100)
    why.to_html(out / "reasons.html")
    gallery = model.gallery(why.label, 3, train=train, test=test)
    gallery.plot().savefig(out / "prototypes-gallery.png", dpi=70)
    gallery.to_html(out / "gallery.html")


class Small(nn.Sequential):
    """Two convolutions and poolings: (batch, 1, 28, 28) to (batch, 64, 7, 7)."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
        )  # fmt: skip


def plain(x: Tensor, y: Tensor, epochs: int) -> tuple[nn.Module, nn.Module]:
    """The small network with a linear head, trained as a plain classifier."""
    torch.manual_seed(0)
    backbone = Small()
    model = nn.Sequential(backbone, nn.Flatten(), nn.Linear(64 * 49, 10))
    adam = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(80):
            loss = F.cross_entropy(model(x[rows]), y[rows])
            adam.zero_grad()
            loss.backward()
            adam.step()
    return backbone, model.eval()


def fashion(data: Path, out: Path | None, many: int) -> Iterator[Line]:
    (x, y), (test, truth) = read_mnist(data / "images", "train"), read_mnist(data / "images", "t10k")
    x, y, test, truth = x[: 100 * many], y[: 100 * many], test[:2000], truth[:2000]
    yield "idx files: training and test pictures", f"{len(x)}, {len(test)}"
    begin = time.process_time()
    backbone, model = plain(x, y, 3)
    with torch.no_grad():
        right = float((model(test).argmax(1) == truth).double().mean())
    yield "plain network, 3 epochs", f"{right:.1%}, {time.process_time() - begin:.0f} s"
    for name, settings in (("fast, frozen", {"recipe": "fast"}), ("paper, tuned", {"tune": True})):
        begin = time.process_time()
        fitted = ap.ProtoPNet(backbone, **settings).fit(x, y)
        spent, score = time.process_time() - begin, fitted.score(test, truth)
        yield (
            f"ProtoPNet, {name}",
            f"{score:.1%} ({100 * (score - right):+.1f} points), {len(fitted.sources_)} prototypes, {spent:.0f} s",
        )
        for row in fitted.history_:
            if "after_push" in row:
                line = ", ".join(f"{row[k]:.1%}" for k in ("accuracy", "after_push", "after_last_layer"))
                yield f"  epoch {row['epoch']}: trained, pushed, last layer solved", line


PARTS = {"flowers": flowers, "animals": animals, "fashion": fashion}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where pictures and pages go")
    parser.add_argument("--images", type=int, default=100, help="training pictures a class (default 100)")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    for name, part in PARTS.items():
        if given.only in (None, name):
            for what, number in part(given.data, given.out, given.images):
                print(f"{what:<62} {number}", flush=True)


if __name__ == "__main__":
    main()
