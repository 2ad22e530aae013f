// Sessions side by side: state, judged value, one quantity on the same scale of values, first and last spectrum.

import { Chart } from "./chart.js";
import { $, el, refill, write } from "./dom.js";
import { count, label } from "./format.js";
import { showJudged } from "./judged.js";
import { get, sessionPath } from "./net.js";
import { limitsOf, panelsOf, seriesOption, seriesText, usualPanels } from "./series.js";
import { Session } from "./session.js";
import { spectraOption } from "./spectra.js";
import { stateOf } from "./strip.js";

export const MOST = 4;

export class Compare {
  constructor() {
    this.columns = new Map();
    $("compare-quantity").onchange = () => { this.quantity = $("compare-quantity").value; this.draw(); };
    this.tick = setInterval(() => this.columns.forEach((column) => column.heads()), 1000);
  }

  /** Show these sessions; columns of others are closed. */
  show(ids) {
    for (const [id, column] of this.columns) if (!ids.includes(id)) { column.close(); this.columns.delete(id); }
    for (const id of ids) if (!this.columns.has(id)) this.columns.set(id, new Column(id, () => this.draw()));
    $("compare-board").replaceChildren(...ids.map((id) => this.columns.get(id).node));
    this.draw();
  }

  close() {
    clearInterval(this.tick);
    this.columns.forEach((column) => column.close());
    this.columns.clear();
  }

  draw() {
    const sessions = [...this.columns.values()].map((column) => column.session);
    const names = new Map();
    for (const session of sessions) for (const panel of panelsOf(session)) if (panel.kind !== "classes") names.set(panel.id, panel.name);
    const select = $("compare-quantity"), chosen = this.quantity ?? sessions.map((session) => [...usualPanels(session, panelsOf(session))][0]).find(Boolean);
    refill(select, [...names], () => [...names].map(([id, name]) => el("option", { value: id }, name)));
    if (names.has(chosen)) select.value = chosen;
    const limits = sessions.map((session) => limitsOf(session, select.value)).filter(Boolean);
    const same = limits.length ? { min: Math.min(...limits.map((one) => one.min)), max: Math.max(...limits.map((one) => one.max)) } : null;
    this.columns.forEach((column) => column.draw(select.value, same));
  }
}

class Column {
  constructor(id, changed) {
    this.head = el("p", { class: "pill small" });
    this.title = el("h3", {});
    this.judged = el("div", { class: "judged-list one" });
    const [over, spectra] = [el("div", { class: "chart" }), el("div", { class: "chart" })];
    this.node = el("section", { class: "card column", "aria-label": id }, this.title, this.head, this.judged, over, spectra);
    this.over = new Chart(over, { name: "Over time" });
    this.spectraChart = new Chart(spectra, { name: "First and last spectrum" });
    this.session = new Session(id);
    this.session.addEventListener("change", (event) => {
      if (event.detail.has("frames")) this.askSpectra();
      changed();
    });
  }

  askSpectra() {
    this.asking ??= setTimeout(async () => {
      this.asking = undefined;
      const series = this.session.last?.series;
      this.spectra = await get(sessionPath(this.session.id, `/spectra?last=2${series ? `&series=${encodeURIComponent(series)}` : ""}`)).catch(() => this.spectra);
      this.spectraChart.show((c, width) => spectraOption(this.spectra, null, c, width), "");
    }, this.spectra ? 2000 : 0);
  }

  heads() {
    const state = stateOf(this.session);
    this.head.dataset.state = state.key;
    write(this.head, `${state.icon} ${state.word} ${state.why}`.trim());
  }

  draw(quantity, limits) {
    const session = this.session, last = session.last;
    this.heads();
    write(this.title, session.info && session.info.title !== session.id ? `${session.info.title}, ${session.id}` : session.id);
    showJudged(this.judged, session);
    this.over.show((c, width) => seriesOption(session, { panels: new Set([quantity]), abscissa: "time", first: 190, limits }, c, width), `${label(quantity)}; ${seriesText(session, { panels: new Set([quantity]) })}`);
    this.node.setAttribute("aria-label", `${this.title.textContent}, ${count(session.rows.length, "frame")}${last ? `, ${last.sample}` : ""}`);
  }

  close() {
    this.session.close();
    this.over.close();
    this.spectraChart.close();
    clearTimeout(this.asking);
  }
}
