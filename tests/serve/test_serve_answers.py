"""The workbench for language models: what its server says, and what a person does on its page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("fastapi")
pytest.importorskip("transformers")
import apportion as ap
import small_language_models as small
from apportion.errors import InputError
from apportion.serve._jobs import Models, explain
from apportion.serve.request import Ask, read
from browser import Browser, needs_chromium

PROMPT, ANSWER = "The capital of France is", " Paris ."
PASSAGES = ["Ben lives in Oslo .", "The capital is Paris ."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small.saved(small.causal(window=128), tmp_path_factory.mktemp("lm")))


@pytest.fixture(scope="module")
def models(folder: str) -> Models:
    return Models([folder])


def said(models: Models, cancelled: threading.Event | None = None, **ask: Any) -> list[Any]:
    found: list[Any] = []
    ask = {"model": models.names[0], "text": PROMPT, "methods": ["occlusion"], "max_new_tokens": 3, **ask}
    explain(read(json.dumps(ask).encode(), Ask), models, found.append, cancelled or threading.Event())
    return found


def test_each_method_explains_the_same_answer(models: Models) -> None:
    found = said(models, methods=["occlusion", "deeplift"])
    pages = [each["answer"] for each in found if each["event"] == "answer"]
    assert [each["event"] for each in found if each["event"] != "progress"] == ["start", "answer"] * 2
    assert pages[0]["answer"] == pages[1]["answer"]
    lm = models[models.names[0]]
    alone = ap.explain(lm, PROMPT, "deeplift", max_new_tokens=3)
    values = torch.tensor([p["values"] for p in pages[1]["maps"][0]["pieces"] if p["values"]])
    assert torch.allclose(
        values.double().T, torch.stack([alone.relevance(i)[1] for i in range(3)]), atol=1e-6
    )


def test_what_is_asked_with_a_prompt_is_asked(models: Models) -> None:
    found = said(
        models, answer=ANSWER, context=PASSAGES, target="Paris", contrast=" Madrid", chat=True, score="logit"
    )
    (page,) = [each["answer"] for each in found if each["event"] == "answer"]
    (row,) = page["maps"][0]["rows"]
    assert row["name"] == "Paris rather than Madrid"
    assert page["score"] == "logit"
    assert [p["text"] for p in page["maps"][0]["pieces"] if p["values"] and not p["special"]] == PASSAGES


def test_tests_follow_the_answer(models: Models) -> None:
    found = [
        each
        for each in said(models, answer=ANSWER, context=PASSAGES, tests=True)
        if each["event"] == "answer"
    ]
    assert [each["done"] for each in found] == [False, True]
    tests = found[1]["answer"]["maps"][0]["rows"][0]["tests"]
    assert [test["test"].split("(")[0] for test in tests] == ["TopKDrop", "LDS"]


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        ({"text": " "}, "at least one word"),
        ({"text": None}, "the prompt"),
        ({"answer": ""}, "answer is empty"),
        ({"answer": ANSWER, "target": "Rome"}, "not in the answer"),
        ({"answer": ANSWER, "contrast": ANSWER}, "what the answer says there"),
        ({"context": ["a", "a"]}, "the same passage"),
        ({"text": PROMPT * 60, "answer": ANSWER}, "context window"),
        ({"methods": ["ih"]}, "pairs of words"),
        ({"methods": ["LIME(samples=1000000)"]}, "at most 100000"),
    ],
)
def test_what_cannot_be_asked_is_one_message(models: Models, ask: dict[str, Any], told: str) -> None:
    (error,) = [each for each in said(models, **ask) if each["event"] == "error"]
    assert told in error["message"]
    assert "\n" not in error["message"]


@pytest.mark.parametrize(
    "ask", [{"max_new_tokens": 0}, {"unit": "letter"}, {"score": "loss"}, {"context": "a text"}]
)
def test_what_is_no_request_is_refused(ask: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(ask))):
        read(json.dumps({"model": "m", "text": "t", "methods": ["lrp"], **ask}).encode(), Ask)


def test_cancelled_work_says_no_more(models: Models) -> None:
    cancelled = threading.Event()
    cancelled.set()
    assert all(each["event"] != "answer" for each in said(models, cancelled, answer=ANSWER))


def test_a_model_without_a_template_offers_no_chat(models: Models, tmp_path: Path) -> None:
    assert models.described(models.names[0])["chat"]
    plain = Models([str(small.saved(small.causal(), tmp_path, template=False))])
    about = plain.described(plain.names[0])
    assert not about["chat"]
    assert "pairs of words" in about["unsuitable"]["ih"]
    assert "occlusion" not in about["unsuitable"]


@pytest.fixture
def page(folder: str, tmp_path: Path) -> Iterator[Browser]:
    command = [sys.executable, "-m", "apportion", "serve", "--no-browser", "--port", "0", "--model", folder]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(process.stdout.readline().removeprefix("workbench: ").strip())
        yield browser
        assert browser.errors == []
    finally:
        browser.close()
        process.send_signal(2)
        process.wait(600)


@needs_chromium
def test_a_person_asks_and_sees_what_moved_what(page: Browser) -> None:
    ready = "document.querySelector('[type=submit]') && !document.querySelector('[type=submit]').disabled"
    page.wait(ready)
    assert page.run("document.querySelector('[name=prompt]').value") == PROMPT
    page.fill("[name=answer]", ANSWER)
    page.run("document.querySelectorAll('.bench details').forEach(e => { e.open = true; })")
    page.fill("[name=context]", "\n\n".join(PASSAGES))
    page.click("[name=method-occlusion]")
    page.click("[type=submit]")
    page.wait("document.querySelectorAll('article.answer').length >= 2")
    page.wait(ready)
    chips = "[...document.querySelectorAll('article.answer .words:not(.said) .chip')]"
    assert set(PASSAGES) <= set(page.run(f"{chips}.map(e => e.textContent)"))
    page.run(f"{chips}.find(e => e.textContent.includes('Oslo')).click()")
    page.wait("document.querySelector('.reading').textContent.includes('moved')")
    page.fill("[name=answer]", " Madrid")
    page.wait("document.querySelector('.stale article.answer')")
    assert "question was changed" in page.run("document.querySelector('[role=status]').textContent")
    page.choose("[name=model]", "sentiment")
    page.wait("document.querySelector('[name=text]')?.value.includes('acting')")


@needs_chromium
def test_cancel_stops_an_answer_and_says_how_far_it_was(page: Browser) -> None:
    ready = "document.querySelector('[type=submit]') && !document.querySelector('[type=submit]').disabled"
    page.wait(ready)
    page.fill("[name=prompt]", PROMPT + " the capital of Spain" * 4)
    page.fill("[name=answer]", ANSWER)
    page.click("[name=method-auto]")
    page.click("[name=method-inputxgradient]")
    page.fill("[name=others]", "LIME(samples=90000, chunk=1)")
    page.click("[type=submit]")
    page.wait("document.querySelector('.steps')?.textContent.includes('masked inputs')")
    names = "[...document.querySelectorAll('article.answer h2')].map(e => e.textContent)"
    found = page.run(names)
    assert "InputXGradient" in found  # what was found before is there already
    page.click(".actions [type=button]")
    page.wait(ready)
    (left,) = page.run("[...document.querySelectorAll('.steps li')].map(e => e.textContent)")
    assert re.fullmatch(r"LIME\(samples=90000, chunk=1\) cancelled after \d+ of 90000 masked inputs", left)
    assert page.run(names) == found
    assert page.run("document.querySelector('[role=alert]')") is None
    page.fill("[name=others]", "")
    page.click("[type=submit]")  # the server is free again
    page.wait(f"!document.querySelector('.steps') && {ready}")
    assert page.run(names) == found
