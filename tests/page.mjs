// Opens the operator's page in headless Chromium and waits for the expected content:
//
//     node tests/page.mjs BASE_URL SCREENSHOT_DIR STATE
//
// STATE: empty | busy | waiting | history DEVICE DEVICE | gone | token TOKEN | force DEVICE PROSPECT
//
// Needs Node 18 and Debian's chromium (or CHROMIUM=path). Writes STATE.png (desktop, light) and
// STATE-phone.png (phone, dark); for token and force, also those of the dialog. Exits with 0, or with
// 1 and a line that says what was not found. If `gone` is started before the database ends, the
// picture has a list.

import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const TIMEOUT_MS = 20_000;
const LEASES = 200;
// Of 844 px: for ids of usual length, in at most two lines.
const PHONE_ROW_PX = 80;
const [base, pictures, state, ...words] = process.argv.slice(2);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

class CheckFailed extends Error {}

// Chromium, by pipe: Node 18 has no WebSocket of its own -------------------------------------------

const profile = mkdtempSync(join(tmpdir(), "session-lock-page-"));
const chromium = spawn(
  process.env.CHROMIUM ?? "chromium",
  ["--headless=new", "--remote-debugging-pipe", `--user-data-dir=${profile}`, "--disable-gpu", "--disable-dev-shm-usage",
    "--hide-scrollbars", "--no-first-run", ...(process.getuid() === 0 ? ["--no-sandbox"] : []), "about:blank"],
  { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] },
);
const ended = new Promise((resolve) => {
  chromium.on("exit", resolve);
  chromium.on("error", resolve);
});
const calls = new Map();
const complaints = [];
let lastId = 0;
let received = "";

chromium.stdio[3].on("error", () => {});
chromium.stdio[4].setEncoding("utf8").on("data", (data) => {
  const messages = (received + data).split("\0");
  received = messages.pop();
  for (const message of messages) receive(JSON.parse(message));
});
ended.then(() => {
  for (const { reject } of calls.values()) reject(new CheckFailed("chromium ended, or could not be started"));
});

function receive({ id, method, params, result, error }) {
  if (id) {
    const { resolve, reject } = calls.get(id);
    calls.delete(id);
    return error ? reject(new Error(error.message)) : resolve(result);
  }
  if (method === "Runtime.exceptionThrown") {
    const { text, exception } = params.exceptionDetails;
    complaints.push(`exception: ${exception?.description ?? text}`);
  } else if (method === "Runtime.consoleAPICalled" && ["error", "assert"].includes(params.type)) {
    complaints.push(`console: ${params.args.map((arg) => arg.value ?? arg.description).join(" ")}`);
  } else if (method === "Log.entryAdded" && params.entry.level === "error") {
    const { source, text, url } = params.entry;
    if (source !== "network" || !["gone", "token"].includes(state)) complaints.push(`${source}: ${text} ${url ?? ""}`);
  } else if (method === "Page.javascriptDialogOpening") {
    complaints.push(`a script dialog opened: ${params.message}`);
    send("Page.handleJavaScriptDialog", { accept: false });
  }
}

let sessionId;

function send(method, params = {}) {
  const id = ++lastId;
  const answer = new Promise((resolve, reject) => calls.set(id, { resolve, reject }));
  chromium.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
  return answer;
}

// The page -----------------------------------------------------------------------------------------

/** The result of `check` in the page, where it gets the arguments and may call `visible(selector)`. */
async function inPage(check, ...args) {
  const visible = (selector, within = document) =>
    [...within.querySelectorAll(selector)].filter((element) => element.getClientRects().length > 0);
  const expression = `(() => { const visible = ${visible}; return (${check})(...${JSON.stringify(args)}); })()`;
  const { result, exceptionDetails } = await send("Runtime.evaluate", { expression, returnByValue: true });
  if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
  return result.value;
}

async function until(what, check, ...args) {
  const deadline = Date.now() + TIMEOUT_MS;
  for (;;) {
    const found = await inPage(check, ...args);
    if (found) return found;
    if (Date.now() > deadline) {
      const text = await inPage(() => document.body.innerText.replace(/\s+/g, " ").slice(0, 300));
      throw new CheckFailed(`not found: ${what}; the page says: ${text}`);
    }
    await sleep(100);
  }
}

/** A real click, which has no effect on hidden, covered or disabled elements. */
async function click(what, find, ...args) {
  const check = `(...args) => {
    const element = (${find})(...args);
    if (!element) return null;
    element.scrollIntoView({ block: "center" });
    const { left, top, width, height } = element.getBoundingClientRect();
    return { x: left + width / 2, y: top + height / 2 };
  }`;
  const place = await until(what, check, ...args);
  for (const type of ["mousePressed", "mouseReleased"]) {
    await send("Input.dispatchMouseEvent", { type, ...place, button: "left", clickCount: 1 });
  }
}

async function picture(name) {
  await sleep(300);
  const { data } = await send("Page.captureScreenshot", { format: "png" });
  writeFileSync(join(pictures, `${name}.png`), Buffer.from(data, "base64"));
}

async function dress(phone) {
  const [width, height] = phone ? [390, 844] : [1280, 900];
  await send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: phone ? 2 : 1, mobile: phone });
  await send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: phone ? "dark" : "light" }] });
}

async function pair(name) {
  await picture(name);
  await dress(true);
  await picture(`${name}-phone`);
  const excess = await inPage(() => document.documentElement.scrollWidth - innerWidth);
  if (excess > 0) throw new CheckFailed(`not found: a page as narrow as the phone (${name}); it is ${excess} px wider`);
  await dress(false);
}

// The states ---------------------------------------------------------------------------------------

const rowOf = (device, prospect) => visible("#rows tr").find((row) =>
  row.querySelector(".device").textContent === device && row.querySelector(".prospect").textContent === prospect);

/** A click on a column sorts the list by it, and a second click reverses the order. */
async function sorts() {
  for (const direction of ["ascending", "descending"]) {
    await click("the column of prospects", () => document.querySelector("[data-sort=prospect] button"));
    await until(`prospects, ${direction}`, (expected) => {
      const ids = visible("#rows .prospect").map((id) => id.textContent);
      const sorted = [...ids].sort();
      if (expected === "descending") sorted.reverse();
      return document.querySelector("[data-sort=prospect]").ariaSort === expected && ids.join() === sorted.join();
    }, direction);
  }
  await click("the column of ages", () => document.querySelector("[data-sort=age] button"));
  await until("the oldest first", () => {
    const tokens = visible("#rows .fencing").map((token) => Number(token.textContent));
    return tokens.every((token, at) => at === 0 || tokens[at - 1] <= token);
  });
}

const states = {
  async empty() {
    await until("No conversation is held", () => visible("#none").some((note) => note.innerText === "No conversation is held."));
    await until("Database ready", () => visible("#database.good").length === 1);
    await until("0 held", () => document.getElementById("held").textContent === "0");
    await pair(state);
  },

  async busy() {
    await until(`${LEASES} leases`, (count) => visible("#rows tr").length === count, LEASES);
    await until("Database ready", () => visible("#database.good").length === 1);
    await until("rates", () => visible("#rates dd").every((rate) => /^\d+\.\d\/s$/.test(rate.textContent)));
    await until("an id with markup, as text", () =>
      visible("#rows .id").some((id) => id.textContent.includes("<") && id.children.length === 0) &&
      visible("#rows img, #rows script, #rows b").length === 0);
    await until("ages and expiries", () => visible("#rows tr").every((row) =>
      /\d s$|\d min$|\d h$|^–$/.test(row.querySelector(".age").textContent) && /\d|expired/.test(row.querySelector(".expiry").textContent)));
    const expiry = await inPage(() => visible("#rows .expiry")[0].textContent);
    await until("an expiry that counts down", (before) => visible("#rows .expiry")[0].textContent !== before, expiry);
    await pair(state);
    await sorts();
    await dress(true);
    const height = await inPage(() => Math.max(...visible("#rows tr")
      .filter((row) => row.querySelector(".device").textContent.length < 20)
      .map((row) => row.getBoundingClientRect().height)));
    if (height > PHONE_ROW_PX) throw new CheckFailed(`not found: rows of ${PHONE_ROW_PX} px on a phone; one has ${height} px`);
    await dress(false);
    await click("the search box", () => document.getElementById("search"));
    await send("Input.insertText", { text: "<" });
    await until("only what was searched for", () => {
      const shown = visible("#rows tr");
      return shown.length > 0 && shown.length < 200 &&
        shown.every((row) => [...row.querySelectorAll(".id")].some((id) => id.textContent.includes("<")));
    });
  },

  async waiting() {
    await until("a number of waiters above 0", () => Number(document.getElementById("waiting").textContent) > 0);
    await pair(state);
  },

  async history(stale, forced) {
    await until("the server's uptime", () => /^up (\d+ min )?\d+ s$/.test(document.getElementById("uptime").textContent));
    await until("a graph of what happened", () => ["granted", "refused", "takeovers", "overruns", "slowest_ms"].every((name) =>
      document.getElementById(name).parentElement.querySelector("path").getAttribute("d").startsWith("M")));
    await until("no bars for what did not happen", () =>
      document.getElementById("database_errors").parentElement.querySelector("path").getAttribute("d") === "");
    await until("its figures", () => ["takeovers", "overruns"].every((name) => document.getElementById(name).textContent === "1"));
    await until("the takeover and the forced release, with their time", (...expected) => expected.every(([what, device]) =>
      visible("#events li").some((event) => /^\d\d:\d\d:\d\d$/.test(event.querySelector("time").textContent) &&
        event.querySelector(".what").textContent === what && event.querySelector(".device").textContent === device)),
    ["overrun, taken over", stale], ["released by force", forced]);
    await pair(state);
  },

  async gone() {
    await until("the banner about the database", () => visible("#banner").some((banner) => banner.innerText.includes("The database is not available")));
    await until("Database not available", () => visible("#database.bad").length === 1);
    await until("no list that looks fresh", () => visible("#list:not(.old), #rows button:enabled").length === 0);
    await pair(state);
  },

  async token(token) {
    await until("the question for the token", () => document.querySelector("#ask:modal #token:focus") !== null);
    await pair(`${state}-dialog`);
    await send("Input.insertText", { text: token });
    for (const type of ["keyDown", "keyUp"]) {
      await send("Input.dispatchKeyEvent", { type, key: "Enter", code: "Enter", windowsVirtualKeyCode: 13, text: type === "keyDown" ? "\r" : undefined });
    }
    await until("the list, after the token", () => !document.querySelector("#ask").open && /^(> )?\d+$/.test(document.getElementById("held").textContent));
    await until("the counters, after the token", () => /^\d+$/.test(document.getElementById("waiting").textContent));
    await pair(state);
  },

  async force(device, prospect) {
    await until(`${device}, ${prospect} in the list`, `(...ids) => Boolean((${rowOf})(...ids))`, device, prospect);
    await click("its button", `(...ids) => (${rowOf})(...ids)?.querySelector("button:enabled")`, device, prospect);
    await until("the confirmation, with both ids", (...ids) =>
      document.querySelector("#force:modal") &&
      ids.every((id) => visible("#force .id").some((shown) => shown.textContent === id)), device, prospect);
    await pair(`${state}-dialog`);
    await click("the button that confirms", () => document.querySelector("#force:modal button[value=yes]"));
    await until("Released", () => document.getElementById("said").textContent.startsWith("Released: "));
    await until("the list without that row", `(...ids) => !(${rowOf})(...ids)`, device, prospect);
    await pair(state);
  },
};

const needed = { token: 1, force: 2, history: 2 };
let status = 0;
try {
  if (!Object.hasOwn(states, state ?? "") || words.length !== (needed[state] ?? 0)) {
    throw new CheckFailed("usage: node tests/page.mjs BASE_URL SCREENSHOT_DIR empty|busy|waiting|history DEVICE DEVICE|gone|token TOKEN|force DEVICE PROSPECT");
  }
  mkdirSync(pictures, { recursive: true });
  const { targetId } = await send("Target.createTarget", { url: "about:blank" });
  ({ sessionId } = await send("Target.attachToTarget", { targetId, flatten: true }));
  for (const domain of ["Runtime", "Log", "Page"]) await send(`${domain}.enable`);
  await dress(false);
  await send("Page.navigate", { url: base });
  await until("a page of session-lock", () => document.readyState === "complete" && document.querySelector("h1")?.innerText.startsWith("session-lock"));
  await states[state](...words);
  if (complaints.length > 0) throw new CheckFailed(`not found: a page without errors; ${complaints.join("; ")}`);
} catch (error) {
  status = 1;
  const also = complaints.length > 0 && !error.message.includes(complaints[0]) ? `; ${complaints.join("; ")}` : "";
  console.error(`page.mjs ${state}: ${error instanceof CheckFailed ? error.message : error.stack}${also}`);
}
sessionId = undefined;
send("Browser.close").catch(() => {});
await Promise.race([ended, sleep(3000)]);
chromium.kill("SIGKILL");
// Its child processes may still write into the profile for a moment.
for (let attempt = 0; attempt < 20; attempt += 1) {
  try {
    rmSync(profile, { recursive: true, force: true });
    break;
  } catch {
    await sleep(100);
  }
}
process.exit(status);
