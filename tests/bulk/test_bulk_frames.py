"""Frames keep their index as ids, and files without a header have numbers for columns."""

import math

import numpy as np
import pandas
import pytest
import torch

import apportion as ap
from apportion import InputError
from apportion.domains.tabular import parse_csv

LENGTH = ap.RawText().classifier(lambda texts: [float(len(text)) for text in texts], name="length")


def explained(data, folder, **more):
    run = ap.explain_dataset(LENGTH, data, "occlusion", folder, progress=False, **more)
    assert run.failed == 0
    return {row["id"]: row["output"] for row in run.rows()}


def test_the_index_of_a_frame_is_its_ids(tmp_path):
    frame = pandas.DataFrame(
        {"text": ["one", "three", "eleven"], "key": ["x", "y", "z"]}, index=["a", 7, "c"]
    )
    right = {"a": [3.0], "7": [5.0], "c": [6.0]}
    assert explained(frame, tmp_path / "frame") == right
    assert explained(frame.text, tmp_path / "column") == right
    assert explained(frame[::-1], tmp_path / "turned") == right
    assert list(explained(frame, tmp_path / "named", id_column="key")) == ["x", "y", "z"]
    twice = pandas.concat([frame, frame])
    assert list(explained(twice, tmp_path / "twice")) == ["0", "1", "2", "3", "4", "5"]


def test_columns_of_a_file_without_a_header_are_numbers(tmp_path):
    bare, named = tmp_path / "bare.csv", tmp_path / "named.csv"
    bare.write_text('3,"Fears, for T N",w1\n3,Fears,w2\n4,a race in space,w3\n')
    named.write_text("0,1,2\n3,Fears,w1\n")
    assert explained(bare, tmp_path / "a", column="1", id_column="2") == {
        "w1": [14.0],
        "w2": [5.0],
        "w3": [15.0],
    }
    assert explained(named, tmp_path / "b", column="1") == {"0": [5.0]}
    assert parse_csv(bare, by_number=True)[0] == ["0", "1", "2"]
    with pytest.raises(InputError, match="without a header, the number of the column, from 0"):
        explained(bare, tmp_path / "c")
    with pytest.raises(InputError, match="there is no column '9'; name one of: 0, 1, 2"):
        explained(bare, tmp_path / "d", column="9")


def mixed_table(rows=300):
    draw = np.random.default_rng(0)
    frame = pandas.DataFrame(
        {
            "size": draw.normal(size=rows).round(2),
            "colour": draw.choice(["red", "blue", "green"], rows),
            "times": draw.integers(0, 9, rows),
            "note": [f"row {i}" for i in range(rows)],  # no two alike, and none of the background
        }
    )
    frame.loc[::7, "size"] = math.nan
    return frame


def score(frame):
    return (
        frame["size"].fillna(0.5) * frame["times"]
        + 3 * (frame["colour"] == "red")
        + frame["note"].map(lambda text: int(text[4:]) % 5)
    ).to_numpy(float)


@pytest.mark.parametrize("batch", [None, 7])
def test_a_run_over_a_frame_has_the_values_of_its_rows_explained_alone(tmp_path, batch):
    frame = mixed_table(40)
    model = ap.Tabular(score, background=frame[:9], name="score")
    run = ap.explain_dataset(
        model, frame, "kernelshap", tmp_path, batch=batch, precision="float32", progress=False
    )
    whole = ap.explain(model, frame, "kernelshap")
    for i, (row, values) in enumerate(run.maps()):
        alone = ap.explain(model, frame.iloc[[i]], "kernelshap")
        assert torch.equal(values, whole.values[i].float())
        torch.testing.assert_close(values, alone.values[0].float())
        names, told = alone.relevance()
        assert row["features"] == list(names)
        assert row["relevance"] == pytest.approx(told.tolist(), abs=1e-5)
        assert row["warnings"] == list(alone.warnings)


@pytest.mark.parametrize("batch", [None, 8])
def test_of_rows_that_are_read_together_each_bad_one_is_named_alone(tmp_path, batch):
    rows = mixed_table(40).to_dict("records")
    del rows[5]["colour"]
    rows[17]["times"] = "many"
    model = ap.Tabular(score, background=mixed_table(9), name="score")
    run = ap.explain_dataset(model, rows, "kernelshap", tmp_path, batch=batch, progress=False)
    assert {(row["index"], row["stage"]) for row in run.errors()} == {(5, "read"), (17, "read")}
    assert "column 'times': 'many' is no number" in {row["index"]: row["message"] for row in run.errors()}[17]
    assert [row["index"] for row in run.rows()] == [i for i in range(40) if i not in (5, 17)]


def test_tensors_of_several_shapes_and_bad_ones_keep_their_order(tmp_path):
    data = [torch.full((4 if i % 3 else 6,), float(i + 1)) for i in range(30)]
    data[8] = torch.full((4,), math.inf)
    run = ap.explain_dataset(
        lambda x: x.sum(1, keepdim=True),
        data,
        "occlusion",
        tmp_path,
        batch=4,
        precision="float32",
        progress=False,
    )
    assert [row["index"] for row in run.errors()] == [8]
    kept = {row["index"]: values for row, values in run.maps()}
    assert list(kept) == [i for i in range(30) if i != 8]
    for i, values in kept.items():
        assert torch.equal(values, data[i])


def test_each_sample_of_a_batch_is_warned_of_as_alone():
    x = torch.tensor([[1.0, 1.0], [1.0, -0.9], [0.0, 0.0], [3.0, 1.0]])
    found = ap.InputXGradient()(lambda x: (x.sum(1) + 1)[:, None], x)
    assert found.warnings_of_each == [found[i].warnings for i in range(4)]
    assert found.warnings_of_each[0] != found.warnings_of_each[1]
    assert [bool(told) for told in found.warnings_of_each] == [True, True, True, False]
    quiet = ap.InputXGradient()(lambda x: x.sum(1)[:, None], x)
    assert quiet.warnings_of_each == [()] * 4


def test_a_batch_is_as_large_as_makes_what_each_call_takes_little(monkeypatch):
    """Of a call that takes c and r for each row: where c is at most a sixteenth of what the rows take."""
    from types import SimpleNamespace as Made

    from apportion.bulk import _probing as probing
    from apportion.bulk._batches import Samples

    def chosen(call, each, model=None, inputs=10**5):
        monkeypatch.setattr(probing, "_fastest", lambda job, model, batch: call + each * len(batch))
        good = [Samples(tuple(range(16)), torch.zeros(16, 3))]
        job = Made(manifest=Made(inputs=inputs))
        return probing.best_batch(job, model, good, 1, call + each * 16)

    batch, seconds = chosen(0.15, 0.0005)
    assert batch == 8192
    assert seconds == pytest.approx(0.0005 + 0.15 / 8192, rel=1e-6)
    assert chosen(0.15, 0.0005, inputs=5000)[0] == 5000
    assert chosen(0.0, 0.001)[0] == 16
    assert (
        chosen(0.01, 0.001, torch.nn.Linear(3, 1))[0] <= 512
    )  # a network runs at no size that was not tried
