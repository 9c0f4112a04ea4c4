// Asking the fleet's server again and again, while somebody looks: slower after errors, not at all when hidden.
import { useEffect, useRef, useState } from "preact/hooks";
import type { Api } from "./api";

/** What the server said last, and how that goes on. */
export interface Polled<T> {
  value: T | null;
  /** Why the newest answer is missing; empty when it came. */
  why: string;
  /** In how many seconds it is asked again after an error. */
  again_s: number;
}

export const EVERY_MS = 3000;
const SLOWEST_MS = 60_000;
const running = new Set<() => void>();

/** Have everything on this page asked again at once, such as after something was done. */
export function pollNow(): void {
  for (const each of running) each();
}

/**
 * Ask every three seconds.
 *
 * @param api null while nobody may ask.
 * @param key what is asked for; another one begins anew, and forgets what was said.
 * @param ask asks for it.
 * @param every milliseconds until the next time, by what was said.
 */
export function usePoll<T>(api: Api | null, key: string, ask: (api: Api) => Promise<T>, every: (value: T) => number = () => EVERY_MS): Polled<T> {
  const [said, say] = useState<{ key: string; polled: Polled<T> }>({ key, polled: { value: null, why: "", again_s: 0 } });
  const newest = useRef({ ask, every });
  newest.current = { ask, every };
  useEffect(() => {
    if (!api) return;
    let timer = 0, ended = false, asking = false, failures = 0;
    let value: T | null = null;
    const turn = async (): Promise<void> => {
      window.clearTimeout(timer);
      if (ended || asking || document.hidden) return;
      asking = true;
      let wait = EVERY_MS, why = "";
      try {
        value = await newest.current.ask(api);
        failures = 0;
        wait = newest.current.every(value);
      } catch (error) {
        failures += 1;
        why = error instanceof Error ? error.message : String(error);
        wait = Math.min(SLOWEST_MS, EVERY_MS * 2 ** Math.min(failures, 6));
      }
      asking = false;
      if (ended) return;
      say({ key, polled: { value, why, again_s: why ? wait / 1000 : 0 } });
      timer = window.setTimeout(() => void turn(), wait);
    };
    const now = (): void => void turn();
    running.add(now);
    document.addEventListener("visibilitychange", now);
    now();
    return () => {
      ended = true;
      window.clearTimeout(timer);
      running.delete(now);
      document.removeEventListener("visibilitychange", now);
    };
  }, [api, key]);
  return said.key === key ? said.polled : { value: null, why: "", again_s: 0 };
}
