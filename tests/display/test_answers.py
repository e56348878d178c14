"""The answer of a language model, in a terminal and on its page."""

from __future__ import annotations

import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import torch
from rich.console import Console

from apportion.display import terminal
from apportion.display.answers import rows_of
from apportion.display.page import page, told
from apportion.display.pictures.answers import draw_answer
from apportion.display.pictures.explanations import png
from apportion.results.explanation import Explanation
from browser import Browser, needs_chromium
from surfaces import answer, data_of


def test_rows_keep_what_is_never_hidden_apart() -> None:
    first, second = rows_of(answer())
    assert first.features == (("is", 1.0), ("it", -2.0), ("so?", 4.0))
    assert (first.template, first.so_far) == (0.5, 0.0)
    assert (second.template, second.so_far) == (0.0, 2.0)
    assert [name for name, _ in first.strongest(3)] == ["so?", "it", "is"]


def test_a_part_that_was_taken_out_keeps_its_score_and_its_place(tmp_path: Path) -> None:
    taken = answer()[1]
    assert (rows_of(taken)[0].name, rows_of(taken)[0].score) == ("!", -1.5)
    (row,) = data_of(page([taken]))["maps"][0]["rows"]
    assert (row["first"], row["last"], row["score"]) == (1, 2, -1.5)
    assert told(taken)["explained"][0]["tokens"] == [1, 2]
    taken.save(tmp_path / "taken.safetensors")
    assert page([Explanation.load(tmp_path / "taken.safetensors")]) == page([taken])
    console = Console(width=140, record=True, color_system=None, file=StringIO())
    terminal.show(taken, console, "model")
    assert "log-probability of '!': −1.50" in console.export_text()


def test_the_page_has_the_prompt_in_pieces_that_join_to_it() -> None:
    (shown,) = data_of(page([answer()]))["maps"]
    plain = "".join(piece["text"] for piece in shown["pieces"] if not piece["special"])
    assert plain == "is it so?"
    values = {piece["text"]: piece["values"] for piece in shown["pieces"] if piece["values"]}
    assert values == {"<s>": [0.5, 0.0], "is": [1.0, 3.0], "it": [-2.0, 0.25], "so?": [4.0, -0.5]}
    assert shown["rows"][1]["before"] == [2.0]


def test_a_terminal_shows_each_token_with_its_strongest_sources() -> None:
    console = Console(width=140, record=True, color_system=None, file=StringIO())
    terminal.show(answer(), console, "model")
    said = console.export_text()
    assert "model: yes!" in said
    assert "so? +4.00 · it −2.00 · is +1.00" in said
    assert "answer so far" in said
    assert "template" in said


def test_a_notebook_shows_one_small_card_for_all_of_an_answer() -> None:
    shown = answer()._repr_html_()
    assert not re.search(r"<(iframe|script|style|link)|https?://", shown)
    assert [name in shown for name in ("<b>yes</b>", "<b>!</b>", "so? +4.00", "log-probability")] == [
        True
    ] * 4
    long = replace(
        answer(),
        values=answer().values[:1].expand(100, -1),
        output=torch.zeros(100, 100),
        target=torch.arange(100),
        labels=("<script>" * 40,) * 100,
        features=(answer().features or ())[:1] * 100,
        total=torch.ones(100),
    )
    assert len(long._repr_html_().encode()) <= 20_000
    assert "… and 76 more" in long._repr_html_()
    assert "<script" not in long._repr_html_()


@needs_chromium
def test_a_word_of_either_side_colours_the_other(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(page([answer()]), encoding="utf-8")
    browser = Browser(tmp_path / "profile")
    try:
        browser.open((tmp_path / "a.html").as_uri())
        chips = "[...document.querySelectorAll('.words:not(.said) .chip')].map(c => +c.dataset.value)"
        said = "[...document.querySelectorAll('.said .chip')].map(c => +c.dataset.value)"
        assert browser.run(chips) == [0.5, 1, -2, 4]
        browser.run("document.querySelectorAll('.said .chip')[1].click()")
        browser.wait(f"({chips})[1] === 3")
        assert browser.run(chips) == [0, 3, 0.25, -0.5]
        assert browser.run(said) == [2, 0]
        browser.run("document.querySelectorAll('.words:not(.said) .chip')[3].click()")
        browser.wait(f"({said})[0] === 4")
        assert browser.run(said) == [4, -0.5]
        assert browser.errors == []
    finally:
        browser.close()


def test_json_has_every_part_of_the_answer() -> None:
    said = told(answer())
    assert said["answer"] == " yes!"
    first, second = said["explained"]
    assert first["features"] == [
        {"name": n, "value": v} for n, v in (("is", 1.0), ("it", -2.0), ("so?", 4.0))
    ]
    assert (first["template"], first["score"], first["tokens"]) == (0.5, -0.5, [0, 1])
    assert (second["answer_so_far"], second["total"], second["remainder"]) == (2.0, 4.75, 0.0)
    assert said["score"] == "log-probability"
    assert "prediction" not in said  # of parts among each other, which says nothing


def test_a_picture_has_the_parts_of_the_answer_over_the_prompt(tmp_path: Path) -> None:
    figure = draw_answer(answer())
    (ax,) = figure.axes
    assert [t.get_text() for t in ax.get_xticklabels()] == ["yes", "!"]
    assert [t.get_text() for t in ax.get_yticklabels()] == [
        "is",
        "it",
        "so?",
        "(template)",
        "(answer so far)",
    ]
    assert ax.images[0].get_array().tolist() == [[1, 3], [-2, 0.25], [4, -0.5], [0.5, 0], [0, 2]]
    assert png(answer(), tmp_path / "a.png").stat().st_size > 5000
