// Pages whose words grow old ("12 s ago", events a second) are drawn again now and then, even when nothing comes.
import { useEffect } from "preact/hooks";
import { redraw } from "./draw";

export function useTick(every_ms = 5000): void {
  useEffect(() => {
    const timer = window.setInterval(redraw, every_ms);
    return () => window.clearInterval(timer);
  }, [every_ms]);
}
