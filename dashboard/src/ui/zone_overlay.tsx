// What is drawn over the picture while zones are edited, and what a pointer or the arrow keys do there.
import type { JSX } from "preact";
import { useRef } from "preact/hooks";
import type { Point } from "../contract";
import { redraw } from "../draw";
import type { Draft } from "../zone_draft";
import { type Shape, type Size, apart, arrowOf, hit, middles, moved } from "../zones";
import { pointOf } from "./stage";

const REACH = { mouse: 10, touch: 24 };
/** So near to the border it is meant, in pixels. */
const BORDER = 5;
const STILL = 6;
const NUDGE = 0.01;

/** What a pointer that is down does. */
type Gesture = { id: number; from: Point; moved: boolean } & ({ kind: "corner"; uid: number; at: number } | { kind: "shape"; uid: number; points: Point[] } | { kind: "place" } | { kind: "line" });

function sizeOf(event: PointerEvent): Size {
  const { width, height } = (event.currentTarget as Element).getBoundingClientRect();
  return { width: width || 1, height: height || 1 };
}

/** Where it is in the frame; at the border where it is near to it. */
function spot(event: PointerEvent): Point {
  const size = sizeOf(event), [x, y] = pointOf(event);
  const near = (value: number, pixels: number): number => (value * pixels < BORDER ? 0 : (1 - value) * pixels < BORDER ? 1 : value);
  return [near(x, size.width), near(y, size.height)];
}

const path = (points: readonly Point[]): string => points.map((point) => point.join(",")).join(" ");

/** SVG in 0..1 of the frame; `frame` is its size in pixels, for arrows that stand straight. */
export function ZoneOverlay({ draft, frame }: { draft: Draft; frame: Size }): JSX.Element {
  const gesture = useRef<Gesture | null>(null);
  const { drawing, shape, faults } = draft;

  const down = (event: PointerEvent): void => {
    if (event.button !== 0 || gesture.current) return;
    const point = spot(event), size = sizeOf(event), reach = event.pointerType === "touch" ? REACH.touch : REACH.mouse;
    const begun = { id: event.pointerId, from: point, moved: false };
    (event.currentTarget as Element).setPointerCapture(event.pointerId);
    if (drawing) {
      const { points, kind } = drawing, first = points[0], last = points.at(-1);
      if (kind === "zone" && first && points.length >= 3 && apart(first, point, size) <= reach) return draft.close();
      if (last && apart(last, point, size) <= STILL) return kind === "zone" && points.length >= 3 ? draft.close() : undefined; // the second of a double click
      draft.corners(point);
      gesture.current = { ...begun, kind: kind === "zone" ? "place" : "line" };
      return;
    }
    const found = hit(draft.now, shape, point, size, reach);
    if (!found) return draft.choose(0);
    const { uid, points } = found.shape;
    if (found.kind === "edge") {
      draft.insert(uid, found.at, point);
      gesture.current = { ...begun, kind: "corner", uid, at: found.at + 1, moved: true };
      return;
    }
    draft.choose(uid, found.at);
    gesture.current = found.kind === "corner" ? { ...begun, kind: "corner", uid, at: found.at } : { ...begun, kind: "shape", uid, points };
  };

  const move = (event: PointerEvent): void => {
    const now = gesture.current, point = spot(event);
    if (!now) {
      if (draft.drawing && event.pointerType !== "touch") draft.drawing.loose = point, redraw();
      return;
    }
    if (event.pointerId !== now.id || (!now.moved && apart(now.from, point, sizeOf(event)) < STILL)) return;
    if (!now.moved && (now.kind === "corner" || now.kind === "shape")) draft.step();
    now.moved = true;
    if (now.kind === "corner") draft.put(now.uid, now.at, point);
    else if (now.kind === "shape") draft.set(now.uid, { points: moved(now.points, [point[0] - now.from[0], point[1] - now.from[1]]) });
    else if (now.kind === "place") draft.place(point);
    else if (draft.drawing) draft.drawing.loose = point, redraw();
  };

  const up = (event: PointerEvent): void => {
    const now = gesture.current;
    if (!now || event.pointerId !== now.id) return;
    gesture.current = null;
    if (now.kind === "line" && now.moved && event.type === "pointerup") draft.corners(spot(event));
  };

  const key = (event: KeyboardEvent): void => {
    const steps: Record<string, Point> = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const step = steps[event.key], far = event.shiftKey ? NUDGE / 10 : NUDGE;
    const corner = shape?.points[draft.corner];
    if (!shape || drawing) return;
    if (event.key === "Delete" || event.key === "Backspace") {
      if (corner && shape.kind === "zone" && shape.points.length > 3) draft.cut(shape.uid, draft.corner);
      else draft.remove(shape.uid);
    } else if (step) {
      const by: Point = [step[0] * far, step[1] * far];
      draft.step();
      if (corner) draft.put(shape.uid, draft.corner, [corner[0] + by[0], corner[1] + by[1]]);
      else draft.set(shape.uid, { points: moved(shape.points, by) });
    } else return;
    event.preventDefault();
  };

  return (
    <g class={`zones${drawing ? " drawing" : ""}`} tabindex={0} role="application" onKeyDown={key}
      aria-label="Zones and lines over the picture. Arrow keys move what is chosen, Delete takes it out; the form does the same by numbers.">
      {draft.now.map((each) => <ShapeOver key={each.uid} shape={each} chosen={each === shape} wrong={faults.has(each.uid)} frame={frame} />)}
      {shape && !drawing && <Handles shape={shape} corner={draft.corner} />}
      {drawing && <polyline class="back" points={path([...drawing.points, ...(drawing.loose ? [drawing.loose] : [])])} />}
      {drawing && <polyline class="fresh" points={path([...drawing.points, ...(drawing.loose ? [drawing.loose] : [])])} />}
      {drawing?.points.map((point, n) => <Dot key={n} at={point} kind={n === 0 && drawing.points.length >= 3 ? "first" : "corner"} />)}
      <rect class="ground" x={0} y={0} width={1} height={1} onPointerDown={down} onPointerMove={move} onPointerUp={up} onPointerCancel={up} />
    </g>
  );
}

function ShapeOver({ shape, chosen, wrong, frame }: { shape: Shape; chosen: boolean; wrong: boolean; frame: Size }): JSX.Element {
  const { kind, points } = shape, state = `${chosen ? " chosen" : ""}${wrong ? " wrong" : ""}`;
  const arrow = kind === "line" ? arrowOf(points, frame) : null;
  const [start, end] = points;
  if (kind === "zone" || !start || !end) return <><polygon class="back" points={path(points)} /><polygon class={`zone${state}`} points={path(points)} /></>;
  const lines = path([start, end]), head = arrow && [path([arrow.from, arrow.tip]), path([arrow.barbs[0], arrow.tip, arrow.barbs[1]])];
  return (
    <>
      {["back", `line${state}`].map((look) => (
        <g key={look}>
          <polyline class={look} points={lines} />
          {head?.map((part) => <polyline key={part} class={look} points={part} />)}
        </g>
      ))}
    </>
  );
}

function Handles({ shape: { kind, points }, corner }: { shape: Shape; corner: number }): JSX.Element {
  return (
    <>
      {kind === "zone" && middles(points).map((point, n) => <Dot key={`m${n}`} at={point} kind="middle" />)}
      {points.map((point, n) => <Dot key={n} at={point} kind={n === corner ? "corner now" : "corner"} />)}
    </>
  );
}

/** A round dot is a line of no length: it stays round in a picture that is no square. */
function Dot({ at: [x, y], kind }: { at: Point; kind: string }): JSX.Element {
  return (
    <>
      <line class={`dot rim ${kind}`} x1={x} x2={x} y1={y} y2={y} />
      <line class={`dot ${kind}`} x1={x} x2={x} y1={y} y2={y} />
    </>
  );
}

/** The names over the picture, and the numbers of the chosen one's corners, as in the form. */
export function ZoneNames({ draft, frame }: { draft: Draft; frame: Size }): JSX.Element {
  const put = ([x, y]: Point): { left: string; top: string } => ({ left: `${x * 100}%`, top: `${y * 100}%` });
  return (
    <>
      {draft.now.map(({ uid, kind, name, points }) => {
        if (kind === "zone") {
          const top = points.reduce((best, point) => (point[1] < best[1] ? point : best), points[0] ?? [0, 0]);
          return <span key={uid} class="name zone" style={put([Math.min(0.9, top[0]), Math.min(0.92, top[1])])}>{name}</span>;
        }
        const right = arrowOf(points, frame, 0.085), left = arrowOf(points, frame, -0.05);
        return right && left && <span key={uid}><span class="name line" style={put(left.tip)}>{name}</span><span class="name line" style={put(right.tip)}>in</span></span>;
      })}
      {draft.shape?.points.map((point, n) => (
        <span key={`n${n}`} class={`zone-number${point[0] < 0.1 ? " right" : ""}${point[1] < 0.07 ? " below" : ""}`} style={put(point)}>{draft.shape?.kind === "line" ? ["start", "end"][n] : n + 1}</span>
      ))}
    </>
  );
}
