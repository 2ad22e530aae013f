// Talks to the server: JSON, the stream of events and orders.

const BASE = new URL("api/", document.baseURI);
const WAIT_MS = 8000;
let token = null;

export class Refused extends Error {
  constructor(status, text) { super(text); this.status = status; }
}

async function request(path, options = {}) {
  const answer = await fetch(new URL(path, BASE), { credentials: "same-origin", signal: AbortSignal.timeout(options.wait ?? WAIT_MS), ...options });
  const body = await answer.json().catch(() => null);
  if (!answer.ok) throw new Refused(answer.status, body?.error ?? body?.detail?.toString?.() ?? `the server answered ${answer.status}`);
  return body;
}

export const get = (path) => request(path, { cache: "no-store" });
export const sessionPath = (id, rest = "") => `sessions/${encodeURIComponent(id)}${rest}`;
export const fileAddress = (path) => new URL(path, BASE).href;

/** Send an order. It waits longer than a control may take to answer. */
export function order(id, body) {
  const headers = { "Content-Type": "application/json", ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  return request(sessionPath(id, "/orders"), { method: "POST", headers, body: JSON.stringify(body), wait: 20000 });
}

/** Let the server keep the token in a cookie that no script can read, and load the page again. */
export function useToken(given) {
  const page = new URL(document.baseURI);
  page.search = new URLSearchParams({ token: given }).toString();
  location.assign(page.href);
}

/**
 * The stream of a session. `hear(kind, data)` gets each event; `tell(link)` gets "live", "lost" or "refused" when it
 * changes; after a loss `again()` asks for what was missed. The browser sends Last-Event-ID itself while it reconnects.
 */
export class Stream {
  constructor(id, { hear, tell, again }) {
    Object.assign(this, { id, hear, tell, again, source: null, timer: 0, lost: false, closed: false });
    this.open();
  }

  open() {
    if (this.closed) return;
    this.source = new EventSource(new URL(sessionPath(this.id, "/events"), BASE));
    this.source.onopen = () => {
      if (this.lost) this.again();
      this.lost = false;
      this.tell("live");
    };
    this.source.onerror = () => {
      this.lost = true;
      this.tell("lost");
      if (this.source.readyState === EventSource.CLOSED) {  // refused, or the server speaks no SSE: the browser gives up
        clearTimeout(this.timer);
        this.timer = setTimeout(() => this.open(), 3000);
      }
    };
    for (const kind of ["frame", "decision", "quality", "state", "reset"]) {
      this.source.addEventListener(kind, (event) => this.hear(kind, JSON.parse(event.data)));
    }
  }

  /** Begin anew: the link looks alive but says nothing. */
  restart() {
    this.source.close();
    this.lost = true;
    this.tell("lost");
    this.open();
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    this.source?.close();
  }
}
