// This looks like that: where in the picture a prototype was found, and the training picture that it is from.
import { useState } from "preact/hooks";
import { number, signed } from "./numbers";
import type { Box, Card, Panel, Picture } from "./data";
import { walk } from "./shown";

const AT_FIRST = 3;

export function PanelsView({ card: { panels, shown }, photo }: { card: Card; photo: string }) {
  const [all, setAll] = useState(false);
  const rows = all ? panels : panels.slice(0, AT_FIRST);
  const total = shown.kind === "bars" ? shown.values.reduce((sum, value) => sum + value, 0) : 0;
  const others = total - rows.reduce((sum, { contribution }) => sum + contribution, 0);
  return (
    <div class="panels">
      <ol onKeyDown={walk}>
        {rows.map((panel, i) => <PanelView key={panel.name} panel={panel} photo={photo} first={!i} />)}
      </ol>
      <p class="quiet">all other prototypes {signed(others)}; with them the score {number(total)}</p>
      {panels.length > AT_FIRST && (
        <button class="plain" onClick={() => setAll(!all)}>{all ? "only the strongest" : `${panels.length - AT_FIRST} more`}</button>
      )}
    </div>
  );
}

function PanelView({ panel: { name, similarity, weight, contribution, box, source }, photo, first }: { panel: Panel; photo: string; first: boolean }) {
  const sum = `${number(similarity)} similarity × ${number(weight)} weight = ${signed(contribution)}`;
  return (
    <li data-chip tabIndex={first ? 0 : -1} aria-label={`${name}: ${sum}`}>
      <p><b>{name}</b></p>
      <div class="looks">
        <Boxed picture={photo} box={box} caption="this" />
        <Boxed picture={source.picture} box={source.box} caption={`looks like that: ${source.name}`} />
      </div>
      <p class="sum">{sum}</p>
    </li>
  );
}

function Boxed({ picture, box, caption }: { picture: string; box: Box; caption: string }) {
  return (
    <figure>
      <BoxedPicture picture={{ src: picture, box }} alt={caption} />
      <figcaption>{caption}</figcaption>
    </figure>
  );
}

/** A picture and the box around a patch of it, which a reader without eyes gets in words. */
export function BoxedPicture({ picture: { src, box, squares }, alt }: { picture: Picture; alt: string }) {
  const shape = squares ? "squares" : undefined;
  if (!box) return <img class={shape} src={src} alt={alt} />;
  const [top, bottom, left, right] = box;
  const share = (part: number) => `${(100 * part).toFixed(2)}%`;
  const where = `from ${Math.round(100 * left)} to ${Math.round(100 * right)} % across and ${Math.round(100 * top)} to ${Math.round(100 * bottom)} % down`;
  return (
    <span class="boxed">
      <img class={shape} src={src} alt={`${alt}, ${where}`} />
      <i style={{ top: share(top), left: share(left), width: share(right - left), height: share(bottom - top) }} />
    </span>
  );
}
