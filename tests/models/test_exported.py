"""Exported programs: those of the exporter load, and no file runs code when it is loaded or explained."""

import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

import apportion as ap
from apportion import InputError

RUN = "open('ran', 'w')"


class Pictures(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        self.constant = torch.ones(2)

    def forward(self, x):
        many = x.shape[0]
        return self.net(x).sum(1, keepdim=True) * many**2 / (many // 2 + 1) + self.constant


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.lstm = nn.Embedding(10, 4), nn.LSTM(4, 4, batch_first=True)
        self.layer, self.out = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), nn.Linear(4, 2)

    def forward(self, ids):
        states = self.lstm(self.embed(ids))[0]
        return {"logits": self.out(self.layer(states).mean(1))}


class Sizes(nn.Module):
    def forward(self, x):
        rows, columns = x.shape
        x = x.reshape(rows * columns).reshape(rows, columns)
        return torch.cat([x, x[:, : columns // 2]], 1)


class Branches(nn.Module):
    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda t: t.sin(), lambda t: t.cos(), (x,))


FREE = torch.export.Dim.AUTO
HONEST = {
    "pictures": (Pictures, lambda: torch.randn(3, 3, 8, 8), {0: FREE}),
    "words": (Words, lambda: torch.randint(0, 10, (3, 5)), {0: FREE, 1: FREE}),
    "sizes": (Sizes, lambda: torch.randn(4, 6), {0: FREE, 1: FREE}),
    "branches": (Branches, lambda: torch.randn(4, 6), {0: FREE}),
    "one size": (Sizes, lambda: torch.randn(4, 6), None),
}


def exported(kind: str, path: Path, strict: bool = False):
    made, inputs, sizes = HONEST[kind]
    model, x = made().eval(), inputs()
    shapes = None if sizes is None else (sizes,)
    torch.export.save(torch.export.export(model, (x,), dynamic_shapes=shapes, strict=strict), path)
    return model, x


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("kind", HONEST)
def test_what_the_exporter_writes_is_loaded(kind, strict, tmp_path):
    model, x = exported(kind, tmp_path / "good.pt2", strict)
    loaded = ap.load(tmp_path / "good.pt2").model
    torch.testing.assert_close(loaded(x), model(x))


class Pickled:
    def __reduce__(self):
        return exec, (RUN,)


def node(program):
    return program["graph_module"]["graph"]["nodes"][1]


def named(name):
    """A program whose input has another name, wherever it stands."""
    return lambda program: json.loads(json.dumps(program).replace('"x"', json.dumps(name)))


def set_target(target, *arguments):
    def change(program):
        node(program)["target"] = target
        node(program)["inputs"] = [{"name": "a", "arg": each, "kind": 1} for each in arguments]

    return change


def set_expression(text):
    def change(program):
        return json.loads(json.dumps(program).replace(first_expression(program), json.dumps(text)))

    return change


def first_expression(program):
    text = json.dumps(program).split('"expr_str": ')[1]
    return '"' + text[1:].split('", "hint"')[0] + '"'


def set_nesting(container, context):
    def change(program):
        signature = program["graph_module"]["module_call_graph"][0]["signature"]
        leaf = {"type": None, "context": None, "children_spec": []}
        signature["out_spec"] = json.dumps(
            [1, {"type": container, "context": context, "children_spec": [leaf]}]
        )

    return change


def set_guard(text):
    return lambda program: program["guards_code"].append(text)


def keyword(program):
    node(program)["inputs"][0].update(name=f"input=x, b={RUN}, c", kind=2)


def object_of_a_class(program):
    program["graph_module"]["graph"]["custom_obj_values"] = {"o": {"name": "o", "class_fqn": "a.B"}}


COMMAND = {"as_string": "touch ran"}
DEFAULTS = json.dumps({"default_factory_module": "this", "default_factory_name": "s", "dict_context": []})
PROGRAMS = {
    "an expression that imports": set_expression(f"__import__('builtins').exec({RUN!r})"),
    "an expression of an attribute": set_expression("Integer(1).__class__"),
    "an expression in a string": set_expression(f"Add('{RUN[:4]}(1)', Integer(1))"),
    "a symbol that is no name": set_expression("Symbol('a', b=Integer)"),
    "a power that never ends": set_expression("Pow(Pow(Integer(9), Integer(9)), Integer(9))"),
    "a large power": set_expression("Pow(Integer(9), Integer(999999999))"),
    "a very deep expression": set_expression("-" * 9999 + "1"),
    "a call of the system": set_target("torch.os.system", COMMAND),
    "a method of the operators": set_target("torch.ops.load_library", COMMAND),
    "an attribute of an operator": set_target("torch.ops.aten.relu.__class__", COMMAND),
    "a call of what was looked up": set_target("_operator.call", COMMAND),
    "an operator that writes": set_target("torch.ops.aten.save.default", COMMAND),
    "an operator that maps a file": set_target("torch.ops.aten.from_file.default", COMMAND),
    "an operator of debugging": set_target("torch.ops.debugprims.load_tensor.default", COMMAND),
    "an extension": set_target("#other:op", COMMAND),
    "a function as an argument": set_target("_operator.add", {"as_operator": "torch.os.system"}),
    "code in the name of an input": named(f"x={RUN}"),
    "a line in the name of an input": named(f"x):\n    {RUN}\n    def f(x"),
    "code in the name of an argument": keyword,
    "a container that imports": set_nesting("collections.defaultdict", DEFAULTS),
    "a key that imports": set_nesting("builtins.dict", '[{"__enum__": true, "fqn": "this:a", "name": "b"}]'),
    "a condition that is code": set_guard(RUN),
    "a condition that calls": set_guard("L['x'].size(open('ran', 'w')) == 1"),
    "an attribute in a condition": set_guard("L['x'].__class__ == 1"),
    "an object of a class": object_of_a_class,
}


def rewritten(path: Path, change, compression=zipfile.ZIP_STORED) -> None:
    """The archive with its members, by their names without the folder, as `change` leaves them."""
    with zipfile.ZipFile(path) as archive:
        files = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(files)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name if name.startswith("../") else f"{path.stem}/{name}", data)


@pytest.mark.parametrize("attack", PROGRAMS)
def test_a_program_that_would_do_something_else_is_refused_before_torch_reads_it(
    attack, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.export, "load", lambda *_: pytest.fail("torch reads it"))
    exported("pictures", Path("model.pt2"))

    def change(files):
        program = json.loads(files["models/model.json"])
        files["models/model.json"] = json.dumps(PROGRAMS[attack](program) or program).encode()

    rewritten(Path("model.pt2"), change)
    with pytest.raises(
        InputError, match=r"model 'model\.pt2' is not an exported program of tensors alone: it holds"
    ):
        ap.load("model.pt2")
    assert not Path("ran").exists()


def constant(place):
    def change(files):
        config = json.loads(files["data/constants/model_constants_config.json"])
        evil = {"path_name": place, "is_param": False, "use_pickle": True, "tensor_meta": None}
        config["config"]["evil"] = evil
        files["data/constants/model_constants_config.json"] = json.dumps(config).encode()
        files[f"data/constants/{place}"] = pickle.dumps(Pickled())

    return change


ARCHIVES = {
    "a pickled object": constant("opaque_obj_0"),
    "a pickled object in a folder": constant("opaque_obj_0/evil"),
    "a pickled object of torch": constant("custom_obj_0"),
    "a pickled object by another path": constant("tensor_0/../opaque_obj_1"),
    "a compiled library": lambda files: files.update({"data/aotinductor/model/model.so": b"\x7fELF"}),
    "a file outside": lambda files: files.update({"../evil": b""}),
    "a config without its parts": lambda files: files.update(
        {"data/weights/model_weights_config.json": b"[]"}
    ),
    "a very deep program": lambda files: files.update({"models/model.json": b"[" * 100_000}),
}


@pytest.mark.parametrize("attack", ARCHIVES)
def test_an_archive_that_holds_something_else_is_refused_before_torch_reads_it(attack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.export, "load", lambda *_: pytest.fail("torch reads it"))
    exported("pictures", Path("model.pt2"))
    rewritten(Path("model.pt2"), ARCHIVES[attack])
    with pytest.raises(InputError, match=r"model 'model\.pt2' is not an exported program"):
        ap.load("model.pt2")
    assert not Path("ran").exists()


def test_packed_and_repeated_members_are_refused(tmp_path):
    path = tmp_path / "model.pt2"
    exported("pictures", path)
    rewritten(path, lambda files: None, zipfile.ZIP_DEFLATED)  # a small file could fill the memory
    with pytest.raises(InputError, match="is not an exported program of tensors alone"):
        ap.load(path)
    exported("pictures", path)
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model/models/model.json", b"{}")
    with pytest.raises(InputError, match=r"it holds 'model/models/model\.json'"):
        ap.load(path)


def test_a_weight_that_is_a_pickle_is_not_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exported("pictures", Path("model.pt2"))
    torch.save(Pickled(), "object.pt")

    def change(files):
        for name in ("data/sample_inputs/model.pt", "data/weights/weight_0"):
            files[name] = Path("object.pt").read_bytes()
        config = json.loads(files["data/weights/model_weights_config.json"])
        next(iter(config["config"].values())).update(use_pickle=True)
        files["data/weights/model_weights_config.json"] = json.dumps(config).encode()

    rewritten(Path("model.pt2"), change)
    with pytest.raises(InputError, match="is not an exported program that this torch"):
        ap.load("model.pt2")
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("channels", "told"),
    [(3, "ImageNet mean and std"), (1, "grey from 0 to 1")],
)
def test_a_program_of_one_size_is_given_pictures_of_it_and_the_guess_is_told(tmp_path, channels, told):
    net = nn.Sequential(nn.Conv2d(channels, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 30 * 62, 2)).eval()
    torch.export.save(torch.export.export(net, (torch.zeros(1, channels, 32, 64),)), tmp_path / "m.pt2")
    picture = torch.randint(0, 255, (3, 100, 100), dtype=torch.uint8)
    found = ap.explain(ap.load(tmp_path / "m.pt2"), picture, "occlusion", target=1)
    assert found.values.shape == (1, channels, 32, 64)
    guess = f"preparation guessed: resized to 73, cropped to 64x32, {told}"
    assert any(each.startswith(guess) for each in found.warnings), found.warnings


def test_nothing_is_said_of_a_guess_where_the_preparation_is_known():
    found = ap.explain(ap.load("digits"), torch.zeros(3, 28, 28), "saliency")
    assert not [told for told in found.warnings if "guess" in told]
