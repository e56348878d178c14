"""The prompt of a language model as it is read: its tokens, and which of them are one feature."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from apportion.domains.raw_text import Messages
from apportion.domains.sentences import sentences
from apportion.domains.text import check_text, encode_subwords
from apportion.errors import InputError

Unit = Literal["token", "word", "sentence", "passage", "turn"]

_PASSAGE = re.compile(r".+?(?:\n\s*\n|$)", re.DOTALL)
_PASSAGE_ROLE = "context"
_GAP = "\n\n"  # behind each passage


@dataclass(frozen=True)
class Prompt:
    """A prompt as it was read: its tokens with the words of what may be hidden, and the parts that have a role."""

    text: str
    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    offsets: tuple[tuple[int, int], ...]
    words: tuple[int | None, ...]
    parts: tuple[tuple[str, int, int], ...]  # role, first character, after the last

    def in_units(self, unit: Unit) -> tuple[int | None, ...]:
        """The feature of each token; None for those that are never hidden."""
        if unit == "word":
            return self.words
        if unit == "token":
            return tuple(None if word is None else i for i, word in enumerate(self.words))
        starts = sorted(begin for part in self.parts for begin in _starts(self.text, part, unit))
        return tuple(
            None if word is None else sum(begin <= start for begin in starts)
            for word, (start, _) in zip(self.words, self.offsets, strict=True)
        )


def checked_passages(context: Any) -> tuple[str, ...]:
    """The passages of a context, without white space around them."""
    if isinstance(context, str) or not isinstance(context, Sequence) or not context:
        raise InputError(f"context is {context!r:.60}; accepted: a list of texts, at least one")
    for i, passage in enumerate(context):
        if not isinstance(passage, str) or not passage.strip():
            raise InputError(f"context[{i}] is {passage!r:.60}; accepted: a text with words in it")
    passages = tuple(passage.strip() for passage in context)
    for i, passage in enumerate(passages):
        if (first := passages.index(passage)) < i:
            raise InputError(
                f"context[{first}] and context[{i}] are the same passage; accepted: each once, since neither would "
                "matter while the other stands there"
            )
    return passages


def with_passages(prompt: Any, passages: Sequence[str]) -> Any:
    """The prompt after the passages of its context, with an empty line behind each; of messages the last."""
    if not passages:
        return prompt
    if isinstance(prompt, str):
        check_text(prompt, "prompt")
        return _GAP.join((*passages, prompt))
    if not isinstance(prompt, Sequence) or not prompt or "content" not in prompt[-1]:
        return prompt  # which is refused where it is read
    last = {**prompt[-1], "content": _GAP.join((*passages, prompt[-1]["content"]))}
    return [*prompt[:-1], last]


def _places(text: str, begin: int, passages: Sequence[str]) -> tuple[tuple[str, int, int], ...]:
    """Where the passages stand in a text, of which they are the first from `begin` on."""
    found = []
    for passage in passages:
        found.append((_PASSAGE_ROLE, begin, begin + len(passage)))
        assert text[begin : begin + len(passage)] == passage
        begin += len(passage) + len(_GAP)
    return tuple(found)


def read_prompt(
    tokenizer: Any, name: str, prompt: str | Messages, passages: Sequence[str] = (), ends: bool = False
) -> Prompt:
    """A prompt as the tokenizer of the model of that name reads it; `ends` says whether it keeps the token that ends a
    text, after which a causal model writes nothing."""
    parts: tuple[tuple[str, int, int], ...]
    bare = isinstance(prompt, str)
    if bare:
        check_text(prompt, "prompt")
        text, parts = str(prompt), (("prompt", 0, len(prompt)),)
    else:
        text, parts = _filled(tokenizer, name, prompt)
    if passages:  # the question itself is asked whatever is hidden
        parts = _places(text, parts[-1][1], passages)
    encoded, features = encode_subwords(text, tokenizer, special=bare)
    ids = encoded["input_ids"][0].tolist()
    special = set(tokenizer.all_special_ids)
    offsets, words = list(features.offsets), list(features.words)
    for i, (token, (start, end)) in enumerate(zip(ids, features.offsets, strict=True)):
        # White space before a part has the empty place where that begins.
        within = any(begin <= start < stop and (end > start or start > begin) for _, begin, stop in parts)
        if token in special or not within:
            offsets[i], words[i] = (0, 0), None
    while bare and not ends and len(ids) > 1 and features.words[len(ids) - 1] is None:
        ids.pop()
    many = len(ids)
    if all(word is None for word in words[:many]):
        raise InputError(
            "the prompt has no word that may be hidden; accepted: a prompt with at least one word"
        )
    return Prompt(text, tuple(ids), features.tokens[:many], tuple(offsets[:many]), tuple(words[:many]), parts)


def _filled(tokenizer: Any, name: str, messages: Any) -> tuple[str, tuple[tuple[str, int, int], ...]]:
    """The text that the tokenizer's template makes of messages, and where their contents stand in it."""
    accepted = 'a text, or messages such as [{"role": "user", "content": "Hello"}]'
    listed = isinstance(messages, Sequence) and len(messages) > 0
    if not listed or not all(isinstance(m, Mapping) and {"role", "content"} <= m.keys() for m in messages):
        raise InputError(f"prompt is {messages!r:.60}; accepted: {accepted}")
    for i, message in enumerate(messages):
        check_text(message["content"], f"prompt[{i}]")
    if getattr(tokenizer, "chat_template", None) is None:
        raise InputError(
            f"the tokenizer of {name} has no chat template, but messages were given; accepted: a text"
        )
    given = [dict(message) for message in messages]
    marked = [{**message, "content": f"\ue000{i}\ue001"} for i, message in enumerate(given)]
    try:
        text, around = (
            tokenizer.apply_chat_template(each, tokenize=False, add_generation_prompt=True)
            for each in (given, marked)
        )
    except Exception as error:  # whatever a template raises, as of roles that do not take turns
        raise InputError(f"the chat template of {name} refuses these messages: {error}") from error
    # Where marks stand, since a message may say what the template says, such as "user".
    between = re.split("\ue000\\d+\ue001", around)
    parts, at = [], len(between[0])
    for message, after in zip(given, between[1:], strict=False):
        content = message["content"].strip()
        whole = next((c for c in (message["content"], content) if text.startswith(c + after, at)), None)
        if whole is None:
            break
        start = at + whole.index(content)
        parts.append((str(message["role"]), start, start + len(content)))
        at += len(whole) + len(after)
    if len(parts) < len(given) or len(between) != len(given) + 1 or not text.startswith(between[0]):
        changed = given[min(len(parts), len(given) - 1)]["content"].strip()
        raise InputError(
            f"the chat template of {name} changes the message {changed!r:.60}; accepted: messages that stay as they "
            "are"
        )
    return text, tuple(parts)


def _starts(text: str, part: tuple[str, int, int], unit: Unit) -> Iterator[int]:
    """Where the units of a part of the prompt begin."""
    role, begin, stop = part
    if unit == "turn" or (unit == "passage" and role == _PASSAGE_ROLE):
        yield begin
        return
    if unit == "passage":
        yield from (begin + m.start() for m in _PASSAGE.finditer(text[begin:stop]) if m.group().strip())
        return
    for sentence in sentences(text[begin:stop]):
        yield begin  # with the white space before it, which may be of its first token
        begin = text.index(sentence, begin) + len(sentence)
