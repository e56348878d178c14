"""Files of ProtoPNet: what was fitted, and the checkpoints of a run that is killed."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import apportion as ap
import squares
from apportion.cli.app import app
from apportion.errors import InputError
from apportion.models.prototypes.settings import Fast
from squares import GREY, QUICK, backbone, data, equal, fitted, photos, quick


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return photos(tmp_path)


@pytest.mark.parametrize(("recipe", "tune"), [("fast", False), (QUICK, True)])
def test_saved_and_loaded(recipe, tune: bool, tmp_path: Path):
    model = fitted(recipe, tune=tune)
    path = model.save(tmp_path / "model.safetensors")
    back = ap.ProtoPNet.load(path, backbone())
    x = data()[0]
    assert np.array_equal(back.predict_proba(x), model.predict_proba(x))
    assert back.recipe == model.recipe
    one, other = back.reasons(x[0]), model.reasons(x[0])
    assert [m.source.box for m in one.matches] == [m.source.box for m in other.matches]
    assert torch.equal(one.matches[0].source.picture, other.matches[0].source.picture)


def test_another_backbone_or_file_is_refused(tmp_path: Path):
    path = fitted().save(tmp_path / "model.safetensors")
    other = backbone()
    with torch.no_grad():
        other[0].weight.add_(1)
    with pytest.raises(InputError, match="backbone is not the one"):
        ap.ProtoPNet.load(path, other)
    (tmp_path / "other").write_bytes(b"what")
    with pytest.raises(InputError, match="other"):
        ap.ProtoPNet.load(tmp_path / "other", backbone())
    quick().fit(*data(), checkpoint=tmp_path / "run")
    with pytest.raises(InputError, match="holds no fitted ProtoPNet"):
        ap.ProtoPNet.load(tmp_path / "run", backbone())


@pytest.fixture
def on_digits(tmp_path: Path) -> tuple[Path, Path]:
    """A file of a ProtoPNet on the digits model that ships, and a picture."""
    digits = ap.load("digits")
    picture = tmp_path / "bar.png"
    pictures = np.zeros((12, 28, 28), dtype=np.uint8)
    for i in range(12):
        across, begin = slice(4, 24), 4 + i
        pictures[i][(slice(begin, begin + 2), across) if i % 2 else (across, slice(begin, begin + 2))] = 255
    Image.fromarray(pictures[2]).save(picture)
    model = ap.ProtoPNet(digits, 2, recipe=Fast(pruning=None))
    model.fit(list(pictures), ["tall", "wide"] * 6)
    return model.save(tmp_path / "bars.safetensors"), picture


def test_a_file_on_a_backbone_that_ships_needs_nothing_else(on_digits):
    path, picture = on_digits
    back = ap.ProtoPNet.load(path)
    assert back.predict(picture) == ["tall"]
    assert back.preparation == ap.load("digits").encode
    classifier = ap.load(path)
    assert classifier.name == path.name
    assert classifier.labels == ("tall", "wide")
    assert len(classifier.panels(picture)) == 4


def test_such_a_file_is_a_model_on_the_command_line(on_digits, tmp_path: Path):
    path, picture = map(str, on_digits)
    run = CliRunner().invoke(
        app,
        ["explain", picture, "--model", path, "--method", "Prototypes()", "--json"],
        catch_exceptions=False,
    )
    told = json.loads(run.stdout)
    assert told["target_label"] == "tall"
    assert re.fullmatch(r"prototype \d of (tall|wide) = image \d+", told["features"][0]["name"])
    assert abs(told["remainder"]) < 1e-4
    assert (
        CliRunner().invoke(app, ["explain", picture, "--model", path, "--out", str(tmp_path)]).exit_code == 0
    )
    shown = tmp_path / "why.png"
    CliRunner().invoke(
        app, ["explain", picture, "--model", path, "--method", "Prototypes()", "--png", str(shown)]
    )
    with Image.open(shown) as drawn:  # a row of two pictures for each of four prototypes, and no bars
        assert drawn.height > 1.4 * drawn.width


def test_a_preparation_comes_back_with_its_file(folder: Path, tmp_path: Path):
    path = ap.ProtoPNet(backbone(), 2, recipe="fast", preparation=GREY).fit(folder).save(tmp_path / "grey")
    file = next(folder.rglob("*.png"))
    back = ap.ProtoPNet.load(path, backbone())
    assert back.preparation == GREY
    assert back.predict(file).shape == (1,)
    with pytest.raises(
        InputError, match=r"backbone of your own; accepted: ProtoPNet\.load\(path, backbone\)"
    ):
        ap.ProtoPNet.load(path)
    own = ap.ProtoPNet(backbone(), 2, recipe="fast", preparation=lambda raw: GREY(raw))
    path = own.fit(folder).save(tmp_path / "own")
    with pytest.raises(InputError, match="preparation of its own; give it again"):
        ap.ProtoPNet.load(path, backbone())
    assert ap.ProtoPNet.load(path, backbone(), preparation=GREY).predict(file).shape == (1,)


KILLED = """
import sys, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
import squares as t
import apportion as ap
recipe = t.Paper(width=8, epochs=40, warm_epochs=5, push_from=10, push_every=7, batch=10)
model = ap.ProtoPNet(t.backbone(), 3, recipe=recipe, tune=True)
model.fit(*t.data(), checkpoint=sys.argv[1]).save(sys.argv[2])
"""


def test_a_killed_run_goes_on_to_the_same_result(tmp_path: Path):
    """Killed for real, some epochs in; the whole run in another process is the reference."""
    code = KILLED.format(tests=str(Path(squares.__file__).parent))
    run, whole = tmp_path / "run", tmp_path / "whole"
    arguments = [sys.executable, "-c", code]
    process = subprocess.Popen([*arguments, str(run), str(tmp_path / "killed")])
    deadline = time.monotonic() + 600
    while not run.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert run.exists()
    assert not (tmp_path / "killed").exists(), "the run was over before it was killed"
    for place, out in ((run, tmp_path / "resumed"), (whole, tmp_path / "reference")):
        subprocess.run([*arguments, str(place), str(out)], check=True, timeout=600)
    one, other = (ap.ProtoPNet.load(tmp_path / name, backbone()) for name in ("resumed", "reference"))
    assert equal(one, other)
    assert one.history_ == other.history_


def test_a_run_that_is_over_is_not_done_again(tmp_path: Path):
    one = quick().fit(*data(), checkpoint=tmp_path / "run")
    written = (tmp_path / "run").stat().st_mtime_ns
    again = quick().fit(*data(), checkpoint=tmp_path / "run")
    assert equal(one, again)
    assert (tmp_path / "run").stat().st_mtime_ns == written


class Doubled(torch.nn.Sequential):
    """With the weights of what it is made of."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path):
    path = tmp_path / "run"
    first = ap.ProtoPNet(backbone(), 3, recipe=QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first.fit(*data(), checkpoint=path)
    before = path.read_bytes()
    x, labels = data()
    others = {
        "prototypes_per_class is 3 there and 2 here": (ap.ProtoPNet(backbone(), 2, recipe=QUICK), x, labels),
        "seed is 0 there and 1 here": (ap.ProtoPNet(backbone(), 3, recipe=QUICK, seed=1), x, labels),
        "labels is": (ap.ProtoPNet(backbone(), 3, recipe=QUICK), x, labels.flip(0)),
        "first image is": (ap.ProtoPNet(backbone(), 3, recipe=QUICK), x + 1, labels),
        "images is": (ap.ProtoPNet(backbone(), 3, recipe=QUICK), torch.cat([x[:1], x[1:] + 1]), labels),
        "backbone's code is": (ap.ProtoPNet(Doubled(*backbone()), 3, recipe=QUICK), x, labels),
    }
    for said, (model, images, truth) in others.items():
        with pytest.raises(InputError, match=f"another configuration: {said}"):
            model.fit(images, truth, checkpoint=path)
    assert path.read_bytes() == before
    path.write_bytes(before[:-100])
    with pytest.raises(InputError, match="run"):
        ap.ProtoPNet(backbone(), 3, recipe=QUICK).fit(x, labels, checkpoint=path)
