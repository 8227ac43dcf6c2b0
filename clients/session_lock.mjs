// session-lock for Node 18 or later, no packages: copy this file into the bot, and session_lock.d.mts
// for TypeScript. No top-level await and no import.meta, for require() and for bundlers to CommonJS.
import { randomInt } from "node:crypto";
import { once } from "node:events";
import http from "node:http";
import https from "node:https";
import { basename } from "node:path";
import { createInterface } from "node:readline";
import { text as read } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";

const url = (process.env.SESSION_LOCK_URL || "http://127.0.0.1:7099").replace(/\/+$/, "");
const headers = { authorization: `Bearer ${process.env.SESSION_LOCK_API_TOKEN ?? ""}` };
const { Agent, request } = url.startsWith("https:") ? https : http;
// Unlike fetch and the global agent, it ignores the environment's proxy, which could read the
// token.
const agent = new Agent({ keepAlive: true });

// The field of each answer that says yes or no.
const verdicts = { acquire: "granted", renew: "renewed", commit: "committed", release: "released" };
const longestPause = 5000; // ms, if a gateway's Retry-After is longer

/**
 * Repeats the same body, and so the same owner token, until the server answers yes or no. Also returns
 * when it sent what is answered.
 */
async function ask(operation, fields) {
  const body = JSON.stringify(fields);
  let problem;
  let retryAfter;
  for (const pause of [0, 200, 500, 1000, 2000, 4000]) {
    await sleep(retryAfter ?? pause);
    retryAfter = undefined;
    try {
      const sent = performance.now();
      const signal = AbortSignal.timeout((fields.wait_ms ?? 0) + 10_000);
      const asked = request(`${url}/v1/${operation}`, { method: "POST", headers, agent, signal }).end(body);
      const [response] = await once(asked, "response");
      const { statusCode: status } = response;
      const text = await read(response);
      problem = `${status} ${text.trim()}`;
      const after = response.headers["retry-after"];
      if (/^\d+$/.test(after)) retryAfter = Math.min(1000 * after, longestPause);
      if (status === 200 || status === 409) {
        const answer = JSON.parse(text);
        if (answer?.[verdicts[operation]] === (status === 200)) return { answer, sent };
      } else if (status < 500) break;
    } catch (error) {
      if (!(error instanceof SyntaxError)) problem = error; // otherwise it is a gateway's page
    }
  }
  throw new Error(`session-lock: ${problem}`);
}

/** One attempt at one conversation. A timer renews the lease until the release. */
export class Lease {
  #session; #options; #timer; #expires = 0;

  constructor(idDevice, idProspect, messageId, { waitMs = 0, ttlMs = 30_000 } = {}) {
    const ownerToken = Array.from({ length: 20 }, () => randomInt(10)).join("");
    this.#session = { id_device: idDevice, id_prospect: idProspect, owner_token: ownerToken };
    this.#options = { message_id: messageId, wait_ms: Number(waitMs), ttl_ms: Number(ttlMs) };
  }

  /** If the lease is lost before a late answer is here, the answer is "held". */
  async acquire() {
    const { answer, sent } = await ask("acquire", { ...this.#session, ...this.#options });
    if (!answer.granted) return answer;
    this.#expires = sent + answer.remaining_ms;
    // A late answer, such as after a wait, does not say when the lease began: renew it.
    if (performance.now() - sent > this.#options.ttl_ms / 10) {
      const { renewed, remaining_ms } = await this.renew();
      if (!renewed) return { granted: false, reason: "held", remaining_ms: 0, waiters: 0 };
      answer.remaining_ms = remaining_ms;
    }
    this.#timer ??= setInterval(() => this.renew().catch(() => {}), this.#options.ttl_ms / 3).unref();
    return answer;
  }

  async renew() {
    const { answer, sent } = await ask("renew", { ...this.#session, ttl_ms: this.#options.ttl_ms });
    this.#expires &&= sent + (answer.remaining_ms ?? 0);
    if (!answer.renewed) clearInterval(this.#timer);
    return answer;
  }

  /** If this is false, another worker may have the conversation: stop. */
  alive = () => performance.now() < this.#expires;

  async commit(result, messageId = this.#options.message_id) {
    return (await ask("commit", { ...this.#session, message_id: messageId, result })).answer;
  }

  /** With the arguments of commit(), it also records the message. */
  async release(result, messageId = result === undefined ? undefined : this.#options.message_id) {
    clearInterval(this.#timer);
    this.#expires = 0;
    return (await ask("release", { ...this.#session, message_id: messageId, result })).answer;
  }
}

async function demonstrate() { // takes acquire, renew, alive, "commit r-17", release and "release r-17" from stdin
  const [idDevice, idProspect, messageId, waitMs, ttlMs] = process.argv.slice(2);
  const lease = new Lease(idDevice, idProspect, messageId, { waitMs, ttlMs });
  for await (const line of createInterface({ input: process.stdin })) {
    const [method, ...words] = line.split(" ");
    console.log(JSON.stringify(await lease[method](...words)));
  }
}

if (basename(process.argv[1] ?? "") === "session_lock.mjs") demonstrate();
