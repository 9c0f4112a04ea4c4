// The rules of a rollout as people write them, such as `1,5%,25%,100%` and `30m`, read as the command line reads them.
import type { PolicyGiven, Stage, StageGiven } from "./fleet_types";

/** What stands in the form; all of it text. */
export interface Written {
  stages: string;
  soak: string;
  failures: string;
  confirmed: string;
  hold: string;
  latency: string;
  agreement: string;
  drift: string;
  deadline: string;
  window: string;
  rate: string;
  atOnce: string;
}

export const USUAL: Written = {
  stages: "1,5%,25%,100%", soak: "30m", failures: "2%", confirmed: "95%", hold: "", latency: "20%", agreement: "none", drift: "none",
  deadline: "1h", window: "", rate: "600", atOnce: "1000",
};

/** A mistake in one field: what is wrong, and how it is written. */
export class Mistake extends Error {
  constructor(
    readonly field: keyof Written,
    text: string,
  ) {
    super(text);
  }
}

const SECONDS: Readonly<Record<string, number>> = { ms: 0.001, s: 1, m: 60, min: 60, h: 3600, d: 86_400 };

function seconds(field: keyof Written, text: string): number {
  const found = /^(\d{1,12}(?:\.\d{1,9})?) ?(ms|s|min|m|h|d)$/.exec(text.trim());
  if (!found) throw new Mistake(field, `“${text}” is no time. Write it with its unit: 90s, 30m, 1h or 2d.`);
  return Number(found[1]) * (SECONDS[found[2] ?? ""] ?? 1);
}

function share(field: keyof Written, text: string, unit = "%", most = 100): number | null {
  if (text.trim() === "none") return null;
  const number = text.trim().endsWith(unit) ? text.trim().slice(0, -unit.length).trim() : "";
  const value = /^\d{1,6}(\.\d{1,6})?$/.test(number) ? Number(number) : NaN;
  if (!(value <= most)) throw new Mistake(field, `“${text}” cannot be. Write 0${unit} to ${most}${unit}, or none.`);
  return value / 100;
}

function count(field: keyof Written, text: string): number {
  const value = /^\d{1,6}$/.test(text.trim()) ? Number(text) : 0;
  if (value < 1 || value > 100_000) throw new Mistake(field, `“${text}” cannot be. Write 1 to 100000.`);
  return value;
}

/** `1,5%` as it is sent. */
export function stagesOf(text: string): StageGiven[] {
  const stages = text.split(",").map((each): StageGiven => {
    const found = /^(?:(\d{1,6})|(\d{1,3}(?:\.\d{1,3})?)%)$/.exec(each.trim());
    const value = Number(found?.[1] ?? found?.[2] ?? 0);
    if (!found || value <= 0 || (found[2] && value > 100)) throw new Mistake("stages", `“${each.trim()}” is no stage. Write numbers or shares, such as 1,5%,25%,100%.`);
    return found[1] ? { count: value } : { share: value / 100 };
  });
  if (stages[stages.length - 1]?.share !== 1 || stages.length > 20) throw new Mistake("stages", "End with 100%; at most 20 stages are taken.");
  return stages;
}

/** A stage as it is written. */
export function stageText({ count, share }: Stage | StageGiven): string {
  return typeof share === "number" ? `${Number((share * 100).toPrecision(10))}%` : String(count ?? "?");
}

/** The rules; a `Mistake` says which field cannot be, and how it is written. */
export function policyOf(written: Written): PolicyGiven {
  const stages = stagesOf(written.stages), names = stages.map(stageText);
  const hold = written.hold.split(",").map((each) => each.trim()).filter(Boolean).map((each) => {
    const at = names.indexOf(each);
    if (at < 0) throw new Mistake("hold", `There is no stage ${each}. Name some of: ${names.join(", ")}.`);
    return at;
  });
  const drift = written.drift.trim() === "none" ? null : Number(written.drift.trim() || NaN);
  if (drift !== null && !(drift >= 0 && drift <= 1)) throw new Mistake("drift", `“${written.drift}” cannot be. Write 0 to 1, such as 0.4, or none.`);
  return {
    stages,
    soak_s: seconds("soak", written.soak),
    max_failures: share("failures", written.failures) ?? 1,
    min_confirmed: share("confirmed", written.confirmed) ?? 0,
    max_latency_regression: share("latency", written.latency, "%", 10_000),
    max_agreement_drop: share("agreement", written.agreement, "pt"),
    max_drift: drift,
    deadline_s: seconds("deadline", written.deadline),
    window: written.window.trim() || null,
    per_min: count("rate", written.rate),
    at_once: count("atOnce", written.atOnce),
    hold,
  };
}

/** A time for people, in its two largest units: `1 h 5 min`. */
export function span(s: number): string {
  let left = Math.max(0, Math.round(s));
  const parts: string[] = [];
  for (const [unit, size] of [["d", 86_400], ["h", 3600], ["min", 60], ["s", 1]] as const) {
    const many = Math.floor(left / size);
    left -= many * size;
    if (many) parts.push(`${many} ${unit}`);
    else if (parts.length) break;
  }
  return parts.slice(0, 2).join(" ") || "0 s";
}

/** Bytes for people: `235.5 kB`. */
export function bytes(count: number): string {
  const at = count < 1000 ? 0 : Math.min(4, Math.floor(Math.log10(count) / 3));
  return `${(count / 1000 ** at).toFixed(at ? 1 : 0)} ${["B", "kB", "MB", "GB", "TB"][at]}`;
}
