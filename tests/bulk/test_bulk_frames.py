"""Frames keep their index as ids, and files without a header have numbers for columns."""

import pandas
import pytest

import apportion as ap
from apportion import InputError
from apportion.domains.tabular import parse_csv

LENGTH = ap.RawText().classifier(lambda texts: [float(len(text)) for text in texts], name="length")


def explained(data, folder, **more):
    run = ap.explain_dataset(LENGTH, data, "occlusion", folder, progress=False, **more)
    assert run.failed == 0
    return {row["id"]: row["output"] for row in run.rows()}


def test_the_index_of_a_frame_is_its_ids(tmp_path):
    frame = pandas.DataFrame(
        {"text": ["one", "three", "eleven"], "key": ["x", "y", "z"]}, index=["a", 7, "c"]
    )
    right = {"a": [3.0], "7": [5.0], "c": [6.0]}
    assert explained(frame, tmp_path / "frame") == right
    assert explained(frame.text, tmp_path / "column") == right
    assert explained(frame[::-1], tmp_path / "turned") == right
    assert list(explained(frame, tmp_path / "named", id_column="key")) == ["x", "y", "z"]
    twice = pandas.concat([frame, frame])
    assert list(explained(twice, tmp_path / "twice")) == ["0", "1", "2", "3", "4", "5"]


def test_columns_of_a_file_without_a_header_are_numbers(tmp_path):
    bare, named = tmp_path / "bare.csv", tmp_path / "named.csv"
    bare.write_text('3,"Fears, for T N",w1\n3,Fears,w2\n4,a race in space,w3\n')
    named.write_text("0,1,2\n3,Fears,w1\n")
    assert explained(bare, tmp_path / "a", column="1", id_column="2") == {
        "w1": [14.0],
        "w2": [5.0],
        "w3": [15.0],
    }
    assert explained(named, tmp_path / "b", column="1") == {"0": [5.0]}
    assert parse_csv(bare, by_number=True)[0] == ["0", "1", "2"]
    with pytest.raises(InputError, match="without a header, the number of the column, from 0"):
        explained(bare, tmp_path / "c")
    with pytest.raises(InputError, match="there is no column '9'; name one of: 0, 1, 2"):
        explained(bare, tmp_path / "d", column="9")
