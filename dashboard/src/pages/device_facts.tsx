// Figures over time since the page was opened, and what the device is.
import type { ComponentChildren, JSX } from "preact";
import type { Device } from "../fleet";
import { Fact, clock, figure, short } from "../ui/bits";
import { Chart, type Line } from "../ui/chart";

const MOST_LINES = 12;

/** Columns whose names begin so, under what comes after. */
function linesOf(device: Device, begin: string): Line[] {
  const found: Line[] = [];
  for (const [name, values] of device.trend.columns) if (name.startsWith(begin)) found.push({ name: name.slice(begin.length), values });
  return found.slice(0, MOST_LINES);
}

export function Charts({ device }: { device: Device }): JSX.Element {
  const { at, columns } = device.trend;
  const one = (name: string, title: string): Line[] => {
    const values = columns.get(name);
    return values?.some((value) => value !== null) ? [{ name: title, values }] : [];
  };
  const charts: [string, string, Line[]][] = [
    ["Stages, p95", "ms", linesOf(device, "latency.").map((line) => ({ ...line, name: line.name.replace("age_at_publish", "age when sent") }))],
    ["Frames a second", "fps", linesOf(device, "fps.")],
    ["Frame age, p95", "ms", linesOf(device, "age.")],
    ["Processor", "%, 100 is one core", one("cpu", "agent")],
    ["Memory", "MiB", one("memory", "agent")],
    ["Temperature", "°C", one("temperature", "processor")],
    ["Events that wait", "in the outbox", one("waiting", "waiting")],
  ];
  return (
    <section class="card" aria-labelledby="figures">
      <h2 id="figures">Figures <span class="dim">{at.length < 2 ? "" : `since ${clock((at[0] ?? 0) * 1000)}`}</span></h2>
      {at.length < 2 ? <p class="dim">Curves begin with two reports; a report comes every 30 s. {at.length === 1 && `The newest is of ${clock(device.health?.at)}.`}</p> : (
        <div class="charts">
          {charts.filter(([, , lines]) => lines.length > 0).map(([title, unit, lines]) => <Chart key={title} title={title} unit={unit} at={at} lines={lines} height={120} />)}
        </div>
      )}
    </section>
  );
}

/** A record of the wire in words, such as `python 3.12.3, tinysight 0.8.0`. */
const listed = (of: Record<string, string | number> | undefined): string => Object.entries(of ?? {}).slice(0, 12).map(([name, value]) => `${name} ${value}`).join(", ") || "–";
const causes = (of: Record<string, number>): string => Object.entries(of).filter(([, count]) => count > 0).slice(0, 8).map(([cause, count]) => `${count} ${cause}`).join(", ");

function uptime(s: number | undefined): string {
  if (s === undefined) return "–";
  const [d, h, min] = [Math.floor(s / 86_400), Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60];
  return d > 0 ? `${d} d ${h} h` : h > 0 ? `${h} h ${min} min` : min > 0 ? `${min} min ${Math.floor(s % 60)} s` : `${Math.floor(s)} s`;
}

export function Facts({ device }: { device: Device }): JSX.Element {
  const { info, health, model } = device;
  const bundle = info?.bundle, broker = health?.broker;
  const discarded = causes(health?.outbox.discarded ?? {}), ended = causes(broker?.ended ?? {}), refused = causes(broker?.refused ?? {});
  const facts: [string, ComponentChildren][] = [
    ["Bundle", bundle ? <b>{bundle.name} {bundle.version}</b> : "–"],
    ["Release", bundle ? bundle.release : "–"],
    ["Digest", bundle ? <code title={bundle.digest}>{short(bundle.digest)}</code> : "–"],
    ["Scheme, task", bundle ? `${bundle.scheme}, ${bundle.task}` : "–"],
    ["Labels", bundle ? <span title={bundle.labels.slice(0, 100).join(", ")}>{bundle.labels.length}</span> : "–"],
    ["Model drift", model ? (model.drift === null || model.drift === undefined ? "no figure yet" : figure(model.drift, 2)) : "–"],
    ["Software", listed(info?.software)],
    ["Runtime", listed(info?.runtime)],
    ["Hardware", listed(info?.hardware)],
    ["Sends besides", info?.publishes?.join(", ") || "–"],
    ["Started", info ? clock(info.started_at, true) : "–"],
    ["Uptime", uptime(health?.uptime_s)],
    ["Boot", info ? <code>{info.boot_id}</code> : "–"],
    ["Disk free", health ? figure(health.disk_free_mib / 1024, 1, "GiB") : "–"],
    ["Memory", figure(health?.memory_mib, 0, "MiB")],
    ["Temperature", health ? (health.temperature_c === null ? "not offered" : figure(health.temperature_c, 0, "°C")) : "–"],
    ["Slowed down", health?.throttled === true ? "yes, for heat or want of power" : health?.throttled === false ? "no" : "not known"],
    ["Events", health ? `${health.outbox.last_seq} made, ${health.outbox.depth} waiting${discarded ? `, given up: ${discarded}` : ""}` : "–"],
    ["Broker sessions", broker ? `${broker.sessions}${ended ? `, ended: ${ended}` : ""}${refused ? `, refused: ${refused}` : ""}` : "–"],
    ["Reported", health ? clock(health.at, true) : "never"],
  ];
  return (
    <section class="card" aria-labelledby="facts">
      <h2 id="facts">What it is</h2>
      <dl class="facts">{facts.map(([name, value]) => <Fact key={name} name={name}>{value}</Fact>)}</dl>
    </section>
  );
}
