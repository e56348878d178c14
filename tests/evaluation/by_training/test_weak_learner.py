"""The weak learner on a task that one token decides, and maps that are hard to learn with."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from apportion.errors import InputError
from apportion.evaluation.by_training.weak_learner import (
    WeakLearner,
    f1,
    normalise_maps,
    random_maps,
    uniform_maps,
)
from apportion.learning.documents import Documents
from apportion.learning.training import Training, scores_by_model

WORDS, LENGTH = 40, 30


def one_token_decides(texts: int, seed: int) -> Documents:
    """Texts in which the word 2 or 3 at one place is the class; half of the other words are 2 or 3 by chance, so
    that only who knows the place can tell."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, WORDS, (texts, LENGTH), generator=random)
    labels = torch.arange(texts) % 2
    place = torch.randint(0, LENGTH, (texts,), generator=random)
    crowd = torch.randint(2, 4, (texts, LENGTH // 2), generator=random)
    ids[:, : LENGTH // 2] = crowd
    ids[torch.arange(texts), place] = labels + 2
    exact = torch.zeros(texts, LENGTH)
    exact[torch.arange(texts), place] = 1.0
    return Documents(tuple(ids), labels, tuple(exact))


TRAIN, VALID, TEST = (one_token_decides(n, seed) for seed, n in enumerate((400, 100, 200)))
LEARNER = WeakLearner(embedding=16, hidden=16, seeds=(0,), training=Training(epochs=5, rate=1e-2))


def reverse(documents: Documents) -> Documents:
    """The order of the tokens turned round: the one that decides has the least weight."""
    return replace(documents, maps=tuple(1 - m for m in documents.maps or ()))


@pytest.fixture(scope="module")
def scores() -> dict[str, float]:
    ways = {
        "exact": lambda d: d,
        "uniform": uniform_maps,
        "random": random_maps,
        "reversed": reverse,
    }
    return {
        name: LEARNER(*(way(part) for part in (TRAIN, VALID, TEST)), words=WORDS).mean  # type: ignore[misc, no-untyped-call]
        for name, way in ways.items()
    }


def test_the_exact_map_wins(scores: dict[str, float]) -> None:
    assert scores["exact"] > 0.98
    assert max(scores[name] for name in ("uniform", "random", "reversed")) < 0.75


def test_maps_are_divided_by_the_norm_and_the_epoch_kept_is_the_one_asked_for() -> None:
    maps = normalise_maps(TEST, 2).maps
    assert maps is not None
    assert float(maps[0].square().sum()) == pytest.approx(1)
    learner = replace(LEARNER, training=Training(epochs=3, rate=1e-2, keep="last"))
    scores, (model,) = learner.learn(TRAIN, VALID, TEST, WORDS)
    loss = torch.nn.functional.cross_entropy(scores_by_model(model, normalise_maps(VALID)), VALID.labels)
    (said,) = scores.notes["learners"]
    assert (said["kept"], float(loss)) == (2, pytest.approx(said["validation_loss"][2]))
    assert repr(Training()) == "Training(epochs=8, batch=32, rate=0.001, decay=1e-05, patience=None, seed=0)"
    assert "norm" not in repr(LEARNER)
    with pytest.raises(InputError, match="norm is 3; accepted: 1 or 2"):
        WeakLearner(norm=3)
    with pytest.raises(InputError, match="keep is 'first'; accepted: 'best' or 'last'"):
        Training(keep="first")  # type: ignore[arg-type]


def test_says_what_each_seed_did() -> None:
    learner = replace(LEARNER, seeds=(0, 1), training=Training(epochs=2))
    scores = learner(TRAIN, VALID, TEST, WORDS)
    assert (scores.each, scores.n, scores.higher_is_better) == ("seed", 2, True)
    learners = scores.notes["learners"]
    assert [entry["seed"] for entry in learners] == [0, 1]
    assert all(len(entry["validation_loss"]) == 2 for entry in learners)
    again = learner(TRAIN, VALID, TEST, WORDS)
    assert again.values.tolist() == scores.values.tolist()


def test_a_map_and_its_negative_teach_alike() -> None:
    """A linear layer follows the map, so the sign of a whole map is one more weight to learn."""
    turned = [replace(part, maps=tuple(-m for m in part.maps or ())) for part in (TRAIN, VALID, TEST)]
    assert LEARNER(*turned, words=WORDS).mean > 0.98


@pytest.mark.parametrize("value", [0.0, -3.0, 5.0])
def test_constant_maps_are_defined(value: float) -> None:
    constant = [
        replace(p, maps=tuple(torch.full_like(m, value) for m in p.maps or ())) for p in (TRAIN, VALID, TEST)
    ]
    learner = WeakLearner(8, 8, seeds=(0,), training=Training(epochs=1))
    assert 0 <= learner(*constant, words=WORDS).mean <= 1
    maps = normalise_maps(constant[0]).maps
    assert maps is not None
    assert float(maps[0].abs().sum()) == pytest.approx(float(value != 0))


def test_the_global_random_state_is_as_it_was() -> None:
    before = torch.get_rng_state()
    WeakLearner(4, 4, seeds=(0,), training=Training(epochs=1))(TRAIN, VALID, TEST, WORDS)
    assert torch.equal(before, torch.get_rng_state())


def test_refuses_what_cannot_be_learned() -> None:
    one_class = TRAIN.select(range(0, 400, 2))
    with pytest.raises(InputError, match="200 training texts are not of at least two classes"):
        LEARNER(one_class, VALID, TEST, WORDS)
    with pytest.raises(InputError, match="have no maps"):
        LEARNER(replace(TRAIN, maps=None), VALID, TEST, WORDS)
    with pytest.raises(InputError, match=r"seeds is \(\)"):
        WeakLearner(seeds=())


def test_f1_of_class_one_or_the_mean_of_many() -> None:
    assert f1(torch.tensor([1, 1, 0, 0]), torch.tensor([1, 0, 0, 0])) == pytest.approx(2 / 3)
    assert f1(torch.tensor([0, 0]), torch.tensor([1, 1])) == 0
    assert f1(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1])) == pytest.approx((1 + 2 / 3 + 0) / 3)
