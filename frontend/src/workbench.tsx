// The workbench: choose a model, give it an input, and see what several methods say of its decision.
import { useEffect, useRef, useState } from "preact/hooks";
import * as api from "./api";
import type { Catalog, Loaded, Said, Section } from "./data";
import type { Look } from "./numbers";
import { Controls, Header, SectionView, Versions } from "./report";
import { saveHtml, saveJson } from "./save";

type Step = { done: number; total: number | null; what: string; state: "waits" | "runs" | "tests" | "done" | "failed" };
const AT_FIRST = ["auto", "lrp"]; // quick on every model

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
  const [loaded, setLoaded] = useState<Loaded | null>(null);
  const [text, setText] = useState("");
  const [picture, setPicture] = useState<{ name: string; url: string } | null>(null);
  const [row, setRow] = useState<Record<string, string>>({});
  const [methods, setMethods] = useState<string[]>(AT_FIRST);
  const [told, setTold] = useState("");
  const [others, setOthers] = useState("");
  const [target, setTarget] = useState("");
  const [tests, setTests] = useState(false);
  const [look, setLook] = useState<Look>({ opacity: 1, threshold: 0, shared: false });
  const [section, setSection] = useState<Section | null>(null);
  const [steps, setSteps] = useState<Record<string, Step>>({});
  const [problems, setProblems] = useState<string[]>([]);
  const running = useRef<AbortController | null>(null);
  const [busy, setBusy] = useState(false);
  const own = (loaded?.methods ?? []).map((name) => ({ name, about: "only for this model" }));
  const { domain } = catalog.models.find(({ name }) => name === model)!;

  useEffect(() => {
    let current = true;
    setLoaded(null);
    setTarget("");
    setProblems([]);
    api.load(model).then((found) => {
      if (!current) return;
      setLoaded(found);
      setMethods((before) => [...found.methods.slice(0, 1), ...before.filter((name) => catalog.methods.some((method) => method.name === name))]);
      setRow(Object.fromEntries(found.columns.map(({ name, value }) => [name, value])));
      if (domain === "text") setText((before) => before || found.example);
    }, (error) => current && setProblems([error.message]));
    return () => void (current = false);
  }, [model]);

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
    running.current?.abort();
    const mine = (running.current = new AbortController());
    const asked = [...methods, ...split(others)];
    const input = domain === "text" ? { text } : domain === "image" ? { image: picture?.url.split(",")[1] ?? "", name: picture?.name ?? "" } : { row };
    setSection(null);
    setProblems(asked.length ? [] : ["choose at least one method"]);
    setSteps(Object.fromEntries(asked.map((name) => [name, { done: 0, total: null, what: "", state: "waits" }])));
    if (!asked.length) return;
    setBusy(true);
    try {
      await api.explain({ model, methods: asked, target: target || null, tests, ...input }, mine.signal, (said) => mine === running.current && hear(said));
    } catch (error) {
      if (!mine.signal.aborted) setProblems((before) => [...before, (error as Error).message]);
    }
    if (mine === running.current) {
      setBusy(false);
      setSteps((before) => Object.fromEntries(Object.entries(before).filter(([, { state }]) => state === "done" || state === "failed")));
    }
  }

  const choice = ({ name, about }: { name: string; about: string }) => (
    <label key={name} title={about} onPointerEnter={() => setTold(about)} onFocusIn={() => setTold(about)}>
      <input type="checkbox" name={`method-${name}`} checked={methods.includes(name)}
        onChange={(event) => setMethods(event.currentTarget.checked ? [...methods, name] : methods.filter((other) => other !== name))} />
      {name}
    </label>
  );

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
          {domain === "image" && (
            <label class="drop">
              {picture ? <img src={picture.url} alt={picture.name} /> : <span>Drop or paste a picture here, or choose one</span>}
              <input type="file" name="picture" accept="image/*" onChange={(event) => void take(event.currentTarget.files?.[0])} />
            </label>
          )}
          {domain === "tabular" && <Row columns={loaded?.columns ?? []} row={row} change={setRow} />}
          <label>Class to explain{" "}
            <input name="target" list="labels" value={target} placeholder="the predicted one" autocomplete="off"
              onInput={(event) => setTarget(event.currentTarget.value)} />
            <datalist id="labels">{loaded?.labels.map((label) => <option key={label} value={label} />)}</datalist>
          </label>
        </fieldset>
        <fieldset>
          <legend>Methods</legend>
          <div class="choices">
            {[...own, ...catalog.methods.filter(({ pairs }) => !pairs)].map(choice)}
            <p class="quiet">Pairs of features</p>
            {catalog.methods.filter(({ pairs }) => pairs).map(choice)}
          </div>
          <p class="quiet told">{told.replaceAll("`", "")}</p>
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
      {section && (
        <SectionView section={section} look={look} tools={
          <p class="tools">
            <button class="plain" onClick={() => saveHtml({ kind: "report", sections: [section], versions: catalog.versions, same_scale: look.shared })}>HTML page</button>
            <button class="plain" onClick={() => saveJson({ ...section, photo: undefined, versions: catalog.versions }, "explanations.json")}>JSON</button>
          </p>
        } />
      )}
      <Versions versions={catalog.versions} />
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

const WORDS = { waits: "waits", runs: "runs", tests: "is tested", done: "done", failed: "failed" };

function Progress({ steps, busy }: { steps: Record<string, Step>; busy: boolean }) {
  if (!busy) return null;
  return (
    <ul class="steps" aria-live="polite">
      {Object.entries(steps).map(([name, { done, total, what, state }]) => (
        <li key={name}>
          <b>{name}</b> {WORDS[state]}
          {(state === "runs" || state === "tests") && (
            <>{" "}<progress max={total ?? undefined} value={total ? done : undefined} /> <span class="quiet">{what && `${done}${total ? ` of ${total}` : ""} ${what}`}</span></>
          )}
        </li>
      ))}
    </ul>
  );
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
