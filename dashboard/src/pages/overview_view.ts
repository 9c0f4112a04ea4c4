// The overview's lines: what is said of each device, in which order, and the gravest alerts. Made once a draw.
import type { Alert } from "../contract";
import { type Device, type Mood, moodOf } from "../fleet";

export interface Line {
  device: Device;
  mood: Mood;
  what: string;
  fps: number;
  /** The oldest frame of its cameras, ms at p95. */
  age_ms: number;
  cameras: number;
  /** Objects that its cameras count now. */
  objects: number;
  bundle: string;
}

export const GRAVITY: Record<Mood, number> = { failing: 0, degraded: 1, offline: 2, unknown: 3, ok: 4 };
/** A device that is offline for longer has not merely lost its network. */
const GONE_MS = 86_400_000;

export function lineOf(device: Device, now: number): Line {
  const { mood, what } = moodOf(device);
  const line: Line = { device, mood, what, fps: 0, age_ms: 0, cameras: device.cameras.size, objects: 0, bundle: "" };
  const told = device.health?.cameras;
  if (told) {
    let cameras = 0;
    for (const each of Object.values(told)) {
      cameras += 1;
      line.fps += each.fps;
      if (each.frame_age_ms.p95 > line.age_ms) line.age_ms = each.frame_age_ms.p95;
    }
    line.cameras = Math.max(cameras, line.cameras);
  }
  if (mood !== "offline") for (const { objects } of device.cameras.values()) line.objects += objects;
  const bundle = device.info?.bundle;
  if (bundle) line.bundle = `${bundle.name} ${bundle.version}`;
  if (mood === "offline") line.what = offline(device, what, now);
  return line;
}

function offline(device: Device, what: string, now: number): string {
  const last = lastSign(device);
  if (last === 0 || now - last < GONE_MS) return what;
  const days = Math.floor((now - last) / GONE_MS);
  return `Never came back: nothing heard for ${days} ${days === 1 ? "day" : "days"}, since ${new Date(last).toLocaleString()}. ${what}`;
}

/** When it gave its last sign of life, ms since 1970; 0 when nobody knows. A will's time is that of its session's begin. */
export function lastSign(device: Device): number {
  let last = device.heardAt;
  const note = (time: string | undefined): void => {
    const at = Date.parse(time ?? "");
    if (at > last) last = at;
  };
  note(device.status?.at);
  note(device.health?.at);
  for (const camera of device.cameras.values()) note(camera.counts?.at);
  return last;
}

/** By which columns the lines can be sorted. */
export type Order = "state" | "device" | "fps" | "age" | "bundle" | "heard";
const VALUES: Record<Exclude<Order, "device">, (line: Line) => number | string> = {
  state: (line) => GRAVITY[line.mood],
  fps: (line) => line.fps,
  age: (line) => line.age_ms,
  bundle: (line) => line.bundle,
  heard: (line) => line.device.heardAt,
};

/** In place; those that are alike stand by their names. */
export function sort(lines: Line[], by: Order, descending: boolean): void {
  const turn = descending ? -1 : 1;
  const byName = (a: Line, b: Line): number => (a.device.key < b.device.key ? -1 : 1);
  if (by === "device") lines.sort((a, b) => turn * byName(a, b));
  else {
    const value = VALUES[by];
    lines.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      return x === y ? byName(a, b) : x < y ? -turn : turn;
    });
  }
}

export interface Standing {
  device: Device;
  code: string;
  alert: Alert;
}

/** All alerts, errors first, then the newest. */
export function alertsOf(devices: Iterable<Device>): Standing[] {
  const found: Standing[] = [];
  for (const device of devices) for (const [code, alert] of device.alerts) found.push({ device, code, alert });
  return found.sort((a, b) => {
    if (a.alert.severity !== b.alert.severity) return a.alert.severity === "error" ? -1 : 1;
    return a.alert.since < b.alert.since ? 1 : a.alert.since > b.alert.since ? -1 : a.device.key < b.device.key ? -1 : 1;
  });
}
