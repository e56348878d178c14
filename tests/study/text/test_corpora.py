"""The corpora of the text study, from small files and, where `APPORTION_DATA` names them, the real ones."""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from apportion.errors import InputError
from apportion.study.text.corpora import CORPORA, imdb_words, load, news_words, tree_words


def jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def sst(folder: Path, rows: int = 6) -> None:
    tree = "({label} (2 A) ({label} (2 film) (2 (2 {word}) (2 (2 for) (2 (2 all) (2 of))))) (2 us))"
    for name in ("train", "dev", "test"):
        lines = [tree.format(label=(0, 4)[i % 2], word=("bad", "good")[i % 2]) for i in range(rows)]
        (folder / f"sst_trees_{name}.txt").write_text("\n".join([*lines, "(2 (2 So) (2 so))"]) + "\n")


def test_sst_is_read_without_neutral_and_short_sentences(tmp_path: Path) -> None:
    sst(tmp_path)
    corpus = load("sst", tmp_path)
    assert (len(corpus.train), len(corpus.valid), len(corpus.test), corpus.dropped) == (6, 6, 6, 0)
    assert [corpus.vocabulary.words[i] for i in corpus.train.ids[1]] == "a film good for all of us".split()
    assert corpus.train.labels.tolist() == [0, 1, 0, 1, 0, 1]


def test_imdb_keeps_words_of_ten_texts_and_drops_long_texts(tmp_path: Path) -> None:
    rows = [{"text": f"word{i} <br />the, film's", "label": i % 2} for i in range(12)]
    rows.append({"text": "long " * 400, "label": 0})
    (tmp_path / "text").mkdir()
    for part in ("train", "valid", "test"):
        jsonl(tmp_path / "text" / f"imdb_{part}.jsonl.gz", rows)
    corpus = load("imdb", tmp_path)
    assert corpus.vocabulary.words[2:] == ("the", "film's")
    assert corpus.train.ids[0].tolist() == [1, 2, 3]
    assert corpus.dropped == 3


def test_line_separators_in_a_text_do_not_end_its_line(tmp_path: Path) -> None:
    rows = [{"text": "a\u2028b\x85c", "label": i % 2} for i in range(20)]
    for part in ("train", "valid", "test"):
        path = tmp_path / f"imdb_{part}.jsonl"
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    assert len(load("imdb", tmp_path).train) == 20


def test_agnews_reads_descriptions_of_world_and_business(tmp_path: Path) -> None:
    pool = [{"class": 1 + i % 4, "text": "Title . The bank #39;s 3rd quarter"} for i in range(200)]
    jsonl(tmp_path / "agnews_trainpool_10000.jsonl", pool)
    test = '"1","Title","The war"\n"2","Title","The cup"\n"3","Title","The bank"\n'
    (tmp_path / "agnews_test.csv").write_text(test)
    corpus = load("agnews", tmp_path)
    assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == (85, 15, 2)
    assert [corpus.vocabulary.words[i] for i in corpus.train.ids[0]] == [
        "the",
        "bank",
        "'s",
        "qqq",
        "quarter",
    ]
    assert corpus.test.labels.tolist() == [0, 1]


def test_20news_strips_posts_and_splits_them(tmp_path: Path) -> None:
    quote = "In article <1> you write:\n> quoted\n"
    body = f"Newsgroups: x\nFrom: me\n\n{quote}We won the game of the season\n\n--\nsignature"
    rows = [{"group": f"rec.sport.{('baseball', 'hockey')[i % 2]}", "text": body} for i in range(50)]
    rows.append({"group": "rec.sport.hockey", "text": "From: me\n\n"})
    jsonl(tmp_path / "20news_sports.jsonl", rows)
    corpus = load("20news", tmp_path)
    assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == (32, 8, 10)
    assert [corpus.vocabulary.words[i] for i in corpus.test.ids[0]] == "we won the game of the season".split()


def test_words() -> None:
    assert imdb_words("") == []
    assert news_words("B2B, 1990s!") == ["qqq", ",", "qqq", "!"]
    assert tree_words("(2 (2 -LRB-) (2 (2 and\\/or) (2 -RRB-)))") == ["and/or"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json\n", "imdb_train.jsonl, line 1: not JSON"),
        ('{"label": 1}\n', "line 1: no 'text'"),
        ('{"text": "a", "label": 7}\n', "label is 7; accepted: 0, 1"),
        ('{"text": "a", "label": 1}\n', "the 1 train texts are not of two classes"),
        ("", "line 1: not JSON"),
    ],
)
def test_says_what_is_wrong_with_a_file(tmp_path: Path, content: str, message: str) -> None:
    for part in ("train", "valid", "test"):
        (tmp_path / f"imdb_{part}.jsonl").write_text(content)
    with pytest.raises(InputError, match=message):
        load("imdb", tmp_path)


def test_says_which_file_is_missing_or_broken(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no sst_trees_train.txt.gz or .* in .* or its subfolder text"):
        load("sst", tmp_path)
    (tmp_path / "sst_trees_train.txt.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match=r"cannot read .*sst_trees_train.txt.gz"):
        load("sst", tmp_path)
    with pytest.raises(InputError, match="unknown corpus 'yelp'; accepted: 20news, sst, agnews, imdb"):
        load("yelp", tmp_path)
    with pytest.raises(InputError, match="is no folder; accepted: a folder, or huggingface"):
        load("sst", tmp_path / "nowhere")


def test_the_hub_is_read_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = [{"text": f"a film of {w} and more of it", "label": i} for i, w in enumerate(("bad", "good"))] * 10
    news = [{"text": "the report", "label": i % 4} for i in range(80)]
    groups = ("rec.sport.baseball", "rec.sport.hockey", "sci.space")
    posts = [{"text": "we won the game in the end", "label_text": groups[i % 3]} for i in range(60)]
    hub = {
        "stanfordnlp/imdb": {"train": film, "test": film, "unsupervised": []},
        "SetFit/sst2": {"train": film, "validation": film, "test": film},
        "fancyzhx/ag_news": {"train": news, "test": news},
        "SetFit/20_newsgroups": {"train": posts, "test": posts},
    }
    stand_in: Any = ModuleType("datasets")
    stand_in.load_dataset = hub.__getitem__
    monkeypatch.setitem(sys.modules, "datasets", stand_in)
    sizes = {}
    for name in CORPORA:
        corpus = load(name, "huggingface")
        sizes[name] = (len(corpus.train), len(corpus.valid), len(corpus.test))
        assert corpus.test.labels.double().mean() == 0.5
    assert sizes == {"20news": (32, 8, 40), "sst": (20, 20, 20), "agnews": (34, 6, 40), "imdb": (16, 4, 20)}
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match="pip install datasets"):
        load("sst", "huggingface")


@pytest.mark.skipif(
    "APPORTION_DATA" not in os.environ, reason="APPORTION_DATA names no folder with the corpora"
)
@pytest.mark.parametrize(
    ("name", "sizes"),
    [("sst", (6328, 815, 1720)), ("agnews", (4278, 755, 3800)), ("20news", (1170, 287, 356))],
)
def test_the_real_corpora(name: str, sizes: tuple[int, int, int]) -> None:
    corpus = load(name, Path(os.environ["APPORTION_DATA"]))
    parts = (corpus.train, corpus.valid, corpus.test)
    assert tuple(map(len, parts)) == sizes
    assert all(0.45 < float(part.labels.double().mean()) < 0.55 for part in parts)
    assert float((torch.cat(corpus.test.ids) == 1).double().mean()) < 0.15
