// What the functions did, for the tests to read; and places where they wait for each other or for a test.
const notes = new Map();
const readers = new Map();
const calls = new Map();
const gates = new Map();
const meetings = new Map();
const busy = new Map();

const listed = (map, key) => map.get(key) ?? map.set(key, []).get(key);

export function note(topic, what) {
  listed(notes, topic).push({ what, at: Date.now() });
  listed(readers, topic).splice(0).forEach((look) => look());
}

// Waits for so many notes.
export async function noted(topic, wanted) {
  while (listed(notes, topic).length < wanted) await new Promise((look) => listed(readers, topic).push(look));
  return notes.get(topic);
}

// A call is what the server asked: one request for a run.
export function noteCall(runId, what) {
  listed(calls, runId).push(what);
}

export const callsOf = (runId) => calls.get(runId) ?? [];

function gate(name) {
  if (!gates.has(name)) {
    const made = {};
    made.opened = new Promise((open) => (made.open = open));
    gates.set(name, made);
  }
  return gates.get(name);
}

export const opened = (name) => gate(name).opened;
export const open = (name) => gate(name).open();

// Waits until so many are here at the same time.
export function meet(name, size) {
  const here = listed(meetings, name);
  return new Promise((go) => {
    here.push(go);
    if (here.length === size) here.splice(0).forEach((each) => each());
  });
}

// Notes how many were inside at once.
export async function inside(topic, work) {
  busy.set(topic, (busy.get(topic) ?? 0) + 1);
  note(topic, busy.get(topic));
  try {
    return await work();
  } finally {
    busy.set(topic, busy.get(topic) - 1);
  }
}
