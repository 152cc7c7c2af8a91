"use strict";
// Without this script everything can be read; with it one can search, copy, and choose light or dark.

const root = document.documentElement;
const stored = (() => { try { return localStorage.getItem("theme"); } catch { return null; } })();
if (stored) root.dataset.theme = stored;

const theme = document.getElementById("theme");
theme.hidden = false;
theme.addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try { localStorage.setItem("theme", root.dataset.theme); } catch { /* a page from a folder may not store anything */ }
});

// On a small screen the list of lessons stands above the text: folded.
const lessons = document.querySelector(".lessons");
const narrow = matchMedia("(max-width: 60rem)");
const fit = () => { lessons.open = !narrow.matches; };
narrow.addEventListener("change", fit);
fit();
const here = document.querySelector("[aria-current]");
if (here) here.closest("nav").scrollTop = here.offsetTop - here.closest("nav").offsetTop - 80;

// Which section is being read?
const sections = new Map([...document.querySelectorAll(".sections a")].map((link) =>
  [document.getElementById(decodeURIComponent(link.hash.slice(1))), link]));
const follow = () => {
  const above = [...sections.keys()].filter((heading) => heading && heading.getBoundingClientRect().top < 120).pop();
  for (const [heading, link] of sections) link.classList.toggle("here", heading === above);
};
if (sections.size) { addEventListener("scroll", follow, { passive: true }); follow(); }

const make = (tag, properties) => Object.assign(document.createElement(tag), properties);

for (const code of document.querySelectorAll(".code")) {
  const tools = make("div", { className: "tools" });
  const cell = code.closest(".cell")?.id;
  if (cell) tools.append(make("a", { href: "#" + cell, textContent: "§", tabIndex: -1, ariaLabel: "Link to this cell" }));
  const button = make("button", { type: "button", textContent: "Copy" });
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.querySelector("code").innerText);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not allowed here";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  tools.append(button);
  code.prepend(tools);
}

// Pictures that move can be stopped, and stand still where the reader's system asks for that.
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
for (const picture of document.querySelectorAll("img[data-still]")) {
  const moving = picture.getAttribute("src");
  const frame = make("span", { className: "moving" });
  const button = make("button", { type: "button" });
  const show = (moves) => {
    picture.src = moves ? moving : picture.dataset.still;
    button.textContent = moves ? "Stop" : "Play";
  };
  button.addEventListener("click", () => show(button.textContent === "Play"));
  picture.replaceWith(frame);
  frame.append(picture, button);
  show(!calm);
}

// A link may lead into something folded.
const unfold = () => {
  let place = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (; place; place = place.parentElement) if (place.tagName === "DETAILS" && place !== lessons) place.open = true;
};
addEventListener("hashchange", unfold);
unfold();

const query = document.getElementById("query");
const found = document.getElementById("found");
let index = null;
const load = () => index ??= new Promise((done) => {
  const script = document.createElement("script");
  script.src = "search-index.js";
  script.onload = () => done(window.minaiIndex.map(([address, title, heading, text]) =>
    ({ address, title, heading, text, lower: fold(heading + " " + text), head: fold(heading) })));
  document.head.append(script);
});

// Capital or small, with accents or without: it is the same word.
const fold = (text) => text.toLowerCase().normalize("NFD").replace(/\p{M}/gu, "");
const escaped = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
const passage = (text, words) => {
  const lower = fold(text);
  const at = Math.max(0, Math.min(...words.map((word) => lower.indexOf(word)).filter((at) => at >= 0), text.length) - 60);
  const part = text.slice(at, at + 180);
  const folded = fold(part);
  let html = "";
  for (let i = 0; i < part.length;) {
    const word = words.find((one) => folded.startsWith(one, i));
    html += word ? `<mark>${escaped(part.slice(i, i + word.length))}</mark>` : escaped(part[i]);
    i += word ? word.length : 1;
  }
  return (at > 0 ? "… " : "") + html + (at + 180 < text.length ? " …" : "");
};

const look = async () => {
  const words = fold(query.value).split(/\s+/).filter(Boolean);
  if (words.length === 0) { found.hidden = true; return; }
  const all = await load();
  const hits = all.filter((one) => words.every((word) => one.lower.includes(word)));
  const rank = (one) => words.filter((word) => one.head.includes(word)).length;
  hits.sort((a, b) => rank(b) - rank(a));
  found.innerHTML = hits.slice(0, 20).map((one) =>
    `<a href="${one.address}"><b>${one.heading}</b> ${escaped(one.title)}<small>${passage(one.text, words)}</small></a>`).join("")
    || "<p>Nothing was found.</p>";
  found.hidden = false;
};
query.addEventListener("input", look);
query.addEventListener("focus", load);
document.getElementById("search").addEventListener("submit", async (event) => {
  event.preventDefault();
  await look();
  found.querySelector("a")?.click();
});
found.addEventListener("click", () => { found.hidden = true; });
document.addEventListener("click", (event) => { if (!found.contains(event.target) && event.target !== query) found.hidden = true; });
addEventListener("keydown", (event) => {
  if (event.key === "Escape") { found.hidden = true; }
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const places = [query, ...found.querySelectorAll("a")];
  const at = places.indexOf(document.activeElement);
  if (step && at >= 0 && !found.hidden) { event.preventDefault(); places[Math.min(Math.max(at + step, 0), places.length - 1)].focus(); }
  if (event.key === "/" && document.activeElement === document.body) { event.preventDefault(); query.focus(); }
});
