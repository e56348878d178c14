// The workbench: choose a model, give it an input, and see what several methods say of its decision.
import { useEffect, useRef, useState } from "preact/hooks";
import * as api from "./api";
import { AnswerMaps } from "./answer";
import type { Answer, Catalog, Classes, Loaded, Method, Said, Section } from "./data";
import type { Look } from "./numbers";
import { Controls, Header, SectionView, Versions } from "./report";
import { saveHtml, saveJson } from "./save";

type Step = { done: number; total: number | null; what: string; state: "waits" | "runs" | "tests" | "done" | "failed"; cancelled?: boolean };
type Picture = { name: string; url: string };
/** What a result is of. */
type Of = { model: string; text: string; picture: Picture | null; row: Record<string, string>; target: string; asking: Asking };
/** What a language model is asked besides the prompt, as it stands in the fields. */
type Asking = { answer: string; most: string; context: string; contrast: string; unit: string; score: string; chat: boolean };
const NOTHING: Asking = { answer: "", most: "20", context: "", contrast: "", unit: "", score: "log-probability", chat: false };
const AT_FIRST = ["auto"]; // quick on every model, and adds up
const PAUSE = 400; // milliseconds without a change, until the classes of an input are asked for

export function Workbench() {
  const [catalog, setCatalog] = useState<Catalog | null>(null);
  const [problem, setProblem] = useState("");
  useEffect(() => void api.catalog().then(setCatalog, (error) => setProblem(error.message)), []);
  return (
    <main>
      {catalog ? <Bench catalog={catalog} /> : (
        <><Header />{problem ? <p class="problem" role="alert">{problem}</p> : <p class="quiet">loading …</p>}</>
      )}
    </main>
  );
}

function Bench({ catalog }: { catalog: Catalog }) {
  const [model, setModel] = useState(catalog.models[0]!.name);
  const [latest, setLatest] = useState<(Loaded & { model: string }) | null>(null);
  const loaded = latest?.model === model ? latest : null; // effects run after a frame is drawn: until then `latest` is of the model before
  const [text, setText] = useState("");
  const [picture, setPicture] = useState<Picture | null>(null);
  const [row, setRow] = useState<Record<string, string>>({});
  const [asking, setAsking] = useState<Asking>(NOTHING);
  const [methods, setMethods] = useState<string[]>(AT_FIRST);
  const [others, setOthers] = useState("");
  const [target, setTarget] = useState("");
  const [classes, setClasses] = useState<Classes["classes"] | string>("");
  const [tests, setTests] = useState(false);
  const [look, setLook] = useState<Look>({ opacity: 1, threshold: 0, shared: false });
  const [section, setSection] = useState<Section | null>(null);
  const [answer, setAnswer] = useState<Answer | null>(null);
  const [of, setOf] = useState<Of | null>(null);
  const [steps, setSteps] = useState<Record<string, Step>>({});
  const [problems, setProblems] = useState<string[]>([]);
  const example = useRef("");
  const chosen = useRef(methods); // also what is clicked while a model is loaded
  chosen.current = methods;
  const running = useRef<AbortController | null>(null);
  const [busy, setBusy] = useState(false);
  const offered = [...(loaded?.methods ?? []), ...catalog.methods];
  const unsuitable = loaded?.unsuitable ?? {};
  const { domain } = catalog.models.find(({ name }) => name === model)!;

  useEffect(() => {
    let current = true;
    setLatest(null);
    setTarget("");
    setProblems([]);
    api.load(model).then((found) => {
      if (!current) return;
      setLatest({ ...found, model });
      const left = chosen.current.filter((name) => name in found.unsuitable);
      if (left.length) setProblems([`${left.join(", ")} cannot explain ${model}, and ${left.length > 1 ? "are" : "is"} no longer chosen`]);
      setMethods((before) => {
        const kept = before.filter((name) => !(name in found.unsuitable) && catalog.methods.some((method) => method.name === name));
        const chosen = [...found.methods.slice(0, 1).map(({ name }) => name), ...kept];
        return chosen.length ? chosen : AT_FIRST;
      });
      setRow(Object.fromEntries(found.columns.map(({ name, value }) => [name, value])));
      if (found.example) {
        const shown = example.current;
        setText((before) => before && before !== shown ? before : found.example);
        example.current = found.example;
      }
      if (!found.chat) setAsking((before) => ({ ...before, chat: false }));
    }, (error) => current && setProblems([error.message]));
    return () => void (current = false);
  }, [model]);

  const input = domain === "language" ? { text, ...asked(asking) } : domain === "text" ? { text } : domain === "image" ? { image: picture?.url.split(",")[1] ?? "", name: picture?.name ?? "" } : { row };
  const given = domain === "text" || domain === "language" ? Boolean(text.trim()) : domain === "image" ? Boolean(picture) : true;
  useEffect(() => {
    setClasses("");
    if (!loaded || !given || loaded.elsewhere || domain === "language") return;
    const mine = new AbortController();
    const after = setTimeout(() => api.classes({ model, ...input }, mine.signal).then(setClasses,
      (error) => mine.signal.aborted || setClasses(error.message)), PAUSE);
    return () => (clearTimeout(after), mine.abort());
  }, [loaded, text, picture, row]);

  async function take(file: File | undefined) {
    if (!file) return;
    if (file.size > catalog.most_bytes) {
      return setProblems([`${file.name} has ${(file.size / 1e6).toFixed(1)} MB; accepted: pictures of at most ${catalog.most_bytes / 1e6} MB`]);
    }
    if (domain !== "image") {
      const first = catalog.models.find((other) => other.domain === "image");
      if (!first) return setProblems(["no model here takes pictures"]);
      setModel(first.name);
    }
    const url = await new Promise<string>((resolve) => {
      const reader = new FileReader();
      reader.onload = () => resolve(reader.result as string);
      reader.readAsDataURL(file);
    });
    setProblems([]);
    setPicture({ name: file.name, url });
  }

  function hear(said: Said) {
    const step = (change: Partial<Step>) => said.event !== "waiting" && said.method &&
      setSteps((before) => ({ ...before, [said.method!]: { ...before[said.method!]!, ...change } }));
    switch (said.event) {
      case "start": return step({ state: "runs" });
      case "progress": return step({ done: said.done, total: said.total, what: said.what });
      case "section":
        step({ state: tests ? "tests" : "done" });
        return setSection((before) => before ? { ...before, photo: before.photo ?? said.section.photo, cards: [...before.cards, ...said.section.cards] } : said.section);
      case "answer": {
        step({ state: said.done ? "done" : "tests" });
        const [map] = said.answer.maps;
        return setAnswer((before) => ({ ...said.answer, maps: [...(before?.maps ?? []).filter(({ repr }) => repr !== map!.repr), map!] }));
      }
      case "tested":
        step({ state: said.done ? "done" : "tests" });
        return setSection((before) => before && {
          ...before,
          cards: before.cards.map((card) => card.repr === said.method || card.asked === said.method ? { ...card, tests: said.tests, chart: said.chart } : card),
        });
      case "error":
        step({ state: "failed" });
        return setProblems((before) => [...before, said.method ? `${said.method}: ${said.message}` : said.message]);
    }
  }

  async function explain() {
    if (!loaded) return; // keys ask as the button does
    running.current?.abort();
    const mine = (running.current = new AbortController());
    const asked = [...methods, ...split(others)];
    setSection(null);
    setAnswer(null);
    setOf({ model, text, picture, row, target, asking });
    setProblems(asked.length ? [] : ["choose at least one method"]);
    setSteps(Object.fromEntries(asked.map((name) => [name, { done: 0, total: null, what: "", state: "waits" }])));
    if (!asked.length) return;
    setBusy(true);
    try {
      await api.explain({ model, methods: asked, target: !target ? null : domain === "language" ? target : Number(target), tests, ...input }, mine.signal, (said) => mine === running.current && hear(said));
    } catch (error) {
      if (!mine.signal.aborted) setProblems((before) => [...before, (error as Error).message]);
    }
    if (mine === running.current) {
      setBusy(false);
      setSteps((before) => Object.fromEntries(Object.entries(before)
        .filter(([, { state }]) => state !== "done" && state !== "failed").map(([name, step]) => [name, { ...step, cancelled: true }])));
    }
  }

  const choice = ({ name, about }: Method) => (
    <label key={name} title={plainly(about)}>
      <input type="checkbox" name={`method-${name}`} checked={methods.includes(name)}
        onChange={({ currentTarget: { checked } }) => setMethods((before) => [...before.filter((other) => other !== name), ...(checked ? [name] : [])])} />
      {name}
    </label>
  );
  const suitable = offered.filter(({ name }) => !(name in unsuitable)), refused = offered.filter(({ name }) => name in unsuitable);
  const changed = of && (of.model !== model ? "model" : domain === "text" && of.text !== text ? "text"
    : domain === "language" && of.text !== text ? "prompt" : domain === "language" && JSON.stringify(of.asking) !== JSON.stringify(asking) ? "question"
    : domain === "image" && of.picture !== picture ? "picture" : domain === "tabular" && JSON.stringify(of.row) !== JSON.stringify(row) ? "row"
    : of.target !== target ? domain === "language" ? "question" : "class" : null);

  return (
    <>
      <Header><Controls look={look} change={setLook} several={(section?.cards.length ?? 0) > 1} /></Header>
      <form
        class="bench" onSubmit={(event) => { event.preventDefault(); void explain(); }}
        onDragOver={(event) => event.preventDefault()}
        onDrop={(event) => { event.preventDefault(); void take(event.dataTransfer?.files[0]); }}
        onPaste={(event) => { if (event.clipboardData?.files.length) void take(event.clipboardData.files[0]); }}
        onKeyDown={(event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) void explain(); }}
      >
        <fieldset>
          <legend>Model and input</legend>
          <label>Model{" "}
            <select name="model" value={model} onChange={(event) => setModel(event.currentTarget.value)}>
              {catalog.models.map(({ name, task }) => <option key={name} value={name}>{name}{task && ` – ${task}`}</option>)}
            </select>
          </label>
          {domain === "text" && (
            <label>Text <textarea name="text" rows={4} value={text} onInput={(event) => setText(event.currentTarget.value)} /></label>
          )}
          {domain === "language" && <Question text={text} setText={setText} asking={asking} change={setAsking} target={target} setTarget={setTarget} chat={Boolean(loaded?.chat)} />}
          {domain === "image" && (
            <label class="drop">
              {picture ? <img src={picture.url} alt={picture.name} /> : <span>Drop or paste a picture here, or choose one</span>}
              <input type="file" name="picture" accept="image/*" onChange={(event) => void take(event.currentTarget.files?.[0])} />
            </label>
          )}
          {domain === "tabular" && <Row columns={loaded?.columns ?? []} row={row} change={setRow} />}
          {domain !== "language" && <Target labels={loaded?.labels ?? []} classes={classes} target={target} change={setTarget} />}
        </fieldset>
        <fieldset>
          <legend>Methods</legend>
          {[...new Set(suitable.map(({ question }) => question))].map((question) => (
            <div class="choices" key={question} role="group" aria-label={question}>
              <p>{question}</p>
              {suitable.filter((method) => method.question === question).map(choice)}
            </div>
          ))}
          {refused.length > 0 && (
            <details>
              <summary>{refused.length} more, which cannot explain this model</summary>
              <dl class="told">
                {refused.map((method) => <><dt>{choice(method)}</dt><dd>{unsuitable[method.name]}</dd></>)}
              </dl>
            </details>
          )}
          <dl class="told" aria-label="The chosen methods">
            {methods.map((name) => <><dt>{name}</dt><dd>{plainly(offered.find((method) => method.name === name)?.about ?? "")}</dd></>)}
          </dl>
          <label>Others, with settings{" "}
            <input name="others" value={others} placeholder="LRP(ledger=True), IntegratedGradients(nodes=24)" autocomplete="off"
              onInput={(event) => setOthers(event.currentTarget.value)} />
          </label>
          <label><input type="checkbox" name="tests" checked={tests} onChange={(event) => setTests(event.currentTarget.checked)} /> test each: hide the most relevant first</label>
          <p class="actions">
            <button type="submit" disabled={busy || !loaded}>{loaded ? "Explain" : "loading the model …"}</button>
            {busy && <button type="button" onClick={() => running.current?.abort()}>Cancel</button>}
          </p>
        </fieldset>
      </form>
      <Progress steps={steps} busy={busy} />
      {problems.map((problem, i) => <p class="problem" role="alert" key={i}>{problem}</p>)}
      {(section || answer) && changed && (
        <p class="warning" role="status">The {changed} was changed: this is what was found before, by {of!.model}. <i>Explain</i> renews it.</p>
      )}
      {section && (
        <SectionView section={section} look={look} stale={Boolean(changed)} tools={
          <p class="tools">
            <button class="plain" onClick={() => saveHtml({ kind: "report", sections: [section], versions: catalog.versions, same_scale: look.shared })}>HTML page</button>
            <button class="plain" onClick={() => saveJson({ ...section, photo: undefined, versions: catalog.versions }, "explanations.json")}>JSON</button>
          </p>
        } />
      )}
      {answer && (
        <>
          <AnswerMaps page={answer} look={look} stale={Boolean(changed)} />
          <p class="tools">
            <button class="plain" onClick={() => saveHtml(answer)}>HTML page</button>
            <button class="plain" onClick={() => saveJson(answer, "answer.json")}>JSON</button>
          </p>
        </>
      )}
      <Versions versions={catalog.versions} />
    </>
  );
}

const UNITS = ["token", "word", "sentence", "passage", "turn"] as const;
const SCORES = ["log-probability", "logit", "probability", "logit of probability"] as const;

/** As the server is asked; what is left empty is not said. */
function asked({ answer, most, context, contrast, unit, score, chat }: Asking) {
  return {
    answer: answer || null, contrast: contrast || null, chat, max_new_tokens: Number(most) || 20,
    context: context.split(/\n\s*\n/).map((passage) => passage.trim()).filter(Boolean),
    unit: UNITS.find((one) => one === unit) ?? null, score: SCORES.find((one) => one === score)!,
  };
}

/** What a language model is asked: a prompt, passages that stand before it, an answer that is given or written. */
function Question({ text, setText, asking, change, target, setTarget, chat }: {
  text: string; setText: (text: string) => void; asking: Asking; change: (asking: Asking) => void;
  target: string; setTarget: (target: string) => void; chat: boolean;
}) {
  const put = (changed: Partial<Asking>) => change({ ...asking, ...changed });
  const usual = asking.context.trim() ? "passage" : "word";
  return (
    <>
      <label>Prompt <textarea name="prompt" rows={3} value={text} onInput={(event) => setText(event.currentTarget.value)} /></label>
      {chat && <label><input type="checkbox" name="chat" checked={asking.chat} onChange={(event) => put({ chat: event.currentTarget.checked })} /> as a message of a chat</label>}
      <label>Answer{" "}
        <textarea name="answer" rows={2} value={asking.answer} placeholder="empty: the model writes one" onInput={(event) => put({ answer: event.currentTarget.value })} />
      </label>
      {!asking.answer && (
        <label>of at most <input name="most" type="number" min={1} max={500} value={asking.most} onInput={(event) => put({ most: event.currentTarget.value })} /> tokens</label>
      )}
      <details>
        <summary>Passages that stand before the prompt</summary>
        <label>Passages, an empty line between two{" "}
          <textarea name="context" rows={5} value={asking.context} onInput={(event) => put({ context: event.currentTarget.value })} />
        </label>
      </details>
      <details>
        <summary>What is explained</summary>
        <label>Only these words of the answer <input name="part" value={target} placeholder="each token" autocomplete="off" onInput={(event) => setTarget(event.currentTarget.value)} /></label>
        <label>rather than <input name="contrast" value={asking.contrast} placeholder="another answer" autocomplete="off" onInput={(event) => put({ contrast: event.currentTarget.value })} /></label>
        <label>Score{" "}
          <select name="score" value={asking.score} onChange={(event) => put({ score: event.currentTarget.value })}>
            {SCORES.map((name) => <option key={name}>{name}</option>)}
          </select>
        </label>
        <label>By{" "}
          <select name="unit" value={asking.unit} onChange={(event) => put({ unit: event.currentTarget.value })}>
            <option value="">{usual}</option>
            {UNITS.filter((name) => name !== usual).map((name) => <option key={name}>{name}</option>)}
          </select>
        </label>
      </details>
    </>
  );
}

function Row({ columns, row, change }: { columns: Loaded["columns"]; row: Record<string, string>; change: (row: Record<string, string>) => void }) {
  return (
    <div class="row">
      {columns.map(({ name, categories }) => (
        <label key={name}>{name}
          {categories
            ? <select value={row[name]} onChange={(event) => change({ ...row, [name]: event.currentTarget.value })}>{categories.map((category) => <option key={category}>{category}</option>)}</select>
            : <input inputMode="decimal" value={row[name]} onInput={(event) => change({ ...row, [name]: event.currentTarget.value })} />}
        </label>
      ))}
    </div>
  );
}

/** The classes of a model, the most probable first once an input is there; a few are all in sight. */
function Target({ labels, classes, target, change }: { labels: string[]; classes: Classes["classes"] | string; target: string; change: (target: string) => void }) {
  const [wanted, setWanted] = useState("");
  const ranked: Classes["classes"] = typeof classes === "string" ? labels.map((label, i) => [label, i, 0, null]) : classes;
  if (ranked.length < 2) return null;
  const percent = (probability: number | null) => probability === null ? "" : `  ${(100 * probability).toFixed(1)} %`;
  const found = ranked.filter(([label, number]) => label.toLowerCase().includes(wanted.toLowerCase()) || target === String(number));
  const many = ranked.length > MANY;
  const best = typeof classes === "string" ? "" : `: ${ranked[0]![0]}${percent(ranked[0]![3])}`;
  return (
    <div class="target">
      <label>Class to explain{" "}
        {many && <input type="search" name="search" value={wanted} placeholder={`search ${ranked.length} classes`} autocomplete="off"
          onInput={(event) => setWanted(event.currentTarget.value)} />}
        <select name="target" aria-label="Class to explain" size={Math.min(7, ranked.length + 1)} value={target} onChange={(event) => change(event.currentTarget.value)}>
          <option value="">the most probable{best}</option>
          {found.map(([label, number, , probability]) => <option key={number} value={String(number)}>{label}{percent(probability)}</option>)}
        </select>
      </label>
      {typeof classes === "string" && classes && <p class="quiet">The probabilities are not known: {classes}</p>}
    </div>
  );
}

const MANY = 12;

/** A docstring without the marks of code. */
function plainly(about: string): string {
  return about.replaceAll("`", "");
}

const WORDS = { waits: "waits", runs: "runs", tests: "is tested", done: "done", failed: "failed" };

function Progress({ steps, busy }: { steps: Record<string, Step>; busy: boolean }) {
  const shown = Object.entries(steps);
  if (!shown.length || (!busy && !shown.some(([, { cancelled }]) => cancelled))) return null;
  return (
    <ul class="steps" aria-live="polite">
      {shown.map(([name, step]) => (
        <li key={name}>
          <b>{name}</b> {step.cancelled ? cancelledAfter(step) : WORDS[step.state]}
          {!step.cancelled && (step.state === "runs" || step.state === "tests") && (
            <>{" "}<progress max={step.total ?? undefined} value={step.total ? step.done : undefined} /> <span class="quiet">{step.what && sofar(step)}</span></>
          )}
        </li>
      ))}
    </ul>
  );
}

function sofar({ done, total, what }: Step): string {
  return `${done}${total ? ` of ${total}` : ""} ${what}`;
}

function cancelledAfter(step: Step): string {
  const after = step.what ? ` after ${sofar(step)}` : "";
  switch (step.state) {
    case "waits": return "cancelled before it began";
    case "tests": return `explained; its tests were cancelled${after}`;
    default: return `cancelled${after}`;
  }
}

/** Names at the commas outside brackets and quotes. */
function split(names: string): string[] {
  const parts = [""];
  let depth = 0, quote = "";
  for (const letter of names) {
    if (quote) quote = letter === quote ? "" : quote;
    else if (letter === "'" || letter === '"') quote = letter;
    else depth += "([{".includes(letter) ? 1 : ")]}".includes(letter) ? -1 : 0;
    if (letter === "," && !depth && !quote) parts.push("");
    else parts[parts.length - 1] += letter;
  }
  return parts.map((part) => part.trim()).filter(Boolean);
}
