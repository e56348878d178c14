// The report: for each input what the model decided, and a card for each method, side by side.
import { useState } from "preact/hooks";
import { ChartView } from "./chart";
import { largest, number, scaleOf, signed } from "./numbers";
import type { Card, Report, Section, TestScore } from "./data";
import type { Look } from "./numbers";
import { PanelsView } from "./panels";
import { Bar, ShownView } from "./shown";
import { saveJson, savePicture } from "./save";

export function ReportView({ report }: { report: Report }) {
  const [look, setLook] = useState<Look>({ opacity: 1, threshold: 0, shared: report.same_scale });
  return (
    <main>
      <Header><Controls look={look} change={setLook} several={report.sections.some((s) => s.cards.length > 1)} /></Header>
      {report.sections.map((section, i) => <SectionView key={i} section={section} look={look} />)}
      <Versions versions={report.versions} />
    </main>
  );
}

export function Header({ children, plain }: { children?: preact.ComponentChildren; plain?: boolean }) {
  return (
    <header class="page">
      <p class="brand">apportion</p>
      {!plain && <p class="key"><span class="chip for">speaks for it</span> <span class="chip against">speaks against it</span></p>}
      {children}
    </header>
  );
}

export function Versions({ versions }: { versions: Record<string, string> }) {
  return <footer>{Object.entries(versions).map(([name, version]) => `${name} ${version}`).join(" · ")}</footer>;
}

export function Controls({ look, change, several }: { look: Look; change: (look: Look) => void; several: boolean }) {
  const slider = (name: "opacity" | "threshold", label: string, most: number) => (
    <label>
      {label}{" "}
      <input type="range" name={name} min="0" max={most} value={Math.round(100 * look[name])}
        onInput={(event) => change({ ...look, [name]: Number(event.currentTarget.value) / 100 })} />
      <output>{Math.round(100 * look[name])} %</output>
    </label>
  );
  return (
    <form class="controls" onSubmit={(event) => event.preventDefault()}>
      {slider("opacity", "Colours", 100)}
      {slider("threshold", "Only above", 95)}
      {several && (
        <label><input type="checkbox" name="shared" checked={look.shared}
          onChange={(event) => change({ ...look, shared: event.currentTarget.checked })} /> one scale for all methods</label>
      )}
    </form>
  );
}

export function SectionView({ section, look, tools, stale }: { section: Section; look: Look; tools?: preact.ComponentChildren; stale?: boolean }) {
  const shared = (card: Card) =>
    Math.max(...section.cards.filter((other) => other.shown.kind === card.shown.kind).map((other) => scaleOf(other.shown)));
  const { title, note } = section;
  const picture = note.startsWith(title) ? note : [title, note].filter(Boolean).join(", ");
  const about = section.photo ? picture : section.text ? "the text" : title;
  return (
    <section class={stale ? "stale" : undefined}>
      <div class="decision">
        {section.photo && <img class="photo" src={section.photo} alt={`The picture as the model saw it: ${picture}`} />}
        <div>
          <p class="quiet">{section.model && `${section.model} on `}{about}</p>
          {section.text && <blockquote dir="auto">{section.text}</blockquote>}
          <h1>{section.label}{section.classes === 1 && ` ${number(section.ranking[0]![1])}`}</h1>
          {section.classes > 1 && <Ranking section={section} />}
        </div>
        {tools}
      </div>
      <Ties cards={section.cards} />
      <div class="cards">
        {section.cards.map((card) => (
          <CardView key={`${card.repr} ${card.target}`} card={card} section={section} look={look} scale={look.shared ? shared(card) : scaleOf(card.shown)} />
        ))}
      </div>
    </section>
  );
}

function Ranking({ section: { ranking, classes } }: { section: Section }) {
  return (
    <table class="ranking">
      <caption>{classes === ranking.length ? "All classes" : `The best ${ranking.length} of ${classes} classes`}</caption>
      <thead><tr><td /><th scope="col" class="n">score</th><th scope="col" class="n">probability</th><td /></tr></thead>
      <tbody>
        {ranking.map(([label, score, probability]) => (
          <tr key={label}>
            <th scope="row">{label}</th>
            <td class="n">{number(score)}</td>
            <td class="n">{probability !== null && `${(100 * probability).toFixed(1)} %`}</td>
            <td class="meter" aria-hidden="true">{probability !== null && <i style={{ width: `${100 * probability}%` }} />}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

export function CardView({ card, section, look, scale }: { card: Card; section: Section; look: Look; scale: number }) {
  const shown = <ShownView shown={card.shown} photo={section.photo} look={look} scale={scale} />;
  const most = largest(card.top.map(([, value]) => value));
  return (
    <article aria-label={card.method}>
      <h2><Method name={card.method} />{card.target !== section.label && <small> of {card.target}</small>}</h2>
      {card.panels.length > 0 && section.photo
        ? <><PanelsView card={card} photo={section.photo} /><details><summary>All prototypes</summary>{shown}</details></>
        : shown}
      <p class="quiet unit">{card.unit}</p>
      <p class="balance">{card.balance}</p>
      {card.share !== null && <div class="share" aria-hidden="true"><i style={{ width: `${100 * card.share}%` }} /></div>}
      {card.warnings.map((warning) => <p class="warning" key={warning}><b>Warning.</b> {warning}</p>)}
      <Tests card={card} />
      {card.shown.kind === "heat" && card.top.length > 0 && (
        <details>
          <summary>Largest regions, in pixels of {card.shown.pixels_of}</summary>
          <table class="top"><tbody>
            {card.top.map(([name, value]) => (
              <tr key={name}><th scope="row">{name}</th><td class={value >= 0 ? "n for" : "n against"}>{signed(value, most)}</td></tr>
            ))}
          </tbody></table>
        </details>
      )}
      {card.ledger && card.ledger.rows.length > 0 && <Ledger ledger={card.ledger} />}
      <details class="repeat">
        <summary>Settings and cost</summary>
        <p><code>{card.repr}</code></p>
        <p class="quiet">{[card.cost, ...Object.entries(card.notes).map(([name, value]) => `${name}: ${noted(value)}`)].join(" · ")}</p>
      </details>
      <p class="tools">
        <button class="plain" onClick={() => savePicture(card, section, look, scale)}>Picture</button>
        <button class="plain" onClick={() => saveJson({ ...section, photo: undefined, cards: [card] }, `${card.method}.json`)}>JSON</button>
      </p>
    </article>
  );
}

/** A method with its settings, which may go on in the next line after a sign, not within a word. */
export function Method({ name }: { name: string }) {
  return <>{name.split(/(?<=[(,=])/).map((part, i) => <>{i > 0 && <wbr />}{part}</>)}</>;
}

function noted(value: unknown): unknown {
  if (Array.isArray(value) && value.length > 3) return `${value.length} numbers`;
  return typeof value === "number" ? number(value, Math.abs(value)) : value;
}

function Tests({ card }: { card: Card }) {
  if (!card.tests.length && !card.chart) return null;
  return (
    <div class="tests">
      <TestScores tests={card.tests} />
      {card.chart && <ChartView chart={card.chart} />}
    </div>
  );
}

export function TestScores({ tests }: { tests: TestScore[] }) {
  const beside = Object.keys(tests[0]?.beside ?? {});
  const cell = (value: number | null | undefined) => (value === null || value === undefined ? "–" : number(value, Math.abs(value)));
  return tests.length === 0 ? null : (
    <table class="scores">
      <caption>Tests of this explanation{beside.length > 0 && ", beside maps that know nothing of it"}</caption>
      {beside.length > 0 && <thead><tr>{["this", ...beside].map((name) => <th key={name} scope="col" class="n">{name}</th>)}</tr></thead>}
      <tbody>
        {tests.map(({ test, value, direction, beside: others }) => (
          <>
            <tr><th scope="row" colSpan={1 + beside.length} title={test}>{test.split("(")[0]} <span class="quiet">{direction}</span></th></tr>
            <tr>
              <td class="n"><b>{cell(value)}</b></td>
              {beside.map((name) => <td key={name} class="n quiet">{cell(others[name])}</td>)}
            </tr>
          </>
        ))}
      </tbody>
    </table>
  );
}

/** The tests in which all methods have one and the same score, as in apportion/results/scores.py. */
function Ties({ cards }: { cards: Card[] }) {
  const found = new Map<string, string[]>();
  for (const { tests } of cards) {
    for (const { test, value } of tests) if (value !== null) found.set(test, [...(found.get(test) ?? []), value.toPrecision(6)]);
  }
  const ties = [...found].filter(([, values]) => values.length > 1 && new Set(values).size === 1).map(([test]) => test.split("(")[0]);
  return ties.length === 0 ? null
    : <p class="warning tie">{ties.join(", ")}: all methods have the same score, so this input does not tell them apart.</p>;
}

function Ledger({ ledger }: { ledger: NonNullable<Card["ledger"]> }) {
  const rows = ledger.rows.flatMap((row) => (["bias", "stabiliser", "unruled", "softmax"] as const)
    .filter((cause) => row[cause]).map((cause) => [`${row.name} · ${cause}`, row[cause]] as const));
  const scale = largest(rows.map(([, value]) => value));
  return (
    <details>
      <summary>What is left over, by operation</summary>
      <table class="bars"><tbody>{rows.map(([name, value]) => <Bar key={name} name={name} value={value} scale={scale} />)}</tbody></table>
      {ledger.left_out > 0 && <p class="quiet">{ledger.left_out} smaller ones are not drawn</p>}
    </details>
  );
}
