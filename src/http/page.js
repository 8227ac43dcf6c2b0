"use strict";
const POLL = 2000;  // ms between polls: short enough to follow the table, and almost no load on the database
const TIMEOUT = 8000;  // ms; the server answers within 10 s, and these requests mostly at once
const PAGE_CAP = 3;  // pages of 1,000 leases: more than a person reads, and phones have little memory
const MINUTE = 60000;
const NO_ANSWER = "No answer from the server.";
const $ = (id) => document.getElementById(id);
const now = () => performance.now();
const CLOCK = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };

const write = (element, text) => { if (element.textContent !== text) element.textContent = text; };

// Requests --------------------------------------------------------------------------------------------
const TOKEN = "session_lock_api_token";
let asking = null;

function askToken(refused) {
  asking ??= new Promise((answered) => {
    const dialog = $("ask");
    write($("ask-why"), refused ? "The server refused this token." : "This server requires its API token.");
    dialog.onclose = () => {
      const token = $("token").value;
      if (dialog.returnValue !== "yes" || !token) return dialog.showModal();
      sessionStorage.setItem(TOKEN, token);
      $("token").value = dialog.returnValue = "";
      asking = null;
      answered();
    };
    // A second modal dialog would cover the first.
    $("force").close("");
    dialog.showModal();
  });
  return asking;
}

async function call(path, body) {
  for (;;) {
    const token = sessionStorage.getItem(TOKEN);
    const response = await fetch(path, {
      method: body ? "POST" : "GET",
      headers: { ...(token && { Authorization: `Bearer ${token}` }), ...(body && { "Content-Type": "application/json" }) },
      body: body && JSON.stringify(body),
      cache: "no-store",
      signal: AbortSignal.timeout(TIMEOUT),
    }).catch(() => { throw NO_ANSWER; });
    if (response.status !== 401) return response;
    // If several requests were refused together, only the first one asks for the token.
    if (asking || sessionStorage.getItem(TOKEN) === token) await askToken(token !== null);
  }
}

async function trouble(response) {
  const answer = await response.json().catch(() => null);
  const what = response.status === 503 ? "The database is not available." : "Something is wrong.";
  return `${what}\nThe server says: ${answer?.error?.message ?? response.status}`;
}

/** Runs a poll every two seconds, one at a time, and not while the page is hidden. Returns a function that runs it at once. */
function every(poll) {
  let wake;
  (async () => {
    for (;;) {
      while (document.hidden) await new Promise((shown) => addEventListener("visibilitychange", shown, { once: true }));
      await poll();
      await new Promise((next) => { wake = next; setTimeout(next, POLL); });
    }
  })();
  return () => wake?.();
}

// Health ----------------------------------------------------------------------------------------------
let listTrouble = null, readyTrouble = null, listTime = null;

async function pollHealth() {
  const [alive, ready] = await Promise.all(["healthz", "readyz"].map((path) => call(path).catch(() => null)));
  readyTrouble = !ready ? NO_ANSWER : ready.ok ? null : await trouble(ready);
  $("server").className = alive?.ok ? "good" : "bad";
  write($("server"), alive?.ok ? "Server answers" : "Server does not answer");
  $("database").className = !ready ? "" : ready.ok ? "good" : "bad";
  write($("database"), !ready ? "Database unknown" : ready.ok ? "Database ready" : "Database not available");
  showTrouble();
}

function showTrouble() {
  const text = readyTrouble ?? listTrouble;
  $("banner").hidden = !text;
  const old = listTrouble && listTime ? `\nThe list below is from ${listTime}.` : "";
  write($("banner"), text ? text + old : "");
  for (const id of ["list", "held-tile"]) $(id).classList.toggle("old", listTrouble !== null);
  for (const { button } of rows.values()) button.disabled = listTrouble !== null;
  document.title = `${text ? "⚠ " : listTime ? `${rows.size} held · ` : ""}session-lock`;
}

// Held conversations ----------------------------------------------------------------------------------
const rows = new Map();

async function pollLocks() {
  try {
    const leases = new Map();
    let next = "", pages = 0;
    do {
      const response = await call(`v1/locks?limit=1000${next && `&after=${encodeURIComponent(next)}`}`);
      if (!response.ok) throw await trouble(response);
      const page = await response.json();
      for (const lease of page.locks) {
        leases.set(JSON.stringify([lease.id_device, lease.id_prospect]), { ...lease, seen: now() });
      }
      next = page.next;
    } while (next && ++pages < PAGE_CAP);
    listTrouble = null;
    listTime = new Date().toLocaleTimeString([], { ...CLOCK, second: "2-digit" });
    showLeases(leases, Boolean(next));
  } catch (error) {
    listTrouble = typeof error === "string" ? error : `Something is wrong.\n${error.message}`;
    if (!listTime) write($("none"), "The holders are not known.");
  }
  showTrouble();
}

function showLeases(leases, cut) {
  for (const [key, row] of rows) {
    if (!leases.has(key)) { row.element.remove(); rows.delete(key); }
  }
  for (const [key, lease] of leases) {
    let row = rows.get(key);
    if (!row) rows.set(key, row = newRow(lease));
    row.lease = lease;
    row.legacy.hidden = !lease.legacy;
    write(row.waiters, String(lease.waiters ?? "–"));
    row.waiters.classList.toggle("warn", lease.waiters > 0);
    write(row.fencing, lease.legacy ? "–" : String(lease.fencing_token));
  }
  arrange();
  write($("held"), (cut ? "> " : "") + leases.size);
  const legacy = [...leases.values()].filter((lease) => lease.legacy).length;
  write($("held-legacy"), legacy ? `${legacy} by old programs` : "");
  $("cut").hidden = !cut;
  write($("cut"), `More than ${leases.size} conversations are held. Only the first ${leases.size} are listed and searched.`);
  filter();
  tick();
}

// What each column is sorted by, and its first direction. An old program's row, whose age is unknown, counts as the youngest.
const SORTS = {
  device: [(lease) => lease.id_device, 1],
  prospect: [(lease) => lease.id_prospect, 1],
  age: [(lease) => lease.legacy ? -Infinity : -lease.fencing_token, -1],
  expiry: [(lease) => lease.seen + lease.remaining_ms, 1],
  waiters: [(lease) => lease.waiters, -1],
};
let sort = "age", direction = -1;

/** Puts the rows in order. */
function arrange() {
  const [value] = SORTS[sort];
  const compare = (a, b) => a < b ? -direction : a > b ? direction : 0;
  const sorted = [...rows].sort(([keyA, a], [keyB, b]) =>
    compare(value(a.lease), value(b.lease)) || (keyA < keyB ? -1 : 1));
  let place = $("rows").firstElementChild;
  for (const [, { element }] of sorted) {
    if (element === place) place = place.nextElementSibling;
    else $("rows").insertBefore(element, place);
  }
  for (const column of $("columns").querySelectorAll("[data-sort]")) {
    if (column.dataset.sort === sort) column.ariaSort = direction > 0 ? "ascending" : "descending";
    else column.removeAttribute("aria-sort");
  }
}

$("columns").onclick = ({ target }) => {
  const by = target.closest("[data-sort]")?.dataset.sort;
  if (!by) return;
  direction = by === sort ? -direction : SORTS[by][1];
  sort = by;
  arrange();
};

function newRow(lease) {
  const element = $("row").content.firstElementChild.cloneNode(true);
  const row = { element, lease, button: element.querySelector("button") };
  const names = ["device", "prospect", "legacy", "age", "expiry", "waiters", "fencing"];
  for (const name of names) row[name] = element.querySelector(`.${name}`);
  row.device.textContent = lease.id_device;
  row.prospect.textContent = lease.id_prospect;
  row.button.setAttribute("aria-label", `Force release of ${lease.id_device}, ${lease.id_prospect}`);
  row.button.onclick = () => confirmForce(row.lease);
  return row;
}

function filter() {
  const wanted = $("search").value.toLowerCase();
  let shown = 0;
  for (const { element, lease } of rows.values()) {
    element.hidden = ![lease.id_device, lease.id_prospect].some((id) => id.toLowerCase().includes(wanted));
    if (!element.hidden) shown += 1;
  }
  write($("count"), wanted && rows.size ? `${shown} of ${rows.size}` : "");
  $("list").hidden = shown === 0;
  $("none").hidden = shown > 0;
  if (listTime) write($("none"), rows.size ? "No listed conversation matches the search." : "No conversation is held.");
}
$("search").oninput = filter;

function duration(seconds) {
  const whole = (unit, limit) => Math.floor(seconds / unit) % limit;
  const [d, h, min] = [whole(86400, Infinity), whole(3600, 24), whole(60, 60)];
  return d ? `${d} d ${h} h` : h ? `${h} h ${min} min` : min ? `${min} min ${seconds % 60} s` : `${seconds} s`;
}

function tick() {
  // If polls fail, a lease may have been renewed or released: keep the list as it was last read.
  if (listTrouble) return;
  for (const { element, lease, age, expiry } of rows.values()) {
    const passed = now() - lease.seen;
    const left = Math.ceil((lease.remaining_ms - passed) / 1000);
    write(age, lease.legacy ? "–" : duration(Math.floor((lease.held_ms + passed) / 1000)));
    write(expiry, left > 0 ? duration(left) : "expired");
    expiry.classList.toggle("warn", left > 0 && left <= 5);
    element.classList.toggle("over", left <= 0);
  }
}
setInterval(tick, 1000);

// Force release ---------------------------------------------------------------------------------------
function confirmForce(lease) {
  const dialog = $("force");
  write($("force-device"), lease.id_device);
  write($("force-prospect"), lease.id_prospect);
  write($("force-fencing"), lease.legacy ? "none" : String(lease.fencing_token));
  write($("force-scope"), lease.legacy
    ? "This is the row of an old program, which has no fencing token. So the release ends any lease that the conversation "
      + "then has, even one that is newer than this list."
    : "Only the lease with this fencing token is released. If another lease has replaced it, nothing changes.");
  dialog.returnValue = "";
  dialog.onclose = () => { if (dialog.returnValue === "yes") force(lease); };
  dialog.showModal();
}

let hush;

async function force(lease) {
  // Isolates the ids, so that an id in a right-to-left script does not reorder the sentence.
  const name = `\u2068${lease.id_device}\u2069, \u2068${lease.id_prospect}\u2069`;
  write($("said"), `Releasing ${name} …`);
  const body = { id_device: lease.id_device, id_prospect: lease.id_prospect, force: true };
  if (!lease.legacy) body.fencing_token = lease.fencing_token;
  const response = await call("v1/release", body).catch(() => null);
  if (response?.ok) write($("said"), `Released: ${name}`);
  else if (response?.status === 409) write($("said"), `Not released, because that lease has ended: ${name}`);
  else write($("said"), `The result of the release is unknown: ${name}. ${response ? await trouble(response) : NO_ANSWER}`);
  clearTimeout(hush);
  hush = setTimeout(() => write($("said"), ""), 10000);
  hurryLocks();
}

// The last ten minutes --------------------------------------------------------------------------------
const SAMPLE = 5000;  // ms from one sample of the server to the next
const total = (values) => values.reduce((sum, value) => sum + value, 0);
const most = (values) => Math.max(0, ...values);
const perSecond = (value) => `${value.toFixed(1)}/s`;
// How a tile shows its samples: those of all ten minutes, and those of the last minute.
const SHOWN = {
  level: (all) => [String(all.at(-1) ?? 0), `peak ${most(all)}`],
  rate: (all) => [perSecond(all.at(-1) ?? 0), `peak ${perSecond(most(all))}`],
  count: (all) => [String(total(all)), "in 10 min"],
  time: (all, minute) => [`${most(minute)} ms`, `peak ${most(all)} ms`],
};
const TILES = [
  ["waiting", "Waiting", "level"],
  ["granted", "Granted", "rate"],
  ["refused", "Refused", "rate"],
  ["takeovers", "Takeovers", "count"],
  ["overruns", "Overruns", "count"],
  ["database_errors", "DB errors", "count"],
  ["slowest_ms", "Slowest", "time"],
];
const ALARMING = ["waiting", "takeovers", "overruns", "database_errors"];
const RATES = ["duplicate", "renewed", "committed", "released", "lost", "failed"];
// The texts for a lease, and for an old program's row.
const EVENTS = {
  takeover: ["overrun, taken over", "old program's row taken over"],
  swept: ["overrun, deleted"],
  forced: ["released by force", "old program's row released by force"],
};
const tiles = {}, rates = {};

for (const [name, title] of TILES) {
  const element = $("tile").content.firstElementChild.cloneNode(true);
  const tile = tiles[name] = { element };
  for (const part of ["title", "value", "peak", "bars"]) tile[part] = element.querySelector(`.${part}`);
  tile.title.textContent = title;
  tile.value.id = name;
  $("tiles").append(element);
}
for (const name of RATES) {
  const [pair, term, value] = ["div", "dt", "dd"].map((tag) => document.createElement(tag));
  pair.append(term, value);
  $("rates").append(pair);
  [term.textContent, value.textContent] = [name, "–"];
  rates[name] = value;
}

/** Bars as an SVG path, in a box of 600 seconds by 32: each lasts from the previous sample to its own. */
function bars(values, ends, starts) {
  const x = (ms) => Math.round(600 - ms / 1000), highest = Math.max(...values);
  const bar = (value, at) =>
    `M${x(starts[at])} 32V${(32 - 30 * value / highest).toFixed(1)}H${x(ends[at])}V32`;
  return values.map((value, at) => value ? bar(value, at) : "").join("");
}

function showHistory({ version, uptime_ms, waiting, samples, events }) {
  write($("version"), version);
  write($("uptime"), `up ${duration(Math.floor(uptime_ms / 1000))}`);
  const ends = samples.ago_ms, starts = ends.map((ms, at) => ends[at - 1] ?? ms + SAMPLE);
  const ratesOf = (name) => samples[name].map((count, at) => count * 1000 / (starts[at] - ends[at]));
  for (const [name, , shownAs] of TILES) {
    const { element, value, peak, bars: path } = tiles[name];
    const all = shownAs === "rate" ? ratesOf(name) : samples[name];
    const minute = all.filter((_, at) => ends[at] < MINUTE);
    const [shown, best] = SHOWN[shownAs](name === "waiting" ? [...all, waiting] : all, minute);
    write(value, shown);
    write(peak, best);
    path.setAttribute("d", bars(all, ends, starts));
    const recent = name === "waiting" ? waiting : total(minute);
    element.classList.toggle("alarm", recent > 0 && ALARMING.includes(name));
  }
  for (const name of RATES) write(rates[name], ends.length ? perSecond(ratesOf(name).at(-1)) : "–");
  showEvents(events);
}

let lastEvents = "";

function showEvents(events) {
  // An unchanged list keeps its scroll position.
  const same = JSON.stringify(events.map(({ ago_ms, ...event }) => event));
  if (same === lastEvents) return;
  lastEvents = same;
  $("events-panel").hidden = events.length === 0;
  $("events").replaceChildren(...events.map((noted) => {
    const item = $("event").content.firstElementChild.cloneNode(true);
    const [time, what, device, prospect] = item.querySelectorAll("time, .what, .id");
    const at = new Date(Date.now() - noted.ago_ms);
    time.textContent = at.toLocaleTimeString([], { ...CLOCK, second: "2-digit" });
    time.dateTime = at.toISOString();
    what.textContent = EVENTS[noted.event][Number(noted.legacy)];
    device.textContent = noted.id_device;
    prospect.textContent = noted.id_prospect;
    return item;
  }));
}

async function pollHistory() {
  const history = await call("v1/history").then((response) => response.ok && response.json()).catch(() => null);
  if (history) return showHistory(history);
  // The banner says what is wrong.
  for (const value of [...Object.values(tiles).map((tile) => tile.value), ...Object.values(rates)]) write(value, "–");
}

const hurryLocks = every(pollLocks);
every(pollHealth);
every(pollHistory);
