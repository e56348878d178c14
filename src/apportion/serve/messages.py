"""What the server of the workbench answers, as types. `make page` writes the same in TypeScript."""

from __future__ import annotations

from typing import Literal, TypedDict

from apportion.display.page_data import Answer, Chart, Section, TestScore


class Column(TypedDict):
    """A column of a table with a value for it; numbers have no categories."""

    name: str
    value: str
    categories: list[str] | None


class Model(TypedDict):
    """A model that can be chosen."""

    name: str
    domain: Literal["text", "image", "tabular", "language"]
    task: str


class Method(TypedDict):
    """A method that can be chosen, and the question that it answers."""

    name: str
    settings: str
    about: str
    question: str
    pairs: bool


class Loaded(TypedDict):
    """What is known of a model once it is loaded; `methods` are those for this model only, `unsuitable` says why others
    cannot explain it. A model that is asked `elsewhere` costs with each question; one that can `chat` has a template
    for messages."""

    labels: list[str]
    columns: list[Column]
    example: str
    methods: list[Method]
    unsuitable: dict[str, str]
    elsewhere: bool
    chat: bool


class Classes(TypedDict):
    """The classes of an input, the most probable first: name, number, score, and probability where there is one."""

    classes: list[tuple[str, int, float, float | None]]


class Catalog(TypedDict):
    """All that can be chosen."""

    models: list[Model]
    methods: list[Method]
    most_bytes: int
    versions: dict[str, str]


class Waiting(TypedDict):
    """So many wait before this one."""

    event: Literal["waiting"]
    ahead: int


class Start(TypedDict):
    """A method begins."""

    event: Literal["start"]
    method: str


class Progress(TypedDict):
    """How far a method is."""

    event: Literal["progress"]
    method: str
    done: int
    total: int | None
    what: str


class SectionMade(TypedDict):
    """The explanation by a method."""

    event: Literal["section"]
    method: str
    section: Section


class Answered(TypedDict):
    """The explanation of an answer by a method, and again when it was tested."""

    event: Literal["answer"]
    method: str
    answer: Answer
    done: bool


class Tested(TypedDict):
    """What tests say of it, so far or at last."""

    event: Literal["tested"]
    method: str
    tests: list[TestScore]
    chart: Chart | None
    done: bool


class Failed(TypedDict):
    """What went wrong, with a method or with all."""

    event: Literal["error"]
    method: str | None
    message: str


Said = Waiting | Start | Progress | SectionMade | Answered | Tested | Failed
