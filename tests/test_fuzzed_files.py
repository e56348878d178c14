"""What others wrote, drawn at random with something odd in it: studies, caches of answers, frames, requests to the
workbench. Each is used, or refused in one line; nothing of it is obeyed by a terminal or runs in a page."""

from __future__ import annotations

import base64
import io
import json
import random
import sqlite3
import threading
import warnings
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

import apportion as ap
from apportion.errors import CONTROLS, MOST_LETTERS, InputError

pytestmark = pytest.mark.slow

MARKUP = "<script>alert(1)</script>"
EVIL = f"\x1b]0;t\x07\x1b[2J\u202e{MARKUP}\r\n"


def check_survives(what: str, use: Callable[[], Any]) -> None:
    failed = error_of(use)
    if isinstance(failed, InputError):
        assert not CONTROLS.search(str(failed)), what
        assert len(str(failed)) < MOST_LETTERS + 10, what
    elif failed is not None:
        assert "was called with" in " ".join(getattr(failed, "__notes__", ())), f"{what}: {failed!r}"


def error_of(use: Callable[[], Any]) -> Exception | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            use()
    except Exception as error:
        return error
    return None


# ---- studies ----

STUDY = {
    "models": "sentiment",
    "data": {"texts": ["a"]},
    "methods": ["saliency"],
    "tests": ["sufficiency"],
    "samples": 2,
}
FIELDS = [*STUDY, "seed", "title", "kind", "fast", "nope", "'\\x1b'", "5", "null", "[a]"]
ODD_YAML = [
    "null", "[]", "{}", "!!python/object/apply:os.system ['x']", "!!int abc", "!!float x", "!!bool maybe", "&a [*a]",
    "!!timestamp 9999-99-99", "!!binary x", "1e999", ".nan", "0x" + "f" * 50, "9" * 5000, "'\\0'", '"\\x1b[2J"',
    '"\\uD800"', "? x", "- - 1", "true", "2020-13-45", "!!set {a}", "<<: 1", "*x", "[[[[1]]]]", "{[1, 2]: 3}", "1:30",
    "~", "", "|\n  x", "a" * 5000, "[saliency, [lrp]]", "LRP({[]: 1})", "IntegratedGradients(nodes=400000)",
    "../../etc/passwd", "/dev/zero", "hf:a/b", "[" * 3000,
]  # fmt: skip


def test_a_study_with_something_odd_is_read_or_refused(tmp_path: Path) -> None:
    config = pytest.importorskip("apportion.study.config")
    for seed in range(300):
        draw = random.Random(seed)
        lines = [
            f"{name}: {draw.choice(ODD_YAML) if draw.random() < 0.3 else json.dumps(value)}"
            for name, value in STUDY.items()
            if draw.random() < 0.9
        ]
        lines += [f"{draw.choice(FIELDS)}: {draw.choice(ODD_YAML)}" for _ in range(draw.randrange(3))]
        (tmp_path / "s.yaml").write_text("\n".join(lines), encoding="utf-8")
        check_survives(f"study {seed}", lambda: config.read_study(tmp_path / "s.yaml"))


# ---- caches of answers ----

ODD_ROWS = [
    "[1e999]",
    "[[[1]]]",
    "nan",
    "[NaN]",
    "{}",
    "[]",
    "[" * 100_000,
    "[true]",
    "[1,2,3]",
    "[null]",
    f"[{'9' * 5000}]",
]
ODD_TABLES = [
    "UPDATE answers SET row = x'00ff'", "UPDATE answers SET row = 5", "UPDATE answers SET row = zeroblob(10000000)",
    "DROP TABLE answers", "ALTER TABLE answers RENAME COLUMN row TO r", "DELETE FROM answers",
    "DROP TABLE answers; CREATE VIEW answers AS SELECT 'a' AS key, '[1]' AS row",
    "CREATE TRIGGER t AFTER INSERT ON answers BEGIN DELETE FROM answers; END",
    *(f"UPDATE answers SET row = '{row}'" for row in ODD_ROWS),
]  # fmt: skip


def lengths(texts: list[str]) -> list[list[float]]:
    return [[float(len(text)), 1.0] for text in texts]


def answer(cache: Path) -> None:
    ap.Remote(lengths, cache=cache)(["a", "bb", "dddd"])


def test_a_damaged_cache_of_answers_is_used_or_refused(tmp_path: Path) -> None:
    for seed in range(120):
        draw, cache = random.Random(seed), tmp_path / str(seed)
        ap.Remote(lengths, cache=cache)(["a", "bb", "ccc"])
        if seed < len(ODD_TABLES):
            with closing(sqlite3.connect(cache)) as database:
                database.executescript(ODD_TABLES[seed])
        else:
            held = bytearray(cache.read_bytes())
            for _ in range(draw.choice([1, 5, 50])):
                held[draw.randrange(len(held))] ^= 1 << draw.randrange(8)
            cache.write_bytes(held[: draw.choice([len(held), draw.randrange(len(held))])])
        check_survives(f"cache {seed}", partial(answer, cache))


# ---- frames ----

ODD_NAMES = [
    "a", "", EVIL, None, 5, 5.5, True, ("a", "b"), float("nan"), "a" * 3000, "a=b", "🙂", "__class__", "index", "'\"",
    "%s{}", "\\", "a\0b", "\ud800", b"x", frozenset([1]),
]  # fmt: skip
ODD_VALUES = [
    EVIL, None, float("nan"), float("inf"), 10**30, -(10**400), "9" * 5000, b"\xff", [], {}, object(), 1 + 2j,
    np.datetime64("NaT"), "", True, 1e-320, range(3), "\ud800",
]  # fmt: skip


def test_a_frame_with_odd_names_and_values_is_explained_or_refused(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")

    def predict(frame: Any) -> Any:
        first = frame.iloc[:, 0].astype(float)
        return np.stack([first, 1 - first], 1)

    for seed in range(150):
        draw = random.Random(seed)
        texts = [draw.choice(["x", "y"]) for _ in range(12)]
        frame = pandas.DataFrame({0: np.linspace(0, 1, 12), 1: pandas.Series(texts, dtype=object)})
        if seed % 2:
            frame.iat[draw.randrange(12), 1] = draw.choice(ODD_VALUES)
        else:
            frame.columns = pandas.Index([draw.choice(ODD_NAMES) for _ in range(2)], dtype=object)
        row, method = frame.iloc[[draw.randrange(12)]], draw.choice(["occlusion", "kernelshap", "lime"])

        def use(frame: Any = frame, row: Any = row, method: str = method) -> None:
            found = ap.explain(ap.Tabular(predict, frame), row, method)
            loaded = ap.Explanation.load(found.save(tmp_path / "kept"))
            for each in (found, loaded):
                assert not CONTROLS.search(repr(each))
                assert MARKUP not in each.to_html()
            found.to_frame()

        check_survives(f"frame {seed}", use)


# ---- requests ----

ODD_FIELDS: list[Any] = [
    None,
    True,
    -1,
    1e308,
    10**30,
    "",
    "x" * 3000,
    [],
    {},
    [1],
    {"a": 1},
    EVIL,
    "\ud800",
    "²",
    "--5",
]
ODD_METHODS = [
    "", "LRP(", "LRP({[]: 1})", "IntegratedGradients(nodes=10**9)", "KernelSHAP(partition=Patches(0))", "(" * 3000,
    EVIL, "LIME(kernel_width=0)", "gradcam", "attention", "prototypes", "treeshap", "Owen(samples=0)", "Auto(5)",
    "RISE(cells=400)", "RandomMap(seed=-1)", "Saliency(at='x')", "Occlusion(partition=Words())",
    "SmoothGrad(noise=1e300)",
    "LIME(partition=Superpixels(regions=10**9))", "ShapleyInteractions(budget=1)", "DeepLIFT(baseline='x')",
    "GradCAM(layer='\x1b')",
]  # fmt: skip
KNOWN = ["lrp", "saliency", "occlusion"]


def picture(kind: str, draw: random.Random) -> bytes:
    made, pixels = io.BytesIO(), np.random.default_rng(0).integers(0, 255, (28, 28, 3), dtype=np.uint8)
    whole, told = Image.fromarray(pixels), PngImagePlugin.PngInfo()
    if kind == "texts":
        told.add_text("Title", MARKUP * 50)
        told.add_itxt("x", EVIL * 30, zip=True)
    elif kind == "bomb":
        told.add_text("Z", "a" * 70_000_000, zip=True)
    elif kind == "svg":
        return b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'
    elif kind == "script":
        return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(x) run\n"
    elif kind == "thin":
        whole = Image.new("L", (1, 40_000))
    elif kind == "huge":
        whole = Image.new("1", (30_000, 30_000))
    elif kind in ("P", "1", "LA"):
        whole = whole.convert(kind)
    whole.save(made, "PNG", pnginfo=told, icc_profile=b"\0" * 100_000 if kind == "profile" else None)
    held = bytearray(made.getvalue())
    if kind == "damaged":
        held[draw.randrange(8, len(held))] ^= 1 << draw.randrange(8)
    return bytes(held[: -200 if kind == "cut" else len(held)])


PICTURES = [
    "texts",
    "bomb",
    "svg",
    "script",
    "thin",
    "huge",
    "P",
    "1",
    "LA",
    "profile",
    "damaged",
    "damaged",
    "cut",
    "plain",
]


def asked(draw: random.Random, row: dict[str, str]) -> dict[str, Any]:
    model = draw.choice(["sentiment", "digits", "breast-cancer"])
    methods = [draw.choice(KNOWN if draw.random() < 0.5 else ODD_METHODS)]
    body: dict[str, Any] = {"model": model, "methods": methods, "tests": draw.random() < 0.2}
    if model == "sentiment":
        body["text"] = draw.choice(
            ["a dull film", "", "   ", EVIL, "😀" * 30, "\u0300", "a\0b", "\ud800 film"]
        )
    elif model == "digits":
        body |= {"image": base64.b64encode(picture(draw.choice(PICTURES), draw)).decode(), "name": EVIL}
    else:
        body["row"] = row | {
            draw.choice([*row, EVIL]): draw.choice(["", "nan", "1e400", EVIL, "²", "9" * 5000])
        }
    if draw.random() < 0.3:
        body[draw.choice([*body, "target", "answer", "context", "unit", "x"])] = draw.choice(ODD_FIELDS)
    return body


def test_a_request_with_something_odd_is_answered_in_one_line() -> None:
    pytest.importorskip("fastapi")
    from apportion.serve._jobs import Models, explain
    from apportion.serve.request import Ask, read
    from apportion.serve.server import _line

    models = Models()
    row = {column["name"]: column["value"] for column in models.described("breast-cancer")["columns"]}
    for seed in range(120):
        body = json.dumps(asked(random.Random(seed), row)).encode()
        said: list[Any] = []

        def use(body: bytes = body, said: list[Any] = said) -> None:
            explain(read(body, Ask), models, said.append, threading.Event())

        check_survives(f"request {seed}", use)
        for message in said:
            _line(message).encode()
            assert " failed: " not in message.get("message", ""), (seed, message)
