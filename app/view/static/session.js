// What the page knows of one session, kept up to date by its stream.

import { get, sessionPath, Stream } from "./net.js";
import { isNumber } from "./format.js";

const PAGE = 2000;
/** Silence after which a live stream is asked whether it still lives, and after which it counts as lost, ms. */
const QUIET_MS = 6000;

export class Session extends EventTarget {
  constructor(id) {
    super();
    Object.assign(this, { id, info: null, samples: [], rows: [], byUid: new Map(), decisions: new Map(), quality: null, state: null });
    this.link = "connecting";
    this.heardAt = performance.now();
    this.stateAt = performance.now();
    this.loading = true;
    this.problem = null;
    this.whole = 0;  // number of the frame up to which all are here; the stream brings newer ones meanwhile
    this.changes = new Set();
    this.stream = new Stream(id, {
      hear: (kind, data) => this.hear(kind, data),
      tell: (link) => this.setLink(link),
      again: () => this.load(),
    });
    this.watch = setInterval(() => this.checkLink(), 2000);
    this.load();
  }

  close() {
    this.stream.close();
    clearInterval(this.watch);
    this.closed = true;
  }

  get live() { return Boolean(this.state?.live ?? this.info?.live); }
  get last() { return this.rows[this.rows.length - 1] ?? null; }
  get first() { return this.rows[0] ?? null; }
  /** Whether what is shown may be out of date. */
  get stale() { return this.lost || (this.live && this.state?.answers === false); }
  get lost() { return this.live && this.link !== "live"; }
  /** Decisions that wait for a person. Others are proposed too, for the moment until they are sent. */
  get pending() {
    const waiting = this.live ? this.state?.pending ?? [] : [];
    return waiting.map((id) => this.decisions.get(id)).filter((d) => d?.status === "proposed");
  }
  /** Whether the process ended without an end of its run. */
  get brokenOff() { return Boolean(this.state && !this.live && this.info && !this.info.ended && this.rows.length); }

  /** Seconds since the last frame, or null; it grows on this page's clock between the states of the server. */
  frameAge() { return this.grown(this.state?.last_frame_age_s); }
  documentAge() { return this.grown(this.state?.last_document_age_s); }
  pausedFor() { return this.grown(this.state?.paused_s); }
  grown(seconds) { return isNumber(seconds) ? seconds + (this.live ? (performance.now() - this.stateAt) / 1000 : 0) : null; }

  async load() {
    const path = (rest) => sessionPath(this.id, rest);
    try {
      const [info, state, samples, decisions, quality] = await Promise.all(["", "/state", "/samples", "/decisions", "/quality"].map((rest) => get(path(rest))));
      if (this.closed) return;
      Object.assign(this, { info, samples, quality, problem: null });
      this.takeState(state);
      this.decisions = new Map(decisions.map((d) => [d.id, d]));
      this.changed("info", "state", "decisions", "quality");
      await this.loadRows();
      this.loading = false;
      this.changed("frames");
    } catch (error) {
      if (this.closed) return;
      this.problem = error;
      this.loading = false;
      this.changed("problem");
      setTimeout(() => !this.closed && this.problem && this.load(), 4000);
    }
  }

  async loadRows() {
    for (;;) {
      const after = this.whole, into = this.rows;
      const rows = await get(sessionPath(this.id, `/frames?after=${after}&limit=${PAGE}`));
      if (this.closed || this.rows !== into) return;  // the history was reset meanwhile, and is loaded again
      rows.forEach((row) => this.take(row));
      this.whole = Math.max(this.whole, rows[rows.length - 1]?.n ?? 0);
      if (rows.length < PAGE) return;
      this.changed("frames");
    }
  }

  /** Keep a row; the stream may bring one that the history already had. */
  take(row) {
    if (this.byUid.has(row.uid)) return;
    this.byUid.set(row.uid, row);
    const before = this.last;
    this.rows.push(row);
    if (row.n === this.whole + 1) this.whole = row.n;
    if (before && before.n > row.n) this.rows.sort((a, b) => a.n - b.n);
    const sample = this.samples.find((one) => one.series === row.series);
    if (sample) sample.last = row.time;
    else this.samples.push({ series: row.series, name: row.sample, element: row.element, frames: 0, first: row.time, last: row.time });
  }

  takeState(state) {
    this.state = state;
    this.stateAt = performance.now();
  }

  hear(kind, data) {
    this.heardAt = performance.now();
    if (kind === "frame") { this.take(data); this.changed("frames"); }
    else if (kind === "decision") { this.decisions.set(data.id, data); this.changed("decisions"); this.dispatchEvent(new CustomEvent("decision", { detail: data })); }
    else if (kind === "state") { this.heardState(data); }
    else if (kind === "reset") { this.whole = 0; this.rows = []; this.byUid.clear(); this.samples = []; this.load(); }
    else if (kind === "quality") this.askQuality();
  }

  heardState(state) {
    const [was, waited] = [this.live, this.state?.pending ?? []];
    this.takeState(state);
    this.changed("state");
    if (state.pending?.some((id) => !waited.includes(id)) || (state.pending?.length ?? 0) !== waited.length) this.changed("decisions");
    if (was !== this.live) this.load();  // it began or ended: its description is another one
  }

  askQuality() {
    this.askingQuality ??= setTimeout(async () => {
      this.askingQuality = undefined;
      try { this.quality = await get(sessionPath(this.id, "/quality")); this.changed("quality"); } catch { /* the link's state says it */ }
    }, 1000);
  }

  setLink(link) {
    if (link === "live") this.heardAt = performance.now();
    if (this.link === link) return;
    this.link = link;
    this.changed("link");
  }

  /** An event stream over a dead connection stays silent for minutes; so ask. */
  async checkLink() {
    if (!this.live || this.link !== "live" || performance.now() - this.heardAt < QUIET_MS) return;
    try {
      this.takeState(await get(sessionPath(this.id, "/state")));
      this.heardAt = performance.now();
      this.changed("state");
    } catch {
      if (!this.closed) this.stream.restart();
    }
  }

  /** Tell the page once per tick what changed. */
  changed(...what) {
    what.forEach((one) => this.changes.add(one));
    if (this.telling) return;
    this.telling = true;
    queueMicrotask(() => {
      this.telling = false;
      const changes = this.changes;
      this.changes = new Set();
      this.dispatchEvent(new CustomEvent("change", { detail: changes }));
    });
  }
}

/** Return the value, the frame-to-frame interval and the common interval of a quantity in a row, or null. */
export function reading(row, name) {
  if (!row) return null;
  const base = name.replace(/_mean$/, "");
  if (isNumber(row[`${base}_mean`])) {
    const [lo, hi, sd] = [row[`${base}_lo`], row[`${base}_hi`], row[`${base}_sd_frame`]];
    return { value: row[`${base}_mean`], lo, hi, sd: isNumber(sd) ? sd : null };
  }
  return isNumber(row[name]) ? { value: row[name], lo: null, hi: null, sd: null } : null;
}

/** Return whether the mean of a quantity is in the rows. */
export const has = (row, name) => reading(row, name) !== null;
