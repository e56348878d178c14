"""The store of a study and the text study in miniature: killed, resumed, corrupted, and with maps that say nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from apportion.core.target import Contrast
from apportion.errors import InputError
from apportion.evaluation.by_training.weak_learner import WeakLearner
from apportion.learning.networks import AttentionClassifier
from apportion.learning.training import Training
from apportion.methods.gradients.gradient import InputXGradient, Saliency
from apportion.methods.hiding.lime import LIME
from apportion.methods.paths.integrated_gradients import IntegratedGradients
from apportion.results.grid import TextTable
from apportion.study.store import Cell, CellResult, Store
from apportion.study.tables import read_tables, write_tables
from apportion.study.text import _maps as text_maps
from apportion.study.text import faithfulness as text_faithfulness
from apportion.study.text.corpora import Corpus, CorpusSource, prepare
from apportion.study.text.faithfulness import METHODS, Settings, draw_documents, first_within, run
from apportion.study.text.readings import AS_PUBLISHED_AND_BEFORE, Readings, with_zero_word
from apportion.study.text.report import tables, write

MINI = Settings(
    corpora=("sst",),
    training=Training(epochs=2, rate=1e-2),
    learner=WeakLearner(4, 4, seeds=(0, 1), training=Training(epochs=2)),
    train=200,
    valid=100,
    test=100,
    few=20,
    steps=200,
    readings=AS_PUBLISHED_AND_BEFORE,
)


TESTS = AS_PUBLISHED_AND_BEFORE.tests(words=34)  # of the vocabulary of `mini`
LEARNT = {"weak learner", "shuffle (in the learner)"}


def mini() -> Corpus:
    """Texts of up to nine words, of which one or two are good or bad."""
    random = torch.Generator().manual_seed(0)
    parts = {}
    for part in ("train", "valid", "test"):
        rows = []
        for i in range(40):
            words = [f"w{n}" for n in torch.randint(0, 30, (int(2 + i % 7),), generator=random).tolist()]
            words.insert(int(torch.randint(0, len(words), (1,), generator=random)), ("bad", "good")[i % 2])
            rows.append((words, i % 2))
        parts[part] = rows
    return prepare("sst", CorpusSource(lambda folder: {}, "SST", ("negative", "positive"), 1), parts)


def make_small(patch: pytest.MonkeyPatch) -> None:
    """The study with models less wide and with three methods."""
    quick = {
        "Saliency": Saliency(),
        "Integrated Gradients": IntegratedGradients(nodes=4),
        "LIME": LIME(samples=9),
    }
    patch.setattr(
        text_faithfulness, "AttentionClassifier", partial(AttentionClassifier, embedding=8, hidden=6)
    )
    patch.setattr(text_faithfulness, "METHODS", quick)


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        yield


def outcome(found: text_faithfulness.Findings) -> dict[str, list[float]]:
    """All numbers that do not depend on the clock."""
    numbers = {
        f"{t}/{name}": s.values.tolist() for t, maps in found.tests.items() for name, s in maps.items()
    }
    return numbers | {"training": [epoch["validation_loss"] for epoch in found.training]}


def same(first: text_faithfulness.Findings, second: text_faithfulness.Findings) -> bool:
    """Equal but for the last bits, which in another process depend on where its memory lies."""
    one, other = outcome(first), outcome(second)
    return one.keys() == other.keys() and all(one[k] == pytest.approx(other[k], abs=1e-5) for k in one)


# ---- the store ----


def test_a_cell_is_computed_once(tmp_path: Path) -> None:
    store, calls = Store(tmp_path), []

    def compute() -> CellResult:
        calls.append(1)
        return CellResult({"a": 1}, {"t": torch.arange(3)})

    cell = Cell("work/one", {"seed": 0})
    for _ in range(2):
        found = store.get(cell, compute)
        assert found.numbers == {"a": 1}
        assert found.tensors["t"].tolist() == [0, 1, 2]
    assert len(calls) == 1
    store.get(Cell("work/one", {"seed": 1}), compute)
    assert len(calls) == 2
    assert store.find(Cell("work/one", {"seed": 2})) is None


def test_a_corrupt_cell_is_named_and_done_again(tmp_path: Path) -> None:
    lines: list[str] = []
    store, cell = Store(tmp_path, lines.append), Cell("work", {})
    store.get(cell, lambda: CellResult(1))
    store.path(cell).write_bytes(store.path(cell).read_bytes()[:-1])
    assert store.get(cell, lambda: CellResult(2)).numbers == 2
    assert any(str(store.path(cell)) in line and "corrupt" in line for line in lines)
    assert store.get(cell, lambda: CellResult(3)).numbers == 2


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    store, cell = Store(tmp_path), Cell("work", {})

    def fails() -> CellResult:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        store.get(cell, fails)
    assert store.find(cell) is None
    with pytest.raises(ValueError, match="Out of range float"):
        store.get(cell, lambda: CellResult(float("nan")))
    assert store.find(cell) is None


def test_a_finished_cell_has_no_checkpoint(tmp_path: Path) -> None:
    store, cell = Store(tmp_path), Cell("work", {})
    path = store.checkpoint(cell)
    path.parent.mkdir(parents=True)
    path.write_text("half")
    store.get(cell, lambda: CellResult(1))
    assert not path.exists()


def test_tables_are_what_was_written(tmp_path: Path) -> None:
    table = TextTable("A|B", ("map", "F1"), (("a|b", "<1>"),), ("note",))
    page, _ = write_tables(tmp_path, "title", [table], ["curve.png"])
    assert "| a\\|b | <1> |" in page.read_text()
    assert "![curve.png](curve.png)" in page.read_text()
    title, found = read_tables(tmp_path)
    assert (title, found[0].markdown()) == ("title", table.markdown())
    with pytest.raises(InputError, match="no study with results"):
        read_tables(tmp_path / "nowhere")
    (tmp_path / "tables.json").write_text("{")
    with pytest.raises(InputError, match=r"tables\.json is not an apportion table of a study"):
        read_tables(tmp_path)


# ---- the study ----


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[text_faithfulness.Findings, Path]:
    folder = tmp_path_factory.mktemp("study")
    return run(mini(), MINI, Store(folder)), folder


def test_every_map_has_every_score(found: tuple[text_faithfulness.Findings, Path]) -> None:
    findings, folder = found
    names = {*text_faithfulness.METHODS, "Uniform", "Random", "Reversed"}
    for test in TESTS:
        assert set(findings.tests[test]) == names
    assert set(findings.tests) == {*TESTS, *LEARNT}
    for test in LEARNT:
        assert set(findings.tests[test]) == names - {"LIME"}
    for shuffled in ("shuffle (in the learner)", "shuffle"):
        assert findings.tests[shuffled]["Uniform"].mean == pytest.approx(0, abs=1e-6)
        assert findings.documents["test"] == len(findings.tests[shuffled]["Saliency"])
    assert len(findings.tests["shuffle"]["LIME"]) < findings.documents["test"]
    text = "\n".join(table.markdown() for table in tables([findings]))
    assert "| Saliency |" in text
    assert "0.508" in text  # the published deletion rate
    written = write([findings], folder)
    assert all(path.stat().st_size > 500 for path in written)


def test_several_corpora_are_beside_each_other(found: tuple[text_faithfulness.Findings, Path]) -> None:
    first = found[0]
    made = tables([first, replace(first, corpus=replace(first.corpus, name="imdb", title="IMDB"))])
    text = "\n".join(table.markdown() for table in made)
    assert "| map | SST | published | IMDB | published |" in text
    by_test = next(table for table in made if table.title.startswith("Do the corpora agree?"))
    alphas = {row[0]: row[1].split()[0] for row in by_test.rows}
    assert alphas.keys() == first.tests.keys()
    assert set(alphas.values()) <= {"1.00", "–"}  # the model of this test hardly changes its mind


def test_running_again_does_nothing_and_gives_the_same(
    found: tuple[text_faithfulness.Findings, Path],
) -> None:
    findings, folder = found
    lines: list[str] = []
    again = run(mini(), MINI, Store(folder, lines.append))
    assert lines == []
    assert same(again, findings)
    assert again.seconds == findings.seconds


def test_other_settings_redo_only_what_they_change(found: tuple[text_faithfulness.Findings, Path]) -> None:
    lines: list[str] = []

    def learnt(*seeds: int) -> list[float]:
        other = replace(MINI, learner=replace(MINI.learner, seeds=seeds))
        again = run(mini(), other, Store(found[1], lines.append))
        return again.tests["weak learner"]["Uniform"].values.tolist()

    both = found[0].tests["weak learner"]["Uniform"].values.tolist()
    assert learnt(1) == both[1:]
    assert not lines
    assert learnt(1, 7)[:1] == both[1:]
    assert lines
    assert all(line.startswith(("weak learner/", "shuffle (in the learner)/")) for line in lines)
    maps = [name for name, scores in found[0].tests["weak learner"].items() if len(scores)]
    assert len(lines) == 2 * len(maps)  # one learner more of each, and the test in it


def test_a_killed_study_resumes(tmp_path: Path, found: tuple[text_faithfulness.Findings, Path]) -> None:
    """A process that is killed (SIGKILL) leaves the finished cells, and the rest gives what an uninterrupted
    study gives."""
    script = f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_study as t
        t.make_small(t.pytest.MonkeyPatch())
        begun = []
        def say(line):
            begun.append(line)
            if len(begun) == 20:
                os.kill(os.getpid(), signal.SIGKILL)
        t.run(t.mini(), t.MINI, t.Store(t.Path({str(tmp_path)!r}), say))
    """
    died = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False, env=os.environ)
    assert died.returncode == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").rglob("*.safetensors")}
    assert 10 < len(kept) < 20
    lines: list[str] = []
    resumed = run(mini(), MINI, Store(tmp_path, lines.append))
    assert same(resumed, found[0])
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    cells = list((tmp_path / "cells").rglob("*.safetensors"))
    assert len([line for line in lines if line.endswith("…")]) == len(cells) - len(kept)


def test_a_corrupt_cell_of_the_study_is_named_and_redone(
    tmp_path: Path, found: tuple[text_faithfulness.Findings, Path]
) -> None:
    folder = shutil.copytree(found[1], tmp_path / "copy")
    victim = next((folder / "cells" / "model").glob("*.safetensors"))
    data = bytearray(victim.read_bytes())
    data[-10] ^= 1
    victim.write_bytes(data)
    lines: list[str] = []
    again = run(mini(), MINI, Store(folder, lines.append))
    assert same(again, found[0])
    assert "corrupt" in lines[0]
    assert str(victim) in lines[0]
    assert [line for line in lines if line.endswith("…")] == ["model/sst …"]


# ---- maps in batches ----


def test_maps_and_scores_do_not_depend_on_batches() -> None:
    """Each text alone and without padding gives the same map and score as in its batch."""
    corpus = mini()
    torch.manual_seed(0)
    model = text_faithfulness.AttentionClassifier(len(corpus.vocabulary)).eval().requires_grad_(False)
    documents = corpus.test.select(range(12))
    for name in METHODS:
        together, notes = text_maps.maps_of(METHODS[name], model, documents)
        for i in range(0, 12, 5):
            alone, _ = text_maps.maps_of(METHODS[name], model, documents.select([i]))
            assert torch.allclose(together.maps[i], alone.maps[0], atol=1e-5), name  # type: ignore[index]
        assert notes["method"] == repr(METHODS[name])
    model = with_zero_word(model)
    for test in TESTS.values():
        whole = text_maps.run_test(test, model, together).values
        single = [text_maps.run_test(test, model, together.select([i])).mean for i in range(12)]
        assert whole.tolist() == pytest.approx(single, abs=1e-5), repr(test)
        assert text_maps.run_test(test, model, together).test == repr(test)


def test_maps_explain_the_margin_of_the_predicted_class() -> None:
    corpus = mini()
    torch.manual_seed(0)
    model = text_faithfulness.AttentionClassifier(len(corpus.vocabulary)).eval().requires_grad_(False)
    mapped, _ = text_maps.maps_of(InputXGradient(), model, corpus.test)
    assert mapped.maps is not None
    for ids, values in zip(corpus.test.ids, mapped.maps, strict=True):
        label = int(model(ids[None]).argmax())
        margin = InputXGradient()(model, ids[None], target=Contrast(label, 1 - label))
        assert torch.allclose(values, margin.values[0], atol=1e-6)  # type: ignore[arg-type, index]


@pytest.mark.parametrize("value", [0.0, -1.0, 3.0])
def test_maps_that_say_nothing_are_defined(value: float) -> None:
    corpus = mini()
    torch.manual_seed(0)
    model = text_faithfulness.AttentionClassifier(len(corpus.vocabulary)).eval().requires_grad_(False)
    constant = replace(corpus.test, maps=tuple(torch.full((len(i),), value) for i in corpus.test.ids))
    for test in TESTS.values():
        assert text_maps.run_test(test, with_zero_word(model), constant).n == len(constant)
    with pytest.raises(InputError, match="have no maps"):
        text_maps.run_test(TESTS["shuffle"], model, corpus.test)


# ---- readings ----


def test_a_map_is_shuffled_in_the_learner_that_was_trained_with_it(
    found: tuple[text_faithfulness.Findings, Path],
) -> None:
    """The test by its definition: the learner of each seed trained again, one text at a time."""
    corpus, findings = mini(), found[0]
    work = text_faithfulness._Work(corpus, MINI, Store(found[1]))
    work.train()
    parts, _ = work.maps("Saliency")
    words = len(corpus.vocabulary)
    texts, values = parts["test"], findings.tests["shuffle (in the learner)"]["Saliency"].values
    assert len(values) == len(texts)
    keys = np.random.default_rng(0).random((max(map(len, texts.ids)), 100))
    for i in (0, len(texts) - 1):
        ids, weights = texts.ids[i], texts.maps[i] / texts.maps[i].abs().sum()  # type: ignore[index]
        seen = []
        for learner in MINI.learner.learn(parts["train"], parts["valid"], texts, words)[1]:
            learner.requires_grad_(False)
            chance = partial(torch.softmax, dim=-1)
            before = chance(learner(ids[None], weights[None])[0])
            orders = keys[: len(ids)].argsort(0).T
            after = [chance(learner(ids[None], weights[None, order.copy()])[0]) for order in orders]
            seen.append(float(np.median([float((a - before).abs().sum() / 2) for a in after])))
        assert float(values[i]) == pytest.approx(np.mean(seen), abs=2e-3)


def test_what_becomes_of_a_hidden_token() -> None:
    """A word of embedding zero, the unknown word, and none, asked of a model that says which embeddings it saw."""
    torch.manual_seed(0)
    model = text_faithfulness.AttentionClassifier(6)
    wider = with_zero_word(model)
    assert torch.equal(wider(torch.tensor([[2, 5]])), model(torch.tensor([[2, 5]])))
    assert float(wider.embedding(torch.tensor(6)).detach().abs().max()) == 0  # type: ignore[operator]
    assert len(model.embedding.weight) == 6
    hidden = {
        name: repr(test.replacement)
        for name, test in AS_PUBLISHED_AND_BEFORE.tests(6).items()
        if "rate" in name
    }
    assert hidden == {
        "deletion rate (unknown word)": "Constant(value=1)",
        "deletion rate": "Delete(empty=0, padding=0)",
        "deletion rate (zero embedding)": "Constant(value=6)",
    }


def test_each_reading_is_a_column_and_those_before_are_kept(
    found: tuple[text_faithfulness.Findings, Path],
) -> None:
    lines: list[str] = []
    several = replace(
        MINI, readings=Readings(shuffle=("learner", "model"), norms=("L1", "L2"), kept=("best", "last"))
    )
    findings = run(mini(), several, Store(found[1], lines.append))
    assert {line.split("/")[0] for line in lines} == {
        "weak learner (L2)",
        "weak learner (last epoch)",
        "shuffle (L2)",
        "shuffle (in the learner, L2)",
        "shuffle (in the learner, last epoch)",
    }
    assert "deletion rate (unknown word)" not in findings.tests
    made = {table.title: table for table in tables([findings])}
    assert "Mean TVD when the map is shuffled (in the learner, L2)" in made
    rows = {row[0]: row[1] for row in made["Distance to the published means"].rows}
    assert rows.keys() >= {"deletion rate (deleted)", "shuffle (in the model)", "shuffle (in the model, L2)"}
    assert len(rows) == len(findings.tests) - 2  # comprehensiveness and sufficiency were not published
    for_uniform = findings.tests["weak learner (last epoch)"]["Uniform"].notes["learners"]
    assert [one["kept"] for one in for_uniform] == [1, 1]


def test_several_models_are_the_mean_of_each_document(tmp_path: Path) -> None:
    """By the scores of each model alone."""
    two = run(mini(), replace(MINI, models=(0, 1)), Store(tmp_path))
    alone = [run(mini(), replace(MINI, models=(seed,)), Store(tmp_path)) for seed in (0, 1)]
    for test in ("deletion rate (unknown word)", "shuffle (in the learner)"):
        values = [one.tests[test]["Saliency"].values for one in alone]
        torch.testing.assert_close(two.tests[test]["Saliency"].values, (values[0] + values[1]) / 2)
    assert two.tests["weak learner"]["Saliency"].n == 4
    text = "\n".join(table.markdown() for table in tables([two]))
    assert "| SST, seed 1 |" in text
    assert "Lowest and highest mean among the explained models" in text


# ---- how much ----


def test_documents_are_drawn_up_to_so_many_tokens() -> None:
    documents = mini().train
    some = draw_documents(documents, 50, seed=0)
    assert int(some.lengths.sum()) <= 50
    assert draw_documents(documents, 50, seed=0).fingerprint == some.fingerprint
    assert len(draw_documents(documents, 10**6, seed=0)) == len(documents)
    more = draw_documents(documents, 80, seed=0)
    assert [i.tolist() for i in more.ids[: len(some)]] == [i.tolist() for i in some.ids]
    assert first_within(torch.tensor([5, 5, 5]), 1) == 2
    assert first_within(torch.tensor([5]), 1) == 1


def test_settings_refuse_what_cannot_be_run() -> None:
    with pytest.raises(InputError, match="steps is 0"):
        Settings(steps=0)
    with pytest.raises(InputError, match="corpora is yelp; accepted: some of 20news"):
        Settings(corpora=("yelp",))
    with pytest.raises(InputError, match="models is \\(1, 1\\); accepted: at least one seed, each once"):
        Settings(models=(1, 1))
    with pytest.raises(
        InputError, match="hiding is gone; accepted: each once, some of unknown, deleted, zero"
    ):
        Readings(hiding=("gone",))
