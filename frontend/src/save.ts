// Taking things away: a card as a picture, what is on the page as JSON, the page itself as one HTML file.
import { AGAINST, FOR, largest, number, signed, strength } from "./numbers";
import type { Card, Page, Section } from "./data";
import type { Look } from "./numbers";
import { paint } from "./shown";

export function saveBlob(blob: Blob, name: string) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name.replace(/[^\w.-]+/g, "-");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

export function saveJson(data: unknown, name: string) {
  saveBlob(new Blob([JSON.stringify(data, null, 1)], { type: "application/json" }), name);
}

/** The page that this script came in, with other data in it. */
export function saveHtml(shown: Page) {
  const page = document.implementation.createHTMLDocument("apportion");
  page.documentElement.lang = "en";
  for (const part of document.querySelectorAll("head > meta, head > style, #code")) page.head.append(page.importNode(part, true));
  const data = page.createElement("script");
  data.type = "application/json";
  data.id = "data";
  data.textContent = JSON.stringify(shown).replaceAll("<", "\\u003c");
  const code = page.querySelector("#code")!;
  page.body.append(data, code);
  saveBlob(new Blob(["<!doctype html>\n", page.documentElement.outerHTML], { type: "text/html" }), "apportion.html");
}

const WIDE = 720, MARGIN = 24, INK = "#1b1d22", MUTED = "#59606c";

/** Drawn on white, whatever the colours of the screen: it is to be printed. */
export async function savePicture(card: Card, section: Section, look: Look, scale: number) {
  const canvas = document.createElement("canvas");
  const pen = canvas.getContext("2d")!;
  const photo = section.photo && card.shown.kind === "heat" ? await loaded(section.photo) : null;
  // Once to find the height, once to draw: setting the height clears the canvas.
  canvas.width = 2 * WIDE;
  const height = draw(pen, card, section, look, scale, photo);
  canvas.height = 2 * Math.ceil(height);
  pen.scale(2, 2);
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, WIDE, height);
  draw(pen, card, section, look, scale, photo);
  canvas.toBlob((blob) => blob && saveBlob(blob, `${section.label}-${card.method}.png`));
}

async function loaded(source: string) {
  const image = new Image();
  image.src = source;
  await image.decode();
  return image;
}

function draw(pen: CanvasRenderingContext2D, card: Card, section: Section, look: Look, scale: number, photo: HTMLImageElement | null) {
  const { shown } = card;
  pen.textBaseline = "top";
  let y = MARGIN;
  const line = (text: string, font: string, colour = INK) => {
    pen.font = `${font} system-ui, sans-serif`;
    pen.fillStyle = colour;
    pen.fillText(text, MARGIN, y, WIDE - 2 * MARGIN);
  };
  line(`${section.label} · ${card.method}${card.target === section.label ? "" : ` of ${card.target}`}`, "bold 20px");
  y += 40;
  if (shown.kind === "heat") {
    const wide = Math.min(WIDE - 2 * MARGIN, (560 * shown.width) / shown.height), high = (wide * shown.height) / shown.width;
    if (photo) {
      pen.save();
      pen.globalAlpha = 0.37;
      pen.filter = "grayscale(1)";
      pen.drawImage(photo, MARGIN, y, wide, high);
      pen.restore();
    }
    const heat = document.createElement("canvas");
    paint(heat, shown, look, scale);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(heat, MARGIN, y, wide, high);
    y += high + 8;
    line(shown.legend, "12px", MUTED);
    y += 24;
  } else if (shown.kind === "words" || shown.kind === "pairs") {
    const pieces = shown.kind === "words" ? shown.pieces : shown.names.flatMap((name, i) => [[name, shown.alone[i]!], [" ", null]] as const);
    let x = MARGIN;
    pen.font = "18px Georgia, serif";
    for (const [text, value] of pieces) {
      const width = pen.measureText(text).width;
      if (x > MARGIN && x + width > WIDE - MARGIN) [x, y] = [MARGIN, y + 34];
      if (value !== null) {
        pen.fillStyle = shade(value, scale, look);
        pen.fillRect(x - 2, y - 4, width + 4, 27);
      }
      pen.fillStyle = INK;
      pen.fillText(text, x, y);
      x += width + (value === null ? 0 : 1);
    }
    y += 48;
  } else {
    const reach = largest(card.top.map(([, value]) => value));
    for (const [name, value] of card.top) {
      pen.font = "14px system-ui, sans-serif";
      pen.fillStyle = INK;
      pen.fillText(name, MARGIN, y, 250);
      pen.fillText(signed(value, reach), WIDE - MARGIN - 70, y);
      const length = (150 * Math.abs(value)) / reach;
      pen.fillStyle = `rgb(${value >= 0 ? FOR : AGAINST})`;
      pen.fillRect(value >= 0 ? 440 : 440 - length, y, length, 14);
      y += 24;
    }
    y += 12;
  }
  line(card.balance, "bold 14px");
  y += 22;
  for (const { test, value } of card.tests) {
    line(`${test.split("(")[0]}  ${value === null ? "–" : number(value, Math.abs(value))}`, "12px");
    y += 18;
  }
  line(card.repr, "12px", MUTED);
  return y + 16 + MARGIN;
}

function shade(value: number, scale: number, look: Look) {
  return `rgba(${value >= 0 ? FOR : AGAINST}, ${0.7 * strength(value, scale, look)})`;
}
