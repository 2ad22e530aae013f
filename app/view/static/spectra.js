// Spectra: heat map over the frames, first, last and selected spectrum, and a frame as it was measured.

import { axis, tooltip } from "./chart.js";
import { isNumber, number } from "./format.js";

const CIVIDIS = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"];
const DIVERGING = ["#0b4f8a", "#3f86c0", "#9cc6e3", "#f4f4f2", "#f6b88a", "#d9722e", "#8f3b05"];
const DIVERGING_DARK = ["#7cc7ff", "#3f8fd0", "#1c4a72", "#161b21", "#6b3a17", "#cf6f26", "#ffb47a"];
const ENERGY = "energy relative to the tabulated edge (eV)";

/** Return the heat map of aligned spectra, energy × frame; null without spectra. */
export function mapOption(spectra, kind, c, width) {
  const rows = spectra?.rows ?? [];
  if (!rows.length) return null;
  const grid = spectra.grid_ev;
  const first = rows[0].mu;
  const cells = rows.flatMap((row, y) => row.mu.map((mu, x) => [x, y, isNumber(mu) ? (kind === "mu" ? mu : mu - first[x]) : null]));
  const seen = cells.map((cell) => cell[2]).filter(isNumber).sort((a, b) => a - b);
  const most = kind === "mu" ? seen[seen.length - 1] : Math.max(1e-6, Math.abs(seen[Math.floor(seen.length * 0.005)]), Math.abs(seen[Math.ceil(seen.length * 0.995) - 1]));
  const least = kind === "mu" ? Math.min(0, seen[0]) : -most;
  const every = Math.max(1, Math.round(rows.length / 6));
  const marks = grid.map((energy, x) => [Math.round(energy), x]).filter(([energy, x]) => energy % 20 === 0 && (x === 0 || Math.round(grid[x - 1]) !== energy)).map(([, x]) => x);
  return {
    height: Math.round(Math.min(420, Math.max(260, width * 0.55))),
    echarts: {
      grid: { left: 52, right: 66, top: 14, bottom: c.size * 2 + 22 },
      xAxis: axis(c, { type: "category", data: grid.map((energy) => String(Math.round(energy))), name: ENERGY, nameLocation: "middle", nameGap: c.size + 12, axisTick: { interval: (at) => marks.includes(at) }, axisLabel: { color: c.soft, fontSize: c.size, interval: (at) => marks.includes(at), hideOverlap: true } }),
      yAxis: axis(c, { type: "category", data: rows.map((row) => String(row.n)), name: "frame", nameLocation: "middle", nameGap: 36, axisTick: { show: false }, axisLabel: { color: c.soft, fontSize: c.size, interval: (at) => at % every === 0 } }),
      visualMap: { type: "continuous", min: least, max: most, calculable: false, orient: "vertical", right: 2, top: 14, itemHeight: 150, itemWidth: 12, precision: 2, text: [number(most), number(least)], textStyle: { color: c.soft, fontSize: c.size }, inRange: { color: kind === "mu" ? CIVIDIS : c.dark ? DIVERGING_DARK : DIVERGING } },
      series: [{ type: "heatmap", data: cells, progressive: 0, progressiveThreshold: Infinity, itemStyle: { borderWidth: 0 }, emphasis: { itemStyle: { borderColor: c.pick, borderWidth: 1 } } }],
      tooltip: tooltip(c, { formatter: ({ value }) => `frame ${rows[value[1]].n}, ${number(grid[value[0]])} eV\n${kind === "mu" ? "normalised μ" : "difference to the first"}: ${number(value[2])}` }),
    },
  };
}

export function mapText(spectra, kind) {
  const rows = spectra?.rows ?? [];
  if (!rows.length) return "No spectra";
  const { value, energy } = largest(spectra.grid_ev, rows[rows.length - 1].mu, rows[0].mu);
  return `${rows.length} spectra, frames ${rows[0].n} to ${rows[rows.length - 1].n}; ${kind === "mu" ? "normalised absorption" : "difference to the first"}; the last differs from the first most at ${number(energy)} eV, by ${number(value)}`;
}

function largest(grid, mu, first) {
  let [value, energy] = [0, grid[0]];
  mu.forEach((one, at) => { if (isNumber(one) && Math.abs(one - first[at]) > Math.abs(value)) [value, energy] = [one - first[at], grid[at]]; });
  return { value, energy };
}

const points = (energies, values) => energies.map((energy, at) => [energy, isNumber(values?.[at]) ? values[at] : null]);
const curve = (name, data, colour, given = {}) => ({ type: "line", name, data, symbol: "none", lineStyle: { color: colour, width: 1.8, ...given.lineStyle }, itemStyle: { color: colour }, emphasis: { disabled: true }, ...given.series });

/** First, last and selected aligned spectrum above, differences to the first below. `picked` is {n, mu} or null. */
export function spectraOption(spectra, picked, c, width) {
  const rows = spectra?.rows ?? [];
  if (!rows.length) return null;
  const grid = spectra.grid_ev, first = rows[0], last = rows[rows.length - 1];
  const shown = [[`first (${first.n})`, first.mu, c.soft, [5, 3]], ...(last.n === first.n ? [] : [[`last (${last.n})`, last.mu, c.series[0], "solid"]])];
  if (picked && picked.n !== last.n && picked.n !== first.n) shown.push([`selected (${picked.n})`, picked.mu, c.pick, [8, 2, 2, 2]]);
  const difference = (mu) => mu.map((one, at) => one - first.mu[at]);
  const series = shown.flatMap(([name, mu, colour, type], at) => [
    curve(name, points(grid, mu), colour, { lineStyle: { type } }),
    ...(at ? [curve(name, points(grid, difference(mu)), colour, { lineStyle: { type }, series: { xAxisIndex: 1, yAxisIndex: 1 } })] : []),
  ]);
  if (shown.length === 1) series.push(curve("", [], c.soft, { series: { xAxisIndex: 1, yAxisIndex: 1 } }));
  const height = Math.round(Math.min(440, Math.max(300, width * 0.6)));
  const [min, max] = [grid[0], grid[grid.length - 1]];
  const upper = { left: 52, right: 16, top: c.size * 2 + 20, height: Math.round(height * 0.5) - 20 };
  const second = upper.top + upper.height + c.size + 20;
  const x = (gridIndex, low) => axis(c, { type: "value", gridIndex, min, max, axisLabel: { show: low, color: c.soft, fontSize: c.size, showMinLabel: false, showMaxLabel: false }, name: low ? ENERGY : "", nameLocation: "middle", nameGap: c.size + 12, axisPointer: { label: { show: false } } });
  const ends = (curves) => { const seen = curves.flat().filter(isNumber); const room = (Math.max(...seen) - Math.min(...seen)) * 0.06 || 0.05; return { min: Math.min(...seen) - room, max: Math.max(...seen) + room }; };
  const limits = [ends(shown.map(([, mu]) => mu)), ends([[0], ...shown.slice(1).map(([, mu]) => difference(mu))])];
  const y = (gridIndex, name) => axis(c, { type: "value", gridIndex, name, ...limits[gridIndex], axisLabel: { color: c.soft, fontSize: c.size, showMinLabel: false, showMaxLabel: false }, splitNumber: gridIndex ? 2 : 4, nameGap: 8, nameTextStyle: { color: c.text, fontSize: c.size, fontWeight: 600, align: "left", padding: [0, 0, 0, -42] }, splitLine: { show: true, lineStyle: { color: c.line, opacity: 0.45 } } });
  return {
    height,
    echarts: {
      grid: [upper, { left: 52, right: 16, top: second, height: height - second - c.size * 2 - 20 }],
      xAxis: [x(0, false), x(1, true)], yAxis: [y(0, "normalised μ"), y(1, "difference to the first")], series,
      legend: { top: 0, right: 8, data: shown.map(([name]) => name), itemWidth: 26, itemStyle: { opacity: 0 }, textStyle: { color: c.text, fontSize: c.size } },
      axisPointer: { link: [{ xAxisIndex: "all" }], lineStyle: { color: c.soft } },
      tooltip: tooltip(c, { trigger: "axis", formatter: (params) => [`${number(params[0]?.axisValue)} eV`, ...params.filter((p) => p.seriesName).map((p) => `${p.seriesName}${p.axisIndex ? ", difference" : ""}: ${number(p.value[1])}`)].join("\n") }),
    },
  };
}

/** A frame as measured: μ, pre-edge and post-edge curve, E0 and the foil on an axis of its own; null if it is not kept. */
export function rawOption(frame, c, width) {
  const measured = frame?.measured;
  if (!measured?.mu?.length) return null;
  const energies = measured.energy_ev;
  const series = [curve("μ", points(energies, measured.mu), c.series[0])];
  if (measured.pre_edge?.length === energies.length) series.push(curve("pre-edge", points(energies, measured.pre_edge), c.series[1], { lineStyle: { type: [6, 3] } }));
  if (measured.post_edge?.length === energies.length) series.push(curve("post-edge", points(energies, measured.post_edge), c.series[3], { lineStyle: { type: [2, 3] } }));
  const foil = measured.reference;
  if (foil?.mu?.length) series.push(curve("foil", points(energies, foil.mu), c.pick, { series: { yAxisIndex: 1 }, lineStyle: { width: 1.3 } }));
  const foilFirst = isNumber(foil?.e0_ev) && foil.e0_ev < measured.e0_ev;
  const marks = [[measured.e0_ev, "E0", c.text, foilFirst ? "left" : "right"], [foil?.e0_ev, "E0 of the foil", c.pick, foilFirst ? "right" : "left"]].filter(([at]) => isNumber(at));
  series[0].markLine = { silent: true, symbol: "none", data: marks.map(([at, name, color, align]) => ({ xAxis: at, lineStyle: { color, type: "dashed", width: 1.3 }, label: { formatter: name, color, fontSize: c.size, fontWeight: 600, position: "end", distance: 3, align, padding: [0, 4] } })) };
  return {
    height: Math.round(Math.min(400, Math.max(250, width * 0.5))),
    echarts: {
      grid: { left: 52, right: foil ? 52 : 16, top: c.size * 2 + 26, bottom: c.size * 2 + 22 },
      xAxis: axis(c, { type: "value", min: "dataMin", max: "dataMax", name: "energy (eV)", nameLocation: "middle", nameGap: c.size + 12, axisLabel: { color: c.soft, fontSize: c.size, hideOverlap: true, showMinLabel: false, showMaxLabel: false, formatter: (value) => String(Math.round(value)) } }),
      yAxis: [axis(c, { type: "value", name: "μ", scale: true, splitLine: { show: true, lineStyle: { color: c.line, opacity: 0.45 } } }), axis(c, { type: "value", name: foil ? "μ of the foil" : "", scale: true, show: Boolean(foil), nameTextStyle: { color: c.pick, fontSize: c.size, align: "right" } })],
      series, legend: { top: 0, left: "center", data: series.map((one) => one.name), itemStyle: { opacity: 0 }, itemWidth: 22, itemGap: 8, textStyle: { color: c.text, fontSize: c.size } },
      tooltip: tooltip(c, { trigger: "axis", formatter: (params) => [`${params[0]?.axisValue.toFixed?.(1)} eV`, ...params.map((p) => `${p.seriesName}: ${number(p.value[1])}`)].join("\n") }),
    },
  };
}

/** Say how a frame was aligned. */
export function rawText(frame, row) {
  const measured = frame?.measured;
  const e0 = measured?.e0_ev ?? row?.e0_ev, step = measured?.edge_step ?? row?.edge_step;
  const parts = [];
  if (!measured?.mu?.length) parts.push("The frame as measured is not kept: set serving.measured in the config");
  if (isNumber(e0)) parts.push(`E0 ${e0.toFixed(2)} eV`);
  if (isNumber(step)) parts.push(`edge step ${number(step)}`);
  if (isNumber(row?.energy_shift_ev)) parts.push(`energies shifted by ${number(row.energy_shift_ev)} eV`);
  if (isNumber(measured?.reference?.e0_ev)) parts.push(`E0 of the foil ${measured.reference.e0_ev.toFixed(2)} eV`);
  if (isNumber(row?.noise)) parts.push(`noise ${number(row.noise)} edge steps`);
  return parts.join("; ");
}
