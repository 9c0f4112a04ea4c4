// A table of any length whose rows are all as high: only those in sight exist.
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

interface Props<T> {
  /** What it is, for who cannot see it. */
  label: string;
  /** Column heads; a narrow screen shows a row's cells as `rows.css` places them. */
  heads: readonly ComponentChildren[];
  /** By head: how the rows are sorted by it; missing where they cannot be. */
  sorts?: readonly ("ascending" | "descending" | "none" | undefined)[];
  rows: readonly T[];
  /** Pixels; the style sheet has to agree (`--row`). */
  height: number;
  keyOf: (row: T) => string | number;
  /** The cells of a row, each in a `<div role="cell">`. */
  draw: (row: T) => JSX.Element;
  /** Class of the whole, which places the columns. */
  class: string;
}

export function Rows<T>({ label, heads, sorts, rows, height, keyOf, draw, class: name }: Props<T>): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ top: 0, high: 800 });
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const look = (): void => setView({ top: element.scrollTop, high: element.clientHeight || 800 });
    look();
    const watch = new ResizeObserver(look);
    watch.observe(element);
    element.addEventListener("scroll", look, { passive: true });
    return () => {
      watch.disconnect();
      element.removeEventListener("scroll", look);
    };
  }, []);
  const top = Math.max(0, Math.min(view.top, rows.length * height - view.high)); // a list that became shorter tells only later where it is
  const first = Math.max(0, Math.floor(top / height) - 4);
  const last = Math.min(rows.length, Math.ceil((top + view.high) / height) + 4);
  return (
    <div class={`rows ${name}`} role="table" aria-label={label} aria-rowcount={rows.length + 1}>
      <div role="row" class="heads" aria-rowindex={1}>
        {heads.map((head, at) => (
          <div role="columnheader" key={at} aria-sort={sorts?.[at]}>{head}</div>
        ))}
      </div>
      <div class="scroll" ref={box} role="rowgroup" tabIndex={0} aria-label={`${label}, rows`}>
        <div role="presentation" style={{ height: `${first * height}px` }} />
        {rows.slice(first, last).map((row, at) => (
          <div role="row" class="row" key={keyOf(row)} aria-rowindex={first + at + 2} style={{ height: `${height}px` }}>
            {draw(row)}
          </div>
        ))}
        <div role="presentation" style={{ height: `${(rows.length - last) * height}px` }} />
      </div>
    </div>
  );
}
