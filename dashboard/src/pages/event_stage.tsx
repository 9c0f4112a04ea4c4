// Where an object was in its frame: its box on a plain stage, or on the picture that the device sent of it.
import type { JSX } from "preact";
import type { Event } from "../contract";
import { figure } from "../ui/bits";

/** The frame's height for a width of 1000; a device may claim any size. */
function heightOf({ width, height }: Event["frame"]): number {
  return Math.min(4000, Math.max(250, (1000 * height) / width));
}

export function Stage({ event, picture }: { event: Event; picture: string }): JSX.Element {
  const high = heightOf(event.frame);
  const [x1, y1, x2, y2] = event.box;
  const where = `from ${percent(x1)}, ${percent(y1)} to ${percent(x2)}, ${percent(y2)}`;
  return (
    <figure class="event-stage-box">
      <div class="event-stage" style={{ aspectRatio: `1000 / ${high}` }}>
        {picture && <img src={picture} alt="The object at its best moment, as the device drew it" />}
        <svg viewBox={`0 0 1000 ${high}`} role="img" aria-label={`The frame with the object's box, ${where} of it`} class={picture ? "over" : ""}>
          {["halo", "box"].map((name) => (
            <rect key={name} class={name} x={x1 * 1000} y={y1 * high} width={Math.max(0, x2 - x1) * 1000} height={Math.max(0, y2 - y1) * high} />
          ))}
        </svg>
      </div>
      <figcaption class="dim">
        {picture ? "The device's picture, at the best moment; dashed: where it was last seen, " : "No picture of it came. The box is where it was last seen, "}
        {where} of {figure(event.frame.width)} × {figure(event.frame.height)} pixels.
      </figcaption>
    </figure>
  );
}

const percent = (share: number): string => `${Math.round(share * 100)} %`;
