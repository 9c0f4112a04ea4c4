// Where the keyboard is: it stays near when what it was on goes away, and goes to the top of another page.

const CONTROLS = "button:not(:disabled), a[href], input:not(:disabled), select, [tabindex='0']";

/** What had the focus, and all that lay around it, the innermost first. */
let around: Element[] = [];
addEventListener("focusin", ({ target }) => {
  around = [];
  for (let each = target as Element | null; each; each = each.parentElement) around.push(each);
});
// whoever clicks beside all controls means to leave
addEventListener("pointerdown", ({ target }) => {
  if (target instanceof Element && !target.closest(CONTROLS)) around = [];
});

/** After each draw: when what had the focus is gone or disabled, give it to what is nearest, `data-focus` before others. */
export function keepFocus(): void {
  const [last] = around;
  if (!last || (document.activeElement && document.activeElement !== document.body)) return;
  if (last.isConnected && !last.matches(":disabled")) return;
  for (const each of around) {
    if (!each.isConnected || each.matches("body, html, #app, main")) continue;
    const near = each.matches("[tabindex='0']") ? (each as HTMLElement) : each.querySelector<HTMLElement>("[data-focus]:not(:disabled)") ?? each.querySelector<HTMLElement>(CONTROLS);
    if (near) return near.focus({ preventScroll: true });
  }
  if (!last.isConnected) focusTop();
}

/** Focus the page's heading. */
export function focusTop(): void {
  const heading = document.querySelector<HTMLElement>("main h1") ?? document.getElementById("main");
  heading?.setAttribute("tabindex", "-1");
  heading?.focus({ preventScroll: true });
}
