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

// What tells a place on the page from others of its kind, before and after a change: what it is called, where
// it stands, what is said above it (the run or attempt of an error), and its number among those alike in this.
function nameOf(details) {
  const near = details.parentElement.closest("section, figure, details");
  const where = near?.id || near?.getAttribute("aria-labelledby") || near?.getAttribute("aria-label") ||
    near?.querySelector("figcaption, summary .name")?.textContent;
  const above = details.closest(".error")?.previousElementSibling?.textContent;
  const own = details.id || details.querySelector("summary .name, summary")?.textContent;
  return JSON.stringify([own, where, above]);
}
function named() {
  const counts = new Map(), keys = new Map();
  for (const details of document.querySelectorAll("[hx-ext] details")) {
    const name = nameOf(details), n = counts.get(name) ?? 0;
    counts.set(name, n + 1);
    keys.set(details, `${name} ${n}`);
  }
  return keys;
}
const alike = (element) =>
  [...document.querySelectorAll(`[hx-ext] ${element.tagName}`)].filter((each) =>
    each.textContent === element.textContent && each.getAttribute("href") === element.getAttribute("href") &&
    each.getAttribute("aria-label") === element.getAttribute("aria-label"));

let kept = { open: new Map(), fetched: new Map(), focus: null, scrolled: new Map() };

function keep() {
  kept = { open: new Map(), fetched: new Map(), focus: null, scrolled: new Map() };
  const keys = named();
  for (const [details, key] of keys) kept.open.set(key, details.open);
  for (const box of document.querySelectorAll(".row .fetched")) {
    if (box.childElementCount) kept.fetched.set(keys.get(box.closest("details.row")), [...box.childNodes]);
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
  const keys = named();
  for (const [details, key] of keys) {
    const was = kept.open.get(key);
    if (was !== undefined) details.open = was;
  }
  for (const box of document.querySelectorAll(".row .fetched")) {
    const nodes = kept.fetched.get(keys.get(box.closest("details.row")));
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
