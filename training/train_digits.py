"""Train the shipped digits model on MNIST and write its weights.

    python training/train_digits.py DATA_FOLDER

DATA_FOLDER holds the four idx files of MNIST, gzipped or not, named as they are distributed
(`train-images-idx3-ubyte`, ...), with or without a `mnist_` in front.
"""

from __future__ import annotations

import argparse
import gzip
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from apportion.models.shipped.digits import WEIGHTS, DigitsNet

EPOCHS, BATCH, RATE, WEIGHT_DECAY, SHIFT = 12, 128, 4e-3, 5e-3, 2


def read_idx(folder: Path, name: str) -> Tensor:
    """The array in an idx file, as uint8."""
    for candidate in (f"{name}.gz", name, f"mnist_{name}.gz", f"mnist_{name}"):
        path = folder / candidate
        if path.is_file():
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            dimensions = content[3]
            shape = np.frombuffer(content, dtype=">u4", count=dimensions, offset=4).astype(int)
            data = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * dimensions)
            return torch.from_numpy(data.reshape(shape).copy())
    raise FileNotFoundError(f"{folder}: no {name} or {name}.gz here; expected the idx files of MNIST")


def read_mnist(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """Pictures (n, 1, 28, 28) in [0, 1] and labels (n,) of the part "train" or "t10k"."""
    pictures = read_idx(folder, f"{part}-images-idx3-ubyte")
    labels = read_idx(folder, f"{part}-labels-idx1-ubyte")
    return pictures.unsqueeze(1).float() / 255, labels.long()


def shifted(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Every picture moved by up to SHIFT pixels each way: the network has one pooling and learns the rest."""
    size = pictures.shape[-1]
    padded = F.pad(pictures, [SHIFT] * 4)
    offsets = torch.randint(0, 2 * SHIFT + 1, (2, len(pictures)), generator=generator)
    rows, columns = (o[:, None] + torch.arange(size) for o in offsets)
    moved = padded[torch.arange(len(pictures))[:, None, None], 0, rows[:, :, None], columns[:, None, :]]
    return moved.unsqueeze(1)


def accuracy(model: torch.nn.Module, pictures: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        predicted = torch.cat([model(batch).argmax(1) for batch in pictures.split(1000)])
    return float((predicted == labels).double().mean())


def train(pictures: Tensor, labels: Tensor, seed: int, epochs: int) -> DigitsNet:
    torch.manual_seed(seed)
    order = torch.Generator().manual_seed(seed)
    model = DigitsNet()
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    steps = epochs * (len(pictures) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=RATE, total_steps=steps)
    for epoch in range(epochs):
        losses = []
        for batch in torch.randperm(len(pictures), generator=order)[: steps // epochs * BATCH].split(BATCH):
            loss = F.cross_entropy(model(shifted(pictures[batch], order)), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(float(loss.detach()))
        print(f"epoch {epoch + 1}/{epochs}: training loss {np.mean(losses):.4f}", flush=True)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    torch.set_num_threads(2)

    started = time.perf_counter()
    model = train(*read_mnist(arguments.data_folder, "train"), arguments.seed, arguments.epochs)
    print(f"trained in {time.perf_counter() - started:.0f} s")
    save_file(model.state_dict(), arguments.out)

    # Measured on what was written, not on what was trained: this is the model that ships.
    shipped = DigitsNet().eval()
    shipped.load_state_dict(load_file(arguments.out))
    print(f"test accuracy as shipped: {accuracy(shipped, *read_mnist(arguments.data_folder, 't10k')):.4f}")
    print(f"{arguments.out.name}: {arguments.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
