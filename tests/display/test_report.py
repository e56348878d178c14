import html
import json
import re
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from apportion import LRP, Explanation, KernelSHAP, Saliency
from apportion.core.features import TabularFeatures
from apportion.display import terminal
from apportion.display.cards import sections
from apportion.display.page import frame, page, summary
from apportion.results.cost import Cost
from apportion.results.interactions import Interactions
from apportion.results.scores import Scores
from browser import Browser, needs_chromium
from surfaces import ATTACK, HOSTILE, data_of, over_prototypes, pairs, picture, row, words


@pytest.fixture(scope="module")
def everything():
    """Inputs of every kind, one of them by two methods, with all that could carry markup carrying it."""
    return [
        words(f"{ATTACK} fine"),
        picture(
            labels=(HOSTILE, HOSTILE),
            warnings=(HOSTILE,),
            notes={"input": HOSTILE, "model": HOSTILE, HOSTILE: HOSTILE},
        ),
        row(target=HOSTILE),
        row(features=(TabularFeatures((HOSTILE, "sex"), (HOSTILE, "f"), (0, 1, 1)),)),
        pairs((HOSTILE, ATTACK)),
    ]


# ---- what is in the page ----


def test_markup_in_the_input_stays_in_the_data(everything):
    text = page(everything)
    assert ATTACK not in text
    assert "onload=" not in text.split("<script")[0].replace("onload=&quot;", "")
    assert len(re.findall(r"<script", text.replace("\\u003c", ""))) == 2
    assert data_of(text)["sections"][0]["text"] == f"{ATTACK} fine"
    assert data_of(text)["sections"][1]["cards"][0]["notes"] == {HOSTILE: HOSTILE}
    shown = frame(everything[1])
    assert ATTACK not in shown
    assert not re.search(r"<(script|iframe|style|link)|onload=(?!&)", shown)


def test_prototypes_stand_beside_maps_of_the_same_picture():
    found = sections([over_prototypes(), picture(notes={"input": "cat.jpg"}), picture()])
    assert [len(section["cards"]) for section in found] == [2, 1]
    first, second = found[0]["cards"]
    assert first["panels"][0]["contribution"] == 2.5
    assert first["notes"] == {}
    assert second["panels"] == []
    assert sections([over_prototypes()])[0]["photo"].startswith("data:image/webp")


def test_two_settings_of_one_method_have_titles_of_their_own():
    (section,) = sections([row(method=LRP()), row(method=LRP("epsilon", ledger=True))])
    assert [card["method"] for card in section["cards"]] == ["LRP", "LRP(composite='epsilon', ledger=True)"]


def test_explanations_of_one_input_share_a_section():
    found = sections([row(), words(), row(method=Saliency(), total=None)])
    assert [len(section["cards"]) for section in found] == [2, 1]
    assert found[0]["cards"][1]["repr"] == "Saliency(at=None)"
    assert found[1]["text"] == "not bad at all"


def test_equal_samples_of_one_batch_are_two_inputs():
    one = row()
    two = row(values=torch.cat([one.values] * 2), total=torch.ones(2), output=one.output.repeat(2, 1),
              target=torch.tensor([1, 1]), features=one.features * 2)  # fmt: skip
    assert [len(section["cards"]) for section in sections([two, two])] == [2, 2]


def test_what_a_card_says():
    scores = Scores([0.25], "DeletionRate()", higher_is_better=False)
    (section,) = sections(
        [words(warnings=("not within tolerance",), cost=Cost(3, 2, 0.25), notes={"nodes": 8})], [[scores]]
    )
    card = section["cards"][0]
    assert section["label"] == "yes"
    assert section["ranking"][0][:2] == ("yes", 3.0)
    assert card["balance"] == "explained 2.00 of 3.00: 1.00 left over (33 %, does not add up)"
    assert card["warnings"] == ["not within tolerance"]
    assert card["repr"] == "InputXGradient(at=None)"
    assert card["cost"] == "3 forward and 2 backward passes, 0.25 s"
    assert card["notes"] == {"nodes": 8}
    assert card["shown"]["pieces"][-1] == ("all", 2.0)
    assert card["tests"] == [
        {"test": "DeletionRate()", "value": 0.25, "direction": "lower is better", "beside": {}}
    ]


def test_the_page_says_with_what_it_was_made():
    assert data_of(page([row()]))["versions"]["torch"] == torch.__version__


def test_a_reader_without_scripts_gets_the_balance():
    plain = page([words()]).split("<noscript>")[1].split("</noscript>")[0]
    assert "yes: explained 2.00 of 3.00: 1.00 left over" in plain


def test_a_large_picture_makes_a_small_page():
    noise = torch.randn(3, 1024, 768)
    big = picture(1024, 768, values=noise[None])
    photo = np.random.default_rng(0).integers(0, 256, (1024, 768, 3), dtype=np.uint8)
    object.__setattr__(big.features[0], "picture", torch.from_numpy(photo))
    assert len(page([big] * 4)) < 1e6


def test_of_the_pairs_of_many_features_the_strongest_are_listed():
    values = torch.zeros(1, 400, 400)
    values[0, 3, 7] = values[0, 7, 3] = -0.5
    many = replace(pairs(), values=values, names=(tuple(map(str, range(400))),))
    assert sections([many])[0]["cards"][0]["shown"] == {"kind": "bars", "names": ["3 × 7"], "values": [-1.0]}
    assert sections([replace(many, values=values * 0)])[0]["cards"][0]["shown"]["names"] == []


def test_a_notebook_shows_a_few_samples():
    one = row()
    many = row(values=one.values.repeat(9, 1), total=torch.ones(9), output=one.output.repeat(9, 1),
               target=torch.ones(9, dtype=torch.long), features=one.features * 9)  # fmt: skip
    text = many._repr_html_()
    assert text.count("<b>InputXGradient</b>") == 4
    assert "5 more" in text


def test_to_html_writes_the_page(tmp_path):
    path = tmp_path / "new" / "e.html"
    assert row().to_html(path) == path.read_text(encoding="utf-8")
    found = pairs()
    assert isinstance(found, Interactions)
    assert found.to_html(path) == path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "explanation", [words(), picture(), row(), row(total=None), row(target="Contrast(1, 0)"), pairs()]
)
def test_the_summary_is_json(explanation):
    found = json.loads(json.dumps(summary(explanation)))
    assert found["prediction"]["label"] == "yes"
    if found["kind"] in ("words", "bars"):
        assert sum(f["value"] for f in found["features"]) == pytest.approx(found["apportioned"])


# ---- in a browser ----


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def shown(browser, tmp_path):
    """Open a page of these explanations from disk."""

    def show(*explanations, **options):
        browser.requests.clear()
        browser.errors.clear()
        path = tmp_path / "page.html"
        path.write_text(page(explanations, **options), encoding="utf-8")
        browser.open(path.as_uri())
        browser.wait("document.querySelectorAll('article').length")
        return browser

    return show


def coloured(browser, tmp_path):
    """How many pixels are orange, and how many blue."""
    pixels = np.asarray(Image.open(browser.screenshot(tmp_path / "p.png")).convert("RGB")).astype(int)
    orange = (np.abs(pixels - (213, 94, 0)).max(-1) < 12).sum()
    return int(orange), int((pixels[..., 2] - pixels[..., 0] > 60).sum())


@needs_chromium
def test_the_page_asks_nothing_of_the_network_and_runs_no_script_of_the_input(shown, everything):
    browser = shown(*everything)
    assert [address for address in browser.requests if not address.startswith("data:")] == browser.requests[
        :1
    ]
    assert browser.requests[0].startswith("file:")
    assert browser.errors == []
    assert browser.run("document.querySelectorAll('script').length") == 2
    assert browser.run("document.querySelector('blockquote').textContent") == f"{ATTACK} fine"


@needs_chromium
def test_sliders_act_on_the_heat_map(shown, tmp_path):
    browser = shown(picture())
    orange, blue = coloured(browser, tmp_path)
    assert orange > 5000
    assert blue > 5000
    browser.choose("[name=threshold]", "60")  # blue is half as strong as orange
    assert coloured(browser, tmp_path)[0] == orange
    assert coloured(browser, tmp_path)[1] < blue / 2
    browser.choose("[name=opacity]", "0")
    assert coloured(browser, tmp_path)[0] < orange / 20


@needs_chromium
def test_one_scale_for_all_methods_on_request(shown):
    strong, weak = words(), words(values=words().values / 10, method=Saliency(), total=None)

    def shades():
        return browser.run("[...document.querySelectorAll('.chip[title^=all]')].map(c => c.style.background)")

    browser = shown(strong, weak)
    assert len(set(shades())) == 1
    browser.click("[name=shared]")
    assert len(set(shades())) == 2
    shown(strong, weak, same_scale=True)
    assert len(set(shades())) == 2


@needs_chromium
def test_values_under_the_pointer_and_by_keyboard(shown):
    browser = shown(picture())
    browser.click(".stack")
    assert browser.run("document.querySelector('.reading').textContent").startswith("x ")
    browser.run("document.querySelector('.stack').focus()")
    browser.press("ArrowLeft")
    assert re.fullmatch(
        r"x \d+–\d+, y \d+–\d+: [+−][\d.]+", browser.run("document.querySelector('.reading').textContent")
    )
    shown(words())
    browser.run("document.querySelector('[data-chip]').focus()")
    browser.press("ArrowRight")
    assert browser.run("document.querySelector('.reading').textContent") == "bad +0.00"


@needs_chromium
def test_a_feature_shows_its_partners(shown):
    browser = shown(pairs())
    browser.click("button.chip:nth-of-type(1)")
    assert "does together with" in browser.run("document.querySelector('.bars caption').textContent")
    assert browser.run("document.querySelector('.bars th').textContent") == "bad"
    assert browser.run("document.querySelector('.bars .n').textContent") == "−2.00"


@needs_chromium
def test_panels_show_boxes_and_add_up_to_the_score(shown):
    browser = shown(over_prototypes())
    assert "2.00 similarity × 1.25 weight = +2.50" in browser.run(
        "document.querySelector('.panels').textContent"
    )
    assert "all other prototypes +0.50; with them the score 3.00" in browser.run(
        "document.querySelector('.panels').textContent"
    )
    assert browser.run("[...document.querySelectorAll('.panels img')].map(i => i.alt)") == [
        "this, from 0 to 100 % across and 25 to 50 % down",
        f"looks like that: {HOSTILE}, from 0 to 50 % across and 0 to 100 % down",
    ]
    assert browser.run("document.querySelector('.boxed i').style.height") == "25%"
    assert browser.errors == []


@needs_chromium
def test_a_card_is_taken_away_as_picture_and_data(shown, tmp_path):
    browser = shown(picture())
    browser.downloads(tmp_path)
    for i, name in enumerate(("yes-InputXGradient.png", "InputXGradient.json"), 1):
        browser.click(f".tools button:nth-of-type({i})")
        browser.downloaded(tmp_path / name)
    orange = np.abs(
        np.asarray(Image.open(tmp_path / "yes-InputXGradient.png").convert("RGB")).astype(int) - (213, 94, 0)
    )
    assert (orange.max(-1) < 12).sum() > 5000
    assert (
        json.loads((tmp_path / "InputXGradient.json").read_text())["cards"][0]["method"] == "InputXGradient"
    )


@needs_chromium
def test_a_phone_has_nothing_beyond_its_edge(shown):
    browser = shown(picture(), words("w " * 200), row(), pairs())
    browser.size(360, 800)
    assert browser.run("document.documentElement.scrollWidth") <= 360
    browser.size(1200, 900)


@pytest.mark.parametrize("made", [words, row, pairs, picture])
def test_a_card_of_a_notebook_is_small_and_no_frame(made):
    """One card a sample, without scripts and requests, as high as what is in it."""
    shown = made()._repr_html_()
    assert len(shown.encode()) <= 20_000
    assert not re.search(r"<(iframe|script|style|link)|https?://|height: \d+rem", shown)
    assert made().account(0) in html.unescape(shown)


@needs_chromium
def test_two_samples_in_a_notebook_are_seen_without_scrolling(browser, tmp_path):
    one = words()
    two = f"<!doctype html><meta charset=utf-8><body>{one._repr_html_()}{row()._repr_html_()}"
    (tmp_path / "book.html").write_text(two, encoding="utf-8")
    browser.open((tmp_path / "book.html").as_uri())
    browser.size(800, 900)
    assert browser.run("document.documentElement.scrollHeight") <= 900
    inner = "[...document.querySelectorAll('div')].every(d => d.scrollHeight <= d.clientHeight + 1)"
    assert browser.run(inner)
    pixels = np.asarray(Image.open(browser.screenshot(tmp_path / "p.png")).convert("RGB")).astype(int)
    assert (pixels.max(-1) - pixels.min(-1) > 60).sum() > 500  # colours are there


def test_a_text_that_no_file_takes_is_drawn_written_and_stored(tmp_path):
    """A lone half of a surrogate pair, as from a damaged file, is a sign that stands for it wherever it is shown."""
    explanation = words("so \ud800bad here")
    assert [name for name, _ in explanation.top(3)] == ["here", "so", "\ufffdbad"]
    explanation.to_html(tmp_path / "page.html")
    assert "\ufffdbad" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert json.dumps(summary(explanation), ensure_ascii=False).encode()
    explanation.plot()
    with (tmp_path / "terminal.txt").open("w", encoding="utf-8") as file:
        terminal.show(explanation, Console(file=file), "words")
    explanation.save(tmp_path / "saved.safetensors")
    again = Explanation.load(tmp_path / "saved.safetensors")
    assert again.features[0].text == "so \ud800bad here"


def test_the_terminal_names_settings_that_differ_and_a_score_once():
    def shown(explanation):
        text = StringIO()
        terminal.show(explanation, Console(file=text, width=200), "mass")
        return text.getvalue().splitlines()

    one = row(
        output=torch.tensor([[3306.25]]), target=torch.tensor([0]), labels=None, method=KernelSHAP(samples=60)
    )
    lines = shown(one)
    assert lines[0] == "mass: score 3306.25"
    assert lines[-1].startswith("KernelSHAP(samples=60) · ")
    assert shown(row(method=KernelSHAP()))[-1].startswith("KernelSHAP · ")
