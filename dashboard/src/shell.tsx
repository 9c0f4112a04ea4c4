// What surrounds every page: where one is, how the link does, who is signed in.
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { app } from "./app";
import { useDrawn } from "./draw";
import { focusTop, keepFocus } from "./focus";
import { Device } from "./pages/device";
import { Events } from "./pages/events";
import { EventPage } from "./pages/event";
import { Models } from "./pages/models";
import { Overview } from "./pages/overview";
import { RolloutPage } from "./pages/rollout";
import { SignIn } from "./pages/sign_in";
import { route, to } from "./router";
import { Acting } from "./ui/act";
import { Note } from "./ui/bits";
import { LinkMark, LinkNotes } from "./ui/link_notes";

const PLACES: [string, string, readonly string[]][] = [
  ["", "Overview", ["", "device"]],
  ["events", "Events", ["events", "event"]],
  ["models", "Models", ["models", "rollout"]],
];

export function Shell(): JSX.Element {
  useDrawn();
  const now = app.value;
  const { path } = route.value, place = path[0] ?? "", where = path.join("/");
  const was = useRef(where);
  useEffect(() => {
    const names = [path.slice(1).join("/"), PLACES.find(([, , covers]) => covers.includes(place))?.[1] ?? (place === "sign-in" ? "Sign in" : ""), "TinySight"];
    document.title = names.filter(Boolean).join(" · ").slice(0, 200);
    if (was.current !== where) focusTop();
    was.current = where;
  }, [where]);
  useEffect(keepFocus);
  const api = now?.api;
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); document.getElementById("main")?.focus(); }}>To the content</a>
      <header class="bar">
        <a class="brand" href={to([])}>TinySight</a>
        <nav aria-label="Pages">
          {PLACES.map(([path, name, covers]) => (
            <a key={name} href={to(path ? [path] : [])} aria-current={covers.includes(place) ? "page" : undefined}>{name}</a>
          ))}
        </nav>
        <LinkMark />
        <a class="who" href={to(["sign-in"])} aria-current={place === "sign-in" ? "page" : undefined}>{api?.me.value?.name ?? (now?.session.username || "Sign in")}</a>
      </header>
      <main id="main" tabIndex={-1}>
        <LinkNotes />
        <Page />
      </main>
      <Acting />
    </>
  );
}

function Page(): JSX.Element {
  const now = app.value, state = now?.link.state.value.kind;
  const refused = useRef(false); // the form stays while another user is tried
  if (state !== "connecting") refused.current = state === "refused";
  if (refused.current) return <SignIn />;
  const [place = "", ...rest] = route.value.path;
  switch (place) {
    case "": return <Overview />;
    case "device": return <Device key={rest.join("/")} site={rest[0] ?? ""} device={rest[1] ?? ""} />;
    case "events": return <Events />;
    case "event": return <EventPage key={rest.join("/")} at={rest} />;
    case "models": return <Models />;
    case "rollout": return <RolloutPage key={rest.join("/")} id={rest[0] ?? ""} site={rest[1] ?? ""} device={rest[2] ?? ""} />;
    case "sign-in": return <SignIn />;
    default: return <Note title="There is no such page."><a href={to([])}>Go to the overview.</a></Note>;
  }
}
