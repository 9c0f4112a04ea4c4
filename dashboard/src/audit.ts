// The entries of the audit log that tell of one rollout, found without reading the whole log.
import type { Api } from "./api";
import type { Audit, Entry } from "./fleet_types";
import { span } from "./policy";

/** One entry, for people. */
export interface Line {
  seq: number;
  at: string;
  who: string;
  what: string;
  told: string;
}

const PAGE = 1000;
const PAGES_AT_ONCE = 10;
const MOST = 2000;
/** Clocks of the machines that write the log may differ by so much. */
const MARGIN_MS = 600_000;

/** Reads on from where it was, at each call. */
export class AuditOf {
  /** Newest first. */
  private lines: Line[] = [];
  private after = -1;

  constructor(
    private readonly rollout: string,
    private readonly begunAt: string,
  ) {}

  async more(api: Api): Promise<Line[]> {
    if (this.after < 0) this.after = await begin(api, Date.parse(this.begunAt) - MARGIN_MS);
    for (let page = 0; page < PAGES_AT_ONCE; page += 1) {
      const { items, next } = await api.get<Audit>(`/v1/audit?after=${this.after}&most=${PAGE}`);
      const mine = items.filter((entry) => isOf(entry, this.rollout)).map(lineOf);
      if (mine.length) this.lines = [...mine.reverse(), ...this.lines].slice(0, MOST);
      this.after = items[items.length - 1]?.seq ?? this.after;
      if (next === null) break;
    }
    return this.lines;
  }
}

/** The number of an entry before the first that was written at this time or later, at most a page before it. */
async function begin(api: Api, at: number): Promise<number> {
  const isBefore = async (after: number): Promise<boolean> => {
    const entry = (await api.get<Audit>(`/v1/audit?after=${after}&most=1`)).items[0];
    return entry !== undefined && Date.parse(entry.at) < at;
  };
  let low = 0, step = PAGE;
  while (await isBefore(low + step)) {
    low += step;
    step *= 2;
  }
  for (; step > PAGE; step /= 2) if (await isBefore(low + step / 2)) low += step / 2;
  return low;
}

type Detail = Record<string, unknown>;
const inside = (value: unknown): Detail => (typeof value === "object" && value !== null ? (value as Detail) : {});
const listOf = (value: unknown): Detail[] => (Array.isArray(value) ? value.map(inside) : []);

function isOf({ detail }: Entry, rollout: string): boolean {
  return detail["rollout"] === rollout || inside(detail["begun"])["id"] === rollout;
}

function lineOf({ seq, at, who, what, detail }: Entry): Line {
  return { seq, at, who, what, told: told(what, detail).slice(0, 2000) };
}

function named(devices: readonly Detail[]): string {
  const names = devices.slice(0, 3).map((each) => `${String(each["site"])}/${String(each["device"])}`);
  return `${devices.length} device${devices.length === 1 ? "" : "s"}: ${names.join(", ")}${devices.length > 3 ? ", …" : ""}`;
}

function told(what: string, detail: Detail): string {
  const set = inside(detail["set"]);
  const reason = [detail["reason"], set["reason"]].find((each): each is string => typeof each === "string" && each !== "");
  if (what === "begin") return `${String(inside(detail["begun"])["target"])} to ${String(inside(detail["begun"])["group"])}`;
  if (what === "ask") return named(listOf(detail["wishes"]));
  if (what === "settle") {
    const failing = listOf(detail["failing"]), boxes = listOf(detail["boxes"]);
    return [failing.length ? `failing: ${named(failing)}` : "", boxes.length ? `penalty box: ${named(boxes)}` : ""].filter(Boolean).join("; ");
  }
  if (reason !== undefined) return reason;
  if (what === "soak") return typeof set["soaked_from_s"] === "number" ? `the watch began after ${span(set["soaked_from_s"])}` : "the watch ended";
  if (typeof set["stage"] === "number") return `stage ${set["stage"]}`;
  return "";
}
