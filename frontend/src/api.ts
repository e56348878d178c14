// What the server of `apportion serve` is asked; every call carries the token of the address that it printed.
import type { Ask, Catalog, Classes, Given, Loaded, Said } from "./data";

/** From the address that was opened; kept for this tab, and taken out of what the address bar shows. */
function token(): string {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given !== null) {
    sessionStorage.setItem("token", given);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem("token") ?? "";
}

async function asked(path: string, options: RequestInit = {}): Promise<Response> {
  const response = await fetch(path, {
    ...options, headers: { Authorization: `Bearer ${token()}`, "Content-Type": "application/json" },
  }).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer: is `apportion serve` still running?");
  });
  if (!response.ok) throw new Error((await response.json().catch(() => ({}))).detail ?? `The server said ${response.status}.`);
  return response;
}

export async function catalog(): Promise<Catalog> {
  return (await asked("api/catalog")).json();
}

export async function load(model: string): Promise<Loaded> {
  return (await asked(`api/model?${new URLSearchParams({ name: model })}`)).json();
}

/** The classes of an input, the most probable first. */
export async function classes(given: Given, signal: AbortSignal): Promise<Classes["classes"]> {
  const response = await asked("api/classes", { method: "POST", body: JSON.stringify(given), signal });
  return ((await response.json()) as Classes).classes;
}

/** Each line of the answer as it comes; aborting the signal stops the work on the server. */
export async function explain(ask: Ask, signal: AbortSignal, hear: (said: Said) => void) {
  const response = await asked("api/explain", { method: "POST", body: JSON.stringify(ask), signal });
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop()!;
    for (const line of lines) if (line) hear(JSON.parse(line));
  }
}
