"""A run that was damaged between two commands: what is wrong is one line that names the file, or it is made again to
the same bytes; nothing is read as if it were right."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import apportion as ap
from apportion.bulk import reading
from apportion.bulk._manifest import Manifest
from apportion.errors import InputError

DATA = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
SHARD = "shards/000001"


def explained(folder: Path, table: str = "jsonl", **settings) -> ap.Run:
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    return ap.explain_dataset(
        model, DATA, "inputxgradient", folder, batch=4, shard=10, table=table, progress=False, **settings
    )


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def flipped(at: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        found = bytearray(path.read_bytes())
        found[at] ^= 1
        path.write_bytes(bytes(found))

    return damage


def said(text: bytes | str) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(text if isinstance(text, bytes) else text.encode())


def replaced(old: str, new: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return damage


def with_entry(name: str, value: object) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))

    return damage


def cut(count: int) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(path.read_bytes()[:count])


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def swapped(path: Path) -> None:
    other = path.parent.parent / "000002" / path.name
    path.write_bytes(other.read_bytes())


def a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("x")


RECORD = f"{SHARD}/shard.json"
# What `explain_dataset` makes again, to the same bytes.
OF_A_SHARD: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a bit of the maps": (f"{SHARD}/maps.safetensors", flipped(-3)),
    "a bit in the head of the maps": (f"{SHARD}/maps.safetensors", flipped(2)),
    "maps cut": (f"{SHARD}/maps.safetensors", cut(-5)),
    "maps empty": (f"{SHARD}/maps.safetensors", said("")),
    "maps longer": (f"{SHARD}/maps.safetensors", longer),
    "maps gone": (f"{SHARD}/maps.safetensors", Path.unlink),
    "maps of another shard": (f"{SHARD}/maps.safetensors", swapped),
    "a bit of the rows": (f"{SHARD}/rows.jsonl", flipped(5)),
    "a bit of a number": (f"{SHARD}/rows.jsonl", flipped(-30)),
    "rows cut": (f"{SHARD}/rows.jsonl", cut(-5)),
    "rows gone": (f"{SHARD}/rows.jsonl", Path.unlink),
    "rows of another shard": (f"{SHARD}/rows.jsonl", swapped),
    "rows that are lists": (f"{SHARD}/rows.jsonl", said("[]\n" * 10)),
    "rows nested": (f"{SHARD}/rows.jsonl", said("[" * 100_000)),
    "the shard gone": (SHARD, shutil.rmtree),
    "a file in the place of the shard": (SHARD, a_file),
    "record cut": (RECORD, said('{"run": "')),
    "record empty": (RECORD, said("")),
    "record gone": (RECORD, Path.unlink),
    "record a list": (RECORD, said("[]")),
    "record null": (RECORD, said("null")),
    "record nested": (RECORD, said("[" * 100_000)),
    "record without its run": (RECORD, replaced('"run"', '"rum"')),
    "a row more": (RECORD, replaced('"rows": 10', '"rows": 11')),
    "many rows more": (RECORD, replaced('"rows": 10', '"rows": 90')),
    "a row less": (RECORD, replaced('"rows": 10', '"rows": 9')),
    "rows in words": (RECORD, replaced('"rows": 10', '"rows": "10"')),
    "rows below zero": (RECORD, replaced('"rows": 10', '"rows": -10')),
    "an error more": (RECORD, replaced('"errors": 0', '"errors": 1')),
    "no files": (RECORD, with_entry("files", {})),
    "files null": (RECORD, with_entry("files", None)),
    "a file of elsewhere": (RECORD, with_entry("files", {"../../manifest.json": {"bytes": 1, "sha256": ""}})),
    "another shard's number": (RECORD, replaced('"shard": 1', '"shard": 2')),
    "record of another shard": (RECORD, swapped),
    "another checksum": (RECORD, with_entry("checksum", "0" * 64)),
    "bytes that are no text": (RECORD, said(b"\xff\xfe\x00")),
}
# What says itself which file is damaged, and where.
OF_THE_MANIFEST: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut": (cut(100), "is not the manifest of a run"),
    "empty": (said(""), "is not the manifest of a run"),
    "a list": (said("[]"), "is not the manifest of a run"),
    "nested": (said("[" * 100_000), "nested too deeply"),
    "newer": (replaced('"schema": 1', '"schema": 2'), "newer"),
    "larger shards": (replaced('"shard": 10', '"shard": 20'), "settings: they are not those"),
    "fewer inputs": (replaced('"inputs": 40', '"inputs": 30'), "settings: they are not those"),
    "no shards": (replaced('"shard": 10', '"shard": 0'), "settings.shard"),
    "shards null": (replaced('"shard": 10', '"shard": null'), "settings.shard"),
    "inputs in words": (replaced('"inputs": 40', '"inputs": "40"'), "settings.inputs"),
    "no settings": (with_entry("settings", {}), "settings.method"),
    "settings null": (with_entry("settings", None), "settings"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return explained(tmp_path_factory.mktemp("whole") / "run").folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    reading._rows.cache_clear()
    reading._maps.cache_clear()
    return Path(shutil.copytree(whole, tmp_path / "run"))


@pytest.mark.parametrize("name", OF_A_SHARD)
def test_a_damaged_shard_is_named_by_check_and_made_again(name: str, whole: Path, folder: Path) -> None:
    file, damage = OF_A_SHARD[name]
    damage(folder / file)
    run = ap.open_run(folder)
    assert name == "the shard gone" or any(SHARD in told for told in run.check())
    told = ""
    try:  # what is there can be read, or it says which file cannot
        assert len(list(run.rows())) == len([run.map(i) for i in range(len(run))]) == len(run) <= 40
    except InputError as error:
        told = str(error)
    assert told == "" or (SHARD in told and "\n" not in told)
    explained(folder)
    assert files(folder) == files(whole)


@pytest.mark.parametrize("name", OF_THE_MANIFEST)
def test_a_damaged_manifest_is_one_line_that_names_it(name: str, folder: Path) -> None:
    damage, told = OF_THE_MANIFEST[name]
    damage(folder / "manifest.json")
    for use in (ap.open_run, explained):
        with pytest.raises(InputError, match=told) as caught:
            use(folder)
        assert "manifest.json" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_manifest_of_more_shards_than_there_could_be_keeps_nobody_waiting(folder: Path) -> None:
    """Somebody else's, whose fingerprints fit."""
    found = json.loads((folder / "manifest.json").read_text())
    settings = found["settings"] | {"inputs": 10**15, "labels": tuple(found["settings"]["labels"])}
    huge = Manifest(**settings)
    found |= {"settings": asdict(huge), "fingerprint": huge.fingerprint}
    (folder / "manifest.json").write_text(json.dumps(found))
    for path in folder.glob("shards/*/shard.json"):
        record = json.loads(path.read_text()) | {"run": huge.fingerprint}
        path.write_text(json.dumps({name: value for name, value in record.items() if name != "checksum"}))
    run = ap.open_run(folder)
    assert not run.complete
    assert [done.shard for done in run.shards] == [0, 1, 2, 3]
    assert len(list(run.rows())) == 40
    assert not run.check()


def test_a_table_that_is_not_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="table is 'csv'; accepted: parquet, jsonl"):
        explained(tmp_path / "run", table="csv")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"device": "nonsense"}, "device is 'nonsense'; accepted"),
        ({"strict": "no"}, "strict is 'no'; accepted: True or False"),
        ({"num_shards": 1.5}, "num_shards is 1.5; accepted"),
    ],
)
def test_what_a_run_does_not_know_is_refused(tmp_path: Path, settings: dict, told: str) -> None:
    with pytest.raises(InputError, match=told):
        explained(tmp_path / "run", **settings)
