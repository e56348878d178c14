// Pictures side by side: prototypes and what looks like them, clusters of maps, mean maps and means.
import { useState } from "preact/hooks";
import type { Article, Chapter, Figure, Means, Sheet } from "./data";
import { largest } from "./numbers";
import { BoxedPicture } from "./panels";
import { Header, Versions } from "./report";
import { Bar } from "./shown";

const LAYOUT = { list: "list", cards: "cards", small: "cards small" };

export function SheetView({ sheet }: { sheet: Sheet }) {
  const [open, setOpen] = useState<ReadonlySet<number>>(new Set(sheet.folded ? [0] : sheet.chapters.keys()));
  const put = (i: number, opened: boolean) => setOpen((before) => new Set(opened ? [...before, i] : [...before].filter((j) => j !== i)));
  return (
    <main>
      <Header plain={!sheet.key} />
      <h1>{sheet.title}</h1>
      {sheet.about && <p class="about">{sheet.about}</p>}
      {sheet.settings && <details><summary>Settings</summary><code>{sheet.settings}</code></details>}
      {sheet.folded && (
        <nav aria-label="Chapters">
          {sheet.chapters.map(({ title, alike }, i) => (
            <a key={i} href={`#chapter-${i}`} class={alike ? "alike" : undefined} onClick={() => put(i, true)}>{title}</a>
          ))}
          <button class="plain" onClick={() => setOpen(new Set(open.size < sheet.chapters.length ? sheet.chapters.keys() : [0]))}>
            {open.size < sheet.chapters.length ? "open all" : "only the first"}
          </button>
        </nav>
      )}
      {sheet.chapters.map((chapter, i) => {
        const articles = <div class={LAYOUT[sheet.layout]}>{chapter.articles.map((article, j) => <ArticleView key={j} article={article} />)}</div>;
        return (
          <section key={i} id={`chapter-${i}`}>
            {sheet.folded
              ? <details open={open.has(i)} onToggle={(event) => put(i, event.currentTarget.open)}><summary><Head chapter={chapter} /></summary>{articles}</details>
              : <><Head chapter={chapter} />{articles}</>}
          </section>
        );
      })}
      {sheet.end && <p class="about">{sheet.end}</p>}
      <Versions versions={sheet.versions!} />
    </main>
  );
}

function Head({ chapter: { title, about, spectrum } }: { chapter: Chapter }) {
  return (
    <>
      {title && <h2 class="chapter">{title}</h2>}
      {about && <p class="quiet">{about}</p>}
      {spectrum && <Spectrum values={spectrum} />}
    </>
  );
}

/** The smallest eigenvalues as bars: as many near 0 as there are groups apart. */
function Spectrum({ values }: { values: number[] }) {
  const most = largest(values), wide = 8;
  return (
    <p class="quiet spectrum">
      eigenvalues{" "}
      <svg width={wide * values.length} height="24" role="img" aria-label={values.map((value) => value.toFixed(3)).join(" ")}>
        <title>{values.map((value) => value.toFixed(3)).join("  ")}</title>
        {values.map((value, i) => {
          const high = Math.max(1, (22 * value) / most);
          return <rect key={i} x={wide * i} y={24 - high} width={wide - 2} height={high} fill="var(--muted)" />;
        })}
      </svg>
    </p>
  );
}

function ArticleView({ article: { title, detail, alike, groups, words, means } }: { article: Article }) {
  return (
    <article class={alike ? "alike" : undefined}>
      <h2>{title}{detail && <small> {detail}</small>}</h2>
      {groups.map(({ heading, figures }, i) => (
        <div key={i}>
          {heading && <p class="quiet">{heading}</p>}
          <div class="looks">{figures.map((figure, j) => <FigureView key={j} figure={figure} />)}</div>
        </div>
      ))}
      {words && <p class="balance">{words.join(" ")}</p>}
      {means?.map((found) => <MeansView key={found.what} means={found} />)}
    </article>
  );
}

function FigureView({ figure: { caption, name, pictures } }: { figure: Figure }) {
  const text = name ? `${caption}: ${name}` : caption;
  return (
    <figure>
      {pictures.map((picture, i) => <BoxedPicture key={i} picture={picture} alt={i < pictures.length - 1 ? "" : text} />)}
      <figcaption>{text}</figcaption>
    </figure>
  );
}

function MeansView({ means: { what, rows } }: { means: Means }) {
  if (!rows.length) return <p class="quiet">no {what} is in enough inputs to be shown; --least 1 shows all</p>;
  const scale = largest(rows.map(([, mean]) => mean));
  return (
    <table class="bars">
      <thead><tr><th scope="col">{what}</th><td /><th scope="col" class="n">mean</th><th scope="col" class="n" aria-sort="descending">mean |value| ↓</th><th scope="col" class="n">inputs</th></tr></thead>
      <tbody>{rows.map(([name, mean, count, size]) => <Bar key={name} name={name} value={mean} scale={scale} size={size} count={count} />)}</tbody>
    </table>
  );
}
