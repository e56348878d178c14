"""The shell that all pages share, and the small tables of notebooks."""

from __future__ import annotations

import base64
import hashlib
import io
import re

import numpy as np
import torch
from PIL import Image

import apportion as ap
from apportion.core.files import written
from apportion.display.html import data_uri, read_data_uri, shell, table
from surfaces import ATTACK


def test_a_page_escapes_its_title_and_allows_its_own_script_only():
    page = shell({"kind": "workbench"}, ATTACK, ["<p>fine</p>"])
    assert ATTACK not in page
    assert "<noscript><pre>&lt;p&gt;fine&lt;/p&gt;</pre></noscript>" in page
    allowed = re.search('Content-Security-Policy" content="(.*?)"', page).group(1)
    assert allowed.startswith("default-src &#x27;none&#x27;; img-src data:;")
    code = re.search(r'<script id="code">(.*?)</script>', page, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert f"script-src &#x27;sha256-{digest}&#x27;; connect-src &#x27;none&#x27;" in allowed


def test_a_table_of_a_notebook_is_escaped():
    shown = table([["", "<b>"], [ATTACK, "1"]], [ATTACK], {(1, 1)}, {1})
    assert ATTACK not in shown
    assert "<b>" not in shown
    assert '<td style="font-weight: bold">1</td>' in shown
    assert '<tr style="opacity: .65">' in shown


def test_a_small_picture_comes_back_as_it_was():
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    assert np.array_equal(read_data_uri(data_uri(pixels)), pixels)


def test_small_pictures_keep_every_pixel_and_large_ones_are_made_smaller():
    noise = np.random.default_rng(0).integers(0, 256, (28, 20, 3), dtype=np.uint8)
    assert (_read(noise) == noise).all()
    assert _read(np.zeros((600, 900, 3), np.uint8), most=300).shape == (200, 300, 3)


def _read(pixels, **options):
    data = data_uri(pixels, **options).removeprefix("data:image/webp;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def test_written_gives_the_text_and_writes_it_where_asked(tmp_path):
    assert written("é", None) == "é"
    assert written("é", tmp_path / "new" / "page.html") == "é"
    assert (tmp_path / "new" / "page.html").read_text(encoding="utf-8") == "é"


def test_the_card_of_a_number_that_is_predicted_says_its_score_once():
    shown = ap.explain(torch.nn.Linear(9, 1), torch.ones(1, 9), "inputxgradient")._repr_html_()
    assert "</b><span" in shown
    assert "score score" not in shown
    assert "… and 1 other<" in shown
