// Set-asides, sources and sinks, and what the session is.

import { $, el, refill, svg } from "./dom.js";
import { clock, count, day, isNumber, short } from "./format.js";
import { fileAddress, sessionPath } from "./net.js";

export function showQuality(session) {
  const quality = session.quality;
  refill($("quality-body"), [quality, session.last?.n], () => {
    const reasons = Object.entries(quality?.set_aside ?? {}).sort((a, b) => b[1] - a[1]);
    const gaps = typeof quality?.gaps === "object" && quality?.gaps !== null ? Object.values(quality.gaps).reduce((sum, n) => sum + n, 0) : quality?.gaps ?? 0;
    const total = reasons.reduce((sum, [, n]) => sum + n, 0);
    if (!reasons.length && !gaps) return el("p", { class: "note" }, `Nothing was set aside; ${count(session.rows.length, "frame")} answered.`);
    const most = Math.max(1, ...reasons.map(([, n]) => n));
    return [
      el("p", {}, el("strong", {}, String(total)), " set aside, ", el("strong", {}, String(gaps)), ` ${gaps === 1 ? "gap" : "gaps"}, ${count(session.rows.length, "frame")} answered`),
      el("ul", { class: "plain amounts" }, reasons.map(([reason, n]) => el("li", {}, el("span", { class: "grow" }, reason), el("strong", {}, String(n)), bar(n / most)))),
      quality.latest?.length ? el("details", {}, el("summary", {}, "The latest"), el("ul", { class: "plain" }, quality.latest.slice(0, 20).map((note) => el("li", {}, el("time", {}, clock(note.time)), ` ${note.reason}`, note.detail ? el("span", { class: "note" }, ` ${short(note.detail, 200)}`) : null)))) : null,
    ];
  });
}

const bar = (part) => svg("svg", { class: "amount", viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true" }, svg("rect", { x: 0, y: 0, height: 4, width: Math.max(1, part * 100).toFixed(1) }));

const GOOD = /^(ok|open|live|connected|reading|ready|running|up|listening|done|ended|closed|whole)/i;

export function showLinks(session) {
  const { sources = [], sinks = [], queue, message } = session.state ?? {};
  refill($("links-body"), [sources, sinks, queue, message, session.live, session.stale], () => {
    const rows = [
      ...sources.map((source) => ["source", source.name, source.state || "–", GOOD.test(source.state ?? "")]),
      ...sinks.map((sink) => ["sink", sink.name, sinkText(sink), !sink.lost && !sink.failed]),
    ];
    const queued = session.live && isNumber(queue) ? queue : null;
    return [
      rows.length ? el("ul", { class: "plain ends" }, rows.map(([kind, name, text, good]) => el("li", { "data-good": good }, el("span", { class: "mark", "aria-hidden": "true" }, good ? "●" : "▲"), el("span", { class: "grow" }, el("span", { class: "note" }, `${kind} `), el("span", { class: "name" }, name)), el("span", { class: "what" }, text)))) : el("p", { class: "note" }, session.live ? "The agent has not told of its sources." : "The session has ended."),
      queued !== null ? el("p", { class: "note" }, `${count(queued, "document waits", "documents wait")} to be read`) : null,
    ];
  });
}

const sinkText = (sink) => [sink.documents ? `${sink.documents} waiting` : "all written", sink.lost ? `${sink.lost} lost` : "", sink.failed ? `${sink.failed} failed` : ""].filter(Boolean).join(", ");

export function showAbout(session) {
  const info = session.info;
  if (!info) return;
  refill($("about-body"), [info.models, info.config, info.versions, info.rules, info.files, info.started, info.ended, session.samples.length], () => {
    const fact = (name, value) => (value ? el("div", {}, el("dt", {}, name), el("dd", {}, value)) : null);
    const rows = (format) => el("a", { href: fileAddress(sessionPath(session.id, `/frames?format=${format}`)), download: `${session.id}.${format}` }, format.toUpperCase());
    return [
      el("dl", { class: "about" },
        fact("Folder", info.folder), fact("Began", day(info.started)), fact("Ended", info.ended ? day(info.ended) : null),
        fact("Samples", session.samples.map((one) => one.name || "unnamed").join(", ")),
        fact("Models", (info.models ?? []).map((model) => `${model.name} (${String(model.sha256 ?? "").slice(0, 12)})`).join(", ")),
        fact("Versions", Object.entries(info.versions ?? {}).map(([name, version]) => `${name} ${version}`).join(", "))),
      (info.rules ?? []).length ? el("details", {}, el("summary", {}, `Rules (${info.rules.length})`), el("ul", {}, info.rules.map((rule) => el("li", {}, el("strong", {}, rule.name), ` → ${rule.action}. ${rule.text ?? ""}`)))) : null,
      info.config && Object.keys(info.config).length ? el("details", {}, el("summary", {}, "Config"), el("pre", { tabindex: 0 }, JSON.stringify(info.config, null, 2))) : null,
      (info.files ?? []).length ? el("details", {}, el("summary", {}, `Files (${info.files.length})`), el("ul", {}, info.files.map((file) => el("li", {}, file)))) : null,
      el("p", { class: "downloads" }, "All frames as ", rows("csv"), " ", rows("parquet"), " ", rows("json")),
    ];
  });
}
