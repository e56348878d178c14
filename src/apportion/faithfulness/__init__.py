"""Tests of explanations by name, and how to get one from its repr."""

from __future__ import annotations

from typing import Any

from apportion import methods
from apportion.methods import class_named

# Short name → where the class is. A new test is one file and one line here.
TESTS = {
    "pixel-flipping": "flipping:PixelFlipping",
    "deletion": "flipping:Deletion",
    "insertion": "flipping:Insertion",
    "deletion-rate": "flipping:DeletionRate",
    "road": "flipping:ROAD",
    "comprehensiveness": "rationales:Comprehensiveness",
    "sufficiency": "rationales:Sufficiency",
    "soft-comprehensiveness": "soft:SoftComprehensiveness",
    "soft-sufficiency": "soft:SoftSufficiency",
    "infidelity": "fidelity:Infidelity",
    "completeness": "fidelity:Completeness",
    "shuffle-tvd": "shuffle:ShuffleTVD",
    "roar": "retraining:ROAR",
    "kar": "retraining:KAR",
    "f-fidelity": "retraining:FFidelity",
    "parameter-randomisation": "randomisation:ParameterRandomisation",
    "random-logit": "randomisation:RandomLogit",
    "max-sensitivity": "sensitivity:MaxSensitivity",
    "local-lipschitz": "sensitivity:LocalLipschitz",
    "sparseness": "complexity:Sparseness",
    "complexity": "complexity:Complexity",
    "effective-complexity": "complexity:EffectiveComplexity",
}


def named_test(name: str) -> Any:
    """The class of a test by its short name ("deletion-rate") or its class name ("DeletionRate")."""
    return class_named(name, TESTS, __name__, "test")


def from_repr(text: str) -> Any:
    """A test from its short name or its repr. Only literals and the names of tests and replacements are read.

    >>> from_repr("deletion-rate").higher_is_better
    False
    >>> from_repr("ROAD(shares=(0.5,))").shares, from_repr("deletion(steps=3)").steps
    ((0.5,), 3)
    """
    name, opened, settings = text.strip().partition("(")
    made = named_test(name.strip())
    return methods.from_repr(f"{made.__name__}({settings}", named_test) if opened else made()
