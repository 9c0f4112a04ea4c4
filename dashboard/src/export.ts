// Events as files: CSV for spreadsheets, JSON as the contract has them.
import type { Event } from "./contract";

type Cell = string | number | boolean | null | undefined;

const COLUMNS: readonly [string, (event: Event) => Cell][] = [
  ["site", (e) => e.site], ["device", (e) => e.device], ["camera", (e) => e.camera], ["id", (e) => e.id], ["type", (e) => e.type],
  ["label", (e) => e.label], ["class_id", (e) => e.class_id], ["score", (e) => e.score], ["best_score", (e) => e.best_score],
  ["x1", (e) => e.box[0]], ["y1", (e) => e.box[1]], ["x2", (e) => e.box[2]], ["y2", (e) => e.box[3]],
  ["frame_width", (e) => e.frame.width], ["frame_height", (e) => e.frame.height],
  ["zones_now", (e) => e.zones.now.join(" | ")], ["zones_entered", (e) => e.zones.entered.join(" | ")],
  ["crossed", (e) => (e.crossed ?? []).map(({ line, direction }) => `${line} ${direction}`).join(" | ")],
  ["rules", (e) => (e.rules ?? []).join(" | ")],
  ["started_at", (e) => e.started_at], ["seen_at", (e) => e.seen_at], ["ended_at", (e) => e.ended_at], ["reason", (e) => e.reason],
  ["age_s", (e) => e.track.age_s], ["stationary", (e) => e.track.stationary],
  ["model", (e) => e.model.name], ["model_version", (e) => e.model.version], ["model_digest", (e) => e.model.digest],
  ["boot_id", (e) => e.boot_id], ["seq", (e) => e.seq], ["clock_synced", (e) => e.clock_synced], ["replayed", (e) => e.replayed],
  ["latency_total_ms", (e) => e.latency_ms.total],
];

/** RFC 4180: a header, lines that end with CR LF, quotes where they are needed. */
export function csvOf(events: readonly Event[]): string {
  const lines = [COLUMNS.map(([name]) => name).join(",")];
  for (const event of events) lines.push(COLUMNS.map(([, value]) => cell(value(event))).join(","));
  return `${lines.join("\r\n")}\r\n`;
}

export function jsonOf(events: readonly Event[]): string {
  return `[\n${events.map((event) => JSON.stringify(event)).join(",\n")}\n]\n`;
}

/** One cell. Text that a spreadsheet would take for a formula gets an apostrophe in front; numbers stay as they are. */
function cell(value: Cell): string {
  if (value === null || value === undefined) return "";
  if (typeof value !== "string") return String(value);
  const tame = /^[=+\-@\t\r\n＝＋－＠]/.test(value) ? `'${value}` : value;
  return /[",;\t\r\n]|^\s|\s$/.test(tame) ? `"${tame.replace(/"/g, '""')}"` : tame;
}

/** Such as `tinysight-events-20261125T123015Z.csv`. */
export function fileName(kind: "csv" | "json", at = new Date()): string {
  return `tinysight-events-${at.toISOString().replace(/[-:]|\.\d+/g, "")}.${kind}`;
}

/** Hand the reader a file that is made here. */
export function save(name: string, text: string, type: string): void {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  window.setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
