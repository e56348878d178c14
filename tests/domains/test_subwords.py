"""Texts for Hugging Face models: sub-words are merged to words, with tokenizers that are built in memory."""

import re

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from apportion.domains.text import encode_subwords, normalise, tokenise
from apportion.engines.masking.engine import Masking
from apportion.errors import InputError
from apportion.methods.hiding.occlusion import Occlusion


def fast(tokenizer: Tokenizer, **settings: object) -> object:
    transformers = pytest.importorskip("transformers")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **settings)


def bert(**settings: object) -> object:
    pieces = "un ##believ ##able film ##s a ! ' t don"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *re.findall(r"\S+", pieces)]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return fast(tokenizer, **special, mask_token="[MASK]", **settings)


def test_subwords_are_merged_to_words() -> None:
    text = "Ünbelievable films,\n[MASK] 👍🏽!"
    inputs, features = encode_subwords(text, bert())
    assert features.tokens == (
        *("[CLS]", "un", "##believ", "##able", "film", "##s", "[UNK]", "[MASK]", "[UNK]", "!", "[SEP]"),
    )
    assert features.words == (None, 0, 0, 0, 1, 1, 2, 3, 4, 5, None)
    assert features.names == ("Ünbelievable", "films", ",", "[MASK]", "👍🏽", "!")
    assert features.offsets[0] == features.offsets[-1] == (0, 0)
    assert set(inputs) >= {"input_ids", "attention_mask"}
    assert {tuple(tensor.shape) for tensor in inputs.values()} == {(1, 11)}
    assert inputs["input_ids"][0, 0] == 2


def test_what_a_tokenizer_returned_knows_its_words() -> None:
    """Of a pair of texts, too; special tokens and padding are never hidden."""
    table = torch.rand(30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def model(input_ids: Tensor, attention_mask: Tensor, **_: Tensor) -> Tensor:
        return (table[input_ids] * attention_mask).sum(1)

    pairs = [("unbelievable films!", "a film"), ("a", "film")]
    encoded = bert()(pairs, padding=True, return_tensors="pt")
    assert Masking(model, encoded).parts[0].labels.tolist() == [[0, 0, 0, 1, 1, 2, 3, 4], [0, 1, *[-1] * 6]]
    encoded = bert()(["unbelievable films!", "a film"], padding=True, return_tensors="pt")
    masking, words = Masking(model, encoded), [-1, 0, 0, 0, 1, 1, 2, -1]
    assert masking.parts[0].labels.tolist() == [words, [-1, 0, 1, *[-1] * 5]]
    assert masking.counts.tolist() == [3, 2]
    found = Occlusion()(model, encoded).values["input_ids"]
    expected = table[encoded["input_ids"][0]] - table[0]
    assert found[0].sum() == pytest.approx(sum(expected[i].item() for i, w in enumerate(words) if w >= 0))
    assert Masking(model, dict(encoded)).counts.tolist() == [8, 4]  # a dict does not know them
    encoded.data.update({key: encoded[key][:1] for key in encoded})
    assert Masking(model, encoded).counts.tolist() == [8]


def byte_level() -> object:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    merges = [("Ġ", "f"), ("Ġf", "u"), ("n", "y")]
    words = [*sorted(alphabet), *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return fast(tokenizer)


def test_byte_level_tokens_do_not_own_the_space_before_them() -> None:
    text = "so  funny 😀!\n\n"
    _, features = encode_subwords(text, byte_level())
    assert features.names == ("so", "funny", "😀!")
    assert None not in features.words
    assert encode_subwords("f\n", byte_level())[1].names == ("f",)
    assert encode_subwords(" \n f", byte_level())[1].names == ("f",)


def test_tokens_across_a_space_are_different_words_even_without_pretokenizer() -> None:
    words = ["<unk>", "▁", "a", "b", "▁a"]
    tokenizer = Tokenizer(models.BPE({w: i for i, w in enumerate(words)}, [("▁", "a")], unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    _, features = encode_subwords("ab a bb", fast(tokenizer))
    assert features.names == ("ab", "a", "bb")


def test_a_text_beyond_the_limit_is_an_error() -> None:
    limited = bert(model_max_length=4)
    assert encode_subwords("a film", limited)[0]["input_ids"].shape == (1, 4)
    with pytest.raises(ValueError, match=r"at most 4 tokens .* received 5"):
        encode_subwords("a film!", limited)


def test_a_text_that_the_tokenizer_drops_is_an_error() -> None:
    with pytest.raises(ValueError, match="finds no word"):
        encode_subwords("\u200b", bert())


class Slow:
    """What a tokenizer without offsets shows: pieces of words, the first two letters and the rest."""

    is_fast, model_max_length, unk_token = False, 100, "[UNK]"

    def __call__(self, text: str, return_offsets_mapping: bool = False, **_: object) -> dict[str, list[int]]:
        if return_offsets_mapping:
            raise NotImplementedError
        self.pieces = ["[CLS]"]
        for token in tokenise(text):
            word = normalise(token.surface)
            known = word.isascii()
            self.pieces += ["[UNK]"] if not known else [word[:2], *(["##" + word[2:]] if word[2:] else [])]
        return {"input_ids": list(range(len(self.pieces)))}

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self.pieces[index] for index in ids]

    def get_special_tokens_mask(self, ids: list[int], already_has_special_tokens: bool) -> list[int]:
        return [int(self.pieces[index].startswith("[")) for index in ids]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return " ".join(tokens)


def test_tokens_without_offsets_are_searched_in_the_text() -> None:
    _, features = encode_subwords("Clichés,  and\ncliche\u0301!", Slow())
    assert features.tokens == ("[CLS]", "cl", "##iches", ",", "an", "##d", "cl", "##iche", "!")
    assert features.words == (None, 0, 0, 1, 2, 2, 3, 3, 4)
    assert features.names == ("Clichés", ",", "and", "cliche\u0301", "!")
    with pytest.raises(ValueError, match=r"'\[UNK\]' next in the text, found '👍'.*use the fast tokenizer"):
        encode_subwords("good 👍", Slow())


@pytest.mark.parametrize("text", ["", " \n"])
def test_a_text_without_words_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="at least one word"):
        encode_subwords(text, bert())


def test_what_is_not_a_text_is_an_error() -> None:
    with pytest.raises(InputError, match="expected one str, received list"):
        encode_subwords(["good"], bert())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "spans", "words"),
    [
        ("这部电影好", [(0, 1), (1, 2), (2, 4), (4, 5)], (0, 1, 2, 3)),
        ("ดีมาก", [(0, 2), (2, 5)], (0, 1)),
        ("फिल्म", [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)], (0, 0, 1, 1, 2)),
        ("电", [(0, 1), (0, 1), (0, 1)], (0, 0, 0)),  # three bytes of one letter
        ("unlike", [(0, 2), (2, 6)], (0, 0)),
    ],
)
def test_scripts_without_spaces_are_not_one_word(text, spans, words):
    from apportion.domains.text import _words

    labels = [0] * len(spans) if text != "फिल्म" else list(range(len(spans)))
    assert _words(text, labels, spans) == words
