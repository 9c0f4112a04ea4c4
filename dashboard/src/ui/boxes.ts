// Boxes of what is seen, painted on a canvas. In: a camera as the fleet knows it.  Out: pixels; nothing is kept here.
import type { Box } from "../contract";
import type { Camera } from "../fleet";

/** One object as it is painted. */
export interface Mark {
  label: string;
  classId: number;
  score: number;
  box: Box;
  /** 1: told just now; less: not heard of for a while. */
  strength: number;
  /** Whether events tell of it; not yet in its first frames. */
  followed: boolean;
}

export interface Marks {
  /** Of every frame, or of the newest event of each object that is there; `none` when there is nothing. */
  source: "frame" | "events" | "none";
  marks: Mark[];
  /** Frame's capture or the newest event's, as the device tells it; changes with what is painted. */
  seenAt: string;
}

/** Detections of frames count as live for so long; then events are all there is. */
export const LIVE_MS = 2000;
/** Objects are told of once a minute at least; what was not is no longer painted. */
export const GONE_MS = 90_000;
const FADE_FROM_MS = 3000;
const FAINTEST = 0.35;
const MOST = 300;
const MOST_LABELS = 80;
const LONGEST = 28;
/** Of a chip, pixels: what is not text, and how narrow it may be. */
const PAD = 14;
const LEAST_CHIP = 96;

/** What is to be painted now. */
export function marksOf(camera: Camera, now: number): Marks {
  const heard = camera.frame;
  if (heard && now - heard.at < LIVE_MS) {
    const marks = heard.frame.detections.slice(0, MOST).map((each): Mark => (
      { label: each.label, classId: each.class_id, score: each.score, box: each.box, strength: 1, followed: each.track_id !== null }
    ));
    return { source: "frame", marks, seenAt: heard.frame.seen_at };
  }
  const marks: Mark[] = [];
  let seenAt = "";
  for (const { event, at } of camera.present.values()) {
    const age = now - at;
    if (age > GONE_MS || marks.length >= MOST) continue;
    const faded = Math.max(0, age - FADE_FROM_MS) / (GONE_MS - FADE_FROM_MS);
    marks.push({ label: event.label, classId: event.class_id, score: event.score, box: event.box, strength: 1 - faded * (1 - FAINTEST), followed: true });
    if (event.seen_at > seenAt) seenAt = event.seen_at;
  }
  return { source: marks.length > 0 ? "events" : "none", marks, seenAt };
}

/** The frame's size in pixels, from whatever tells it; 16 to 9 while nothing does. */
export function frameSize(camera: Camera, told: { width: number; height: number } | undefined): { width: number; height: number } {
  if (camera.frame) return camera.frame.frame.frame;
  if (told && told.width > 0 && told.height > 0) return told;
  for (const { event } of camera.present.values()) return event.frame;
  return { width: 16, height: 9 };
}

/** Paint them; `colours` are told apart by class, and readable on `dark`. Sizes are in CSS pixels. */
export function paint(to: CanvasRenderingContext2D, width: number, height: number, marks: readonly Mark[], colours: readonly string[], dark: string): void {
  to.clearRect(0, 0, width, height);
  to.font = "600 12px system-ui, sans-serif";
  to.textBaseline = "middle";
  to.lineJoin = "round";
  const last = [...marks].reverse(); // the surest on top of the others, labels on top of all boxes
  for (const mark of last) {
    const [x1, y1, x2, y2] = mark.box;
    const x = x1 * width, y = y1 * height, wide = (x2 - x1) * width, high = (y2 - y1) * height;
    to.globalAlpha = mark.strength;
    to.setLineDash([]);
    to.strokeStyle = dark;
    to.lineWidth = 4;
    to.strokeRect(x, y, wide, high);
    to.strokeStyle = colourOf(mark, colours);
    to.lineWidth = 2;
    to.setLineDash(mark.followed ? [] : [5, 4]);
    to.strokeRect(x, y, wide, high);
  }
  for (const mark of last.slice(-MOST_LABELS)) {
    to.globalAlpha = mark.strength;
    const [x1, y1, x2] = mark.box;
    chip(to, mark, x1 * width, y1 * height, (x2 - x1) * width, width, colourOf(mark, colours), dark);
  }
  to.globalAlpha = 1;
}

const colourOf = (mark: Mark, colours: readonly string[]): string => colours[Math.abs(mark.classId) % colours.length] ?? "white";

/** The label in a chip as wide as the box, above it or within when there is no room; never outside of the picture. */
function chip(to: CanvasRenderingContext2D, mark: Mark, x: number, y: number, boxWide: number, width: number, colour: string, dark: string): void {
  const text = fitted(to, mark.label, ` ${Math.round(mark.score * 100)}%`, Math.min(width, Math.max(boxWide, LEAST_CHIP)) - PAD);
  const wide = to.measureText(text).width + PAD, high = 18;
  const left = Math.max(0, Math.min(x - 2, width - wide)), top = y - high - 2 >= 0 ? y - high - 2 : Math.max(0, y);
  to.fillStyle = dark;
  to.fillRect(left, top, wide, high);
  to.fillStyle = colour;
  to.fillRect(left, top, 3, high);
  to.fillText(text, left + 8, top + high / 2 + 1);
}

/** As much of a label as there is room for, and all of its score. */
function fitted(to: CanvasRenderingContext2D, label: string, score: string, room: number): string {
  let keep = Math.min(label.length, LONGEST);
  const text = (): string => (keep < label.length ? `${label.slice(0, keep)}…${score}` : label + score);
  while (keep > 1 && to.measureText(text()).width > room) keep -= Math.ceil(keep / 8);
  return text();
}
