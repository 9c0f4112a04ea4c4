// The fleet's API, with the token of who is signed in. Every failure is a `Problem` that says what to do.
import { cell } from "./draw";

/** What went wrong, as the server says it, or as the browser does. */
export class Problem extends Error {
  readonly status: number;
  readonly what: string;
  readonly mend: string;

  constructor(status: number, what: string, mend: string) {
    super(`${what} ${mend}`);
    this.status = status;
    this.what = what;
    this.mend = mend;
  }
}

export interface Me {
  name: string;
  role: string;
  may: string[];
}

const PATIENCE_MS = 75_000;
const AGAIN_MS = 2000;
const MOST_MS = 60_000;

/** The one of who is signed in; those before ask no more. */
let newest: Api | null = null;

export class Api {
  /** Who the token is of; null while nobody knows, or nobody is signed in. */
  readonly me = cell<Me | null>(null);
  /** Why the token is not taken; empty while it is, while nobody knows, or there is none. */
  readonly refused = cell("");
  /** Why nobody knows whether it is; it is asked again by itself. */
  readonly trouble = cell("");

  private readonly url: string;
  private readonly token: string;

  constructor(url: string, token: string) {
    this.url = url;
    this.token = token;
    newest = this;
    if (token) void this.meet();
  }

  /** Whether the token lets one act. */
  get acts(): boolean {
    return this.me.value?.may.includes("operate") ?? false;
  }

  get signedIn(): boolean {
    return this.token !== "";
  }

  /** Why whoever is signed in may not act; empty when they may. */
  get why(): string {
    if (!this.signedIn) return "Sign in with a token of role operate.";
    if (this.me.value) return this.acts ? "" : "Your token may only look: acting needs one of role operate.";
    if (this.refused.value) return "The token is not taken. Sign in with another.";
    return this.trouble.value ? `${this.trouble.value} It is asked again by itself.` : "Asking the fleet's server who you are…";
  }

  /** Ask who the token is of; again and again, ever more seldom, until the server has said it. */
  async meet(wait_ms = AGAIN_MS): Promise<void> {
    try {
      this.me.value = await this.get<Me>("/v1/me");
      this.trouble.value = "";
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      const refused = error instanceof Problem && (error.status === 401 || error.status === 403);
      this.refused.value = refused ? text : "";
      this.trouble.value = refused ? "" : text;
      if (!refused) setTimeout(() => newest === this && void this.meet(Math.min(MOST_MS, 2 * wait_ms)), wait_ms);
    }
  }

  get<T>(path: string): Promise<T> {
    return this.ask<T>("GET", path);
  }

  ask<T>(method: "GET" | "POST" | "PUT", path: string, body?: unknown): Promise<T> {
    const asked: RequestInit = { method, credentials: "omit", cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) };
    const headers: Record<string, string> = this.token ? { Authorization: `Bearer ${this.token}` } : {};
    if (body !== undefined) {
      headers["Content-Type"] = "application/json";
      asked.body = JSON.stringify(body);
    }
    return send<T>(this.url + path, { ...asked, headers });
  }
}

async function send<T>(url: string, asked: RequestInit): Promise<T> {
  let answer: Response;
  try {
    answer = await fetch(url, asked);
  } catch (error) {
    const late = error instanceof DOMException && error.name === "TimeoutError";
    throw new Problem(0, late ? "The fleet's server took too long." : "The fleet's server cannot be reached.", "Look whether it runs, and whether it was started with --origin of this page.");
  }
  if (answer.status === 204) return null as T;
  let told: unknown;
  try {
    told = await answer.json();
  } catch {
    throw new Problem(answer.status, `The fleet's server answers ${answer.status} and no JSON.`, "Check the API's address.");
  }
  if (answer.ok) return told as T;
  const { detail, title, mend } = told as Record<string, unknown>;
  const say = [detail, title].find((each) => typeof each === "string") as string | undefined;
  throw new Problem(answer.status, say ?? `The fleet's server answers ${answer.status}.`, typeof mend === "string" ? mend : "");
}
