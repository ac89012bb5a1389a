// What the page needs before Vue has drawn it: theme, keyboard, and the tab's own memory.
window.studio = {
  cookie(name, value) { document.cookie = `${name}=${value}; path=/; max-age=31536000; samesite=strict`; },
  dark() { return document.body.classList.contains("body--dark"); },
  theme() {
    const dark = !studio.dark();
    setDark(dark);
    studio.cookie("atoll_theme", dark ? "dark" : "light");
  },
  language(name) {
    studio.cookie("atoll_language", name);
    location.reload();
  },
  // A tab's draft lives as long as the tab; a new tab begins with the settings last used, without their pictures.
  recall() {
    const read = (store, name) => JSON.parse(store.getItem(name) || "null");
    return { draft: read(sessionStorage, "atoll-draft"), last: read(localStorage, "atoll-last"), jobs: read(sessionStorage, "atoll-jobs") ?? [] };
  },
  // On a phone the picture lies below the fields.
  reveal() {
    if (matchMedia("(max-width: 900px)").matches) document.getElementById("work").scrollIntoView({ behavior: "smooth" });
  },
  // A field with a fault may be folded away or scrolled out of sight.
  point_at(id) {
    const field = document.getElementById(id);
    for (let fold = field.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
    field.scrollIntoView({ block: "center" });
    field.focus();
  },
  async copy(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // a page that is not on loopback or HTTPS has no clipboard
      const area = Object.assign(document.createElement("textarea"), { value: text });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  },
};
document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  document.getElementById("generate")?.click();
});
document.addEventListener("DOMContentLoaded", () => {
  const [lost, retrying] = document.querySelectorAll("#popup span"); // NiceGUI's, in its own words
  lost.textContent = studio.texts.connection_lost;
  retrying.textContent = "";
  // Wide screens show every setting; on a phone they are folded away at first.
  const wide = matchMedia("(min-width: 901px)");
  const fold = () => {
    const settings = document.getElementById("settings");
    if (!settings) return;
    watch.disconnect();
    settings.open = wide.matches;
    wide.addEventListener("change", () => { settings.open = wide.matches || settings.open; });
  };
  const watch = new MutationObserver(fold);
  watch.observe(document.body, { childList: true, subtree: true });
  fold();
});
