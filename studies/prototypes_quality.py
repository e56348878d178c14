"""How good prototypes are, and which map of pixels is truer: on ten classes of Tiny-ImageNet with their boxes.

    python studies/prototypes_quality.py DATA [--out FOLDER] [--images 100]

DATA holds `images/tiny_imagenet_10cls.tar`. The backbone is the EfficientNet-Lite0 that ships, the recipe "fast".
"""

from __future__ import annotations

import argparse
import csv
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import apportion as ap
from apportion.engines.masking.partitions import Patches
from apportion.evaluation.measures.flipping import PixelFlipping
from apportion.models.prototypes._images import Images, images_of
from apportion.models.prototypes.methods import PrototypeLRP, Upsampled
from apportion.models.prototypes.quality import inside
from prototypes import Line, in_folders, unpacked


def animals(data: Path, out: Path | None, many: int) -> Iterator[Line]:
    with unpacked(data / "images" / "tiny_imagenet_10cls.tar") as folder:
        words = dict(
            line.split("\t")[:2] for line in (folder / "words.tsv").read_text().splitlines() if "\t" in line
        )
        classifier, parts = ap.load("imagenet"), {}
        for part, most in (("train", many), ("val", 50)):
            files = in_folders(folder / part, "JPEG", most)
            labels = [words.get(f.parent.name, f.parent.name).split(",")[0] for f in files]
            parts[part] = images_of(files, labels, classifier.encode)
        train, test = parts["train"], parts["val"]
        model = ap.ProtoPNet(classifier, recipe="fast").fit(train)
        yield "training pictures, prototypes", f"{len(train)}, {len(model.sources_)}"
        row = model.history_[-1]
        yield (
            "candidates; dropped: duplicates, pruned, of little weight",
            f"{row['prototypes']}; {row['duplicates']}, {row['pruned']}, {row['left_out']}",
        )
        for name, images in (("training", train), ("test", test)):
            yield f"on the {name} pictures", str(model.quality(images))
        share, whole = in_the_object(model, folder)
        yield "prototype boxes inside the object's (all of the picture)", f"{share:.0%} ({whole:.0%})"
        chosen = torch.arange(len(test))[:: len(test) // 24][:24]
        yield from faithfulness(model, test.read(chosen))
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            pictures(model, in_folders(folder / "val", "JPEG", 50)[int(chosen[5])], train, test, out)


def in_the_object(model: Any, folder: Path) -> tuple[float, float]:
    """How much of a prototype's box is in the object's box, and how much of the whole picture is."""
    with (folder / "boxes.tsv").open() as file:
        boxes = {row["file"]: row for row in csv.DictReader(file, delimiter="\t")}
    # 64 x 64 pictures are enlarged to 256 and cropped to the middle 224.
    known = {
        name: tuple(
            min(224, max(0, 4 * int(row[side]) + more - 16))
            for side, more in (("y1", 0), ("y2", 4), ("x1", 0), ("x2", 4))
        )
        for name, row in boxes.items()
    }
    objects = [known[source.name] for source in model.sources_]
    share = inside([source.box for source in model.sources_], objects)
    whole = inside([(0, 224, 0, 224)] * len(objects), objects)
    return float(share.mean()), float(whole.mean())


def faithfulness(model: Any, x: Tensor) -> Iterator[Line]:
    """Pixel flipping of 28 x 28 pixels at once, most relevant first: the mean fall of the probability."""
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
        yield f"pixel flipping: {name}", str(test(model.net_, x, values, target)).split("): ")[-1]


def pictures(model: Any, file: Path, train: Images, test: Images, out: Path) -> None:
    why = model.reasons(file, top=4)
    why.plot().savefig(out / "prototypes-reasons.png", dpi=100)
    why.to_html(out / "reasons.html")
    gallery = model.gallery(why.label, 3, train=train, test=test)
    gallery.plot().savefig(out / "prototypes-gallery.png", dpi=70)
    gallery.to_html(out / "gallery.html")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where pictures and pages go")
    parser.add_argument("--images", type=int, default=100, help="training pictures a class (default 100)")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    for what, number in animals(given.data, given.out, given.images):
        print(f"{what:<62} {number}", flush=True)


if __name__ == "__main__":
    main()
