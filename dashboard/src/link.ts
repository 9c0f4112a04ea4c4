// The session at the broker: connects, comes back by itself, subscribes one filter after another, hands over in batches.
//
// One filter at a time, the next when the broker has acknowledged it and what it retained has come: a broker's queue
// for one session is short (1,000 messages in Mosquitto unless set), and what does not fit is lost without a word.
import mqtt, { type IClientOptions, type MqttClient } from "mqtt";
import { cell } from "./draw";
import type { Session } from "./session";

export type LinkState =
  | { kind: "connecting" }
  | { kind: "online"; since: number }
  | { kind: "away"; why: string; since: number }
  | { kind: "refused"; why: string; mend: string };

export interface Heard {
  text: string;
  payload: Uint8Array;
  retained: boolean;
  /** When it came, ms since 1970 by this page's clock: a tab in the background may hand it on much later. */
  at: number;
}

const BATCH_MS = 100;
const QUIET_MS = 60;
/** Without a retained message for so long, all have come: of QoS 1 a broker sends some, and waits for their acknowledgement. */
const SETTLED_MS = 3000;
const MOST_WAITING = 20_000;
/** Larger packets are not sent to an MQTT 5 client; the contract's largest payload is 256 KiB. */
const MOST_PACKET = 300 << 10;
const REFUSALS: Record<number, [string, string]> = {
  1: ["The broker speaks another version of MQTT.", "Add ?version=3 to the broker's address, or take it away."],
  4: ["The broker does not know this user or password.", "Check both, and sign in again."],
  5: ["The broker does not let this user in.", "Ask for an account that may read tinysight/v1/#."],
  132: ["The broker speaks another version of MQTT.", "Add ?version=3 to the broker's address."],
  134: ["The broker does not know this user or password.", "Check both, and sign in again."],
  135: ["The broker does not let this user in.", "Ask for an account that may read tinysight/v1/#."],
};

/** Who is told of what comes. */
export interface Hearer {
  /** What was heard, ten times a second at most, and how many messages were too many to keep. */
  hear(batch: Heard[], lost: number): void;
  /** A session begins: what is retained comes again. */
  begin(): void;
  /** A filter is subscribed now. */
  ask(filter: string): void;
  /** All that the broker keeps of these filters has come since. */
  kept(filters: string[]): void;
}

export class Link {
  readonly state = cell<LinkState>({ kind: "connecting" });
  /** Filters that the broker refused to this user. */
  readonly denied = cell<readonly string[]>([]);
  /** How often a session began. */
  sessions = 0;
  private client: MqttClient | null = null;
  /** Filters that were taken, whose retained messages may still be on their way. */
  private readonly coming = new Set<string>();
  private settling = 0;
  private waiting: Heard[] = [];
  private lost = 0;
  /** When messages were too many last, in this session; 0: never, or all was asked for again since. */
  private lostAt = 0;
  private timer = 0;
  private retainedAt = -QUIET_MS;
  private readonly wanted = new Map<string, { qos: 0 | 1; users: number; optional: boolean }>();
  private queue: string[] = [];
  private busy = false;

  private readonly url: string;
  private readonly hearer: Hearer;

  /** @param url of the broker, as in `Config`. */
  constructor(url: string, hearer: Hearer) {
    this.url = url;
    this.hearer = hearer;
  }

  open(session: Session): void {
    this.close();
    const at = new URL(this.url);
    const version = at.searchParams.get("version") === "3" ? 4 : 5;
    at.searchParams.delete("version");
    const options: IClientOptions = {
      protocolVersion: version,
      clientId: `tinysight-dashboard-${Array.from(crypto.getRandomValues(new Uint8Array(8)), (b) => b.toString(16).padStart(2, "0")).join("")}`,
      clean: true,
      keepalive: 120, // a tab in the background may run its timers once a minute only
      timerVariant: "native", // the other makes a worker from text, which the page's policy forbids
      connectTimeout: 8000,
      reconnectPeriod: 1500,
      resubscribe: false,
      reconnectOnConnackError: true, // "server unavailable" passes; what does not pass ends the client below
      ...(version === 5 ? { properties: { maximumPacketSize: MOST_PACKET } } : {}),
      ...(session.username ? { username: session.username, password: session.password } : {}),
    };
    this.state.value = { kind: "connecting" };
    const client = mqtt.connect(at.href, options);
    this.client = client;
    client.on("connect", () => {
      this.flush(); // what came in the session before belongs to it
      this.sessions += 1;
      this.state.value = { kind: "online", since: Date.now() };
      this.denied.value = [];
      this.hearer.begin();
      this.queue = [...this.wanted.keys()];
      this.coming.clear();
      this.lostAt = 0;
      this.busy = false;
      this.next();
    });
    client.on("message", (text, payload, packet) => {
      if (client !== this.client) return;
      if (packet.retain) this.retainedAt = performance.now();
      const at = Date.now();
      if (this.waiting.length >= MOST_WAITING) this.lost += 1;
      else this.waiting.push({ text, payload, retained: packet.retain, at });
      if (at - (this.waiting[0]?.at ?? at) > 2 * BATCH_MS) this.flush(); // timers of a tab in the background are late
      else if (!this.timer) this.timer = window.setTimeout(() => this.flush(), BATCH_MS);
    });
    client.on("error", (error) => {
      const code = "code" in error ? Number(error.code) : 0;
      if (!(code > 0) || client !== this.client) return;
      const refusal = REFUSALS[code];
      if (!refusal) {
        const { value } = this.state;
        this.state.value = { kind: "away", since: value.kind === "away" ? value.since : Date.now(), why: `The broker says: ${error.message.slice(0, 200)}.` };
        return;
      }
      client.end(true);
      this.state.value = { kind: "refused", why: refusal[0], mend: refusal[1] };
    });
    client.on("close", () => {
      if (client !== this.client || this.state.value.kind === "refused" || this.state.value.kind === "away") return;
      const met = this.state.value.kind === "online";
      this.state.value = { kind: "away", since: Date.now(), why: met ? "The connection to the broker broke." : "The broker does not answer." };
    });
  }

  close(): void {
    this.client?.end(true);
    this.client = null;
  }

  /**
   * Subscribe until the function that is returned is called; filters that several want are subscribed once.
   * @param optional: nothing is said when the broker refuses it.
   */
  watch(filter: string, qos: 0 | 1 = 0, optional = false): () => void {
    const known = this.wanted.get(filter);
    if (known) known.users += 1;
    else {
      this.wanted.set(filter, { qos, users: 1, optional });
      this.queue.push(filter);
      this.next();
    }
    return () => {
      const mine = this.wanted.get(filter);
      if (!mine || --mine.users > 0) return;
      this.wanted.delete(filter);
      this.coming.delete(filter);
      this.denied.value = this.denied.value.filter((each) => each !== filter);
      if (this.client?.connected) this.client.unsubscribe(filter);
    };
  }

  private next(): void {
    const client = this.client;
    if (this.busy || !client?.connected) return;
    const filter = this.queue.shift();
    const wanted = filter === undefined ? undefined : this.wanted.get(filter);
    if (filter === undefined) return;
    if (!wanted) return this.next();
    this.busy = true;
    this.flush(); // what came before this filter was asked for
    this.hearer.ask(filter);
    const session = this.sessions;
    client.subscribe(filter, { qos: wanted.qos }, (error, _, packet) => {
      if (client !== this.client || session !== this.sessions) return;
      if (!error && this.wanted.get(filter)?.optional === false) this.coming.add(filter);
      const denied = packet?.granted?.some((each) => Number(each) >= 128) && this.wanted.get(filter)?.optional === false && !this.denied.value.includes(filter);
      if (denied) this.denied.value = [...this.denied.value, filter]; // a connection that broke meanwhile denied nothing
      const wait = (): void => {
        if (client !== this.client || session !== this.sessions) return;
        if (performance.now() - this.retainedAt < QUIET_MS) return void window.setTimeout(wait, QUIET_MS);
        this.busy = false;
        this.next();
      };
      wait();
      this.settle();
    });
  }

  /** Once nothing more is asked for and nothing retained comes, tell of what all has come. */
  private settle(): void {
    window.clearTimeout(this.settling);
    const { client, sessions } = this;
    this.settling = window.setTimeout(() => {
      if (client !== this.client || sessions !== this.sessions || !client?.connected) return;
      this.flush();
      if (this.lostAt > 0) return this.coming.clear(); // nobody knows what was among it
      if (this.busy || performance.now() - this.retainedAt < SETTLED_MS) return this.settle();
      this.hearer.kept([...this.coming]);
      this.coming.clear();
    }, SETTLED_MS);
  }

  private flush(): void {
    window.clearTimeout(this.timer);
    this.timer = 0;
    const [batch, lost] = [this.waiting, this.lost];
    this.waiting = [];
    this.lost = 0;
    if (lost > 0) {
      this.lostAt = performance.now();
      window.setTimeout(() => this.flush(), SETTLED_MS + BATCH_MS);
    } else if (this.lostAt > 0 && performance.now() - this.lostAt > SETTLED_MS) {
      this.lostAt = 0; // what is kept may have been among it: ask again
      this.queue = [...new Set([...this.queue, ...this.wanted.keys()])];
      this.next();
    }
    this.hearer.hear(batch, lost);
  }
}
