"""ProtoPNet beside the same backbone with a linear head: accuracy, and which settings were chosen on what.

    python studies/prototypes.py DATA [--only choices|flowers|animals|caltech|fashion] [--seeds 3] [--images 100]

DATA holds `images/flowers17_192.tar` (Oxford 17 Flowers), `images/tiny_imagenet_10cls.tar` and
`images/caltech101_10cls.tar` (ten classes each of Tiny-ImageNet and Caltech-101), each with a folder for each
class. Fashion-MNIST is in `images/fashion-mnist`, in DATA itself, or where Debian's `dataset-fashion-mnist` puts it,
as idx files; `--only fashion` is the paper's recipe with the authors' values on all 60 000 of its pictures. The
backbone of the photos is the EfficientNet-Lite0 that ships, frozen; that of Fashion-MNIST is a small network, tuned.
`choices` sees training photos only: two thirds of them are fitted, one third says how good a setting is. Nothing was
chosen on Caltech-101 or Fashion-MNIST.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import apportion as ap
from apportion.models.prototypes._backbone_features import compute_grids
from apportion.models.prototypes._images import images_of
from apportion.models.prototypes._network import Backbone
from apportion.models.prototypes.settings import Fast, LastLayer, Paper

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))
from train_digits import read_mnist

DEBIAN = Path("/usr/share/datasets/fashion-mnist")

Line = tuple[str, str]
Half = tuple[Tensor, Tensor]
"""Grids (images, channels, rows, columns) and labels (images,)."""


@contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        yield Path(folder)


def grids(files: list[Path]) -> Half:
    """What the frozen backbone gives for photos in a folder for each class."""
    classifier = ap.load("imagenet")
    images = images_of(files, [file.parent.name for file in files], classifier.encode)
    backbone = Backbone(classifier.model, images.read(torch.zeros(1, dtype=torch.long)))
    found = compute_grids(images, backbone).kept
    assert found is not None
    assert images.labels is not None
    return found, images.labels


def in_folders(place: Path, ending: str, most: int) -> list[Path]:
    """The first files of each class."""
    folders = sorted(folder for folder in place.iterdir() if folder.is_dir())
    return [file for folder in folders for file in sorted(folder.glob(f"*.{ending}"))[:most]]


def flower_halves(data: Path, many: int) -> tuple[Half, Half]:
    """Three quarters for training, in an order drawn once."""
    with unpacked(data / "images" / "flowers17_192.tar") as folder:
        x, y = grids(sorted(folder.rglob("*.jpg")))
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    train, test = order[: len(y) * 3 // 4], order[len(y) * 3 // 4 :]
    return (x[train], y[train]), (x[test], y[test])


def animal_halves(data: Path, many: int) -> tuple[Half, Half]:
    with unpacked(data / "images" / "tiny_imagenet_10cls.tar") as folder:
        return grids(in_folders(folder / "train", "JPEG", many)), grids(
            in_folders(folder / "val", "JPEG", 50)
        )


def caltech_halves(data: Path, many: int) -> tuple[Half, Half]:
    with unpacked(data / "images" / "caltech101_10cls.tar") as folder:
        return grids(in_folders(folder / "train", "jpg", many)), grids(
            in_folders(folder / "test", "jpg", many)
        )


PHOTOS = {"flowers": flower_halves, "animals": animal_halves, "caltech": caltech_halves}


def linear_head(train: Half, test: Half) -> float:
    """Logistic regression on the mean of the grid, its penalty chosen by cross-validation."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    search = GridSearchCV(LogisticRegression(max_iter=1000), {"C": [0.03, 0.1, 0.3, 1.0, 3.0, 10.0]}, cv=3)
    return float(search.fit(train[0].mean((2, 3)), train[1]).score(test[0].mean((2, 3)), test[1]))


def fitted(recipe: Any, train: Half, test: Half, seed: int) -> tuple[float, int, float]:
    """Accuracy on the test half, how many prototypes there are, and seconds of processor time."""
    begin = time.process_time()
    model = ap.ProtoPNet(nn.Identity(), recipe=recipe, seed=seed).fit(*train)
    spent = time.process_time() - begin
    return model.score(*test), len(model.sources_), spent


def compared(name: str, data: Path, many: int, seeds: int) -> Iterator[Line]:
    train, test = PHOTOS[name](data, many)
    yield f"{name}: training and test photos", f"{len(train[1])}, {len(test[1])}"
    head = linear_head(train, test)
    yield "linear head on the same grids", f"{head:.1%}"
    for recipe in ("fast", "frozen"):
        runs = [fitted(recipe, train, test, seed) for seed in range(seeds)]
        scores = torch.tensor([score for score, _, _ in runs])
        said = ", ".join(f"{score:.1%}" for score in scores)
        yield (
            f"ProtoPNet, {recipe}, {seeds} seeds",
            f"{scores.mean():.1%} ({100 * (scores.mean() - head):+.1f} points): {said}; {runs[0][1]} prototypes, "
            f"{runs[0][2]:.0f} s",
        )
    paper = fitted(Paper(passes=5), train, test, 0)
    yield (
        "ProtoPNet, paper, 5 passes an epoch",
        f"{paper[0]:.1%} ({100 * (paper[0] - head):+.1f} points), {paper[2]:.0f} s",
    )


QUICK = {
    **{f"Fast(candidates={n})": Fast(candidates=n) for n in (1, 2, 4, 8)},
    "Fast, l1 1e-4": Fast(last=LastLayer(l1=1e-4, ridge=4e-5)),
    "Fast, ridge 4e-4": Fast(last=LastLayer(l1=2e-5, ridge=4e-4)),
}
SLOW = {
    "Paper, 5 passes": Paper(passes=5),
    "the same, hidden 0.5": Paper(passes=5, hidden=0.5),
    "the same, standardised": Paper(passes=5, standardise=True),
    "both (frozen)": Paper(passes=5, hidden=0.5, standardise=True),
    "both, hidden 0.7": Paper(passes=5, hidden=0.7, standardise=True),
}


def choices(data: Path, many: int, seeds: int) -> Iterator[Line]:
    """Accuracy on a third of the training photos; the quick settings on several thirds."""
    for name in ("flowers", "animals"):
        (x, y), _ = PHOTOS[name](data, many)
        thirds = [thirds_of(y, seed) for seed in range(seeds)]
        halves = [((x[fit], y[fit]), (x[rest], y[rest])) for fit, rest in thirds]
        heads = [linear_head(*half) for half in halves]
        yield f"{name}: linear head", " ".join(f"{score:.1%}" for score in heads)
        for what, recipe in QUICK.items():
            scores = [fitted(recipe, *half, seed)[0] for seed, half in enumerate(halves)]
            gap = sum(score - head for score, head in zip(scores, heads, strict=True)) / seeds
            yield f"  {what}", " ".join(f"{score:.1%}" for score in scores) + f" ({100 * gap:+.1f} points)"
        for what, recipe in SLOW.items():
            score = fitted(recipe, *halves[0], 0)[0]
            yield f"  {what}", f"{score:.1%} ({100 * (score - heads[0]):+.1f} points)"


def thirds_of(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Two thirds of each class, and the last third."""
    random = torch.Generator().manual_seed(seed)
    drawn = [(labels == label).nonzero().flatten() for label in labels.unique()]
    mixed = [rows[torch.randperm(len(rows), generator=random)] for rows in drawn]
    parts = [rows.tensor_split([len(rows) * 2 // 3]) for rows in mixed]
    return torch.cat([fit for fit, _ in parts]), torch.cat([rest for _, rest in parts])


class Small(nn.Sequential):
    """Three convolutions: (batch, 1, 28, 28) to (batch, 64, 7, 7)."""

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


def fashion(data: Path, many: int | None) -> Iterator[Line]:
    """The paper's recipe with the authors' values on all of Fashion-MNIST, beside the plain network."""
    place = next(folder for folder in (data / "images" / "fashion-mnist", DEBIAN, data) if folder.is_dir())
    (x, y), (test, truth) = read_mnist(place, "train"), read_mnist(place, "t10k")
    if many is not None:
        x, y = x[: 10 * many], y[: 10 * many]
    yield "Fashion-MNIST: training and test pictures", f"{len(x)}, {len(test)}"
    clock = Clock()
    backbone, model = plain(x, y, 3 if len(x) < 20_000 else 10)
    spent = str(clock)
    with torch.no_grad():
        right = float(
            (torch.cat([model(part).argmax(1) for part in test.split(500)]) == truth).double().mean()
        )
    yield "plain network", f"{right:.1%}, {spent}"
    runs: dict[str, dict[str, Any]] = {"fast, frozen": {"recipe": "fast"}, "paper, tuned": {"tune": True}}
    for name, settings in runs.items():
        clock = Clock()
        found = ap.ProtoPNet(backbone, **settings).fit(x, y)
        spent, score = str(clock), found.score(test, truth)
        gap = 100 * (score - right)
        yield (
            f"ProtoPNet, {name}",
            f"{score:.1%} ({gap:+.1f} points), {len(found.sources_)} prototypes, {spent}",
        )
        for row in found.history_:
            if "after_push" in row:
                line = ", ".join(f"{row[k]:.1%}" for k in ("accuracy", "after_push", "after_last_layer"))
                yield f"  epoch {row['epoch']}: trained, pushed, last layer solved", line


class Clock:
    """The time since it was made, as text."""

    def __init__(self) -> None:
        self.wall, self.processor = time.perf_counter(), time.process_time()

    def __str__(self) -> str:
        wall, processor = time.perf_counter() - self.wall, time.process_time() - self.processor
        return f"{wall:.0f} s ({processor:.0f} s of processor time, {torch.get_num_threads()} threads)"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--only", choices=("choices", *PHOTOS, "fashion"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, help="training pictures a class (100, all of Fashion-MNIST)")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    many = given.images or 100
    parts = {name: lambda name=name: compared(name, given.data, many, given.seeds) for name in PHOTOS}
    parts["choices"] = lambda: choices(given.data, many, given.seeds)
    parts["fashion"] = lambda: fashion(given.data, given.images)
    for name, part in parts.items():
        if given.only in (None, name):
            for what, number in part():
                print(f"{what:<48} {number}", flush=True)


if __name__ == "__main__":
    main()
