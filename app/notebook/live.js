// The live widget: a series, the latest spectrum, the last decision and the state, drawn as SVG. It loads nothing:
// a widget's script is one text, which each saved notebook keeps, so that a charting library would cost a megabyte in each.
const NS = "http://www.w3.org/2000/svg";
const WIDTH = 520, HEIGHT = 240, LEFT = 58, RIGHT = 14, TOP = 10, BOTTOM = 40;

function add(parent, tag, attributes = {}, text = "") {
  const node = parent.namespaceURI === NS || tag === "svg" ? document.createElementNS(NS, tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  parent.append(node);
  return node;
}

function ticks(low, high, most) {
  const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((m) => m * power >= rough * 0.999);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9)), found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push((k * step).toFixed(digits));
  return found;
}

function range(values) {
  const known = values.filter((v) => v !== null);
  if (!known.length) return [0, 1];
  const low = known.reduce((a, b) => Math.min(a, b)), high = known.reduce((a, b) => Math.max(a, b));
  const margin = (high - low) * 0.06 || Math.abs(high) * 0.05 || 1;
  return [low - margin, high + margin];
}

// lines: [{name, x, y, lo?, hi?, kind}], with null where a value is missing.
function chart(figure, title, xTitle, lines) {
  figure.replaceChildren();
  add(figure, "figcaption", {}, title);
  const shown = lines.filter((line) => line.y.some((v) => v !== null));
  const svg = add(figure, "svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  const readout = add(figure, "div", { class: "xas-readout" }, " ");
  if (!shown.length) {
    svg.setAttribute("aria-label", `${title}: nothing yet`);
    add(svg, "text", { x: WIDTH / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "nothing yet");
    return;
  }
  const [x0, x1] = range(shown.flatMap((line) => line.x)), [y0, y1] = range(shown.flatMap((line) => [...line.y, ...(line.lo ?? []), ...(line.hi ?? [])]));
  const X = (x) => LEFT + ((x - x0) / (x1 - x0)) * (WIDTH - LEFT - RIGHT);
  const Y = (y) => HEIGHT - BOTTOM - ((y - y0) / (y1 - y0)) * (HEIGHT - TOP - BOTTOM);
  const point = (x, y) => `${X(x).toFixed(1)},${Y(y).toFixed(1)}`;
  for (const tick of ticks(y0, y1, 5)) {
    add(svg, "line", { x1: LEFT, x2: WIDTH - RIGHT, y1: Y(+tick), y2: Y(+tick), class: "xas-grid" });
    add(svg, "text", { x: LEFT - 6, y: Y(+tick) + 4, "text-anchor": "end" }, tick);
  }
  for (const tick of ticks(x0, x1, 7)) add(svg, "text", { x: X(+tick), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, tick);
  add(svg, "text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, xTitle);
  for (const line of shown) {
    const at = line.x.map((_, i) => i).filter((i) => line.y[i] !== null);
    const banded = at.filter((i) => line.lo?.[i] != null);
    if (banded.length > 1) {
      const edge = [...banded.map((i) => point(line.x[i], line.hi[i])), ...banded.reverse().map((i) => point(line.x[i], line.lo[i]))];
      add(svg, "polygon", { points: edge.join(" "), class: `xas-band xas-${line.kind}` });
    }
    add(svg, "polyline", { points: at.map((i) => point(line.x[i], line.y[i])).join(" "), class: `xas-line xas-${line.kind}` });
    const last = at[at.length - 1];
    if (!line.still) add(svg, "circle", { cx: X(line.x[last]), cy: Y(line.y[last]), r: 3.5, class: `xas-dot xas-${line.kind}` });
  }
  const of = (line) => line.y.filter((v) => v !== null).at(-1);
  svg.setAttribute("aria-label", `${title}, ${xTitle}; latest ${shown.map((line) => `${line.name} ${of(line).toPrecision(4)}`).join(", ")}`);
  const legend = shown.length > 1 ? add(figure, "div", { class: "xas-legend" }) : null;
  for (const line of legend ? shown : []) add(legend, "span", { class: `xas-${line.kind}` }, line.name);
  svg.addEventListener("mousemove", (event) => {
    const box = svg.getBoundingClientRect(), x = ((event.clientX - box.left) / box.width) * WIDTH;
    const near = shown.map((line) => {
      const at = line.x.map((_, i) => i).filter((i) => line.y[i] !== null);
      const i = at.reduce((a, b) => (Math.abs(X(line.x[b]) - x) < Math.abs(X(line.x[a]) - x) ? b : a));
      return `${line.name}: ${line.y[i].toPrecision(4)} at ${line.x[i].toPrecision(4)}`;
    });
    readout.textContent = near.join("   ");
  });
  svg.addEventListener("mouseleave", () => (readout.textContent = " "));
}

function say(node, text) {
  if (node.textContent !== text) node.textContent = text; // a screen reader hears what changed
}

function render({ model, el }) {
  const root = add(el, "div", { class: "xas-agent", role: "group", "aria-label": "xas-agent" });
  const paused = add(root, "div", { class: "xas-paused", role: "alert" });
  const state = add(root, "div", { class: "xas-state" });
  const charts = add(root, "div", { class: "xas-charts" });
  const series = add(charts, "figure"), spectrum = add(charts, "figure");
  const decision = add(root, "div", { class: "xas-decision", role: "status" });
  const draw = () => {
    const view = model.get("view");
    say(paused, view.paused ? `PAUSED ${view.paused}` : "");
    say(state, view.state);
    say(decision, view.decision);
    chart(series, view.title, view.x_title, view.series);
    chart(spectrum, view.spectrum_title, view.energy_title, view.spectra);
  };
  model.on("change:view", draw);
  draw();
  return () => model.off("change:view", draw);
}

export default { render };
