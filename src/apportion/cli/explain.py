"""The commands for one input: `apportion explain`, `apportion compare`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apportion.cli._messages import (
    MaxRemainder,
    echo_json,
    hold_to,
    make_console,
    name_files,
    one_line_errors,
    warn_of_left_out,
)
from apportion.cli._prompts import (
    AnswerText,
    Chat,
    Context,
    Contrast,
    MaxNewTokens,
    Prompt,
    Score,
    Unit,
    read_asked,
)
from apportion.cli._tables import (
    Background,
    Decimal,
    Encoding,
    NoHeader,
    Sep,
    TrustCode,
    model_of,
    recognised,
)
from apportion.cli.lists import Json, complete_methods, complete_models, split
from apportion.errors import InputError

if TYPE_CHECKING:
    from apportion.core.classifier import Classifier
    from apportion.pipeline.given import Given
    from apportion.pipeline.prepared import Prepared
    from apportion.results.result import Result

OUT = Path("apportion-out")
# Nodes are fixed: to its tolerance the integral takes hundreds of passes on a photo.
COMPARED = "auto,lrp,IntegratedGradients(nodes=24),inputxgradient,occlusion"
OF_ANSWERS = "auto,deeplift,inputxgradient,occlusion"

Model = Annotated[
    str | None,
    typer.Option(
        help="A shipped model, pkg.module:factory, file.py:factory, a .pt2 file, a saved ProtoPNet or BagOfWords, "
        "a .skops file, a Hugging Face folder or hf:owner/name.",
        autocompletion=complete_models,
    ),
]
Target = Annotated[
    str | None, typer.Option(help="The class to explain, by number or name. Default: the predicted one.")
]
Layer = Annotated[str | None, typer.Option(help="Explain the output of this module instead of the input.")]
Row = Annotated[
    int, typer.Option(min=0, help="The row of a table, or the sample of a tensor, counted from 0.")
]
Html = Annotated[Path | None, typer.Option(help="Write one self-contained HTML page here.")]


def add_to(app: typer.Typer) -> None:
    app.command()(explain)
    app.command()(compare)


def explain(
    given: Annotated[
        str | None,
        typer.Argument(
            metavar="INPUT",
            help="A sentence, a picture, .csv, .parquet, .jsonl, .xlsx, .txt, .npy, .pt or .safetensors file; - for a "
            "text on standard input.",
        ),
    ] = None,
    model: Model = None,
    method: Annotated[
        str,
        typer.Option(
            help="A short name (see `apportion methods`) or a repr; auto: by the kind of model.",
            autocompletion=complete_methods,
        ),
    ] = "auto",
    target: Target = None,
    layer: Layer = None,
    row: Row = 0,
    background: Background = None,
    trust_code: TrustCode = False,
    sep: Sep = None,
    encoding: Encoding = None,
    decimal: Decimal = None,
    no_header: NoHeader = False,
    as_json: Json = False,
    html: Html = None,
    png: Annotated[Path | None, typer.Option(help="Write a picture here.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write page, picture and explanation into this folder.  [pictures: apportion-out]"),
    ] = None,
    max_remainder: MaxRemainder = None,
    prompt: Prompt = None,
    answer: AnswerText = None,
    max_new_tokens: MaxNewTokens = 20,
    contrast: Contrast = None,
    context: Context = None,
    unit: Unit = None,
    score: Score = "log-probability",
    chat: Chat = False,
) -> None:
    """Explain one decision. Without INPUT: a sentence and a photo, by three methods.

    \b
    apportion explain "The plot is thin, but the acting is superb."
    apportion explain photo.jpg --method gradcam --target "tiger cat"
    apportion explain rows.csv --row 3 --method "IntegratedGradients(nodes=64)" --json
    apportion explain "not a bad film" --method ih --html pairs.html
    apportion explain --model FOLDER --prompt "The capital of France is" --max-new-tokens 5
    """
    with one_line_errors(quiet=as_json):
        asked = read_asked(
            given, prompt, answer, context, target, contrast, score, unit, max_new_tokens, chat
        )
        if given is None and asked is None:
            from apportion.cli import _demo as demo

            if as_json or png or layer or model or target:
                raise InputError("without an INPUT only --out and --html apply")
            return demo.run(make_console(), (out or OUT) / "demo.html" if html is None else html)
        if len(several := split(method)) > 1:
            raise InputError(
                f"--method takes one method; accepted for several: apportion compare … --methods {','.join(several)}"
            )
        for path, suffix in ((html, ".html"), (png, ".png")):
            if path is not None and path.suffix.lower() not in (suffix, suffix[:4]):
                raise InputError(f"--{suffix[1:]} is {str(path)!r}; accepted: a name that ends in {suffix}")
        explanation: Result
        if asked is not None:
            from apportion.pipeline.given import Given

            what = Given("text", asked.shown, str(prompt))
            with _status():
                from apportion.pipeline.answers import explain_prompt

                name, explanation = explain_prompt(asked, model, method, layer)
        else:
            assert given is not None
            what = recognised(given, sep, encoding, decimal, no_header)
            if out is None and what.kind == "image" and not (as_json or html or png):
                out = OUT
            found = model_of(model, background, trust_code, what.dialect)
            ready, explanations = _explain(what, found, [method], target, layer, row)
            name, explanation = ready.classifier.name, explanations[0]
        console = make_console()
        if not as_json:
            from apportion.display import terminal

            for sample in range(explanation.notes.get("classes", 1)):  # several where all are asked for
                terminal.show(explanation, console, name, sample)
        if out is not None:
            stem = _stem(out, what, explanation)
            html, png = html or out / f"{stem}.html", png or out / f"{stem}.png"
            explanation.save(out / f"{stem}.safetensors")
        if html is not None:
            explanation.to_html(html)
        if png is not None:
            from apportion.display.pictures.explanations import png as draw

            if "classes" in explanation.notes:
                raise InputError(
                    f"--png is of one class, and --target is {target!r}; accepted: --html, or one class"
                )
            draw(explanation, png)
        if as_json:
            from apportion.display.page import summary, told

            classes = explanation.notes.get("classes", 1)
            every = [summary(explanation, sample) for sample in range(classes)]
            echo_json(told(explanation) if classes == 1 else every)
        else:
            name_files(console, [path for path in (html, png) if path is not None])
        if explanation.total is not None and explanation.remainder is not None:
            pairs = zip(explanation.remainder.tolist(), explanation.total.tolist(), strict=True)
            hold_to(max_remainder, [(what.name, *pair) for pair in pairs])
    return None


def compare(
    given: Annotated[str | None, typer.Argument(metavar="INPUT", help="As in `apportion explain`.")] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help=f"Names or reprs, separated by commas.  [{COMPARED}; with --prompt {OF_ANSWERS}]",
            autocompletion=complete_methods,
        ),
    ] = None,
    model: Model = None,
    target: Target = None,
    row: Row = 0,
    background: Background = None,
    trust_code: TrustCode = False,
    sep: Sep = None,
    encoding: Encoding = None,
    decimal: Decimal = None,
    no_header: NoHeader = False,
    tests: Annotated[
        bool, typer.Option(help="Hide features, the most and the least relevant first: is it true?")
    ] = True,
    same_scale: Annotated[
        bool, typer.Option("--same-scale", help="One colour scale for all methods.")
    ] = False,
    as_json: Json = False,
    html: Html = None,
    prompt: Prompt = None,
    answer: AnswerText = None,
    max_new_tokens: MaxNewTokens = 20,
    contrast: Contrast = None,
    context: Context = None,
    unit: Unit = None,
    score: Score = "log-probability",
    chat: Chat = False,
) -> None:
    """Explain one decision by several methods, side by side on a page.

    Each stands there with its tests. Methods that cannot explain this model are named and left out.

    \b
    apportion compare "The plot is thin, but the acting is superb." --methods lrp,ig,lime
    apportion compare photo.jpg --methods lrp,gradcam,occlusion --html cat.html
    apportion compare --model FOLDER --prompt "Where does Ben live?" --context a.txt --context b.txt
    """
    with one_line_errors(quiet=as_json):
        asked = read_asked(
            given, prompt, answer, context, target, contrast, score, unit, max_new_tokens, chat
        )
        names = split((COMPARED if asked is None else OF_ANSWERS) if methods is None else methods)
        if not names:
            raise InputError("--methods is empty; accepted: names such as lrp,ig")
        if given is None and asked is None:
            raise InputError("there is nothing to explain; accepted: an INPUT, or --prompt")
        explanations: list[Result]
        with _status():
            from apportion.core.files import write_whole
            from apportion.pipeline.quick_tests import run_quick_tests, test_answers
            from apportion.results.scores import tied

            if asked is not None:
                from apportion.pipeline.answers import explain_prompt_by_each

                lm, question, of_answer, why = explain_prompt_by_each(asked, model, names)
                explanations, name = [*of_answer.values()], lm.name
                scores = test_answers(question, [*of_answer.values()]) if tests else [[]] * len(of_answer)
            else:
                from apportion.pipeline.prepared import explain_by_each

                assert given is not None
                what = recognised(given, sep, encoding, decimal, no_header)
                of = model_of(model, background, trust_code, what.dialect)
                ready, found, why = explain_by_each(what, of, names, target, row)
                explanations, name = [*found.values()], ready.classifier.name
                scores = run_quick_tests(ready, explanations) if tests else [[] for _ in explanations]
        warn_of_left_out(why)
        from apportion.display import page as report
        from apportion.display import terminal

        path = html if html is not None or as_json else OUT / "compare.html"
        if path is not None:
            write_whole(path, report.page(explanations, scores, same_scale).encode())
        if as_json:
            listed = [
                {**report.told(e), "tests": [s.to_dict() for s in of_it]}
                for e, of_it in zip(explanations, scores, strict=True)
            ]
            echo_json({"explanations": listed, "left_out": why, "ties": tied(scores)})
            return
        console = make_console()
        console.print(terminal.compared(explanations, name))
        console.print(terminal.comparison(explanations, scores))
        if path is not None:
            name_files(console, [path])


# ---- from what was typed to explanations ----


def _explain(
    what: Given,
    model: str | Classifier | None,
    methods: list[str],
    target: str | None,
    layer: str | None,
    row: int,
) -> tuple[Prepared, list[Result]]:
    with _status():
        from apportion.pipeline.prepared import explain_given

        return explain_given(what, model, methods, target, layer, row)


@contextmanager
def _status() -> Iterator[None]:
    """That something is going on, on a terminal; on stderr, so that it is in no pipe."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from rich.status import Status

    from apportion.core.progress import watched

    def report(done: int, total: int | None, what: str) -> None:
        status.update(f"{done} of {total} {what}" if total else f"{done} {what}")

    with Status("explaining", console=make_console(stderr=True)) as status, watched(report):
        yield


def _stem(folder: Path, what: Given, explanation: Result) -> str:
    """A name of files that says input, method and settings; numbered where it is taken by files of something else,
    such as a picture of the same name in another folder, another row or another class."""
    from apportion.results.words import describe_method

    method = re.sub(r"[^a-z0-9.]+", "-", describe_method(explanation.method).lower()).strip("-")
    name = f"{Path(what.name).stem if what.raw is not what.name else what.kind}-{method[:80]}"
    numbered = (name if n == 1 else f"{name}-{n}" for n in count(1))
    return next(stem for stem in numbered if _is_free_for(explanation, folder / f"{stem}.safetensors"))


def _is_free_for(explanation: Result, path: Path) -> bool:
    """Whether a file is not there, or is of the same input, model, method and class."""
    if not path.exists():
        return True
    try:
        there = type(explanation).load(path)
    except InputError:  # of another kind, or damaged
        return False
    return all(
        of(there) == of(explanation)
        for of in (
            lambda e: repr(e.method),
            lambda e: (e.model_name, e.input_name, e.label()),
            lambda e: e.features,
        )
    )
