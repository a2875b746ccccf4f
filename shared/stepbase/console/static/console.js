// Says beside each instant how long ago it was, and keeps what somebody has open, fetched or in focus when a
// page changes.
"use strict";

const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

function ago(seconds) {
  const size = Math.abs(seconds);
  const [unit, name] = UNITS.find(([unit]) => size >= unit) || [1, "s"];
  const text = `${Math.floor(size / unit)} ${name}`;
  return seconds < 0 ? `in ${text}` : `${text} ago`;
}

function tell() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    time.dataset.ago = ago((Date.now() - Date.parse(time.dateTime)) / 1000);
    time.title = new Date(time.dateTime).toString();
  }
  for (const row of document.querySelectorAll("tr:has(td > a.id[href])")) row.classList.add("opens");
}

// What tells a place on the page from others of its kind, before and after a change.
const keyOf = (details) => details.querySelector("summary .name, summary")?.textContent ?? "";
const opened = () => document.querySelectorAll("[hx-ext] details");
const alike = (element) =>
  [...document.querySelectorAll(`[hx-ext] ${element.tagName}`)].filter((each) =>
    each.textContent === element.textContent && each.getAttribute("href") === element.getAttribute("href") &&
    each.getAttribute("aria-label") === element.getAttribute("aria-label"));

let kept = { open: new Map(), fetched: new Map(), focus: null, scrolled: new Map() };

function keep() {
  kept = { open: new Map(), fetched: new Map(), focus: null, scrolled: new Map() };
  for (const details of opened()) kept.open.set(keyOf(details), details.open);
  for (const box of document.querySelectorAll(".row .fetched")) {
    if (box.childElementCount) kept.fetched.set(keyOf(box.closest("details.row")), [...box.childNodes]);
  }
  for (const box of document.querySelectorAll(".scroll[aria-label]")) {
    kept.scrolled.set(box.getAttribute("aria-label"), [box.scrollLeft, box.scrollTop]);
  }
  const focused = document.activeElement;
  if (focused?.closest("[hx-ext]")) {
    kept.focus = { like: focused.cloneNode(true), place: alike(focused).indexOf(focused) };
  }
}

function restore() {
  for (const details of opened()) {
    const was = kept.open.get(keyOf(details));
    if (was !== undefined) details.open = was;
  }
  for (const box of document.querySelectorAll(".row .fetched")) {
    const nodes = kept.fetched.get(keyOf(box.closest("details.row")));
    if (nodes) box.append(...nodes);
  }
  for (const box of document.querySelectorAll(".scroll[aria-label]")) {
    const at = kept.scrolled.get(box.getAttribute("aria-label"));
    if (at) [box.scrollLeft, box.scrollTop] = at;
  }
  if (kept.focus && document.activeElement === document.body) {
    alike(kept.focus.like)[kept.focus.place]?.focus({ preventScroll: true });
  }
}

document.addEventListener("htmx:sseBeforeMessage", (event) => {
  // A page that somebody marks or types in is left alone until the next change.
  if (String(getSelection()).length > 0) event.preventDefault();
  keep();
});
document.addEventListener("htmx:afterSwap", (event) => {
  if (event.target.hasAttribute?.("sse-swap")) restore();
  tell();
});
// A row of runs is as good as the link in it, but for whoever marks text.
document.addEventListener("click", (event) => {
  const row = event.target.closest?.("tr.opens");
  if (!row || event.target.closest("a, button, form") || String(getSelection()).length > 0) return;
  row.querySelector("td > a.id[href]").click();
});
document.addEventListener("DOMContentLoaded", tell);
setInterval(tell, 1000);
