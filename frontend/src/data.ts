// Written by frontend/write_types.py (`make page`) from apportion/display/page_data.py,
// apportion/serve/messages.py and apportion/serve/request.py: change it there.

export type Piece = [string, number | null] | [string, number | null, boolean];

/** A text in pieces, each with its value (none for what stands between words); of special tokens also `true`. */
export type TextPieces = {
  kind: "words";
  pieces: Piece[];
};

/** Named numbers. */
export type Bars = {
  kind: "bars";
  names: string[];
  values: number[];
};

/** `cells` are rows × columns little-endian float32 in base64; the picture is `width` × `height` pixels. Places are
 * told in the pixels of `pixels_of`, of which there are `size` (across, down); `frame` is left, top, right and bottom
 * of the picture in these. */
export type Heat = {
  kind: "heat";
  rows: number;
  columns: number;
  cells: string;
  scale: number;
  width: number;
  height: number;
  legend: string;
  pixels_of: string;
  size: [number, number];
  frame: Box;
};

/** Features with a matrix of interactions: `values[i][j]` is half of what the pair contributes, none where it was not
 * asked for. `text` says that the features are words. */
export type Pairs = {
  kind: "pairs";
  names: string[];
  alone: number[];
  values: (number | null)[][];
  text: boolean;
};

export type Shown = TextPieces | Bars | Heat | Pairs;

/** Numbers over numbers, with a band where `low` and `high` are given. */
export type Curve = {
  name: string;
  x: number[];
  y: number[];
  low?: number[];
  high?: number[];
  reference?: boolean;
};

/** Curves on one pair of axes, which `x` and `y` name. */
export type Chart = {
  title: string;
  x: string;
  y: string;
  curves: Curve[];
};

/** Numbers from −1 to 1 between each two names. */
export type Matrix = {
  title: string;
  names: string[];
  values: (number | null)[][];
};

/** `references` name the rows that are no methods; `best` are the (row, column) places in bold. */
export type Table = {
  title: string;
  columns: string[];
  rows: string[][];
  note: string;
  references: string[];
  best: [number, number][];
};

/** What a test says of one sample, and of maps that know nothing of it (`beside`); a value is none where it is
 * undefined. */
export type TestScore = {
  test: string;
  value: number | null;
  direction: string;
  beside: Record<string, number | null>;
};

/** How much of the relevance one operation absorbed, by cause. */
export type LedgerRow = {
  name: string;
  rule: string;
  bias: number;
  stabiliser: number;
  unruled: number;
  softmax: number;
};

/** The rows that absorbed most. */
export type Ledger = {
  rows: LedgerRow[];
  left_out: number;
};

export type Box = [number, number, number, number];

/** The training picture that a prototype is from. */
export type TrainingPicture = {
  name: string;
  picture: string;
  box: Box;
};

/** What in the picture looks like what in a training picture. */
export type Panel = {
  name: string;
  prototype: number;
  class: string;
  similarity: number;
  weight: number;
  contribution: number;
  box: Box;
  source: TrainingPicture;
};

/** What one method says of one input; `asked` is how it was asked for in the workbench. `unit` is that of the values,
 * empty where they have none. */
export type Card = {
  method: string;
  asked?: string;
  repr: string;
  target: string;
  balance: string;
  share: number | null;
  unit: string;
  cost: string;
  warnings: string[];
  notes: Record<string, unknown>;
  shown: Shown;
  panels: Panel[];
  top: [string, number][];
  ledger: Ledger | null;
  tests: TestScore[];
  chart: Chart | null;
};

/** One input and what the model decided: `ranking` are the best classes with score and probability. */
export type Section = {
  title: string;
  text: string | null;
  model: string | null;
  photo: string | null;
  note: string;
  label: string;
  classes: number;
  ranking: [string, number, number | null][];
  cards: Card[];
};

/** `squares` says that it is so small that each of its pixels is to be seen. */
export type Picture = {
  src: string;
  squares?: boolean;
  box?: Box;
};

/** Pictures above one another, which the caption describes, and the `name` of where they are from. */
export type Figure = {
  caption: string;
  name?: string;
  pictures: Picture[];
};

/** Figures side by side, perhaps under a heading. */
export type Group = {
  heading?: string;
  figures: Figure[];
};

/** Name, mean, number of inputs and mean size, by which they are sorted, of features or of pairs of them (`what`). */
export type Means = {
  what: string;
  rows: [string, number, number, number][];
};

/** A prototype, a cluster, a class; `alike` marks what is suspicious. */
export type Article = {
  title: string;
  detail?: string;
  alike?: boolean;
  groups: Group[];
  words?: string[];
  means?: Means[];
};

/** Articles, perhaps under a title. `spectrum` are numbers from 0 up, drawn small; `alike` marks what is suspicious.
 * */
export type Chapter = {
  title?: string;
  about?: string;
  alike?: boolean;
  spectrum?: number[];
  articles: Article[];
};

export type Layout = "list" | "cards" | "small";

/** Explanations of inputs, method beside method. */
export type Report = {
  kind: "report";
  sections: Section[];
  versions: Record<string, string>;
  same_scale: boolean;
};

/** Tables and curves of methods and tests. */
export type Study = {
  kind: "study";
  title: string;
  about: string;
  tables: Table[];
  charts: Chart[];
  matrices: Matrix[];
  settings: string;
  versions: Record<string, string>;
};

/** Prototypes, clusters, means. `key` says that colours speak for and against; `layout` how articles stand;
 * `settings` are folded; `folded` are chapters that are opened one by one. */
export type Sheet = {
  kind: "sheet";
  title: string;
  about?: string;
  key?: boolean;
  layout: Layout;
  chapters: Chapter[];
  settings?: string;
  folded?: boolean;
  end?: string;
  versions?: Record<string, string>;
};

/** A piece of a prompt with its value for each row of the answer, or what stands between such; `special` pieces are
 * of the template and are never hidden. */
export type PromptPiece = {
  text: string;
  values: number[] | null;
  special: boolean;
};

/** What is explained of an answer: its tokens `first` to before `last`. `before` are the values of the tokens of the
 * answer so far. */
export type AnswerRow = {
  name: string;
  first: number;
  last: number;
  score: number;
  balance: string;
  before: number[];
  tests: TestScore[];
};

/** What one method says of an answer. */
export type AnswerMap = {
  method: string;
  repr: string;
  cost: string;
  chosen: string;
  warnings: string[];
  pieces: PromptPiece[];
  rows: AnswerRow[];
};

/** The answer of a language model: choose a piece of it to see where it comes from, or a piece of the prompt to see
 * what it moved. */
export type Answer = {
  kind: "answer";
  model: string;
  prompt: string;
  answer: string[];
  score: string;
  maps: AnswerMap[];
  versions: Record<string, string>;
};

/** The mean of |value| of a column over rows, with its interval. */
export type ColumnMean = {
  size: number;
  low: number;
  high: number;
};

/** A column over all rows: its mean |value|; `values` of the rows that are drawn; `cells`, what stands there
 * (numbers, none where one is missing, or texts), and `shares`, where each stands between the small and the large
 * ones, 0 to 1; its `partner`, if it has one, and how that was found. */
export type OverviewColumn = {
  name: string;
  mean: ColumnMean;
  values: number[];
  cells: (number | null)[] | string[] | null;
  shares: (number | null)[] | null;
  partner: string | null;
  why: string;
};

/** The means of the columns over the rows of a cohort; `sure` are those that surely differ from the other rows. */
export type Cohort = {
  name: string;
  rows: number;
  means: ColumnMean[];
  sure: boolean[];
};

/** Explanations of rows for one class. `columns` come largest first; `starts`, `scores` and `left_over` are of the
 * rows that are drawn (none where they are not known), `rows` their names; `left` is the mean |remainder|. */
export type OverviewPart = {
  title: string;
  unit: string;
  told: string;
  drawn: string;
  columns: OverviewColumn[];
  left: number | null;
  rows: string[];
  starts: (number | null)[];
  scores: (number | null)[];
  left_over: (number | null)[];
  by: string;
  cohorts: Cohort[];
};

/** Explanations of rows summed up, a part for each class. */
export type Overview = {
  kind: "overview";
  title: string;
  parts: OverviewPart[];
  versions: Record<string, string>;
};

/** The page of `apportion serve`, which asks for everything else. */
export type Workbench = {
  kind: "workbench";
};

export type Page = Report | Study | Sheet | Answer | Overview | Workbench;

/** A column of a table with a value for it; numbers have no categories. */
export type Column = {
  name: string;
  value: string;
  categories: string[] | null;
};

/** A model that can be chosen. */
export type Model = {
  name: string;
  domain: "text" | "image" | "tabular" | "language";
  task: string;
};

/** A method that can be chosen, and the question that it answers. */
export type Method = {
  name: string;
  settings: string;
  about: string;
  question: string;
  pairs: boolean;
};

/** What is known of a model once it is loaded; `methods` are those for this model only, `unsuitable` says why others
 * cannot explain it. A model that is asked `elsewhere` costs with each question; one that can `chat` has a template
 * for messages. */
export type Loaded = {
  labels: string[];
  columns: Column[];
  example: string;
  methods: Method[];
  unsuitable: Record<string, string>;
  elsewhere: boolean;
  chat: boolean;
};

/** The classes of an input, the most probable first: name, number, score, and probability where there is one. */
export type Classes = {
  classes: [string, number, number, number | null][];
};

/** All that can be chosen. */
export type Catalog = {
  models: Model[];
  methods: Method[];
  most_bytes: number;
  versions: Record<string, string>;
};

/** So many wait before this one. */
export type Waiting = {
  event: "waiting";
  ahead: number;
};

/** A method begins. */
export type Start = {
  event: "start";
  method: string;
};

/** How far a method is. */
export type Progress = {
  event: "progress";
  method: string;
  done: number;
  total: number | null;
  what: string;
};

/** The explanation by a method. */
export type SectionMade = {
  event: "section";
  method: string;
  section: Section;
};

/** The explanation of an answer by a method, and again when it was tested. */
export type Answered = {
  event: "answer";
  method: string;
  answer: Answer;
  done: boolean;
};

/** What tests say of it, so far or at last. */
export type Tested = {
  event: "tested";
  method: string;
  tests: TestScore[];
  chart: Chart | null;
  done: boolean;
};

/** What went wrong, with a method or with all. */
export type Failed = {
  event: "error";
  method: string | null;
  message: string;
};

export type Said = Waiting | Start | Progress | SectionMade | Answered | Tested | Failed;

/** One input of a model. */
export type Given = {
  model: string;
  text?: string | null;
  image?: string | null;
  name?: string;
  row?: Record<string, string> | null;
};

/** One input, and the methods that are to explain a model's decision on it. */
export type Ask = {
  model: string;
  text?: string | null;
  image?: string | null;
  name?: string;
  row?: Record<string, string> | null;
  methods: string[];
  target?: string | number | null;
  tests?: boolean;
  answer?: string | null;
  context?: string[];
  contrast?: string | null;
  unit?: "token" | "word" | "sentence" | "passage" | "turn" | null;
  score?: "log-probability" | "logit" | "probability" | "logit of probability";
  chat?: boolean;
  max_new_tokens?: number;
};
