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
}

const BATCH_MS = 100;
const QUIET_MS = 60;
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

export class Link {
  readonly state = cell<LinkState>({ kind: "connecting" });
  /** Filters that the broker refused to this user. */
  readonly denied = cell<readonly string[]>([]);
  /** How often a session began. */
  sessions = 0;
  private client: MqttClient | null = null;
  private waiting: Heard[] = [];
  private lost = 0;
  private timer = 0;
  private retainedAt = -QUIET_MS;
  private readonly wanted = new Map<string, { qos: 0 | 1; users: number }>();
  private queue: string[] = [];
  private busy = false;

  /**
   * @param url of the broker, as in `Config`.
   * @param onBatch is given what was heard, ten times a second at most, and how many messages were too many to keep.
   * @param onBegin is told when a session begins: what is retained comes again.
   */
  constructor(
    private readonly url: string,
    private readonly onBatch: (batch: Heard[], lost: number) => void,
    private readonly onBegin: () => void,
  ) {}

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
      reconnectOnConnackError: false,
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
      this.onBegin();
      this.queue = [...this.wanted.keys()];
      this.busy = false;
      this.next();
    });
    client.on("message", (text, payload, packet) => {
      if (client !== this.client) return;
      if (packet.retain) this.retainedAt = performance.now();
      if (this.waiting.length >= MOST_WAITING) this.lost += 1;
      else this.waiting.push({ text, payload, retained: packet.retain });
      if (!this.timer) this.timer = window.setTimeout(() => this.flush(), BATCH_MS);
    });
    client.on("error", (error) => {
      const refusal = REFUSALS["code" in error ? Number(error.code) : 0];
      if (!refusal || client !== this.client) return;
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

  /** Subscribe until the function that is returned is called; filters that several want are subscribed once. */
  watch(filter: string, qos: 0 | 1 = 0): () => void {
    const known = this.wanted.get(filter);
    if (known) known.users += 1;
    else {
      this.wanted.set(filter, { qos, users: 1 });
      this.queue.push(filter);
      this.next();
    }
    return () => {
      const mine = this.wanted.get(filter);
      if (!mine || --mine.users > 0) return;
      this.wanted.delete(filter);
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
    client.subscribe(filter, { qos: wanted.qos }, (error, granted) => {
      if (client !== this.client) return;
      if (error || granted?.some((each) => Number(each.qos) >= 128)) this.denied.value = [...this.denied.value, filter];
      const wait = (): void => {
        if (performance.now() - this.retainedAt < QUIET_MS) return void window.setTimeout(wait, QUIET_MS);
        this.busy = false;
        this.next();
      };
      wait();
    });
  }

  private flush(): void {
    window.clearTimeout(this.timer);
    this.timer = 0;
    const [batch, lost] = [this.waiting, this.lost];
    this.waiting = [];
    this.lost = 0;
    this.onBatch(batch, lost);
  }
}
