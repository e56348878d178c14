"""Small models of the common kinds, with random weights: name → (model, inputs).

They are in double precision, so that what ought to be equal is equal to many digits."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Made = tuple[Any, Any]


class Block(nn.Module):
    """A residual block as in ResNet: functional addition, the ReLUs in place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x
        return self.relu(y)


class Recurrent(nn.Module):
    """Token ids → embedding → LSTM → classes."""

    def __init__(self, words: int = 20, width: int = 6, classes: int = 3) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.lstm = nn.LSTM(width, width, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, ids: Tensor) -> Tensor:
        steps, _ = self.lstm(self.embedding(ids))
        return self.head(steps.mean(1))


class Words(nn.Module):
    """Token ids → embedding → LSTM → classes by its last state, in single precision, always the same weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(9, 5)
        self.lstm = nn.LSTM(5, 4, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.lstm(self.embedding(ids))[0][:, -1])


def perceptron(inputs: int = 6, classes: int = 3) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, classes))


def convolutional() -> nn.Sequential:
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), Block(6), nn.MaxPool2d(2),
        nn.Conv2d(6, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics as after some training
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def mlp() -> Made:
    return perceptron().double().eval(), torch.randn(3, 6, dtype=torch.float64, generator=seeded(3))


def cnn() -> Made:
    return convolutional().double(), torch.randn(3, 3, 8, 8, dtype=torch.float64, generator=seeded(4))


def lstm() -> Made:
    torch.manual_seed(5)
    return Recurrent().double().eval(), torch.randint(1, 20, (3, 5), generator=seeded(6))


def bert() -> Made:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        num_labels=3, max_position_embeddings=16, attn_implementation="eager", initializer_range=0.3,
    )  # fmt: skip
    ids = torch.randint(1, 30, (3, 6), generator=seeded(8))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0  # one shorter text
    return BertForSequenceClassification(config).double().eval(), {"input_ids": ids, "attention_mask": mask}


def exported() -> Made:
    model, x = mlp()
    batch = torch.export.Dim("batch", min=1, max=4096)
    return torch.export.export(model, (x,), dynamic_shapes=({0: batch},)).module(), x


SMALL: dict[str, Callable[[], Made]] = {"mlp": mlp, "cnn": cnn, "lstm": lstm, "exported": exported}
if importlib.util.find_spec("transformers"):
    SMALL["bert"] = bert


# ---- what is done with them ----


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def take(inputs: Any, rows: slice) -> Any:
    """Some samples of a batch."""
    if isinstance(inputs, Tensor):
        return inputs[rows]
    if isinstance(inputs, Mapping):
        return {key: take(value, rows) for key, value in inputs.items()}
    return tuple(take(value, rows) for value in inputs)


def tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    return [t for item in (tree.values() if isinstance(tree, Mapping) else tree) for t in tensors(item)]


def fingerprint(model: Any) -> str:
    """A hash of all of a model that an explanation must not change, and of the global random state."""
    print_ = hashlib.sha256(torch.get_rng_state().numpy().tobytes())
    print_.update(str(torch.is_grad_enabled()).encode())
    for name, module in model.named_modules() if isinstance(model, nn.Module) else ():
        hooks = [
            len(found)
            for key, found in sorted(vars(module).items())
            if key.endswith("hooks") and found is not None
        ]
        print_.update(f"{name} {type(module)} {module.training} {hooks} {sorted(vars(module))}".encode())
        for kind in (module._parameters, module._buffers):
            for key, tensor in kind.items():
                if tensor is None:
                    continue
                known = (
                    key,
                    id(tensor),
                    tensor.dtype,
                    tensor.requires_grad,
                    tensor.grad is None,
                    tensor._version,
                )
                print_.update(str(known).encode())
                print_.update(tensor.detach().flatten().contiguous().view(torch.uint8).numpy().tobytes())
    everywhere = (nn.modules.module._global_forward_hooks, nn.modules.module._global_forward_pre_hooks)
    print_.update(str([len(hooks) for hooks in everywhere]).encode())
    return print_.hexdigest()
