"""Functions that cost something to ask: asked once for each text, within a budget, whatever goes wrong between."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import apportion as ap
from apportion import InputError

TEXT = "It's a SLOW but funny film, isn't it?"
METHODS = {
    "occlusion": 13,
    "lime": 1001,
    "KernelSHAP(samples=100, exact=0)": 102,
    "kernelshap": 4096,
    "auto": 4096,
    "ShapleyInteractions(budget=300)": 300,
}


class Asked:
    """A function that counts what it is asked."""

    def __init__(self) -> None:
        self.texts: Counter[str] = Counter()
        self.calls: list[int] = []

    def __call__(self, texts: list[str]) -> list[list[float]]:
        self.texts.update(texts)
        self.calls.append(len(texts))
        return [[0.9 - len(text) / 100, len(text) / 100] for text in texts]


@pytest.mark.parametrize("method", METHODS)
def test_a_forecast_is_what_is_asked_and_each_text_is_asked_once(method):
    asked = Asked()
    plain = ap.explain(Asked(), TEXT, method)
    remote = ap.Remote(asked, threads=2, batch=7)
    forecast = ap.forecast(remote, TEXT, method)
    assert not asked.calls
    found = ap.explain(remote, TEXT, method)
    assert forecast == len(asked.texts) == asked.texts.total() <= METHODS[method]
    assert max(asked.calls) <= 7
    torch.testing.assert_close(found.values, plain.values)
    assert ap.forecast(remote, TEXT, method) == 0
    ap.explain(remote, TEXT, method)
    assert forecast == asked.texts.total()


def test_with_a_tolerance_the_forecast_is_the_most_that_may_be_asked():
    method = "KernelSHAP(samples=64, exact=0, tolerance=0.01, max_samples=500)"
    asked = Asked()
    forecast = ap.forecast(ap.Remote(asked), TEXT, method)
    assert 490 <= forecast <= 502  # noise never meets it
    assert not asked.texts
    ap.explain(ap.Remote(asked), TEXT, method)
    assert asked.texts.total() <= 66  # the length is met at once


def test_more_than_the_budget_is_refused_before_anything_is_asked():
    asked = Asked()
    with pytest.raises(InputError, match="of which 50 are left, but this explanation asks for 4096"):
        ap.explain(ap.Remote(asked, budget=50), TEXT)
    assert not asked.calls
    remote = ap.Remote(asked, budget=13)
    ap.explain(remote, TEXT, "occlusion")
    assert (remote.left, asked.texts.total()) == (0, 13)
    ap.explain(remote, TEXT, "occlusion")  # known by now
    with pytest.raises(InputError, match="of which 0 are left, but this explanation asks for"):
        ap.explain(remote, TEXT + " Yes", "occlusion")
    with pytest.raises(InputError, match="of which 0 are left, and 1 more are asked for"):
        remote(["new"])
    assert asked.texts.total() == 13


def test_a_cache_outlives_the_object_and_tells_names_apart(tmp_path):
    asked, cache = Asked(), tmp_path / "answers" / "of.sqlite"
    first = ap.explain(ap.Remote(asked, cache, "one"), TEXT, "lime")
    many = asked.texts.total()
    again = ap.explain(ap.Remote(asked, str(cache), "one", budget=0), TEXT, "lime")
    assert asked.texts.total() == many
    assert torch.equal(first.values, again.values)
    ap.explain(ap.Remote(asked, cache, "two"), TEXT, "occlusion")
    assert asked.texts.total() == many + 13
    messages = [{"role": "user", "content": TEXT}]
    assert ap.forecast(ap.Remote(asked, cache, "one"), messages, "occlusion") == 13
    cache.write_bytes(b"no database" * 100)
    with pytest.raises(InputError, match=r"cache .*of\.sqlite cannot be used: file is not a database"):
        ap.explain(ap.Remote(asked, cache), TEXT, "occlusion")
    with pytest.raises(InputError, match="cannot be used"):
        ap.Remote(asked, tmp_path)(["a"])


def test_an_answer_in_the_cache_that_is_none_is_refused(tmp_path):
    import sqlite3

    cache = tmp_path / "of.sqlite"
    ap.Remote(Asked(), cache)(["a"])
    for bad in ("[NaN, 1]", "{}", "[" * 9999, "[]", '["a"]', "3"):
        with sqlite3.connect(cache) as database:
            database.execute("UPDATE answers SET row = ?", (bad,))
        with pytest.raises(InputError, match="holds an answer that is no row of finite numbers"):
            ap.Remote(Asked(), cache)(["a"])


def test_a_call_that_raises_is_tried_again_and_the_last_error_is_named():
    asked, times = Asked(), []

    def moody(texts):
        times.append(time.monotonic())
        if len(times) % 3:
            raise ConnectionError("busy\nor so")
        return asked(texts)

    ap.explain(ap.Remote(moody, retries=2, wait=0.01, batch=4), TEXT, "occlusion")
    assert max(asked.texts.values()) == 1
    assert times[1] - times[0] >= 0.01
    assert times[2] - times[1] >= 0.02

    def never(texts):
        times.append(0)
        raise ConnectionError("busy\nor so")

    times.clear()
    message = "^the function raised 3 times for 1 texts, at last ConnectionError: busy$"
    with pytest.raises(InputError, match=message) as caught:
        ap.explain(ap.Remote(never, retries=2, wait=0), TEXT, "occlusion")
    assert len(times) == 3
    assert isinstance(caught.value.__cause__, ConnectionError)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda texts: [0.5] * (len(texts) + 1), r"shape \(2,\) for 1 texts; accepted: \(1,\) or \(1, classes"),
        (lambda texts: [0.5][len(texts) :], r"scores of shape \(0,\) for 1 texts"),
        (lambda texts: [float("nan")] * len(texts), r"returned \[nan\] for \"It's a SLOW.*; accepted: finite numbers"),
        (lambda texts: [[0.5, -np.inf]] * len(texts), r"returned \[0\.5, -inf\] for"),
        (lambda texts: ["good"] * len(texts), "what the function returned has type .* and is no table of numbers"),
        (lambda texts: [None] * len(texts), "is no table of numbers"),
        (lambda texts: [[1.0], [1.0, 2.0]], "is no table of numbers"),
        (lambda texts: None, "the function returned NoneType for 1 texts; accepted: a score for each"),
        (lambda texts: {"score": 1}, "the function returned dict for 1 texts"),
        (lambda texts: np.ones((len(texts), 0)), r"scores of shape \(1, 0\)"),
        (lambda texts: [[1.0] * (1 + (len(t) > 33)) for t in texts][:1] * len(texts), "gave . scores for one text"),
    ],
)  # fmt: skip
def test_answers_that_are_no_scores_are_refused_and_not_kept(answer, message, tmp_path):
    cache = tmp_path / "of.sqlite"
    with pytest.raises(InputError, match=message):
        ap.Remote(answer, cache, batch=1)([TEXT, TEXT[5:]])
    remote = ap.Remote(Asked(), cache)
    left = remote.unanswered([TEXT])
    assert left == 1 or "one text" in message


def test_settings_are_checked_when_they_are_made():
    for settings, message in (
        ({"function": "f"}, "function is str; accepted: a function from a list of strings"),
        ({"batch": 0}, "batch is 0"),
        ({"threads": True}, "threads is True"),
        ({"budget": -1}, "budget is -1"),
        ({"retries": 1.5}, "retries is 1.5"),
        ({"wait": float("nan")}, "wait is nan; accepted: seconds"),
        ({"cache": 3}, "cache is 3; accepted: the path of a file"),
        ({"name": None}, "name is None"),
    ):
        with pytest.raises(InputError, match=message):
            ap.Remote(**{"function": Asked(), **settings})


def test_calls_run_at_once_in_threads():
    together = threading.Barrier(3, timeout=600)

    def ask(texts):
        together.wait()
        return [1.0] * len(texts)

    assert ap.Remote(ask, threads=3, batch=1)(["a", "b", "c"]).tolist() == [1, 1, 1]


PROGRAM = """
import sys, time
from pathlib import Path
import apportion as ap

log, cache, many = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

def ask(texts):
    time.sleep(0.01)
    with log.open("a") as file:
        file.writelines(text + "\\n" for text in texts)
    return [float(len(text)) for text in texts]

remote = ap.Remote(ask, cache, threads=2, batch=2)
print("ready", flush=True)
ap.explain(remote, "a b c d e f g h i j k l m n o", f"LIME(samples={many})")
"""


def program(tmp_path: Path, log: str, many: int) -> "subprocess.Popen[str]":
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    command = [sys.executable, "program.py", log, "of.sqlite", str(many)]
    return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def lines(path: Path) -> Counter[str]:
    return Counter(path.read_text().splitlines() if path.exists() else [])


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is no signal of its own there")
def test_after_ctrl_c_in_the_middle_of_a_thousand_texts_none_is_asked_twice(tmp_path):
    running = program(tmp_path, "log", 1000)
    while sum(lines(tmp_path / "log").values()) < 100:
        assert running.poll() is None, running.stderr.read()
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=600)
    assert running.returncode != 0
    assert "KeyboardInterrupt" in errors
    first = lines(tmp_path / "log")
    assert sum(first.values()) < 1000
    remote = ap.Remote(Asked(), tmp_path / "of.sqlite")
    assert remote.unanswered(list(first)) == 0
    again = program(tmp_path, "log", 1000)
    _, errors = again.communicate(timeout=600)
    assert again.returncode == 0, errors
    found = lines(tmp_path / "log")
    assert len(found) >= 1000
    assert max(found.values()) == 1


def test_two_programs_ask_no_text_twice(tmp_path):
    both = [program(tmp_path, "log", 300) for _ in range(2)]
    for one in both:
        _, errors = one.communicate(timeout=600)
        assert one.returncode == 0, errors
    found = lines(tmp_path / "log")
    assert len(found) >= 300
    assert max(found.values()) == 1


def test_labels_and_name_are_those_of_what_is_asked():
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    fitted = make_pipeline(CountVectorizer(), MultinomialNB()).fit(
        ["a dull film", "a warm film"], ["dull", "warm"]
    )
    found = ap.explain(ap.Remote(fitted.predict_proba), "a warm film", "occlusion", target="warm")
    assert found.labels == ("dull", "warm")
    with pytest.raises(InputError, match=r"function is Pipeline; accepted: .*predict_proba"):
        ap.Remote(fitted)
