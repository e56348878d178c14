"""Do explanations of a language model point at what it used? Planted facts, contrasts, and words left out.

    python studies/language_models.py DATA OUT [--models smollm2,…] [--parts facts,contrasts,words] [--many 100]

DATA holds folders of causal models in the form of Hugging Face; OUT gets one JSON Lines file a model and part, which a
second run goes on with, and `tables.md`. Three parts, each of samples made from templates with a fixed seed:

- facts: a context of 8 to 20 sentences, in one of which stands a fact at a random place, and in another a decoy; which
  sentence comes first, where the model says the fact (the likeliest token is that);
- contrasts: why "are" rather than "is", "she" rather than "he"; whether the deciding word comes first, where the model
  prefers the right one;
- words: what a prompt's likeliest next token loses without the words that a map puts first.
"""

from __future__ import annotations

import argparse
import json
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pretrained import PROMPTS

import apportion as ap
from apportion.domains.language import Question
from apportion.errors import InputError
from apportion.evaluation.case import Case
from apportion.evaluation.reference_maps import RandomMap, Reversed, UniformMap

SEED = 0


class Sample(NamedTuple):
    """A prompt with the answer that is right, and the feature of the prompt that it hangs on, where one is known."""

    name: str
    prompt: str
    answer: str | None = None
    rather_than: str | None = None
    context: str | None = None
    deciding: str | None = None


# ---- planted facts ----

PEOPLE = "Anna Ben Clara David Emma Frank Grace Henry Irene Jack Kate Leo Mary Nina Oscar Paul".split()
THINGS = "lamp ladder guitar bicycle camera hammer piano suitcase umbrella telescope".split()
PLACES = "kitchen garage cellar attic garden office bedroom library barn hall".split()
ELSE = (
    "It rained on {day}. The train was late on {day}. The school opens at {hour}. {person} bought bread at {hour}. "
    "{person} likes old maps. {person} called the doctor on {day}. The shop closes at {hour}. {person} took a walk. "
    "{person} cooked soup on {day}. The dog of {person} sleeps a lot. {person} wrote a letter to {other}. "
    "{person} met {other} at {hour}. The bus leaves at {hour}. {person} plays chess on {day}. The street was empty. "
    "{person} painted the fence. The river is cold in winter. {person} sings in a choir. {other} lost a hat on {day}. "
    "The bakery sells cake on {day}. {person} waited for {other}. The garden needs water. {person} reads every evening."
)
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
HOURS = "six seven eight nine ten eleven noon".split()


def facts() -> Iterator[Sample]:
    """Where somebody keeps something, among other sentences; the decoy is where somebody else keeps the same."""
    drawn = random.Random(SEED)
    templates = [each.strip() + "." for each in ELSE.split(".") if each.strip()]
    while True:
        owner, other, *rest = drawn.sample(PEOPLE, 6)
        thing, (right, wrong) = drawn.choice(THINGS), drawn.sample(PLACES, 2)
        fact, decoy = (
            f"{who} keeps the {thing} in the {place}." for who, place in ((owner, right), (other, wrong))
        )
        filling = [
            template.format(
                person=drawn.choice(rest), other=owner if drawn.random() < 0.5 else other,
                day=drawn.choice(DAYS), hour=drawn.choice(HOURS),
            )
            for template in drawn.sample(templates, drawn.randint(6, 18))
        ]  # fmt: skip
        said = [fact, decoy, *filling]
        drawn.shuffle(said)
        yield Sample(
            " ".join(said), f"{owner} keeps the {thing} in the", f" {right}", None, " ".join(said), fact
        )


# ---- contrasts ----

SINGULAR = "key dog book child picture teacher car letter author lawyer".split()
PLURAL = "keys dogs books children pictures teachers cars letters authors lawyers".split()
BETWEEN = ("near the {}", "behind the {}", "beside the {}", "from the {}", "with the {}")
BESIDE = (
    ("cabinet", "cabinets"),
    ("house", "houses"),
    ("tree", "trees"),
    ("table", "tables"),
    ("school", "schools"),
)
PERSONS = {
    " she": "mother aunt sister queen daughter niece".split(),
    " he": "father uncle brother king son nephew".split(),
}
DID = (
    "cooked dinner, and then",
    "lost the keys because",
    "was tired, so",
    "opened the door when",
    "said that",
)


def contrasts() -> Iterator[Sample]:
    """Alternately the number of a verb, with a noun of the other number between, and the gender of a pronoun."""
    drawn = random.Random(SEED)
    while True:
        many = drawn.random() < 0.5
        subject = drawn.choice(PLURAL if many else SINGULAR)
        beside = drawn.choice(BETWEEN).format(drawn.choice(BESIDE)[not many])
        verbs = (" are", " is") if many else (" is", " are")
        prompt = f"The {subject} {beside}"
        yield Sample(f"{prompt}{verbs[0]}", prompt, *verbs, deciding=subject)
        right, wrong = drawn.sample(list(PERSONS), 2)
        person = drawn.choice(PERSONS[right])
        prompt = f"The {person} {drawn.choice(DID)}"
        yield Sample(f"{prompt}{right}", prompt, right, wrong, deciding=person)


def words() -> Iterator[Sample]:
    """Prompts of a line each, and the token that the model writes."""
    for prompt in PROMPTS:
        yield Sample(prompt, prompt)


# ---- methods and tests ----

CHEAP: dict[str, Any] = {
    "deeplift": ap.DeepLIFT(),
    "lrp, biases placed": ap.LRP(bias="place"),
    "input × gradient": ap.InputXGradient(),
    "attention rollout": ap.AttentionWeights(rollout=True),
    "each left out": ap.Occlusion(),
}


class Part(NamedTuple):
    samples: Callable[[], Iterator[Sample]]
    methods: Mapping[str, Any]
    tests: Mapping[str, Any]


PARTS = {
    "facts": Part(
        facts,
        {
            **CHEAP,
            "kernel shap (32 masks)": ap.KernelSHAP(samples=32),
            "lime, lasso (32 masks)": ap.LIME(samples=32, sizes="coins", select="lasso", keep=3),
        },
        {"top-1 drop": ap.TopKDrop(), "LDS": ap.LDS(samples=32, seed=1)},
    ),
    "contrasts": Part(
        contrasts,
        {**CHEAP, "kernel shap": ap.KernelSHAP(), "lime (32 masks)": ap.LIME(samples=32)},
        {"top-1 drop": ap.TopKDrop()},
    ),
    "words": Part(
        words,
        {**CHEAP, "kernel shap (64 masks)": ap.KernelSHAP(samples=64)},
        {"flipping": ap.PixelFlipping("symmetric", of="score", steps=10), "LDS": ap.LDS(samples=32, seed=1)},
    ),
}


def question(lm: ap.LanguageModel, sample: Sample) -> Question | None:
    """The sample as it is explained; None where the model does not answer right."""
    context, unit = (None, "word") if sample.context is None else ([sample.context], "sentence")
    target = ap.Answer(rather_than=sample.rather_than)
    known: dict[str, Any] = {"target": target, "unit": unit, "context": context}
    if sample.rather_than is None:
        written = lm.question(sample.prompt, None, max_new_tokens=1, **known)
        return written if sample.answer in (None, written.answer) else None
    asked = lm.question(sample.prompt, sample.answer, **known)
    with torch.no_grad():
        prefers = float(asked.classifier.model(asked.inputs)[0, 0]) > 0
    return asked if prefers else None


def measured(
    asked: Question, deciding: str | None, methods: Mapping[str, Any], tests: Mapping[str, Any]
) -> Any:
    """Of one question, for each method: whether the right feature is first, what is left over, and the tests."""
    case, found = Case(asked.classifier, asked), {}
    for name, method in methods.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made = case.explain(method)
                scores = case.scores(tests, made)
        except InputError as error:
            found[name] = {"refused": str(error)}
            continue
        row = found[name] = {test: float(one.values[0]) for test, one in scores.items()}
        row["passes"] = [made.cost.forwards, made.cost.backwards]
        if made.total is not None and made.remainder is not None:
            row["share"] = abs(float(made.remainder[0] / made.total[0]))
        if deciding is not None:
            names, values = made.relevance(0)
            (right,) = (i for i, each in enumerate(names) if each == deciding)
            best = values == values.max()
            row["first"] = float(best[right]) / float(best.sum())
    return found


def run(lm: ap.LanguageModel, part: Part, many: int, file: Path) -> list[Any]:
    """Measure so many samples by the methods that the file does not have for them; a line is of one run."""
    done: dict[str, dict[str, Any]] = {}
    for line in map(json.loads, file.read_text().splitlines() if file.exists() else ()):
        done.setdefault(line["sample"], {}).update(line["methods"])
    with file.open("a") as out:
        for number, sample in enumerate(islice(part.samples(), many)):
            row = done.setdefault(sample.name, {})
            references = {
                "random": RandomMap(SEED + number),
                "uniform": UniformMap(),
                "reversed (deeplift)": Reversed(ap.DeepLIFT()),
            }
            methods = {**part.methods, **references}
            todo = {name: how for name, how in methods.items() if name not in row}
            if "wrong" in row or not todo:
                continue
            asked = question(lm, sample)
            found = {"wrong": {}} if asked is None else measured(asked, sample.deciding, todo, part.tests)
            row.update(found)
            out.write(json.dumps({"sample": sample.name, "methods": found}) + "\n")
            out.flush()
            print(f"{file.stem}: {number + 1} of {many}", flush=True)
    return list(done.values())


# ---- tables ----


def table(title: str, part: Part, rows: list[Any]) -> str:
    """One line a method, over the samples that the model answers right."""
    right = [row for row in rows if "wrong" not in row]
    columns = (["first"] if any("first" in each for row in right for each in row.values()) else []) + list(
        part.tests
    )
    heads = " | ".join("right one first" if name == "first" else f"{name} [95 %]" for name in columns)
    lines = [
        f"### {title}: {len(right)} of {len(rows)} answered right\n",
        *(f"{name}: `{test!r}`  " for name, test in part.tests.items()),
        f"\n| method | {heads} | left over, median | passes |",
        "|---" + "|---:" * (len(columns) + 2) + "|",
    ]
    for name in dict.fromkeys(name for row in right for name in row):
        found = [row[name] for row in right if name in row and "refused" not in row[name]]
        if not found:
            lines.append(f"| {name} | refused |" + " |" * (len(columns) + 1))
            continue
        cells = []
        for column in columns:
            scores = ap.Scores(torch.tensor([one[column] for one in found]), column, True)
            low, high = scores.interval()
            percent = column == "first"
            said = [f"{100 * v:.0f}" if percent else f"{v:.2f}" for v in (scores.mean, low, high)]
            cells.append(f"{said[0]}{' %' if percent else ''} [{said[1]}, {said[2]}]")
        shares = sorted(one["share"] for one in found if "share" in one)
        left = f"{100 * shares[len(shares) // 2]:.2f} %" if shares else "–"
        passes = sorted(tuple(one["passes"]) for one in found)[len(found) // 2]
        lines.append(f"| {name} | {' | '.join(cells)} | {left} | {passes[0]} + {passes[1]} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--models", default=None, help="folders in DATA; default: all that hold a model")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--many", type=int, default=100)
    parser.add_argument(
        "--without", default="", help="methods to leave out, such as slow ones, by semicolons"
    )
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    names = [p.parent.name for p in sorted(given.data.glob("*/config.json"))]
    tables = []
    for name in names if given.models is None else given.models.split(","):
        lm = ap.load(given.data / name)
        for part in given.parts.split(","):
            left_out = given.without.split(";")
            used = {m: how for m, how in PARTS[part].methods.items() if m not in left_out}
            chosen = PARTS[part]._replace(methods=used)
            rows = run(lm, chosen, given.many, given.out / f"{name}-{part}.jsonl")
            tables.append(table(f"{name}, {part}", chosen, rows))
            print(tables[-1], flush=True)
    (given.out / "tables.md").write_text("\n".join(tables))
