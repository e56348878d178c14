"""How faithful maps of a language model are, and what they leave over: words replaced by pad in the order of the map.

    python studies/language_model.py FOLDER

FOLDER holds a causal language model in the form of Hugging Face; the table in `docs/lrp.md` is of
SmolLM2-135M-Instruct.
"""

from __future__ import annotations

import sys
import warnings

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

import apportion as ap

PROMPTS = (
    "The capital of France is", "Water boils at a temperature of one hundred degrees", "The opposite of hot is",
    "My dog loves to chase the cat, and my cat loves to chase the", "Paris is in France. Berlin is in",
    "The keys to the cabinet are on the table, so the keys", "She picked up the violin and began to play the",
    "In 1969, Neil Armstrong became the first man to walk on the", "The chemical symbol for gold is",
    "Two plus two equals", "The Eiffel Tower is located in the city of", "Monday, Tuesday, Wednesday,",
    "The mother of my mother is my", "A triangle has three", "The plural of mouse is", "He was hungry, so he ate a",
)  # fmt: skip


class Next(torch.nn.Module):
    """The scores of the next token."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        scores: Tensor = self.model(input_ids, use_cache=False, logits_to_keep=1).logits[:, -1]
        return scores


def fall(model: torch.nn.Module, ids: Tensor, order: Tensor, target: int, pad: int) -> float:
    """How far the score falls in the mean as tokens are replaced in this order."""
    steps = ids.repeat(len(order) + 1, 1)  # (steps + 1, tokens)
    for step, place in enumerate(order.tolist()):
        steps[step + 1 :, place] = pad
    with torch.no_grad():
        scores = model(steps)[:, target]
    return float((scores[0] - scores[1:]).mean())


def main(folder: str) -> None:
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = Next(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)).eval()
    pad = tokenizer.pad_token_id
    methods = {
        "LRP, Taylor": ap.LRP(),
        "LRP, Taylor, placed": ap.LRP(bias="place"),
        "LRP, constant": ap.LRP(ap.Composite(softmax="constant")),
        "LRP, difference": ap.LRP(ap.Composite(softmax="difference")),
        "DeepLIFT": ap.DeepLIFT(baseline="zero"),
        "input × gradient": ap.InputXGradient(),
        "occlusion": ap.Occlusion(replacement=ap.Constant(pad)),
        "random": None,
    }
    found: dict[str, list[tuple[float, float, float, bool]]] = {name: [] for name in methods}
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            target = int(model(ids).argmax())
        for name, method in methods.items():
            left = float("nan")
            if method is None:
                values = torch.randn(ids.shape[1])
            else:
                e = method(model, ids, target)
                values = e.values[0].float()
                if e.total is not None:
                    left = float((e.remainder / e.total).abs())
            most, least = (
                fall(model, ids, values.argsort(descending=way), target, pad) for way in (True, False)
            )
            found[name].append((most, least, left, int(values.argmax()) == 0))
    gains = {name: torch.tensor([row[0] - row[1] for row in rows]) for name, rows in found.items()}
    print(
        "| method | most first | least first | difference | minus Taylor | left over, median | first leads |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, rows in found.items():
        most, least, left, first = torch.tensor(rows).T
        apart = gains[name] - gains["LRP, Taylor"]
        interval = 1.96 * apart.std() / len(apart) ** 0.5
        print(
            f"| {name} | {most.mean():.1f} | {least.mean():.1f} | {gains[name].mean():.1f} | {apart.mean():+.1f} ± "
            f"{interval:.1f} | {left.median():.2f} | {int(first.sum())} of {len(first)} |"
        )


if __name__ == "__main__":
    main(sys.argv[1])
