"""Pictures side by side: what the page of prototypes, clusters and means holds, and how a browser draws it."""

from __future__ import annotations

import numpy as np
import pytest

from apportion.display.sheet import figure, sheet_page
from browser import Browser, needs_chromium
from surfaces import ATTACK, HOSTILE, data_of, means, rows


def test_a_page_keeps_its_markup_in_the_data():
    text = sheet_page(rows())
    assert ATTACK not in text
    assert "onload=" not in text.split("<script")[0].replace("onload=&quot;", "")
    assert text.count("<script") == 2
    data = data_of(text)
    assert (data["title"], data["about"], data["end"]) == (HOSTILE, "before", "after")
    (article,) = data["chapters"][0]["articles"]
    assert (article["title"], article["words"]) == (ATTACK, ["2 similarity", "= 3"])
    (this,), (heat,), (that,) = (shown["pictures"] for shown in article["groups"][0]["figures"])
    assert (this["squares"], this["box"]) == (True, [0.25, 0.5, 0.0, 1.0])
    assert that.keys() == {"src"}
    assert heat["src"] != this["src"]
    assert article["groups"][1]["heading"] == "Nearest"


def test_a_reader_without_scripts_gets_the_words():
    plain = sheet_page(rows()).split("<noscript>")[1].split("</noscript>")[0]
    assert "2 similarity = 3" in plain
    assert "after" in plain
    assert "  &lt;b&gt;: −0.50 in 2" in sheet_page(means()).split("</noscript>")[0]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def shown(browser, tmp_path):
    """Open a page from disk."""

    def show(text: str) -> Browser:
        browser.requests.clear()
        browser.errors.clear()
        (tmp_path / "page.html").write_text(text, encoding="utf-8")
        browser.open((tmp_path / "page.html").as_uri())
        browser.wait("document.querySelectorAll('article').length")
        return browser

    return show


@needs_chromium
def test_a_browser_draws_rows_and_asks_for_nothing(shown):
    browser = shown(sheet_page(rows()))
    assert [address for address in browser.requests if not address.startswith("data:")] == browser.requests[
        :1
    ]
    assert browser.errors == []
    assert browser.run("document.querySelectorAll('script').length") == 2
    assert browser.run("document.querySelector('h1').textContent") == HOSTILE
    assert browser.run("document.querySelector('article h2').textContent") == ATTACK
    assert browser.run("[...document.querySelectorAll('img')].map(i => i.alt)") == [
        "this, from 0 to 100 % across and 25 to 50 % down",
        "map",
        f"that: {HOSTILE}",
        "this, from 0 to 100 % across and 25 to 50 % down",
    ]
    assert browser.run("document.querySelectorAll('img.squares').length") == 3
    assert browser.run("document.querySelector('.boxed i').style.height") == "25%"
    assert browser.run("document.querySelectorAll('.key').length") == 0
    browser.size(390, 800)
    assert browser.run("document.documentElement.scrollWidth") <= 390
    browser.size(1200, 900)


@needs_chromium
def test_a_caption_is_said_once_of_two_pictures(shown):
    pixels = np.zeros((4, 4, 3), np.uint8)
    two = rows()
    two["chapters"][0]["articles"][0]["groups"] = [{"figures": [figure(HOSTILE, pixels, pixels)]}]
    browser = shown(sheet_page(two))
    assert browser.run("[...document.querySelectorAll('img')].map(i => i.alt)") == ["", HOSTILE]


@needs_chromium
def test_a_browser_draws_means_to_both_sides(shown):
    browser = shown(sheet_page(means()))
    cells = (
        "[...document.querySelectorAll('.bars tbody tr')].map(r => [...r.children].map(c => c.textContent))"
    )
    assert browser.run(cells) == [["<b>", "", "−0.500", "0.500", "2"], ["a", "", "+0.250", "0.250", "1"]]
    widths = browser.run("[...document.querySelectorAll('.track i')].map(i => [i.className, i.style.width])")
    assert widths == [["against", "50%"], ["for", "25%"]]
    assert "no pair is in enough inputs to be shown" in browser.run("document.body.innerText")
    assert browser.run("document.querySelectorAll('article.alike').length") == 1
    assert browser.run("document.querySelectorAll('.key').length") == 1
    side_by_side = (
        "[...document.querySelectorAll('.cards > article')].map(a => a.getBoundingClientRect().top)"
    )
    first, second = browser.run(side_by_side)
    assert first == second
