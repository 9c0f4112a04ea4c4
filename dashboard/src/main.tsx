// Begins the page: configuration, then the link, then whatever the address asks for.
import { render } from "preact";
import { app, begin } from "./app";
import { loadConfig } from "./config";
import { Shell } from "./shell";
import { Note } from "./ui/bits";
import "./style.css";

const root = document.getElementById("app");
if (root) {
  loadConfig().then(
    (config) => {
      begin(config);
      render(<Shell />, root);
    },
    (error: unknown) => render(<main><Note tone="bad" title="This page cannot begin.">{String(error)}</Note></main>, root),
  );
  addEventListener("pagehide", () => app.value?.link.close());
  addEventListener("pageshow", ({ persisted }) => {
    if (persisted && app.value) app.value.link.open(app.value.session); // back from the browser's cache of pages
  });
}
