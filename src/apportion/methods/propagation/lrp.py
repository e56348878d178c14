"""Layer-wise relevance propagation as a method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from apportion.core.calling import Model, with_gradients
from apportion.core.inputs import FEW, Given
from apportion.core.settings import Told, checked, later
from apportion.core.target import Target
from apportion.engines.substitution import Gradients, Score
from apportion.engines.substitution.unseen import check_visible, describe_unseen
from apportion.methods.propagation._biases import Places
from apportion.methods.propagation._relevance_pass import Propagation
from apportion.methods.propagation._rows import OpenRow
from apportion.methods.propagation.composites import Bias, Composite, find_composite
from apportion.methods.propagation.operations.table import COMPOSED, TABLE, other
from apportion.methods.propagation.rules import Flat
from apportion.results.explanation import Explanation
from apportion.results.ledger import Ledger, Row

OPERATIONS = (TABLE, COMPOSED, other)


@dataclass(frozen=True)
@checked
class LRP(Told):
    """Propagate relevance layer by layer (Bach et al. 2015) through any PyTorch model as it is.

    `total` is the explained score; what biases, softmax, the stabiliser and operations without a rule absorb is the
    remainder. With `bias="place"` what biases took is shown where they look, and is no longer in the remainder. An
    operation without a rule passes relevance by its gradient and is named in the warnings with the amount. The notes
    say which composite was used. Cost: one forward and one backward pass (the rules other than LRP-0 and LRP-ε evaluate
    their layer once or twice more), two of each where biases are placed.

    Attributes:
        composite (str or Composite, default None): Which rule a layer gets; a name is one of `COMPOSITES`; None: by
            what the model is made of, or the modules behind a function, as the notes say.
        ledger (bool, default False): Enter each operation's part of the remainder in `explanation.ledger`.
        strict (bool, default False): Raise InputError for an operation without a rule.
        at (str or list of str, default None): Modules whose outputs' relevance is wanted; None: the inputs'.
        bias (str, default None): What becomes of the relevance that biases take: "absorb", "spread", "ignore" or
            "place", as [Composite][apportion.Composite] says; None: what the composite has.

    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    >>> e = LRP("epsilon", ledger=True)(model, torch.ones(1, 4), target=0)
    >>> abs(float(e.remainder) - sum(e.ledger.absorbed.values())) < 1e-5
    True
    """

    composite: str | Composite | None = None
    ledger: bool = False
    strict: bool = False
    at: str | Sequence[str] | None = None
    bias: Bias | None = later(None)
    once: ClassVar[int] = FEW

    def __post_init__(self) -> None:
        self._find(None)

    def _find(self, model: Any) -> tuple[dict[str, str], Composite]:
        notes, composite = find_composite(self.composite, model)
        return (notes, composite) if self.bias is None else (notes, replace(composite, bias=self.bias))

    def __call__(self, model: Model, inputs: Given, target: Target = None) -> Explanation[Given, Tensor]:
        subject = Gradients(model, inputs, target, self.at, once=self.once)
        notes, state, score = self.forward(subject)
        places, composite = state.places, state.composite
        parts, nowhere, carried = [], 0.0, None
        # Rows that ran once, one after the other: each has its own to place.
        for turn in range(len(score.turns)):
            if places is not None:
                places.forget()
            part = relevance(score, turn)
            if places is not None:
                if carried is None:
                    carried = _carry_down(subject, composite, places)
                nowhere += places.total if self.ledger else 0.0
                for value, more in zip(part, relevance(carried, turn), strict=True):
                    value += more
                    nowhere -= float(more.double().sum())
            parts.append(part)
        values = [torch.cat(each) if len(each) > 1 else each[0] for each in zip(*parts, strict=True)]
        return subject.explanation(
            self,
            score,
            values,
            score.value,
            warnings=warn_of_gaps(state),
            ledger=_fill_ledger(state, score, values, nowhere) if self.ledger else None,
            notes=notes,
        )

    def forward(self, subject: Gradients) -> tuple[dict[str, str], Propagation, Score]:
        """The forward pass, the state that relevance is propagated with, and the notes of the composite."""
        check_visible(subject.model)
        notes, composite = self._find(subject.model)
        layers = None
        if composite.last is not None:
            counting = Propagation(composite)
            subject.forward(counting.substitution(subject.model, *OPERATIONS))
            layers = counting.seen_layers
        places = Places(of_softmax=composite.softmax != "difference") if composite.bias == "place" else None
        state = Propagation(composite, self.strict, self.ledger, layers, places)
        return notes, state, subject.forward(state.substitution(subject.model, *OPERATIONS))


def relevance(score: Score, turn: int) -> list[Tensor]:
    """Input times gradient, and what arrived at the probes, of the rows of a turn."""
    gradients, direct = score.gradients_and_probes(turn)
    return [torch.addcmul(d, x.detach(), g) for x, g, d in zip(score.ran, gradients, direct, strict=True)]


@with_gradients()
def _carry_down(subject: Gradients, composite: Composite, places: Places) -> Score:
    """What constants took, placed at the inputs: a second pass in which nothing comes from the score."""
    first = None if composite.first is None else Flat()
    shares = Composite(first=first, pooling=composite.pooling)
    carrying = places.carrying()
    score = subject.forward(Propagation(shares, places=carrying).substitution(subject.model, *OPERATIONS))
    carrying.check_all_met()
    nothing = sum((tensor.sum() * 0 for tensor in carrying.reached), score.value * 0)
    return replace(score, value=nothing)


def warn_of_gaps(state: Propagation) -> tuple[str, ...]:
    found = []
    for row in state.rows.values():
        if not row.ruled:
            closed = row.close()
            found.append(
                f"no rule for {row.operation!r} in {row.module or 'the model'!r}: its gradient was used; relevance "
                f"{closed.arrived:.4g} arrived and {closed.passed_on:.4g} was passed on"
            )
    for row in state.hidden.values():
        found.append(
            f"{describe_unseen(row.operation, row.module)}: its gradient was used; relevance "
            f"{row.sum_of('arrived'):.4g} arrived there"
        )
    return tuple(found)


def _fill_ledger(state: Propagation, score: Score, values: Sequence[Tensor], nowhere: float) -> Ledger:
    rows = [row.close() for row in state.rows.values()]
    total = float(score.value.detach().double().sum())
    apportioned = sum(float(v.double().sum()) for v in values)
    if state.places is not None:
        rows.append(
            Row("", "what was placed nowhere", "", nowhere, nowhere, nowhere, 0.0, 0.0, placed=-nowhere)
        )
    if state.hidden:
        # What unseen functions absorbed cannot be measured there; it is what no other row accounts for.
        rest = total - apportioned - sum(row.lost for row in rows)
        hidden = next(iter(state.hidden.values()))
        arrived = sum(row.sum_of("arrived") for row in state.hidden.values())
        whole = OpenRow(hidden.module, hidden.operation, hidden.rule, ruled=False)
        whole.add("arrived", torch.tensor(arrived, dtype=torch.float64))
        whole.add("passed_on", torch.tensor(arrived - rest, dtype=torch.float64))
        rows.append(whole.close())
    return Ledger(tuple(row for row in rows if row.arrived or row.passed_on), total, apportioned)
