// One ECharts chart in a box of the page: loaded late, drawn only where it is seen, never animated.

import { toast } from "./dom.js";

let library = null;
/** Load the chart library, which is 1 MB, when the first chart is drawn: texts and numbers come before. */
const loadLibrary = () => (library ??= import("./echarts.esm.min.js").catch((error) => {
  toast("The charts could not be loaded. The numbers are right.", "bad");
  throw error;
}));

const drawn = new Set();
/** Least time between two drawings of a chart, ms. */
const PAUSE_MS = 250;

/** Return the colours of the page's theme. */
export function palette() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(`--${name}`).trim();
  return {
    text: read("text"), soft: read("soft"), line: read("line"), card: read("card"), rule: read("vermillion"), mark: read("purple"), pick: read("orange"),
    series: ["blue", "green", "orange-ink", "purple", "sky-ink", "vermillion", "soft"].map(read),
    dark: read("is-dark") === "1",
    font: getComputedStyle(document.body).fontFamily,
    size: Math.round(parseFloat(getComputedStyle(document.documentElement).fontSize) * 0.78),
  };
}

export class Chart {
  /** `pick(pixel, chart)` is called for a click into it. */
  constructor(host, { pick = null, name }) {
    Object.assign(this, { host, pick, name, make: null, seen: false, dirty: false, timer: 0, at: 0 });
    host.setAttribute("role", "img");
    host.setAttribute("aria-label", name);
    this.watch = new IntersectionObserver(([entry]) => { this.seen = entry.isIntersecting; this.plan(); }, { rootMargin: "200px" });
    this.watch.observe(host);
    this.size = new ResizeObserver(() => { this.chart?.resize(); this.dirty = true; this.plan(); });
    this.size.observe(host);
    drawn.add(this);
  }

  /** Show what `make(colours, width)` returns: an ECharts option, or null for nothing; `text` says it in words. */
  show(make, text) {
    this.make = make;
    if (text && this.text !== text) this.host.setAttribute("aria-label", `${this.name}. ${text}`);
    this.text = text;
    this.dirty = true;
    this.plan();
  }

  plan() {
    if (!this.dirty || !this.seen || this.timer || !this.make || document.hidden) return;
    this.timer = setTimeout(() => this.draw(), Math.max(0, this.at + PAUSE_MS - performance.now()));
  }

  async draw() {
    const echarts = await loadLibrary();
    this.timer = 0;
    this.dirty = false;
    this.at = performance.now();
    if (!this.host.isConnected || !this.host.clientWidth) return;
    const colours = palette();
    const option = this.make(colours, this.host.clientWidth);
    this.host.classList.toggle("empty", !option);
    if (!option) { this.chart?.clear(); return; }
    if (option.height) this.host.style.height = `${option.height}px`;
    if (!this.chart) this.begin(echarts);
    this.chart.resize();
    this.chart.setOption({ animation: false, textStyle: { fontFamily: colours.font, color: colours.text, fontSize: colours.size }, ...option.echarts }, { notMerge: true });
    this.host.dataset.drawn = String(Number(this.host.dataset.drawn ?? 0) + 1);
  }

  begin(echarts) {
    this.chart = echarts.init(this.host, null, { renderer: "canvas" });
    this.chart.getZr().on("click", (event) => this.pick?.([event.offsetX, event.offsetY], this.chart, event.target));
  }

  close() {
    this.watch.disconnect();
    this.size.disconnect();
    clearTimeout(this.timer);
    this.chart?.dispose();
    drawn.delete(this);
  }
}

export function redrawAll() {
  for (const one of drawn) { one.dirty = true; one.plan(); }
}
document.addEventListener("visibilitychange", redrawAll);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);

/** Axis and tooltip settings that all charts share. */
export const axisText = (c) => ({ color: c.soft, fontSize: c.size, hideOverlap: true });
export const axis = (c, given) => ({
  axisLine: { show: true, onZero: false, lineStyle: { color: c.line } }, axisTick: { show: true, lineStyle: { color: c.line } }, splitLine: { show: false },
  axisLabel: axisText(c), nameTextStyle: { color: c.soft, fontSize: c.size }, ...given,
});
export const tooltip = (c, given) => ({
  renderMode: "richText", confine: true, transitionDuration: 0, backgroundColor: c.card, borderColor: c.line,
  textStyle: { color: c.text, fontSize: c.size, fontFamily: c.font }, ...given,
});
