// The page: which session is shown, and who draws what when something changes.

import { askToken, carryOut, keep, showActions } from "./actions.js";
import { Chart, redrawAll } from "./chart.js";
import { Compare, MOST } from "./compare.js";
import { Evidence, sentence, showDecisions } from "./decisions.js";
import { $, el, refill, table, tableOf, toast, write } from "./dom.js";
import { clock, isNumber, label, number, Z90 } from "./format.js";
import { showJudged } from "./judged.js";
import { get, sessionPath } from "./net.js";
import { flagsOf, nearest, panelsOf, seriesOption, seriesText, usualPanels } from "./series.js";
import { reading, Session } from "./session.js";
import { showAbout, showLinks, showQuality } from "./side.js";
import { mapOption, mapText, rawOption, rawText, spectraOption } from "./spectra.js";
import { showStrip } from "./strip.js";

const SPECTRA_MS = 2000;
const LIST_MS = 10000;
const COLOURS = ["", "light", "dark"], COLOUR_WORDS = { "": "system", light: "light", dark: "dark" };

let list = [], session = null, compare = null, may = false, told = "";
let view = null, spectra = null, frame = null, frameUid = null;
const frames = new Map();

const charts = {
  series: new Chart($("series-chart"), { name: "Quantities over time", pick: pickInSeries }),
  map: new Chart($("map-chart"), { name: "Heat map of aligned spectra, energy by frame", pick: pickInMap }),
  spectra: new Chart($("spectra-chart"), { name: "First, last and selected aligned spectrum" }),
  raw: new Chart($("raw-chart"), { name: "Selected frame as measured" }),
};
const evidence = new Evidence({ fetchFrame, act });

// --- which sessions there are, and which is shown

async function refreshList() {
  try {
    const [found, health] = await Promise.all([get("sessions"), get("health").catch(() => ({}))]);
    list = found;
    setMay(Boolean(health.may_act));
    showList();
    if (!session && !compare) route();
  } catch (error) {
    if (error.status === 401 || error.status === 403) {
      write($("message"), "This dashboard needs its token.");
      if (!$("ask-token").open) askToken();
    } else if (!session) write($("message"), `The dashboard's server does not answer (${error.message}); trying again.`);
  }
}

function showList() {
  const select = $("sessions");
  refill(select, list.map((one) => [one.id, one.title, one.live]), () => list.map((one) => el("option", { value: one.id }, named(one))));
  if (session) select.value = session.id;
  $("to-compare").hidden = list.length < 2;
  write($("to-compare"), compare ? "One session" : "Side by side");
  $("to-compare").setAttribute("href", compare ? "#" : "#compare");
  if (compare) showChosen();
}

const named = (one) => `${one.live ? "● " : ""}${one.title}${one.title === one.id ? "" : `, ${one.id}`}${one.live ? " (live)" : ""}`;

function usual() {
  const newest = (some) => some.reduce((best, one) => (!best || (one.started ?? 0) > (best.started ?? 0) ? one : best), null);
  return (newest(list.filter((one) => one.live)) ?? newest(list))?.id;
}

function route() {
  const asked = new URLSearchParams(location.hash.slice(1));
  if (asked.has("compare")) return openCompare(asked.get("compare").split(",").filter(Boolean));
  const id = asked.get("s");
  const known = list.some((one) => one.id === id) ? id : usual();
  if (!known) return write($("message"), "No session yet. The page shows the first as soon as it begins.");
  if (session?.id !== known || compare) openSession(known);
}

function openSession(id) {
  closeAll();
  session = new Session(id);
  view = { panels: null, abscissa: $("abscissa").value, range: 0, uid: null, follow: true, series: null };
  spectra = frame = null;
  frames.clear();
  $("follow").checked = true;
  $("strip").hidden = false;
  $("session").hidden = false;
  const shown = session;
  session.addEventListener("change", (event) => shown === session && changed(event.detail));
  session.addEventListener("decision", (event) => shown === session && announce(event.detail));
  showList();
  everySecond();
}

function openCompare(ids) {
  if (!compare) { closeAll(); compare = new Compare(); }
  const known = ids.filter((id) => list.some((one) => one.id === id));
  const chosen = (known.length ? known : list.slice(0, 2).map((one) => one.id)).slice(0, MOST);
  $("compare").hidden = false;
  $("message").hidden = true;
  compare.chosen = chosen;
  compare.show(chosen);
  $("link").hidden = true;
  document.title = "Side by side · xas-agent";
  showList();
}

function showChosen() {
  const chosen = compare.chosen;
  refill($("compare-chosen"), [list.map((one) => [one.id, one.title, one.live]), chosen], () => [
    el("legend", {}, `Sessions (at most ${MOST})`),
    ...list.map((one) => el("label", { class: "chip" }, el("input", {
      type: "checkbox", checked: chosen.includes(one.id), "data-key": `chosen-${one.id}`, disabled: !chosen.includes(one.id) && chosen.length >= MOST,
      on: { change: (event) => { location.hash = `compare=${(event.target.checked ? [...chosen, one.id] : chosen.filter((id) => id !== one.id)).map(encodeURIComponent).join(",")}`; } },
    }), named(one))),
  ]);
}

function closeAll() {
  session?.close();
  compare?.close();
  session = compare = null;
  for (const id of ["session", "compare", "strip"]) $(id).hidden = true;
  for (const one of document.querySelectorAll("dialog[open]")) one.close();
}

// --- a session changed

function changed(what) {
  const has = (name) => what.has(name);
  write($("message"), session.problem ? `The session cannot be read: ${session.problem.message}` : session.loading ? "Loading the session." : session.rows.length ? "" : session.live ? "No frame yet. The first appears here as soon as the agent has answered it." : "The session has no frames.");
  $("message").hidden = !$("message").textContent;
  if (has("info") || has("frames")) showPanels();
  if (has("frames")) { showSamples(); showPicker(); askSpectra(); }
  if (has("info") || has("frames") || has("decisions")) showSeries();
  if (has("decisions") || has("state") || has("link")) showOrders();
  if (has("quality") || has("frames")) showQuality(session);
  if (has("state") || has("info") || has("link")) { showLinks(session); showAbout(session); }
  showJudged($("judged-list"), session);
  everySecond();
}

function everySecond() {
  if (!session) return;
  const state = showStrip(session);
  document.body.classList.toggle("stale", session.stale);
  showActions(session, may, act);
  const alarm = ["paused", "halted", "gone", "silent"].includes(state.key) ? `${state.word.replace(/ for .*/, "")}. ${state.key === "paused" ? session.state.paused : ""}` : state.key === "ended" ? "The session has ended." : "";
  if (alarm !== told) { told = alarm; write($("alarm"), alarm); }
}

function announce(d) {
  write($("said"), `Decision ${d.status}: ${sentence(d)}`);
  const settled = ["acknowledged", "rejected", "expired"].includes(d.status);
  if (settled && d.rule !== "operator") toast(`${d.status}: ${sentence(d)}`, d.status === "rejected" ? "bad" : "");
}

function setMay(value) {
  if (may === value) return;
  may = value;
  if (session) { showActions(session, may, act); showOrders(); }
}

function showOrders() {
  showDecisions(session, { open: (d) => evidence.open(session, d, may), act, may });
  evidence.update(session, may);
}

async function act(command, decision = null) {
  if (await carryOut(session, may, command, decision) && session) session.load();
}

// --- over time

function showPanels() {
  const panels = panelsOf(session);
  if (!session.info || !panels.length) return;
  if (!view.panels || (!view.chosen && session.rows.length)) view.panels = usualPanels(session, panels);
  refill($("panels"), [panels.map((p) => p.id), [...view.panels]], () => [
    el("legend", { class: "unseen" }, "Shown quantities"),
    ...panels.map((panel) => el("label", { class: "chip" }, el("input", {
      type: "checkbox", checked: view.panels.has(panel.id), "data-key": `panel-${panel.id}`,
      on: { change: (event) => { view.chosen = true; view.panels[event.target.checked ? "add" : "delete"](panel.id); showPanels(); showSeries(); } },
    }), panel.name)),
  ]);
}

function showSeries() {
  if (!view.panels) return;
  charts.series.show((c, width) => seriesOption(session, view, c, width), seriesText(session, view));
  tableOf($("series-table"), () => {
    const panels = panelsOf(session).filter((p) => view.panels.has(p.id) && p.kind !== "classes");
    const names = panels.flatMap((p) => [p, ...(session.last && reading(session.last, `${p.id}_anchored`) ? [{ ...p, id: `${p.id}_anchored`, name: label(`${p.id}_anchored`) }] : [])]);
    const cell = (row, p) => { const read = reading(row, p.id); return !read ? "–" : `${number(read.value, p.unit)}${read.sd ? ` ± ${number(Z90 * read.sd, p.unit)}` : ""}${isNumber(read.lo) ? ` (${number(read.lo, p.unit)}…${number(read.hi, p.unit)})` : ""}`; };
    return table("Last 50 frames: value ± frame to frame (common interval)", ["frame", "time", "sample", ...names.map((p) => `${p.name}${p.unit ? ` (${p.unit})` : ""}`), "flags"], session.rows.slice(-50).reverse().map((row) => [row.n, clock(row.time), row.sample ?? "", ...names.map((p) => cell(row, p)), flagsOf(row)]));
  });
}

function pickInSeries([x, y], chart, target) {
  const at = chart.convertFromPixel({ xAxisIndex: 0 }, x);
  const key = (row) => (view.abscissa === "n" ? row.n : row.time * 1000);
  const marks = [...session.decisions.values()].map((d) => ({ d, px: chart.convertToPixel({ xAxisIndex: 0 }, view.abscissa === "n" ? d.evidence?.at(-1)?.n : d.time * 1000) }));
  const hit = marks.filter((one) => Math.abs(one.px - x) < 12 && y < 60).sort((a, b) => Math.abs(a.px - x) - Math.abs(b.px - x))[0];
  if (hit) return evidence.open(session, hit.d, may);
  if (!chart.containPixel({ gridIndex: 0 }, [x, 60]) && !target) return;
  const row = nearest(session.rows, key, at);
  if (row) pick(row.uid);
}

// --- spectra

const seriesShown = () => view.series ?? session.last?.series ?? null;
const rowsShown = () => session.rows.filter((row) => row.series === seriesShown());

function showSamples() {
  const samples = session.samples;
  $("sample-field").hidden = samples.length < 2;
  refill($("sample"), samples.map((one) => [one.series, one.name]), () => [el("option", { value: "" }, "the last"), ...samples.map((one, at) => el("option", { value: one.series }, `${at + 1}: ${one.name || one.element || "unnamed"}`))]);
  $("sample").value = view.series ?? "";
}

function showPicker() {
  const rows = rowsShown();
  const slider = $("pick");
  slider.max = String(Math.max(1, rows.length));
  if (view.follow) view.uid = rows[rows.length - 1]?.uid ?? null;
  const at = rows.findIndex((row) => row.uid === view.uid);
  if (at >= 0) slider.value = String(at + 1);
  const row = session.byUid.get(view.uid);
  const words = row ? `${row.n}, ${clock(row.time)}` : "–";
  write($("picked"), words);
  slider.setAttribute("aria-valuetext", `frame ${words}`);
}

function pick(uid) {
  const row = session.byUid.get(uid);
  if (!row) return;
  if (row.series !== seriesShown()) { view.series = row.series; showSamples(); askSpectra(0); }
  view.follow = uid === rowsShown().at(-1)?.uid;
  $("follow").checked = view.follow;
  view.uid = uid;
  showPicker();
  showSeries();
  askFrame();
}

let asking = 0;
function askSpectra(wait = spectra ? SPECTRA_MS : 0) {
  if (asking && wait) return;
  clearTimeout(asking);
  asking = setTimeout(async () => {
    const shown = session;
    try {
      const series = seriesShown();
      const found = shown && await get(sessionPath(shown.id, `/spectra?last=${$("map-last").value}${series ? `&series=${encodeURIComponent(series)}` : ""}`));
      if (shown && shown === session) { spectra = found; showMap(); showSpectra(); }
    } catch { /* the link's state says it */ }
    asking = 0;
    if (session && view.follow) askFrame();
  }, wait);
}

async function fetchFrame(of, uid) {
  const key = `${of.id} ${uid}`;
  if (frames.has(key)) return frames.get(key);
  const found = await get(sessionPath(of.id, `/spectra/${encodeURIComponent(uid)}`));
  frames.set(key, found);
  if (frames.size > 50) frames.delete(frames.keys().next().value);
  return found;
}

async function askFrame() {
  const uid = view.uid, shown = session;
  if (!uid) return;
  const found = await fetchFrame(shown, uid).catch(() => null);
  if (shown !== session || (uid !== view.uid && !view.follow)) return;  // followed frames change faster than they load
  [frame, frameUid] = [found, uid];
  showSpectra();
  showRaw();
}

function showMap() {
  const kind = $("map-kind").value;
  charts.map.show((c, width) => mapOption(spectra, kind, c, width), mapText(spectra, kind));
  tableOf($("map-table"), () => {
    const rows = spectra?.rows ?? [];
    const every = rows.filter((_, at) => at % Math.ceil(rows.length / 8) === 0 || at === rows.length - 1);
    const value = (row, at) => (kind === "mu" ? row.mu[at] : row.mu[at] - rows[0].mu[at]);
    return table(`${$("map-kind").selectedOptions[0].text}, energies in eV relative to the tabulated edge`, ["eV", ...every.map((row) => `frame ${row.n}`)], (spectra?.grid_ev ?? []).map((energy, at) => [number(energy), ...every.map((row) => number(value(row, at)))]));
  });
}

function showSpectra() {
  const row = session.byUid.get(frameUid);
  const picked = !view.follow && frame?.aligned && row ? { n: row.n, mu: frame.aligned.mu } : null;
  charts.spectra.show((c, width) => spectraOption(spectra, picked, c, width), mapText(spectra, ""));
  tableOf($("spectra-table"), () => {
    const rows = spectra?.rows ?? [];
    const ends = [rows[0], rows[rows.length - 1], picked].filter(Boolean);
    return table("Normalised μ by energy relative to the tabulated edge", ["eV", ...ends.map((one) => `frame ${one.n}`)], (spectra?.grid_ev ?? []).map((energy, at) => [number(energy), ...ends.map((one) => number(one.mu[at]))]));
  });
}

function showRaw() {
  const row = session.byUid.get(frameUid), text = rawText(frame, row);
  write($("raw-title"), row ? `Frame ${row.n} as measured` : "Selected frame as measured");
  write($("raw-text"), text);
  $("raw-chart").hidden = !frame?.measured?.mu?.length;
  charts.raw.show((c, width) => rawOption(frame, c, width), text);
  $("raw-table").hidden = !frame?.measured?.mu?.length;
  tableOf($("raw-table"), () => {
    const m = frame?.measured ?? {}, energies = m.energy_ev ?? [];
    return table(`Frame ${row?.n ?? ""} as measured`, ["eV", "μ", "pre-edge", "post-edge"], energies.map((energy, at) => [energy.toFixed(2), number(m.mu?.[at]), number(m.pre_edge?.[at]), number(m.post_edge?.[at])]));
  });
}

function pickInMap([x, y], chart) {
  const at = chart.convertFromPixel({ seriesIndex: 0 }, [x, y]);
  const row = spectra?.rows?.[at?.[1]];
  if (row && chart.containPixel({ gridIndex: 0 }, [x, y])) pick(row.uid);
}

// --- controls

$("sessions").onchange = (event) => { location.hash = `s=${encodeURIComponent(event.target.value)}`; };
$("abscissa").onchange = (event) => { view.abscissa = event.target.value; showSeries(); };
$("range").onchange = (event) => { view.range = Number(event.target.value); showSeries(); };
$("map-kind").onchange = showMap;
$("map-last").onchange = () => askSpectra(0);
$("sample").onchange = (event) => { view.series = event.target.value || null; view.follow = true; $("follow").checked = true; showPicker(); askSpectra(0); };
$("follow").onchange = (event) => { view.follow = event.target.checked; if (view.follow) view.series = null; showSamples(); showPicker(); showSeries(); askSpectra(0); };
$("pick").oninput = (event) => { const row = rowsShown()[Number(event.target.value) - 1]; if (row) pick(row.uid); };
window.addEventListener("hashchange", route);

function showColours() {
  const now = document.documentElement.dataset.theme ?? "";
  write($("theme"), `Colours: ${COLOUR_WORDS[now]}`);
}
$("theme").onclick = () => {
  const now = document.documentElement.dataset.theme ?? "";
  const next = COLOURS[(COLOURS.indexOf(now) + 1) % COLOURS.length];
  if (next) document.documentElement.dataset.theme = next; else delete document.documentElement.dataset.theme;
  keep("xas-agent-colours", next);
  showColours();
  redrawAll();
};

showColours();
refreshList();
setInterval(refreshList, LIST_MS);
setInterval(everySecond, 1000);

