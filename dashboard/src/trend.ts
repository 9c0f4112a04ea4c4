// A device's figures over time, from its health reports since the page was opened, in columns as uPlot draws them.
import type { Health } from "./contract";

const MOST = 240; // two hours at one report in 30 s
/** Names come from the device. */
const MOST_COLUMNS = 160;
/** A clock that goes back by more was set. */
const SET_S = 60;

/** One column per figure; `null` where a report had none. All are as long as `at`. */
export class Trend {
  /** Seconds since 1970. */
  readonly at: number[] = [];
  /** `latency.STAGE` (p95 ms), `fps.CAMERA`, `age.CAMERA` (p95 ms), `temperature`, `cpu`, `memory`, `waiting`. */
  readonly columns = new Map<string, (number | null)[]>();

  add(health: Health): void {
    const at = Date.parse(health.at) / 1000, last = this.at[this.at.length - 1] ?? 0;
    if (at < last - SET_S) {
      this.at.length = 0;
      this.columns.clear();
    } else if (!(at > last)) return; // sent again, or no time
    this.at.push(at);
    const told = new Map<string, number | null>([
      ["temperature", health.temperature_c], ["cpu", health.cpu_percent], ["memory", health.memory_mib], ["waiting", health.outbox.depth],
    ]);
    for (const [stage, took] of Object.entries(health.latency_ms).slice(0, 20)) told.set(`latency.${stage}`, took.p95);
    for (const [id, camera] of Object.entries(health.cameras).slice(0, 64)) {
      told.set(`fps.${id}`, camera.fps);
      told.set(`age.${id}`, camera.frame_age_ms.p95);
    }
    for (const [name, value] of told) {
      let column = this.columns.get(name);
      if (!column && this.columns.size >= MOST_COLUMNS) continue;
      if (!column) this.columns.set(name, (column = new Array<number | null>(this.at.length - 1).fill(null)));
      column.push(value);
    }
    for (const column of this.columns.values()) if (column.length < this.at.length) column.push(null);
    if (this.at.length <= MOST) return;
    this.at.shift();
    for (const [name, column] of this.columns) {
      column.shift();
      if (column.every((each) => each === null)) this.columns.delete(name);
    }
  }
}
