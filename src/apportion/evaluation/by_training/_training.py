"""Copies of a model that are trained anew or trained on, and the results of finished trainings."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from apportion.core.calling import behind, call_model
from apportion.core.fingerprints import fingerprint, model_fingerprint
from apportion.core.inputs import Inputs, rows_of
from apportion.core.target import scores_of, unsquashed
from apportion.core.trees import tensors_in
from apportion.errors import MOST_SEED, InputError, check, check_whole
from apportion.results.scores import Scores


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuse what are no seeds."""
    check(
        "seeds",
        seeds,
        lambda v: isinstance(v, tuple | list) and len(v) > 0,
        "at least one seed, such as (0, 1)",
    )
    for place, seed in enumerate(seeds):
        check_whole(0, MOST_SEED, **{f"seeds[{place}]": seed})


def reinitialise(model: Any, seed: int) -> nn.Module:
    """A copy of a model with its weights drawn anew by the `reset_parameters` of its modules."""
    made = copy_model(model)
    modules = [m for m in made.modules() if next(m.parameters(recurse=False), None) is not None]
    fixed = [type(m).__name__ for m in modules if _reset_of(m) is None]
    if fixed:
        raise InputError(
            f"the model's {', '.join(dict.fromkeys(fixed))} cannot be drawn anew; accepted: modules with "
            "reset_parameters()"
        )
    with _fork_random(made, seed):
        for module in made.modules():
            if (reset := _reset_of(module)) is not None:
                reset()
    return made


def _reset_of(module: nn.Module) -> Callable[[], None] | None:
    """What draws a module's weights anew; torch's own attention has it under a private name."""
    return getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)


def train(
    model: nn.Module,
    inputs: Inputs,
    labels: Tensor,
    rows: Tensor,
    epochs: int,
    batch: int,
    rate: float,
    seed: int,
    probable: bool = False,
    changed: Callable[[Tensor, int], Inputs] | None = None,
) -> None:
    """Train a model in place on some rows with Adam and the cross-entropy; `probable` says that its scores are
    probabilities, and `changed(rows, step)` may give other inputs for the rows."""
    weights = [p for p in model.parameters() if p.requires_grad]
    if not weights:
        raise InputError("the model has no weights that could be trained")
    optimiser = torch.optim.Adam(weights, lr=rate)
    random = np.random.default_rng(seed)
    step = 0
    with torch.inference_mode(False), torch.enable_grad(), _fork_random(model, seed):
        model.train()
        for _ in range(epochs):
            for part in _batches(rows[torch.from_numpy(random.permutation(len(rows)))], batch):
                given = rows_of(inputs, part) if changed is None else changed(part, step)
                scores = _logits(model, given, len(part), probable)
                answers = labels[part.to(labels.device)].to(scores.device)
                if scores.shape[1] == 1:
                    loss = F.binary_cross_entropy_with_logits(scores[:, 0], answers.to(scores))
                else:
                    loss = F.cross_entropy(scores, answers)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                step += 1
        model.eval()


def _batches(rows: Tensor, batch: int) -> list[Tensor]:
    """The rows in batches; one row left over goes with the last, since batch norm cannot be trained on one."""
    parts = list(rows.split(batch))
    if len(parts) > 1 and len(parts[-1]) == 1 < batch:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def _logits(model: nn.Module, inputs: Inputs, batch: int, probable: bool) -> Tensor:
    scores = scores_of(call_model(model, inputs), batch)
    return unsquashed(scores) if probable else scores


def predict_classes(model: nn.Module, inputs: Inputs, batch: int, probable: bool = False) -> Tensor:
    """The class of each sample."""
    found = []
    with torch.no_grad():
        for part in torch.arange(next(tensors_in(inputs)).shape[0]).split(batch):
            scores = _logits(model, rows_of(inputs, part), len(part), probable)
            found.append(scores.argmax(1) if scores.shape[1] > 1 else (scores[:, 0] > 0).long())
    return torch.cat(found)


@contextmanager
def _fork_random(model: nn.Module, seed: int) -> Iterator[None]:
    """Random numbers from a seed, and the global random state put back."""
    devices = {p.device for p in model.parameters() if p.is_cuda}
    with torch.random.fork_rng(devices=[d.index or 0 for d in devices]):
        torch.manual_seed(seed)
        yield


def copy_model(model: Any) -> nn.Module:
    """A copy in eval mode, all of whose weights can be trained."""
    model = behind(model)
    if not isinstance(model, nn.Module):
        raise InputError(
            f"the model is {type(model).__name__}; accepted: a torch module, which can be trained"
        )
    try:
        with torch.no_grad():  # else the copy of a scripted child depends on the child
            copied = copy.deepcopy(model)
        return copied.train().eval().requires_grad_()
    except NotImplementedError:
        raise InputError(
            "the model is an exported program, which cannot be trained; accepted: the module that it was made of"
        ) from None


# ---- finished trainings ----


def training_digest(settings: str, model: nn.Module, inputs: Inputs, labels: Tensor, rows: Tensor) -> str:
    """A name for a training: what it starts from, code included, on what, and how."""
    return fingerprint(settings, model_fingerprint(model), inputs, labels, rows)[:32]


def load_finished(path: Path) -> Tensor | None:
    """The result of a training that was finished before; a file that is damaged is named, and done again."""
    if not path.is_file():
        return None
    try:
        return Scores.load(path).values
    except InputError as error:
        warnings.warn(f"{error}; this model is trained again", stacklevel=2)
        return None
