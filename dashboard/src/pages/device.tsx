import type { JSX } from "preact";
import { app } from "../app";
import { Stage } from "../ui/stage";

export function Device({ site, device: name }: { site: string; device: string }): JSX.Element {
  const device = app.value?.fleet.device(site, name);
  return (
    <div class="page">
      <h1>{site}/{name}</h1>
      {device && [...device.cameras.values()].map((camera) => <Stage key={camera.id} device={device} camera={camera} />)}
    </div>
  );
}
