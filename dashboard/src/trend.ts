// A device's figures over time, from its health reports since the page was opened, in columns as uPlot draws them.
import type { Health } from "./contract";

const MOST = 720; // six hours at one report in 30 s

/** One column per figure; `null` where a report had none. All are as long as `at`. */
export class Trend {
  /** Seconds since 1970. */
  readonly at: number[] = [];
  /** `latency.STAGE` (p95 ms), `fps.CAMERA`, `age.CAMERA` (p95 ms), `temperature`, `cpu`, `memory`, `waiting`. */
  readonly columns = new Map<string, (number | null)[]>();

  add(health: Health): void {
    const at = Date.parse(health.at) / 1000;
    if (!Number.isFinite(at) || at <= (this.at[this.at.length - 1] ?? 0)) return; // sent again
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
      if (!column) this.columns.set(name, (column = new Array<number | null>(this.at.length - 1).fill(null)));
      column.push(value);
    }
    for (const column of this.columns.values()) if (column.length < this.at.length) column.push(null);
    if (this.at.length <= MOST) return;
    this.at.shift();
    for (const column of this.columns.values()) column.shift();
  }
}
