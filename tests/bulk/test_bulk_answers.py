"""Whole data sets of prompts: what a run of a language model holds, and what it goes on with."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import apportion as ap
import small_language_models as small
from apportion import InputError
from apportion.cli.app import app
from apportion.core.features import TextFeatures

PASSAGES = ["The capital of France is Paris .", "He said she sat ."]
ROWS = [
    {"id": "given", "prompt": "The capital of France is", "answer": " Paris ."},
    {"id": "written", "prompt": "The capital of Spain is"},
    {"id": "from passages", "prompt": "He said", "answer": " she sat", "context": PASSAGES},
    {"id": "rather", "prompt": "The capital of Spain is", "answer": " Madrid", "contrast": " Paris"},
    {"id": "as messages", "prompt": [{"role": "user", "content": "The capital"}], "answer": " Madrid"},
]
WRONG = [
    {"id": "no prompt", "prompt": "", "answer": " Madrid"},
    {"id": "no other", "prompt": "The capital", "answer": " Madrid", "contrast": " Madrid"},
    {"id": "one passage", "prompt": "The capital", "answer": " Madrid", "context": "a text"},
    {"id": "too long", "prompt": "The capital " * 200, "answer": " Madrid"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.saved(small.causal(window=128), tmp_path_factory.mktemp("lm"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "asked.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (*ROWS, *WRONG)), encoding="utf-8")
    return path


def run(folder, data, out, method="kernelshap", **settings):
    settings = {"id_column": "id", "max_new_tokens": 3, "precision": "float32", **settings}
    return ap.explain_dataset(folder, data, method, out, progress=False, **settings)


@pytest.mark.parametrize("method", ["kernelshap", "inputxgradient"])
def test_each_row_is_explained_as_alone(folder: Path, data: Path, tmp_path: Path, method: str) -> None:
    lm, made = ap.load(folder), run(folder, data, tmp_path / "out", method)
    assert [row["id"] for row in made.rows()] == [row["id"] for row in ROWS]
    for place, row in enumerate(ROWS):
        given = {name: row[name] for name in ("answer", "context") if name in row} or {"max_new_tokens": 3}
        alone = ap.explain(lm, row["prompt"], method, ap.Answer(rather_than=row.get("contrast")), **given)
        kept = made.explanation(place)
        assert kept.label() == alone.label()
        assert kept.relevance()[0] == alone.relevance()[0]
        assert torch.allclose(kept.relevance()[1].double(), alone.relevance()[1], atol=1e-6)
        assert kept.remainder is not None
        assert torch.allclose(kept.remainder, alone.remainder.double(), atol=1e-5)


@pytest.mark.parametrize("unit", ["word", "token"])
@pytest.mark.parametrize(("method", "table"), [("kernelshap", "parquet"), ("inputxgradient", "jsonl")])
def test_each_token_of_an_answer_keeps_its_own_map(
    folder: Path, data: Path, tmp_path: Path, method: str, table: str, unit: Any
) -> None:
    if table == "parquet":
        pytest.importorskip("pyarrow")
    lm, target = ap.load(folder), ap.Answer(each=True)
    run(folder, data, tmp_path / "each", method, target=target, unit=unit, table=table)
    made, whole = ap.open_run(tmp_path / "each"), run(folder, data, tmp_path / "whole", method, unit=unit)
    assert [row["id"] for row in made.rows()] == [row["id"] for row in ROWS]
    for place, row in enumerate(ROWS):
        given = {name: row[name] for name in ("answer", "context") if name in row} or {"max_new_tokens": 3}
        wanted = ap.Answer(rather_than=row.get("contrast"), each=True)
        alone, found = (
            ap.explain(lm, row["prompt"], method, wanted, unit=unit, **given),
            made.explanation(place),
        )
        assert [found.label(i) for i in range(len(found))] == [alone.label(i) for i in range(len(alone))]
        for i in range(len(alone)):
            assert found.relevance(i)[0] == alone.relevance(i)[0]
            assert torch.allclose(found.relevance(i)[1].double(), alone.relevance(i)[1], atol=1e-6)
        assert torch.allclose(found.remainder, alone.remainder.to(found.remainder), atol=1e-5)
        assert torch.allclose(found.output.double(), alone.output, atol=1e-5)
        # The table has what it has of the whole answer.
        one, summed = whole[place], made[place]
        for name in ("target_label", "total", "sum", "relevance"):
            assert summed[name] == (
                one[name] if name == "target_label" else pytest.approx(one[name], abs=1e-4)
            )


def test_what_cannot_be_asked_is_told_and_the_rest_goes_on(folder: Path, data: Path, tmp_path: Path) -> None:
    made = run(folder, data, tmp_path / "out")
    found = {row["id"]: row["message"] for row in made.errors()}
    assert list(found) == [row["id"] for row in WRONG]
    assert "at least one word" in found["no prompt"]
    assert "rather_than" in found["no other"]
    assert "a list of texts" in found["one passage"]
    assert "context window" in found["too long"]
    with pytest.raises(InputError, match=r"no prompt: .* at least one word"):
        run(folder, data, tmp_path / "strict", strict=True)


def test_a_run_of_answers_goes_on_where_it_was(folder: Path, data: Path, tmp_path: Path) -> None:
    whole = run(folder, data, tmp_path / "whole", shard=2)
    run(folder, data, tmp_path / "half", shard=2, shard_index=1, num_shards=2)
    lm = ap.load(folder)
    asked: list[int] = []
    lm.model.register_forward_pre_hook(lambda *_: asked.append(1))
    half = run(lm, data, tmp_path / "half")  # the same model, in memory
    assert asked
    assert list(half.rows()) == list(whole.rows())
    asked.clear()
    run(lm, data, tmp_path / "half")
    assert not asked
    with pytest.raises(InputError, match=r"max_new_tokens=3, now .* max_new_tokens=4"):
        run(folder, data, tmp_path / "half", max_new_tokens=4)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch": 4}, "batch is 4"),
        ({"target": 1.5}, "target is 1.5"),
        ({"unit": "letter"}, "unit is 'letter'"),
        ({"answer": " Paris"}, "answer is of each prompt"),
        ({"column": "asked"}, "no column 'asked'"),
    ],
)
def test_settings_that_are_of_no_run_of_answers_are_refused(folder, data, tmp_path, settings, said) -> None:
    with pytest.raises(InputError, match=said):
        run(folder, data, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_what_is_asked_of_a_language_model_is_of_no_other(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unit is not known, or for a LanguageModel; the model is Linear"):
        ap.explain_dataset(torch.nn.Linear(2, 2), torch.ones(3, 2), "lrp", tmp_path / "out", unit="word")


def test_runs_of_answers_are_listed_summed_up_compared_and_shown(
    folder: Path, data: Path, tmp_path: Path
) -> None:
    def command(*arguments: object) -> str:
        done = CliRunner().invoke(app, list(map(str, arguments)))
        assert done.exit_code == 0, done.output
        return done.output

    common = ("bulk", "--model", folder, "--data", data, "--id", "id", "--workers", 1)
    for out, method in (("a", "occlusion"), ("b", "inputxgradient")):
        command(*common, "--out", tmp_path / out, "--method", method, "--max-new-tokens", 3, "--unit", "word")
    said = command("runs", "summary", tmp_path / "a", "--least", 1, "--html", tmp_path / "page.html")
    assert "answers" in said
    assert "capital" in said
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Madrid rather than Paris" in page
    found = json.loads(command("runs", "drift", tmp_path / "a", tmp_path / "b", "--json"))
    assert found["flipped"] == 0
    assert len(found["inputs"]) == len(ROWS)
    command("runs", "check", tmp_path / "a")


class Bag(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.top = torch.nn.Embedding(8, 4), torch.nn.Linear(4, 2)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.top(self.table(input_ids).sum(1))


def test_each_word_of_a_run_over_named_inputs_has_its_own_value(tmp_path: Path) -> None:
    def encode(text: str):
        words = text.split()
        ends = [len(" ".join(words[: i + 1])) for i in range(len(words))]
        spans = [(end - len(word), end) for word, end in zip(words, ends, strict=True)]
        features = TextFeatures(text, ("[CLS]", *words), ((0, 0), *spans), (None, *range(len(words))))
        return {"input_ids": torch.tensor([[7, *(len(word) for word in words)]])}, features

    model = ap.Classifier(Bag(), encode, ("no", "yes"), "text", "bag")
    made = ap.explain_dataset(model, ["a slow film"], "inputxgradient", tmp_path, progress=False)
    kept, alone = made.explanation(0), ap.explain(model, "a slow film", "inputxgradient")
    assert kept.relevance()[0] == alone.relevance()[0] == ("a", "slow", "film")
    assert torch.allclose(kept.relevance()[1], alone.relevance()[1])
    assert torch.allclose(kept.apportioned, alone.apportioned.double(), atol=1e-6)
