// One explained sample by one method: a heat map on its photo, coloured words, bars, partners.
import { useEffect, useRef, useState } from "preact/hooks";
import { AGAINST, FOR, cellsOf, largest, number, signed, strength } from "./numbers";
import type { Bars, Heat, Pairs, Shown, TextPieces } from "./data";
import type { Look } from "./numbers";

type Drawn<Kind> = { shown: Kind; look: Look; scale: number };

export function ShownView({ shown, photo, ...rest }: Drawn<Shown> & { photo: string | null }) {
  switch (shown.kind) {
    case "heat": return <HeatView shown={shown} photo={photo} {...rest} />;
    case "words": return <WordsView shown={shown} {...rest} />;
    case "bars": return <BarsView shown={shown} {...rest} />;
    case "pairs": return <PairsView shown={shown} {...rest} />;
  }
}

export function paint(canvas: HTMLCanvasElement, heat: Heat, look: Look, scale: number) {
  const cells = cellsOf(heat), pixels = new ImageData(heat.columns, heat.rows);
  cells.forEach((value, i) => {
    pixels.data.set(value >= 0 ? FOR : AGAINST, 4 * i);
    pixels.data[4 * i + 3] = Math.round(255 * strength(value, scale, look));
  });
  canvas.width = heat.columns;
  canvas.height = heat.rows;
  canvas.getContext("2d")!.putImageData(pixels, 0, 0);
}

const STEPS: Record<string, [number, number]> = {
  ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
};

function HeatView({ shown: heat, photo, look, scale }: Drawn<Heat> & { photo: string | null }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [at, setAt] = useState<[column: number, row: number] | null>(null);
  useEffect(() => paint(canvas.current!, heat, look, scale), [heat, look, scale]);
  const clamp = (value: number, most: number) => Math.max(0, Math.min(most - 1, value));
  const point = (event: PointerEvent) => {
    const box = canvas.current!.getBoundingClientRect();
    setAt([
      clamp(Math.floor(((event.clientX - box.left) / box.width) * heat.columns), heat.columns),
      clamp(Math.floor(((event.clientY - box.top) / box.height) * heat.rows), heat.rows),
    ]);
  };
  const step = (event: KeyboardEvent) => {
    const move = STEPS[event.key];
    if (!move) return;
    event.preventDefault();
    const [column, row] = at ?? [heat.columns >> 1, heat.rows >> 1];
    setAt([clamp(column + move[0], heat.columns), clamp(row + move[1], heat.rows)]);
  };
  const [left, top, right, bottom] = heat.frame, [across, down] = heat.size;
  const x = (column: number) => Math.round(Math.max(0, Math.min(across, left + (column / heat.columns) * (right - left))));
  const y = (row: number) => Math.round(Math.max(0, Math.min(down, top + (row / heat.rows) * (bottom - top))));
  const value = at && cellsOf(heat)[at[1] * heat.columns + at[0]]!;
  return (
    <figure>
      <div
        class="stack" style={{ aspectRatio: `${heat.width}/${heat.height}` }} tabIndex={0} role="application"
        aria-label="Heat map; arrow keys read its cells" onPointerMove={point} onPointerDown={point}
        onPointerLeave={() => setAt(null)} onKeyDown={step}
      >
        {photo && <img class="ground" src={photo} alt="" />}
        <canvas class="heat" ref={canvas} />
        {at && (
          <i class="cell" style={{
            left: `${(100 * at[0]) / heat.columns}%`, top: `${(100 * at[1]) / heat.rows}%`,
            width: `${100 / heat.columns}%`, height: `${100 / heat.rows}%`,
          }} />
        )}
      </div>
      <div class="scale" aria-hidden="true"><span>{number(-scale, scale)}</span><i /><span>{signed(scale, scale)}</span></div>
      <Reading>
        {at && `x ${x(at[0])}–${x(at[0] + 1)}, y ${y(at[1])}–${y(at[1] + 1)}: ${signed(value!, scale)}`}
      </Reading>
      <figcaption>{heat.legend}; places in pixels of {heat.pixels_of}</figcaption>
    </figure>
  );
}

/** What the pointer or the keyboard is at; the line stays where it is when there is nothing to read. */
export function Reading({ children }: { children: preact.ComponentChildren }) {
  return <p class="reading" aria-live="polite">{children || "\u00a0"}</p>;
}

export function ground(value: number, scale: number, look: Look) {
  return `rgba(var(--${value >= 0 ? "for" : "against"}), ${(0.7 * strength(value, scale, look)).toFixed(3)})`;
}

/** The arrow keys move between the chips of a text, so that it is one stop for the tab key. */
export function walk(event: KeyboardEvent) {
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (!step) return;
  const chips = [...(event.currentTarget as HTMLElement).querySelectorAll<HTMLElement>("[data-chip]")];
  const next = chips[chips.indexOf(document.activeElement as HTMLElement) + step];
  if (next) {
    event.preventDefault();
    next.focus();
  }
}

function WordsView({ shown, look, scale }: Drawn<TextPieces>) {
  const [at, setAt] = useState<number | null>(null);
  const first = shown.pieces.findIndex(([, value]) => value !== null);
  const [text, value] = (at !== null && shown.pieces[at]) || ["", null];
  return (
    <>
      <p class="words" dir="auto" onKeyDown={walk} onPointerLeave={() => setAt(null)}>
        {shown.pieces.map((piece, i) => {
          const [text, value] = piece;
          return value === null ? text : (
            <span
              key={i} class={piece.length > 2 ? "chip special" : "chip"} data-chip data-value={value}
              tabIndex={i === (at ?? first) ? 0 : -1} style={{ background: ground(value, scale, look) }}
              onPointerEnter={() => setAt(i)} onFocus={() => setAt(i)} title={`${text} ${signed(value, scale)}`}
            >{text}</span>
          );
        })}
      </p>
      <Reading>{value !== null && `${text} ${signed(value, scale)}`}</Reading>
    </>
  );
}

const BARS = 12;

function BarsView({ shown, scale, look }: Drawn<Bars>) {
  const [all, setAll] = useState(false);
  const order = shown.values.map((_, i) => i).filter((i) => shown.values[i])
    .sort((i, j) => Math.abs(shown.values[j]!) - Math.abs(shown.values[i]!));
  const rows = (all ? order : order.slice(0, BARS)).filter((i) => Math.abs(shown.values[i]!) >= look.threshold * scale);
  return (
    <>
      <table class="bars">
        <tbody>
          {rows.map((i) => <Bar key={i} name={shown.names[i]!} value={shown.values[i]!} scale={scale} opacity={look.opacity} />)}
        </tbody>
      </table>
      {!order.length && <p class="quiet">every value is zero</p>}
      {order.length > BARS && (
        <button class="plain" onClick={() => setAll(!all)}>
          {all ? "only the largest" : `${order.length - BARS} smaller ones`}
        </button>
      )}
    </>
  );
}

export function Bar({ name, value, scale, opacity = 1, size, count }: { name: string; value: number; scale: number; opacity?: number; size?: number; count?: number }) {
  const sign = value >= 0 ? "for" : "against";
  return (
    <tr>
      <th scope="row">{name}</th>
      <td class="track"><i class={sign} style={{ width: `${50 * Math.min(1, Math.abs(value) / scale)}%`, opacity }} /></td>
      <td class="n">{signed(value, scale)}</td>
      {size !== undefined && <td class="n">{number(size, scale)}</td>}
      {count !== undefined && <td class="n">{count}</td>}
    </tr>
  );
}

/** Words or names; the partners of the chosen one are coloured by what each pair contributes. */
function PairsView({ shown, look, scale }: Drawn<Pairs>) {
  const [chosen, setChosen] = useState<number | null>(null);
  const pair = (i: number, j: number) => {
    const values = [shown.values[i]![j], shown.values[j]![i]];
    return values.includes(null) ? null : values[0]! + values[1]!;
  };
  const others = shown.names.map((_, j) => j).filter((j) => j !== chosen);
  const reach = chosen === null ? scale : largest(shown.names.flatMap((_, i) => shown.names.map((_, j) => (i < j ? pair(i, j) : 0))));
  const strongest = chosen === null ? [] : others
    .map((j) => [j, pair(chosen, j) ?? 0] as const).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, 5);
  return (
    <>
      <p class={shown.text ? "words" : "words apart"} dir="auto" onKeyDown={walk}>
        {shown.names.map((name, i) => {
          const value = chosen === null ? shown.alone[i]! : i === chosen ? 0 : pair(chosen, i) ?? 0;
          return (
            <>
              <button
                type="button" class="chip" data-chip data-value={value} tabIndex={i === (chosen ?? 0) ? 0 : -1}
                aria-pressed={i === chosen} style={{ background: ground(value, reach, look) }} title={`${name} ${signed(value, reach)}`}
                onClick={() => setChosen(i === chosen ? null : i)}
              >{name}</button>{" "}
            </>
          );
        })}
      </p>
      {chosen === null
        ? <p class="quiet">Choose {shown.text ? "a word" : "a feature"} to see which others it acts together with.</p>
        : (
          <table class="bars">
            <caption>What “{shown.names[chosen]}” does together with</caption>
            <tbody>{strongest.map(([j, value]) => <Bar key={j} name={shown.names[j]!} value={value} scale={reach} />)}</tbody>
          </table>
        )}
    </>
  );
}
