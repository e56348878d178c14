// How numbers are written (as in apportion/wording.py), and how strongly they are coloured.
import type { Heat, Shown } from "./data";

/** How the page is looked at: shares of the scale, and whether all methods share one. */
export type Look = { opacity: number; threshold: number; shared: boolean };

/** A number to three digits of `scale` and at least two decimals, with a true minus sign. */
export function number(value: number, scale = 1): string {
  const decimals = scale > 0 ? Math.max(2, 2 - Math.floor(Math.log10(scale))) : 2;
  let text = decimals < 7 ? value.toFixed(decimals) : value ? value.toExponential(2) : "0.00";
  if (value && !Number(text)) text = String(Number(value.toPrecision(2)));
  return text.replace(/^-/, "−").replace(/e([+-])(\d)$/, "e$10$2"); // two digits of an exponent, as Python has
}

export function signed(value: number, scale = 1): string {
  return value < 0 ? number(value, scale) : `+${number(value, scale)}`;
}

export function largest(values: Iterable<number | null>): number {
  let most = 0;
  for (const value of values) most = Math.max(most, Math.abs(value ?? 0));
  return most || 1;
}

const decoded = new WeakMap<Heat, Float32Array>();
export function cellsOf(heat: Heat): Float32Array {
  let cells = decoded.get(heat);
  if (!cells) {
    const bytes = Uint8Array.from(atob(heat.cells), (letter) => letter.charCodeAt(0));
    decoded.set(heat, (cells = new Float32Array(bytes.buffer)));
  }
  return cells;
}

/** The |value| at which colours are full. */
export function scaleOf(shown: Shown): number {
  switch (shown.kind) {
    case "heat": return shown.scale;
    case "words": return largest(shown.pieces.map(([, value]) => value));
    case "bars": return largest(shown.values);
    case "pairs": return largest(shown.alone);
  }
}

export const FOR = [213, 94, 0] as const;
export const AGAINST = [0, 114, 178] as const;

/** How strongly a value is coloured, 0 to 1, under the sliders. */
export function strength(value: number, scale: number, look: Look): number {
  const share = Math.min(1, Math.abs(value) / scale);
  return share < look.threshold ? 0 : share * look.opacity;
}
