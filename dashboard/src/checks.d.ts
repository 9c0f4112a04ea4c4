declare module "virtual:checks" {
  interface Check {
    (value: unknown): boolean;
    errors?: { instancePath: string; message?: string }[] | null;
  }
  export const status: Check, info: Check, health: Check, model: Check, cameraStatus: Check, counts: Check, event: Check;
  export const frame: Check, alert: Check, desired: Check, reported: Check, ack: Check;
}
declare module "*.css";
