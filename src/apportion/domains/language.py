"""A language model, and a prompt with the answer that is explained."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from apportion.core.classifier import Classifier
from apportion.core.features import TextFeatures
from apportion.domains.answers import Answer, AnswerScores, DecoderScores, Goal
from apportion.domains.prompts import Prompt, Unit, checked_passages, read_prompt, with_passages
from apportion.domains.raw_text import Messages
from apportion.domains.text import check_whole_signs
from apportion.errors import InputError, check, check_seed, check_whole, first_line

# Settings of a model's own `generate` that mean nothing where the likeliest token is taken.
_ONLY_DRAWN = frozenset({"do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p"})


@dataclass(frozen=True, repr=False)
class LanguageModel:
    """A language model with its tokenizer.

    Attributes:
        model (module): A causal or an encoder-decoder model of `transformers`, or one that is called like them.
        tokenizer (tokenizer of `transformers`): Its tokenizer.
        name (str): What a person calls it.
    """

    model: nn.Module
    tokenizer: Any
    name: str = "language model"
    domain: ClassVar[Literal["language"]] = "language"

    def __post_init__(self) -> None:
        check("model", self.model, lambda v: isinstance(v, nn.Module), "a module")
        check("tokenizer", self.tokenizer, _is_tokenizer, "a tokenizer of transformers")

    def __repr__(self) -> str:
        return f"LanguageModel {self.name!r}: {type(self.model).__name__}"

    @property
    def decodes(self) -> bool:
        """Whether an encoder reads the prompt, and a decoder writes the answer."""
        return bool(getattr(getattr(self.model, "config", None), "is_encoder_decoder", False))

    @property
    def mask(self) -> int:
        """The token that stands for a hidden one."""
        tokenizer = self.tokenizer
        known = (tokenizer.mask_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id)
        return next((i for i in (*known, tokenizer.eos_token_id) if i is not None), 0)

    @property
    def content(self) -> tuple[Any, ...]:
        """What a fingerprint is taken of: the model, and what its tokenizer makes of a text."""
        tokenizer = self.tokenizer
        words = sorted(tokenizer.get_vocab().items())
        return self.model, type(tokenizer).__name__, words, getattr(tokenizer, "chat_template", None)

    def generate(
        self,
        prompt: str | Messages,
        max_new_tokens: int = 20,
        *,
        stop: str | Sequence[str] = (),
        seed: int | None = None,
        **how: Any,
    ) -> str:
        """Write an answer to a prompt: at each step the likeliest token, or with a `seed` one that is drawn.

        Args:
            prompt (str or messages): A text, or messages such as `{"role": "user", "content": "Hello"}`.
            max_new_tokens (int, default 20): Tokens of the answer at most; fewer where the context window ends.
            stop (str or list of str, default ()): Texts before which the answer ends.
            seed (int, default None): Draw each token, with this seed; None: take the likeliest.
            how: What else the model's own `generate` takes, such as `temperature` or `num_beams`.
        """
        return self.decoded(self.generated(prompt, max_new_tokens, stop=stop, seed=seed, **how))

    def generated(
        self,
        prompt: str | Messages,
        max_new_tokens: int = 20,
        *,
        stop: str | Sequence[str] = (),
        seed: int | None = None,
        **how: Any,
    ) -> tuple[int, ...]:
        """The ids of that answer, without the token that ends it."""
        check_whole(1, max_new_tokens=max_new_tokens)
        stops = (stop,) if isinstance(stop, str) else stop
        check("stop", stops, _are_texts, "a text, or a list of texts")
        read = self._read(prompt)
        room = _window(self) - (0 if self.decodes else len(read.ids))
        if room < 1:
            _check_length(self, len(read.ids) + 1)
        ids = torch.tensor([read.ids], device=_device(self.model))
        if not hasattr(self.model, "generate"):
            raise InputError(
                f"{type(self.model).__name__} has no generate; accepted: answer=, the text of one"
            )
        drawn = sorted(_ONLY_DRAWN & how.keys()) if seed is None and how.get("do_sample") is not False else ()
        if drawn:
            raise InputError(
                f"{drawn[0]} is of tokens that are drawn; accepted with it: seed=, a whole number, which draws them"
            )
        settings = {"do_sample": seed is not None, "pad_token_id": self.mask, **how}
        devices = [ids.device] if ids.is_cuda else []
        with torch.no_grad(), torch.random.fork_rng(devices, enabled=seed is not None):
            if seed is not None:
                check_seed(seed)
                torch.manual_seed(seed)
            writer: Any = self.model
            try:
                made = writer.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=min(max_new_tokens, room),
                    **settings,
                )
            # Of settings that it does not know, or that do not fit.
            except (ValueError, TypeError, AttributeError) as error:
                raise InputError(
                    f"generate of {self.name} does not take these settings: {first_line(error):.200}"
                ) from error
            except Exception as error:
                error.add_note(
                    f"the model was called with {len(read.ids)} tokens, to write an answer to them"
                )
                raise
        written = getattr(made, "sequences", made)
        found = written[0, 1 if self.decodes else len(read.ids) :].tolist()
        special = set(self.tokenizer.all_special_ids)
        end = next((i for i, token in enumerate(found) if token in special), len(found))
        found = found[:end]
        for text in stops:
            while text and text in self.decoded(found):
                found = found[:-1]
        if not found:
            self._check_finite(ids)
            raise InputError(
                "the model's answer is empty: it ends at once; accepted: answer=, the text of one"
            )
        return tuple(found)

    @torch.no_grad()
    def _check_finite(self, ids: Tensor) -> None:
        """Raise InputError if the model has no scores for the token after these: the likeliest of NaN is the first."""
        start = {"decoder_input_ids": ids.new_tensor([[_start_of_decoder(self)]])} if self.decodes else {}
        if not bool(self.model(input_ids=ids, **start).logits[:, -1].isfinite().all()):
            raise InputError(
                f"{self.name} returned NaN or infinite scores for this prompt; nothing to explain"
            )

    def decoded(self, ids: Sequence[int]) -> str:
        """The text of some tokens."""
        text: str = self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
        return text

    def question(
        self,
        prompt: str | Messages,
        answer: str | Sequence[int] | None = None,
        target: Any = None,
        unit: Unit | None = None,
        max_new_tokens: int = 20,
        context: Sequence[str] | None = None,
        **how: Any,
    ) -> Question:
        """A prompt with its answer, and what of it is explained: see `apportion.explain`."""
        unit = ("word" if context is None else "passage") if unit is None else unit
        check("unit", unit, get_args(Unit).__contains__, ", ".join(get_args(Unit)))
        passages = () if context is None else checked_passages(context)
        prompt = with_passages(prompt, passages)
        read = self._read(prompt, passages)
        if answer is None:
            ids = self.generated(prompt, max_new_tokens, **how)
        elif how:
            raise InputError(f"{', '.join(how)} is of an answer that is generated, but answer is given")
        else:
            ids = _ids_of_answer(self, answer)
        return _asked(self, read, ids, wanted_of(target), unit)

    def _read(self, prompt: Any, passages: Sequence[str] = ()) -> Prompt:
        read = read_prompt(self.tokenizer, self.name, prompt, passages, ends=self.decodes)
        _check_length(self, len(read.ids))
        return read


@dataclass(frozen=True, eq=False)
class Question:
    """A prompt with the answer to it, ready to be explained: `classifier` has a class for each thing that is, `inputs`
    and `features` have a row for each. `notes` say of an explanation whose answer it is of."""

    classifier: Classifier
    inputs: Tensor
    features: tuple[TextFeatures, ...]
    notes: dict[str, Any]
    answer: str
    pieces: tuple[str, ...]

    def check_model(self, lm: LanguageModel) -> None:
        """Raise InputError if another model was asked."""
        scores = self.classifier.model
        if not isinstance(scores, AnswerScores) or scores.language_model is not lm.model:
            raise InputError(f"the question is one to {self.classifier.name}, and not to {lm.name}")

    def part(self, rows: slice) -> Question:
        """The same for some of the things that are explained."""
        scores = self.classifier.model
        assert isinstance(scores, AnswerScores)
        labels = self.classifier.labels[rows]
        some = replace(self.classifier, model=scores.for_goals(scores.goals[rows]), labels=labels)
        return replace(self, classifier=some, inputs=self.inputs[rows], features=self.features[rows])


def wanted_of(target: Any) -> Answer:
    """What of an answer a target names: None is each of its tokens, a number one of them, a text a part of it."""
    if target is None:
        return Answer(each=True)
    if isinstance(target, Answer):
        return target
    if isinstance(target, Integral) and not isinstance(target, bool):  # NumPy's, too
        return Answer(int(target))
    if not isinstance(target, str | tuple):
        raise InputError(
            f"target is {target!r:.60}; accepted for a language model: the number of a token of the answer, words of "
            "the answer, an Answer, or None for each token"
        )
    return Answer(target)


# ---- the answer ----


def _ids_of(lm: LanguageModel, text: str, name: str) -> tuple[int, ...]:
    """The tokens of a text that stands where the model writes."""
    check_whole_signs(text, name)
    ids: tuple[int, ...] = tuple(lm.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    unknown = lm.tokenizer.unk_token
    if not ids or (lm.tokenizer.unk_token_id in ids and unknown is not None and unknown not in text):
        raise InputError(
            f"{name} is {text!r:.60}, for which the tokenizer of {lm.name} has no tokens; accepted: a text that the "
            "model can write"
        )
    return ids


def _ids_of_answer(lm: LanguageModel, answer: Any, name: str = "answer") -> tuple[int, ...]:
    if isinstance(answer, str):
        if not answer:
            raise InputError(
                "answer is empty; accepted: a text of at least one token, or None to generate one"
            )
        return _ids_of(lm, answer, name)
    many = _vocabulary(lm)
    whole = isinstance(answer, Sequence) and all(
        isinstance(i, int) and not isinstance(i, bool) and 0 <= i < many for i in answer
    )
    if not whole or not answer:
        raise InputError(
            f"answer is {answer!r:.60}; accepted: a text, or ids of the tokenizer, at least one, from 0 to {many - 1}"
        )
    return tuple(answer)


def _vocabulary(lm: LanguageModel) -> int:
    known = len(lm.tokenizer)  # a model may have rows for more
    return min(known, int(getattr(getattr(lm.model, "config", None), "vocab_size", None) or known))


def _pieces(lm: LanguageModel, ids: Sequence[int], after: Sequence[int] = ()) -> tuple[str, ...]:
    """The text of each token; a character of several tokens stands at the last of them."""
    found: list[str] = []
    done = lm.decoded(after)
    for end in range(1, len(ids) + 1):
        text = lm.decoded([*after, *ids[:end]])
        whole = not text.endswith("�") or end == len(ids)
        found.append(text[len(done) :] if whole else "")
        done = text if whole else done
    return tuple(found)


def _asked(lm: LanguageModel, read: Prompt, ids: tuple[int, ...], wanted: Answer, unit: Unit) -> Question:
    pieces = _pieces(lm, ids, read.ids[-1:])
    answer = "".join(pieces)
    first, last = wanted.span(pieces)
    instead: tuple[int, ...] = ()
    if wanted.rather_than is not None:
        if wanted.each and last - first > 1:
            raise InputError(
                "rather_than is of one part, but each of its tokens is asked for; accepted: each=False"
            )
        instead = _ids_of_answer(lm, wanted.rather_than, "rather_than")
        if instead == ids[first:last]:
            raise InputError(
                f"rather_than is {wanted.rather_than!r:.60}, which is what the answer says there"
            )
    spans = [(i, i + 1) for i in range(first, last)] if wanted.each else [(first, last)]
    goals = [Goal(begin, end, wanted.score, instead) for begin, end in spans]
    named = ["".join(pieces[begin:end]) for begin, end in spans]
    named = [
        name.strip() or name.replace("\n", "↵").replace(" ", "␣") or f"token {i}"
        for name, (i, _) in zip(named, spans, strict=True)
    ]
    labels = tuple(
        f"{name} rather than {_apart(str(wanted.rather_than), name)}" if instead else name for name in named
    )
    own = (*ids[:-1], *instead[:-1])
    if not lm.decodes:
        _check_length(lm, len(read.ids) + len(own) + 1)
    tail = () if lm.decodes else own
    features = TextFeatures(
        read.text + ("" if lm.decodes else answer),
        (*read.tokens, *lm.tokenizer.convert_ids_to_tokens(list(tail))),
        (*read.offsets, *[(0, 0)] * len(tail)),
        (*read.in_units(unit), *[None] * len(tail)),
    )
    scores = (
        DecoderScores(lm.model, _start_of_decoder(lm), ids, goals)
        if lm.decodes
        else AnswerScores(lm.model, read.ids, ids, goals)
    )
    mask = lm.mask
    model = Classifier(scores, _not_again, labels, "text", lm.name, mask)
    inputs = torch.tensor([[*read.ids, *tail]], device=_device(lm.model)).expand(len(goals), -1)
    notes = {
        "answer": {
            "pieces": pieces,
            "spans": spans,
            "prompt": len(read.ids),
            "characters": len(read.text),
            "score": wanted.score,
            "rather_than": wanted.rather_than,
            "unit": unit,
            "parts": read.parts,
        }
    }
    return Question(model, inputs, (features,) * len(goals), notes, answer, pieces)


def _apart(other: str, name: str) -> str:
    """What might stand in the place of a part of this name, told apart from it where only white space does that."""
    return repr(other) if other.strip() == name else other.strip()


def _not_again(raw: Any) -> Any:
    raise InputError("a question is encoded already; accepted: its inputs, or another question")


def _start_of_decoder(lm: LanguageModel) -> int:
    config = lm.model.config
    start = getattr(config, "decoder_start_token_id", None)
    return int(config.bos_token_id if start is None else start)  # type: ignore[arg-type,union-attr]


def _check_length(lm: LanguageModel, many: int) -> None:
    if many > _window(lm):
        raise InputError(
            f"prompt and answer have {many} tokens; accepted by {lm.name}: at most {_window(lm)}, its context window"
        )


def _window(lm: LanguageModel) -> int:
    """The most tokens of a row."""
    longest = getattr(getattr(lm.model, "config", None), "max_position_embeddings", None)
    return longest if isinstance(longest, int) else sys.maxsize


def _is_tokenizer(tokenizer: Any) -> bool:
    return callable(tokenizer) and hasattr(tokenizer, "convert_ids_to_tokens")


def _are_texts(texts: Any) -> bool:
    return isinstance(texts, Sequence) and all(isinstance(text, str) and text for text in texts)


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
