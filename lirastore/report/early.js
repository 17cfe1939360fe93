// Before anything is drawn: the page has a script, and a theme that was chosen earlier is on at once.
document.documentElement.classList.add("scripting");
try {
  const chosen = localStorage.getItem("lirastore-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // storage may be forbidden: then the system decides
}
