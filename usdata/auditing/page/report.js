"use strict";
// The page is whole without this script: it adds sorting, filtering, larger pictures, the choice of dark or light, and a mark in the contents.
// Texts from the data are only ever read and written as text (textContent), never as markup.

const all = (selector, within = document) => [...within.querySelectorAll(selector)];

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Dark and light: the system's choice until the button is used; where the browser allows, the choice is kept for the next page.
function kept() {
  try {
    return localStorage.getItem("usdata-theme");
  } catch {
    return null; // some browsers allow no storage to a page that is a file
  }
}

function keep(theme) {
  try {
    localStorage.setItem("usdata-theme", theme);
  } catch {
    // then the choice lasts as long as the page
  }
}

function chooseTheme() {
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const now = () => document.documentElement.dataset.theme || (system.matches ? "dark" : "light");
  const name = () => {
    const other = now() === "dark" ? "Light" : "Dark";
    button.lastElementChild.textContent = other;
    button.setAttribute("aria-label", `Switch to ${other.toLowerCase()}`);
  };
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = now() === "dark" ? "light" : "dark";
    keep(now());
    name();
  });
  system.addEventListener("change", name);
  name();
}

// Findings of one level.
function filterFindings() {
  const buttons = all(".chips button");
  for (const button of buttons) {
    button.addEventListener("click", () => {
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      for (const finding of all(".finding")) {
        finding.classList.toggle("filtered", Boolean(button.dataset.level) && finding.dataset.level !== button.dataset.level);
      }
    });
  }
}

// Tables. What a cell is sorted by: data-value where it is given, a number where the column is one, else its text; null = empty.
const collator = new Intl.Collator("en", { numeric: true });

function sortKey(cell, numeric) {
  const text = (cell.dataset.value ?? cell.textContent).trim();
  if (text === "" || text === "–") return null;
  if (!numeric) return text;
  const number = Number(text.replace(/[,%]/g, ""));
  return Number.isNaN(number) ? null : number;
}

function compare(a, b) {
  return typeof a === "number" ? a - b : collator.compare(a, b);
}

function sortRows(table, head, column) {
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of all("thead th", table)) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const body = table.tBodies[0];
  const keyed = [...body.rows].map((row) => [sortKey(row.cells[column], head.classList.contains("n")), row]);
  // Empty cells stand last, whichever way the rest is sorted.
  keyed.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : compare(a, b) * (down ? -1 : 1)));
  body.append(...keyed.map(([, row]) => row));
}

function makeSortable(table) {
  all("thead th", table).forEach((head, column) => {
    const button = element("button", { type: "button" }, ...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => sortRows(table, head, column));
  });
}

const ROWS_WITHOUT_FILTER = 10;

function makeFilterable(table) {
  const rows = [...table.tBodies[0].rows];
  // Cells are joined by a blank, so that a word never begins in one cell and ends in the next.
  const texts = rows.map((row) => [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase());
  const input = element("input", { type: "search", autocomplete: "off", spellcheck: false });
  const shown = element("span", {});
  shown.setAttribute("aria-live", "polite");
  const show = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let number = 0;
    rows.forEach((row, place) => {
      const fits = words.every((word) => texts[place].includes(word));
      row.classList.toggle("filtered", !fits);
      number += fits;
    });
    shown.textContent = words.length ? `${number.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows` : "";
  };
  input.addEventListener("input", show);
  table.parentElement.before(element("div", { className: "filter" }, element("label", {}, "Filter", input), shown));
}

// Pictures: each opens larger in a dialog; arrow keys go through those of its sheet.
function openPictures() {
  const dialog = document.getElementById("picture");
  const [large] = all("img", dialog);
  const [facts] = all(".facts", dialog);
  const [place] = all(".place", dialog);
  const [close] = all(".close", dialog);
  let pictures = [];
  let at = 0;
  const show = (to) => {
    at = (to + pictures.length) % pictures.length;
    const small = pictures[at];
    large.src = small.src;
    large.alt = small.alt;
    document.getElementById("picture-clip").textContent = small.dataset.clip;
    facts.textContent = small.dataset.facts;
    place.textContent = `${at + 1} of ${pictures.length}`;
  };
  for (const sheet of all(".sheet")) {
    const members = all("img", sheet);
    members.forEach((small, number) => {
      const button = element("button", { type: "button" });
      button.setAttribute("aria-haspopup", "dialog");
      small.before(button);
      button.append(small);
      button.addEventListener("click", () => {
        pictures = members;
        show(number);
        // The browser gives the focus back to this button when the dialog closes.
        dialog.showModal();
        close.focus();
      });
    });
  }
  for (const button of all("[data-step]", dialog)) button.addEventListener("click", () => show(at + Number(button.dataset.step)));
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside the picture
  });
  dialog.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) {
      event.preventDefault();
      show(at + step);
    }
  });
}

// Contents: the section that is being read.
function markSection() {
  const links = new Map(all(".contents li a").map((link) => [link.hash.slice(1), link]));
  const heads = all("h2[id]");
  let marked = null;
  const mark = () => {
    const above = heads.filter((head) => head.getBoundingClientRect().top < innerHeight * 0.35);
    const bottom = innerHeight + scrollY >= document.documentElement.scrollHeight - 2;
    const link = links.get((bottom ? heads.at(-1) : (above.at(-1) ?? heads[0])).id);
    if (link === marked) return;
    marked?.removeAttribute("aria-current");
    link.setAttribute("aria-current", "true");
    marked = link;
    const strip = link.closest("ul");
    strip.scrollLeft = link.offsetLeft - strip.clientWidth / 2; // only a strip that is too narrow moves
  };
  addEventListener("scroll", mark, { passive: true });
  addEventListener("resize", mark);
  mark();
}

// Paper has no buttons: everything is opened before printing, and as it was after.
function openForPrint() {
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details:not([open])");
    for (const details of opened) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of opened) details.open = false;
  });
}

// A link to a row that a filter hides would lead nowhere.
function showLinked() {
  addEventListener("hashchange", () => document.getElementById(location.hash.slice(1))?.classList.remove("filtered"));
}

document.documentElement.classList.add("js");
if (["dark", "light"].includes(kept())) document.documentElement.dataset.theme = kept();
document.addEventListener("DOMContentLoaded", () => {
  chooseTheme();
  filterFindings();
  for (const table of all("table.data")) {
    if (table.tBodies[0].rows.length > ROWS_WITHOUT_FILTER) makeFilterable(table);
    if (table.tBodies[0].rows.length > 1) makeSortable(table);
  }
  openPictures();
  markSection();
  openForPrint();
  showLinked();
});
