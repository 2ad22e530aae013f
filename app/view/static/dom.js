// Builds elements. Texts of documents are hostile: they only ever become text nodes, never markup.

export const $ = (id) => document.getElementById(id);

/** Return a new element. `given` holds attributes; `on` in it holds listeners by event. */
export function el(tag, given = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name === "on") for (const [event, listener] of Object.entries(value)) made.addEventListener(event, listener);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, String(value));
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false).map((c) => c instanceof Node ? c : String(c)));
  return made;
}

/** Return a new SVG element. */
export function svg(tag, given = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(given)) made.setAttribute(name, String(value));
  made.append(...children);
  return made;
}

/** Write a text where it differs, so that nothing is laid out or announced again for nothing. */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Replace the children of a node where a signature of their content changed. */
export function refill(node, signature, make) {
  const key = JSON.stringify(signature);
  if (node.filledWith === key) return;
  node.filledWith = key;
  const focused = node.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  node.replaceChildren(...[make()].flat().filter((child) => child !== null && child !== false));
  if (focused) for (const one of node.querySelectorAll("[data-key]")) if (one.dataset.key === focused) one.focus();
}

/** Return a table with a caption, for those who cannot see a chart. */
export function table(caption, head, rows) {
  return el("div", { class: "wide-table", tabindex: 0, role: "region", "aria-label": caption },
    el("table", {},
      el("caption", {}, caption),
      el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell, at) => at ? el("td", {}, cell) : el("th", { scope: "row" }, cell)))))));
}

/** Fill a closed table only when it is opened. */
export function tableOf(details, make) {
  const fill = () => { if (details.open) details.replaceChildren(details.firstElementChild, make()); };
  details.ontoggle = fill;
  fill();
}

export function toast(text, kind = "") {
  const made = el("p", { class: `toast ${kind}` }, text);
  const box = $("toasts");
  box.append(made);
  if (box.matches(":popover-open")) box.hidePopover();
  box.showPopover();  // in the top layer, above an open dialog
  setTimeout(() => { made.remove(); if (!box.childElementCount) box.hidePopover(); }, 8000);
}
