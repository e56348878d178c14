"""What tests read off a model's outputs: the explained score, its probability, the predicted label. Nowhere else."""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from torch import Tensor

from apportion.core.calling import is_classifier
from apportion.core.target import classes_of, pick, squashed
from apportion.engines.masking.ends_in_softmax import Kind
from apportion.engines.masking.engine import Masking
from apportion.errors import InputError

Reading = Literal["probability", "score", "sigmoid"]

ACCEPTED = "'probability', 'score', 'sigmoid' (each score is the logit of a label of its own)"

EACH_ALONE = ("labels", "logits of labels", "log-probabilities")
"""What scores are whose labels are there or not, each by itself."""

_SAID: dict[Kind, str] = {
    "classes": "the scores as they are: probabilities of classes",
    "labels": "the scores as they are: probabilities of labels, each by itself",
    "logits": "the softmax of the scores",
    "logit": "the sigmoid of the one score, the logit of class 1",
    "logits of labels": "the sigmoid of the score of each label",
    "log-probabilities": "the exponential of the score of each label: its probability",
    "numbers": "the scores as they are: numbers of a regression",
}


def say_reading(of: Reading, masking: Masking) -> str:
    """How a test reads the outputs, in words."""
    if of == "score" or not isinstance(masking.resolved, Tensor):
        return "the score"
    kind = masking.kind
    return _SAID["logits of labels" if of == "sigmoid" and kind.startswith("logit") else kind]


def guessed(of: Reading, masking: Masking) -> str:
    """What should be said of a reading that nothing but the shape of the output speaks for; "" where something does.

    Several scores that are no probabilities are those of a classifier as PyTorch's losses take them; one may as well be
    the number that a regression predicts.
    """
    asked = of == "probability" and isinstance(masking.resolved, Tensor)
    if not asked or masking.kind != "logit" or is_classifier(masking.model):
        return ""
    return (
        "the one score of the model is read as the logit of class 1: its probability by a sigmoid, the class by its "
        "sign; for a regression say of='score'"
    )


def read_answers(masking: Masking, scores: Tensor, rows: Tensor) -> Tensor:
    """Score, probability, the sigmoid of the score (or itself, where it is a probability) and label, stacked as
    (4, calls), of the (calls, classes) scores of these samples.

    The label is the predicted class; of labels that are there or not whether the explained one is (1) or not (0). A
    target that is a callable has no probability: NaN.
    """
    target, kind = masking.resolved, masking.kind
    wide = scores if scores.dtype == torch.float64 else scores.float()
    ready = kind in ("classes", "labels", "numbers")
    label = wide.argmax(1) if wide.shape[1] > 1 else (wide[:, 0] > (0.5 if ready else 0)).long()  # (calls,)
    if not isinstance(target, Tensor):
        score = pick(target, scores).to(wide)
        chance = score if kind == "numbers" else torch.full_like(score, torch.nan)
        return torch.stack([score, chance, chance, label.to(wide)])
    chosen = classes_of(target)[rows.to(target.device)].to(wide.device)[:, None]  # (calls, 1)
    if kind == "log-probabilities":
        chances = wide.exp()
    else:
        chances = wide if ready else squashed(wide, each=kind == "logits of labels")
    score, probability = (each.gather(1, chosen)[:, 0] for each in (wide, chances))
    alone = probability if ready or kind == "log-probabilities" else score.sigmoid()
    if kind in EACH_ALONE:
        label = (alone > 0.5).long()
    return torch.stack([score, probability, alone, label.to(wide)])


def pick_reading(of: Reading, score: Tensor, probability: Tensor, alone: Tensor) -> Tensor:
    """The numbers that a test looks at."""
    if of == "score":
        return score
    chance = probability if of == "probability" else alone
    if bool(chance.isnan().any()):
        raise InputError("the target is a callable, which has no probability; use of='score'")
    if bool((((chance == 0) | (chance == 1)) & (chance != score)).all()):
        warnings.warn(
            "the probability is 0 or 1 whatever is hidden, since the scores, taken for logits, are as far from zero as "
            f"{float(score.abs().max()):.4g}; for a regression, or to see more, use of='score'",
            stacklevel=2,
        )
    return chance
