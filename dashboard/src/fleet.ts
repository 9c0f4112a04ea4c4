// What is known of every device. Plain data that is changed in place; the page is drawn again four times a second at most.
import { redraw } from "./draw";
import type { Alert, CameraStatus, Counts, Desired, Event, Frame, Health, Info, ModelMetrics, Reported, Status, Topic } from "./contract";
import { ROOT, RULES, parse } from "./contract";
import { Log, WINDOW_MS } from "./log";
import { Trend } from "./trend";
import type { Heard } from "./link";
import { read } from "./read";

export interface Camera {
  id: string;
  status: CameraStatus | null;
  counts: Counts | null;
  /** The sum of what it counts. */
  objects: number;
  /** The newest detections, and when they came, by this page's clock. */
  frame: { frame: Frame; at: number } | null;
  /** Objects that are there now, by their id: the newest event of each that has not ended. */
  present: Map<string, { event: Event; at: number }>;
  /** The newest picture: an object URL, of which event or command, and when it came. */
  picture: { url: string; of: string; at: number } | null;
}

export interface Device {
  site: string;
  device: string;
  /** `site/device`. */
  key: string;
  status: Status | null;
  info: Info | null;
  health: Health | null;
  model: ModelMetrics | null;
  desired: Desired | null;
  reported: Reported | null;
  alerts: Map<string, Alert>;
  cameras: Map<string, Camera>;
  trend: Trend;
  /** When anything live came last, ms since 1970 by this page's clock; 0: only what the broker had kept. */
  heardAt: number;
  /** How far its clock is from this one, ms, of the newest live health report; positive: it is ahead. */
  skewMs: number | null;
  /** Messages that do not fit the contract, and what was wrong with the last. */
  broken: { count: number; why: string };
  /** Events of it that this page read, each once. */
  events: number;
}

/** In one word, how a device does; as `Verdict.state`, or that it is not there, or that nobody knows. */
export type Mood = "ok" | "degraded" | "failing" | "offline" | "unknown";

const BEAT_MS = 250;
/** A clock that is off by more is told. */
export const MAX_SKEW_MS = 30_000;
const MAX_DEVICES = 20_000;
const MAX_CAMERAS = 64;
const MAX_PRESENT = 500;
/** Counts of more labels are not taken in: a bundle may have no more. */
const MAX_LABELS = 10_000;
/** An object that is there tells something once a minute at least. */
export const SILENT_MS = 150_000;
const MAX_PICTURES = 300;
/** With the newest of each camera. */
const MOST_PICTURES = 1000;
const MAX_TOPICS = 200_000;
/** Characters; the contract's longest has less. */
const MAX_TOPIC = 400;
const NOTHING = new Uint8Array();

export class Fleet {
  readonly devices = new Map<string, Device>();
  readonly log = new Log();
  /** Devices that speak another version of the contract, by `site/device`, with it. */
  readonly foreign = new Map<string, string>();
  /** Devices that were not taken in because there are too many. */
  beyond = 0;
  /** Listeners to single messages, such as frames for a canvas. */
  readonly onFrame = new Set<(device: Device, camera: Camera) => void>();
  /** Topics that were heard, by their text, and in which wave last. */
  private readonly topics = new Map<string, { topic: Topic; wave: number }>();
  /** Rises with each filter that is asked for; and that of each filter. */
  private wave = 0;
  private readonly asked = new Map<string, number>();
  private readonly pictures: { url: string; owner: Camera }[] = [];
  private beatAt = 0;
  private timer = 0;
  private calm = 0;

  /** Take in a batch, and how many messages were lost for being too many. */
  hear(batch: Heard[], lost: number): void {
    const now = Date.now();
    let events = 0;
    for (const each of batch) if (each.text.endsWith("/event")) events += 1;
    this.log.begin(events, lost, now, batch[0]?.at);
    for (const each of batch) this.take(each);
    if (this.log.sampling > 1) {
      window.clearTimeout(this.calm);
      this.calm = window.setTimeout(() => this.hear([], 0), WINDOW_MS + 100); // a flood that ends in silence ends, too
    }
    this.changed();
  }

  /** A session began: what is retained comes again. Until it has come, what was known before stands. */
  begin(): void {
    this.asked.clear();
    this.log.outage();
    const now = Date.now();
    for (const device of this.devices.values()) for (const camera of device.cameras.values()) letGo(camera, now);
    this.changed();
  }

  /** A filter is subscribed now: what the broker keeps of it comes. */
  ask(filter: string): void {
    this.asked.set(filter, (this.wave += 1));
  }

  /** All that the broker keeps of these filters has come: what did not was taken back while nobody listened here. */
  kept(filters: string[]): void {
    const now = Date.now();
    for (const filter of filters) {
      const since = this.asked.get(filter) ?? 0;
      const fits = new RegExp(`^${filter.replaceAll("+", "[^/]+")}$`);
      for (const [text, { topic, wave }] of this.topics) {
        if (wave >= since || !RULES[topic.kind].retain || !fits.test(text)) continue;
        this.take({ text, payload: NOTHING, retained: true, at: now });
      }
    }
    this.changed();
  }

  /** Take in nothing, and have the page drawn again. */
  changed(): void {
    if (this.timer) return;
    const wait = Math.max(0, this.beatAt + BEAT_MS - performance.now());
    this.timer = window.setTimeout(() => {
      this.timer = 0;
      this.beatAt = performance.now();
      redraw();
    }, wait);
  }

  device(site: string, device: string): Device | undefined {
    return this.devices.get(`${site}/${device}`);
  }

  private take({ text, payload, retained, at: now }: Heard): void {
    const topic = this.topic(text);
    if (payload.length === 0) this.topics.delete(text);
    if (topic === null) return this.stranger(text);
    if (topic.kind === "event" && !this.log.wants()) return;
    if (payload.length === 0) return this.clear(topic);
    const device = this.known(topic.site, topic.device);
    if (device === null) return;
    const camera = "camera" in topic ? camerasOf(device, topic.camera) : null;
    const got = read(topic.kind, payload);
    if (!got.ok) {
      device.broken = { count: device.broken.count + 1, why: `${text.slice(ROOT.length + 1)}: ${got.why}` };
      return;
    }
    const others = topic.kind === "desired" || (topic.kind === "status" && (got.value as Status).state === "offline"); // an operator's, the broker's
    if (!retained && !others) device.heardAt = now;
    switch (topic.kind) {
      case "status": {
        const status = got.value as Status;
        const late = status.state === "offline" && device.status?.state === "online" && device.status.boot_id !== status.boot_id;
        if (!late) device.status = status;
        return;
      }
      case "info": device.info = got.value as Info; return;
      case "model": device.model = got.value as ModelMetrics; return;
      case "desired": device.desired = got.value as Desired; return;
      case "reported": device.reported = got.value as Reported; return;
      case "alert": if (device.alerts.size < 100) device.alerts.set(topic.code, got.value as Alert); return;
      case "health": {
        device.health = got.value as Health;
        if (!retained) device.skewMs = Date.parse(device.health.at) - now;
        device.trend.add(device.health);
        for (const each of device.cameras.values()) letGo(each, now);
        return;
      }
      default:
    }
    if (camera === null) return;
    switch (topic.kind) {
      case "cameraStatus": camera.status = got.value as CameraStatus; return;
      case "counts":
        return this.counts(device, camera, got.value as Counts, now);
      case "frame":
        camera.frame = { frame: got.value as Frame, at: now };
        for (const hear of this.onFrame) hear(device, camera);
        return;
      case "snapshot": return this.picture(device, camera, topic.event, got.value as Uint8Array, now);
      case "event": {
        const event = got.value as Event;
        if (event.site !== topic.site || event.device !== topic.device || event.camera !== topic.camera) {
          device.broken = { count: device.broken.count + 1, why: "an event names another camera than its topic" };
          return;
        }
        if (!this.log.add(event, now)) return; // QoS 1 may bring one twice
        device.events += 1;
        if (event.type === "end") camera.present.delete(event.id);
        else if (!event.replayed) sight(camera, event, now);
        return;
      }
      default:
    }
  }

  /** An empty payload takes back what was kept; a device of which nothing is left is forgotten. */
  private clear(topic: Topic): void {
    const device = this.device(topic.site, topic.device);
    if (!device) return;
    forget(device, topic.kind, ("camera" in topic && device.cameras.get(topic.camera)) || null, "code" in topic ? topic.code : "");
    const { status, info, health, model, desired, reported, alerts, cameras } = device;
    if (!(status ?? info ?? health ?? model ?? desired ?? reported) && alerts.size + cameras.size === 0) this.devices.delete(device.key);
  }

  private topic(text: string): Topic | null {
    const known = this.topics.get(text);
    if (known !== undefined) {
      known.wave = this.wave;
      return known.topic;
    }
    const topic = text.length > MAX_TOPIC ? null : parse(text);
    if (topic && topic.kind !== "snapshot" && topic.kind !== "ack" && this.topics.size < MAX_TOPICS) this.topics.set(text, { topic, wave: this.wave });
    return topic;
  }

  private counts(device: Device, camera: Camera, counts: Counts, now: number): void {
    const many = Object.values(counts.objects);
    if (many.length > MAX_LABELS) {
      device.broken = { count: device.broken.count + 1, why: `counts of ${many.length} labels` };
      return;
    }
    camera.counts = counts;
    camera.objects = many.reduce((sum, each) => sum + each, 0);
    letGo(camera, now);
  }

  private picture(device: Device, camera: Camera, of: string, bytes: Uint8Array, now: number): void {
    const url = URL.createObjectURL(new Blob([bytes as Uint8Array<ArrayBuffer>], { type: "image/jpeg" }));
    camera.picture = { url, of, at: now };
    this.log.picture(`${device.key}/${camera.id}/${of}`, url);
    this.pictures.push({ url, owner: camera });
    if (this.pictures.length <= MAX_PICTURES) return;
    const spare = this.pictures.findIndex((each) => each.owner.picture?.url !== each.url); // the newest of its camera stays
    if (spare < 0 && this.pictures.length <= MOST_PICTURES) return;
    const [old] = this.pictures.splice(Math.max(0, spare), 1);
    if (!old) return;
    if (old.owner.picture?.url === old.url) old.owner.picture = null;
    this.log.unpicture(old.url);
    URL.revokeObjectURL(old.url);
  }

  private stranger(text: string): void {
    const [root, version, site = "", device = ""] = text.slice(0, MAX_TOPIC).split("/");
    if (root === "tinysight" && version && `${root}/${version}` !== ROOT && this.foreign.size < 1000) this.foreign.set(`${site.slice(0, 63)}/${device.slice(0, 63)}`, version.slice(0, 20));
  }

  private known(site: string, device: string): Device | null {
    const key = `${site}/${device}`;
    const known = this.devices.get(key);
    if (known) return known;
    if (this.devices.size >= MAX_DEVICES) {
      this.beyond += 1;
      return null;
    }
    const made: Device = {
      site, device, key, status: null, info: null, health: null, model: null, desired: null, reported: null, alerts: new Map(),
      cameras: new Map(), trend: new Trend(), heardAt: 0, skewMs: null, broken: { count: 0, why: "" }, events: 0,
    };
    this.devices.set(key, made);
    return made;
  }
}

function camerasOf(device: Device, id: string): Camera | null {
  const known = device.cameras.get(id);
  if (known || device.cameras.size >= MAX_CAMERAS) return known ?? null;
  const made: Camera = { id, status: null, counts: null, objects: 0, frame: null, present: new Map(), picture: null };
  device.cameras.set(id, made);
  return made;
}

/** An object is there. The one that was heard of last stands last. */
function sight(camera: Camera, event: Event, now: number): void {
  camera.present.delete(event.id);
  camera.present.set(event.id, { event, at: now });
  letGo(camera, now);
}

/** Those whose end this page did not hear, as it was away or read a sample only; else each tells something once a minute. */
function letGo(camera: Camera, now: number): void {
  for (const [id, { at }] of camera.present) {
    if (camera.present.size <= MAX_PRESENT && now - at <= SILENT_MS) return;
    camera.present.delete(id);
  }
}

/** What an empty payload takes back. */
function forget(device: Device, kind: string, camera: Camera | null, code: string): void {
  switch (kind) {
    case "status": case "info": case "health": case "model": case "desired": case "reported": device[kind] = null; return;
    case "alert": device.alerts.delete(code); return;
    case "cameraStatus": if (camera) drop(device, camera); return;
    case "counts":
      if (camera) [camera.counts, camera.objects] = [null, 0];
      if (camera && camera.status === null) drop(device, camera);
      return;
    default:
  }
}

/** Its newest picture is kept no longer than others. */
function drop(device: Device, camera: Camera): void {
  device.cameras.delete(camera.id);
  camera.picture = null;
}

/** How a device does, the gravest first: what it is, why, and what to do. */
export function moodOf(device: Device): { mood: Mood; what: string; mend: string } {
  if (device.status === null) {
    const mend = "Look whether it runs, and whether its broker keeps retained messages.";
    return { mood: "unknown", what: "Nobody knows whether it is there: the broker keeps no status of it.", mend };
  }
  if (device.status.state === "offline") return { mood: "offline", what: `Offline: ${device.status.reason || "the connection broke"}.`, mend: "Look at its power and its network; it comes back by itself." };
  const verdict = device.health?.verdict;
  if (verdict && verdict.state !== "ok") return { mood: verdict.state, what: verdict.what ?? "", mend: verdict.mend ?? "" };
  for (const alert of device.alerts.values()) if (alert.severity === "error") return { mood: "failing", what: alert.what, mend: alert.mend };
  for (const alert of device.alerts.values()) return { mood: "degraded", what: alert.what, mend: alert.mend };
  return { mood: "ok", what: "", mend: "" };
}
