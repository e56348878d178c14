"""Train a text classifier: progress, a checkpoint after each epoch, early stopping, and resuming."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from apportion.core.checksummed import seal, unseal
from apportion.core.fingerprints import code_fingerprint
from apportion.core.progress import progress
from apportion.core.settings import Told, later
from apportion.errors import InputError, check, check_seed, check_whole
from apportion.learning.documents import Documents, batches_by_length, shuffled_batches

Say = Callable[[str], None]


@dataclass(frozen=True)
class Training(Told):
    """How a text classifier is trained; the defaults are those of Jain & Wallace (2019).

    Adam with AMSGrad, on batches of texts of like length.

    Attributes:
        epochs (int, default 8): Epochs at most.
        batch (int, default 32, texts): Batch size.
        rate (float, default 1e-3): Learning rate.
        decay (float, default 1e-5): L2 decay of all weights but the attention's and the embedding's (where Adam would
            shrink the rows of rare words at full rate).
        patience (int, default None): Epochs without a better one after which training stops; None: never.
        seed (int, default 0): Seed of dropout and batches.
        keep (str, default "best"): Epoch whose weights are kept: that of the "best" validation ROC-AUC, or the "last".
    """

    epochs: int = 8
    batch: int = 32
    rate: float = 1e-3
    decay: float = 1e-5
    patience: int | None = None
    seed: int = 0
    keep: Literal["best", "last"] = later("best")

    def __post_init__(self) -> None:
        check("keep", self.keep, lambda v: v in ("best", "last"), "'best' or 'last'")
        check_whole(1, epochs=self.epochs, batch=self.batch)
        check_seed(self.seed)
        if self.patience is not None:
            check_whole(1, patience=self.patience)
        check("rate", self.rate, lambda v: 0 < v < float("inf"), "a positive number")
        check("decay", self.decay, lambda v: 0 <= v < float("inf"), "a number of at least 0")


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave: mean cross-entropies, validation ROC-AUC and seconds."""

    training_loss: float
    validation_loss: float
    validation_auc: float
    seconds: float


def train(
    model: nn.Module,
    documents: Documents,
    validation: Documents,
    settings: Training | None = None,
    checkpoint: Path | None = None,
    say: Say = lambda line: None,
) -> list[Epoch]:
    """Train `model` in place (it is left in eval mode with the weights of the epoch kept); one Epoch for each.

    The model takes padded ids `(batch, tokens)`, and the documents' maps if they have any, and returns scores
    `(batch, classes)`. With `checkpoint`, every epoch is written to that file; a later call with the same
    model, documents and settings goes on from it and gives what an uninterrupted one gives. A
    corrupt file is named in a warning, and training starts anew; one of other settings is an InputError.
    Raises InputError if either set of documents is of one class only.
    """
    settings = Training() if settings is None else settings
    for name, given in (("training", documents), ("validation", validation)):
        if len(given.labels.unique()) < 2:
            raise InputError(f"the {len(given)} {name} texts are not of at least two classes")
    optimiser = _optimiser(model, settings)
    state = _State(model, optimiser, settings, documents, validation, checkpoint)
    state.resume()
    while not state.finished():
        number = len(state.history)
        begin = time.perf_counter()
        loss = _epoch(model.train(), optimiser, documents, settings, number)
        model.eval()
        scores = scores_by_model(model, validation)
        epoch = Epoch(
            training_loss=loss,
            validation_loss=float(F.cross_entropy(scores, validation.labels)),
            validation_auc=roc_auc(scores, validation.labels),
            seconds=time.perf_counter() - begin,
        )
        state.add(epoch)
        say(
            f"epoch {number + 1}/{settings.epochs}: training loss {loss:.4f}, validation loss "
            f"{epoch.validation_loss:.4f}, AUC {epoch.validation_auc:.4f}, {epoch.seconds:.0f} s"
        )
    if settings.keep == "best":
        model.load_state_dict(state.best)
    model.eval()
    return state.history


def scores_by_model(model: nn.Module, documents: Documents) -> Tensor:
    """The scores `(n, classes)` of all documents, run in batches of like length, without gradients."""
    found: list[Tensor] = []
    order: list[int] = []
    with torch.no_grad():
        for rows in batches_by_length(documents.lengths):
            found.append(model(*documents.batch(rows)))
            order += rows
    return torch.cat(found)[torch.tensor(order).argsort()]


def roc_auc(scores: Tensor, labels: Tensor) -> float:
    """The area under the ROC curve; of more than two classes the mean over each that is there against the rest."""
    from sklearn.metrics import roc_auc_score  # type: ignore[import-untyped]

    shares, true = scores.double().softmax(1).cpu().numpy(), labels.cpu().numpy()
    classes = [1] if shares.shape[1] == 2 else labels.unique().tolist()
    return sum(float(roc_auc_score(true == c, shares[:, c])) for c in classes) / len(classes)


def best_epoch(history: list[Epoch]) -> int:
    """The number, from 0, of the first epoch with the best validation ROC-AUC."""
    return max(range(len(history)), key=lambda i: history[i].validation_auc)


def kept_epoch(history: list[Epoch], settings: Training) -> int:
    """The number, from 0, of the epoch whose weights are kept."""
    return best_epoch(history) if settings.keep == "best" else len(history) - 1


def _optimiser(model: nn.Module, settings: Training) -> torch.optim.Optimizer:
    free = ("embedding.", "key.", "query.")
    decayed = [p for name, p in model.named_parameters() if not name.startswith(free)]
    others = [p for name, p in model.named_parameters() if name.startswith(free)]
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": settings.decay}, {"params": others}]
    return torch.optim.Adam(groups, lr=settings.rate, amsgrad=True, fused=True)


def _epoch(
    model: nn.Module, optimiser: torch.optim.Optimizer, documents: Documents, settings: Training, number: int
) -> float:
    """The mean training loss; what is random in an epoch depends on the seed and its number only."""
    seed = settings.seed * 1000 + number
    order = shuffled_batches(documents.lengths, settings.batch, torch.Generator().manual_seed(seed))
    total = torch.zeros((), device=documents.labels.device)
    with torch.random.fork_rng():  # dropout
        torch.manual_seed(seed)
        for rows in progress(order, len(documents), f"epoch {number + 1}"):
            loss = F.cross_entropy(model(*documents.batch(rows)), documents.labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.detach() * len(rows)
    mean = float(total) / len(documents)
    if not mean < float("inf"):
        raise InputError(f"the training loss became {mean}; try a lower rate than {settings.rate}")
    return mean


@dataclass
class _Kept:
    """What the checkpoint says beside its tensors."""

    identity: dict[str, Any]
    history: list[Epoch]


class _State:
    """The state of a training, in memory and in its checkpoint."""

    def __init__(
        self,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        settings: Training,
        documents: Documents,
        validation: Documents,
        path: Path | None,
    ) -> None:
        self.model, self.optimiser, self.settings, self.path = model, optimiser, settings, path
        self.history: list[Epoch] = []
        self.best: dict[str, Tensor] = {}
        self.identity = {
            "settings": repr(settings),
            "documents": documents.fingerprint,
            "weights": {name: list(tensor.shape) for name, tensor in model.state_dict().items()},
        }
        # A checkpoint of before says nothing of these, and goes on.
        self.since = {"code": code_fingerprint(model), "validation": validation.fingerprint}

    def finished(self) -> bool:
        epochs, patience = len(self.history), self.settings.patience
        late = patience is not None and epochs and epochs - 1 - best_epoch(self.history) >= patience
        return epochs >= self.settings.epochs or bool(late)

    def add(self, epoch: Epoch) -> None:
        self.history.append(epoch)
        if best_epoch(self.history) == len(self.history) - 1:
            self.best = {name: t.detach().clone() for name, t in self.model.state_dict().items()}
        if self.path is not None:
            tensors = {f"model/{name}": t for name, t in self.model.state_dict().items()}
            tensors |= {f"best/{name}": t for name, t in self.best.items()}
            for index, entry in self.optimiser.state_dict()["state"].items():
                tensors |= {f"optimiser/{index}/{name}": t for name, t in entry.items()}
            numbers = {
                "identity": self.identity | self.since,
                "history": [asdict(epoch) for epoch in self.history],
            }
            seal(self.path, numbers, tensors)

    def resume(self) -> None:
        if self.path is None or not self.path.exists():
            return
        try:
            numbers, tensors = unseal(self.path, _Kept)
        except InputError as error:
            warnings.warn(f"{error}; training starts anew", stacklevel=3)
            return
        if self.since | numbers["identity"] != self.identity | self.since:
            raise InputError(
                f"checkpoint {self.path} is of another training; accepted: one of {self.settings!r}, "
                "or a file that does not exist"
            )
        self.history = [Epoch(**epoch) for epoch in numbers["history"]]
        self.model.load_state_dict(_strip_prefix("model/", tensors))
        self.best = _strip_prefix("best/", tensors)
        packed = self.optimiser.state_dict()
        state: dict[int, dict[str, Any]] = {}
        for name, tensor in _strip_prefix("optimiser/", tensors).items():
            index, entry = name.split("/")
            state.setdefault(int(index), {})[entry] = tensor
        self.optimiser.load_state_dict({**packed, "state": state})


def _strip_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
