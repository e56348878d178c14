// Explanations of rows summed up: how much each column counts, for what it speaks, with which partner, and for whom.
import { useState } from "preact/hooks";
import type { ColumnMean, Overview, OverviewColumn, OverviewPart } from "./data";
import { largest, number, signed } from "./numbers";
import { Header, Versions } from "./report";

const ROWS = 12, STEPS = 10, BINS = 9, HIGH = 34;
// From small to large cells, and for cohorts and texts (Okabe & Ito 2008, without what speaks for and against).
const STOPS = [[122, 92, 201], [199, 86, 143], [240, 168, 48]] as const;
const KINDS = ["#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#a39a2a", "#7d6fb3", "#777d88"];
const GREY = "#9aa0aa";

export function OverviewView({ overview }: { overview: Overview }) {
  return (
    <main>
      <Header />
      <h1>{overview.title}</h1>
      {overview.parts.map((part) => <PartView key={part.title} part={part} several={overview.parts.length > 1} />)}
      <Versions versions={overview.versions} />
    </main>
  );
}

function PartView({ part, several }: { part: OverviewPart; several: boolean }) {
  return (
    <section class="overview">
      {several && <h2 class="chapter">{part.title}</h2>}
      <p class="quiet">{[part.told, part.drawn].filter(Boolean).join("; ")}</p>
      <div class="columns">
        <Sizes part={part} />
        <Swarm part={part} />
        {part.columns.some((column) => column.cells) && <Dependence part={part} />}
        <Waterfall part={part} />
        {part.cohorts.length > 0 && <Cohorts part={part} />}
      </div>
    </section>
  );
}

function Sizes({ part }: { part: OverviewPart }) {
  const [all, setAll] = useState(false);
  const shown = all ? part.columns : part.columns.slice(0, ROWS);
  const most = Math.max(...part.columns.map(({ mean }) => mean.high), part.left ?? 0) || 1;
  const scale = part.columns[0]!.mean.size;
  return (
    <article>
      <h2>How much each column counts <small>mean |value| with its 95 % interval ({part.unit})</small></h2>
      <table class="lines"><tbody>
        {shown.map(({ name, mean }) => (
          <tr key={name}>
            <th scope="row">{name}</th>
            <td class="line"><Size mean={mean} most={most} colour="var(--plain)" /></td>
            <td class="n">{number(mean.size, scale)}</td>
          </tr>
        ))}
        {part.left !== null && (
          <tr class="left">
            <th scope="row">left over</th>
            <td class="line"><i class="hatched" style={{ width: `${(100 * part.left) / most}%` }} /></td>
            <td class="n">{number(part.left, scale)}</td>
          </tr>
        )}
      </tbody></table>
      <More all={all} change={setAll} many={part.columns.length} />
    </article>
  );
}

function More({ all, change, many }: { all: boolean; change: (all: boolean) => void; many: number }) {
  return many > ROWS ? <button class="plain" onClick={() => change(!all)}>{all ? "only the largest" : `${many - ROWS} smaller ones`}</button> : null;
}

function Size({ mean, most, colour }: { mean: ColumnMean; most: number; colour: string }) {
  const share = (value: number) => `${(100 * value) / most}%`;
  return (
    <>
      <i style={{ width: share(mean.size), background: colour }} />
      <b style={{ left: share(mean.low), width: share(mean.high - mean.low) }} title={`${number(mean.low, most)} to ${number(mean.high, most)}`} />
    </>
  );
}

function colourOf(bin: number): string {
  if (bin < 0) return GREY;
  const at = (2 * bin) / (BINS - 1), stop = Math.min(1, Math.floor(at)), part = at - stop;
  return `rgb(${STOPS[stop]!.map((from, i) => Math.round(from + part * (STOPS[stop + 1]![i]! - from))).join(",")})`;
}

/** Points in colours, a path for each colour; lines without length stay round however the picture is stretched. */
function Points({ x, y, colours, size }: { x: number[]; y: number[]; colours: string[]; size: number }) {
  const paths = new Map<string, string>();
  colours.forEach((colour, i) => paths.set(colour, `${paths.get(colour) ?? ""}M${x[i]!.toFixed(1)} ${y[i]!.toFixed(1)}h0`));
  return <>{[...paths].map(([colour, d]) => <path key={colour} d={d} stroke={colour} stroke-width={size} />)}</>;
}

/** How far each point moves aside, so that as many stand on one another as there are. */
function aside(at: number[], half: number): number[] {
  const bins = at.map((x) => Math.min(79, Math.floor(x * 80))), counts = new Map<number, number>();
  for (const bin of bins) counts.set(bin, (counts.get(bin) ?? 0) + 1);
  const most = Math.max(12, ...counts.values()), met = new Map<number, number>();
  return bins.map((bin) => {
    const nth = met.get(bin) ?? 0;
    met.set(bin, nth + 1);
    return (nth % 2 ? 1 : -1) * Math.ceil(nth / 2) / most * 2 * half;
  });
}

function Strip({ values, colours, low, high, label }: { values: number[]; colours: string[]; low: number; high: number; label: string }) {
  const at = values.map((value) => (value - low) / (high - low)), up = aside(at, HIGH / 2 - 3), zero = (1000 * (0 - low)) / (high - low);
  return (
    <svg class="strip" viewBox={`0 0 1000 ${HIGH}`} preserveAspectRatio="none" role="img" aria-label={label}>
      <line class="axis" x1={zero} x2={zero} y1="0" y2={HIGH} />
      <Points x={at.map((share) => 1000 * share)} y={up.map((far) => HIGH / 2 + far)} colours={colours} size={values.length > 150 ? 4 : 5.5} />
    </svg>
  );
}

const binned = (shares: (number | null)[] | null, many: number) =>
  (shares ?? Array<null>(many).fill(null)).map((share) => colourOf(share === null ? -1 : Math.round(share * (BINS - 1))));

function rangeOf(lists: number[][]): [number, number] {
  const low = Math.min(0, ...lists.map((list) => Math.min(...list))), high = Math.max(0, ...lists.map((list) => Math.max(...list)));
  const pad = 0.03 * (high - low || 1);
  return [low - pad, high + pad];
}

function Swarm({ part }: { part: OverviewPart }) {
  const [all, setAll] = useState(false);
  const shown = all ? part.columns : part.columns.slice(0, ROWS);
  const left = part.left_over.every((value) => value !== null) ? (part.left_over as number[]) : null;
  const [low, high] = rangeOf([...part.columns.map((column) => column.values), ...(left ? [left] : [])]);
  return (
    <article>
      <h2>For what each row’s columns speak <small>a point for each row ({part.unit})</small></h2>
      <Range low={low} high={high} />
      <table class="lines"><tbody>
        {shown.map((column) => (
          <tr key={column.name}>
            <th scope="row">{column.name}</th>
            <td class="line"><Strip values={column.values} colours={binned(column.shares, column.values.length)} low={low} high={high} label={`values of ${column.name}`} /></td>
          </tr>
        ))}
        {left && (
          <tr class="left"><th scope="row">left over</th>
            <td class="line"><Strip values={left} colours={left.map(() => GREY)} low={low} high={high} label="what is left over" /></td></tr>
        )}
      </tbody></table>
      {part.columns.some((column) => column.shares) && (
        <p class="cells-key quiet"><span>small cell</span><i /><span>large</span><span class="grey">text, or not known</span></p>
      )}
      <More all={all} change={setAll} many={part.columns.length} />
    </article>
  );
}

/** Over the strips: where they begin and end, and zero between. */
function Range({ low, high }: { low: number; high: number }) {
  const zero = (0 - low) / (high - low); // not written where it would run into an end
  return (
    <div class="range quiet" aria-hidden="true">
      <span style={{ left: 0 }}>{signed(low, high - low)}</span>
      {zero > 0.2 && zero < 0.8 && <span style={{ left: `${100 * zero}%`, transform: "translateX(-50%)" }}>0</span>}
      <span style={{ right: 0 }}>{signed(high, high - low)}</span>
    </div>
  );
}

const isNumbers = (cells: OverviewColumn["cells"]) => !!cells && cells.every((cell) => typeof cell !== "string");

function Dependence({ part }: { part: OverviewPart }) {
  const named = part.columns.filter((column) => column.cells);
  const [chosen, choose] = useState(named[0]!.name);
  const column = named.find((one) => one.name === chosen)!, partner = part.columns.find((one) => one.name === column.partner);
  const kinds = partner && !isNumbers(partner.cells) ? common(partner.cells as string[]) : null;
  const colours = kinds
    ? (partner!.cells as string[]).map((cell) => KINDS[kinds.indexOf(cell)] ?? GREY)
    : binned(partner?.shares ?? null, column.values.length);
  const span = partner && !kinds ? (partner.cells as (number | null)[]).filter((cell) => cell !== null) : [];
  return (
    <article>
      <h2>What a column’s value depends on</h2>
      <label class="quiet">Column <select value={chosen} onChange={(event) => choose(event.currentTarget.value)}>
        {named.map(({ name }) => <option key={name}>{name}</option>)}
      </select></label>
      {isNumbers(column.cells) ? <Scatter column={column} colours={colours} unit={part.unit} /> : <ByText column={column} colours={colours} unit={part.unit} />}
      <p class="quiet">{partner ? <>Coloured by <b>{partner.name}</b>, the strongest partner: it {column.why}</> : `No partner: ${column.why}`}</p>
      {partner && !kinds && span.length > 0 && (
        <p class="cells-key quiet"><span>{short(Math.min(...span))}</span><i /><span>{short(Math.max(...span))}</span><span class="grey">missing</span></p>
      )}
      {kinds && (
        <p class="kinds quiet">{kinds.map((kind, i) => <span key={kind}><i style={{ background: KINDS[i] }} />{kind}</span>)}
          {new Set(partner!.cells as string[]).size > kinds.length && <span><i style={{ background: GREY }} />others</span>}</p>
      )}
    </article>
  );
}

/** The most frequent texts: all of a few, else so many that the others are one more kind. */
function common(cells: string[], most = new Set(cells).size > 6 ? 5 : 6): string[] {
  const many = new Map<string, number>();
  for (const cell of cells) many.set(cell, (many.get(cell) ?? 0) + 1);
  return [...many].sort((a, b) => b[1] - a[1]).slice(0, most).map(([cell]) => cell);
}

const short = (value: number) => String(Number(value.toPrecision(4))).replace("-", "−");

function Scatter({ column, colours, unit }: { column: OverviewColumn; colours: string[]; unit: string }) {
  const cells = column.cells as (number | null)[], kept = cells.map((_, i) => i).filter((i) => cells[i] !== null);
  const xs = kept.map((i) => cells[i]!), ys = kept.map((i) => column.values[i]!);
  if (!kept.length) return <p class="quiet">no row has a value there</p>;
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)], [low, high] = rangeOf([ys]);
  const px = (x: number) => 20 + (960 * (x - x0)) / (x1 - x0 || 1), py = (y: number) => (300 * (high - y)) / (high - low);
  return (
    <figure class="scatter">
      <figcaption>value ({unit})</figcaption>
      <div class="frame">
        <span class="top">{signed(high, high - low)}</span><span class="bottom">{signed(low, high - low)}</span>
        <svg viewBox="0 0 1000 300" preserveAspectRatio="none" role="img" aria-label={`values of ${column.name} over what stands there`}>
          <line class="axis" x1="0" x2="1000" y1={py(0)} y2={py(0)} />
          <Points x={xs.map(px)} y={ys.map(py)} colours={kept.map((i) => colours[i]!)} size={6} />
        </svg>
      </div>
      <div class="ends quiet"><span>{short(x0)}</span><span>{column.name}</span><span>{short(x1)}</span></div>
      {kept.length < cells.length && <p class="quiet">rows without a value are not drawn: {cells.length - kept.length}</p>}
    </figure>
  );
}

function ByText({ column, colours, unit }: { column: OverviewColumn; colours: string[]; unit: string }) {
  const cells = column.cells as string[], [low, high] = rangeOf([column.values]);
  const mean = (kind: string) => {
    const mine = column.values.filter((_, i) => cells[i] === kind);
    return mine.reduce((sum, value) => sum + value, 0) / mine.length;
  };
  const kinds = common(cells, ROWS).sort((a, b) => mean(b) - mean(a)), rarer = new Set(cells).size - kinds.length;
  return (
    <>
      <p class="quiet">value ({unit})</p>
      <Range low={low} high={high} />
      <table class="lines"><tbody>
        {kinds.map((kind) => {
          const here = cells.map((_, i) => i).filter((i) => cells[i] === kind);
          return (
            <tr key={kind}><th scope="row">{kind}</th>
              <td class="line"><Strip values={here.map((i) => column.values[i]!)} colours={here.map((i) => colours[i]!)} low={low} high={high} label={`values where ${column.name} is ${kind}`} /></td></tr>
          );
        })}
      </tbody></table>
      {rarer > 0 && <p class="quiet">{rarer} rarer values are not drawn</p>}
    </>
  );
}

type Step = { name: string; from: number; to: number; kind: "for" | "against" | "hatched" };

function Waterfall({ part }: { part: OverviewPart }) {
  const [row, choose] = useState(0);
  const order = part.columns.map((column) => [column, column.values[row]!] as const).filter(([, value]) => value)
    .sort(([, a], [, b]) => Math.abs(b) - Math.abs(a));
  const start = part.starts[row] ?? 0, steps: Step[] = [];
  let at = start;
  const step = (name: string, value: number, kind?: Step["kind"]) => {
    steps.push({ name, from: at, to: at + value, kind: kind ?? (value >= 0 ? "for" : "against") });
    at += value;
  };
  for (const [column, value] of order.slice(0, STEPS)) {
    const cell = column.cells ? (column.cells[row] ?? "missing") : null;
    step(cell === null ? column.name : `${column.name} = ${typeof cell === "number" ? short(cell) : cell}`, value);
  }
  const rest = order.slice(STEPS);
  if (rest.length) step(`${rest.length} smaller ones`, rest.reduce((sum, [, value]) => sum + value, 0));
  const left = part.left_over[row];
  if (left !== null && left !== undefined) step("left over", left, "hatched");
  const ends = [start, ...steps.map(({ to }) => to)], low = Math.min(...ends), span = Math.max(...ends) - low || 1;
  const share = (value: number) => `${(100 * (value - low)) / span}%`, scale = largest(ends);
  const known = part.starts[row] !== null && part.starts[row] !== undefined;
  return (
    <article>
      <h2>One row, from the start to its score</h2>
      <label class="quiet">Row <select value={row} onChange={(event) => choose(Number(event.currentTarget.value))}>
        {part.rows.map((name, i) => <option key={i} value={i}>{name}</option>)}
      </select></label>
      <table class="lines waterfall"><tbody>
        <tr class="end"><th scope="row">{start ? "start" : "zero"}</th><td class="line"><b class="at" style={{ left: share(start) }} /></td><td class="n">{number(start, scale)}</td></tr>
        {steps.map(({ name, from, to, kind }) => (
          <tr key={name}>
            <th scope="row">{name}</th>
            <td class="line"><i class={kind} style={{ left: share(Math.min(from, to)), width: `${(100 * Math.abs(to - from)) / span}%` }} /></td>
            <td class="n">{signed(to - from, scale)}</td>
          </tr>
        ))}
        <tr class="end"><th scope="row">{left === null ? "sum of values" : known ? "score" : "total"}</th><td class="line"><b class="at" style={{ left: share(at) }} /></td><td class="n">{number(at, scale)}</td></tr>
      </tbody></table>
    </article>
  );
}

function Cohorts({ part }: { part: OverviewPart }) {
  const most = Math.max(...part.cohorts.flatMap(({ means }) => means.map(({ high }) => high))) || 1;
  const scale = part.columns[0]!.mean.size;
  return (
    <article>
      <h2>For whom <small>mean |value| by {part.by}, with its 95 % interval ({part.unit})</small></h2>
      <p class="kinds quiet">{part.cohorts.map(({ name, rows }, i) => <span key={name}><i style={{ background: KINDS[i % KINDS.length] }} />{name} ({rows} rows)</span>)}</p>
      <table class="lines cohorts"><tbody>
        {part.columns.slice(0, ROWS).map(({ name }, j) => (
          <tr key={name}>
            <th scope="row">{name}</th>
            <td>{part.cohorts.map((cohort, i) => (
              <div class="line thin" key={cohort.name}><Size mean={cohort.means[j]!} most={most} colour={KINDS[i % KINDS.length]!} /></div>
            ))}</td>
            <td class="n">{part.cohorts.map((cohort) => (
              <div class="thin" key={cohort.name} title={cohort.name}>{number(cohort.means[j]!.size, scale)}{cohort.sure[j] ? " *" : "\u00a0\u00a0"}</div>
            ))}</td>
          </tr>
        ))}
      </tbody></table>
      <p class="quiet">{part.cohorts.length > 1 ? "* surely another mean than in the other rows (permutation test, Holm-corrected p < 0.05)" : "All rows are in one cohort: there is nothing to compare"}</p>
    </article>
  );
}
