"""The command line as a person meets it: what it prints, writes and refuses."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file
from typer.testing import CliRunner

import apportion as ap
from apportion import LRP, Explanation, InputError
from apportion.cli.app import app
from apportion.cli.lists import split
from apportion.display import terminal
from apportion.display.views import BarsView
from apportion.engines.masking.engine import Masking
from apportion.evaluation.curves import read_answers
from apportion.models import SHIPPED, load
from apportion.pipeline.given import read_tensors, recognise
from apportion.results.result import decision

SENTENCE = "The plot is thin, but the acting is superb."

MODELS = """
import torch
from torch import nn

from apportion import Classifier
from apportion.core.features import TextFeatures

def linear():
    torch.manual_seed(0)
    return nn.Linear(4, 3)

def half():
    return linear().half()

def pictures():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 28 * 28, 3))

class NaN(nn.Module):
    def forward(self, x):
        return x.sum(1, keepdim=True) * torch.tensor([1.0, float("nan")])

class Buggy(nn.Module):
    def forward(self, x):
        raise KeyError("inside the model")

def broken():
    raise RuntimeError("no weights\\nsecond line")

def wrong():
    return 5

def text():
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, 2))
    def encode(text):
        words = text.split()
        if len(words) != 2:
            raise ValueError("this model takes two words")
        spans = tuple((text.index(w), text.index(w) + len(w)) for w in words)
        return torch.tensor([[len(w) % 9 for w in words]]), TextFeatures(text, tuple(words), spans, (0, 1))
    return Classifier(model, encode, ("short", "long"), "text", "lengths")

linear.buggy = lambda: (_ for _ in ()).throw(ValueError)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory with a file of models, tensors and pictures."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MODELS)
    digit = np.zeros((28, 28), np.uint8)
    digit[4:24, 13:16] = 255
    Image.fromarray(digit).save("one.png")
    Image.fromarray(np.full((40, 50, 3), 90, np.uint8)).save("photo.jpg")
    np.save("x.npy", np.arange(8.0).reshape(2, 4))
    Path("review.txt").write_text("A dull film.\n", encoding="utf-8")
    Path("fake.jpg").write_text("not a picture")
    Path("weights.pth").write_bytes(b"")
    Path("others.csv").write_text("a,b\n1,2\n")
    Path("folder").mkdir()
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)


def refused(*arguments):
    """The one line that a mistake gets."""
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("apportion: error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


# ---- what works ----


def test_a_sentence(here):
    result = run("explain", SENTENCE)
    assert result.exit_code == 0
    assert "sentiment: positive" in result.stdout
    assert "superb" in result.stdout
    assert "explained 0.583 of 0.583: ≈ 0 left over" in result.stdout
    assert "DeepLIFT(" in result.stdout
    assert "chosen: faithful on networks" in result.stdout
    assert "3 forward and 1 backward pass" in result.stdout
    assert not Path("apportion-out").exists()
    assert result.stderr == ""


def test_a_picture_is_written_into_a_folder(here):
    result = run("explain", "one.png", "--model", "digits", "--method", "ig")
    assert result.exit_code == 0
    assert "digits: 1" in result.stdout
    for suffix in ("html", "png", "safetensors"):
        assert Path(f"apportion-out/one-integratedgradients.{suffix}").is_file()
    assert "wrote apportion-out/one-integratedgradients.html" in result.stdout
    assert Explanation.load("apportion-out/one-integratedgradients.safetensors").notes["input"] == "one.png"


def test_files_of_one_explanation_do_not_replace_those_of_another(here):
    Path("other").mkdir()
    Image.fromarray(255 - np.asarray(Image.open("one.png"))).save("other/one.png")
    asked = ("--model", "digits", "--out", "out", "--method")
    for given, method in (
        ("one.png", "gradcam"),
        ("other/one.png", "gradcam"),
        ("one.png", "lrp"),
        ("one.png", "LRP('epsilon', bias='place')"),
        ("one.png", "gradcam"),  # the first again
    ):
        assert run("explain", given, *asked, method).exit_code == 0
    run("explain", "one.png", *asked, "gradcam", "--target", "7")
    stems = [
        "one-gradcam",
        "one-gradcam-2",
        "one-gradcam-3",
        "one-lrp",
        "one-lrp-composite-epsilon-bias-place",
    ]
    assert sorted(path.stem for path in Path("out").glob("*.html")) == stems
    assert Explanation.load("out/one-gradcam-3.safetensors").label() == "7"
    assert "ends in .html" in run("explain", "one.png", "--model", "digits", "--html", "page.txt").stderr


def test_a_row_of_a_table(here):
    columns = load("breast-cancer").encode.columns
    Path("rows.csv").write_text(
        "\n".join(
            [",".join(c.name for c in columns), *(",".join(str(c.mean + k) for c in columns) for k in (0, 9))]
        )
    )
    first, second = (run("explain", "rows.csv", "--row", k, "--method", "inputxgradient") for k in (0, 1))
    assert first.exit_code == second.exit_code == 0
    assert first.stdout != second.stdout
    assert " = " in second.stdout
    named = json.loads(run("explain", "rows.csv", "--row", 1, "--json").stdout)
    assert named["input"] == "rows.csv, row 1"
    assert "no row 2" in refused("explain", "rows.csv", "--row", 2)
    assert "no column" in refused("explain", _csv("short.csv", "a,b\n1,2\n"))


def _csv(name, text):
    Path(name).write_text(text)
    return name


def test_a_text_file_and_where_it_is_asked_to_write(here):
    result = run("explain", "review.txt", "--html", "new/page.html", "--png", "p.png", "--target", "negative")
    assert result.exit_code == 0
    assert Path("new/page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert Image.open("p.png").format == "PNG"


def test_json_and_nothing_else(here):
    result = run(
        "explain", SENTENCE, "--json", "--method", "IntegratedGradients(nodes=4)", "--target", "negative"
    )
    found = json.loads(result.stdout)
    assert found["method"].startswith("IntegratedGradients(baseline='mask', nodes=4")
    assert found["target_label"] == "negative"
    assert found["prediction"]["label"] == "positive"
    assert found["total"] == pytest.approx(found["apportioned"] + found["remainder"])
    assert sum(f["value"] for f in found["features"]) == pytest.approx(found["apportioned"], abs=1e-5)


def test_a_model_from_a_file_at_an_inner_layer(here):
    result = run(
        "explain",
        "photo.jpg",
        "--model",
        "mine.py:pictures",
        "--layer",
        "1",
        "--method",
        "inputxgradient",
        "--json",
    )
    found = json.loads(result.stdout)
    assert found["kind"] == "heat"
    assert found["prediction"]["label"].startswith("class ")
    assert not Path("apportion-out").exists()


def test_a_model_from_a_module_in_the_working_directory(here):
    assert "lengths: " in run("explain", "two words", "--model", "mine:text", "--method", "saliency").stdout
    sys.modules.pop("mine", None)


@pytest.mark.parametrize("suffix", ["npy", "pt", "safetensors"])
def test_tensors(here, suffix):
    x = torch.tensor(np.load("x.npy"))
    torch.save(x, "x.pt")
    save_file({"x": x}, "x.safetensors")
    result = run(
        "explain",
        f"x.{suffix}",
        "--model",
        "mine.py:linear",
        "--row",
        "1",
        "--method",
        "inputxgradient",
        "--json",
    )
    assert [f["name"] for f in json.loads(result.stdout)["features"]] == [
        "input[0]",
        "input[1]",
        "input[2]",
        "input[3]",
    ]


def test_a_model_in_half_precision_takes_doubles(here):
    assert run("explain", "x.npy", "--model", "mine.py:half", "--method", "inputxgradient").exit_code == 0


def test_an_exported_program_explains_as_its_source(here):
    sys.path.insert(0, str(here))
    try:
        import mine
    finally:
        sys.path.remove(str(here))
        sys.modules.pop("mine", None)
    model, x = mine.linear().eval(), torch.tensor(np.load("x.npy"), dtype=torch.float32)
    dynamic = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(model, (x,), dynamic_shapes=dynamic), "net.pt2")
    eager, exported = (
        json.loads(run("explain", "x.npy", "--model", name, "--method", "inputxgradient", "--json").stdout)
        for name in ("mine.py:linear", "net.pt2")
    )
    assert exported["features"] == eager["features"]
    assert exported["remainder"] == eager["remainder"]


def test_compare(here):
    methods = "lrp,IntegratedGradients(nodes=4, baseline=0.0),gradcam"
    result = run("compare", SENTENCE, "--methods", methods, "--html", "c.html")
    assert result.exit_code == 0
    assert "LRP" in result.stdout
    assert "IntegratedGradients" in result.stdout
    assert "DeletionRate" in result.stdout
    assert result.stderr.startswith("apportion: warning: left out: gradcam: ")
    page = Path("c.html").read_text(encoding="utf-8")
    assert page.count('"repr":') == 2
    assert page.count('"test":"DeletionRate') == 2
    assert page.count('"name":"least relevant first"') == 2


def test_compare_as_json_on_one_scale_and_without_tests(here):
    result = run("compare", SENTENCE, "--methods", "lrp,gradcam", "--json", "--no-tests")
    found = json.loads(result.stdout)
    assert result.stderr == ""
    assert [e["method"].split("(")[0] for e in found["explanations"]] == ["LRP"]
    assert found["explanations"][0]["tests"] == []
    assert "picture-like" in found["left_out"]["gradcam"]
    assert not Path("apportion-out").exists()
    run("compare", SENTENCE, "--methods", "lrp", "--no-tests", "--same-scale", "--html", "c.html")
    assert '"same_scale":true' in Path("c.html").read_text(encoding="utf-8")


def test_pairs_of_features(here):
    result = run("explain", SENTENCE, "--method", "ih", "--html", "p.html", "--png", "p.png")
    assert result.exit_code == 0
    assert " × " in result.stdout
    minus = result.stdout.replace("−", "-")
    printed = re.search(r"explained (\S+) of .* \(alone (\S+), in pairs (\S+)\)", minus)
    explained, alone, pairs = map(float, printed.groups())
    assert explained == pytest.approx(alone + pairs, abs=1e-9)
    assert '"kind":"pairs"' in Path("p.html").read_text(encoding="utf-8")
    assert Image.open("p.png").format == "PNG"


def test_methods_and_models():
    listed = run("methods").stdout
    assert "IntegratedGradients(baseline=0.0" in listed
    assert "Bach et al. 2015" in listed
    listed = run("models").stdout
    assert all(name in listed for name in SHIPPED)
    assert "hf:owner/name" in listed


@pytest.mark.slow
def test_a_dash_is_the_text_on_standard_input(here):
    result = CliRunner().invoke(app, ["explain", "-", "--json"], input="A dull film.\n")
    told = json.loads(result.stdout)
    assert told["input"] == "standard input"
    assert [feature["name"] for feature in told["features"]] == ["A", "dull", "film", "."]


def test_without_an_input_a_sentence_and_a_photo_by_three_methods(here):
    result = run("explain")
    assert result.exit_code == 0
    assert "cat" in result.stdout
    assert Path("apportion-out/demo.html").read_text(encoding="utf-8").count('"repr":') == 6
    assert str(here / "apportion-out" / "demo.html") in result.stdout


def test_without_scikit_image_the_demo_says_how_to_get_it(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    result = run("explain", "--html", "demo.html")
    assert "pip install 'apportion[image]'" in result.stdout
    assert Path("demo.html").read_text(encoding="utf-8").count('"repr":') == 3


# ---- what is refused, in one line ----


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("explain", "missing.jpg"), "no such file: missing.jpg"),
        (("explain", "some/where"), "no such file: some/where"),
        (("explain", "folder"), "folder is a folder"),
        (("explain", "fake.jpg"), "fake.jpg is not a picture"),
        (("explain", "mine.py"), "mine.py is a .py file; accepted: a sentence"),
        (("explain", "others.csv"), "(the model is breast-cancer, as --model names no other)"),
        (("explain", ""), "at least one word"),
        (("explain", "   "), "at least one word"),
        (("explain", SENTENCE, "--method", "lpr"), "did you mean 'lrp'?"),
        (("explain", SENTENCE, "--method", "IG("), "cannot read method"),
        (("explain", SENTENCE, "--method", "lrp,ig"), "apportion compare … --methods lrp,ig"),
        (("explain", SENTENCE, "--png", "map.pdf"), "a name that ends in .png"),
        (("explain", SENTENCE, "--method", "LRP(composite='epsilom')"), "epsilon"),
        (("explain", SENTENCE, "--method", "LIME(sampels=9)"), "no setting 'sampels'; did you mean 'samples'? "),
        (("explain", SENTENCE, "--method", "LRP(1,2,3,4,5,6)"), "too many positional arguments; accepted: composite"),
        (("test", SENTENCE, "--tests", "pixel"), "did you mean 'pixel-flipping'?"),
        (("test", SENTENCE, "--tests", "iou"), "unknown test 'iou'"),
        (("test", SENTENCE, "--methods", "gradcam,layercam"), "LayerCAM explains pictures: it needs one"),
        (("explain", SENTENCE, "--method", "IntegratedGradients(nodes=0)"), "nodes is 0"),
        (("explain", SENTENCE, "--target", "postive"), "nearest: positive"),
        (("explain", SENTENCE, "--target", "7"), "the model has 2 classes"),
        (("explain", SENTENCE, "--layer", "outptu"), "nearest: output"),
        (("explain", SENTENCE, "--layer", "output", "--method", "occlusion"), "a layer does not apply"),
        (("explain", SENTENCE, "--layer", "x", "--method", "gradcam"), "accepted: \"GradCAM(layer='x')\""),
        (("explain", SENTENCE, "--row", "1"), "a row was asked for"),
        (("explain", SENTENCE, "--model", "sentimant"), "did you mean 'sentiment'?"),
        (("explain", SENTENCE, "--model", "digits"), "is a text, but digits takes a picture"),
        (("explain", SENTENCE, "--model", "mine.py:linear"), "return a Classifier"),
        (("explain", "one two three", "--model", "mine.py:text"), "this model takes two words"),
        (("explain", "photo.jpg", "--model", "digits"), "28x28"),
        (("explain", "photo.jpg", "--model", "sentiment"), "is a picture, but sentiment takes a text"),
        (("explain", "photo.jpg", "--model", "mine.py:pictures", "--target", "cat"), "no class names"),
        (("explain", "x.npy"), "which model takes them"),
        (("explain", "x.npy", "--model", "breast-cancer"), "a .csv file"),
        (("explain", "x.npy", "--model", "mine.py:linear", "--row", "2"), "no sample 2; there are 2"),
        (("explain", "x.npy", "--model", "mine.py:pictures"), "does not run on this input of shape (1, 4)"),
        (("explain", "x.npy", "--model", "mine.py:NaN"), "NaN"),
        (("explain", "x.npy", "--model", "mine.py:Buggy"), "KeyError: 'inside the model'"),
        (("explain", "x.npy", "--model", "mine.py:broken"), "RuntimeError: no weights (mine.py, line 28)"),
        (("explain", "x.npy", "--model", "mine.py:wrong"), "returned int; accepted: a Classifier"),
        (("explain", "x.npy", "--model", "mine.py:liner"), "did you mean 'linear'?"),
        (("explain", "x.npy", "--model", "mine.py"), "mine.py:FACTORY"),
        (("explain", "x.npy", "--model", "none.py:net"), "no such file none.py"),
        (("explain", "x.npy", "--model", "no.such.module:net"), "No module named 'no'"),
        (("explain", "x.npy", "--model", "none.pt2"), "no such file"),
        (("explain", "x.npy", "--model", "weights.pth"), "holds weights only"),
        (("explain", "x.npy", "--model", "none.safetensors"), "no such file"),
        (("explain", "x.npy", "--model", "folder"), "without a config.json"),
        (("explain", SENTENCE, "--html", "mine.py/page.html"), "cannot write mine.py/page.html"),
        (("explain", "--model", "sentiment"), "without an INPUT"),
        (("compare", SENTENCE, "--methods", " , "), "--methods is empty"),
        (("compare", SENTENCE, "--methods", "gradcam,layercam"), "GradCAM explains pictures: it needs one"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(here, arguments, said):
    written = arguments[1:2] == (SENTENCE,) and "--html" in arguments
    line = run(*arguments).stderr if written else refused(*arguments)
    assert said in line


def test_what_is_no_tensor_file_is_one_line(here):
    class Stranger:
        def __reduce__(self):
            return os.mkdir, ("executed",)

    torch.save(Stranger(), "bad.pt")
    np.save("bad.npy", np.array([Stranger()], dtype=object), allow_pickle=True)
    Path("bad.safetensors").write_bytes(b"nothing of the kind")
    np.save("nan.npy", np.full((1, 4), np.nan))
    said = [
        refused("explain", name, "--model", "mine.py:linear")
        for name in ("bad.pt", "bad.npy", "bad.safetensors", "nan.npy")
    ]
    assert "holds more than tensors" in said[0]
    assert not Path("executed").exists()


def test_what_is_no_exported_program_is_one_line(here):
    Path("bad.pt2").write_bytes(b"nothing of the kind")
    assert "not an exported program" in refused("explain", "x.npy", "--model", "bad.pt2")
    torch.save({"a": torch.ones(1)}, "weights.pt2")
    assert "not an exported program" in refused("explain", "x.npy", "--model", "weights.pt2")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_no_permission_is_one_line(here):
    Path("folder").chmod(0o500)
    Path("review.txt").chmod(0)
    assert "cannot write" in run("explain", SENTENCE, "--html", "folder/page.html").stderr
    assert "cannot read" in refused("explain", "review.txt")


def test_a_missing_extra_says_how_to_get_it(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pip install 'apportion[text]'" in refused("explain", SENTENCE, "--model", "hf:any/model")


def test_a_bug_keeps_its_traceback(here, monkeypatch):
    monkeypatch.setattr("apportion.pipeline.prepared.explain_given", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("explain", SENTENCE)


def test_warnings_are_one_line_each(here, monkeypatch):
    import warnings

    from apportion.pipeline import prepared as running

    def noisy(*arguments):
        for _ in range(3):
            warnings.warn("first line\nsecond line", stacklevel=1)
        warnings.warn("for developers", DeprecationWarning, stacklevel=1)
        return real(*arguments)

    real = running.explain_given
    monkeypatch.setattr(running, "explain_given", noisy)
    assert run("explain", SENTENCE).stderr == "apportion: warning: first line\n"


def test_warnings_of_an_explanation_stand_below_its_balance():
    console = Console(width=80, record=True, file=io.StringIO())
    model = torch.nn.Linear(2, 2)
    with torch.no_grad():
        model.bias += 100
    terminal.show(LRP()(model, torch.rand(1, 2), 0), console, "linear")
    below = console.export_text().split("explained ")[1].splitlines()[1]
    assert below.startswith("warning: left over: 100 % of the total: ")


def test_a_limit_of_what_is_left_over_is_an_exit_status(here):
    result = run("explain", SENTENCE, "--method", "lrp", "--max-remainder", 0.05)
    assert result.exit_code == 3
    assert result.stderr.startswith(
        "apportion: error: 1 of 1 explanations leave more than --max-remainder 0.05"
    )
    assert result.stdout  # it is shown all the same
    assert run("explain", SENTENCE, "--max-remainder", 0.05).exit_code == 0
    tested = ("test", SENTENCE, "--tests", "complexity", "--methods")
    assert run(*tested, "auto,lrp", "--max-remainder", 0.05).exit_code == 3
    assert run(*tested, "auto,saliency", "--max-remainder", 0.05).exit_code == 0
    assert "greater than or equal to 0" in run("explain", SENTENCE, "--max-remainder", -1).stderr


# ---- recognising what was typed ----


@pytest.mark.parametrize(
    ("typed", "kind"),
    [
        (SENTENCE, "text"),
        ("either/or, it is fine", "text"),
        ("great", "text"),
        ("Very long. " * 500, "text"),
        ("photo.jpg", "image"),
        ("x.npy", "tensor"),
        ("review.txt", "text"),
    ],
)
def test_recognise(here, typed, kind):
    assert recognise(typed).kind == kind


def test_a_text_file_that_is_none(here):
    Path("latin.txt").write_bytes("cliché".encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8"):
        recognise("latin.txt")


def test_read_tensors_takes_dicts(here):
    save_file({"a": torch.ones(2, 3), "b": torch.zeros(2, 1)}, "two.safetensors")
    found = read_tensors(Path("two.safetensors"), 1)
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {"a": (1, 3), "b": (1, 1)}


def test_split_leaves_commas_in_brackets_and_quotes():
    assert split("a, B(c=(1,2), d='x,y') ,e") == ["a", "B(c=(1,2), d='x,y')", "e"]


# ---- as a process ----


def command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "apportion", *arguments],
        capture_output=True, text=True, env={**os.environ, **environment}, timeout=600,
    )  # fmt: skip


def test_help_does_not_import_torch():
    code = "import sys, apportion.cli.app; assert not {'torch', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    start = time.perf_counter()
    assert "explain" in command("--help").stdout
    assert time.perf_counter() - start < 10  # it takes a third of a second; torch alone takes several


def test_a_process_prints_utf8_text_without_colour_codes(here):
    done = command("explain", SENTENCE, PYTHONIOENCODING="utf-8")
    assert done.returncode == 0
    assert "superb" in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) < 30


def test_the_ledger_says_where_the_remainder_went(here):
    said = run("explain", SENTENCE, "--method", "LRP(ledger=True)").stdout
    assert "what is left over, by operation" in said
    assert re.search(r"rightward · linear +bias [+−]0\.\d+", said)
    assert "what is left over, by operation" not in run("explain", SENTENCE).stdout


@pytest.mark.parametrize("columns", [24, 40, 80])
def test_numbers_stand_whole_in_a_narrow_terminal(columns: int):
    console = Console(width=columns, file=io.StringIO())
    console.print(terminal.bars(BarsView(("a name that takes some room",) * 2, (1.25, -0.0625)), columns))
    lines = console.file.getvalue().splitlines()
    assert ["+1.25" in lines[0], "−0.06" in lines[1]] == [True, True]
    assert all(len(line) <= columns and "█" in line for line in lines)


def test_a_terminal_gets_colours_unless_it_asks_for_none(here):
    coloured = {"FORCE_COLOR": "1", "COLORTERM": "truecolor", "TERM": "xterm-256color"}
    done = command("explain", "one.png", "--model", "digits", **coloured)
    assert "▀" in done.stdout
    assert "\x1b[38;2;" in done.stdout
    plain = command("explain", "one.png", "--model", "digits", NO_COLOR="1", **coloured)
    assert "▀" not in plain.stdout
    assert "38;2;" not in plain.stdout


def test_a_process_in_another_encoding_does_not_stumble(here):
    done = command("explain", SENTENCE, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "explained 0.583 of 0.583" in done.stdout


def test_bytes_that_are_no_text_are_refused(here):
    assert "not UTF-8" in refused("explain", b"clich\xe9".decode("utf-8", "surrogateescape"))


def test_a_process_that_fails_says_why(here):
    done = command("explain", "missing.jpg")
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        "apportion: error: no such file: missing.jpg\n",
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("explian",), "No such command 'explian'. Did you mean 'explain'? (see apportion --help)"),
        (("compare",), "there is nothing to explain; accepted: an INPUT, or --prompt"),
        (("explain", "--modle", "x"), "--model"),
        (("serve", "--port", "99999"), "65535"),
        (("study", "shwo"), "Did you mean 'show'? (see apportion study --help)"),
    ],
)
def test_a_mistaken_command_line_is_one_line_too(here, arguments, said):
    done = command(*arguments, COLUMNS="40")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("apportion: error: ")
    assert said in done.stderr


@pytest.mark.parametrize("arguments", [(), ("study",), ("runs",)])
def test_nothing_gets_the_help(here, arguments):
    done = command(*arguments)
    assert (done.returncode, done.stderr) == (2, "")
    assert "Commands" in done.stdout


def test_a_reader_that_goes_is_no_traceback(here):
    writer = subprocess.Popen(
        [sys.executable, "-m", "apportion", "rules", "--operations"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    writer.stdout.close()
    assert writer.stderr.read() == b""
    assert writer.wait(600) == 1


@pytest.mark.parametrize("module", ["typer", "torch.nn"])
def test_an_interrupt_is_no_traceback_even_while_it_starts(here, module):
    Path("mine.py").write_text("import time\ndef slow(): time.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "apportion", "explain", "x.npy", "--model", "mine.py:slow"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in process.stderr:  # one for each module that has been imported
        if module in line:
            break
    process.send_signal(2)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "Traceback" not in said


def test_an_interrupt_in_a_callback_is_not_lost():
    code = """
import signal, time, weakref
import apportion.__main__, apportion.cli.app

def run():
    class Thing: pass
    thing = Thing()
    watched = weakref.ref(thing, lambda _: signal.raise_signal(2))
    del thing
    time.sleep(60)

apportion.cli.app.main = run
apportion.__main__.main()
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert (ran.returncode, ran.stderr) == (130, "")


# ---- Hugging Face ----


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Tiny models with random weights, as save_pretrained writes them."""
    transformers = pytest.importorskip("transformers")
    root = tmp_path_factory.mktemp("models")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "pain", "##fully", "funny", "movie", "."]
    (root / "vocab.txt").write_text("\n".join(words))
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    names = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    bert = transformers.BertForSequenceClassification(
        transformers.BertConfig(vocab_size=len(words), max_position_embeddings=32, **small, **names)
    )
    bert.save_pretrained(root / "bert")
    bert.bert.save_pretrained(root / "headless")
    for folder in ("bert", "headless"):
        transformers.BertTokenizerFast(vocab_file=str(root / "vocab.txt")).save_pretrained(root / folder)
    vit = transformers.ViTForImageClassification(
        transformers.ViTConfig(image_size=32, patch_size=8, **small, **names)
    )
    vit.save_pretrained(root / "vit")
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 32, "width": 32},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    (root / "vit" / "preprocessor_config.json").write_text(json.dumps(processor))
    return root


@pytest.mark.parametrize("kind", ["TokenClassification", "QuestionAnswering", "MaskedLM"])
def test_folders_with_another_head_are_refused_by_what_they_hold(tmp_path, kind):
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 11, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    name = "Bert" if kind in ("MaskedLM", "QuestionAnswering") else "Qwen2"
    config = getattr(transformers, f"{name}Config")(intermediate_size=16, num_labels=3, **sizes)
    if name == "Qwen2":
        config.num_key_value_heads = 2
    getattr(transformers, f"{name}For{kind}")(config).save_pretrained(tmp_path)
    with pytest.raises(ap.InputError, match=rf"holds {name}For{kind}, .*; accepted: classifiers of texts"):
        ap.load(str(tmp_path))


def test_a_multi_label_folder_has_a_probability_for_each_class(tmp_path, folders):
    transformers = pytest.importorskip("transformers")
    shutil.copytree(folders / "bert", tmp_path / "many")
    config = transformers.AutoConfig.from_pretrained(folders / "bert")
    config.problem_type = "multi_label_classification"
    config.save_pretrained(tmp_path / "many")
    classifier = ap.load(str(tmp_path / "many"))
    for method in (ap.LRP(), ap.Occlusion()):
        found = ap.explain(classifier, "a funny movie", method)
        chances = found.output[0].double().sigmoid().sort(descending=True).values.tolist()
        assert [chance for _, _, chance in decision(found).ranking] == pytest.approx(chances)
        assert decision(ap.Explanation.load(found.save(tmp_path / "e.safetensors"))).probability == chances[0]
    inputs, _ = classifier.prepared("a funny movie")
    masking = Masking(classifier, inputs)
    read = read_answers(masking, masking.output, torch.arange(1))[1]
    assert float(read) == pytest.approx(chances[0])


def test_a_text_classifier_from_a_folder(here, folders):
    found = json.loads(
        run("explain", "a painfully funny movie.", "--model", folders / "bert", "--json").stdout
    )
    assert [f["name"] for f in found["features"] if not f.get("special")] == [
        "a",
        "painfully",
        "funny",
        "movie",
        ".",
    ]
    assert found["prediction"]["label"] in ("bad", "good")
    classifier = load(folders / "bert")
    assert classifier.mask == 4
    assert not classifier.model.training


def test_an_image_classifier_from_a_folder(here, folders):
    found = json.loads(
        run("explain", "photo.jpg", "--model", folders / "vit", "--method", "saliency", "--json").stdout
    )
    assert found["kind"] == "heat"
    assert "torchvision" not in sys.modules


@pytest.mark.parametrize("where", ["model", "tokenizer", "weights"])
def test_code_in_a_folder_is_never_run(here, folders, where):
    class Stranger:
        def __reduce__(self):
            return os.mkdir, ("executed",)

    shutil.copytree(folders / "bert", "stranger")
    Path("stranger/evil.py").write_text("import os\nos.mkdir('executed')\nclass Evil: pass\n")
    if where == "model":
        config = json.loads(Path("stranger/config.json").read_text())
        config["auto_map"] = dict.fromkeys(["AutoConfig", "AutoModelForSequenceClassification"], "evil.Evil")
        for kind in ("bert", "other"):
            Path("stranger/config.json").write_text(json.dumps(config | {"model_type": kind}))
            run("explain", "a funny movie", "--model", "stranger")
    elif where == "tokenizer":
        config = json.loads(Path("stranger/tokenizer_config.json").read_text())
        config |= {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}, "tokenizer_class": "Evil"}
        Path("stranger/tokenizer_config.json").write_text(json.dumps(config))
        run("explain", "a funny movie", "--model", "stranger")
    else:
        Path("stranger/model.safetensors").unlink()
        torch.save(Stranger(), "stranger/pytorch_model.bin")
        refused("explain", "a funny movie", "--model", "stranger")
    assert not Path("executed").exists()


def test_a_model_without_a_trained_head_is_refused(here, folders):
    assert "no trained weights for classifier" in refused(
        "explain", SENTENCE, "--model", folders / "headless"
    )


def test_a_name_that_is_not_on_disk_is_not_looked_up(here):
    assert "unknown model 'bert-base-uncased'" in refused("explain", SENTENCE, "--model", "bert-base-uncased")


# ---- lists, help, completion ----


def test_lists_as_json():
    listed = {
        name: json.loads(run(name, "--json").stdout) for name in ("methods", "models", "rules", "tests")
    }
    assert {"name", "settings", "about", "pairs", "question"} == set(listed["methods"][0])
    assert [m["name"] for m in listed["methods"] if m["pairs"]] == [
        "ih",
        "inputhessian",
        "shapleyinteractions",
    ]
    assert [m["name"] for m in listed["models"]] == list(SHIPPED)
    assert "Epsilon" in [rule["name"] for rule in listed["rules"]["rules"]]
    assert listed["rules"]["composites"]["epsilon-gamma-box"].startswith("Composite(")
    assert "linear" in listed["rules"]["operations"]
    assert listed["tests"][0]["direction"] == "higher is better"


def test_rules():
    listed = run("rules").stdout
    assert "LRP-ε (eq. 20)" in listed
    assert "epsilon-plus-flat" in listed
    assert "softmax" in run("rules", "--operations").stdout


@pytest.mark.parametrize(
    "command",
    [
        ["explain"],
        ["compare"],
        ["serve"],
        ["methods"],
        ["models"],
        ["rules"],
        ["test"],
        ["study", "run"],
        ["bulk"],
    ],
)
def test_help_says_what_a_command_does(command):
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Usage: " in result.stdout


def test_the_exit_statuses_are_told():
    assert "130 interrupted" in run("--help").stdout


def test_the_shell_completes_names():
    from apportion.cli._options import complete_methods, complete_models

    assert complete_methods("gradcamp") == ["gradcamplusplus"]
    assert complete_methods("lrp,li") == ["lrp,lime"]
    assert complete_models("s") == ["sentiment", "sentiment-transformer"]
    typed = {
        "_APPORTION_COMPLETE": "complete_bash",
        "COMP_WORDS": "apportion explain x --method oc",
        "COMP_CWORD": "4",
    }
    assert command(**typed).stdout.split() == ["occlusion"]
