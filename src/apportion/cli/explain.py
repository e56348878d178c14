"""The commands for one input: `apportion explain`, `apportion compare`."""

from __future__ import annotations

import re
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apportion.cli._messages import (
    amounts,
    echo_json,
    hold_to,
    make_console,
    name_files,
    warn_of_left_out,
)
from apportion.cli._options import (
    Html,
    Inputs,
    Json,
    MaxRemainder,
    Method,
    Model,
    Prompts,
    Row,
    Running,
    Tables,
    Target,
    Top,
    complete_methods,
    grouped,
)
from apportion.cli.lists import split
from apportion.errors import InputError

if TYPE_CHECKING:
    from apportion.core.classifier import Classifier
    from apportion.pipeline.given import Given
    from apportion.results.result import Result

OUT = Path("apportion-out")
# Nodes are fixed: to its tolerance the integral takes hundreds of passes on a photo.
COMPARED = "auto, lrp, IntegratedGradients(nodes=24), inputxgradient, occlusion"
OF_ANSWERS = "auto, deeplift, inputxgradient, occlusion"


def add_to(app: typer.Typer) -> None:
    app.command()(grouped(explain))
    app.command()(grouped(compare))


def explain(
    inputs: Inputs = None,
    *,
    model: Model = None,
    method: Method = "auto",
    target: Target = None,
    layer: Annotated[
        str | None, typer.Option(help="Explain the output of this module instead of the input.")
    ] = None,
    row: Row = 0,
    tables: Tables,
    as_json: Json = False,
    html: Html = None,
    png: Annotated[Path | None, typer.Option(help="Write a picture here.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write page, picture and explanation into this folder.  [pictures: apportion-out]"),
    ] = None,
    top: Top = None,
    max_remainder: MaxRemainder = None,
    prompts: Prompts,
    running: Running,
) -> None:
    """Explain decisions, one for each INPUT. Without INPUT: a sentence and a photo, by three methods.

    \b
    apportion explain "The plot is thin, but the acting is superb."
    apportion explain photo.jpg --method gradcam --target "tiger cat"
    apportion explain rows.csv --row 3 --method "IntegratedGradients(nodes=64)" --json
    apportion explain "a dull film" "not a bad film" --method ih --html pairs.html
    apportion explain --model FOLDER --prompt "The capital of France is" --max-new-tokens 5
    """
    with running.one_line_errors(as_json):
        asked = prompts.asked(inputs, target)
        if not inputs and asked is None:
            from apportion.cli import _demo as demo

            if as_json or png or layer or model or target:
                raise InputError("without an INPUT only --out and --html apply")
            return demo.run(make_console(), (out or OUT) / "demo.html" if html is None else html)
        if len(several := split(method)) > 1:
            raise InputError(
                f"--method takes one method; accepted for several: apportion compare … --methods {','.join(several)}"
            )
        if png is not None and len(inputs or ()) > 1:
            raise InputError("--png is of one INPUT; accepted for several: --out FOLDER")
        for path, suffix in ((html, ".html"), (png, ".png")):
            if path is not None and path.suffix.lower() not in (suffix, suffix[:4]):
                raise InputError(f"--{suffix[1:]} is {str(path)!r}; accepted: a name that ends in {suffix}")
        found: list[tuple[Given, str, Result]] = []
        with running.status():
            from apportion.pipeline import answers, prepared
            from apportion.pipeline.given import Given

            made = prepared.at_layer(running.made([method])[method], layer)
            if asked is not None:
                name, of_answer = answers.explain_prompt(asked, model, made, running.device)
                found.append((Given("text", asked.prompt, str(prompts.prompt)), name, of_answer))
            loaded: dict[str, Classifier] = {}
            for what in tables.recognised(inputs or ()):
                of = loaded.get(what.kind) or tables.model(model)
                ready, explanations = prepared.explain_given(what, of, [made], target, row, running.device)
                loaded[what.kind] = ready.classifier
                found.append((what, ready.classifier.name, explanations[0]))
        if png is not None and "classes" in found[0][2].notes:
            raise InputError(
                f"--png is of one class, and --target is {target!r}; accepted: --html, or one class"
            )
        from apportion.core.files import write_whole
        from apportion.display import page, terminal
        from apportion.display.pictures.explanations import png as draw

        console, written = make_console(), []
        for what, name, explanation in found:
            if not as_json:
                if len(found) > 1:
                    console.rule(what.name, style="dim", align="left")
                for sample in range(explanation.notes.get("classes", 1)):  # several where all are asked for
                    terminal.show(explanation, console, name, sample, top=top)
            folder = OUT if what.kind == "image" and not (out or as_json or html or png) else out
            if folder is not None:
                stem = _stem(folder, what, explanation)
                explanation.save(folder / f"{stem}.safetensors")
                written += [folder / f"{stem}.html", folder / f"{stem}.png"]
                explanation.to_html(written[-2])
                draw(explanation, written[-1])
        explained = [explanation for _, _, explanation in found]
        if html is not None:
            written.append(write_whole(html, page.page(explained).encode()))
        if png is not None:
            written.append(png)
            draw(explained[0], png)
        if as_json:
            told = [
                page.told(each, top, i) for each in explained for i in range(each.notes.get("classes", 1))
            ]
            echo_json(told if len(told) > 1 else told[0])
        else:
            name_files(console, written)
        hold_to(max_remainder, (each for what, _, result in found for each in amounts(what.name, result)))
    return None


def compare(
    inputs: Inputs = None,
    *,
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
    tables: Tables,
    tests: Annotated[
        bool, typer.Option(help="Hide features, the most and the least relevant first: is it true?")
    ] = True,
    same_scale: Annotated[
        bool, typer.Option("--same-scale", help="One colour scale for all methods.")
    ] = False,
    as_json: Json = False,
    html: Html = None,
    top: Top = None,
    max_remainder: MaxRemainder = None,
    prompts: Prompts,
    running: Running,
) -> None:
    """Explain one decision by several methods, side by side on a page.

    Each stands there with its tests. Methods that cannot explain this model are named and left out.

    \b
    apportion compare "The plot is thin, but the acting is superb." --methods lrp,ig,lime
    apportion compare photo.jpg --methods lrp,gradcam,occlusion --html cat.html
    apportion compare --model FOLDER --prompt "Where does Ben live?" --context a.txt --context b.txt
    """
    with running.one_line_errors(as_json):
        asked = prompts.asked(inputs, target)
        names = split((COMPARED if asked is None else OF_ANSWERS) if methods is None else methods)
        if not names:
            raise InputError("--methods is empty; accepted: names such as lrp,ig")
        if not inputs and asked is None:
            raise InputError("there is nothing to explain; accepted: an INPUT, or --prompt")
        if len(inputs or ()) > 1:
            raise InputError(
                "compare takes one INPUT; accepted for several: apportion explain, apportion test"
            )
        explanations: list[Result]
        with running.status():
            from apportion.core.files import write_whole
            from apportion.pipeline.quick_tests import run_quick_tests, test_answers
            from apportion.results.scores import tied

            made = running.made(names)
            if asked is not None:
                from apportion.pipeline.answers import explain_prompt_by_each

                lm, question, of_answer, why = explain_prompt_by_each(asked, model, made, running.device)
                explanations, name = [*of_answer.values()], lm.name
                scores = test_answers(question, [*of_answer.values()]) if tests else [[]] * len(of_answer)
            else:
                from apportion.pipeline.prepared import explain_by_each

                (what,) = tables.recognised(inputs or ())
                ready, found, why = explain_by_each(
                    what, tables.model(model), made, target, row, running.device
                )
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
                {**report.told(e, top), "tests": [s.to_dict() for s in of_it]}
                for e, of_it in zip(explanations, scores, strict=True)
            ]
            echo_json({"explanations": listed, "left_out": why, "ties": tied(scores)})
        else:
            console = make_console()
            console.print(terminal.compared(explanations, name))
            console.print(terminal.comparison(explanations, scores, top or terminal.LARGEST))
            if path is not None:
                name_files(console, [path])
        hold_to(
            max_remainder,
            (each for e in explanations for each in amounts(type(e.method).__name__, e)),
        )


# ---- names of files ----


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
