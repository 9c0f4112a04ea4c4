// Which bundle runs where, and what its devices say together. Pure; in: the fleet's devices, out: sums and lists.
import type { BundleRef, Update } from "./contract";
import { type Device, type Mood, moodOf } from "./fleet";

/** Above it a device tells `model.drifted`, unless its file says otherwise. */
export const MAX_DRIFT = 0.4;
export const BINS = 20;

/** One bundle, and the devices that run it. */
export interface Running {
  bundle: BundleRef;
  devices: Device[];
  moods: Map<Mood, number>;
  sites: Set<string>;
  /** Of each device that tells it, ms, rising. */
  inference: number[];
  drifting: number;
}

/** All bundles that run, the one with the most devices first; and how many devices have not told theirs. */
export function bundlesOf(devices: Iterable<Device>): { running: Running[]; untold: number } {
  const found = new Map<string, Running>();
  let untold = 0;
  for (const device of devices) {
    const bundle = device.info?.bundle;
    if (!bundle) {
      untold += 1;
      continue;
    }
    let mine = found.get(bundle.digest);
    if (!mine) found.set(bundle.digest, (mine = { bundle, devices: [], moods: new Map(), sites: new Set(), inference: [], drifting: 0 }));
    mine.devices.push(device);
    mine.sites.add(device.site);
    const mood = moodOf(device).mood, p95 = p95Of(device);
    mine.moods.set(mood, (mine.moods.get(mood) ?? 0) + 1);
    if (p95 !== null) mine.inference.push(p95);
    if (drifts(device)) mine.drifting += 1;
  }
  const running = [...found.values()];
  for (const each of running) each.inference.sort((a, b) => a - b);
  running.sort((a, b) => b.devices.length - a.devices.length || b.bundle.release - a.bundle.release || (a.bundle.digest < b.bundle.digest ? -1 : 1));
  return { running, untold };
}

/** What the model of a device's own bundle says; null when another one sees, such as one on trial. */
export const metricsOf = (device: Device): Device["model"] => (device.model && device.model.bundle === device.info?.bundle.digest ? device.model : null);

/** The 95th percentile of a run, ms; null when it is not told. */
export const p95Of = (device: Device): number | null => metricsOf(device)?.inference_ms?.p95 ?? device.health?.latency_ms["inference"]?.p95 ?? null;

export const driftOf = (device: Device): number | null => metricsOf(device)?.drift ?? null;

export const drifts = (device: Device): boolean => device.alerts.has("model-drifted") || (driftOf(device) ?? 0) > MAX_DRIFT;

/** The middle of a rising list; null of an empty one. */
export const median = (rising: readonly number[]): number | null => rising[Math.floor(rising.length / 2)] ?? null;

/** What the models of several devices found, together. */
export interface Found {
  /** Findings in each of 20 equal parts of 0..1. */
  scores: number[];
  labels: [string, number][];
  total: number;
  frames: number;
  /** Devices that told it. */
  told: number;
}

export function foundBy(devices: readonly Device[]): Found {
  const scores = new Array<number>(BINS).fill(0), labels = new Map<string, number>();
  let frames = 0, told = 0;
  for (const device of devices) {
    const model = metricsOf(device);
    if (!model) continue;
    told += 1;
    frames += model.frames;
    for (let at = 0; at < BINS; at += 1) scores[at] = (scores[at] ?? 0) + (model.scores[at] ?? 0);
    for (const [label, count] of Object.entries(model.labels)) labels.set(label, (labels.get(label) ?? 0) + count);
  }
  return { scores, labels: [...labels].sort((a, b) => b[1] - a[1]), total: scores.reduce((sum, each) => sum + each, 0), frames, told };
}

/** The confidence that so large a share of the findings reaches, as the lower edge of its part of 0..1. */
export function reached(scores: readonly number[], share: number): number {
  const total = scores.reduce((sum, each) => sum + each, 0);
  let above = 0;
  for (let at = scores.length - 1; at >= 0; at -= 1) {
    above += scores[at] ?? 0;
    if (above >= total * share) return at / scores.length;
  }
  return 0;
}

/** A device whose newest bundle is on its way, or did not stay. */
export interface Changing {
  device: Device;
  update: Update;
}

const ORDER: Readonly<Record<Update["state"], number>> = {
  trial: 0, selftest: 1, verified: 2, downloading: 3, queued: 4, "rolled-back": 5, failed: 6, rejected: 7, confirmed: 8,
};

/** Everything but what is confirmed: those that are on their way first, as far as they are. */
export function changing(devices: Iterable<Device>): Changing[] {
  const found: Changing[] = [];
  for (const device of devices) {
    const update = device.reported?.update;
    if (update && update.state !== "confirmed") found.push({ device, update });
  }
  return found.sort((a, b) => ORDER[a.update.state] - ORDER[b.update.state] || (a.device.key < b.device.key ? -1 : 1));
}
