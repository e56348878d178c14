// The answer of a language model: choose a piece of it to see where it comes from, or a piece of the prompt to see what
// it moved.
import { useState } from "preact/hooks";
import type { Answer, AnswerMap } from "./data";
import { largest, number, signed } from "./numbers";
import type { Look } from "./numbers";
import { Controls, Header, TestScores, Versions } from "./report";
import { Reading, ground, walk } from "./shown";

type Chosen = { row: number } | { piece: number };

export function AnswerView({ page }: { page: Answer }) {
  const [look, setLook] = useState<Look>({ opacity: 1, threshold: 0, shared: false });
  return (
    <main>
      <Header><Controls look={look} change={setLook} several={false} /></Header>
      <AnswerMaps page={page} look={look} />
      <Versions versions={page.versions} />
    </main>
  );
}

/** What was asked, and what each method says of the answer. */
export function AnswerMaps({ page, look, stale = false }: { page: Answer; look: Look; stale?: boolean }) {
  return (
    <div class={stale ? "stale" : undefined}>
      <p class="quiet">{page.model && `${page.model} was asked`}</p>
      <blockquote dir="auto">{page.prompt}</blockquote>
      {page.maps.map((map) => <MapView key={map.repr} page={page} map={map} look={look} />)}
    </div>
  );
}

function MapView({ page, map, look }: { page: Answer; map: AnswerMap; look: Look }) {
  const [chosen, setChosen] = useState<Chosen>({ row: 0 });
  const row = "row" in chosen ? map.rows[chosen.row]! : null;
  const moved = "piece" in chosen ? map.pieces[chosen.piece]! : null;
  const scale = row
    ? largest([...map.pieces.map((piece) => piece.values?.[(chosen as { row: number }).row] ?? 0), ...row.before])
    : largest(moved!.values!);
  return (
    <article class="answer" aria-label={map.method}>
      <h2>{map.method}</h2>
      <p class="quiet">The answer; choose a word of it to see where it comes from</p>
      <p class="words said" dir="auto" onKeyDown={walk}>
        {page.answer.map((text, token) => {
          const own = map.rows.findIndex(({ first, last }) => first <= token && token < last);
          const value = row ? row.before[token] ?? 0 : own < 0 ? 0 : moved!.values![own]!;
          return own < 0 ? text : (
            <button
              key={token} type="button" class="chip" data-chip data-value={value} aria-pressed={"row" in chosen && chosen.row === own}
              style={{ background: ground(value, scale, look) }} title={`${text} ${signed(value, scale)}`} onClick={() => setChosen({ row: own })}
            >{text}</button>
          );
        })}
      </p>
      <p class="quiet">The prompt; choose a word of it to see what it moved</p>
      <p class="words" dir="auto" onKeyDown={walk}>
        {map.pieces.map(({ text, values, special }, i) => {
          if (!values) return text;
          const value = "row" in chosen ? values[chosen.row]! : 0;
          return (
            <button
              key={i} type="button" class={special ? "chip special" : "chip"} data-chip data-value={value}
              aria-pressed={"piece" in chosen && chosen.piece === i} style={{ background: ground(value, scale, look) }}
              title={`${text} ${signed(value, scale)}`} onClick={() => setChosen({ piece: i })}
            >{text}</button>
          );
        })}
      </p>
      <Reading>
        {row ? `${row.name}: ${page.score} ${number(row.score, Math.abs(row.score))}` : `what “${moved!.text.trim()}” moved`}
      </Reading>
      {row && <p class="balance">{row.balance}</p>}
      {row && <div class="tests"><TestScores tests={row.tests} /></div>}
      {map.warnings.map((warning) => <p class="warning" key={warning}><b>Warning.</b> {warning}</p>)}
      {map.rows.length > 1 && <details><summary>All at once</summary><Grid map={map} look={look} /></details>}
      <details class="repeat">
        <summary>Settings and cost</summary>
        <p><code>{map.repr}</code></p>
        <p class="quiet">{[map.cost, map.chosen && `chosen: ${map.chosen}`].filter(Boolean).join(" · ")}</p>
      </details>
    </article>
  );
}

/** Each word of the answer against each of the prompt. */
function Grid({ map, look }: { map: AnswerMap; look: Look }) {
  const pieces = map.pieces.filter(({ values }) => values);
  const scale = largest(pieces.flatMap(({ values }) => values!));
  return (
    <div class="scroll">
      <table class="matrix grid">
        <thead><tr><td />{map.rows.map(({ name }, i) => <th key={i} scope="col" class="n">{name}</th>)}</tr></thead>
        <tbody>
          {pieces.map(({ text, values, special }, i) => (
            <tr key={i}>
              <th scope="row">{special ? <small>{text}</small> : text}</th>
              {values!.map((value, j) => (
                <td key={j} class="n" style={{ background: ground(value, scale, look) }}>{signed(value, scale)}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
