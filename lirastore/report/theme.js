// Light or dark: as the system has it until the button is pressed, then as it was chosen, and remembered.

import { byId } from "./dom.js";

const KEY = "lirastore-theme";

export function startTheme() {
  const button = byId("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const current = () => document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light");

  const show = () => {
    const other = current() === "dark" ? "light" : "dark";
    button.textContent = other === "dark" ? "☾ Dark" : "☀ Light";
    button.setAttribute("aria-label", `Switch to the ${other} theme`);
  };

  button.addEventListener("click", () => {
    const chosen = current() === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = chosen;
    remember(chosen);
    show();
  });
  system.addEventListener("change", show);
  show();
}

function remember(theme) {
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // storage may be forbidden: the choice then lasts as long as the page
  }
}
