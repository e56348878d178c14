"""One vocabulary: that of the glossary, wherever a lay person looks."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

import apportion as ap
from apportion.display import terminal
from apportion.display.page import page

ROOT = Path(__file__).parent.parent
# What these mean is said by words of the glossary: left over, explained, value, start, class, hidden.
JARGON = re.compile(
    r"\b(remainders?|apportioned|relevance|x′|attributions?|residual|perturb\w+)\b", re.IGNORECASE
)
SENTENCE = "The plot is thin, but the acting is superb."


def test_the_glossary_has_at_most_twelve_words_and_is_linked():
    words = re.findall(
        r"^\| \*\*(.+?)\*\* \|", (ROOT / "docs/glossary.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert 8 <= len(words) <= 12
    assert len(set(words)) == len(words)
    for file in ("README.md", "docs/index.md", "mkdocs.yml"):
        assert "glossary.md" in (ROOT / file).read_text(encoding="utf-8"), file


@pytest.mark.parametrize("method", ["auto", "ih", "saliency", "LRP(ledger=True)", "InputXGradient()"])
def test_the_terminal_uses_no_jargon(method):
    explanation = ap.explain(ap.load("sentiment"), SENTENCE, method)
    console = Console(width=80, file=io.StringIO(), record=True)
    terminal.show(explanation, console, "sentiment")
    console.print(terminal.comparison([explanation]))
    assert not JARGON.findall(console.export_text())
    plain = page([explanation]).split("<noscript>")[1].split("</noscript>")[0]
    assert not JARGON.findall(plain)


def test_the_page_uses_no_jargon():
    for source in (ROOT / "frontend/src").glob("*.tsx"):
        text = re.sub(r"^\s*(//|/?\*).*$", "", source.read_text(encoding="utf-8"), flags=re.MULTILINE)
        shown = re.findall(r">([^<>{}]*[a-z][^<>{}]*)<", text)
        assert not [text for text in shown if JARGON.search(text)], source
