"""What of a language model's answer is explained: the scores of its tokens as the classes of a model.

A model of `(rows, tokens)` ids becomes one of `(rows, goals)` scores, so that whatever explains the class of a
classifier explains a token of an answer, a span of it, or one answer rather than another.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from apportion.core.calling import module_named
from apportion.core.private_torch import is_watched
from apportion.errors import InputError, check

Kind = Literal["log-probability", "logit", "probability", "logit of probability"]


@dataclass(frozen=True)
class Answer:
    """Explain an answer of a language model or a part of it, as a target.

    Attributes:
        part (int, tuple of int or str, default None): A token of the answer by its number, a span of tokens `(first,
            after the last)`, or words of the answer; None: all of it.
        score (str, default "log-probability"): What is apportioned: "log-probability" or "logit", of several tokens
            their sum, "probability", or "logit of probability", the log-odds of the whole part.
        rather_than (str, default None): What might stand there instead: its score is subtracted; None: nothing is.
        each (bool, default False): Explain each token of the part by itself.

    >>> Answer("Paris", rather_than=" London")
    Answer(part='Paris', score='log-probability', rather_than=' London', each=False)
    """

    part: int | tuple[int, int] | str | None = None
    score: Kind = "log-probability"
    rather_than: str | None = None
    each: bool = False

    def __post_init__(self) -> None:
        check("score", self.score, get_args(Kind).__contains__, ", ".join(map(repr, get_args(Kind))))
        accepted = "a token's number, (first, after the last), words of the answer, or None"
        check("part", self.part, _is_part, accepted)
        other = self.rather_than
        check("rather_than", other, lambda v: v is None or isinstance(v, str), "a text, or None")
        if other == "":
            raise InputError("rather_than is empty; accepted: what might stand there instead, or None")

    def span(self, pieces: Sequence[str]) -> tuple[int, int]:
        """The tokens `first` to before `last` of an answer with these pieces."""
        many = len(pieces)
        if self.part is None:
            return 0, many
        if isinstance(self.part, str):
            return _span_of_words(self.part, pieces)
        first, last = (self.part, self.part + 1) if isinstance(self.part, int) else self.part
        if isinstance(self.part, int) and -many <= first < 0:
            first, last = first + many, last + many
        if not 0 <= first < last <= many:
            raise InputError(f"part is {self.part}, but the answer has the tokens 0 to {many - 1}")
        return first, last


def _is_part(part: Any) -> bool:
    if isinstance(part, tuple):
        return len(part) == 2 and all(isinstance(i, int) and not isinstance(i, bool) for i in part)
    return part is None or isinstance(part, str) or (isinstance(part, int) and not isinstance(part, bool))


def _span_of_words(words: str, pieces: Sequence[str]) -> tuple[int, int]:
    """The tokens that hold these words, where they stand first."""
    at = "".join(pieces).find(words)
    if at < 0 or not words.strip():
        raise InputError(f"part is {words!r:.60}, which is not in the answer {''.join(pieces)!r:.80}")
    at += len(words) - len(words.lstrip())
    stop, end, inside = at + len(words.strip()), 0, []
    for number, piece in enumerate(pieces):
        begin, end = end, end + len(piece)
        if begin < stop and end > at:
            inside.append(number)
    return inside[0], inside[-1] + 1


@dataclass(frozen=True)
class Goal:
    """One scalar that is explained: the tokens `first` to before `last` of the answer, rather than `instead`."""

    first: int
    last: int
    score: Kind = "log-probability"
    instead: tuple[int, ...] = ()


# As `Kind` in `engines/masking/ends_in_softmax.py`. A logit says nothing without those of all other tokens.
_SCORES_ARE: dict[Kind, str] = {
    "log-probability": "log-probabilities",
    "logit": "numbers",
    "probability": "labels",
    "logit of probability": "logits of labels",
}

LEAST_SHARED = 8
"""Tokens that all rows of a run must begin with for them to be run once."""

_LEAST_RUN = 24  # tokens that a CPU runs in about the time of one
_TOKENS_AT_ONCE = 256  # on a CPU; with fewer, matrices are multiplied less well


class AnswerScores(nn.Module):
    """A causal language model whose classes are `goals`.

    It takes the ids of prompt and answer without the answer's last token, (rows, tokens), and after them those of
    what a goal has instead, without its last. `prompt` are the ids of the prompt itself, or how many there are; rows of
    which tokens of the prompt were taken out are shorter.
    """

    def __init__(
        self, model: nn.Module, prompt: Sequence[int] | int, answer: Sequence[int], goals: Sequence[Goal]
    ) -> None:
        super().__init__()
        self.beginning = () if isinstance(prompt, int) else tuple(prompt)
        prompt = prompt if isinstance(prompt, int) else len(prompt)
        self.language_model = model
        self.prompt, self.answer, self.goals = prompt, tuple(answer), tuple(goals)
        instead = next((goal.instead for goal in self.goals if goal.instead), ())
        self.tail = (*self.answer[:-1], *instead[:-1])
        self.scores_are = "numbers" if instead else _SCORES_ARE[self.goals[0].score]
        asked = inspect.signature(model.forward).parameters
        self._keeps = "logits_to_keep" in asked
        self._caches = bool(self.beginning) and "past_key_values" in asked and hasattr(model, "generate")
        self._plain = {"use_cache": False} if "use_cache" in asked or "kwargs" in asked else {}
        self._run_last: tuple[Tensor, Any] | None = None  # the row that ran last, with its keys and values
        self.train(model.training)

    @property
    def shares_beginnings(self) -> bool:
        """Whether rows that begin like the one that ran before them are run from where they differ."""
        return self._caches

    @property
    def rows_at_once(self) -> int | None:
        """How many rows a CPU runs at once; None: as many as of other models. What is large, the scores of all words,
        takes little of the time."""
        on_cpu = next(self.language_model.parameters()).device.type == "cpu"
        return max(2, _TOKENS_AT_ONCE // (self.prompt + len(self.tail))) if on_cpu else None

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.columns(input_ids, self.next_tokens)

    def get_submodule(self, target: str) -> nn.Module:
        """A module by its name here, or by that in the language model itself."""
        try:
            return super().get_submodule(target)
        except AttributeError:
            return module_named(self.language_model, target)

    def for_goals(self, goals: Sequence[Goal]) -> AnswerScores:
        """The same model with these classes."""
        return AnswerScores(self.language_model, self.beginning or self.prompt, self.answer, goals)

    def columns(self, ids: Tensor, next_tokens: Callable[[Tensor, int, int], Tensor]) -> Tensor:
        """The (rows, goals) scores, by what gives the logits of the tokens after a place."""
        prompt = self._prompt_of(ids)
        whole = prompt + len(self.answer) - 1
        first = min(goal.first for goal in self.goals)
        last = max(goal.last for goal in self.goals)
        own = next_tokens(ids[:, :whole], prompt - 1 + first, last - first)
        found = []
        for goal in self.goals:
            here = own[:, goal.first - first : goal.last - first]
            score = scored(here, self.answer[goal.first : goal.last], goal.score)
            if len(goal.instead) == 1:
                score = score - scored(here[:, :1], goal.instead, goal.score)
            elif goal.instead:
                begin = prompt + goal.first
                other = torch.cat([ids[:, :begin], ids[:, whole : whole + len(goal.instead) - 1]], 1)
                there = next_tokens(other, begin - 1, len(goal.instead))
                score = score - scored(there, goal.instead, goal.score)
            found.append(score)
        return torch.stack(found, 1)

    def _prompt_of(self, ids: Tensor) -> int:
        """How many tokens of the prompt are there, before the answer's."""
        left = ids.shape[1] - len(self.tail)
        if left < 1 or ids[:, left:].tolist() != [list(self.tail)] * len(ids):
            raise InputError(
                "the answer does not stand after a prompt of at least one token here; accepted: replacements that "
                "leave one, and the answer at the end (Delete without padding)"
            )
        return left

    def next_tokens(self, ids: Tensor, first: int, many: int) -> Tensor:
        """The logits of the `many` tokens after the places `first` and on, (rows, many, vocabulary)."""
        ids = ids[:, : first + many]
        # Where functions are watched, other embeddings may stand in the place of the same ids.
        whole = torch.is_grad_enabled() or is_watched() or first < LEAST_SHARED or not self._caches
        shared = 0 if whole else min(self._begin_alike(ids), first)
        alone = not whole and ids.device.type == "cpu" and self._faster_alone(ids, first, shared)
        if (shared < LEAST_SHARED and not alone) or self._begun is None:
            return self._last(many, input_ids=ids)
        if alone:
            return torch.cat([self._from_the_last(row, first, many) for row in ids.split(1)])
        return self._continued(ids, shared, self._begun, many)[0]

    def _faster_alone(self, ids: Tensor, first: int, shared: int) -> bool:
        """Whether rows that go on from the row before each take fewer tokens than all that go on from the prompt: a CPU
        runs them one after the other in about the time of all at once."""
        last = ids.new_tensor([self.beginning]) if self._run_last is None else self._run_last[0]
        pairs = zip(ids.split(1), (last, *ids.split(1)), strict=False)
        alone = sum(max(ids.shape[1] - _alike(row, before, first), _LEAST_RUN) for row, before in pairs)
        return alone < len(ids) * (ids.shape[1] - shared)

    def _from_the_last(self, row: Tensor, first: int, many: int) -> Tensor:
        """What `next_tokens` gives for one row, (1, many, vocabulary), from where it differs from the row before, or
        from the prompt."""
        known = [(row.new_tensor([self.beginning]), self._begun)]
        known += [] if self._run_last is None else [self._run_last]
        shared, cache = max(
            ((_alike(row, ids, first), kept) for ids, kept in known), key=lambda pair: pair[0]
        )
        found, kept = self._continued(row, shared, cache, many)
        self._run_last = row, kept
        return found

    def _continued(self, ids: Tensor, shared: int, cache: Any, many: int) -> tuple[Tensor, Any]:
        """The logits of the last tokens of rows whose first ones have their keys and values in a cache of one row; and
        the cache of the whole."""
        kept = type(cache)()
        for number, layer in enumerate(cache.layers):
            both = (t[:, :, :shared].expand(len(ids), -1, -1, -1) for t in (layer.keys, layer.values))
            kept.update(*both, number)
        return self._last(many, input_ids=ids[:, shared:], past_key_values=kept, use_cache=True), kept

    def _begin_alike(self, ids: Tensor) -> int:
        """How many tokens of the prompt all rows begin with."""
        prompt = torch.tensor(self.beginning[: ids.shape[1]], dtype=ids.dtype, device=ids.device)
        same = (ids[:, : len(prompt)] == prompt).all(0)
        return int(same.long().cumprod(0).sum())

    @cached_property
    def _begun(self) -> Any:
        """The keys and values of the prompt, which causal attention gives to whatever begins like it; None where the
        model keeps anything else between calls."""
        language_model: Any = self.language_model
        ids = torch.tensor([self.beginning], device=next(language_model.parameters()).device)
        begun = language_model(input_ids=ids, use_cache=True).past_key_values
        layers = getattr(begun, "layers", ())
        plain = bool(layers) and all(type(layer).__name__ == "DynamicLayer" for layer in layers)
        return begun if plain else None

    def _last(self, many: int, **given: Any) -> Tensor:
        if self._keeps:
            given["logits_to_keep"] = many
        language_model: Any = self.language_model
        logits: Tensor = language_model(**{**self._plain, **given}).logits
        return logits[:, -many:]


class DecoderScores(AnswerScores):
    """The same of an encoder-decoder model, which takes the ids of the prompt; what its decoder has written is held.

    `start` is the token that the decoder begins with.
    """

    def __init__(self, model: nn.Module, start: int, answer: Sequence[int], goals: Sequence[Goal]) -> None:
        super().__init__(model, 1, answer, goals)
        instead = next((goal.instead for goal in goals if goal.instead), ())
        self.start = start
        written = torch.tensor([[start, *answer[:-1], *instead[:-1]]])
        self.written: Tensor
        self.register_buffer("written", written.to(next(model.parameters()).device), persistent=False)

    @property
    def rows_at_once(self) -> None:
        """The encoder's tokens are the most, and how many there are is not known here."""

    def for_goals(self, goals: Sequence[Goal]) -> DecoderScores:
        return DecoderScores(self.language_model, self.start, self.answer, goals)

    def forward(self, input_ids: Tensor) -> Tensor:
        def next_tokens(ids: Tensor, first: int, many: int) -> Tensor:
            return self._last(many, input_ids=input_ids, decoder_input_ids=ids[:, : first + many])

        return self.columns(self.written.expand(len(input_ids), -1), next_tokens)


def _alike(row: Tensor, other: Tensor, most: int) -> int:
    """How many tokens, no more than `most`, two rows begin with alike, (1, tokens) each."""
    several = min(row.shape[1], other.shape[1], most)
    return int((row[0, :several] == other[0, :several]).long().cumprod(0).sum())


def scored(logits: Tensor, tokens: Sequence[int], kind: Kind) -> Tensor:
    """The (rows,) score of these tokens, of logits (rows, tokens, vocabulary).

    >>> scored(torch.zeros(1, 2, 4), (3, 1), "probability")
    tensor([0.0625])
    """
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    found = logits if kind == "logit" else logits.log_softmax(-1)
    wanted = torch.tensor(tokens, device=logits.device).view(1, -1, 1).expand(len(logits), -1, 1)
    total = found.gather(2, wanted).squeeze(2).sum(1)
    if kind == "probability":
        return total.exp()
    if kind == "logit of probability":
        least = torch.finfo(total.dtype).eps
        return total - (-torch.expm1(total.clamp(max=-least))).log()
    return total
