import type { JSX } from "preact";

export function Device({ site, device }: { site: string; device: string }): JSX.Element {
  return <h1>{site}/{device}</h1>;
}
