// What the rules judge: the value, its two intervals, and its distance to each bar.

import { el, refill, svg } from "./dom.js";
import { isNumber, label, number, unitOf, withUnit, Z90 } from "./format.js";
import { reading } from "./session.js";

/** Number of frames that may have come since the state was told. */
const RECENT = 50;

/** Return cards `{quantity, unit, read, rules}`; without rules, the first descriptor alone. */
export function judgedOf(session) {
  const row = session.last, told = session.state?.rules?.length ? session.state.rules : session.info?.rules ?? [];
  const rules = told.filter((rule) => rule.quantity).map((rule) => ({ ...(session.info?.rules ?? []).find((one) => one.name === rule.name), ...rule }));
  const units = new Map((session.info?.descriptors ?? []).map((d) => [d.name, d.unit]));
  const names = [...new Set(rules.map((rule) => rule.quantity))];
  if (!names.length && session.info?.descriptors?.length) {
    const first = session.info.descriptors[0].name;
    names.push(reading(row, `${first}_anchored`) ? `${first}_anchored` : first);
  }
  return names.map((quantity) => ({
    quantity, unit: unitOf(rules.find((rule) => rule.quantity === quantity)?.unit ?? units.get(quantity) ?? units.get(quantity.replace(/_anchored$/, ""))),
    read: reading(row, quantity), rules: rules.filter((rule) => rule.quantity === quantity),
  }));
}

export function showJudged(node, session) {
  const cards = judgedOf(session);
  refill(node, [cards, session.stale, session.live], () => cards.map((card) => judgedCard(card, session)));
}

function judgedCard({ quantity, unit, read, rules }, session) {
  const digits = (value) => number(value, unit);
  const told = rules.find((rule) => isNumber(rule.value))?.value;
  const unknown = !session.live && rules.length > 0 && told === undefined;
  // The state comes once a second: a value of a recent frame is only late, any other is judged over several frames.
  const late = session.rows.slice(-RECENT).some((row) => Math.abs((reading(row, quantity)?.value ?? NaN) - told) < 1e-6);
  const judged = late ? undefined : told;
  const value = judged ?? read?.value;
  const small = read?.sd ? Z90 * read.sd : null;
  const shown = el("article", { class: `card value${session.stale ? " is-stale" : ""}` },
    el("h3", {}, label(quantity), session.stale ? el("span", { class: "stale-word" }, " stale") : null),
    el("p", { class: "big" }, el("span", { class: "big-number" }, digits(value)), unit ? el("span", { class: "unit" }, ` ${unit}`) : null, small !== null && judged === undefined ? el("span", { class: "small-interval" }, ` ± ${digits(small)}`) : null),
    el("p", { class: "note" },
      unknown ? "The last frame, not a judged value. " : "",
      judged !== undefined && read ? `Judged over the rule's frames. Last frame alone: ${withUnit(read.value, unit)} ` : "",
      small !== null ? `±${judged !== undefined ? ` ${digits(small)}` : ""} from frame to frame (90 %)` : "",
      isNumber(read?.lo) ? `${small !== null ? "; " : ""}true value between ${digits(read.lo)} and ${digits(read.hi)}${unit ? ` ${unit}` : ""} (90 %)` : ""),
    gauge(value, small, read, rules),
    el("ul", { class: "plain bars" }, byLevel(rules, value).map(([level, some]) => barLine(level, some, value, unit, session.live))));
  return shown;
}

/** Group rules by the one of their levels that is nearest to the value; undefined for rules without levels. */
function byLevel(rules, value) {
  const found = new Map();
  for (const rule of rules) {
    const levels = (rule.levels?.length ? rule.levels : [rule.level]).filter(isNumber);
    const nearest = isNumber(value) ? [...levels].sort((a, b) => Math.abs(a - value) - Math.abs(b - value))[0] : levels[0];
    found.set(nearest, [...(found.get(nearest) ?? []), rule]);
  }
  return [...found];
}

function barLine(level, rules, value, unit, live) {
  const names = rules.flatMap((rule, at) => [at ? ", " : "", el("strong", { title: rule.text ?? "" }, rule.name), `${rule.action ? ` → ${rule.action}` : ""}${rule.decided ? " (has decided)" : rule.armed === false && live ? " (not in this stage)" : ""}`]);
  if (level === undefined) return el("li", {}, names, rules.length === 1 && rules[0].text ? el("span", { class: "note" }, ` ${rules[0].text}`) : null);
  if (!isNumber(value)) return el("li", {}, `bar ${withUnit(level, unit)}: `, names);
  return el("li", {}, el("strong", { class: "distance" }, withUnit(Math.abs(level - value), unit)), ` ${value < level ? "below" : "above"} the bar ${withUnit(level, unit)} of `, names);
}

/** A line with the value, its two intervals and the bars; the same in words stands beside it. */
function gauge(value, small, read, rules) {
  const levels = rules.flatMap((rule) => [rule.level, ...(rule.levels ?? [])]).filter(isNumber);
  if (!isNumber(value) || !levels.length) return null;
  const ends = [value, ...levels, ...(isNumber(read?.lo) ? [read.lo, read.hi] : [])];
  const [low, high] = [Math.min(...ends), Math.max(...ends)];
  const room = (high - low || 1) * 0.06;
  const x = (at) => (((at - low + room) / (high - low + 2 * room)) * 300).toFixed(1);
  const drawn = svg("svg", { viewBox: "0 0 300 26", class: "gauge", "aria-hidden": "true", preserveAspectRatio: "none" },
    svg("line", { x1: 0, x2: 300, y1: 13, y2: 13, class: "gauge-axis" }));
  if (isNumber(read?.lo)) drawn.append(svg("line", { x1: x(read.lo), x2: x(read.hi), y1: 13, y2: 13, class: "gauge-common" }));
  if (small !== null) drawn.append(svg("line", { x1: x(read.value - small), x2: x(read.value + small), y1: 13, y2: 13, class: "gauge-small" }));
  for (const level of new Set(levels)) drawn.append(svg("line", { x1: x(level), x2: x(level), y1: 1, y2: 25, class: "gauge-bar" }));
  drawn.append(svg("line", { x1: x(value), x2: x(value), y1: 5, y2: 21, class: "gauge-value" }));
  return drawn;
}
