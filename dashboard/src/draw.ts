// When the page is drawn: from the top, once for all that changed. The whole is cheap, since lists draw what is in sight.
import { useEffect, useState } from "preact/hooks";

/** A value of the page; setting another draws the page again. */
export interface Cell<T> {
  value: T;
}

let draw: (() => void) | null = null;
let asked = false;

export function cell<T>(first: T): Cell<T> {
  let now = first;
  return {
    get value(): T {
      return now;
    },
    set value(next: T) {
      if (Object.is(next, now)) return;
      now = next;
      redraw();
    },
  };
}

/** Draw the page again, with the next picture of the screen; not at all while nobody sees it. */
export function redraw(): void {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    draw?.();
  });
}

/** Of the one component at the top. */
export function useDrawn(): void {
  const [, turn] = useState(0);
  useEffect(() => {
    draw = () => turn((before) => before + 1);
    draw();
    return () => (draw = null);
  }, []);
}
