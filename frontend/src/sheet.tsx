// Pictures side by side: prototypes and what looks like them, clusters of maps, mean maps and means.
import type { Article, Figure, Means, Sheet } from "./data";
import { largest } from "./numbers";
import { BoxedPicture } from "./panels";
import { Header, Versions } from "./report";
import { Bar } from "./shown";

const LAYOUT = { list: "list", cards: "cards", small: "cards small" };

export function SheetView({ sheet }: { sheet: Sheet }) {
  return (
    <main>
      <Header plain={!sheet.key} />
      <h1>{sheet.title}</h1>
      {sheet.about && <p class="about">{sheet.about}</p>}
      {sheet.chapters.map(({ title, about, articles }, i) => (
        <section key={i}>
          {title && <h2 class="chapter">{title}</h2>}
          {about && <p class="quiet">{about}</p>}
          <div class={LAYOUT[sheet.layout]}>
            {articles.map((article, j) => <ArticleView key={j} article={article} />)}
          </div>
        </section>
      ))}
      {sheet.end && <p class="about">{sheet.end}</p>}
      <Versions versions={sheet.versions!} />
    </main>
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
  if (!rows.length) return <p class="quiet">no {what} is in enough inputs to be shown</p>;
  const scale = largest(rows.map(([, mean]) => mean));
  return (
    <table class="bars">
      <thead><tr><th scope="col">{what}</th><td /><th scope="col" class="n">mean</th><th scope="col" class="n">inputs</th></tr></thead>
      <tbody>{rows.map(([name, mean, count]) => <Bar key={name} name={name} value={mean} scale={scale} count={count} />)}</tbody>
    </table>
  );
}
