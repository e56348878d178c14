"""What the workbench runs in its threads: models loaded once, one method after the other, told as it goes."""

from __future__ import annotations

import ctypes
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any, cast

import torch
from PIL import Image

from apportion.core.calling import behind, call_model, is_multi_label
from apportion.core.classifier import Classifier
from apportion.core.device import check_device
from apportion.core.extras import EXTRAS, missing
from apportion.core.progress import progress, watched
from apportion.core.registry import described_methods, from_repr
from apportion.core.target import probabilities, scores_of
from apportion.display.answers import answer_page
from apportion.display.cards import chart, sections, test_as_data
from apportion.domains.frames import FrameRows
from apportion.domains.image import ImagePreparation
from apportion.domains.language import LanguageModel, Question
from apportion.domains.tabular import Categorical, OrMissing, TabularPreparation
from apportion.errors import InputError, first_line
from apportion.evaluation.curves import WAYS, even_steps
from apportion.evaluation.readings import say_reading
from apportion.models import SHIPPED, load
from apportion.names import INTERACTIONS, METHODS, PROTOTYPES
from apportion.pipeline.answers import Asked, explain_asked
from apportion.pipeline.given import Given
from apportion.pipeline.prepared import Prepared, check_target, prepare
from apportion.pipeline.quick_tests import Known, beside_references, is_testable, test_answers, tests_of
from apportion.pipeline.suitable import asks_elsewhere, why_unsuitable
from apportion.results.explanation import Explanation
from apportion.serve import request
from apportion.serve.messages import Classes, Column, Loaded, Method, Model, Said
from apportion.serve.request import Ask

Say = Callable[[Said], None]

SIDE = 224  # pixels of a picture that stands for one until there is one
PROMPT = "The capital of France is"
EXAMPLE = "The plot is thin, but the acting is superb."
MOST_PASSES = 100_000  # of one method
_COUNTS = ("samples", "max_samples", "nodes", "max_nodes", "steps", "budget")
BLOCK = 4  # steps of a curve between two looks at it


class CancelledError(BaseException):
    """Nobody listens any more. No handler of errors takes it for one."""


def stop(thread: threading.Thread) -> None:
    """Raise CancelledError in a thread at its next step in Python: it ends loops that ask nobody whether to go on.
    Not while it imports, as half a package would be left for all that follows."""
    if thread.ident is not None and thread.is_alive() and not _imports(thread.ident):
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident), ctypes.py_object(CancelledError)
        )


def _imports(thread: int) -> bool:
    frame = sys._current_frames().get(thread)
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def check_budget(method: Any) -> None:
    """Refuse what takes more passes than a page waits for, or more memory than a machine has."""
    for each in fields(method) if is_dataclass(method) else ():
        value = getattr(method, each.name)
        if each.name in _COUNTS and isinstance(value, int) and value > MOST_PASSES:
            raise InputError(f"{each.name} is {value}; accepted in the workbench: at most {MOST_PASSES}")


class Models:
    """The models that the page offers, each loaded when it is first asked for."""

    def __init__(self, own: Sequence[str] = (), device: str | None = None) -> None:
        check_device(device)
        self._device = device
        self.names = (*own, *(name for name in SHIPPED if name not in own))
        self._own: dict[str, Classifier | LanguageModel] = {name: load(name, device=device) for name in own}
        self._loaded = dict(self._own)
        self._unsuitable: dict[str, dict[str, str]] = {}
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> Classifier | LanguageModel:
        if name not in self.names:
            raise InputError(f"there is no model {name!r}; there are {', '.join(self.names)}")
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = load(name, device=self._device)
            return self._loaded[name]

    def listed(self) -> list[Model]:
        """Name, domain and task of each."""
        own: list[Model] = [
            {"name": name, "domain": model.domain, "task": ""} for name, model in self._own.items()
        ]
        shipped: list[Model] = [
            {"name": name, "domain": SHIPPED[name].domain, "task": SHIPPED[name].task}
            for name in self.names
            if name not in self._own
        ]
        return own + shipped

    def described(self, name: str) -> Loaded:
        """Class names, the columns of a table with a value for each, an example of a text, the methods that are for
        this model only, of which the first is chosen, and why others cannot explain it."""
        model = self[name]
        if isinstance(model, LanguageModel):
            if name not in self._unsuitable:
                self._unsuitable[name] = _unsuitable_for_answers(model)
            return {
                "labels": [],
                "columns": [],
                "example": PROMPT,
                "methods": [],
                "unsuitable": self._unsuitable[name],
                "elsewhere": False,
                "chat": getattr(model.tokenizer, "chat_template", None) is not None,
            }
        columns = _columns(model)
        own = [] if model.panels is None else described_methods(PROTOTYPES)
        if name not in self._unsuitable:
            self._unsuitable[name] = _unsuitable(model, columns)
        return {
            "labels": list(model.labels),
            "columns": columns,
            "example": EXAMPLE if model.domain == "text" else "",
            "methods": cast("list[Method]", own),
            "unsuitable": self._unsuitable[name],
            "elsewhere": asks_elsewhere(model.model),
            "chat": False,
        }


def _columns(model: Classifier) -> list[Column]:
    # Of its first background row.
    if isinstance(model.encode, FrameRows) and isinstance(model.mask, torch.Tensor):
        form = model.encode.form(model.mask[0])
        return [{"name": name, "value": value, "categories": offered} for name, value, offered in form]
    known = model.encode.columns if isinstance(model.encode, TabularPreparation) else ()
    return [_column(c.column if isinstance(c, OrMissing) else c) for c in known]


def _column(column: Any) -> Column:
    if isinstance(column, Categorical):
        return {
            "name": column.name,
            "value": column.categories[0],
            "categories": list(column.categories),
        }
    # A row of means is the baseline itself, of which there is nothing to explain.
    return {"name": column.name, "value": f"{column.mean + column.std:.4g}", "categories": None}


def _unsuitable(model: Classifier, columns: list[Column]) -> dict[str, str]:
    """Why methods cannot explain this model, tried on an example; nothing where that is none for it."""
    example: Given
    if model.domain == "text":
        example = Given("text", EXAMPLE, "the example")
    elif model.domain == "tabular":
        example = Given("tabular", {column["name"]: column["value"] for column in columns}, "the example")
    else:
        fixed = model.encode.accept if isinstance(model.encode, ImagePreparation) else None
        high, wide = fixed or (SIDE, SIDE)
        example = Given("image", Image.new("RGB", (wide, high), "grey"), "the example")
    try:
        return why_unsuitable(prepare(example, model), (*METHODS, *INTERACTIONS))
    except InputError:
        return {}


def _unsuitable_for_answers(model: LanguageModel) -> dict[str, str]:
    """The same of a language model, tried on a short answer; pairs of words are drawn elsewhere."""
    pairs = dict.fromkeys(
        INTERACTIONS, "pairs of words of a prompt are not drawn here; accepted: apportion.explain in Python"
    )
    try:
        question = model.question(PROMPT, "a", 0)
    except InputError:
        return pairs
    ready = Prepared(question.classifier, PROMPT, question.inputs, question.features, {})
    return {**why_unsuitable(ready, METHODS), **pairs}


def classes(given: request.Given, models: Models) -> Classes:
    """The classes of an input, the most probable first."""
    classifier = _classifier(models, given.model)
    ready = prepare(given.recognised(), classifier)
    try:
        with torch.no_grad():
            scores = scores_of(call_model(classifier.model, ready.inputs), 1).double().cpu()
    except Exception as error:  # whatever the model raises
        raise InputError(_message(error, given.model)) from error
    chances = probabilities(scores, each=is_multi_label(behind(classifier.model)))[0].tolist()
    several, labels = scores.shape[1] > 1, dict(enumerate(classifier.labels))
    best = scores[0].argsort(descending=True, stable=True).tolist()
    return {
        "classes": [
            (labels.get(i, f"class {i}"), i, float(scores[0, i]), chances[i] if several else None)
            for i in best
        ]
    }


def explain(ask: Ask, models: Models, say: Say, cancelled: threading.Event) -> None:
    """Say the answer to a request piece by piece; what goes wrong is said too. Raises nothing."""

    def guarded(method: str | None, work: Callable[[], Any]) -> Any:
        def report(done: int, total: int | None, what: str) -> None:
            if method is not None:
                say({"event": "progress", "method": method, "done": done, "total": total, "what": what})

        def check() -> None:
            if cancelled.is_set():
                raise CancelledError

        try:
            with watched(report, check):
                return work()
        except CancelledError:
            return None
        except Exception as error:
            say({"event": "error", "method": method, "message": _message(error, ask.model)})
            return None

    by_one = guarded(None, lambda: _begun(ask, models, say))
    for name in ask.methods:
        if by_one is None or cancelled.is_set():
            return
        say({"event": "start", "method": name})
        guarded(name, partial(by_one, name))


def _begun(ask: Ask, models: Models, say: Say) -> Callable[[str], None]:
    """What explains the input by the method of a name: it is encoded, or answered, once for all of them."""
    lm = models[ask.model]
    if isinstance(lm, LanguageModel):
        asked = ask.asked()
        return partial(_answer_by_one, lm, asked, asked.question(lm), ask.tests, say)
    ready, known = _prepare(ask, models), Known()
    return lambda name: _explain_by_one(ready, name, ask, say, known)


def _answer_by_one(
    lm: LanguageModel, asked: Asked, question: Question, tests: bool, say: Say, name: str
) -> None:
    method = from_repr(name)
    check_budget(method)
    explanation = explain_asked(lm, asked, question, method)
    if not isinstance(explanation, Explanation):
        raise InputError(
            f"{name} is of pairs of words, which are not drawn here; accepted: {', '.join(METHODS)}"
        )
    say({"event": "answer", "method": name, "answer": answer_page([explanation]), "done": not tests})
    if tests:
        tested = answer_page([explanation], test_answers(question, [explanation]))
        say({"event": "answer", "method": name, "answer": tested, "done": True})


def _classifier(models: Models, name: str) -> Classifier:
    found = models[name]
    if isinstance(found, LanguageModel):
        raise InputError(f"{name} is a language model, which has no classes; accepted: a classifier")
    return found


def _prepare(ask: Ask, models: Models) -> Prepared:
    classifier = _classifier(models, ask.model)
    if isinstance(ask.target, str):
        check_target(classifier, ask.target)
    return prepare(ask.recognised(), classifier)


def _explain_by_one(ready: Prepared, name: str, ask: Ask, say: Say, known: Known) -> None:
    method = from_repr(name)
    check_budget(method)
    explanation = ready.explain(method, ask.target)
    (section,) = sections([explanation])
    section["cards"][0]["asked"] = name
    say({"event": "section", "method": name, "section": section})
    if ask.tests and is_testable(explanation, ready):
        _test(ready, name, explanation, say, known)
    elif ask.tests:
        say({"event": "tested", "method": name, "tests": [], "chart": None, "done": True})


def _test(ready: Prepared, name: str, explanation: Explanation, say: Say, known: Known) -> None:
    """The curve grows on the page as its steps are run; the tests then find their answers there."""
    case = ready.case(explanation)
    order = case.order(explanation)
    tests, reading = tests_of(case), say_reading("probability", order.masking)
    steps, end = even_steps(order.counts, tests[0].steps), 0
    for block in progress(list(steps[0].split(BLOCK)), steps.shape[1], "steps"):
        end += len(block)
        drawn: dict[str, dict[str, list[float]]] = {}
        for way in WAYS:
            curve = order.curve(steps[:, :end], way=way)
            drawn[way] = {"share": curve.share[0].tolist(), "value": curve.read("probability")[0].tolist()}
        say({"event": "tested", "method": name, "tests": [], "chart": chart(drawn, reading), "done": False})
    scores = [case.score(test, explanation) for test in tests]
    scores = beside_references(case, explanation, scores, known, tests)
    say(
        {
            "event": "tested",
            "method": name,
            "tests": [test_as_data(found, 0) for found in scores],
            "chart": chart(scores[0].notes["curves"], reading),
            "done": True,
        }
    )


def _message(error: Exception, model: str) -> str:
    """One line; a bug also leaves its traceback where the server was started."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, ImportError) and (error.name or "").split(".")[0] in EXTRAS:
        return missing(error)
    refused = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    if refused or isinstance(error, torch.OutOfMemoryError | MemoryError):
        return "there is not enough memory for this"
    traceback.print_exception(error)
    return f"{model} failed: {type(error).__name__}: {first_line(error):.200}"
