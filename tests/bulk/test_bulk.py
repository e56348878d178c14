"""Whole data sets: what goes in, what is written, and how it is read again."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import IterableDataset, TensorDataset
from typer.testing import CliRunner

import apportion as ap
from apportion import InputError
from apportion.bulk import _shards as shards
from apportion.bulk.sources import open_source
from apportion.cli.app import app
from bulk_models import contents

pytest.importorskip("pyarrow")


def linear():
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def by_hand(model, data, method):
    """The values of each input, explained one by one."""
    return torch.cat([method(model, x[None]).values for x in data])


def explain(*args, **settings):
    return ap.explain_dataset(*args, **{"batch": 8, "shard": 16, "progress": False, **settings})


# ---- what is written ----


def test_every_input_is_explained_once_as_by_hand(tmp_path):
    model, data = linear(), torch.randn(50, 4)
    run = explain(model, data, "inputxgradient", tmp_path, precision="float32")
    rows = list(run.rows())
    assert [row["id"] for row in rows] == [str(i) for i in range(50)]
    assert len(run) == 50
    assert run.complete
    assert not list(run.errors())
    expected = by_hand(model, data, ap.InputXGradient())
    assert torch.allclose(torch.stack([values for _, values in run.maps()]), expected, atol=1e-6)
    whole = ap.InputXGradient()(model, data)
    assert np.allclose([row["sum"] for row in rows], whole.apportioned, atol=1e-6)
    assert np.allclose([row["remainder"] for row in rows], whole.remainder, atol=1e-6)
    assert [row["target"] for row in rows] == whole.target.tolist()
    assert np.allclose([row["output"] for row in rows], whole.output.detach(), atol=1e-6)
    assert {row["method"] for row in rows} == {repr(ap.InputXGradient())}
    assert len({row["model"] for row in rows}) == 1


def test_a_scale_for_each_map_keeps_what_float16_flushes_to_zero():
    torch.manual_seed(0)
    values = torch.randn(20, 64, 64) * 10.0 ** torch.empty(20, 64, 64).uniform_(-9, -5)
    found = shards.map_to_store(values, "float16", None, False)
    again = found["map"].float() * found["scale"].view(-1, 1, 1)
    assert float((values.half() == 0).float().mean()) > 0.3
    assert float(((again - values).abs() / values.abs()).max()) < 2**-11 * 1.01
    sums = values.double().sum((1, 2))
    assert float(((again.double().sum((1, 2)) - sums) / values.abs().double().sum((1, 2))).abs().max()) < 2e-4


@pytest.mark.parametrize("values", [torch.zeros(2, 3), torch.full((2, 3), 1e-38), torch.full((2, 3), -3e38)])
def test_extreme_maps_come_back(values):
    found = shards.map_to_store(values, "float16", None, False)
    assert torch.allclose(found["map"].float() * found["scale"][:, None], values, rtol=1e-3, atol=1e-38)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 7), (3, 20)])
def test_pooling_keeps_the_sum(height, width):
    values = torch.randn(2, height, width, dtype=torch.float64)
    small = shards.pool_map(values, 4)
    assert small.shape == (2, min(4, height), min(4, width))
    assert torch.allclose(small.sum((1, 2)), values.sum((1, 2)))


def test_the_same_settings_give_the_same_bytes(tmp_path):
    model, data = linear(), torch.randn(50, 4)
    for name in ("a", "b"):
        explain(model, data, "lime", tmp_path / name)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_json_lines_where_pyarrow_is_missing(tmp_path):
    run = explain(linear(), torch.randn(20, 4), "saliency", tmp_path, table="jsonl")
    assert (tmp_path / "shards/000000/rows.jsonl").exists()
    assert len(run.pandas()) == 20
    assert next(run.rows())["total"] is None


def test_reading_as_arrow_pandas_and_torch(tmp_path):
    run = explain(linear(), torch.randn(20, 4), "inputxgradient", tmp_path)
    assert run.arrow().count_rows() == 20
    assert list(run.pandas()["index"]) == list(range(20))
    values, row = run.torch()[17]
    assert row["id"] == "17"
    assert values.shape == (4,)
    assert run[-1]["id"] == "19"
    with pytest.raises(IndexError):
        run[20]
    again = run.explanation(3)
    assert abs(float(again.remainder) - run[3]["remainder"]) < 1e-3
    run[3]["id"] = "changed"
    assert run[3]["id"] == "3"


def test_a_damaged_file_is_noticed_and_made_anew(tmp_path):
    model, data = linear(), torch.randn(40, 4)
    run = explain(model, data, "inputxgradient", tmp_path)
    good = contents(tmp_path)
    path = tmp_path / "shards/000001/maps.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert run.check() == [str(path)]
    path.write_bytes(path.read_bytes()[:-1])  # of another size: no need to read it
    assert len(ap.open_run(tmp_path).shards) == 2
    explain(model, data, "inputxgradient", tmp_path)
    assert contents(tmp_path) == good


# ---- what goes in ----


def test_texts_of_different_lengths_with_their_words(tmp_path):
    path = tmp_path / "reviews.jsonl"
    texts = ["a dull film", "funny and warm", "I did not like it at all", "superb", "   ", "a warm film"]
    path.write_text("".join(json.dumps({"review": t, "n": f"r{i}"}) + "\n" for i, t in enumerate(texts)))
    run = explain("sentiment", path, "lrp", tmp_path / "run", id_column="n", precision="float32")
    rows = {row["id"]: row for row in run.rows()}
    assert list(rows) == ["r0", "r1", "r2", "r3", "r5"]
    assert rows["r2"]["features"] == ["I", "did", "not", "like", "it", "at", "all"]
    alone = ap.explain(ap.load("sentiment"), texts[2], "lrp")
    assert np.allclose(rows["r2"]["relevance"], alone.relevance()[1], atol=1e-5)
    assert rows["r2"]["target_label"] == "negative"
    (error,) = run.errors()
    assert (error["id"], error["stage"]) == ("r4", "read")
    assert run.explanation(2).top(1)[0][0] in rows["r2"]["features"]
    assert json.loads((tmp_path / "run/errors.jsonl").read_text()) == error


def test_methods_that_hide_words_know_them(tmp_path):
    texts = ["not a dull film", "a warm, funny film", "superb"]
    run = explain("sentiment", texts, "occlusion", tmp_path)
    alone = ap.explain(ap.load("sentiment"), texts[0], "occlusion")
    assert np.allclose(run[0]["relevance"], alone.relevance()[1], atol=1e-5)


def test_tables_and_ragged_rows(tmp_path):
    from sklearn.datasets import load_breast_cancer

    frame = load_breast_cancer(as_frame=True).data[:20]
    path = tmp_path / "rows.csv"
    frame.to_csv(path, index=False)
    with path.open("a") as file:
        file.write("1,2,3\n")
    run = explain("breast-cancer", path, "inputxgradient", tmp_path / "run")
    assert len(run) == 20
    assert [error["id"] for error in run.errors()] == ["20"]
    assert run[0]["features"][0].startswith("mean radius = ")
    assert run.explanation(0).relevance()[0][0].startswith("mean radius = ")
    in_memory = explain("breast-cancer", frame, "inputxgradient", tmp_path / "frame")
    assert [row["sum"] for row in in_memory.rows()] == [row["sum"] for row in run.rows()]


def test_pictures_in_folders_and_in_parquet(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    folder, stored = tmp_path / "data", []
    (folder / "one").mkdir(parents=True)
    for i in range(5):
        picture = Image.fromarray((rng.random((28, 28)) * 255).astype(np.uint8))
        picture.save(folder / "one" / f"{i}.png")
        stored.append({"bytes": (folder / "one" / f"{i}.png").read_bytes(), "path": f"{i}.png"})
    (folder / "one" / "bad.png").write_bytes(b"\x89PNG broken")
    (folder / "notes.md").write_text("no picture")
    run = explain("digits", folder, "lrp", tmp_path / "run", pool=7)
    assert [row["id"] for row in run.rows()] == [f"one/{i}.png" for i in range(5)]
    assert run.map(0).shape == (7, 7)
    assert abs(float(run.map(0).sum()) - run[0]["sum"]) < 1e-2
    (error,) = run.errors()
    assert error["id"] == "one/bad.png"
    assert "Pillow" in error["message"]
    pq.write_table(
        pa.table({"image": stored, "name": list("abcde")}), tmp_path / "all.parquet", row_group_size=2
    )
    table = explain("digits", tmp_path / "all.parquet", "lrp", tmp_path / "table", pool=7, id_column="name")
    assert [row["id"] for row in table.rows()] == list("abcde")
    assert [row["sum"] for row in table.rows()] == pytest.approx([row["sum"] for row in run.rows()], rel=1e-4)


def test_array_files_and_datasets_agree(tmp_path):
    from safetensors.torch import save_file

    model, data = linear(), torch.randn(20, 4)

    class Endless(IterableDataset):
        def __iter__(self):
            return iter(data)

    np.save(tmp_path / "x.npy", data.numpy())
    save_file({"x": data}, tmp_path / "x.safetensors")
    torch.save(data, tmp_path / "x.pt")
    given = [tmp_path / "x.npy", tmp_path / "x.safetensors", tmp_path / "x.pt", data.numpy(), list(data)]
    given += [TensorDataset(data, torch.zeros(20)), Endless()]
    sums = []
    for number, one in enumerate(given):
        run = explain(model, one, "inputxgradient", tmp_path / str(number))
        sums.append([row["sum"] for row in run.rows()])
    assert all(other == sums[0] for other in sums)


def test_models_of_several_inputs(tmp_path):
    class Both(nn.Module):
        def forward(self, a, b):
            return (a.sum(1) * b.sum(1))[:, None]

    data = {"a": torch.rand(10, 2), "b": torch.rand(10, 3)}
    run = explain(Both(), data, "inputxgradient", tmp_path)
    assert {key: values.shape for key, values in run.map(4).items()} == {"a": (2,), "b": (3,)}
    assert run[4]["sum"] == pytest.approx(2 * float(data["a"][4].sum() * data["b"][4].sum()), rel=1e-5)


def test_interactions_of_a_data_set(tmp_path):
    def product(x):
        return x[:, :1] * x[:, 1:2] + x[:, 2:]

    run = explain(product, torch.rand(10, 3), "ih", tmp_path, precision="float32")
    assert run.map(0).shape == (3, 3)
    assert abs(run[0]["remainder"]) < 1e-3
    assert len(run[0]["features"]) == 3


def test_a_class_for_each_input(tmp_path):
    data, classes = torch.randn(20, 4), torch.arange(20) % 3
    run = explain(linear(), data, "inputxgradient", tmp_path, target=classes)
    assert [row["target"] for row in run.rows()] == classes.tolist()
    for wrong in ([1, 2], [0.9] * 20, [True] * 20, ["a"] * 20, torch.ones(20)):
        with pytest.raises(InputError, match=r"accepted: (one|a) class index"):
            explain(linear(), data, "lrp", tmp_path / "b", target=wrong)
    assert not (tmp_path / "b").exists()


# ---- what goes wrong ----


class Touchy(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = linear()

    def forward(self, x):
        if bool((x[:, 0] > 90).any()):
            raise RuntimeError("too large")
        return self.linear(x) + torch.where(x[:, :1] < -90, float("nan"), 0.0)


def test_samples_that_fail_are_listed_and_cost_the_others_nothing(tmp_path):
    data = torch.randn(40, 4)
    data[5, 0], data[17, 0], data[18, 1] = 99.0, -99.0, float("inf")
    run = explain(Touchy(), data, "inputxgradient", tmp_path, precision="float32")
    errors = {row["id"]: row for row in run.errors()}
    assert set(errors) == {"5", "17", "18"}
    assert errors["5"]["message"] == "too large"
    assert "NaN" in errors["17"]["message"]
    assert len(run) == 37
    assert run.complete
    assert run.failed == 3
    with pytest.raises(InputError, match=r"5: explain: RuntimeError: too large \(--strict\)"):
        explain(Touchy(), data, "inputxgradient", tmp_path / "strict", strict=True)
    assert len(ap.open_run(tmp_path / "strict")) == 0


def test_other_settings_are_refused_with_their_names(tmp_path):
    model, data = linear(), torch.randn(20, 4)
    explain(model, data, "inputxgradient", tmp_path)
    before = contents(tmp_path)
    other = linear()
    other.weight.data[0, 0] += 1
    changes = [
        ({"method": "saliency"}, "method was InputXGradient"),
        ({"model": other}, "model fingerprint was"),
        ({"data": data + 1}, "data fingerprint was"),
        ({"data": data[:19]}, "inputs was 20, now 19"),
        ({"precision": "float32"}, "precision was float16, now float32"),
        ({"target": 1}, "target was None, now 1"),
        ({"batch": 4, "shard": 5}, "batch was 8, now 4; shard was 16, now 5"),
    ]
    for change, message in changes:
        given = {"model": model, "data": data, "method": "inputxgradient", "out": tmp_path, **change}
        with pytest.raises(InputError, match=message):
            explain(given.pop("model"), given.pop("data"), given.pop("method"), given.pop("out"), **given)
    assert contents(tmp_path) == before
    ap.explain_dataset(model, data, "inputxgradient", tmp_path, progress=False)  # what is left open fits


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ""])
def test_another_column_is_another_run_and_the_default_one_is_not(tmp_path, suffix):
    import pandas as pd

    frame = pd.DataFrame({"text": ["a dull film"] * 5, "other": ["superb"] * 5, "key": list("abcde")})
    data = tmp_path / f"data{suffix}"
    write = {".csv": frame.to_csv, ".parquet": frame.to_parquet}.get(suffix)
    if suffix == ".jsonl":
        frame.to_json(data, orient="records", lines=True)
    elif write is not None:
        write(data, index=False)
    given = data if suffix else frame
    run = explain("sentiment", given, "inputxgradient", tmp_path / "run")
    assert run.manifest.column == "text"
    assert len(explain("sentiment", given, "inputxgradient", tmp_path / "run", column="text")) == 5
    with pytest.raises(InputError, match="column was text, now other; id column was None, now key"):
        explain("sentiment", given, "inputxgradient", tmp_path / "run", column="other", id_column="key")
    for wrong in ({"column": "txt"}, {"id_column": "txt"}):
        with pytest.raises(InputError, match=r"no column 'txt'.* name one of: text, other, key"):
            explain("sentiment", given, "inputxgradient", tmp_path / "run", **wrong)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ".feather", ""])
def test_an_id_that_stands_there_twice_is_refused_before_anything_is_written(tmp_path, suffix):
    import pandas as pd

    frame = pd.DataFrame({"text": ["a dull film"] * 4, "key": ["a", "b", "c", "b"], "other": range(4)})
    data = tmp_path / f"data{suffix}"
    if suffix == ".jsonl":
        frame.to_json(data, orient="records", lines=True)
    elif suffix == ".feather":
        frame.to_feather(data)
    elif suffix:
        {".csv": frame.to_csv, ".parquet": frame.to_parquet}[suffix](data, index=False)
    given = data if suffix else frame
    with pytest.raises(InputError, match="column 'key' has 3 ids for 4 inputs: 'b' is there 2 times"):
        explain("sentiment", given, "inputxgradient", tmp_path / "run", id_column="key")
    assert not (tmp_path / "run").exists()
    run = explain("sentiment", given, "inputxgradient", tmp_path / "run", id_column="other")
    assert [row["id"] for row in run.rows()] == list("0123")


def test_what_is_no_table_has_no_column_to_name(tmp_path):
    (tmp_path / "x.txt").write_text("a dull film\n")
    np.save(tmp_path / "x.npy", np.zeros((2, 4), np.float32))
    for data in (tmp_path / "x.txt", tmp_path / "x.npy", torch.zeros(2, 4)):
        with pytest.raises(InputError, match=r"no column 'a'.* the data have no columns"):
            open_source(data, column="a")
        with pytest.raises(InputError, match=r"no column 'a' for the id; the data have no columns"):
            open_source(data, id_column="a")


def test_settings_that_fit_no_input_are_told_at_once(tmp_path):
    with pytest.raises(InputError, match="none of the 16 inputs that were tried"):
        explain(linear(), torch.randn(40, 5), "inputxgradient", tmp_path)
    assert not list(tmp_path.iterdir())


def test_shards_of_a_fast_model_are_large_and_of_a_slow_one_small(tmp_path, monkeypatch):
    from apportion.bulk import _probing as probing

    for name, seconds, rows in (("fast", 1e-4, 1000), ("slow", 10.0, 32)):
        monkeypatch.setattr(probing, "_fastest", lambda job, model, batch, s=seconds: s * len(batch))
        run = ap.explain_dataset(
            linear(), torch.randn(1000, 4), "saliency", tmp_path / name, batch=8, progress=False
        )
        assert run.manifest.shard == rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"engine": "spark"}, "accepted: local, ray"),
        ({"shard_index": 2, "num_shards": 2}, "accepted: 0 to 1"),
        ({"batch": 0}, "batch is 0"),
        ({"precision": "float8"}, "accepted: float16, float32"),
        ({"target": "cat"}, "no class names"),
        ({"data": []}, "holds no inputs"),
        ({"data": "nowhere"}, "no such file or folder"),
        ({"data": 5}, "data is int"),
        ({"method": "lpr"}, "did you mean 'lrp'"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path, change, message):
    given = {"data": torch.rand(20, 4), "method": "lrp", **change}
    with pytest.raises(InputError, match=message):
        explain(linear(), given.pop("data"), given.pop("method"), tmp_path, **given)


def test_a_newer_or_damaged_manifest_is_refused(tmp_path):
    run = explain(linear(), torch.rand(5, 4), "lrp", tmp_path)
    path = run.folder / "manifest.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 99'))
    with pytest.raises(InputError, match="schema 99"):
        ap.open_run(tmp_path)
    path.write_text("{")
    with pytest.raises(InputError, match="not the manifest"):
        ap.open_run(tmp_path)
    with pytest.raises(InputError, match="holds no run"):
        ap.open_run(tmp_path / "elsewhere")


def test_columns_that_are_missing_are_told(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps({"words": "fine film", "n": i}) + "\n" for i in range(10)))
    with pytest.raises(InputError, match="name one of: words, n"):
        explain("sentiment", path, "lrp", tmp_path / "run")
    assert len(explain("sentiment", path, "lrp", tmp_path / "run", column="words")) == 10
    (tmp_path / "folder").mkdir()
    path.rename(tmp_path / "folder" / "x.jsonl")
    with pytest.raises(InputError, match=r"has no pictures; it has 1 \.jsonl"):
        open_source(tmp_path / "folder", "image")


def test_a_model_is_left_as_it_was(tmp_path, untouched, cnn):
    model, x = cnn
    untouched(model)
    explain(model, x, "lrp", tmp_path)


# ---- side by side, and the command ----


def test_jobs_side_by_side_make_one_run(tmp_path):
    model, data = linear(), torch.randn(50, 4)
    explain(model, data, "inputxgradient", tmp_path / "whole")
    for index in (2, 0, 1):
        run = explain(model, data, "inputxgradient", tmp_path / "parts", shard_index=index, num_shards=3)
        assert run.complete == (index == 1)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    for i in range(6):
        Image.fromarray(np.full((28, 28), 40 * i, np.uint8)).save(f"data/{i}.png")
    Path("data/x.png").write_text("no")
    base = ["bulk", "--model", "digits", "--data", "data", "--out", "run", "--workers", "1"]
    found = CliRunner().invoke(app, [*base, "--method", "saliency"])
    assert found.exit_code == 0, found.output
    assert "6 of 7 inputs explained" in found.output
    assert "1 input failed" in found.stderr
    again = CliRunner().invoke(app, [*base, "--method", "lrp"])
    assert again.exit_code == 2
    assert "method was Saliency(at=None), now LRP(" in again.stderr
    strict = CliRunner().invoke(app, [*base[:-4], "--out", "strict", "--workers", "1", "--strict"])
    assert strict.exit_code == 2
    assert "x.png" in strict.stderr
    checked = CliRunner().invoke(app, ["runs", "check", "run"])
    assert "6 explained and 1 failed of 7 inputs" in checked.output
