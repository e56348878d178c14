"""What a study is, from a YAML file: every mistake is named with its line and its field."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml

from apportion.bulk.sources import open_source
from apportion.core.files import path_of
from apportion.core.registry import from_repr
from apportion.errors import InputError, did_you_mean
from apportion.study.text.readings import AS_PUBLISHED_AND_BEFORE, CHOICES, Readings

T = TypeVar("T")

EXTENTS = ("train", "valid", "test", "few", "steps")
KINDS = ("comparison", "text-faithfulness")


@dataclass(frozen=True)
class Data:
    """The inputs of a study.

    Attributes:
        name (str): What tables call them.
        path (str, default None): What `apportion bulk --data` takes; None: `texts` are the inputs.
        texts (tuple of str, default ()): Texts that stand in the study file itself.
        column (str, default None): Column of a table with the text or picture; None: it is found.
        id (str, default None): Column of a table with the id; None: the file name, or the number.
    """

    name: str
    path: str | None = None
    texts: tuple[str, ...] = ()
    column: str | None = None
    id: str | None = None


@dataclass(frozen=True)
class Study:
    """A study of models × data × methods × tests.

    Attributes:
        title (str): The title of its report.
        models (tuple of str): Names as in `apportion.load`.
        data (tuple of Data): The data sets.
        methods (tuple of str): Short names or reprs.
        tests (tuple of str): Short names or reprs.
        samples (int, default 20): Inputs of each data set.
        seed (int, default 0): Seed by which they are drawn.
        text (str, default ""): The file as it was written.
    """

    title: str
    models: tuple[str, ...]
    data: tuple[Data, ...]
    methods: tuple[str, ...]
    tests: tuple[str, ...]
    samples: int = 20
    seed: int = 0
    text: str = ""


@dataclass(frozen=True)
class TextFaithfulness:
    """The study of feature maps on text, as `apportion study text-faithfulness` runs it.

    Attributes:
        title (str): The title of its report.
        data (str): Folder with the corpora, or "huggingface".
        corpora (tuple of str, default None): Names of some of the corpora; None: all.
        fast (bool, default False): SST alone and less of it.
        models (tuple of int, default (0,)): Seeds of the explained models.
        learners (tuple of int, default None): Seeds of the weak learners; None: as `fast` has them.
        extents (mapping, default {}): What is set otherwise than `fast` has it: `train`, `valid`, `test` and `few`
            (tokens) and `steps`.
        readings (Readings, default AS_PUBLISHED_AND_BEFORE): In which readings the tests are run.
    """

    title: str
    data: str
    corpora: tuple[str, ...] | None = None
    fast: bool = False
    models: tuple[int, ...] = (0,)
    learners: tuple[int, ...] | None = None
    extents: Mapping[str, int] = dataclasses.field(default_factory=dict)
    readings: Readings = AS_PUBLISHED_AND_BEFORE


def read_study(path: Path) -> Study | TextFaithfulness:
    """The study in a file. Raises InputError that begins with file, line and field."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = 0 if error.problem_mark is None else error.problem_mark.line + 1
        raise InputError(f"{path}, line {line}: this is not YAML ({error.problem})") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: this is not YAML ({error})") from None
    except RecursionError:
        raise InputError(f"{path}: lists lie in lists too deep to be read") from None
    if root is None:
        raise InputError(f"{path} is empty; accepted: models, data, methods and tests")
    field = Field(path, root, "")
    kind = field.get("kind")
    chosen = "comparison" if kind is None else kind.one_of(KINDS)
    return _text_faithfulness(field) if chosen == "text-faithfulness" else _comparison(field, text)


@dataclass(frozen=True)
class Field:
    """A value in the file, with where it stands."""

    path: Path
    node: Any
    name: str

    def wrong(self, message: str) -> InputError:
        place = f"{self.path}, line {self.node.start_mark.line + 1}"
        return InputError(f"{place}: {self.name}: {message}" if self.name else f"{place}: {message}")

    def mapping(self, known: Sequence[str]) -> dict[str, Field]:
        """The fields of a mapping; unknown and repeated ones are mistakes."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.wrong(f"this is {self._is()}; accepted: fields such as {known[0]}: …")
        found: dict[str, Field] = {}
        for key, value in self.node.value:
            name = str(key.value)
            field = Field(self.path, value, f"{self.name}.{name}" if self.name else name)
            here = Field(self.path, key, field.name)
            if name not in known:
                hint = did_you_mean(name, known)
                raise here.wrong(f"there is no such field; {hint}accepted: {', '.join(known)}")
            if name in found:
                raise here.wrong("this field is there twice")
            found[name] = field
        return found

    def get(self, name: str) -> Field | None:
        """One field of a mapping, whatever the others are."""
        pairs = self.node.value if isinstance(self.node, yaml.MappingNode) else ()
        return next((Field(self.path, v, name) for k, v in pairs if k.value == name), None)

    def each(self, read: Callable[[Field], T], same: Callable[[T], Any] | None = None) -> tuple[T, ...]:
        """The items of a list, none of them twice, as they are or as `same` has them; a single value is a list of
        one."""
        if not isinstance(self.node, yaml.SequenceNode):
            return (read(self),)
        if not self.node.value:
            raise self.wrong("the list is empty; accepted: at least one")
        items = [Field(self.path, n, f"{self.name}[{i}]") for i, n in enumerate(self.node.value)]
        found: dict[Any, T] = {}
        for item in items:
            value = read(item)
            key = value if same is None else same(value)
            if key in found:
                twice = "this is there twice" if found[key] == value else f"this is the same as {found[key]}"
                raise item.wrong(twice)
            found[key] = value
        return tuple(found.values())

    def text(self) -> str:
        if not isinstance(self.node, yaml.ScalarNode) or not self.node.value.strip():
            raise self.wrong(f"this is {self._is()}; accepted: a text")
        return str(self.node.value)

    def whole(self, least: int) -> int:
        # What a tag says need not be so, and YAML reads 1:30 as 90.
        if not isinstance(self.node, yaml.ScalarNode) or not re.fullmatch(
            r"[-+]?[0-9]{1,30}", self.node.value
        ):
            raise self.wrong(f"this is {self._is()}; accepted: a whole number")
        value = int(self.node.value)
        if value < least:
            raise self.wrong(f"this is {value}; accepted: at least {least}")
        return value

    def truth(self) -> bool:
        known = yaml.constructor.SafeConstructor.bool_values
        if self.node.tag != "tag:yaml.org,2002:bool" or self.node.value.lower() not in known:
            raise self.wrong(f"this is {self._is()}; accepted: true or false")
        return bool(known[self.node.value.lower()])

    def one_of(self, accepted: Sequence[str]) -> str:
        value = self.text()
        if value not in accepted:
            raise self.wrong(f"this is {value!r}; accepted: {', '.join(accepted)}")
        return value

    def checked(self, check: Callable[[str], Any]) -> str:
        """A text that `check` takes."""
        value = self.text()
        try:
            check(value)
        except InputError as error:
            raise self.wrong(str(error)) from None
        return value

    def _is(self) -> str:
        if isinstance(self.node, yaml.MappingNode):
            return "a mapping"
        return "a list" if isinstance(self.node, yaml.SequenceNode) else f"{self.node.value!r:.200}"


def _comparison(field: Field, text: str) -> Study:
    known = ("models", "data", "methods", "tests", "title", "kind", "samples", "seed")
    fields = field.mapping(known)
    for name in ("models", "data", "methods", "tests"):
        if name not in fields:
            raise field.wrong(f"the field {name!r} is missing")
    data = fields["data"].each(_data)
    names = [one.name for one in data]
    if len(set(names)) < len(names):
        raise fields["data"].wrong(f"two have the same name ({', '.join(names)}); give each its own: name: …")
    return Study(
        title=fields["title"].text() if "title" in fields else field.path.stem,
        models=fields["models"].each(Field.text),
        data=data,
        methods=fields["methods"].each(lambda one: one.checked(from_repr), lambda one: repr(from_repr(one))),
        tests=fields["tests"].each(
            lambda one: one.checked(lambda text: from_repr(text, "test")),
            lambda one: repr(from_repr(one, "test")),
        ),
        samples=fields["samples"].whole(1) if "samples" in fields else 20,
        seed=fields["seed"].whole(0) if "seed" in fields else 0,
        text=text,
    )


def _data(field: Field) -> Data:
    if isinstance(field.node, yaml.ScalarNode):
        place = field.text()
        return Data(Path(place).stem, _there(field, place))
    fields = field.mapping(("path", "texts", "name", "column", "id"))
    if ("path" in fields) == ("texts" in fields):
        raise field.wrong("accepted: either path or texts")
    texts = fields["texts"].each(Field.text) if "texts" in fields else ()
    path = _there(fields["path"], fields["path"].text()) if "path" in fields else None
    given = path or list(texts)

    def there(name: str, setting: str) -> str | None:
        if name not in fields:
            return None
        return fields[name].checked(lambda column: open_source(given, **{setting: column}))

    return Data(
        name=fields["name"].text() if "name" in fields else Path(path or "texts").stem,
        path=path,
        texts=texts,
        column=there("column", "column"),
        id=there("id", "id_column"),
    )


def _there(field: Field, place: str) -> str:
    """A path, seen from the study file."""
    path = field.path.parent / field.checked(partial(path_of, "data"))
    if not path.exists():
        raise field.wrong(f"no such file or folder: {place}")
    return str(path)


def _text_faithfulness(field: Field) -> TextFaithfulness:
    known = ("data", "corpora", "fast", "models", "learners", *EXTENTS, *CHOICES, "title", "kind")
    fields = field.mapping(known)
    if "data" not in fields:
        raise field.wrong("the field 'data' is missing")
    return TextFaithfulness(
        title=fields["title"].text() if "title" in fields else field.path.stem,
        data=fields["data"].text(),
        corpora=fields["corpora"].each(Field.text) if "corpora" in fields else None,
        fast=fields["fast"].truth() if "fast" in fields else False,
        models=fields["models"].each(lambda one: one.whole(0)) if "models" in fields else (0,),
        learners=fields["learners"].each(lambda one: one.whole(0)) if "learners" in fields else None,
        extents={name: fields[name].whole(1) for name in EXTENTS if name in fields},
        readings=dataclasses.replace(
            AS_PUBLISHED_AND_BEFORE,
            **{
                name: fields[name].each(partial(Field.one_of, accepted=known))
                for name, known in CHOICES.items()
                if name in fields
            },
        ),
    )
