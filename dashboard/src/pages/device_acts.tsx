// What can be done to a device from here: commands, each with the device's own answer.
import type { JSX } from "preact";
import { app } from "../app";
import type { Ack, AckCode } from "../contract";
import type { Device } from "../fleet";
import { type Act, ActButton, type Outcome } from "../ui/act";
import { Acts, Said } from "../ui/fleet_bits";

const WAIT_S = 10;
const MEANINGS: Record<AckCode, string> = {
  ok: "It was carried out.",
  retained: "The broker keeps it, so it is never carried out. Clear the retained command.",
  expired: "It came too late by the device's clock. Ask again; if it stays so, look at the clocks.",
  clock: "The device's clock is not set and it has just connected, so nobody knows how long the command waited. Ask again.",
  unknown: "This version of the device has no such command.",
  malformed: "It does not fit what the device takes.",
  refused: "This device does not do that, or not now.",
  failed: "It was tried and did not succeed.",
  interrupted: "The process ended meanwhile; whether it took effect, nobody knows.",
};

interface Answer {
  id: string;
  ack: Ack | null;
  waited_s: number;
}

/** Send a command through the fleet's server, and say what the device answered. */
async function command(device: Device, name: string, args: Record<string, unknown>, done: (result: Record<string, unknown>) => string): Promise<Outcome> {
  const api = app.value?.api;
  if (!api) return { good: false, what: "This page was served without the fleet's server." };
  const { ack } = await api.ask<Answer>("POST", `/v1/devices/${device.site}/${device.device}/commands/${name}`, { args, seconds: WAIT_S });
  if (ack === null) return { good: false, what: `No answer in ${WAIT_S} s: it may be offline. The command expires and is not done later.` };
  if (ack.ok) return { good: true, what: done(ack.result ?? {}) };
  const code = ack.code ?? "failed";
  return { good: false, what: <><p>{MEANINGS[code]} <code>{code}</code></p>{ack.error && <p class="wrap"><span class="dim">It says:</span> <Said text={ack.error} /></p>}</> };
}

const text = (value: unknown): string => (typeof value === "string" || typeof value === "number" ? String(value).slice(0, 100) : "");

export function DeviceActs({ device, camera }: { device: Device; camera: string }): JSX.Element | null {
  if (!app.value?.api) return null;
  const off = device.cameras.get(camera)?.status?.state === "disabled";
  const identify = (): Act => ({
    title: `Identify ${device.key}`, verb: "Identify", what: <p>It blinks an LED for 10 s and logs a line that begins with IDENTIFY.</p>,
    run: () => command(device, "identify", { seconds: 10 }, ({ led, seconds }) => (led === null ? "It has logged IDENTIFY; it may write to no LED." : `It blinks ${text(led)} for ${text(seconds)} s.`)),
  });
  const snapshot = (): Act => ({
    title: `Picture of ${device.key}, ${camera}`, verb: "Take a picture", what: <p>It sends the next picture of {camera}, masked as its configuration says; everybody who may read the broker sees it.</p>,
    run: () => command(device, "snapshot", { camera }, ({ width, height, bytes }) => `It has sent ${text(width)}×${text(height)} in ${Math.ceil(Number(bytes) / 1024)} KiB; it stands on the page.`),
  });
  const enable = (): Act => ({
    title: `${off ? "Enable" : "Disable"} ${camera} of ${device.key}`, verb: off ? "Enable" : "Disable",
    what: <p>{off ? "It opens the camera again." : "It sees nothing through this camera until somebody enables it or the agent restarts. What is in sight is ended."}</p>,
    run: () => command(device, "camera-enable", { camera, enabled: off }, ({ enabled }) => `${camera} is ${enabled === true ? "enabled" : "disabled"}.`),
  });
  const restart = (): Act => ({
    title: `Restart ${device.key}`, verb: "Restart", what: <p>The agent ends cleanly and starts again; meanwhile nothing is seen. It answers before.</p>,
    run: () => command(device, "restart", {}, () => "It restarts; it is online again in a moment."),
  });
  return (
    <Acts label="Actions">
      <ActButton make={identify}>Identify</ActButton>
      {camera && <ActButton make={snapshot}>Picture of {camera}</ActButton>}
      {camera && <ActButton make={enable}>{off ? "Enable" : "Disable"} {camera}</ActButton>}
      <ActButton make={restart}>Restart</ActButton>
    </Acts>
  );
}
