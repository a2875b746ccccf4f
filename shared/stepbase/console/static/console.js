// Says beside each instant how long ago it was, and keeps what is open open when a page changes.
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
}

const keyOf = (details) => details.querySelector("summary .name")?.textContent ?? "";
let open = new Set();

document.addEventListener("htmx:sseBeforeMessage", (event) => {
  // A page that somebody marks or types in is left alone until the next change.
  if (String(getSelection()).length > 0) event.preventDefault();
  open = new Set([...document.querySelectorAll("details.row[open]")].map(keyOf));
});
document.addEventListener("htmx:afterSwap", () => {
  for (const details of document.querySelectorAll("details.row")) {
    if (open.has(keyOf(details))) details.open = true;
  }
  tell();
});
document.addEventListener("DOMContentLoaded", tell);
setInterval(tell, 1000);
