// Descriptors over time: panels one below the other on one axis of time or frames.

import { axis, tooltip } from "./chart.js";
import { clock, count, isNumber, label, number, short, unitOf, withUnit, Z90 } from "./format.js";
import { has, reading } from "./session.js";

const MOST_POINTS = 1500;
const SYMBOLS = ["circle", "triangle", "rect", "diamond", "pin", "roundRect"];
const DASHES = ["solid", [7, 3], [2, 2], [9, 3, 2, 3]];
const SCORE_LIMIT = 1;

/** Return the panels that a session can show: `{id, kind, name, unit}`. */
export function panelsOf(session) {
  const row = session.last;
  const given = session.info?.descriptors ?? [];
  const plain = given.filter((d) => !d.name.endsWith("_anchored") && (!row || has(row, d.name)));
  const panels = plain.map((d) => ({ id: d.name, kind: "descriptor", name: label(d.name), unit: unitOf(d.unit) }));
  for (const d of plain) if (row?.probabilities?.[d.name]) panels.push({ id: `p:${d.name}`, kind: "classes", of: d.name, name: `class of ${label(d.name)}`, unit: "" });
  panels.push({ id: "ood_score", kind: "score", name: "score", unit: "" });
  return panels;
}

/** Return the panels that are shown at first: what the rules judge, the class of it, the bond length and the score. */
export function usualPanels(session, panels) {
  const judged = (session.info?.rules ?? []).map((rule) => (rule.quantity ?? "").replace(/_anchored$/, ""));
  const main = panels.find((p) => judged.includes(p.id)) ?? panels[0];
  const wanted = new Set([...judged, main?.id, `p:${main?.id}`, "mean_bond", "ood_score"]);
  return new Set(panels.filter((p) => wanted.has(p.id)).map((p) => p.id));
}

/** Return the levels of the rules for some quantities, each with the names of the rules that share it. */
export function levelsOf(session, names) {
  const found = new Map();
  for (const rule of session.info?.rules ?? []) {
    if (!names.includes(rule.quantity)) continue;
    for (const level of new Set((rule.levels ?? []).filter(isNumber))) {
      if (!found.has(level)) found.set(level, { level, unit: unitOf(rule.unit), rules: [] });
      found.get(level).rules.push(rule.name);
    }
  }
  return [...found.values()];
}

export function thinned(rows, most = MOST_POINTS) {
  if (rows.length <= most) return rows;
  const step = (rows.length - 1) / (most - 1);
  return Array.from({ length: most }, (_, at) => rows[Math.round(at * step)]);
}

export function bySeries(rows) {
  const found = new Map();
  for (const row of rows) {
    const key = row.series ?? row.sample ?? "";
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(row);
  }
  return [...found.values()];
}

/** Return the ECharts option of the panels and its height; null without frames. */
export function seriesOption(session, view, c, width) {
  let rows = view.range ? session.rows.slice(-view.range) : session.rows;
  rows = thinned(rows);
  if (view.abscissa !== "n" && rows.some((row, at) => at && row.time < rows[at - 1].time)) rows = [...rows].sort((a, b) => a.time - b.time);  // the clock was set back, or series overlap
  const panels = panelsOf(session).filter((panel) => view.panels.has(panel.id));
  if (!rows.length || !panels.length) return null;
  const x = (row) => (view.abscissa === "n" ? row.n : row.time * 1000);
  const context = { session, view, c, rows, groups: bySeries(rows), x, width, made: { grid: [], xAxis: [], yAxis: [], series: [] } };
  const heights = panels.map((panel, at) => Math.round(at === 0 ? view.first ?? Math.min(460, Math.max(230, width * 0.4)) : 104 * Math.min(1.4, c.size / 12.5)));
  const head = c.size + 16;
  context.lift = session.decisions.size ? c.size + 4 : 0;
  let top = head + context.lift + (context.groups.length > 1 ? 22 : 0);
  panels.forEach((panel, at) => {
    addPanel(context, panel, at, top, heights[at], at === panels.length - 1);
    top += heights[at] + head + 6;
  });
  return { height: top - head + c.size + (view.abscissa === "n" ? 28 : 12), echarts: { ...context.made, axisPointer: { link: [{ xAxisIndex: "all" }], lineStyle: { color: c.soft } }, legend: legend(context), tooltip: tooltip(c, { trigger: "axis", formatter: (at) => told(context, panels, at) }), dataZoom: [{ type: "inside", xAxisIndex: "all", zoomOnMouseWheel: "ctrl", moveOnMouseMove: false, filterMode: "none" }] } };
}

/** Room beside the panels for the numbers of the axes and for the bar of the common uncertainty, pixels. */
const sides = (c) => ({ left: Math.round(c.size * 4), right: Math.round(c.size * 3.7) + 20 });

function addPanel(context, panel, at, top, height, lowest) {
  const { c, rows, x, view, made, lift } = context;
  made.grid.push({ ...sides(c), top, height });
  made.xAxis.push(axis(c, {
    type: view.abscissa === "n" ? "value" : "time", gridIndex: at, min: x(rows[0]), max: x(rows[rows.length - 1]), minInterval: view.abscissa === "n" ? 1 : undefined,
    axisLabel: { show: lowest, color: c.soft, fontSize: c.size, hideOverlap: true }, axisTick: { show: lowest, lineStyle: { color: c.line } },
    name: lowest && view.abscissa === "n" ? "frame" : "", nameLocation: "middle", nameGap: c.size + 10, axisPointer: { label: { show: false } },
  }));
  const range = panel.kind === "descriptor" ? rangeOf(context, panel) : { min: 0, max: panel.kind === "classes" ? 1 : Math.max(SCORE_LIMIT * 1.1, ...rows.map((row) => row.ood_score).filter(isNumber)) };
  const unit = panel.unit ? ` (${panel.unit})` : "";
  made.yAxis.push(axis(c, {
    type: "value", gridIndex: at, min: range.min, max: range.max, splitNumber: at === 0 ? 5 : 2, splitLine: { show: true, lineStyle: { color: c.line, opacity: 0.45 } },
    name: panel.kind === "classes" ? `probability of each ${panel.name}` : `${panel.name}${unit}`, nameLocation: "end", nameGap: at === 0 ? 8 + lift : 8, axisLabel: { color: c.soft, fontSize: c.size, formatter: (value) => ((panel.kind === "descriptor" ? Math.min(value - range.min, range.max - value) < 0.05 * (range.max - range.min) : value === range.max && value !== Math.round(value)) ? "" : String(+value.toFixed(4)).replace("-", "−")) },
    nameTextStyle: { color: c.text, fontSize: c.size + 1, fontWeight: 600, align: "left", padding: [0, 0, 0, 10 - sides(c).left] },
  }));
  if (panel.kind === "descriptor") addDescriptor(context, panel, at, range);
  else if (panel.kind === "classes") addClasses(context, panel, at);
  else addScore(context, at);
  addMarks(context, at, range);
}

/** Return the range of a panel: trend, ribbon and bars; the common uncertainty only where the trend stays readable. */
function rangeOf(context, panel) {
  const names = [panel.id, `${panel.id}_anchored`];
  const seen = [];
  for (const row of context.rows) for (const name of names) {
    const read = reading(row, name);
    if (read) seen.push(read.value - Z90 * (read.sd ?? 0), read.value + Z90 * (read.sd ?? 0));
  }
  if (context.view.limits) return context.view.limits;
  let [min, max] = [Math.min(...seen), Math.max(...seen)];
  const last = commonOf(context, panel);
  const near = Math.max(4 * (max - min), last ? 1.5 * (last.hi - last.lo) : 0);
  for (const { level } of levelsOf(context.session, names)) if (level >= min - near && level <= max + near) [min, max] = [Math.min(min, level), Math.max(max, level)];
  if (last && Math.max(max, last.hi) - Math.min(min, last.lo) <= 2.5 * (max - min)) [min, max] = [Math.min(min, last.lo), Math.max(max, last.hi)];
  const room = Math.max((max - min) * 0.1, 1e-3);
  return { min: min - room, max: max + room };
}

/** Return the range that a quantity needs in a session, or null. */
export function limitsOf(session, id) {
  const panel = panelsOf(session).find((one) => one.id === id);
  return panel?.kind === "descriptor" && session.rows.length ? rangeOf({ session, rows: thinned(session.rows), view: {} }, panel) : null;
}

/** The reading whose common interval is drawn: of the anchored value, where there is one. */
function commonOf(context, panel) {
  const row = context.rows[context.rows.length - 1];
  const read = reading(row, `${panel.id}_anchored`) ?? reading(row, panel.id);
  return read && isNumber(read.lo) && isNumber(read.hi) ? read : null;
}

function addDescriptor(context, panel, at, range) {
  const { c, groups, x, made, session, width } = context;
  const levels = levelsOf(session, [panel.id, `${panel.id}_anchored`]);
  groups.forEach((rows, number) => {
    const colour = c.series[number % c.series.length];
    const name = seriesName(rows);
    const anchored = rows.some((row) => has(row, `${panel.id}_anchored`));
    addRibbon(made, rows, panel.id, x, at, anchored ? c.soft : colour);
    made.series.push({ ...line(at, rows.map((row) => [x(row), reading(row, panel.id)?.value ?? null]), anchored ? c.soft : colour, rows.length), name: anchored ? `${name}: as the model says` : name, ...(anchored ? { showSymbol: false, lineStyle: { color: c.soft, width: 1.5, type: [5, 3] } } : {}) });
    if (!anchored) return;
    addRibbon(made, rows, `${panel.id}_anchored`, x, at, colour);
    made.series.push({ ...line(at, rows.map((row) => [x(row), reading(row, `${panel.id}_anchored`)?.value ?? null]), colour, rows.length), name: groups.length > 1 ? name : "anchored" });
  });
  if (levels.length) made.series.push({
    type: "line", xAxisIndex: at, yAxisIndex: at, data: [], silent: true, name: "",
    markLine: {
      silent: true, symbol: "none", lineStyle: { color: c.rule, type: "dashed", width: 1.8 },
      data: levels.filter(({ level }) => level > range.min && level < range.max).map(({ level, rules, unit }) => ({ yAxis: level, label: { position: "insideStartTop", color: c.rule, fontSize: c.size, fontWeight: 600, formatter: `${short(rules.join(", "), width < 500 ? 24 : 44)}: ${number(level)}${unit ? ` ${unit}` : ""}` } })),
    },
  });
  addCommon(context, panel, at, range);
}

const seriesName = (rows) => short(String(rows[0].sample || rows[0].element || "frames"), 30);

const line = (at, data, colour, points) => ({
  type: "line", xAxisIndex: at, yAxisIndex: at, data, symbol: "circle", showSymbol: points <= 120, symbolSize: 4, lineStyle: { color: colour, width: 1.8 }, itemStyle: { color: colour }, connectNulls: false, emphasis: { disabled: true },
});

/** A ribbon of ± 1.64 sd_frame: an invisible line at its lower end, and its width stacked on it. */
function addRibbon(made, rows, name, x, at, colour) {
  const reads = rows.map((row) => [x(row), reading(row, name)]);
  if (!reads.some(([, read]) => read?.sd)) return;
  const stack = `${name}-${at}-${made.series.length}`;
  const part = (data, areaStyle) => ({ type: "line", xAxisIndex: at, yAxisIndex: at, stack, stackStrategy: "all", data, silent: true, showSymbol: false, symbol: "none", lineStyle: { width: 0, opacity: 0 }, areaStyle, name: "", tooltip: { show: false }, emphasis: { disabled: true } });
  made.series.push(part(reads.map(([at, read]) => [at, read?.sd ? read.value - Z90 * read.sd : null])));
  made.series.push(part(reads.map(([at, read]) => [at, read?.sd ? 2 * Z90 * read.sd : null]), { color: colour, opacity: 0.28 }));
}

/** The uncertainty that all frames share: one bar beside the panel, cut with an arrow where the panel is too narrow. */
function addCommon({ c, made, rows, x, session, view }, panel, at, range) {
  const read = commonOf({ rows }, panel);
  if (!read) return;
  made.series.push({
    type: "custom", xAxisIndex: at, yAxisIndex: at, clip: false, silent: true, name: "", tooltip: { show: false }, z: 5,
    data: [[x(rows[rows.length - 1]), read.lo, read.hi]], encode: { x: 0, y: [1, 2] },
    renderItem: (params, api) => {
      const px = params.coordSys.x + params.coordSys.width + 12;
      const y = (value) => api.coord([api.value(0), Math.min(range.max, Math.max(range.min, value))])[1];
      const [low, high] = [y(api.value(1)), y(api.value(2))];
      const cut = [api.value(1) < range.min, api.value(2) > range.max];
      const style = { stroke: c.text, lineWidth: 1.6, fill: null };
      const cap = (at, isCut, sign) => ({ type: "polyline", shape: { points: isCut ? [[px - 4, at + 6 * sign], [px, at], [px + 4, at + 6 * sign]] : [[px - 4, at], [px + 4, at]] }, style });
      const half = (api.value(2) - api.value(1)) / 2;
      return { type: "group", children: [
        { type: "line", shape: { x1: px, x2: px, y1: low, y2: high }, style }, cap(low, cut[0], -1), cap(high, cut[1], 1),
        { type: "text", style: { x: px + 8, y: (low + high) / 2, text: `±${number(half, panel.unit)}`, fill: c.text, fontSize: c.size, fontFamily: c.font, verticalAlign: "middle" } },
      ] };
    },
  });
}

function addClasses({ c, groups, x, made }, panel, at) {
  const classes = [...new Set(groups.flat().flatMap((row) => Object.keys(row.probabilities?.[panel.of] ?? {})))].sort((a, b) => Number(a) - Number(b) || (a < b ? -1 : 1));
  const all = groups.flat().every((row) => Object.keys(row.probabilities?.[panel.of] ?? {}).length > 1);
  classes.forEach((name, number) => {
    const colour = c.series[number % c.series.length];
    for (const rows of groups) {
      const data = rows.map((row) => [x(row), row.probabilities?.[panel.of]?.[name] ?? null]);
      const lastAt = data.findLastIndex(([, p]) => isNumber(p));
      if (lastAt < 0) continue;
      const text = { formatter: name, color: colour, fontSize: c.size, fontWeight: 700 };
      if (!all) data[lastAt] = { value: data[lastAt], label: { ...text, show: true, position: "right" } };
      const named = all && rows === groups[groups.length - 1] && data[lastAt][1] >= 0.1;
      made.series.push({ ...line(at, data, colour, 1), name: "", symbol: SYMBOLS[number % SYMBOLS.length], endLabel: { ...text, show: named }, showSymbol: !all || rows.length <= 60, symbolSize: rows.length > 200 ? 4 : 6, lineStyle: { width: all ? 1.7 : 0, opacity: all ? 1 : 0, color: colour, type: DASHES[number % DASHES.length] } });
    }
  });
}

function addScore({ c, groups, x, made }, at) {
  groups.forEach((rows, number) => made.series.push({
    ...line(at, rows.map((row) => [x(row), isNumber(row.ood_score) ? row.ood_score : null]), c.series[number % c.series.length], rows.length), name: "",
    markLine: number ? undefined : { silent: true, symbol: "none", lineStyle: { color: c.rule, type: "dotted", width: 1.8 }, data: [{ yAxis: SCORE_LIMIT, label: { position: "insideStartBottom", color: c.rule, fontSize: c.size, formatter: "above: unlike the training spectra" } }] },
  }));
}

/** Decisions and the selected frame, over all panels; names only above the first, where they hide no curve. */
function addMarks({ c, made, session, view, rows, x, width, lift }, at, range) {
  const [from, to] = [x(rows[0]), x(rows[rows.length - 1])];
  const decisions = [...session.decisions.values()].map((d) => ({ d, x: decisionAt(session, d, view) })).filter((one) => one.x >= from && one.x <= to);
  const picked = view.follow === false && session.byUid.get(view.uid);
  const lines = decisions.map((one) => ({ xAxis: one.x, lineStyle: { color: c.mark, width: 1.2, type: "solid" } }));
  if (picked) lines.push({ xAxis: x(picked), lineStyle: { color: c.pick, width: 2, type: "solid", opacity: 0.8 } });
  made.series.push({ type: "line", xAxisIndex: at, yAxisIndex: at, data: [], silent: true, name: "", markLine: { silent: true, symbol: "none", label: { show: false }, data: lines } });
  if (at !== 0) return;
  const room = width - sides(c).left - sides(c).right;
  const labels = labelsOf(decisions.map((one) => ({ action: one.d.action, px: ((one.x - from) / (to - from || 1)) * room })), room, c.size);
  made.series.push({
    type: "scatter", id: "decisions", name: "", xAxisIndex: 0, yAxisIndex: 0, z: 10, symbol: "triangle", symbolRotate: 180, symbolSize: 13, symbolOffset: [0, -lift / 2], clip: false, cursor: "pointer",
    data: decisions.map(({ d, x }, number) => ({ value: [x, range.max], itemStyle: { color: d.status === "acknowledged" ? c.mark : c.card, borderColor: c.mark, borderWidth: 2 }, label: { show: Boolean(labels[number]), formatter: labels[number]?.text, position: labels[number]?.side ?? "right", color: c.mark, fontSize: c.size, fontWeight: 700 } })),
  });
}

/** Pixels within which decisions share a label, and which a marker takes to either side. */
const TOGETHER = 10, MARKER = 9;

/** Return for each decision its label and on which side it stands, or undefined where there is no room for one. */
export function labelsOf(decisions, room, size) {
  const groups = [];
  [...decisions.entries()].sort(([, a], [, b]) => a.px - b.px).forEach(([number, { action, px }]) => {
    const last = groups[groups.length - 1];
    if (last && px - last.px < TOGETHER) last.actions.add(action);
    else groups.push({ number, px, actions: new Set([action]) });
  });
  const labels = [];
  let taken = 0;  // up to here there are labels and markers
  groups.forEach(({ number, px, actions }, at) => {
    const text = [...actions].join(", ");
    const needed = text.length * size * 0.7 + MARKER;
    const free = { right: (groups[at + 1]?.px ?? room + MARKER) - MARKER - px, left: px - taken };
    const side = (px > room * 0.8 ? ["left", "right"] : ["right", "left"]).find((one) => free[one] >= needed);
    if (side) labels[number] = { text, side };
    taken = px + (side === "right" ? needed : MARKER);
  });
  return labels;
}

function decisionAt(session, d, view) {
  if (view.abscissa !== "n") return d.time * 1000;
  const last = d.evidence?.[d.evidence.length - 1]?.n;
  return isNumber(last) ? last : session.rows.findLast((row) => row.time <= d.time)?.n ?? -1;
}

function legend({ c, groups, made }) {
  if (groups.length < 2) return { show: false };
  return { top: 0, left: sides(c).left, right: 4, type: "scroll", data: [...new Set(groups.map(seriesName))], textStyle: { color: c.text, fontSize: c.size }, pageTextStyle: { color: c.soft } };
}

/** Return the row next to a place on the axis. */
export function nearest(rows, x, at) {
  let best = null, least = Infinity;
  for (const row of rows) {
    const away = Math.abs(x(row) - at);
    if (away < least) [best, least] = [row, away];
  }
  return best;
}

function told({ rows, x }, panels, params) {
  const at = Array.isArray(params) ? params[0]?.axisValue : params?.value?.[0];
  const row = nearest(rows, x, at);
  if (!row) return "";
  const lines = [`frame ${row.n}   ${clock(row.time)}   ${short(String(row.sample ?? ""), 30)}`];
  for (const panel of panels) {
    for (const name of [panel.id, `${panel.id}_anchored`]) {
      const read = reading(row, name);
      if (!read) continue;
      const small = read.sd ? ` ± ${number(Z90 * read.sd)}` : "";
      const common = isNumber(read.lo) ? `   (${number(read.lo)}…${number(read.hi)})` : "";
      lines.push(`${label(name)}  ${withUnit(read.value, panel.unit)}${small}${common}`);
    }
    const classes = Object.entries(row.probabilities?.[panel.of] ?? {});
    if (classes.length) lines.push(`${panel.name}  ${classes.map(([name, p]) => `${name}: ${number(p)}`).join(", ")}`);
  }
  const flags = flagsOf(row);
  if (flags) lines.push(short(flags, 60));
  return lines.join("\n");
}

export const flagsOf = (row) => (Array.isArray(row.flags) ? row.flags.join(", ") : row.flags || "");

/** Say in words what the panels show. */
export function seriesText(session, view) {
  const [first, last] = [session.first, session.last];
  if (!last) return "No frame yet";
  const parts = panelsOf(session).filter((p) => view.panels.has(p.id) && p.kind === "descriptor").map((p) => `${p.name} from ${withUnit(reading(first, p.id)?.value, p.unit)} to ${withUnit(reading(last, p.id)?.value, p.unit)}`);
  return `${count(session.rows.length, "frame")}; ${parts.join("; ")}; ${count(session.decisions.size, "decision")}`;
}
