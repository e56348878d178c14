"""What every test of explanations promises. A test is checked here by being listed in `apportion.evaluation`.

What a test cannot be run on is declared in `CANNOT` with the reason; it must then raise an InputError.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import apportion as ap
import small
from apportion.core.features import TextFeatures
from apportion.core.registry import from_repr
from apportion.errors import InputError
from apportion.names import TESTS
from apportion.results.scores import Scores

# Settings under which a test is quick on the small models; without an entry it is tested as it is.
QUICK = {
    "roar": "ROAR(shares=(0.5,), epochs=2)",
    "kar": "ROAR(shares=(0.5,), keep=True, epochs=2)",
    "f-fidelity": "FFidelity(epochs=2)",
    "idsds": "IDSDS(epochs=2)",
}

# What a test cannot be run on: the small models → why. It must then raise an InputError.
CANNOT = {
    "road": ("mlp lstm exported bert", "it fills in pixels"),
    "roar": ("exported", "an exported program cannot be trained"),
    "kar": ("exported", "an exported program cannot be trained"),
    "shuffle-tvd": ("mlp cnn lstm exported bert", "a map must weight the states of the model"),
}

# Tests whose score of a sample depends on the others → why.
TRAINS = dict.fromkeys(("roar", "kar", "f-fidelity", "idsds"), "a model is trained on the batch")

# Tests that cannot tell the exact map from a reference, and why.
BLIND = {
    "parameter-randomisation": "asks whether the method reacts to the weights, not whether it is right",
    "random-logit": "asks whether the method reacts to the class, not whether it is right",
    "max-sensitivity": "a map that never changes is best",
    "local-lipschitz": "a map that never changes is best",
    "sparseness": "looks at the map only",
    "complexity": "looks at the map only",
    "effective-complexity": "looks at the map only",
    "shuffle-tvd": "asks how much the decision depends on the map, not whether it is right",
}

# Tests in which the exact map beats the reversed one, but is not the best of all maps → why.
NOT_THE_BEST = {
    "road": "what a pixel is replaced by depends on which others are hidden",
    "soft-comprehensiveness": "a random draw of entries, by shares of the largest value",
    "soft-sufficiency": "a random draw of entries, by shares of the largest value",
    "roar": "a model is trained on few samples",
    "kar": "a model is trained on few samples",
    "f-fidelity": "the map is of the model before it was trained on",
}

every_test = pytest.mark.parametrize("name", list(TESTS))


def made_test(name: str) -> Any:
    return from_repr(QUICK.get(name, name), "test")


def able(name: str, model: str) -> bool:
    return model not in CANNOT.get(name, ("",))[0].split()


@cache
def made(model: str) -> small.Made:
    return small.SMALL[model]()


@cache
def explained(model: str) -> Any:
    return ap.InputXGradient()(*made(model))


def scored(name: str, network: Any, inputs: Any, explanation: Any, **known: Any) -> Scores:
    batch = len(small.tensors(inputs)[0])
    return made_test(name)(network, inputs, explanation, labels=torch.arange(batch) % 2, **known)


def same(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9, equal_nan=True)


# ---- the result ----


@every_test
@pytest.mark.parametrize("model", list(small.SMALL))
def test_result(name: str, model: str) -> None:
    network, inputs = made(model)
    explanation = explained(model)
    before, state = [t.clone() for t in small.tensors(inputs)], small.fingerprint(network)
    if able(name, model):
        scores = scored(name, network, inputs, explanation)
        assert scores.values.shape == (3,)
        assert scores.test == repr(made_test(name))
        assert scores.higher_is_better == made_test(name).higher_is_better
        assert scores.cost.seconds > 0
        assert scores.n > 0
        assert Scores.from_dict(scores.to_dict()) == scores
    else:
        with pytest.raises(InputError):
            scored(name, network, inputs, explanation)
    assert small.fingerprint(network) == state
    for tensor, old in zip(small.tensors(inputs), before, strict=True):
        assert torch.equal(tensor, old)


@every_test
@pytest.mark.parametrize("model", list(small.SMALL))
def test_a_score_does_not_depend_on_the_batch(name: str, model: str) -> None:
    if not able(name, model) or name in TRAINS:
        pytest.skip(TRAINS.get(name) or CANNOT[name][1])
    network, inputs = made(model)
    explanation = explained(model)
    whole = scored(name, network, inputs, explanation).values
    same(scored(name, network, inputs, explanation, chunk=2).values, whole)
    for index in range(3):
        one = small.take(inputs, slice(index, index + 1))
        same(scored(name, network, one, explanation[index]).values, whole[index : index + 1])


@every_test
def test_same_call_same_scores(name: str) -> None:
    model = "cnn" if able(name, "cnn") else pytest.skip(CANNOT[name][1])
    first, second = (scored(name, *made(model), explained(model)) for _ in range(2))
    assert torch.equal(first.values.nan_to_num(9), second.values.nan_to_num(9))


@every_test
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtypes(name: str, dtype: torch.dtype) -> None:
    if not able(name, "cnn"):
        pytest.skip(CANNOT[name][1])
    network, x = small.cnn()
    network, x = network.to(dtype), x.to(dtype)
    explanation = ap.InputXGradient()(network, x)
    assert scored(name, network, x, explanation).values.dtype == torch.float64


@every_test
@pytest.mark.parametrize("shape", [(3, 7, 5), (1, 5, 9), (4, 6, 6)], ids=str)
def test_odd_sizes_and_channels(name: str, shape: tuple[int, ...]) -> None:
    if not able(name, "cnn"):
        pytest.skip(CANNOT[name][1])
    model = (
        nn.Sequential(nn.Conv2d(shape[0], 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)).double().eval()
    )
    x = torch.randn(2, *shape, dtype=torch.float64)
    model(x)
    assert scored(name, model, x, ap.InputXGradient()(model, x)).n > 0


@every_test
def test_repr_rebuilds_the_test(name: str) -> None:
    for test in (from_repr(name, "test"), made_test(name)):
        assert from_repr(repr(test), "test") == test
        assert hash(from_repr(repr(test), "test")) == hash(test)
    assert test.higher_is_better in (True, False, None)
    assert test.blind == (name in BLIND)
    with pytest.raises((AttributeError, TypeError)):
        test.anything = 1


# ---- maps ----


@every_test
def test_maps_that_are_refused(name: str) -> None:
    model = "cnn" if able(name, "cnn") else pytest.skip(CANNOT[name][1])
    network, x = made(model)
    values = explained(model).values
    for wrong, message in (
        (values[:, :, :-1], "the map has shape"),
        (values[:2], "the map has shape"),
        (values.masked_fill(torch.arange(3)[:, None, None, None] == 1, torch.nan), r"samples \[1\]"),
        ({"x": values}, "'x'"),
    ):
        explanation = ap.Explanation(**{**vars(explained(model)), "values": wrong})
        with pytest.raises(InputError, match=message):
            scored(name, network, x, explanation)


@every_test
@pytest.mark.parametrize("kind", ["constant", "zero", "all negative", "tiny"])
def test_maps_that_say_little(name: str, kind: str) -> None:
    model = "cnn" if able(name, "cnn") else pytest.skip(CANNOT[name][1])
    values = explained(model).values
    flat = {
        "constant": torch.ones_like(values),
        "zero": torch.zeros_like(values),
        "all negative": -values.abs() - 1,
        "tiny": values * 1e-200,
    }[kind]
    scores = scored(name, *made(model), ap.Explanation(**{**vars(explained(model)), "values": flat}))
    assert scores.n == 3 or scores.undefined or name in TRAINS


def test_maps_without_channels_or_without_a_method() -> None:
    network, x = made("cnn")
    values = explained("cnn").values
    target = explained("cnn").target
    expected = ap.PixelFlipping()(network, x, explained("cnn")).values
    for same_map in (values, values.sum(1), values.sum(1, keepdim=True)):
        same(ap.PixelFlipping()(network, x, same_map, target).values, expected)
    with pytest.raises(InputError, match="RandomLogit explains again, so it needs an Explanation"):
        ap.RandomLogit()(network, x, values)


# ---- the exact map is best, the reversed one is worst ----


def sign_model(weights: Tensor) -> nn.Module:
    """Two classes, whose scores are w·x and −w·x: the map of the predicted class is known."""
    head = nn.Linear(len(weights), 2, bias=False).double()
    head.weight.data = torch.stack([weights, -weights])
    return nn.Sequential(nn.Flatten(), head).eval()


class Sum(nn.Module):
    """Token ids → the sum of a number for each, as two opposite scores; id 0 has none."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 1, padding_idx=0).double()

    def forward(self, ids: Tensor) -> Tensor:
        total = self.embedding(ids).sum(1)
        return torch.cat([total, -total], 1)


def linear_case(kind: str, many: int = 12) -> tuple[Any, Any, Tensor, Any]:
    """A model, its inputs, the exact map of the predicted class, and the features."""
    generator = small.seeded(11)
    if kind == "text":
        torch.manual_seed(3)
        model, ids = Sum().eval(), torch.randint(1, 40, (many, 9), generator=generator)
        ids[0, 5:] = 0
        words = [tuple(i if t else None for i, t in enumerate(row)) for row in ids.tolist()]
        features = tuple(TextFeatures("", ("",) * 9, ((0, 0),) * 9, row) for row in words)
        sign = model(ids).argmax(1).mul(-2).add(1)
        exact = (model.embedding(ids)[..., 0] * sign[:, None]).detach()
        return model, ids, exact, features
    shape = {"table": (9,), "image": (3, 9, 7)}[kind]
    numel = int(torch.tensor(shape).prod())
    model = sign_model(torch.randn(numel, generator=generator, dtype=torch.float64))
    x = torch.randn(many, *shape, generator=generator, dtype=torch.float64)
    contributions = x.flatten(1) * model[1].weight[0].detach()
    sign = contributions.sum(1).sign()
    return model, x, (contributions * sign[:, None]).view(x.shape), None


TRAINING = {
    "roar": "ROAR(shares=(0.5,), epochs=20, rate=0.02)",
    "kar": "ROAR(shares=(0.5,), keep=True, epochs=20, rate=0.02)",
}


@every_test
@pytest.mark.parametrize("kind", ["table", "text", "image"])
def test_the_exact_map_is_best_and_the_reversed_worst(name: str, kind: str) -> None:
    if name in BLIND:
        pytest.skip(BLIND[name])
    if name == "road" and kind != "image":
        pytest.skip(CANNOT[name][1])
    if name == "idsds":
        pytest.skip("explains again, so it takes no tensors; see evaluation/by_training/test_in_domain.py")
    if name in TRAINING:
        pytest.skip("masks of one sample's own tell its label; see test_roar_sees_which_column_matters")
    model, inputs, exact, features = linear_case(kind, 200 if name in TRAINING else 12)
    test = from_repr(TRAINING.get(name, name), "test")
    labels = model(inputs).argmax(1)

    def score(values: Tensor) -> Tensor:
        return test(model, inputs, values, labels=labels, features=features).oriented

    best, worst = score(exact), score(-exact)
    kept = ~best.isnan() & ~worst.isnan()
    assert kept.any()
    if name in NOT_THE_BEST:
        assert best[kept].mean() > worst[kept].mean() + 0.05
        return
    assert bool((best >= worst)[kept].all())
    for seed in range(5):
        values = torch.randn(exact.shape, generator=small.seeded(seed), dtype=torch.float64)
        other = score(values)
        assert bool((best >= other - 1e-9)[kept].all())
        assert best[kept].mean() > other[kept].mean()
        if name != "completeness":  # a sum may be further off than the negative one
            assert bool((worst <= other + 1e-9)[kept].all())


# ---- what others would get wrong ----


class Failing(nn.Module):
    """Raises when it has been called often enough."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = [after]

    def forward(self, x: Tensor) -> Tensor:
        self.left[0] -= 1
        if self.left[0] < 0:
            raise RuntimeError("from the middle of the model")
        return x


@every_test
@pytest.mark.parametrize("after", [1, 2])
def test_untouched_after_an_exception(name: str, after: int) -> None:
    if not able(name, "cnn"):
        pytest.skip(CANNOT[name][1])
    network, x = small.cnn()
    explanation = ap.InputXGradient()(network, x)
    network.insert(2, failing := Failing(10**9))
    state = small.fingerprint(network)
    failing.left[0] = after
    with suppress(RuntimeError):
        scored(name, network, x, explanation)
    assert small.fingerprint(network) == state


@every_test
def test_labels_of_one_class_or_none(name: str) -> None:
    if name not in ("roar", "kar"):
        pytest.skip("it does not train anew")
    network, x = made("mlp")
    with pytest.raises(InputError, match="needs the true classes"):
        made_test(name)(network, x, explained("mlp"))
    with pytest.raises(InputError, match="two classes at least"):
        made_test(name)(network, x, explained("mlp"), labels=torch.zeros(3, dtype=torch.long))
    with pytest.raises(InputError, match="class numbers, one per sample"):
        made_test(name)(network, x, explained("mlp"), labels=["a", "b", "c"])
    with pytest.raises(InputError, match="3 class numbers"):
        made_test(name)(network, x, explained("mlp"), labels=torch.zeros(2, dtype=torch.long))
    with pytest.raises(InputError, match="labels are from 0 to 3; accepted: 0 to 2"):
        made_test(name)(network, x, explained("mlp"), labels=torch.tensor([0, 3, 1]))


@pytest.mark.parametrize(
    "text",
    [
        "PixelFlipping(order='up')",
        "PixelFlipping(steps=0)",
        "PixelFlipping(of='logit')",
        "PixelFlipping(normalised=True, order='lerf')",
        "PixelFlipping(beam=0)",
        "Deletion(steps=0)",
        "deletion(steps='3')",
        "comprehensiveness(shares=0.1)",
        "Insertion(steps=-1)",
        "DeletionRate(block=0)",
        "ROAD(shares=())",
        "ROAD(order='up')",
        "Comprehensiveness(shares=(0.0,))",
        "Sufficiency(shares=(1.5,))",
        "SoftSufficiency(samples=0)",
        "Infidelity(perturbation='none')",
        "Infidelity(noise=0.0)",
        "Infidelity(samples=0)",
        "MaxSensitivity(radius=0.0)",
        "LocalLipschitz(samples=0)",
        "ParameterRandomisation(way='up')",
        "RandomLogit(similarity='up')",
        "EffectiveComplexity(threshold=1.0)",
        "ROAR(epochs=0)",
        "ROAR(held_out=1.0)",
        "ROAR(seeds=())",
        "FFidelity(test=Complexity())",
        "PixelFlipping(steps=True)",
        "DeletionRate(block='4')",
        "Comprehensiveness(shares=('0.1',))",
        "Infidelity(noise='loud')",
        "Infidelity(seed=-1)",
        "SoftComprehensiveness(samples=2.5)",
        "MaxSensitivity(seed=-1)",
        "LocalLipschitz(radius='near')",
        "RandomLogit(seed=-1)",
        "ShuffleTVD(permutations='100')",
        "ROAR(rate='fast')",
        "ROAR(seeds=3)",
        "ROAR(seeds=(-1,))",
        "FFidelity(share=0.0)",
        "FFidelity(seed=1.5)",
        "NoSuchTest()",
        "IoU()",  # asks for what a person marked
        "pixel-fliping",
    ],
)
def test_wrong_settings_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        from_repr(text, "test")


@pytest.mark.parametrize("share", [0.0, "half"])
def test_wrong_settings_of_plausibility_are_refused(share: Any) -> None:
    with pytest.raises(InputError, match="share is"):
        ap.IoU(share=share)
