// Zones and lines as they are drawn: geometry, what is wrong with them, and what a change makes of a desired state.
// Pure; nothing here knows the page. Points are in 0..1 of the frame, y down, as in the contract.
import type { CameraInfo, Point, Reported } from "./contract";
import { ID } from "./contract";

export type ShapeKind = "zone" | "line";

/** A zone (3 to 64 points) or a line (its start and its end) that is being edited. */
export interface Shape {
  /** Of this page alone; stays when it is renamed. */
  uid: number;
  kind: ShapeKind;
  name: string;
  points: Point[];
  /** What counts; null when everything does. */
  labels: string[] | null;
}

export const FEWEST = 3;
export const MOST = 64;
/** As the device's own check. */
const MIN_AREA = 1e-6;
const DIGITS = 1e4;

let made = 0;
export const nextUid = (): number => (made += 1);

/** To 1/10,000 of the frame, less than a pixel of most. */
export const rounded = ([x, y]: Point): Point => [round(x), round(y)];
const round = (value: number): number => Math.min(1, Math.max(0, Math.round(value * DIGITS) / DIGITS));

/** So many zones and lines of a camera are edited here; what is beyond stays as it is on the device. */
export const MOST_SHAPES = 100;

/** What a camera has, by name; the first `MOST_SHAPES` of each kind. */
export function shapesOf(info: CameraInfo | undefined): Shape[] {
  const sorted = <T>(of: Record<string, T> | undefined): [string, T][] => Object.entries(of ?? {}).sort(([a], [b]) => (a < b ? -1 : 1)).slice(0, MOST_SHAPES);
  return [
    ...sorted(info?.zones).map(([name, { polygon, labels }]): Shape => ({ uid: nextUid(), kind: "zone", name, points: polygon, labels: labels ?? null })),
    ...sorted(info?.lines).map(([name, { start, end, labels }]): Shape => ({ uid: nextUid(), kind: "line", name, points: [start, end], labels: labels ?? null })),
  ];
}

/** Whether two are the same for the device. */
export const alike = (a: Shape, b: Shape): boolean => a.kind === b.kind && a.name === b.name && content(a) === content(b);
const content = ({ points, labels }: Shape): string => JSON.stringify([points, labels && [...labels].sort()]);

/** Whether two sets of them are, in any order. */
export const allAlike = (a: readonly Shape[], b: readonly Shape[]): boolean => a.length === b.length && a.every((one) => b.some((other) => alike(one, other)));

// --- what is wrong ---------------------------------------------------------------------------------------------------

/** Why a shape cannot be sent, or empty; by the rules that the device checks by. */
export function fault(shape: Shape, all: readonly Shape[]): string {
  const what = shape.kind === "zone" ? "zone" : "line";
  if (!ID.test(shape.name)) return "Its name must be 1 to 63 of a-z, 0-9 and -, and begin with a letter or a digit.";
  if (all.some((other) => other !== shape && other.kind === shape.kind && other.name === shape.name)) return `There is another ${what} of this name. Rename one of them.`;
  if (shape.labels?.length === 0) return "Nothing counts in it. Choose labels, or everything.";
  if (shape.points.some((point) => point.some((value) => !Number.isFinite(value) || value < 0 || value > 1))) return "A number is not in 0 to 1.";
  if (shape.kind === "zone") return polygonFault(shape.points);
  const [start, end] = shape.points;
  return start && end && !same(start, end) ? "" : "It ends where it starts. Give it two different ends.";
}

/** Why a polygon is none, or empty: the rules of the device in their order. */
export function polygonFault(polygon: readonly Point[]): string {
  const count = polygon.length;
  if (count < FEWEST) return `It has ${count} corners. It needs 3 at least.`;
  if (count > MOST) return `It has ${count} corners. It may have ${MOST}.`;
  const at = (number: number): Point => polygon[(number + count) % count] as Point;
  for (let n = 0; n < count; n += 1) if (same(at(n), at(n - 1))) return `Corner ${n + 1} is the same as the one before. Take it out.`;
  if (polygon.every((corner) => turn(at(0), at(1), corner) === 0)) return "It has no area. Give it corners that are not in one line.";
  for (let i = 0; i < count; i += 1) {
    for (let j = i + 1; j < count; j += 1) {
      const one: Edge = [at(i), at(i + 1)], other: Edge = [at(j), at(j + 1)];
      const neighbours = j - i === 1 || j - i === count - 1;
      if (neighbours ? folds(one, other) : meet(one, other)) return `Its edges ${i + 1}–${((i + 1) % count) + 1} and ${j + 1}–${((j + 1) % count) + 1} cross or touch. Move a corner.`;
    }
  }
  const area = polygon.reduce((sum, [x, y], n) => sum + x * at(n + 1)[1] - at(n + 1)[0] * y, 0) / 2;
  return Math.abs(area) < MIN_AREA ? "It has hardly any area. Make it larger." : "";
}

type Edge = [Point, Point];
const same = (a: Point, b: Point): boolean => a[0] === b[0] && a[1] === b[1];

/** Above zero when a → b → c turns one way, below the other, zero in a line. */
const turn = (a: Point, b: Point, c: Point): number => (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);

/** Whether c, in a line with a and b, lies between them. */
const on = (a: Point, b: Point, c: Point): boolean =>
  Math.min(a[0], b[0]) <= c[0] && c[0] <= Math.max(a[0], b[0]) && Math.min(a[1], b[1]) <= c[1] && c[1] <= Math.max(a[1], b[1]);

/** Whether two edges share a point. Source: Cormen et al., Introduction to Algorithms, 33.1. */
function meet([a, b]: Edge, [c, d]: Edge): boolean {
  const turns = [turn(c, d, a), turn(c, d, b), turn(a, b, c), turn(a, b, d)] as const;
  if (Math.sign(turns[0]) * Math.sign(turns[1]) < 0 && Math.sign(turns[2]) * Math.sign(turns[3]) < 0) return true;
  return (turns[0] === 0 && on(c, d, a)) || (turns[1] === 0 && on(c, d, b)) || (turns[2] === 0 && on(a, b, c)) || (turns[3] === 0 && on(a, b, d));
}

/** Whether two edges with a common corner lie upon each other. */
function folds(one: Edge, other: Edge): boolean {
  const corner = one.find((point) => other.some((each) => same(each, point)));
  const a = one.find((point) => corner && !same(point, corner)), b = other.find((point) => corner && !same(point, corner));
  if (!corner || !a || !b) return false;
  return turn(corner, a, b) === 0 && (a[0] - corner[0]) * (b[0] - corner[0]) + (a[1] - corner[1]) * (b[1] - corner[1]) > 0;
}

// --- where a pointer is ----------------------------------------------------------------------------------------------

/** Pixels of the picture on the screen. */
export interface Size {
  width: number;
  height: number;
}

/** What lies under a pointer: a corner, the middle of an edge (after which corner), or a whole shape. */
export type Hit = { kind: "corner" | "edge" | "shape"; shape: Shape; at: number };

export const apart = (a: Point, b: Point, { width, height }: Size): number => Math.hypot((a[0] - b[0]) * width, (a[1] - b[1]) * height);
export const middle = (a: Point, b: Point): Point => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];

/** Of the chosen shape corners and edges are found, of the others the whole; within so many pixels. */
export function hit(shapes: readonly Shape[], chosen: Shape | undefined, point: Point, size: Size, reach: number): Hit | null {
  if (chosen) {
    const near = (points: Point[]): number => {
      const far = points.map((each) => apart(each, point, size)), least = Math.min(...far);
      return least <= reach ? far.indexOf(least) : -1;
    };
    const corner = near(chosen.points);
    if (corner >= 0) return { kind: "corner", shape: chosen, at: corner };
    const edge = chosen.kind === "zone" && chosen.points.length < MOST ? near(middles(chosen.points)) : -1;
    if (edge >= 0) return { kind: "edge", shape: chosen, at: edge };
  }
  const found = [...(chosen ? [chosen] : []), ...shapes.filter((shape) => shape.kind === "line"), ...shapes.filter((shape) => shape.kind === "zone")].find((shape) =>
    shape.kind === "zone" ? inside(shape.points, point) : fromLine(shape.points, point, size) <= reach,
  );
  return found ? { kind: "shape", shape: found, at: -1 } : null;
}

export const middles = (points: readonly Point[]): Point[] => points.map((each, n) => middle(each, points[(n + 1) % points.length] as Point));

function inside(polygon: readonly Point[], [x, y]: Point): boolean {
  let is = false;
  polygon.forEach(([x1, y1], n) => {
    const [x2, y2] = polygon[(n + 1) % polygon.length] as Point;
    if (y1 > y !== y2 > y && x < x1 + ((y - y1) / (y2 - y1)) * (x2 - x1)) is = !is;
  });
  return is;
}

function fromLine(points: readonly Point[], point: Point, size: Size): number {
  const [start, end] = points;
  if (!start || !end) return Infinity;
  const dx = (end[0] - start[0]) * size.width, dy = (end[1] - start[1]) * size.height;
  const along = ((point[0] - start[0]) * size.width * dx + (point[1] - start[1]) * size.height * dy) / (dx * dx + dy * dy || 1);
  const t = Math.min(1, Math.max(0, along));
  return apart([start[0] + (end[0] - start[0]) * t, start[1] + (end[1] - start[1]) * t], point, size);
}

/** The arrow of a line: from its middle to where `in` is, its right side seen from start to end, as long as a part of the picture's width. */
export function arrowOf([start, end]: readonly Point[], { width, height }: Size, share = 0.06): { from: Point; tip: Point; barbs: [Point, Point] } | null {
  if (!start || !end) return null;
  const dx = (end[0] - start[0]) * width, dy = (end[1] - start[1]) * height, long = Math.hypot(dx, dy);
  if (long === 0) return null;
  const [rx, ry] = [-dy / long, dx / long], reach = share * width; // y points down
  const from = middle(start, end);
  const to = (along: number, beside: number): Point => [from[0] + (rx * along - ry * beside) / width, from[1] + (ry * along + rx * beside) / height];
  return { from, tip: to(reach, 0), barbs: [to(reach * 0.7, reach * 0.25), to(reach * 0.7, -reach * 0.25)] };
}

/** Moved as a whole, no further than it stays in the frame. */
export function moved(points: readonly Point[], [dx, dy]: Point): Point[] {
  const held = (axis: 0 | 1, by: number): number => {
    const values = points.map((point) => point[axis]);
    return Math.min(1 - Math.max(...values), Math.max(-Math.min(...values), by));
  };
  const x = held(0, dx), y = held(1, dy);
  return points.map((point) => rounded([point[0] + x, point[1] + y]));
}

// --- what a change makes of it ---------------------------------------------------------------------------------------

/** One thing that changes, for people. */
export interface Change {
  kind: ShapeKind;
  name: string;
  what: string;
}

/** What `now` has other than `base`. */
export function changes(base: readonly Shape[], now: readonly Shape[]): Change[] {
  const found: Change[] = [];
  for (const shape of now) {
    const old = base.find((each) => each.uid === shape.uid);
    const told: string[] = [];
    if (!old) told.push(shape.kind === "zone" ? `new, ${shape.points.length} corners` : "new");
    if (old && old.name !== shape.name) told.push(`is called so instead of ${old.name}`);
    if (old && JSON.stringify(old.points) !== JSON.stringify(shape.points)) told.push(shape.kind === "zone" ? `drawn anew, ${shape.points.length} corners` : "moved");
    if (content({ ...shape, points: [] }) !== content({ ...(old ?? { ...shape, labels: null }), points: [] })) told.push(shape.labels ? `counts only ${shape.labels.join(", ")}` : "counts everything");
    if (told.length > 0) found.push({ kind: shape.kind, name: shape.name, what: told.join("; ") });
  }
  for (const old of base) if (!now.some((each) => each.uid === old.uid)) found.push({ kind: old.kind, name: old.name, what: "taken out" });
  return found;
}

type Table = Record<string, unknown>;
const table = (value: unknown): Table => (typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Table) : {});
const own = (of: Table, key: string): unknown => (Object.hasOwn(of, key) ? of[key] : undefined);

/**
 * The `config` of a desired state with a camera's changes in it; all else in it stays.
 *
 * What is taken out is null, since the device's own file may define it; a device without one passes over that. Other
 * settings of a zone, such as `inertia`, stay as the old `config` says, or as the file does.
 */
export function mergedConfig(config: Table | null | undefined, camera: string, base: readonly Shape[], now: readonly Shape[]): Table {
  const out = { ...table(config) }, cameras = { ...table(own(out, "cameras")) }, of = { ...table(own(cameras, camera)) };
  for (const kind of ["zone", "line"] as const) {
    const before = table(own(of, `${kind}s`)), after = { ...before };
    for (const old of base) if (old.kind === kind && !now.some((each) => each.kind === kind && each.name === old.name)) after[old.name] = null;
    for (const shape of now) {
      const old = base.find((each) => each.uid === shape.uid);
      if (shape.kind !== kind || (old && alike(old, shape))) continue;
      after[shape.name] = { ...table(own(before, old?.name ?? shape.name)), ...asConfig(shape) };
    }
    if (Object.keys(after).length > 0) of[`${kind}s`] = after;
  }
  cameras[camera] = of;
  return { ...out, cameras };
}

/** `labels` is always said: null, for everything, takes out what the file may say. */
function asConfig({ kind, points, labels }: Shape): Table {
  const [start, end] = points;
  return kind === "zone" ? { polygon: points, labels } : { start, end, labels };
}

/** What was changed here, over what stands there now: where nobody changed a shape here, what stands there counts. */
export function rebased(base: readonly Shape[], now: readonly Shape[], fresh: readonly Shape[]): { base: Shape[]; now: Shape[] } {
  const named = (of: readonly Shape[], { kind, name }: Shape): Shape | undefined => of.find((each) => each.kind === kind && each.name === name);
  const anew = fresh.map((shape) => ({ ...shape, uid: named(base, shape)?.uid ?? shape.uid }));
  const kept = now.filter((shape) => {
    const old = base.find((each) => each.uid === shape.uid);
    return !old || !alike(old, shape);
  });
  const gone = base.filter((old) => !now.some((each) => each.uid === old.uid));
  const left = anew.filter((shape) => !kept.some((each) => each.uid === shape.uid || (each.kind === shape.kind && each.name === shape.name)) && !gone.some((old) => old.uid === shape.uid));
  const mine = kept.map((shape) => ({ ...shape, uid: named(anew, shape)?.uid ?? shape.uid }));
  return { base: anew, now: [...left, ...mine].sort((a, b) => (a.kind === b.kind ? (a.name < b.name ? -1 : 1) : a.kind === "zone" ? -1 : 1)) };
}

/** A name that is free: `zone-1`, `line-2`. */
export function freeName(kind: ShapeKind, all: readonly Shape[]): string {
  for (let number = 1; ; number += 1) {
    const name = `${kind}-${number}`;
    if (!all.some((each) => each.kind === kind && each.name === name)) return name;
  }
}

// --- what the device makes of it ---------------------------------------------------------------------------------------

/** How far a change is, in one word; `passed` when something newer is wanted. */
export type Fate = "sent" | "waiting" | "trial" | "holds" | "refused" | "rolled-back" | "passed";

/** What the device has made of a revision. */
export function fateOf(reported: Reported | null, revision: number): Fate {
  if (!reported || reported.revision < revision) return "sent";
  if (reported.revision > revision) return "passed";
  const { state } = reported;
  if (state === "trial") return state;
  if (state === "applied" || state === "none") return "holds";
  return reported.applied === revision ? "holds" : state; // the worse of two parts is told; the other part is the bundle
}
