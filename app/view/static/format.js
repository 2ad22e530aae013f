// Numbers and times in words.

export const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

/** Factor from a standard deviation to the half width of a 90 % interval. */
export const Z90 = 1.6449;

/** A quantity's name as a scientist writes it: OS_anchored is "OS (anchored)". */
export function label(name) {
  const words = { mean_bond: "mean bond length", ood_score: "score", latency_ms: "latency", edge_step: "edge step", e0_ev: "E0" };
  if (words[name]) return words[name];
  const base = name.replace(/_mean$/, "");
  return base.endsWith("_anchored") ? `${base.slice(0, -9)} (anchored)` : base.replaceAll("_", " ");
}

/** Return a number with the digits that its unit needs. */
export function number(value, unit = "") {
  if (!isNumber(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && size < 0.00095) return value.toPrecision(1).replace("-", "−");
  const digits = unit === "Å" || unit === "angstrom" ? 3 : size !== 0 && size < 0.095 ? 3 : size >= 1000 ? 1 : 2;
  return value.toFixed(digits).replace("-", "−");
}

export const unitOf = (unit) => (!unit || unit === "dimensionless" ? "" : unit === "angstrom" ? "Å" : unit);
export const withUnit = (value, unit) => [number(value, unitOf(unit)), unitOf(unit)].filter(Boolean).join(" ");

/** 0.4 s, 34 s, 2 min 5 s, 3 h 10 min, 2 d 4 h. */
export function age(seconds) {
  if (!isNumber(seconds)) return "–";
  const s = Math.max(0, seconds);
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

export const milliseconds = (value) => (!isNumber(value) ? "–" : value < 10 ? `${value.toFixed(1)} ms` : value < 10000 ? `${Math.round(value)} ms` : age(value / 1000));

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
export const clock = (unix) => (isNumber(unix) ? CLOCK.format(unix * 1000) : "–");
export const day = (unix) => (isNumber(unix) ? DAY.format(unix * 1000) : "–");

export const count = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

/** Shorten a name in the middle of a line; the whole stays in the title. */
export const short = (text, most = 48) => (text.length <= most ? text : `${text.slice(0, most - 1)}…`);
