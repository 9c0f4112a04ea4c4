// Lines over time, by uPlot, in the page's colours.
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

export interface Line {
  name: string;
  values: readonly (number | null)[];
}

interface Props {
  title: string;
  unit: string;
  /** Seconds since 1970. */
  at: readonly number[];
  lines: readonly Line[];
  height?: number;
}

const DASHES = [[], [6, 3], [2, 2], [8, 3, 2, 3]];

function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** A chart with its newest figures in words below it, so that nobody needs to see the lines. */
export function Chart({ title, unit, at, lines, height = 140 }: Props): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const names = JSON.stringify(lines.map((line) => line.name)) /* a text, to be compared */;
  const data = useRef<() => void>(() => {});
  data.current = () => plot.current?.setData([at, ...lines.map((line) => line.values)] as uPlot.AlignedData);
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const make = (): void => {
      plot.current?.destroy();
      const ink = colour("--dim"), rule = colour("--line");
      const axis = { stroke: ink, grid: { stroke: rule, width: 1 }, ticks: { stroke: rule, width: 1 }, font: "11px system-ui" };
      plot.current = new uPlot(
        {
          width: element.clientWidth || 320, height, cursor: { y: false }, legend: { show: false }, padding: [8, 8, 0, 0],
          axes: [{ ...axis, space: 70 }, { ...axis, size: 44, space: 28 }],
          scales: { y: { range: (_, low, high) => [Math.min(0, low ?? 0), Math.max(1, (high ?? 1) * 1.1)] } },
          series: [{}, ...lines.map(({ name }, n) => ({ label: name, stroke: colour(`--chart${(n % 6) + 1}`), width: 1.5, dash: DASHES[Math.floor(n / 6) % 4] ?? [], points: { show: false }, spanGaps: false }))],
        },
        [[], ...lines.map(() => [])] as unknown as uPlot.AlignedData,
        element,
      );
      data.current();
    };
    make();
    const watch = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height }));
    watch.observe(element);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", make);
    return () => {
      watch.disconnect();
      dark.removeEventListener("change", make);
      plot.current?.destroy();
      plot.current = null;
    };
  }, [names, height]);
  useEffect(() => data.current(), [names, at.length, at[at.length - 1]]); // the page is drawn far more often than a report comes
  return (
    <figure class="chart">
      <figcaption>{title} <span class="dim">{unit}</span></figcaption>
      <div ref={box} aria-hidden="true" />
      <ul class="legend">
        {lines.map((line, n) => (
          <li key={line.name}>
            <svg width="18" height="8" aria-hidden="true"><line x1="0" x2="18" y1="4" y2="4" class={`chart${(n % 6) + 1}`} stroke-dasharray={(DASHES[Math.floor(n / 6) % 4] ?? []).join(" ")} /></svg>
            {line.name} <b>{last(line.values)}</b>
          </li>
        ))}
      </ul>
    </figure>
  );
}

function last(values: readonly (number | null)[]): string {
  const value = values[values.length - 1];
  return value === null || value === undefined ? "–" : value.toFixed(Math.abs(value) < 10 ? 1 : 0);
}
