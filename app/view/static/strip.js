// The status strip: what the session does now, and whether the page still knows it.

import { $, write } from "./dom.js";
import { age, day, isNumber, milliseconds, short } from "./format.js";

const SILENT_S = 30;

/** Return the state of a session: key, icon, word and reason. The worst comes first. */
export function stateOf(session) {
  const state = session.state, link = session.link;
  if (session.problem && !session.info) return { key: "gone", icon: "✕", word: "Not loaded", why: session.problem.message };
  if (!state) return { key: "wait", icon: "○", word: "Loading", why: "" };
  if (session.lost) return { key: "gone", icon: "✕", word: "Connection lost", why: `what you see is ${age((performance.now() - session.heardAt) / 1000)} old; trying again. If the session has ended, xas-agent view ${session.info?.folder ?? "FOLDER"} shows it` };
  if (session.brokenOff) return { key: "gone", icon: "✕", word: "Agent gone", why: "its process runs no more, and its last run has no end" };
  if (!session.live) return { key: "ended", icon: "■", word: "Ended", why: session.info?.ended ? day(session.info.ended) : "" };
  if (state.answers === false) return { key: "gone", icon: "✕", word: "No answer", why: `${state.message}. A stop and an emergency stop can still be tried` };
  if (state.halted) return { key: "halted", icon: "■", word: "HALTED", why: typeof state.halted === "string" ? state.halted : "rules only stop until it is released" };
  if (state.connected === false) return { key: "silent", icon: "▲", word: "Source gone", why: "no documents can come: the beamline has ended, or the connection to it is lost" };
  if (state.paused) return { key: "paused", icon: "❚❚", word: "PAUSED", why: `for ${age(session.pausedFor())}, ${state.paused}` };
  const silent = session.documentAge();
  if (silent !== null && silent > SILENT_S) return { key: "silent", icon: "▲", word: `No documents for ${age(silent)}`, why: "look at the beamline and its connection" };
  if (!session.rows.length) return { key: "wait", icon: "○", word: "Live", why: "no frame yet" };
  return { key: "live", icon: "●", word: "Live", why: "" };
}

export function showStrip(session) {
  const strip = $("strip"), link = $("link"), state = stateOf(session), row = session.last;
  strip.hidden = link.hidden = false;
  strip.dataset.state = state.key;
  strip.classList.toggle("is-stale", session.stale);
  write($("pill-icon"), state.icon);
  write($("pill-word"), state.word);
  write($("pill-why"), state.why);
  write($("fact-sample"), short(String(row?.sample || session.info?.samples?.at?.(-1) || "–"), 60));
  $("fact-sample").title = String(row?.sample ?? "");
  write($("fact-element"), String(row?.element || session.info?.elements?.[0] || "–"));
  write($("fact-frame"), row ? String(row.n) : "–");
  write($("fact-age-name"), session.live ? "Last frame" : "Last frame at");
  write($("fact-age"), !row ? "–" : session.live ? `${age(session.frameAge())} ago` : day(row.time));
  const latency = session.state?.latency_ms;
  write($("fact-latency"), milliseconds(latency?.p50 ?? row?.latency_ms));
  write($("fact-slowest"), isNumber(latency?.p99) ? `, 99 % within ${milliseconds(latency.p99)}` : "");
  link.dataset.link = session.link;
  write(link, { live: "connected", lost: "connection lost, trying again", connecting: "connecting" }[session.link]);
  document.title = `${state.icon} ${state.word}${session.pending.length ? ` (${session.pending.length} waiting)` : ""} · ${row?.sample || session.info?.title || "xas-agent"}`;
  return state;
}
