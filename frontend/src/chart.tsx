// Curves with bands, and matrices of agreement, as SVG.
import { number } from "./numbers";
import type { Chart, Matrix } from "./data";

const WIDTH = 440, HEIGHT = 250, LEFT = 66, RIGHT = 14, TOP = 10, BOTTOM = 44;
// Okabe & Ito (2008), without their yellow and black; dashes tell the curves apart without colour.
const COLOURS = ["rgb(var(--for))", "rgb(var(--against))", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const GREY = ["1 4", "5 4", "9 4 1 4"];
const DASHES = ["", "7 3", "2 3", "9 3 2 3"];

export function ChartView({ chart }: { chart: Chart }) {
  const known = chart.curves.flatMap((curve) => [...curve.y, ...(curve.low ?? []), ...(curve.high ?? [])]);
  const xs = chart.curves.flatMap((curve) => curve.x);
  const [x0, x1] = [Math.min(0, ...xs), Math.max(1, ...xs)];
  // Probabilities have one frame, so that curves side by side can be compared, and do not jump while they grow.
  let [y0, y1] = chart.y === "probability" ? [0, 1] : [Math.min(...known), Math.max(...known)];
  if (!(y1 > y0)) [y0, y1] = [(y0 || 0) - 0.5, (y0 || 0) + 0.5];
  const px = (x: number) => LEFT + ((x - x0) / (x1 - x0)) * (WIDTH - LEFT - RIGHT);
  const py = (y: number) => TOP + ((y1 - y) / (y1 - y0)) * (HEIGHT - TOP - BOTTOM);
  const points = (x: number[], y: number[]) => x.map((at, i) => `${px(at).toFixed(1)},${py(y[i]!).toFixed(1)}`);
  const tick = (value: number, span: number) => number(Math.abs(value) < span / 1000 ? 0 : value, span);
  let coloured = 0, grey = 0;
  const drawn = chart.curves.map((curve) => {
    const i = curve.reference ? -1 : coloured++;
    return { curve, colour: i < 0 ? "var(--muted)" : COLOURS[i % COLOURS.length]!, dash: i < 0 ? GREY[grey++ % GREY.length]! : DASHES[i % DASHES.length]! };
  });
  return (
    <figure class="chart">
      {chart.title && <figcaption>{chart.title}</figcaption>}
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={`${chart.title}: ${chart.y} over ${chart.x}`}>
        {[y0, (y0 + y1) / 2, y1].map((y) => (
          <g key={y}>
            <line class="grid" x1={LEFT} x2={WIDTH - RIGHT} y1={py(y)} y2={py(y)} />
            <text x={LEFT - 6} y={py(y) + 4} text-anchor="end">{tick(y, y1 - y0)}</text>
          </g>
        ))}
        {[x0, (x0 + x1) / 2, x1].map((x, i) => (
          <text key={x} x={px(x)} y={HEIGHT - BOTTOM + 17} text-anchor={["start", "middle", "end"][i]}>{tick(x, x1 - x0)}</text>
        ))}
        <text x={(LEFT + WIDTH - RIGHT) / 2} y={HEIGHT - 4} text-anchor="middle">{chart.x}</text>
        <text x={-(TOP + HEIGHT - BOTTOM) / 2} y={13} text-anchor="middle" transform="rotate(-90)">{chart.y}</text>
        {drawn.map(({ curve, colour }) => curve.low && curve.high && (
          <polygon key={curve.name} fill={colour} opacity={0.12}
            points={[...points(curve.x, curve.low), ...points(curve.x, curve.high).reverse()].join(" ")} />
        ))}
        {drawn.map(({ curve, colour, dash }) => (
          <polyline key={curve.name} fill="none" stroke={colour} stroke-width={2} stroke-dasharray={dash}
            points={points(curve.x, curve.y).join(" ")}><title>{curve.name}</title></polyline>
        ))}
      </svg>
      <ul class="legend">
        {drawn.map(({ curve, colour, dash }) => (
          <li key={curve.name}>
            <svg width="22" height="8" aria-hidden="true"><line x1="0" x2="22" y1="4" y2="4" stroke={colour} stroke-width="2.5" stroke-dasharray={dash} /></svg>
            {curve.name}
          </li>
        ))}
      </ul>
    </figure>
  );
}

/** Numbers from −1 to 1 between each two names. */
export function MatrixView({ matrix }: { matrix: Matrix }) {
  return (
    <div class="scroll" role="group" tabIndex={0} aria-label={matrix.title}>
      <table class="matrix">
        <caption>{matrix.title}</caption>
        <thead><tr><td />{matrix.names.map((name) => <th key={name} scope="col">{name}</th>)}</tr></thead>
        <tbody>
          {matrix.values.map((row, i) => (
            <tr key={i}>
              <th scope="row">{matrix.names[i]}</th>
              {row.map((value, j) => (
                <td key={j} class="n" style={value === null ? {} : { background: `rgba(var(--${value >= 0 ? "for" : "against"}), ${0.6 * Math.min(1, Math.abs(value))})` }}>
                  {value === null ? "–" : number(value)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
