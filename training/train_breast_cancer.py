"""Train the shipped breast cancer model on scikit-learn's copy of the data and write its weights.

    python training/train_breast_cancer.py

The file also holds the column names, the standardisation constants (of the training rows) and the class
names, so that the model can be used without scikit-learn.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from torch.nn import functional as F

from apportion.domains.tabular import TabularPreparation
from apportion.models.shipped.breast_cancer import MLP, WEIGHTS, breast_cancer

HIDDEN, EPOCHS, RATE, WEIGHT_DECAY = (32, 16), 200, 5e-3, 1e-2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)

    data = load_breast_cancer(as_frame=True)
    train, held_out = train_test_split(
        np.arange(len(data.data)), test_size=0.2, stratify=data.target, random_state=arguments.seed
    )
    preparation = TabularPreparation.fit(data.data.iloc[train])
    inputs = torch.cat([preparation(row)[0] for _, row in data.data.iterrows()])
    labels = torch.tensor(data.target.tolist())

    model = MLP(inputs.shape[1], HIDDEN, len(data.target_names))
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    for _ in range(EPOCHS):
        for batch in torch.from_numpy(train)[torch.randperm(len(train))].split(32):
            loss = F.cross_entropy(model(inputs[batch]), labels[batch], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    notes = {
        "preparation": preparation.to_json(),
        "labels": json.dumps([str(name) for name in data.target_names]),
        "hidden": json.dumps(HIDDEN),
        "held_out": json.dumps(sorted(held_out.tolist())),
    }
    save_file(model.state_dict(), WEIGHTS, metadata=notes)

    shipped = breast_cancer()
    with torch.no_grad():
        predicted = shipped(inputs[held_out]).argmax(1)
    right = int((predicted == labels[held_out]).sum())
    print(f"held-out accuracy as shipped: {right / len(held_out):.4f} ({right} of {len(held_out)} rows)")
    print(f"{Path(WEIGHTS).name}: {WEIGHTS.stat().st_size} bytes")


if __name__ == "__main__":
    main()
