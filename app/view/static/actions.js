// Orders of a person: each is confirmed where it cannot be taken back, and refused with a hint without a token.

import { $, el, refill, toast, write } from "./dom.js";
import { order, Refused, useToken } from "./net.js";
import { actionText } from "./decisions.js";

const NAME = "xas-agent-name";
const CONFIRMED = {
  stop: ["Stop the experiment?", "The run that is measured ends. The session goes on and watches the next.", "Stop the experiment"],
  halt: ["Emergency stop?", "The experiment and the robot stop at once. Until it is released, rules can only stop.", "Emergency stop"],
  release: ["Release the emergency stop?", "Rules act again.", "Release"],
  approve: ["Approve?", "", "Approve"],
  reject: ["Reject?", "", "Reject"],
};
const DONE = { pause: "pause", resume: "resume", stop: "stop", halt: "emergency stop", release: "release", approve: "approval", reject: "rejection" };

export const kept = (name) => { try { return localStorage.getItem(name) ?? ""; } catch { return ""; } };
export const keep = (name, value) => { try { localStorage.setItem(name, value); } catch { /* storage is switched off */ } };

/** Show the buttons of the strip. `may` is false without a token. */
export function showActions(session, may, act) {
  const halted = Boolean(session.state?.halted), paused = Boolean(session.state?.paused);
  const reachable = session.live && session.link === "live";
  refill($("actions"), [session.id, session.live, reachable, halted, paused, may], () => {
    if (!session.live) return [el("span", { class: "note" }, "Ended: nothing to act on")];
    const off = !may || !reachable;
    const hint = !may ? "Actions need the token of the dashboard." : !reachable ? "The agent cannot be reached now." : "";
    const button = (word, command, kind, usable = true) => el("button", {
      type: "button", class: kind, "data-key": command, "data-command": command, "aria-disabled": off || !usable ? "true" : null, "aria-describedby": off ? "hint" : null,
      title: off ? hint : usable ? null : command === "resume" ? "Nothing is paused." : "It is paused already.",
      on: { click: () => act(command) },
    }, word);
    return [
      button("Pause", "pause", "", !paused && !halted), button("Resume", "resume", paused ? "good" : "", paused && !halted), button("Stop", "stop", ""),
      halted ? button("Release", "release", "danger") : button("Emergency stop", "halt", "danger"),
      off ? el("span", { class: "hint", id: "hint" }, hint, " ", may ? null : el("button", { type: "button", class: "quiet", "data-key": "token", on: { click: askToken } }, "Enter it")) : null,
    ];
  });
}

/** Carry out a command for the session: confirm it, send it, and say what became of it. */
export async function carryOut(session, may, command, decision = null) {
  if (!session) return false;
  if (!may) { askToken(); return false; }
  const pressed = document.activeElement;
  if (pressed?.getAttribute?.("aria-disabled") === "true") { toast(pressed.title || "Not possible now."); return false; }
  let given = { why: "", by: kept(NAME) };
  if (CONFIRMED[command]) given = await confirmed(command, decision);
  if (!given) return false;
  const body = { command, folder: session.info?.folder ?? "", ...(decision ? { id: decision.id } : {}), ...(given.why ? { why: given.why } : {}), ...(given.by ? { by: given.by } : {}) };
  try {
    const answer = await order(session.id, body);
    if (answer.ok === false) throw new Refused(0, answer.error);
    const made = answer.decision;
    toast(`${DONE[command]}: ${made?.status_reason || made?.status || "done"}`, made?.status === "rejected" ? "bad" : "good");
    return true;
  } catch (error) {
    toast(`${DONE[command]} failed: ${error.name === "TimeoutError" ? "no answer within 20 s; it is not known whether it was done" : error.message}`, "bad");
    if (error.status === 401 || error.status === 403) askToken();
    return false;
  }
}

/** Ask in a dialog; return who and why, or null. */
function confirmed(command, decision) {
  const dialog = $("confirm");
  const [title, text, word] = CONFIRMED[command];
  write($("confirm-title"), title);
  write($("confirm-text"), decision ? `${actionText(decision)} by ${decision.rule}: ${decision.reason}` : text);
  $("confirm-why-field").hidden = command === "approve" || command === "release" || command === "stop";
  $("confirm-why").value = "";
  $("confirm-by").value = kept(NAME);
  const yes = $("confirm-yes");
  write(yes, word);
  yes.className = command === "halt" || command === "stop" || command === "reject" ? "danger" : "good";
  return asked(dialog, yes, $("confirm-no"), () => {
    keep(NAME, $("confirm-by").value.trim());
    return { why: $("confirm-why").value.trim(), by: $("confirm-by").value.trim() };
  });
}

function asked(dialog, yes, no, result) {
  return new Promise((resolve) => {
    let answer = null;
    const take = () => { answer = result(); dialog.close(); };
    yes.onclick = take;
    no.onclick = () => dialog.close();
    dialog.querySelector("form").onsubmit = (event) => { event.preventDefault(); take(); };
    dialog.onclose = () => resolve(answer);
    // A key that is held since it opened the dialog confirms nothing.
    dialog.onkeydown = (event) => { if (event.repeat && event.key === "Enter") event.preventDefault(); };
    dialog.showModal();
    yes.focus();
  });
}

export async function askToken() {
  $("token").value = "";
  const given = await asked($("ask-token"), $("token-yes"), $("token-no"), () => $("token").value.trim());
  if (given) useToken(given);
}
