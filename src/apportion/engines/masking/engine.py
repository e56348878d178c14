"""Engine 2: run a model with some of its input's features replaced, for many masks and samples at once.

Nothing is recorded for a backward pass, and any callable will do: inputs given as NumPy arrays reach it as
NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apportion.core.calling import (
    Model,
    call_model,
    is_multi_label,
    is_regression,
    is_training,
    one_by_one,
    same_random_state,
    warned,
)
from apportion.core.features import Features, TabularFeatures, as_cut
from apportion.core.inputs import Inputs, Values, rows_of, runs_once
from apportion.core.numbers import is_frame, is_series, tensor_of
from apportion.core.per_input import PerInput
from apportion.core.places import samples_first, taking
from apportion.core.progress import progress
from apportion.core.target import (
    Target,
    are_probabilities,
    classes_of,
    is_one_number,
    one_number,
    pick,
    resolve,
)
from apportion.core.trees import map_tensors, tensors_in
from apportion.engines.masking.chunk_size import Largest, rows_a_chunk
from apportion.engines.masking.cut import Ordered, counts, cut, fit_formats, misread, spread
from apportion.engines.masking.ends_in_softmax import Kind, LastSquash
from apportion.engines.masking.padding import is_needless, without_padding
from apportion.engines.masking.partitions import (
    ColumnGroups,
    Columns,
    Partition,
    Tokens,
    Words,
    as_partition,
    words_of,
)
from apportion.engines.masking.replacements import Background, Replacement
from apportion.engines.subject import Subject
from apportion.engines.substitution import Substitution
from apportion.errors import InputError, check_seed, check_whole
from apportion.results.explanation import Explanation


class Masking(Subject):
    """A model at some inputs for some target, ready to be run under masks.

    `counts` is the (batch,) number of features of each sample and `many` the largest of them; `score` is f(x), `output`
    the scores of all classes. A NumPy model, such as a forest, may need as long for one row as for hundreds: it runs
    the inputs along with the first masks.

    Args:
        model (module or callable): The model; given arrays it is called with arrays.
        inputs (Tensor, tuple or dict of Tensor, or array): The inputs, the samples first.
        target (int, Tensor, callable, default None): The scalar explained; None: the predicted class.
        partition (Partition or label map, default None): Cuts the inputs into features; None: see `default_partition`,
            for integers and booleans in a NumPy array columns, for what a tokenizer returned its words.
        replacement (Replacement, default None): What stands in the place of hidden features; None: the token id `mask`
            or 0 for token ids, zero for numbers.
        features (sequence of Features, default None): Those of the domain, one for each sample.
        mask (int, default None): Id of a mask token.
        chunk (int, default None, rows): Rows that run at once; None: by the size of the largest tensor in the model.
        seed (int, default 0): Of random backgrounds.

    >>> masking = Masking(lambda x: x.sum(1), torch.tensor([[1.0, 2.0, 4.0]]))
    >>> masking.values(torch.tensor([[True, True, True], [False, True, True]])).tolist()
    [[7.0, 6.0]]
    """

    takes_missing = True

    def __init__(
        self,
        model: Model,
        inputs: Inputs | np.ndarray,
        target: Target = None,
        *,
        partition: Partition | Tensor | np.ndarray | None = None,
        replacement: Replacement | PerInput | tuple[Any, ...] | Mapping[str, Any] | None = None,
        features: Sequence[Features] | None = None,
        mask: int | Tensor | None = None,
        chunk: int | None = None,
        seed: int = 0,
    ) -> None:
        if chunk is not None:
            check_whole(1, chunk=chunk)
        if mask is not None and not isinstance(mask, Tensor):
            check_whole(0, mask=mask)
        check_seed(seed)
        if isinstance(inputs, np.ndarray) and inputs.dtype == bool:  # a table of yes and no, and no mask
            inputs = inputs.astype(np.float32)
        if isinstance(replacement, tuple | Mapping):
            replacement = PerInput.of_given(replacement)
        given = tensor_of("inputs", inputs) if isinstance(inputs, np.ndarray) else inputs
        super().__init__(model, given, target)
        self.numpy = isinstance(inputs, np.ndarray) and not isinstance(self.model, torch.nn.Module)
        columns = self.numpy and mask is None and not isinstance(partition, Tokens | Words)
        self.inputs, rounded = fit_formats(self.inputs, replacement, columns)
        self.warnings += warned(rounded)
        if features is not None:
            known = len(features) if isinstance(features, Sequence) else type(features).__name__
            if known != self.batch:
                raise InputError(f"{known} features for {self.batch} samples; accepted: one per sample")
        self.features = features
        if partition is None and features is None:
            rows = self.numpy and isinstance(self.inputs, Tensor) and self.inputs.dim() == 2
            # Integers too: nothing says that they are token ids.
            partition = Columns() if rows and mask is None else words_of(inputs)
        self.parts = cut(self.inputs, as_partition(partition), replacement, features, mask)
        self.warnings += warned(misread(self.parts, isinstance(self.model, torch.nn.Module)))
        self.counts = counts(self.parts, self.batch)
        self.many, fewest = int(self.counts.max()), int(self.counts.min())
        self._uneven = fewest < self.many
        if fewest < 1:
            raise InputError(
                "an input has no feature that may be hidden (an empty text, or special tokens only)"
            )
        self._backgrounds = _drawn_together([part.replacement for part in self.parts])
        self.draws = max(part.replacement.draws for part in self.parts)
        self._random = torch.Generator().manual_seed(seed)
        self._guarded: bool | None = None
        self._each_alone = False
        self._largest = Largest()
        self._squashed_by, self._unseen = "", False
        self._same_shapes = self.parts[0].replacement.keeps_shape
        if not (self.numpy and self._same_shapes):
            _ = self.score
        run = max(1, self.rows_run)
        one = max(sum(part.x[0].numel() for part in self.parts), -(-self._largest.numbers // run))
        self._any_chunk = chunk is None
        fitting = rows_a_chunk(one, self.parts[0].x.device, self.numpy)
        fitting = getattr(self.model, "rows_at_once", None) or fitting
        self.chunk = fitting if chunk is None else chunk

    @cached_property
    def output(self) -> Tensor:
        """The scores of all classes at the inputs themselves, (batch, classes). Rows that are one row run once."""
        once = self.batch > 1 and self.places is None and runs_once(self.inputs, 1)
        inputs = rows_of(self.inputs, torch.zeros(1, dtype=torch.long)) if once else self.inputs
        found = self.run(map_tensors(inputs, torch.clone))  # the model may write into what it is given
        return found.repeat(self.batch, 1) if once else found

    @cached_property
    def gives_probabilities(self) -> bool:
        """Whether the scores are probabilities already: the model ends in a softmax or sigmoid, the scores of each
        input add up to 1, or those of a model that does not compute with torch functions (NumPy, a scripted module) lie
        between 0 and 1 for all inputs."""
        scores = self.output
        between = self._unseen and bool(((scores >= 0) & (scores <= 1)).all())
        return bool(self._squashed_by) or between or are_probabilities(scores)

    @cached_property
    def kind(self) -> Kind:
        """What the scores are, as far as it can be seen. Probabilities are of labels, each of which is there or not,
        where there are several that do not add up to 1, of a model that does not end in a softmax."""
        if (told := getattr(self.model, "scores_are", None)) is not None:
            kind: Kind = told
            return kind
        if is_regression(self.model):
            return "numbers"
        several = self.output.shape[1] > 1
        if self.gives_probabilities:
            alone = several and self._squashed_by != "softmax" and not are_probabilities(self.output)
            return "labels" if alone else "classes"
        if is_multi_label(self.model):
            return "logits of labels"
        return "logits" if several else "logit"

    @cached_property
    def resolved(self) -> Tensor | Callable[[Tensor], Tensor]:
        """The class of each sample, (batch,), or the given target."""
        output = self.output
        return resolve(self.target, output, self.places)

    @cached_property
    def score(self) -> Tensor:
        """The explained score of the inputs themselves, (batch,)."""
        return pick(self.resolved, self.output)

    # ---- what the methods ask for ----

    def values(self, masks: Tensor | Ordered, rows: Tensor | None = None) -> Tensor:
        """The explained score under each mask, (batch, masks); see `scores`. Samples that are one input, of which
        several classes are explained, are run once under masks that they share."""
        several = self.batch if rows is None else len(rows)
        if several == 1 or not self._alike or not isinstance(masks, Tensor) or masks.dim() != 2:
            return self._under(masks, rows, self._picked).squeeze(2)
        rows = torch.arange(self.batch) if rows is None else rows
        scores = self._under(masks, rows[:1], lambda scores, _: scores)[0]  # (masks, classes)
        wanted = classes_of(self.resolved)[rows.to(self.resolved.device)]  # type: ignore[arg-type,union-attr]
        return scores.index_select(1, wanted).T

    @cached_property
    def _alike(self) -> bool:
        """Whether all samples are one input, and a class of each is explained."""
        random = any(part.replacement.random for part in self.parts)
        cut_alike = all(_same_rows(part.labels) and _same_rows(part.prepared) for part in self.parts)
        if random or self.draws > 1 or not cut_alike or not all(map(_same_rows, tensors_in(self.inputs))):
            return False
        # Asked last, since a target that is not given is found by running the inputs, which others do with masks.
        return self.places is None and isinstance(self.resolved, Tensor)

    def _picked(self, scores: Tensor, samples: Tensor) -> Tensor:
        """The explained score of rows of these samples, (rows, 1)."""
        if not isinstance(self.resolved, Tensor):
            value = pick(self.resolved, scores)[:, None]
            return value if value.is_floating_point() else value.to(scores.dtype)
        return scores.gather(1, classes_of(self.resolved)[samples.to(self.resolved.device), None])

    def picked(self, inputs: Inputs, sample: int) -> Tensor:
        """The explained score of ready inputs that stand for one sample, (rows,)."""
        whose = torch.full((next(tensors_in(inputs)).shape[0],), sample)
        return self._picked(self.run(inputs, whose), whose)[:, 0]

    def scores(self, masks: Tensor | Ordered, rows: Tensor | None = None) -> Tensor:
        """The scores of all classes under each mask, (batch, masks, classes).

        `masks` is (masks, features) for all samples, or (batch, masks, features): True or 1 keeps a feature,
        False or 0 hides it. With `rows` only these samples are run, and `batch` above is their number; a sample
        may be there more than once. `Ordered` masks go along an order.
        """
        return self._under(masks, rows, lambda scores, _: scores)

    def _under(
        self, masks: Tensor | Ordered, rows: Tensor | None, kept: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """What is `kept` of the scores of the rows of some samples under each mask: (batch, masks, …)."""
        rows = torch.arange(self.batch) if rows is None else rows.cpu()
        shapes = ((), (len(rows),))
        if len(masks.shape) not in (2, 3) or masks.shape[-1] != self.many or masks.shape[:-2] not in shapes:
            expected = f"(masks, {self.many}) or ({len(rows)}, masks, {self.many})"
            raise InputError(f"masks have shape {tuple(masks.shape)}; accepted: {expected}")
        if isinstance(masks, Tensor) and masks.dtype != torch.bool and not masks.is_floating_point():
            masks = masks.bool()
        many = masks.shape[-2]
        total = len(rows) * many * self.draws
        drawn = self._background_rows(total)
        result: Tensor | None = None
        for calls in progress(self._batches(masks, rows, total), total, "masked inputs"):
            row, mask = self._where(calls, many)
            samples = rows.index_select(0, row)
            hidden = self._hidden(masks, samples, row, mask, None if drawn is None else drawn[calls])
            scores = self.run(hidden, samples) if "output" in vars(self) else self._first_run(hidden, samples)
            scores = kept(scores, samples)
            if result is None:
                result = scores.new_empty(total, scores.shape[1])
            result[calls.to(scores.device)] = scores
        if result is None:
            none = kept(self.output[:0], rows[:0])
            return none.new_empty(len(rows), 0, none.shape[1])
        found = result.view(len(rows), many, self.draws, -1).mean(2)
        if isinstance(masks, Tensor) and masks.dtype == torch.bool:
            self._compare_whole(masks, rows, found, kept)
        return found

    def _compare_whole(
        self, masks: Tensor, rows: Tensor, found: Tensor, kept: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        """Warn if the inputs themselves, with nothing hidden, are not scored as they were alone."""
        if not self._keeps_whole:
            return
        whole = masks.all(-1).expand(len(rows), masks.shape[-2])
        if self._uneven:  # a mask may hide what a sample does not have
            has = (torch.arange(self.many) < self.counts[rows][:, None]).to(masks.device, torch.float32)
            hidden = (~masks).float() @ (has.T if masks.dim() == 2 else has[:, :, None])
            whole = hidden.T == 0 if masks.dim() == 2 else hidden[:, :, 0] == 0
        whole = whole.to(found.device)
        if not bool(whole.any()):
            return
        row, mask = whole.nonzero().T
        samples = rows.to(row.device)[row].cpu()
        alone = kept(self.output.index_select(0, samples.to(self.output.device)), samples)
        self.compare(alone, found[row, mask], self.output)

    @property
    def _keeps_whole(self) -> bool:
        """Whether an input of which nothing is hidden stays as it is."""
        return all(type(part.replacement).keeps_whole for part in self.parts)

    def masked(self, masks: Tensor, rows: Tensor | None = None) -> Inputs:
        """The inputs themselves, each under its own mask, (batch, features); `rows` are the samples of the
        masks where these are not all."""
        rows = torch.arange(self.batch) if rows is None else rows.cpu()
        drawn = self._background_rows(len(rows))
        row = torch.arange(len(rows))
        return self._hidden(masks[:, None], rows, row, torch.zeros_like(row), drawn)

    def spread(self, effects: Tensor) -> Values:
        """(batch, features) effects in the shape of the inputs, shared equally by the entries of each
        feature."""
        return spread(effects, self.parts, self.inputs)

    def explanation(
        self, method: Any, values: Values, total: Tensor | None, **more: Any
    ) -> Explanation[Any, Any]:
        """The result of a method, with the model calls made so far as its cost."""
        self.check_finite(method, values, "the model's scores are too large here")
        features = self.features_as_cut()
        return self.result(Explanation, method, values, total, self.output, features=features, **more)

    def features_as_cut(self) -> tuple[Features, ...] | None:
        """The features that a person is shown: those that were hidden, whoever cut them."""
        part = self.parts[0]
        rows = part.x.dim() == 2 and (part.x.is_floating_point() or self.numpy)
        if len(self.parts) > 1 or part.x.dim() != 2 or (self.features is None and not rows):
            return None if self.features is None else tuple(self.features)
        labels = part.labels.expand(part.x.shape).tolist()
        if self.features is not None:
            cut = [as_cut(each, row) for each, row in zip(self.features, labels, strict=True)]
            if isinstance(part.way, ColumnGroups):
                cut = [part.way.called(each, now) for each, now in zip(self.features, cut, strict=True)]  # type: ignore[arg-type]
            return tuple(cut)
        if part.each or all(len(set(row)) == len(row) for row in labels):
            return None
        columns = tuple(f"input[{i}]" for i in range(part.x.shape[1]))
        own = tuple(range(len(columns)))
        return tuple(
            as_cut(TabularFeatures(columns, tuple(f"{v:.7g}" for v in x), own), row)
            for x, row in zip(part.x.tolist(), labels, strict=True)
        )

    # ---- hiding ----

    def _background_rows(self, total: int) -> Tensor | None:
        """Which row of the background each model call draws from."""
        rows = (how.rows_of_calls(total, self._random) for how in self._backgrounds)
        return next((found for found in rows if found is not None), None)

    def _where(self, calls: Tensor, many: int) -> tuple[Tensor, Tensor]:
        """The row and the mask of model calls, which are numbered row by row, mask by mask, draw by draw."""
        return calls // (many * self.draws), calls // self.draws % many

    def _batches(self, masks: Tensor | Ordered, rows: Tensor, total: int) -> Iterator[Tensor]:
        """The numbers of the model calls, in chunks that run at once."""
        part = self.parts[0]

        def lengths() -> Tensor:
            row, mask = self._where(torch.arange(total), masks.shape[-2])
            return part.left(masks, row, mask, rows[row]).cpu()

        width = part.x.shape[1] if self._any_chunk and part.x.dim() > 1 else None
        found = part.replacement.batches(total, self.chunk, lengths, width)
        if not getattr(self.model, "shares_beginnings", False) or not self._same_shapes:
            return found
        # Those that begin alike one after the other, as the features do from the first on.
        order = torch.arange(total)
        if isinstance(masks, Tensor) and masks.dim() == 2:
            each = masks[self._where(order, len(masks))[1].to(masks.device)]
            order = torch.from_numpy(np.lexsort(each.cpu().numpy().T[::-1]))
        return (order[calls] for calls in found)

    def _hidden(
        self, masks: Tensor | Ordered, where: Tensor, row: Tensor, mask: Tensor, draw: Tensor | None
    ) -> Inputs:
        """The inputs of the samples `where`, each under one mask of one row of the masks, and with one draw."""
        inputs = rows_of(self.inputs, where)
        for part in self.parts:
            inputs = part.hidden(inputs, masks, row, mask, where, draw)
        if not isinstance(inputs, Mapping) or not self._same_shapes:
            return inputs
        return without_padding(inputs) if self._padding_is_needless else inputs

    @cached_property
    def _padding_is_needless(self) -> bool:
        return is_needless(self.inputs, self.output, self.run)

    # ---- running the model ----

    def run(self, inputs: Inputs, samples: Tensor | None = None) -> Tensor:
        """The (rows, classes) scores of ready inputs; `samples` says whose rows they are, where a target asks."""
        size = next(tensors_in(inputs)).shape[0]
        try:
            return self._run_once(inputs, size, samples)
        except torch.OutOfMemoryError:
            if size == 1:
                raise
        halves = torch.arange(size).tensor_split(2)
        whose = [None if samples is None else samples[half] for half in halves]
        return torch.cat([self.run(rows_of(inputs, h), s) for h, s in zip(halves, whose, strict=True)])

    def _first_run(self, hidden: Inputs, samples: Tensor) -> Tensor:
        """The scores of masked rows, which the inputs themselves run along with."""
        try:
            whose = torch.cat([torch.arange(self.batch), samples])
            both = self.run(torch.cat([self.inputs, hidden]), whose)  # type: ignore[list-item]
        except InputError:  # is it the inputs or what was hidden?
            _ = self.output
            return self.run(hidden, samples)
        self.output = both[: self.batch]
        return both[self.batch :]

    def _called(self, given: Any) -> Any:
        return _call_with_array(self.model, given) if self.numpy else call_model(self.model, given)

    def _alone(self, given: Any, size: int) -> Tensor:
        """The number of each row, of a model that returns one number a call."""
        if not self.numpy:
            return one_by_one(self.model, given)
        return torch.stack([one_number(self._called(given[i : i + 1])) for i in range(size)])

    def _run_once(self, inputs: Inputs, size: int, samples: Tensor | None) -> Tensor:
        guard = Substitution(model=self.model) if self._guarded is not False else None
        first = self._guarded is None
        sizes, last = (self._largest, LastSquash()) if first else (nullcontext(), nullcontext())
        same = same_random_state(inputs)
        met: list[Tensor] = []
        with torch.no_grad(), same as told, self._reading(met), guard or nullcontext(), sizes, last:
            given: Any = inputs.numpy() if self.numpy and isinstance(inputs, Tensor) else inputs
            output = self._alone(given, size) if self._each_alone else self._called(given)
            if size > self.batch == 1 and is_one_number(output):
                self._each_alone = True
                output = self._alone(given, size)
        self.tell_unsteady(told)
        if guard is not None:
            self.tell_unsteady(sorted(guard.met.of_batch))
            output, met = map_tensors(output, guard.current), map_tensors(met, guard.current)
            # Only a model that writes into what outlives its run must be guarded in every later one.
            self._guarded = bool(guard.writes) or guard.met.spared or is_training(self.model)
        if isinstance(output, np.ndarray | list | float) or is_frame(output) or is_series(output):
            output = tensor_of("what the model returned", output)
        try:
            scores = self.read_scores(
                output, met, size, samples, "sample" if self.rows_run == 0 else "masked row"
            )
        except InputError as error:
            raise error if self.rows_run == 0 else InputError(f"with features hidden, {error}") from None
        if isinstance(last, LastSquash):
            self._squashed_by, self._unseen = last.name if last.gave(scores) else "", not last.seen
        self.ran(size)
        return scores

    def _reading(self, met: list[Tensor]) -> AbstractContextManager[None]:
        """Gather what the layer of an explained neuron returns."""

        def take(name: str, module: torch.nn.Module, tensor: Tensor) -> Tensor:
            met.append(samples_first(module, tensor))
            return tensor

        return nullcontext() if self.neuron is None else taking(self.model, (self.neuron.layer,), take)


def _same_rows(tensor: Tensor) -> bool:
    return bool((tensor == tensor[:1]).all())


def _drawn_together(replacements: Sequence[Replacement]) -> list[Replacement]:
    """The replacements, those first that say which row all inputs draw from. InputError where they do not agree."""
    several = [how for how in replacements if isinstance(how, Background) and len(how.data) > 1]
    if len({(len(how.data), how.many) for how in several}) > 1:
        rows = [len(how.data) for how in several]
        raise InputError(
            f"the backgrounds of the inputs have {rows} rows; accepted: as many for each, since they are drawn "
            "together, or one row"
        )
    return [*several, *replacements]


def _call_with_array(model: Model, array: np.ndarray) -> Any:
    """What a function of arrays returns; an error of its own is raised with a note of what it was called with."""
    try:
        return model(array)
    except InputError:
        raise
    except Exception as error:
        hint = "; a single row is x[None]" if array.ndim == 1 else ""
        error.add_note(
            f"the model was called with an array of shape {array.shape} and type {array.dtype}{hint}"
        )
        raise
