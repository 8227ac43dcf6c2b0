// Types of session_lock.mjs, for TypeScript 4.7 or later: copy this file into the same folder.

export interface LeaseOptions {
  /** How long to wait in the queue if the conversation is held, 0 to 25,000 ms. Default 0. */
  waitMs?: number;
  /** How long the lease lasts without a renewal, at least 1,000 ms. Default 30,000. */
  ttlMs?: number;
}

/** What is JSON of up to 512 bytes, such as the id of the reply. */
export type Result = unknown;

export type Acquired =
  | { granted: true; owner_token: string; fencing_token: number; remaining_ms: number; how: "new" | "takeover" | "again" }
  | { granted: false; reason: "held"; remaining_ms: number; waiters: number }
  | { granted: false; reason: "duplicate"; message_id: string; committed_ms_ago: number; result: Result };

export type Renewed =
  | { renewed: true; remaining_ms: number; fencing_token: number }
  | { renewed: false; reason: "lost" | "max_hold" };

export type Committed =
  | { committed: true; how: "new" | "again" }
  | { committed: false; reason: "lost" }
  | { committed: false; reason: "duplicate"; result: Result };

export type Released = { released: true } | { released: false; reason: "lost" };

/** One attempt at one conversation. A timer renews the lease until the release. */
export class Lease {
  constructor(idDevice: string, idProspect: string, messageId?: string, options?: LeaseOptions);
  /** If the lease is lost before a late answer is here, the answer is "held". */
  acquire(): Promise<Acquired>;
  renew(): Promise<Renewed>;
  /** If this is false, another worker may have the conversation: stop. */
  alive: () => boolean;
  /** Call this right before the reply is sent. Unless it is `committed`, send nothing. */
  commit(result?: Result, messageId?: string): Promise<Committed>;
  /** With a result or a message id, it also records the message: send before that, for at least one reply. */
  release(result?: Result, messageId?: string): Promise<Released>;
}
