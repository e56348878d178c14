"""Words that act together, in the sentiment model that ships: negation, intensifiers and saturation.

python studies/interactions_text.py [--pictures FOLDER]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from apportion import IntegratedHessians
from apportion.models.shipped.sentiment import sentiment

TEXTS = (
    "not bad",
    "a painfully funny movie",
    "a painfully boring movie",
    "a bad movie",
    "a bad, terrible, awful movie",
    "not a good movie",
)

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    classifier = sentiment()
    for number, text in enumerate(TEXTS):
        ids, features = classifier.encode(text)
        found = IntegratedHessians()(classifier.model, ids, target=1).with_features(
            (features,), classifier.labels
        )
        names = found.names_of(0)
        print(f"{text!r}\n    {found.summary()}")
        print(
            "    alone: "
            + ", ".join(f"{n} {float(v):+.2f}" for n, v in zip(names, found.main[0], strict=True))
        )
        print("    pairs: " + ", ".join(f"{a} · {b} {value:+.2f}" for a, b, value in found.top(4)))
        if given.pictures:
            given.pictures.mkdir(parents=True, exist_ok=True)
            found.plot().figure.savefig(given.pictures / f"interactions_text_{number}.png", dpi=120)
