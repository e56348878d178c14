"""What Python hands to the one page of `frontend/`, as types. `make page` writes the same in TypeScript.

A type that is called as a class of the package is (Curve, Ledger, Study, Table) is that thing as data.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

# ---- one explained sample by one method ----

Piece = tuple[str, float | None] | tuple[str, float | None, bool]


class TextPieces(TypedDict):
    """A text in pieces, each with its value (none for what stands between words); of special tokens also `true`."""

    kind: Literal["words"]
    pieces: list[Piece]


class Bars(TypedDict):
    """Named numbers."""

    kind: Literal["bars"]
    names: list[str]
    values: list[float]


class Heat(TypedDict):
    """`cells` are rows × columns little-endian float32 in base64; the picture is `width` × `height` pixels. Places are
    told in the pixels of `pixels_of`, of which there are `size` (across, down); `frame` is left, top, right and bottom
    of the picture in these."""

    kind: Literal["heat"]
    rows: int
    columns: int
    cells: str
    scale: float
    width: int
    height: int
    legend: str
    pixels_of: str
    size: tuple[int, int]
    frame: tuple[float, float, float, float]


class Pairs(TypedDict):
    """Features with a matrix of interactions: `values[i][j]` is half of what the pair contributes, none where it
    was not asked for. `text` says that the features are words."""

    kind: Literal["pairs"]
    names: list[str]
    alone: list[float]
    values: list[list[float | None]]
    text: bool


Shown = TextPieces | Bars | Heat | Pairs

# ---- tests, curves, tables ----


class Curve(TypedDict):
    """Numbers over numbers, with a band where `low` and `high` are given."""

    name: str
    x: list[float]
    y: list[float]
    low: NotRequired[list[float]]
    high: NotRequired[list[float]]
    reference: NotRequired[bool]


class Chart(TypedDict):
    """Curves on one pair of axes, which `x` and `y` name."""

    title: str
    x: str
    y: str
    curves: list[Curve]


class Matrix(TypedDict):
    """Numbers from −1 to 1 between each two names."""

    title: str
    names: list[str]
    values: list[list[float | None]]


class Table(TypedDict):
    """`references` name the rows that are no methods; `best` are the (row, column) places in bold."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str
    references: list[str]
    best: list[tuple[int, int]]


class TestScore(TypedDict):
    """What a test says of one sample, and of maps that know nothing of it (`beside`); a value is none where it is
    undefined."""

    test: str
    value: float | None
    direction: str
    beside: dict[str, float | None]


class LedgerRow(TypedDict):
    """How much of the relevance one operation absorbed, by cause."""

    name: str
    rule: str
    bias: float
    stabiliser: float
    unruled: float
    softmax: float


class Ledger(TypedDict):
    """The rows that absorbed most."""

    rows: list[LedgerRow]
    left_out: int


# ---- the report ----

Box = tuple[float, float, float, float]  # top, bottom, left, right in shares of the picture


class TrainingPicture(TypedDict):
    """The training picture that a prototype is from."""

    name: str
    picture: str
    box: Box


Panel = TypedDict(
    "Panel",
    {
        "name": str,
        "prototype": int,
        "class": str,
        "similarity": float,
        "weight": float,
        "contribution": float,
        "box": Box,
        "source": TrainingPicture,
    },
)
Panel.__doc__ = """What in the picture looks like what in a training picture."""


class Card(TypedDict):
    """What one method says of one input; `asked` is how it was asked for in the workbench. `unit` is that of the
    values, empty where they have none."""

    method: str
    asked: NotRequired[str]
    repr: str
    target: str
    balance: str
    share: float | None
    unit: str
    cost: str
    warnings: list[str]
    notes: dict[str, Any]
    shown: Shown
    panels: list[Panel]
    top: list[tuple[str, float]]
    ledger: Ledger | None
    tests: list[TestScore]
    chart: Chart | None


class Section(TypedDict):
    """One input and what the model decided: `ranking` are the best classes with score and probability."""

    title: str
    text: str | None
    model: str | None
    photo: str | None
    note: str
    label: str
    classes: int
    ranking: list[tuple[str, float, float | None]]
    cards: list[Card]


# ---- pictures side by side ----


class Picture(TypedDict):
    """`squares` says that it is so small that each of its pixels is to be seen."""

    src: str
    squares: NotRequired[bool]
    box: NotRequired[Box]


class Figure(TypedDict):
    """Pictures above one another, which the caption describes, and the `name` of where they are from."""

    caption: str
    name: NotRequired[str]
    pictures: list[Picture]


class Group(TypedDict):
    """Figures side by side, perhaps under a heading."""

    heading: NotRequired[str]
    figures: list[Figure]


class Means(TypedDict):
    """Name, mean, number of inputs and mean size, by which they are sorted, of features or of pairs of them
    (`what`)."""

    what: str
    rows: list[tuple[str, float, int, float]]


class Article(TypedDict):
    """A prototype, a cluster, a class; `alike` marks what is suspicious."""

    title: str
    detail: NotRequired[str]
    alike: NotRequired[bool]
    groups: list[Group]
    words: NotRequired[list[str]]
    means: NotRequired[list[Means]]


class Chapter(TypedDict):
    """Articles, perhaps under a title. `spectrum` are numbers from 0 up, drawn small; `alike` marks what is
    suspicious."""

    title: NotRequired[str]
    about: NotRequired[str]
    alike: NotRequired[bool]
    spectrum: NotRequired[list[float]]
    articles: list[Article]


# ---- pages ----

Layout = Literal["list", "cards", "small"]


class Report(TypedDict):
    """Explanations of inputs, method beside method."""

    kind: Literal["report"]
    sections: list[Section]
    versions: dict[str, str]
    same_scale: bool


class Study(TypedDict):
    """Tables and curves of methods and tests."""

    kind: Literal["study"]
    title: str
    about: str
    tables: list[Table]
    charts: list[Chart]
    matrices: list[Matrix]
    settings: str
    versions: dict[str, str]


class Sheet(TypedDict):
    """Prototypes, clusters, means. `key` says that colours speak for and against; `layout` how articles stand;
    `settings` are folded; `folded` are chapters that are opened one by one."""

    kind: Literal["sheet"]
    title: str
    about: NotRequired[str]
    key: NotRequired[bool]
    layout: Layout
    chapters: list[Chapter]
    settings: NotRequired[str]
    folded: NotRequired[bool]
    end: NotRequired[str]
    versions: NotRequired[dict[str, str]]


class PromptPiece(TypedDict):
    """A piece of a prompt with its value for each row of the answer, or what stands between such; `special` pieces are
    of the template and are never hidden."""

    text: str
    values: list[float] | None
    special: bool


class AnswerRow(TypedDict):
    """What is explained of an answer: its tokens `first` to before `last`. `before` are the values of the tokens of the
    answer so far."""

    name: str
    first: int
    last: int
    score: float
    balance: str
    before: list[float]
    tests: list[TestScore]


class AnswerMap(TypedDict):
    """What one method says of an answer."""

    method: str
    repr: str
    cost: str
    chosen: str
    warnings: list[str]
    pieces: list[PromptPiece]
    rows: list[AnswerRow]


class Answer(TypedDict):
    """The answer of a language model: choose a piece of it to see where it comes from, or a piece of the prompt to see
    what it moved."""

    kind: Literal["answer"]
    model: str
    prompt: str
    answer: list[str]
    score: str
    maps: list[AnswerMap]
    versions: dict[str, str]


class ColumnMean(TypedDict):
    """The mean of |value| of a column over rows, with its interval."""

    size: float
    low: float
    high: float


class OverviewColumn(TypedDict):
    """A column over all rows: its mean |value|; `values` of the rows that are drawn; `cells`, what stands there
    (numbers, none where one is missing, or texts), and `shares`, where each stands between the small and the large
    ones, 0 to 1; its `partner`, if it has one, and how that was found."""

    name: str
    mean: ColumnMean
    values: list[float]
    cells: list[float | None] | list[str] | None
    shares: list[float | None] | None
    partner: str | None
    why: str


class Cohort(TypedDict):
    """The means of the columns over the rows of a cohort; `sure` are those that surely differ from the other rows."""

    name: str
    rows: int
    means: list[ColumnMean]
    sure: list[bool]


class OverviewPart(TypedDict):
    """Explanations of rows for one class. `columns` come largest first; `starts`, `scores` and `left_over` are of the
    rows that are drawn (none where they are not known), `rows` their names; `left` is the mean |remainder|."""

    title: str
    unit: str
    told: str
    drawn: str
    columns: list[OverviewColumn]
    left: float | None
    rows: list[str]
    starts: list[float | None]
    scores: list[float | None]
    left_over: list[float | None]
    by: str
    cohorts: list[Cohort]


class Overview(TypedDict):
    """Explanations of rows summed up, a part for each class."""

    kind: Literal["overview"]
    title: str
    parts: list[OverviewPart]
    versions: dict[str, str]


class Workbench(TypedDict):
    """The page of `apportion serve`, which asks for everything else."""

    kind: Literal["workbench"]


Page = Report | Study | Sheet | Answer | Overview | Workbench
