import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from apportion import Saliency
from apportion.explanation import Cost
from apportion.features import TabularFeatures
from apportion.report import fragment, page, summary
from surfaces import ATTACK, picture, row, words


class Tags(HTMLParser):
    """Every tag with its attributes, in order, and whether all were closed in order."""

    VOID = frozenset({"meta", "img", "input", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def everything():
    """Three inputs, one of them by two methods, with all that could carry markup carrying it."""
    hostile = f'" onload="x {ATTACK}'
    return [
        words(f"{ATTACK} fine"),
        picture(
            labels=(hostile, hostile),
            warnings=(hostile,),
            notes={"input": hostile, "model": hostile, hostile: hostile},
        ),
        row(target=hostile),
        row(features=(TabularFeatures((hostile, "sex"), (hostile, "f"), (0, 1, 1)),)),
    ]


def test_markup_in_the_input_is_text(everything):
    for text in (page(everything), *map(fragment, everything)):
        assert ATTACK not in text
        assert "&lt;script&gt;alert(1)" in text or "alert" not in text
        tags = Tags(text)
        assert not tags.open
        assert sum(tag == "script" for tag, _ in tags.found) <= 1
        assert not any(name.startswith("on") for _, attributes in tags.found for name in attributes)


def test_nothing_is_requested(everything):
    for text in (page(everything), *map(fragment, everything)):
        assert "://" not in text
        for tag, attributes in Tags(text).found:
            assert tag not in ("link", "iframe", "object", "embed", "base")
            for name in ("src", "href", "srcset", "data"):
                assert attributes.get(name, "data:").startswith("data:")
        assert not re.search(r"@import|url\((?!#)", text.replace('"url(#above)"', ""))
    assert "default-src 'none'" in page(everything)


def test_explanations_of_one_input_share_a_section():
    text = page([row(), words(), row(method=Saliency(), total=None)])
    assert text.count("<section>") == 2
    assert text.count("<article>") == 3
    assert text.index("Saliency(at=None)") < text.index("not bad at all</blockquote>")


def test_equal_samples_of_one_batch_are_two_inputs():
    one = row()
    two = row(values=torch.cat([one.values] * 2), total=torch.ones(2), output=one.output.repeat(2, 1),
              target=torch.tensor([1, 1]), features=one.features * 2)  # fmt: skip
    assert page([two]).count("<section>") == 2


def test_what_a_card_says():
    text = page([words(warnings=("not within tolerance",), cost=Cost(3, 2, 0.25), notes={"nodes": 8})])
    for said in (
        "<h1>yes</h1>",
        "total 3.00 = apportioned 2.00 + remainder 1.00",
        "not within tolerance",
        "InputXGradient(at=None)",
        "3 forward and 2 backward passes, 0.25 s · nodes 8",
        f"torch {torch.__version__}",
        'title="all +2.00"',
    ):
        assert said in text


def test_every_picture_has_an_alternative_text_or_is_decoration():
    images = [attributes for tag, attributes in Tags(page([picture()])).found if tag == "img"]
    assert len(images) == 3
    assert all("alt" in attributes for attributes in images)
    assert "Strongest: x 0–14, y 0–9" in images[2]["alt"]


def test_sliders_only_where_there_is_a_heat_map():
    assert "Only above" in page([picture()])
    assert "Only above" not in page([words()])


def test_a_large_picture_makes_a_small_page():
    noise = torch.randn(3, 1024, 768)
    big = picture(1024, 768, values=noise[None])
    photo = np.random.default_rng(0).integers(0, 256, (1024, 768, 3), dtype=np.uint8)
    object.__setattr__(big.features[0], "picture", torch.from_numpy(photo))
    assert len(page([big] * 3)) < 3e6


def test_a_notebook_shows_a_few_samples():
    one = row()
    many = row(values=one.values.repeat(9, 1), total=torch.ones(9), output=one.output.repeat(9, 1),
               target=torch.ones(9, dtype=torch.long), features=one.features * 9)  # fmt: skip
    text = many._repr_html_()
    assert text.count("<article>") == 4
    assert "5 more" in text
    assert "<script" not in text


def test_to_html_writes_the_page(tmp_path):
    path = tmp_path / "new" / "e.html"
    assert row().to_html(path) == path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "explanation", [words(), picture(), row(), row(total=None), row(target="Contrast(1, 0)")]
)
def test_the_summary_is_json(explanation):
    found = json.loads(json.dumps(summary(explanation)))
    assert found["prediction"]["label"] == "yes"
    if found["kind"] != "heat":
        assert sum(f["value"] for f in found["features"]) == pytest.approx(found["apportioned"])


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_browser_draws_the_page(tmp_path):
    (tmp_path / "page.html").write_text(page([picture(), words(), row()]), encoding="utf-8")
    options = "--headless --no-sandbox --disable-gpu --disable-background-networking --hide-scrollbars"
    subprocess.run(
        ["chromium", *options.split(), "--window-size=900,1600", "--screenshot=page.png",
         f"--user-data-dir={tmp_path}",
         (tmp_path / "page.html").as_uri()],
        cwd=tmp_path, check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    pixels = np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).astype(int)
    orange = (np.abs(pixels - (213, 94, 0)).max(-1) < 12).sum()
    blue = (pixels[..., 2] - pixels[..., 0] > 60).sum()
    assert orange > 2000  # the quarter of the heat map, and the bars
    assert blue > 2000
