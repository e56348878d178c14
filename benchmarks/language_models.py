"""All tokens of an answer, beside inseq, Captum and interpreto: `python benchmarks/language_models.py FOLDER [case …]`.

FOLDER is a causal model with its tokenizer. The runs of a case take turns in one process and on one thread; what is
compared are their seconds on the CPU, which other work on the machine changes little. The others are those of
`tests/peers.txt`.
"""

from __future__ import annotations

import argparse
import copy
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import apportion as ap

WORDS = (
    "The little boat went out to the blue island and came back in the evening with bread , salt and news . "
)
FIRST = ap.Answer(score="logit", each=True)


class Task:
    """A prompt and an answer of so many tokens."""

    def __init__(self, folder: str, prompt: int, answer: int) -> None:
        loaded = ap.load(folder)
        assert isinstance(loaded, ap.LanguageModel)
        self.lm, self.folder = loaded, folder
        self.lm.model.requires_grad_(False)
        ids = self.lm.tokenizer(WORDS * (1 + (prompt + answer) // 10))["input_ids"]
        self.prompt = self.lm.tokenizer.decode(ids[:prompt])
        self.answer = self.lm.tokenizer.decode(ids[prompt : prompt + answer])
        self.ids = torch.tensor([ids[: prompt + answer - 1]])

    def ours(self, method: Any) -> Any:
        return ap.explain(self.lm, self.prompt, method, FIRST, answer=self.answer)

    def forward(self) -> Tensor:
        """One forward pass over prompt and answer."""
        with torch.no_grad():
            logits: Tensor = self.lm.model(input_ids=self.ids).logits
        return logits

    def inseq(self, method: str, **how: Any) -> Any:
        import inseq

        theirs = inseq.load_model(self.lm.model, method, tokenizer=self.lm.tokenizer)
        return lambda: theirs.attribute(
            self.prompt,
            generated_texts=self.prompt + self.answer,
            attributed_fn="logit",
            show_progress=False,
            **how,
        )

    def captum(self, method: str, **how: Any) -> Callable[[], Any]:
        import captum.attr

        layer = getattr(captum.attr, method)(self.lm.model, self.lm.model.get_input_embeddings())
        theirs = captum.attr.LLMGradientAttribution(layer, self.lm.tokenizer)
        return lambda: theirs.attribute(self.text_of_captum(), target=self.answer, **how)

    def ablation(self) -> Callable[[], Any]:
        import captum.attr

        theirs = captum.attr.LLMAttribution(captum.attr.FeatureAblation(self.lm.model), self.lm.tokenizer)
        # With the outputs that it keeps from call to call the values are others.
        return lambda: theirs.attribute(self.text_of_captum(), target=self.answer, use_cached_outputs=False)

    def text_of_captum(self) -> Any:
        import captum.attr

        return captum.attr.TextTokenInput(
            self.prompt, self.lm.tokenizer, baselines=self.lm.mask, skip_tokens=[]
        )

    def interpreto(self, method: str, **how: Any) -> Callable[[], Any]:
        import peers

        theirs, tokenizer = peers.interpreto(), copy.deepcopy(self.lm.tokenizer)
        tokenizer.mask_token = tokenizer.convert_ids_to_tokens(self.lm.mask)
        made = getattr(theirs, method)(self.lm.model, tokenizer, granularity=theirs.Granularity.TOKEN, **how)
        return lambda: made.explain(self.prompt, targets=self.answer)


def ixg(task: Task, nodes: int) -> dict[str, Callable[[], Any]]:
    return {
        "apportion": lambda: task.ours(ap.InputXGradient()),
        "inseq": task.inseq("input_x_gradient"),
        "captum": task.captum("LayerGradientXActivation"),
        "one forward pass": task.forward,
    }


def ig(task: Task, nodes: int) -> dict[str, Callable[[], Any]]:
    return {
        "apportion": lambda: task.ours(ap.IntegratedGradients(nodes=nodes)),
        "inseq": task.inseq("integrated_gradients", n_steps=nodes),
        "captum": task.captum("LayerIntegratedGradients", n_steps=nodes),
    }


def occlusion(task: Task, nodes: int) -> dict[str, Callable[[], Any]]:
    """Each token hidden; interpreto hides those of the answer, too."""
    return {
        "apportion": lambda: ap.explain(
            task.lm, task.prompt, ap.Occlusion(), FIRST, answer=task.answer, unit="token"
        ),
        "interpreto": task.interpreto("Occlusion"),
        "captum": task.ablation(),
    }


def lrp(task: Task, nodes: int) -> dict[str, Callable[[], Any]]:
    def backward() -> None:
        """The gradient of each token, and nothing else: less than this no such method can take."""
        rows = task.lm.model.get_input_embeddings()(task.ids).detach().requires_grad_()
        many = len(task.lm.tokenizer(task.answer)["input_ids"])
        logits = task.lm.model(inputs_embeds=rows, logits_to_keep=many, use_cache=False).logits[0]
        for row in logits:
            torch.autograd.grad(row[7], rows, retain_graph=True)

    return {
        "one forward pass": task.forward,
        "apportion LRP": lambda: task.ours(ap.LRP()),
        "bare gradients of all tokens": backward,
    }


def context(task: Task, nodes: int) -> dict[str, Callable[[], Any]]:
    """64 ablations, by a plain loop that scores the answer after each masked prompt, and by ours."""
    sentences = [f"{i} : {WORDS.split(' . ')[0]} ." for i in range(8)]

    def ours(method: Any) -> Callable[[], Any]:
        return lambda: ap.explain(
            task.lm, "Where did it go ?", method, ap.Answer(), answer=task.answer, context=sentences
        )

    def loop() -> None:
        asked = task.lm.question("Where did it go ?", task.answer, ap.Answer(), context=sentences)
        ids, generator = asked.inputs[:1].clone(), torch.Generator().manual_seed(0)
        words = torch.tensor([-1 if word is None else word for word in asked.features[0].words])
        said = task.lm.tokenizer(task.answer)["input_ids"]
        for _ in range(64):
            hidden = torch.isin(words, (torch.rand(8, generator=generator) < 0.5).nonzero().flatten())
            with torch.no_grad():
                logits = task.lm.model(input_ids=ids.masked_fill(hidden, task.lm.mask)).logits[
                    0, -len(said) :
                ]
            logits.log_softmax(-1)[torch.arange(len(said)), said].sum()

    return {"apportion LIME": ours(ap.LIME(samples=64)), "plain loop": loop}


CASES = {"ixg": ixg, "ig": ig, "lrp": lrp, "occlusion": occlusion, "context": context}


def agreement(task: Task, nodes: int) -> None:
    """The values of the prompt's tokens for each token of the answer, by us and by the others. inseq and Captum move
    the answer so far to the baseline, too, so of Integrated Gradients the first token is compared."""
    many = len(task.lm.tokenizer(task.prompt)["input_ids"])
    said = len(task.lm.tokenizer(task.answer)["input_ids"])
    by_nodes, hiding = ap.IntegratedGradients(nodes=nodes), ap.Occlusion()

    def ours(method: Any, target: ap.Answer) -> Tensor:
        found = ap.explain(task.lm, task.prompt, method, target, answer=task.answer, unit="token")
        return found.values[:, :many]

    def inseq(method: str, **how: Any) -> Tensor:
        found: Tensor = task.inseq(method, **how)()[0].target_attributions
        return found[:many].sum(-1).T[-said:]

    each = ap.Answer(each=True)
    report("input x gradient, inseq", ours(ap.InputXGradient(), FIRST), inseq("input_x_gradient"))
    report(
        "input x gradient, captum",
        ours(ap.InputXGradient(), each),
        task.captum("LayerGradientXActivation")().token_attr,
    )
    first = inseq("integrated_gradients", n_steps=nodes)[:1]
    report("integrated gradients, inseq", ours(by_nodes, ap.Answer(0, "logit")), first)
    first = task.captum("LayerIntegratedGradients", n_steps=nodes)().token_attr[:1]
    report("integrated gradients, captum", ours(by_nodes, ap.Answer(0)), first)
    report("occlusion, captum", ours(hiding, each), task.ablation()().token_attr)
    (found,) = task.interpreto("Occlusion")()
    report("occlusion, interpreto", ours(hiding, FIRST), found.attributions[:, :many])


def report(what: str, ours: Tensor, theirs: Tensor) -> None:
    apart = float((ours - theirs.to(ours)).abs().max() / ours.abs().max())
    print(f"{what:<28} largest difference {apart:.1e} of the largest value")


def memory(folder: str, sizes: list[str]) -> None:
    """What each run adds to the peak of a process of its own."""
    for what in ("forward", "ixg", "ig", "lrp", "inseq", "captum"):
        command = [sys.executable, __file__, folder, f"peak-{what}", *sizes]
        found = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
        )
        print(f"{what:<28} {found.stdout.split()[-1] if found.stdout else found.stderr[-80:]} MB", flush=True)


def peak(task: Task, what: str, nodes: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    {
        "forward": task.forward,
        "ixg": lambda: task.ours(ap.InputXGradient()),
        "ig": lambda: task.ours(ap.IntegratedGradients(nodes=nodes)),
        "lrp": lambda: task.ours(ap.LRP()),
        "inseq": lambda: task.inseq("input_x_gradient")(),
        "captum": lambda: task.captum("LayerGradientXActivation")(),
    }[what]()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("cases", nargs="*", default=[*CASES, "memory", "agreement"])
    parser.add_argument("--prompt", type=int, default=128, help="tokens of the prompt (default 128)")
    parser.add_argument("--answer", type=int, default=32, help="tokens of the answer (default 32)")
    parser.add_argument("--nodes", type=int, default=16, help="of Integrated Gradients (default 16)")
    parser.add_argument("--repeat", type=int, default=3, help="turns (default 3)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sizes = [f"--{name}={getattr(given, name)}" for name in ("prompt", "answer", "nodes")]
    task = Task(given.folder, given.prompt, given.answer)
    print(f"torch {torch.__version__}, {Path(given.folder).name}, {' '.join(sizes)}", flush=True)
    for case in given.cases:
        if case.startswith("peak-"):
            peak(task, case.removeprefix("peak-"), given.nodes)
        elif case == "memory":
            memory(given.folder, sizes)
        elif case == "agreement":
            agreement(task, given.nodes)
        else:
            runs = CASES[case](task, given.nodes)
            seconds: dict[str, list[float]] = {name: [] for name in runs}
            for _ in range(given.repeat):
                for name, run in runs.items():
                    start = time.process_time()
                    run()
                    seconds[name].append(time.process_time() - start)
            first = statistics.median(next(iter(seconds.values())))
            for name, each in seconds.items():
                found = statistics.median(each)
                print(f"{case:<8} {name:<28} {found:8.2f} s {found / first:7.2f} ×", flush=True)


if __name__ == "__main__":
    main()
