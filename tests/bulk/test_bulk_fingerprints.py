"""A run is taken up again only if model, data, method and target are what they were, and always if they are."""

import os
import random
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

import apportion as ap
from apportion import InputError
from apportion.core import fingerprints
from apportion.core.fingerprints import file_fingerprint, fingerprint, model_fingerprint
from apportion.core.lasting_names import lasting_name
from apportion.engines.masking.replacements import Background

DATA = torch.randn(40, 30, 50, generator=torch.Generator().manual_seed(0))  # elided in its repr
A, B = DATA[0], DATA[1]
BIAS = 1.0


def changed(data=DATA, at=17):
    other = data.clone()
    other[at, 12, 25] += 1
    return other


class Own(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Going(IterableDataset):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return (item for item in self.items)  # only what it gives counts


class Augmented(Own):
    def __getitem__(self, index):
        return self.items[index] + torch.rand(1) + random.random()


class Scaled(nn.Module):
    def __init__(self, scale):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.scale = nn.Linear(4, 3), scale

    def forward(self, x):
        self.last = self.scale * self.inner(x)  # some keep such things for their pictures
        return self.last


class Opposite(Scaled):
    def forward(self, x):
        return -super().forward(x)


def explained(folder, model=None, data=None, method="saliency", **settings):
    if model is None:
        model = nn.Sequential(nn.Flatten(), nn.Linear(1500, 3))
        with torch.no_grad():
            [p.fill_(0.1) for p in model.parameters()]
    data = DATA if data is None else data
    return ap.explain_dataset(model, data, method, folder, batch=8, shard=16, progress=False, **settings)


SAME = {  # what is given, another of the same content, and a changed one
    "tensors": (DATA, DATA.clone(), changed()),
    "a list": (list(DATA), list(DATA.clone()), list(changed())),
    "dicts in a list": (
        [{"input": x} for x in DATA],
        [{"input": x} for x in DATA],
        [{"input": x} for x in changed()],
    ),
    "arrays": (list(DATA.numpy()), list(DATA.numpy()), list(changed().numpy())),
    "pairs": (TensorDataset(DATA, DATA), TensorDataset(DATA.clone(), DATA), TensorDataset(changed(), DATA)),
    "a part": tuple(Subset(TensorDataset(x), range(10)) for x in (DATA, DATA.clone(), changed(at=3))),
    "other places": tuple(Subset(TensorDataset(DATA), list(p)) for p in ([1, 2], [1, 2], [1, 3])),
    "a dataset": (Own(DATA), Own(DATA.clone()), Own(changed())),
    "a stream": (Going(DATA), Going(DATA.clone()), Going(changed())),
}


@pytest.mark.parametrize("name", SAME)
def test_data_that_changed_is_refused_and_data_that_did_not_is_not(tmp_path, name):
    data, same, other = SAME[name]
    explained(tmp_path, data=data)
    assert explained(tmp_path, data=same).complete
    with pytest.raises(InputError, match="data fingerprint was"):
        explained(tmp_path, data=other)


class Read(Own):
    """Its attributes tell nothing of what it reads."""

    def __getitem__(self, index):
        return torch.from_numpy(np.load(self.items[index]))


def test_a_dataset_that_reads_files_is_seen_by_its_samples(tmp_path):
    paths = [str(tmp_path / f"{i}.npy") for i in range(5)]
    for path, x in zip(paths, DATA, strict=False):
        np.save(path, x.numpy())
    explained(tmp_path / "run", data=Read(paths))
    assert explained(tmp_path / "run", data=Read(paths)).complete
    np.save(paths[2], B.numpy() + 1)
    with pytest.raises(InputError, match="data fingerprint was"):
        explained(tmp_path / "run", data=Read(paths))


def test_what_reads_differently_each_time_goes_on(tmp_path):
    before = torch.get_rng_state()
    run = explained(tmp_path, data=Augmented(DATA), shard_index=0, num_shards=2)
    assert not run.complete
    assert explained(tmp_path, data=Augmented(DATA)).complete
    torch.set_rng_state(before)


def test_a_name_in_place_of_a_look(tmp_path):
    explained(tmp_path, data=Own(DATA), fingerprint="second export")
    assert explained(tmp_path, data=Own(changed()), fingerprint="second export").complete
    with pytest.raises(InputError, match="data fingerprint was"):
        explained(tmp_path, data=Own(DATA), fingerprint="third export")


@pytest.mark.parametrize("listed", [False, True])
def test_a_picture_that_is_written_over_is_seen_and_a_copy_of_the_folder_is_the_same(tmp_path, listed):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(np.full((28, 28), 40 * i, np.uint8)).save(folder / f"{i}.bmp")

    def run(folder):
        data = [str(path) for path in sorted(folder.iterdir())] if listed else folder
        return explained(tmp_path / "run", "digits", data)

    run(folder)
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
        os.utime(copy / path.name, (1, 1))
    assert run(copy).complete
    size = (folder / "1.bmp").stat().st_size
    Image.fromarray(np.full((28, 28), 41, np.uint8)).save(folder / "1.bmp")
    assert (folder / "1.bmp").stat().st_size == size
    with pytest.raises(InputError, match="data fingerprint was"):
        run(folder)


def test_files_are_seen_at_their_begin_middle_and_end(tmp_path):
    path, content = tmp_path / "x", bytearray(100)
    found = set()
    for place in (None, 0, 45, 54, 99, 20):
        path.write_bytes(bytes(1 if i == place else b for i, b in enumerate(content)))
        found.add(file_fingerprint(path, 10))
    assert len(found) == 5  # at 20 nothing looks


def test_methods_are_more_than_what_they_print(tmp_path):
    def shap(background):
        return ap.KernelSHAP(samples=50, replacement=Background(background))

    model, data = nn.Linear(4, 2), torch.rand(10, 4)
    rows = torch.rand(5, 4)
    explained(tmp_path, model, data, shap(rows))
    assert explained(tmp_path, model, data, shap(rows.clone())).complete
    with pytest.raises(InputError, match="method fingerprint was"):
        explained(tmp_path, model, data, shap(rows + 1))


def picked(k):
    return lambda scores: scores[:, k]


def test_targets_are_told_apart_by_their_code(tmp_path):
    explained(tmp_path, target=lambda scores: scores[:, 0])
    assert explained(tmp_path, target=lambda scores: scores[:, 0]).complete
    for other in (lambda scores: scores[:, 1], lambda scores: scores[:, 0] - scores[:, 1], picked(0)):
        with pytest.raises(InputError, match=r"target was .*<lambda>"):
            explained(tmp_path, target=other)
    explained(tmp_path / "b", target=picked(0))
    assert explained(tmp_path / "b", target=picked(0)).complete
    with pytest.raises(InputError, match="target was"):
        explained(tmp_path / "b", target=picked(1))


def times(a):
    return lambda x: x @ a


def helper(x):
    return x + BIAS


def with_helper(x):
    return helper(x)


def alike(module):
    for weight in module.parameters():
        nn.init.ones_(weight)
    return module


MODELS = {
    "constants": (lambda x: 2 * x, lambda x: 2 * x, lambda x: 3 * x),
    "closures": (times(A.T), times(A.T.clone()), times(B.T)),
    "partial": tuple(partial(torch.mul, other=a) for a in (2, 2, 3)),
    "attributes": (Scaled(2.0), Scaled(2.0), Scaled(3.0)),
    "forward": (Scaled(2.0), Scaled(2.0), Opposite(2.0)),
    "mode": (nn.Dropout(), nn.Dropout(), nn.Dropout().eval()),
    "methods": (Scaled(2.0).forward, Scaled(2.0).forward, Scaled(3.0).forward),
    "nested": tuple(nn.Sequential(Scaled(a)) for a in (2, 2, 3)),
    "settings of torch's own modules": tuple(alike(nn.MultiheadAttention(8, a)) for a in (2, 2, 4)),
    "flags of torch's own modules": tuple(
        alike(nn.TransformerEncoderLayer(8, 2, norm_first=a)) for a in (False, False, True)
    ),
    "functions in torch's own modules": tuple(
        alike(nn.TransformerEncoderLayer(8, 2, activation=a)) for a in ("relu", "relu", "gelu")
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_are_told_apart_by_code_and_content(name):
    model, same, other = map(model_fingerprint, MODELS[name])
    assert model == same
    assert model != other


def test_a_configuration_of_a_package_belongs_to_its_model():
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 8, "vocab_size": 20}

    def bert(heads=2, **more):
        config = transformers.BertConfig(**sizes, num_attention_heads=heads, **more)
        return alike(transformers.BertForSequenceClassification(config).eval())

    before = model_fingerprint(bert())
    assert model_fingerprint(bert(name_or_path="elsewhere")) == before
    for other in (bert(heads=4), bert(layer_norm_eps=0.1), bert(problem_type="multi_label_classification")):
        assert model_fingerprint(other) != before
    model = bert()
    model(torch.ones(1, 3, dtype=torch.long))
    assert model_fingerprint(model) == before


def test_a_run_that_knew_less_of_its_model_goes_on_and_one_that_knew_more_is_refused(tmp_path, monkeypatch):
    def layer(heads):
        return alike(nn.Sequential(nn.TransformerEncoderLayer(8, heads), nn.Linear(8, 2))).eval()

    def run(folder, heads):
        data = torch.rand(6, 8, generator=torch.Generator().manual_seed(0))
        return ap.explain_dataset(layer(heads), data, "saliency", folder, progress=False)

    assert run(tmp_path / "now", 2).complete
    with pytest.raises(InputError, match="model fingerprint was"):
        run(tmp_path / "now", 4)
    with monkeypatch.context() as before:
        before.setattr(fingerprints, "_unseen_settings", lambda module: [])
        assert run(tmp_path / "then", 2).complete
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "then").rglob("*") if path.is_file()}
    assert run(tmp_path / "then", 2).complete
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_what_a_function_calls_belongs_to_it(monkeypatch):
    before = model_fingerprint(with_helper)
    monkeypatch.setattr(sys.modules[__name__], "BIAS", 2.0)
    assert model_fingerprint(with_helper) != before
    monkeypatch.undo()
    assert model_fingerprint(with_helper) == before
    monkeypatch.setattr(sys.modules[__name__], "helper", lambda x: x - BIAS)
    assert model_fingerprint(with_helper) != before


def test_a_model_that_was_used_is_the_same():
    model = Scaled(2.0)
    before = model_fingerprint(model)
    model(torch.rand(2, 4))
    assert model_fingerprint(model) == before


def test_a_factory_whose_file_is_edited_is_another_model(tmp_path):
    text = "import torch\nclass M(torch.nn.Module):\n    def forward(self, x): return {} * x[:, :3]\n"
    found = []
    for number, factor in enumerate((1, 1, -5)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "own.py").write_text(text.format(factor))
        found.append(model_fingerprint(ap.load(f"{folder / 'own.py'}:M")))
    assert found[0] == found[1] != found[2]


OURS = {  # of each kind that a run can be made of
    "method": lambda: ap.LRP(ap.Composite(first=ap.Flat(), names=(("head*", ap.Epsilon(0.1)),))),
    "its settings": lambda: ap.Occlusion(partition=ap.Words(), replacement=ap.Background(A)),
    "a method of it": lambda: ap.LRP().__call__,
    "a class": lambda: [ap.Saliency, ap.InputError],
    "a function": lambda: partial(ap.explain, method="lrp"),
    "target": lambda: ap.Contrast(0, 1),
    "texts": lambda: ap.load("sentiment"),
    "pictures": lambda: ap.load("digits"),
    "rows": lambda: ap.load("breast-cancer"),
    "a bag of words": lambda: ap.load(
        Path(__file__).parents[1] / "files_of_85d223a/bag-of-words.safetensors"
    ),
    "without a repr": lambda: [ap.ProtoPNet(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))],
    "a class of the user's on ours": lambda: type("Mine", (ap.Saliency,), {}),
}


@pytest.fixture
def moved(monkeypatch):
    """Says of every class and function of ours that its file is in another folder."""

    def move():
        for name, module in list(sys.modules.items()):
            if name.split(".")[0] != "apportion":
                continue
            elsewhere = name.replace("apportion", "apportion.elsewhere", 1)
            monkeypatch.setitem(sys.modules, elsewhere, module)
            for value in vars(module).values():
                if hasattr(value, "__qualname__") and getattr(value, "__module__", None) == name:
                    monkeypatch.setattr(value, "__module__", elsewhere)
        fingerprints._name.cache_clear()

    yield move
    monkeypatch.undo()
    fingerprints._name.cache_clear()


@pytest.mark.parametrize("name", OURS)
def test_a_file_of_ours_that_is_moved_changes_nothing(name, moved):
    thing = OURS[name]()
    before = fingerprint(thing)
    moved()
    assert ap.Saliency.__module__.startswith("apportion.elsewhere")
    assert fingerprint(thing) == before


def test_public_classes_and_functions_have_names_of_their_own(moved):
    public = [value for name in ap.__all__ if hasattr(value := getattr(ap, name), "__qualname__")]
    names = [lasting_name(value) for value in public]
    assert len(set(names)) == len(public) > 70
    moved()
    assert [lasting_name(value) for value in public] == names


def test_what_is_newer_goes_by_its_class():
    newer = type("Newer", (), {"__module__": "apportion.methods.some_file"})
    newest = type("Newest", (), {"__module__": "apportion.methods.some_file"})
    assert lasting_name(newer) == "apportion.Newer"
    assert fingerprint(newer) != fingerprint(newest)


def test_words_of_a_text_are_not_those_of_a_picture():
    from apportion.models.bag_of_words import _vocabulary as vocabulary

    assert lasting_name(vocabulary.VisualWords) != lasting_name(ap.Words)


def test_a_method_that_was_used_is_the_same():
    rows = torch.rand(20, 4, generator=torch.Generator().manual_seed(0))
    method = ap.LIME(samples=10, replacement=ap.Quartiles(rows))
    before = fingerprint(method)
    method(nn.Linear(4, 2), rows[:1], 0)
    assert fingerprint(method) == before


def test_a_method_that_prints_otherwise_goes_on(tmp_path, monkeypatch):
    explained(tmp_path)
    monkeypatch.setattr(ap.Saliency, "__repr__", lambda self: "Saliency(at=None, in_other_words=True)")
    assert explained(tmp_path).complete


def test_cycles_and_depth_end():
    ring = [1]
    ring.append(ring)
    deep = []
    for _ in range(5000):
        deep = [deep]
    assert fingerprint(ring) == fingerprint(ring)
    assert fingerprint(deep)


@pytest.mark.parametrize("seed", ["1", "2"])
def test_other_processes_find_the_same(seed):
    code = "import test_bulk_fingerprints as t; print(*t.everything())"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": seed},
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == everything()


def everything():
    values = (SAME["tensors"], MODELS, {"a", "b", "c"}, picked, Own, [Scaled], ap.load("sentiment"))
    return [fingerprint(value) for value in values]
