"""The workbench: what its server refuses and survives, and what a person does on its page."""

import asyncio
import base64
import contextlib
import io
import json
import re
import socket
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")
from apportion.names import INTERACTIONS, METHODS, QUESTIONS
from apportion.serve._jobs import Models
from browser import Browser, needs_chromium
from surfaces import ATTACK

MODELS = """
import time, torch
from torch import nn
from apportion import Classifier, ProtoPNet
from apportion.domains.image import ImagePreparation
from apportion.domains.text import Vocabulary, encode_words

VOCABULARY = Vocabulary(("<pad>", "<unk>", "good", "bad"))

class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.output = nn.Embedding(4, 2), nn.Linear(2, 2)
    def forward(self, ids):
        if (ids == 3).any() and (ids == 1).any():
            raise KeyError("inside the model")
        time.sleep(0.02)
        return self.output(self.embedding(ids).mean(1))

def slow():
    torch.manual_seed(0)
    return Classifier(Slow().eval(), lambda t: encode_words(t, VOCABULARY), ("no", "yes"), "text", "slow", 1)

class Stuck(Slow):
    def forward(self, ids):
        if (ids == 2).any():
            while True:
                time.sleep(0.01)
        return super().forward(ids)

def stuck():
    return Classifier(Stuck().eval(), lambda t: encode_words(t, VOCABULARY), ("no", "yes"), "text", "stuck", 1)

def parts():
    torch.manual_seed(0)
    small = ImagePreparation(resize=(8, 8), crop=None, mean=(0.0,), std=(1.0,))
    model = ProtoPNet(nn.Conv2d(1, 4, 3), 2, recipe="fast", preparation=small)
    return model.fit(torch.rand(20, 1, 8, 8), torch.arange(20) % 2).classifier("parts")

def rent():
    import apportion, pandas
    from sklearn.base import BaseEstimator, RegressorMixin
    flats = pandas.DataFrame({"rooms": [2.0, 4.0, None], "city": ["Rome", None, "Bern"], "new": [True, False, True]})
    class Price(RegressorMixin, BaseEstimator):
        def predict(self, rows):
            return (10 * rows.rooms.fillna(3) + 5 * (rows.city == "Bern") + 2 * rows.new).to_numpy(float)
    return apportion.Tabular(Price(), flats, name="rent")
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(address, token) of a running server, with a slow model of the user's own."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "mine.py").write_text(MODELS)
    options = [
        "--no-browser",
        "--port",
        "0",
        "--model",
        "mine.py:slow",
        "--model",
        "mine.py:parts",
        "--model",
        "mine.py:stuck",
        "--model",
        "mine.py:rent",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "apportion", "serve", *options],
        cwd=folder, stdout=subprocess.PIPE, stderr=(folder / "log").open("w"), text=True,
    )  # fmt: skip
    line = process.stdout.readline()
    address, token = line.removeprefix("workbench: ").strip().split("/#token=")
    yield address, token
    assert process.poll() is None, (folder / "log").read_text()
    process.send_signal(2)
    assert process.wait(600) == 0


def opened(served, path, body=None, **headers):
    address, token = served
    headers = {"Authorization": f"Bearer {token}", **headers}
    return urlopen(
        Request(address + path, body, {k: v for k, v in headers.items() if v is not None}), timeout=600
    )


def refused(served, path="/api/explain", body=b"{}", **headers):
    """Status and what is said."""
    with pytest.raises(HTTPError) as caught:
        opened(served, path, body, **headers)
    return caught.value.code, json.loads(caught.value.read())["detail"]


def explained(served, **ask):
    body = json.dumps({"model": "sentiment", "methods": ["lrp"], **ask}).encode()
    return [json.loads(line) for line in opened(served, "/api/explain", body)]


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def bomb(width, height):
    """A PNG of a kilobyte whose header says that it has so many pixels."""
    data = png(np.zeros((1, 1), np.uint8))
    head = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + data[24:29]
    return data[:12] + head + zlib.crc32(head).to_bytes(4, "big") + data[33:]


# ---- the server ----


def test_a_sentence(served):
    said = explained(served, text="a funny movie", methods=["lrp", "ih"], tests=True)
    kinds = [message["event"] for message in said]
    assert kinds[:2] == ["waiting", "start"]
    assert kinds.count("section") == 2
    first = next(message for message in said if message["event"] == "section")["section"]
    assert first["text"] == "a funny movie"
    assert first["cards"][0]["shown"]["kind"] == "words"
    tested = [message for message in said if message["event"] == "tested" and message["method"] == "lrp"]
    assert [message["done"] for message in tested][-1]
    assert [test["test"].split("(")[0] for test in tested[-1]["tests"]] == ["PixelFlipping", "DeletionRate"]
    assert all(list(test["beside"]) == ["random", "uniform", "reversed"] for test in tested[-1]["tests"])
    assert len(tested[-1]["chart"]["curves"][0]["x"]) == 4


def test_a_row(served):
    columns = json.load(opened(served, "/api/model?name=breast-cancer"))["columns"]
    row = {column["name"]: column["value"] for column in columns}
    (section,) = [
        m["section"] for m in explained(served, model="breast-cancer", row=row) if m["event"] == "section"
    ]
    shown = section["cards"][0]["shown"]
    assert shown["kind"] == "bars"
    # The means, from which columns are counted, would have nothing to explain.
    assert max(map(abs, shown["values"])) > 0.05
    (error,) = [
        m
        for m in explained(served, model="breast-cancer", row={**row, columns[0]["name"]: "much"})
        if m["event"] == "error"
    ]
    assert columns[0]["name"] in error["message"]


def test_a_row_of_a_model_of_frames_is_that_of_its_background(served):
    found = json.load(opened(served, "/api/model?name=mine.py:rent"))
    assert [(c["name"], c["value"], c["categories"]) for c in found["columns"]] == [
        ("rooms", "2", None), ("city", "Rome", ["", "Bern", "Rome"]), ("new", "1", None),
    ]  # fmt: skip
    assert {"ig", "smoothgrad", "deeplift", "ih"} <= set(found["unsuitable"])  # it leaves PyTorch
    for row, values in (
        ({"rooms": "2", "city": "Rome", "new": "1"}, [-10.0, -5 / 3, 2 / 3]),
        ({"rooms": "", "city": "", "new": "0"}, [0.0, -5 / 3, -4 / 3]),
    ):
        said = explained(served, model="mine.py:rent", methods=["kernelshap"], row=row)
        (section,) = [m["section"] for m in said if m["event"] == "section"]
        shown = section["cards"][0]["shown"]
        by_name = dict(zip((name.split(" = ")[0] for name in shown["names"]), shown["values"], strict=True))
        assert [by_name[name] for name in ("rooms", "city", "new")] == pytest.approx(values, abs=1e-5)
    said = explained(served, model="mine.py:rent", methods=["kernelshap"], row=row, tests=True)
    charts = [m["chart"] for m in said if m["event"] == "tested"]
    assert {chart["y"] for chart in charts} == {"score"}  # not one of 0 to 1
    assert max(charts[-1]["curves"][0]["y"]) > 1


def test_only_who_has_the_token_is_answered(served):
    for path in ("/api/catalog", "/api/model?name=sentiment"):
        for token in (None, "Bearer ", "Bearer wrong"):
            assert refused(served, path, None, Authorization=token)[0] == 401
    assert refused(served, Authorization=None)[0] == 401
    assert b"apportion" in opened(served, "/", Authorization=None).read()  # the page holds no secret


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example"])
def test_a_request_in_another_name_is_refused(served, host):
    assert refused(served, "/", None, Host=host)[0] == 403
    assert refused(served, Host=host)[0] == 403


def test_only_this_machine_is_listened_to(served):
    port = int(served[0].rsplit(":", 1)[1])
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for other in others - {"127.0.0.1"}:
        with pytest.raises(ConnectionError):
            socket.create_connection((other, port), 2)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        ({"methods": []}, "methods"),
        ({"methods": ["lrp"] * 21}, "methods"),
        ({"text": "a" * 20_001}, "text"),
        ({"more": 1}, "more"),
        ({"model": 5}, "model"),
    ],
)
def test_what_is_no_request_is_refused(served, ask, said):
    body = json.dumps({"model": "sentiment", "methods": ["lrp"], "text": "fine", **ask}).encode()
    status, detail = refused(served, body=body)
    assert status == 400
    assert detail.startswith(said)


def test_what_is_no_json_or_too_much_is_refused(served):
    assert refused(served, body=b"\xff{")[0] == 400
    with contextlib.suppress(URLError):  # it may hang up before all was sent
        opened(served, "/api/explain", b" " * 40_000_000)
    assert explained(served, text="fine")[-1]["event"] == "section"


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        ({"text": " "}, "at least one word"),
        ({"text": "fine", "methods": ["lpr"]}, "did you mean 'lrp'?"),
        ({"text": "fine", "methods": ["__import__('os')"]}, "unknown method"),
        ({"text": "fine", "target": "postive"}, "nearest: positive"),
        ({"text": "fine", "model": "other"}, "no model 'other'"),
        ({"text": "fine", "model": "digits"}, "takes a picture"),
        ({}, "there is no input"),
        ({"model": "digits", "image": ""}, "no picture yet"),
        ({"model": "digits", "image": "!!"}, "base64"),
        ({"model": "digits", "image": base64.b64encode(b"not a picture").decode()}, "is not a picture"),
        ({"model": "digits", "image": base64.b64encode(b"GIF89a").decode()}, "is not a picture"),
        ({"model": "digits", "image": base64.b64encode(bomb(9_000, 9_000)).decode()}, "9000 x 9000 pixels"),
        ({"model": "digits", "image": base64.b64encode(bomb(60_000, 60_000)).decode()}, "is too large"),
        ({"model": "digits", "image": base64.b64encode(bomb(28, 28)).decode()}, "damaged or cut off"),
        ({"text": "so bad", "model": "mine.py:slow"}, "does not run on this input"),
        ({"text": "good bad", "model": "mine.py:slow", "methods": ["occlusion"]}, "failed: KeyError"),
    ],
)  # fmt: skip
def test_what_cannot_be_explained_is_one_message(served, ask, said):
    errors = [message for message in explained(served, **ask) if message["event"] == "error"]
    assert len(errors) == 1
    assert said in errors[0]["message"]
    assert explained(served, text="fine")[-1]["event"] != "error"


def test_ten_at_once(served):
    with ThreadPoolExecutor(10) as pool:
        asked = [
            pool.submit(explained, served, text=f"funny {'very ' * i}", methods=["lrp", "ig"])
            for i in range(10)
        ]
        for i, answer in enumerate(asked):
            sections = [message["section"] for message in answer.result(600) if message["event"] == "section"]
            assert [section["text"] for section in sections] == [f"funny {'very ' * i}"] * 2


def test_a_long_method_tells_how_far_it_is_keeps_nobody_waiting_and_ends_with_its_listener(served):
    body = json.dumps(
        {"model": "mine.py:slow", "methods": ["LIME(samples=5000, chunk=1)"], "text": "good " * 9}
    ).encode()
    long = opened(served, "/api/explain", body)
    progress = [json.loads(long.readline()) for _ in range(12)]
    assert {"event", "method", "done", "total", "what"} == set(progress[-1])
    assert explained(served, text="fine")[-1]["event"] == "section"
    assert json.loads(long.readline())["event"] == "progress"  # it is not over yet
    long.close()
    # Both threads are free again: two long ones would have filled them.
    other = opened(served, "/api/explain", body)
    assert other.readline()
    assert explained(served, text="fine")[-1]["event"] == "section"
    other.close()


def test_work_that_never_ends_by_itself_keeps_nobody_waiting(served):
    """As many as there are threads, twice, and a whole queue of them."""
    for _ in range(2):
        hopeless = [opened(served, "/api/explain", stuck_ask()) for _ in range(6)]
        for each in hopeless[:2]:
            assert each.readline()
        for each in hopeless:
            each.close()
    answer = opened(
        served,
        "/api/explain",
        json.dumps({"model": "mine.py:slow", "methods": ["saliency"], "text": "a"}).encode(),
    )
    assert '"section"' in answer.read().decode()


def test_work_that_takes_more_memory_than_there_is_is_stopped(monkeypatch):
    """Half of what is free when it begins; here a megabyte is, and what the process holds is counted up."""
    from apportion.core import memory
    from apportion.serve.server import application

    held = iter(range(0, 10**9, 200_000))
    monkeypatch.setattr(memory, "room", lambda: 1e6)
    monkeypatch.setattr(memory, "held", lambda: next(held))
    ask = {"model": "breast-cancer", "methods": ["SmoothGrad(samples=100000, chunk=1)"], "row": None}
    ask["row"] = {
        column["name"]: column["value"] for column in Models().described("breast-cancer")["columns"]
    }
    sent = []

    async def post():
        body, asked = json.dumps(ask).encode(), []

        async def receive():
            if asked:
                await asyncio.sleep(3600)  # the page stays open
            asked.append(body)
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message):
            sent.append(message.get("body", b""))

        headers = [(b"host", b"127.0.0.1:1"), (b"authorization", b"Bearer t")]
        scope = {"type": "http", "method": "POST", "path": "/api/explain", "raw_path": b"/api/explain",
                 "query_string": b"", "headers": headers, "http_version": "1.1", "scheme": "http",
                 "server": ("127.0.0.1", 1), "client": ("127.0.0.1", 2), "root_path": ""}  # fmt: skip
        await application((), "t", 1)(scope, receive, send)

    asyncio.run(post())
    assert json.loads(b"".join(sent).splitlines()[-1])["message"].startswith(
        "stopped, as it took half of the memory"
    )


def stuck_ask():
    return json.dumps({"model": "mine.py:stuck", "methods": ["saliency"], "text": "good"}).encode()


def test_every_answer_has_the_headers_of_a_careful_server(served):
    codes = set()
    for path, body, headers in (
        ("/", None, {}),
        ("/api/catalog", None, {}),
        ("/api/catalog", None, {"Authorization": None}),
        ("/nothing", None, {}),
        ("/", None, {"Host": "elsewhere"}),
        ("/api/explain", None, {}),
        ("/api/model", None, {}),
        ("/api/explain", b"{}", {}),
    ):
        try:
            answer = opened(served, path, body, **headers)
        except HTTPError as error:
            answer = error
        codes.add(answer.status)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
    assert codes == {200, 400, 401, 403, 404, 405, 422}


@pytest.mark.parametrize("method", ["LIME(samples=1000000)", "IntegratedGradients(nodes=1000000000)"])
def test_what_no_page_waits_for_is_refused(served, method):
    said = opened(
        served,
        "/api/explain",
        json.dumps({"model": "mine.py:slow", "methods": [method], "text": "a"}).encode(),
    )
    assert "accepted" in said.read().decode()


def test_a_port_in_use_is_one_line(served):
    port = served[0].rsplit(":", 1)[1]
    done = subprocess.run([sys.executable, "-m", "apportion", "serve", "--port", port, "--no-browser"],
                          capture_output=True, text=True, timeout=600)  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(f"apportion: error: port {port} cannot be used")


# ---- its page ----


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


READY = "document.querySelector('[type=submit]') && !document.querySelector('[type=submit]').disabled"
IDLE = "!document.querySelector('.actions [type=button]')"


@pytest.fixture
def bench(served, browser):
    browser.open("about:blank")
    browser.requests.clear()
    browser.errors.clear()
    browser.open("/#token=".join(served))
    browser.wait("document.querySelector('[name=model]')")
    browser.choose("[name=model]", "sentiment")
    browser.wait(READY)
    yield browser
    assert browser.errors == []
    assert all(address.startswith((served[0], "data:", "blob:", "about:")) for address in browser.requests)


def alert(browser):
    browser.wait("document.querySelector('[role=alert]')")
    return browser.run("document.querySelector('[role=alert]').textContent")


@needs_chromium
def test_typing_a_text_colours_its_tokens(bench):
    bench.fill("[name=text]", f"a funny {ATTACK} movie")
    bench.press("Enter")
    bench.click("[type=submit]")
    bench.wait("document.querySelectorAll('article').length == 1")
    bench.wait(IDLE)
    assert "<script>" in bench.run("document.querySelector('blockquote').textContent")
    assert bench.run("document.querySelectorAll('script').length") == 2
    chips = "[...document.querySelectorAll('.chip[data-value]')]"
    assert bench.run(f"{chips}.find(c => c.textContent == 'funny').style.background").startswith(
        "rgba(var(--for)"
    )
    assert "token" not in bench.run("location.href")


@needs_chromium
def test_methods_stand_under_the_question_that_they_answer_and_unsuitable_ones_say_why(bench):
    def names(selector):
        return bench.run(f"[...document.querySelectorAll('{selector}')].map(e => e.textContent)")

    found = {
        question: names(f'[aria-label="{question}"] label') for question in names(".choices[role=group] > p")
    }
    refused = dict(zip(names("fieldset details dt"), names("fieldset details dd"), strict=True))
    assert set(refused) == {"gradcam", "gradcamplusplus", "layercam", "rise"}  # of a sentence
    assert all("explains pictures" in why for why in refused.values())
    assert found == {
        question: [name for name in listed if name in METHODS | INTERACTIONS and name not in refused]
        for question, listed in QUESTIONS.items()
        if question != "What does it look like?"
    }
    assert not bench.run("document.querySelector('fieldset details').open")
    bench.size(390, 900)
    boxes = "[...document.querySelectorAll('.choices label')]"
    tall = f"new Set({boxes}.map(label => label.getBoundingClientRect().height)).size"
    assert bench.run(tall) == 1  # no name falls below its box
    bench.size(1200, 900)


@needs_chromium
def test_a_method_that_is_chosen_while_a_model_loads_stays_chosen_or_its_end_is_told(bench):
    bench.choose("[name=model]", "imagenet")
    bench.run(
        "for (const name of ['occlusion', 'gradcam']) document.querySelector(`[name=method-${name}]`).click()"
    )
    bench.wait(READY)
    chosen = (
        "[...document.querySelectorAll('[name^=method-]')].filter(e => e.checked).map(e => e.name.slice(7))"
    )
    assert sorted(bench.run(chosen)) == ["auto", "gradcam", "occlusion"]
    bench.choose("[name=model]", "sentiment")
    assert alert(bench) == "gradcam cannot explain sentiment, and is no longer chosen"
    bench.wait(READY)
    assert sorted(bench.run(chosen)) == ["auto", "occlusion"]


@needs_chromium
def test_a_number_that_is_predicted_is_the_heading_and_no_class(bench):
    bench.click("[name=method-lrp]")
    bench.choose("[name=model]", "mine.py:rent")
    bench.wait("document.querySelectorAll('.row label').length == 3")
    bench.wait(READY)
    bench.click("[type=submit]")
    bench.wait("document.querySelectorAll('article').length == 1")  # lrp cannot explain it, and was taken out
    bench.wait(IDLE)
    assert bench.run("document.querySelector('h1').textContent") == "score 22.00"
    assert not bench.run("document.querySelector('.ranking, .target')")
    assert "shares of the score" in bench.run("document.querySelector('article').textContent")


@needs_chromium
def test_what_is_said_of_methods_is_said_of_those_chosen(bench):
    told = "[...document.querySelectorAll('[aria-label=\"The chosen methods\"] dt')].map(e => e.textContent)"
    assert bench.run(told) == ["auto"]
    bench.run("document.querySelector('[name=method-ig]').focus()")
    assert bench.run(told) == ["auto"]
    bench.click("[name=method-ig]")
    bench.click("[name=method-auto]")
    assert bench.run(told) == ["ig"]
    assert "Integrate" in bench.run(
        "document.querySelector('[aria-label=\"The chosen methods\"]').textContent"
    )


OPTIONS = "[...document.querySelectorAll('[name=target] option')].map(e => e.textContent)"


@needs_chromium
def test_classes_stand_with_their_probabilities_the_most_probable_first(served, bench):
    bench.fill("[name=text]", "a dull film")
    bench.wait(f"{OPTIONS}[1]?.includes('%')")
    body = json.dumps({"model": "sentiment", "text": "a dull film"}).encode()
    ranked = json.load(opened(served, "/api/classes", body))["classes"]
    assert [label for label, *_ in ranked] == ["negative", "positive"]
    wanted = [f"{label}  {100 * probability:.1f} %" for label, _, _, probability in ranked]
    bench.wait(f"{OPTIONS}[1].startsWith('negative')")
    assert bench.run(OPTIONS) == [f"the most probable: {wanted[0]}", *wanted]
    bench.choose("[name=target]", str(ranked[1][1]))
    bench.click("[type=submit]")
    bench.wait("document.querySelector('article h2 small')?.textContent.includes('of positive')")
    bench.wait(IDLE)


@needs_chromium
def test_a_thousand_classes_can_be_searched(bench, tmp_path):
    bench.choose("[name=model]", "imagenet")
    bench.wait(READY)
    bench.wait("document.querySelectorAll('[name=target] option').length == 1001")
    bench.fill("[name=search]", "crane")  # the bird and the machine
    bench.wait("document.querySelectorAll('[name=target] option').length == 3")
    numbers = bench.run("[...document.querySelectorAll('[name=target] option')].map(e => e.value)")
    assert numbers == ["", "134", "517"]
    (tmp_path / "noise.png").write_bytes(png(np.full((90, 120, 3), 99, np.uint8)))
    bench.upload("[name=picture]", tmp_path / "noise.png")
    bench.choose("[name=target]", "517")
    bench.click("[name=method-auto]")
    bench.click("[name=method-gradcam]")
    bench.downloads(tmp_path)
    bench.click("[type=submit]")
    bench.wait("document.querySelector('canvas.heat')")
    bench.wait(IDLE)
    bench.click(".decision .tools button:nth-child(2)")
    bench.downloaded(tmp_path / "explanations.json")
    (card,) = json.loads((tmp_path / "explanations.json").read_text())["cards"]
    assert card["target"] == "crane (machine)"


def test_a_class_is_explained_by_its_number(served):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    noise = base64.b64encode(png(pixels)).decode()
    ask = {"model": "imagenet", "image": noise, "methods": ["gradcam"]}
    made = [
        [
            message["section"]["cards"][0]["shown"]["cells"]
            for message in explained(served, **ask, target=target)
            if message["event"] == "section"
        ]
        for target in ("crane (machine)", 517, 134)
    ]
    assert made[0] == made[1] != made[2]
    assert "1000" in explained(served, **ask, target=1000)[-1]["message"]


@needs_chromium
def test_a_result_of_what_was_changed_since_is_grey_and_says_so(bench):
    said = "document.querySelector('.warning[role=status]')?.textContent ?? ''"
    bench.fill("[name=text]", "a dull film")
    bench.click("[type=submit]")
    bench.wait("document.querySelectorAll('article').length == 1")
    bench.wait(IDLE)
    assert bench.run(said) == ""
    bench.fill("[name=text]", "a dull fil")
    bench.wait(f"({said}).startsWith('The text was changed')")
    assert float(bench.run("getComputedStyle(document.querySelector('section')).opacity")) < 1
    bench.fill("[name=text]", "a dull film")
    bench.wait(f"!({said})")
    bench.choose("[name=target]", "0")
    bench.wait(f"({said}).startsWith('The class was changed')")
    bench.choose("[name=model]", "breast-cancer")
    bench.wait(f"({said}).startsWith('The model was changed')")
    assert "by sentiment" in bench.run(said)
    bench.wait(READY)
    bench.click("[type=submit]")
    bench.wait(f"!({said}) && document.querySelectorAll('article').length == 1")
    bench.wait(IDLE)


@needs_chromium
def test_nothing_is_asked_of_a_model_before_it_is_loaded(bench):
    bench.fill("[name=text]", "a dull film")
    bench.requests.clear()
    disabled = bench.run("""new Promise(resolve => {
        const model = document.querySelector('[name=model]'), form = document.querySelector('form');
        new MutationObserver((_, observer) => {  // after each drawing, before what follows it
            if (document.querySelector('[name=text]')) return;
            observer.disconnect();
            form.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', ctrlKey: true, bubbles: true}));
            const submit = document.querySelector('[type=submit]');
            submit.click();
            resolve(submit.disabled);
        }).observe(document.body, {subtree: true, childList: true, attributes: true});
        model.value = 'breast-cancer';
        model.dispatchEvent(new Event('change', {bubbles: true}));
    })""")
    assert disabled is True
    bench.wait(READY)
    assert not [address for address in bench.requests if address.endswith("api/explain")]
    assert not bench.run("document.querySelector('[role=alert]')")


@needs_chromium
def test_dropping_a_picture_shows_a_heat_map(bench, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    (tmp_path / "noise.png").write_bytes(png(pixels))
    bench.drop("[name=text]", tmp_path / "noise.png")
    bench.wait("document.querySelector('.drop img')")
    assert (
        bench.run("document.querySelector('[name=model]').value") == "mine.py:parts"
    )  # the first for pictures
    bench.choose("[name=model]", "imagenet")
    bench.wait("!document.querySelector('[name=method-prototypes]')")
    bench.wait(READY)
    bench.click("[type=submit]")
    bench.wait("document.querySelector('canvas.heat')")
    pixels = "document.querySelector('canvas.heat').getContext('2d').getImageData(0, 0, 112, 112).data"
    bench.wait(f"{pixels}.some(Boolean)")
    bench.wait(IDLE)


@needs_chromium
def test_a_model_of_prototypes_shows_what_looks_like_what(bench, tmp_path):
    (tmp_path / "eight.png").write_bytes(png(np.arange(64, dtype=np.uint8).reshape(8, 8) * 3))
    bench.choose("[name=model]", "mine.py:parts")
    bench.wait("document.querySelector('[name=method-prototypes]')?.checked")
    bench.upload("[name=picture]", tmp_path / "eight.png")
    bench.wait("document.querySelector('.drop img')")
    bench.wait(READY)
    bench.click("[name=tests]")
    bench.click("[type=submit]")
    bench.wait("document.querySelectorAll('article').length == 2")
    bench.wait(IDLE)
    assert bench.run("document.querySelectorAll('.panels li').length") == 3
    assert bench.run("document.querySelectorAll('article')[0].querySelector('.chart')") is None
    bench.run("document.querySelector('.panels li').focus()")
    bench.press("ArrowDown")
    assert bench.run("document.activeElement.textContent").startswith("prototype ")
    assert bench.run("document.activeElement.ariaLabel.split('= ')[1]") in bench.run(
        "document.activeElement.textContent"
    )
    bench.choose("[name=model]", "sentiment")
    bench.wait("!document.querySelector('[name=method-prototypes]')")


@needs_chromium
def test_what_is_no_picture_or_too_large_is_said(bench, tmp_path):
    (tmp_path / "fake.png").write_bytes(b"not a picture")
    bench.choose("[name=model]", "digits")
    bench.wait("document.querySelector('[name=picture]')")
    bench.upload("[name=picture]", tmp_path / "fake.png")
    bench.wait("document.querySelector('.drop img')")
    bench.wait(READY)
    bench.click("[type=submit]")
    assert "fake.png is not a picture" in alert(bench)
    bench.wait(IDLE)
    (tmp_path / "large.png").write_bytes(b" " * 20_000_001)
    bench.upload("[name=picture]", tmp_path / "large.png")
    bench.wait("document.body.textContent.includes('large.png has 20.0 MB')")


@needs_chromium
def test_cancel_stops_and_what_was_found_stays(bench):
    bench.choose("[name=model]", "mine.py:slow")
    bench.fill("[name=text]", "good " * 9)
    bench.wait(READY)
    bench.click("[name=method-auto]")
    bench.click("[name=method-lrp]")
    bench.fill("[name=others]", "LIME(samples=5000, chunk=1)")
    bench.click("[type=submit]")
    bench.wait("document.querySelector('.steps')?.textContent.includes('masked inputs')")
    bench.choose("[name=threshold]", "50")  # the page stays responsive
    assert bench.run("document.querySelectorAll('article').length") == 1
    bench.click(".actions [type=button]")
    bench.wait(IDLE)
    assert bench.run("document.querySelectorAll('article').length") == 1
    assert bench.run("document.querySelector('[role=alert]')") is None
    left = bench.run("[...document.querySelectorAll('.steps li')].map(e => e.textContent)")
    assert len(left) == 1  # what was finished is on the page
    assert re.fullmatch(r"LIME\(samples=5000, chunk=1\) cancelled after \d+ of 512 masked inputs", left[0])


@needs_chromium
def test_a_model_that_raises_is_said(bench):
    bench.choose("[name=model]", "mine.py:slow")
    bench.fill("[name=text]", "good bad")
    bench.wait(READY)
    bench.click("[name=method-occlusion]")
    bench.click("[type=submit]")
    assert "KeyError: 'inside the model'" in alert(bench)


@needs_chromium
def test_a_word_shows_its_partners_and_the_curve_is_drawn(bench):
    bench.fill("[name=text]", "not a bad movie")
    bench.click("[name=method-ih]")
    bench.click("[name=tests]")
    bench.click("[type=submit]")
    bench.wait("document.querySelector('button.chip')")
    bench.wait(IDLE)
    bench.click("button.chip")
    bench.wait("document.querySelector('article .bars caption')?.textContent.includes('together with')")
    bench.wait("document.querySelectorAll('.chart polyline').length == 2")


@needs_chromium
def test_the_page_is_taken_away_as_one_that_asks_for_nothing(bench, tmp_path):
    bench.downloads(tmp_path)
    bench.click("[type=submit]")
    bench.wait("document.querySelectorAll('article').length == 1")
    bench.wait(IDLE)
    bench.click(".decision .tools button")
    bench.downloaded(tmp_path / "apportion.html")
    bench.wait(
        "document.querySelector('[name=target]').textContent.includes('%')", 120
    )  # asked for all by itself
    bench.requests.clear()
    bench.open((tmp_path / "apportion.html").as_uri())
    bench.wait("document.querySelectorAll('article').length == 1")
    assert len(bench.requests) == 1
    bench.requests.clear()


@needs_chromium
def test_by_keyboard_alone_and_on_a_phone(bench):
    bench.size(360, 740)
    assert bench.run("document.documentElement.scrollWidth") <= 360
    bench.run("document.querySelector('[name=text]').focus()")
    bench.send("Input.dispatchKeyEvent", type="rawKeyDown", key="Enter", code="Enter", modifiers=2)
    bench.wait("document.querySelectorAll('article').length == 1")
    bench.wait(IDLE)
    assert bench.run("document.documentElement.scrollWidth") <= 360
    bench.size(1200, 900)


@needs_chromium
def test_without_the_token_the_page_says_what_to_do(served, browser):
    browser.open("about:blank")
    browser.open(served[0] + "/")
    browser.run("sessionStorage.clear()")
    browser.open(served[0] + "/?")
    assert "`apportion serve` printed" in alert(browser)
    browser.errors.clear()


# ---- the bundle ----


@pytest.mark.skipif(
    not (Path(__file__).parents[2] / "frontend/node_modules").is_dir(), reason="needs make page"
)
def test_the_bundle_is_that_of_its_sources(tmp_path):
    root = Path(__file__).parents[2]
    done = subprocess.run(
        ["npx", "vite", "build", "--outDir", str(tmp_path)], cwd=root / "frontend", capture_output=True
    )
    assert done.returncode == 0, done.stderr
    for name in ("page.js", "page.css"):
        assert (tmp_path / name).read_text() == (root / "src/apportion/display/static" / name).read_text()
