// The report of a study: tables with intervals, curves, rankings, agreement, and the file that it was run from.
import { ChartView, MatrixView } from "./chart";
import type { Study, Table } from "./data";
import { Header, Method, Versions } from "./report";

export function StudyView({ study }: { study: Study }) {
  return (
    <main>
      <Header plain />
      <h1>{study.title}</h1>
      <p class="quiet">{study.about}</p>
      {study.tables.map((table) => <TableView key={table.title} table={table} />)}
      <div class="cards wide">
        {study.charts.map((chart) => <article key={chart.title}><ChartView chart={chart} /></article>)}
        {study.matrices.map((matrix) => <article key={matrix.title}><MatrixView matrix={matrix} /></article>)}
      </div>
      <details><summary>How to run it again</summary><pre><code>{study.settings}</code></pre></details>
      <Versions versions={study.versions} />
    </main>
  );
}

function TableView({ table }: { table: Table }) {
  const best = (row: number, column: number) => table.best.some(([i, j]) => i === row && j === column);
  return (
    <section class="scroll" tabIndex={0} aria-label={table.title}>
      <table class="results">
        <caption><b>{table.title}</b></caption>
        <thead><tr>{table.columns.map((column) => <th key={column} scope="col" class={column && "n"}>{column}</th>)}</tr></thead>
        <tbody>
          {table.rows.map((row, i) => (
            <tr key={i} class={table.references.includes(row[0]!) ? "reference" : undefined}>
              {row.map((cell, j) => j === 0 ? <th key={j} scope="row"><Method name={cell} /></th>
                : <td key={j} class={best(i, j) ? "n best" : "n"}>{cell}</td>)}
            </tr>
          ))}
        </tbody>
      </table>
      <p class="quiet">{table.note}</p>
    </section>
  );
}
