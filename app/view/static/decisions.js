// Decisions: what waits for a person, the list, and the evidence of one.

import { Chart } from "./chart.js";
import { $, el, refill, write } from "./dom.js";
import { clock, isNumber, label, number } from "./format.js";
import { rawOption, rawText, spectraOption } from "./spectra.js";

const ICONS = { proposed: "◔", approved: "◑", sent: "→", acknowledged: "✓", rejected: "✕", expired: "○" };
const WORDS = { proposed: "proposed", approved: "approved", sent: "sent", acknowledged: "done", rejected: "rejected", expired: "expired" };

export const actionText = (d) => {
  const args = Object.entries(d.args ?? {}).filter(([name]) => name !== "run").map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`);
  return args.length ? `${d.action} (${args.join(", ")})` : d.action;
};
export const sentence = (d) => `${actionText(d)} by ${d.rule}: ${d.reason}`;

const status = (d) => el("span", { class: "status", "data-status": d.status }, el("span", { "aria-hidden": "true" }, `${ICONS[d.status] ?? "•"} `), WORDS[d.status] ?? d.status);

export function showDecisions(session, { open, act, may }) {
  const all = [...session.decisions.values()].sort((a, b) => b.time - a.time);
  refill($("decision-list"), [all, session.live, may], () => all.length ? all.map((d) => decisionItem(d, { open })) : el("li", { class: "note" }, "No decision yet."));
  const waiting = session.pending;
  $("waiting").hidden = !waiting.length;
  refill($("waiting-list"), [waiting, may], () => waiting.map((d) => el("li", { class: "waits" },
    el("div", { class: "grow" }, el("p", {}, el("strong", { class: "what" }, actionText(d)), ` by ${d.rule}`, el("span", { class: "note" }, ` since ${clock(d.time)}${d.status_reason ? `, ${d.status_reason}` : ""}`)), el("p", {}, d.reason)),
    el("div", { class: "buttons" }, decisionButtons(d, { open, act, may })))));
}

export function decisionButtons(d, { open, act, may }) {
  const button = (word, kind, run, needs) => el("button", { type: "button", class: kind, "data-key": `${word}-${d.id}`, "aria-disabled": needs && !may ? "true" : null, "aria-describedby": needs && !may ? "hint" : null, on: { click: run }, "aria-label": `${word}: ${actionText(d)} by ${d.rule}` }, word);
  return [button("Approve", "good", () => act("approve", d), true), button("Reject", "", () => act("reject", d), true), open ? button("Evidence", "quiet", () => open(d)) : null];
}

function decisionItem(d, { open }) {
  return el("li", { class: "decision", "data-id": d.id },
    el("button", { type: "button", class: "row-button", "data-key": d.id, on: { click: () => open(d) } },
      el("span", { class: "decision-head" }, el("strong", { class: "what" }, actionText(d)), status(d), el("time", { datetime: new Date(d.time * 1000).toISOString() }, clock(d.time))),
      el("span", { class: "reason" }, `${d.rule}: ${d.reason}`),
      d.status_reason ? el("span", { class: "note" }, d.status_reason) : null,
      el("span", { class: "unseen" }, " Show the evidence")));
}

/** The sheet with the evidence of one decision. */
export class Evidence {
  constructor({ fetchFrame, act }) {
    Object.assign(this, { fetchFrame, act, decision: null, session: null });
    this.raw = new Chart($("evidence-raw"), { name: "Frame as measured, with its alignment" });
    this.aligned = new Chart($("evidence-aligned"), { name: "Aligned spectrum and its difference to the first" });
    $("evidence-close").onclick = () => $("evidence").close();
  }

  open(session, decision, may) {
    Object.assign(this, { session, decision, may });
    this.fill();
    if (!$("evidence").open) $("evidence").showModal();
    $("evidence").scrollTop = 0;
    const last = decision.evidence?.[decision.evidence.length - 1];
    const uid = last?.uid ?? session.last?.uid;
    if (uid) this.pick(uid);
  }

  /** Show a change of the decision while the sheet is open. */
  update(session, may) {
    if (!$("evidence").open || session !== this.session) return;
    const now = session.decisions.get(this.decision.id);
    if (!now || (now === this.decision && may === this.may)) return;
    Object.assign(this, { decision: now, may });
    this.fill();
  }

  fill() {
    const d = this.decision;
    write($("evidence-title"), `${actionText(d)} by ${d.rule}`);
    const history = (d.history ?? []).map((step) => el("li", {}, `${clock(step.time)} ${WORDS[step.status] ?? step.status}`, step.by ? ` by ${step.by}` : "", step.reason ? `: ${step.reason}` : ""));
    const waits = this.session.pending.some((one) => one.id === d.id);
    refill($("evidence-body"), [d, waits, this.may], () => [
      el("p", { class: "lead" }, d.reason),
      el("p", {}, status(d), d.status_reason ? ` ${d.status_reason}` : "", isNumber(d.confidence) ? el("span", { class: "note" }, ` · confidence ${number(d.confidence)}`) : null),
      waits ? el("div", { class: "buttons" }, decisionButtons(d, { open: null, act: this.act, may: this.may })) : null,
      history.length ? el("ol", { class: "plain history" }, history) : null,
      el("h3", {}, "Evidence"),
      d.evidence?.length ? el("div", { class: "evidence-frames", role: "group", "aria-label": "Frames of the evidence" }, d.evidence.map((one) => this.frameButton(one))) : el("p", { class: "note" }, "The decision names no frames."),
    ]);
  }

  frameButton(one) {
    const name = one.n ?? this.session.byUid.get(one.uid)?.n ?? "?";
    return el("button", { type: "button", class: "frame", "data-key": `frame-${one.uid}`, "data-uid": one.uid, "aria-pressed": "false", on: { click: () => this.pick(one.uid) } },
      el("span", {}, `frame ${name}`), el("strong", {}, number(one.value)), one.quantity ? el("span", { class: "unseen" }, ` ${label(one.quantity)}`) : null);
  }

  async pick(uid) {
    this.uid = uid;
    for (const one of document.querySelectorAll("#evidence .frame")) one.setAttribute("aria-pressed", String(one.dataset.uid === uid));
    document.querySelector('#evidence .frame[aria-pressed="true"]')?.scrollIntoView({ block: "nearest", inline: "nearest" });
    const row = this.session.byUid.get(uid);
    write($("evidence-frame"), row ? `Frame ${row.n}, ${clock(row.time)}` : "Frame");
    const frame = await this.fetchFrame(this.session, uid).catch(() => null);
    if (this.uid !== uid) return;
    const text = rawText(frame, row);
    write($("evidence-text"), text);
    $("evidence-raw").hidden = !frame?.measured?.mu?.length;
    this.raw.show((c, width) => rawOption(frame, c, width), text);
    this.aligned.show((c, width) => alignedOption(frame, row, this.session, c, width), "");
  }
}

function alignedOption(frame, row, session, c, width) {
  if (!frame?.aligned) return null;
  const first = session.rows.find((one) => one.series === row?.series);
  const rows = [{ n: first?.n ?? 1, mu: frame.first?.mu ?? frame.aligned.mu }, { n: row?.n ?? "?", mu: frame.aligned.mu }];
  const option = spectraOption({ grid_ev: frame.aligned.energy_ev, rows: rows[0].n === rows[1].n ? [rows[1]] : rows }, null, c, width);
  for (const one of option?.echarts.series ?? []) one.name = one.name.replace("last", "this one");
  if (option) option.echarts.legend.data = [...new Set(option.echarts.series.map((one) => one.name))].filter(Boolean);
  return option;
}
