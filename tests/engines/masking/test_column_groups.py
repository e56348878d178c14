"""Columns that are named together are one feature, with one bar and one name."""

from __future__ import annotations

import pytest

import apportion as ap
from apportion.core.registry import from_repr
from apportion.errors import InputError

pandas = pytest.importorskip("pandas")


def frame() -> object:
    return pandas.DataFrame(
        {
            "age": [1.0, 2.0, 3.0, 5.0],
            "city": ["a", "b", "a", "c"],
            "zip": [1, 2, 1, 3],
            "one": [0.0, 1.0, 0.0, 2.0],
        }
    )


def score(rows: object) -> object:
    return (rows.age * (rows.city == "a") + rows.zip * rows.age + rows.one).to_numpy()  # type: ignore[attr-defined]


def test_a_group_is_one_player_by_brute_force() -> None:
    model, rows = ap.Tabular(score, frame()), frame()
    method = ap.KernelSHAP(partition={"place": ["city", "zip"], "rest": ["one"]})
    explained = ap.explain(model, rows.iloc[[2]], method)  # type: ignore[attr-defined]

    def worth(age: bool, place: bool, one: bool) -> float:
        mixed = rows.copy()  # type: ignore[attr-defined]
        for shown, names in ((age, ["age"]), (place, ["city", "zip"]), (one, ["one"])):
            for name in names if shown else ():
                mixed[name] = rows[name].iloc[2]  # type: ignore[index]
        return float(score(mixed).mean())  # type: ignore[attr-defined]

    place = sum(
        weight * (worth(a, True, o) - worth(a, False, o))
        for a, o, weight in (
            (False, False, 1 / 3),
            (True, False, 1 / 6),
            (False, True, 1 / 6),
            (True, True, 1 / 3),
        )
    )
    top = dict(explained.top(3))
    assert top["place = a + 1"] == pytest.approx(place)
    assert set(explained.features[0].columns) == {"age", "place", "one"}
    assert float(explained.values[0, [1, 2]].sum()) == pytest.approx(place)


def test_groups_are_settings_that_can_be_read_back() -> None:
    method = ap.KernelSHAP(partition={"place": ["city", "zip"]})
    assert from_repr(repr(method)) == method
    assert from_repr("KernelSHAP(partition={'place': ['city', 'zip']})") == method


def test_one_hot_blocks_are_found() -> None:
    made = pandas.get_dummies(frame(), columns=["city"])
    made["is_young"], made["is_old"] = 1, 1
    assert ap.ColumnGroups.of_one_hot(made).groups == {"city": ["city_a", "city_b", "city_c"]}


@pytest.mark.parametrize(
    ("groups", "line"),
    [
        ({"place": ["city", "zap"]}, "no column 'zap' to be grouped; nearest: zip"),
        ({"place": ["city"], "other": ["city"]}, "'city' is named twice"),
    ],
)
def test_groups_that_do_not_fit_are_named(groups: dict[str, list[str]], line: str) -> None:
    with pytest.raises(InputError, match=line):
        ap.explain(ap.Tabular(score, frame()), frame().iloc[[0]], ap.Occlusion(partition=groups))  # type: ignore[attr-defined]
