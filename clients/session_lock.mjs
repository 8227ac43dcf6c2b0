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

/** Repeats the same body, and so the same owner token, until the server answers yes or no. */
async function ask(operation, fields) {
  const body = JSON.stringify(fields);
  let problem;
  let retryAfter;
  for (const pause of [0, 200, 500, 1000, 2000, 4000]) {
    await sleep(retryAfter ?? pause);
    retryAfter = undefined;
    try {
      const signal = AbortSignal.timeout((fields.wait_ms ?? 0) + 10_000);
      const asked = request(`${url}/v1/${operation}`, { method: "POST", headers, agent, signal }).end(body);
      const [response] = await once(asked, "response");
      const { statusCode: status } = response;
      const text = await read(response);
      if (status === 200 || status === 409) return JSON.parse(text);
      problem = `${status} ${text.trim()}`;
      if (status < 500) break;
      if (response.headers["retry-after"]) retryAfter = 1000 * response.headers["retry-after"];
    } catch (error) {
      problem = error;
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

  async acquire() {
    const answer = await ask("acquire", { ...this.#session, ...this.#options });
    if (!answer.granted) return answer;
    this.#expires = performance.now() + answer.remaining_ms;
    this.#timer ??= setInterval(() => this.renew().catch(() => {}), this.#options.ttl_ms / 3).unref();
    return answer;
  }

  async renew() {
    const asked = performance.now();
    const answer = await ask("renew", { ...this.#session, ttl_ms: this.#options.ttl_ms });
    this.#expires &&= asked + (answer.remaining_ms ?? 0);
    if (!answer.renewed) clearInterval(this.#timer);
    return answer;
  }

  /** If this is false, another worker may have the conversation: stop. */
  alive = () => performance.now() < this.#expires;

  commit(result, messageId = this.#options.message_id) {
    return ask("commit", { ...this.#session, message_id: messageId, result });
  }

  /** With the arguments of commit(), it also records the message. */
  release(result, messageId = result === undefined ? undefined : this.#options.message_id) {
    clearInterval(this.#timer);
    this.#expires = 0;
    return ask("release", { ...this.#session, message_id: messageId, result });
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
