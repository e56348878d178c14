"""Tests of explanations by name, and how to get one from its repr."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import import_module
from typing import Any

from apportion.errors import InputError

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

# Agreement with what a person marked: another question, called as `measure(explanation, truth)`.
PLAUSIBILITY = {
    "iou": "plausibility:IoU",
    "token-f1": "plausibility:TokenF1",
    "auprc": "plausibility:AUPRC",
    "pointing-game": "plausibility:PointingGame",
    "relevance-mass": "plausibility:RelevanceMass",
    "relevance-rank": "plausibility:RelevanceRank",
}


@cache
def named_test(name: str) -> Any:
    """The class of a test by its short name ("deletion-rate") or its class name ("DeletionRate"), in any case."""
    places = TESTS | PLAUSIBILITY
    by_class = {place.split(":")[1].lower(): short for short, place in places.items()}
    wanted = name.lower().replace("_", "-")
    short = by_class.get(wanted, wanted)
    if short not in places:
        near = difflib.get_close_matches(wanted, [*places, *by_class], 1, 0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"unknown test {name!r}; {hint}accepted: {', '.join(TESTS)}")
    module, attribute = places[short].split(":")
    return getattr(import_module(f"apportion.faithfulness.{module}"), attribute)


def from_repr(text: str) -> Any:
    """A test from its short name or its repr. Only literals and the names of tests and replacements are read.

    >>> from_repr("deletion-rate").higher_is_better
    False
    >>> from_repr("ROAD(shares=(0.5,))").shares
    (0.5,)
    """
    from apportion import methods

    return methods.from_repr(text, named_test) if "(" in text else named_test(text.strip())()
