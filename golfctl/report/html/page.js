"use strict";
(() => {
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const at = Object.fromEntries([...data.columns, ...data.more].map((name, i) => [name, i]));
const make = (tag, text, name) => {
  const node = document.createElement(tag);
  if (text !== undefined && text !== null) node.textContent = text;
  if (name) node.className = name;
  return node;
};
const foreign = (text) => make("bdi", text);

// --- a run in a table
const names = { name: "run", step_ms: "step, ms", score: data.score, seconds: "s", usd: "$" };
const right = new Set(["gate", "seed", "attempt", "score", "step_ms", "bytes", "usd", "seconds"]);
const wide = new Set(["name", "plan", "outcome", "started"]), long = new Set(["reason"]);
const shape = (column, item) => {
  if (item === null || item === undefined) return column === "score" ? "none" : "";
  if (column === "score") return item.toFixed(4);
  if (column === "usd") return item.toFixed(2);
  if (column === "bytes") return item.toLocaleString("en");
  if (column === "name") return item.length > 26 ? `${item.slice(0, 25)}…` : item;
  if (column === "started") return String(item).slice(0, 16).replace("T", " ");
  return String(item).length > 120 ? `${String(item).slice(0, 119)}…` : String(item);
};
const filled = (column, row) => {
  const cell = make("td", null, right.has(column) ? "n" : wide.has(column) ? "w" : long.has(column) ? "r" : ""), item = row[at[column]], text = shape(column, item);
  if (column === "name") {
    const link = make("button", null, "link");
    link.type = "button";
    link.dataset.key = `run:${item}`;
    link.append(foreign(text));
    cell.append(link);
  } else if (text !== "") cell.append(foreign(text));
  return cell;
};

// --- theme: the system's, until the reader says otherwise
const theme = $("theme"), root = document.documentElement;
const wish = matchMedia("(prefers-color-scheme: dark)");
const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : wish.matches;
const told = () => { theme.setAttribute("aria-pressed", dark()); theme.textContent = dark() ? "Light" : "Dark"; theme.setAttribute("aria-label", "Dark theme"); };
try { const kept = localStorage.getItem("golfctl-theme"); if (kept === "dark" || kept === "light") root.dataset.theme = kept; } catch (_) { /* a page from disk may keep nothing */ }
theme.addEventListener("click", () => {
  root.dataset.theme = dark() ? "light" : "dark";
  try { localStorage.setItem("golfctl-theme", root.dataset.theme); } catch (_) { /* as above */ }
  told();
});
wish.addEventListener("change", told);
told();

// --- pointing at a card: its numbers, and everything else that shows the same thing
const tip = $("tip");
let lit = [], pointed = null;
const dim = () => { lit.forEach((node) => node.classList.remove("lit")); lit = []; pointed = null; tip.hidden = true; };
const settle = () => {
  if (!pointed) return;
  const box = pointed.getBoundingClientRect(), own = tip.getBoundingClientRect();
  const x = Math.min(Math.max(8, box.left + box.width / 2 - own.width / 2), innerWidth - own.width - 8);
  const above = box.top - own.height - 8;
  tip.style.left = `${x}px`;
  tip.style.top = `${above > 4 ? above : Math.min(box.bottom + 8, innerHeight - own.height - 4)}px`;
};
const point = (card) => {
  dim();
  const key = card.dataset.key;
  if (key.startsWith("plan:")) {
    lit = [...document.querySelectorAll(".card[data-key]")].filter((node) => node.dataset.key === key);
    lit.forEach((node) => node.classList.add("lit"));
  }
  pointed = card;
  tip.textContent = card.getAttribute("aria-label");
  tip.hidden = false;
  settle();
};
const card = (event) => event.target instanceof Element ? event.target.closest(".card") : null;
for (const kind of ["pointerover", "focusin"]) document.addEventListener(kind, (event) => { const found = card(event); found ? point(found) : dim(); });
addEventListener("scroll", settle, { passive: true });  // what has the focus may still be on its way into view

// --- full records
const dialog = $("record"), body = $("record-body");
const value = (item) => {
  if (Array.isArray(item)) { const list = make("ul"); item.forEach((one) => { const row = make("li"); row.append(foreign(one)); list.append(row); }); return list; }
  if (item && typeof item === "object") {
    const pre = make("pre", Object.entries(item).map(([name, one]) => `${name} = ${typeof one === "object" ? JSON.stringify(one) : one}`).join("\n"));
    pre.tabIndex = 0;
    return pre;
  }
  return foreign(typeof item === "number" && Number.isInteger(item) && item > 9999 ? item.toLocaleString("en") : String(item));
};
const empty = (item) => item === null || item === "" || (typeof item === "object" && !Object.keys(item).length);
const facts = (rows) => {
  const list = make("dl"), frame = make("div", null, "record");
  for (const [name, item] of rows) {
    if (empty(item)) continue;
    const row = make("div"), cell = make("dd");
    cell.append(value(item));
    row.append(make("dt", name), cell);
    list.append(row);
  }
  frame.append(list);
  return frame;
};
const byName = new Map(data.runs.map((row) => [row[0], row]));
const byKey = new Map(data.entries.map((entry) => [entry.key, entry]));
const ofRun = (name) => {
  const row = byName.get(name);
  if (!row) return null;
  const own = data.columns.map((column, i) => [column, row[i]]);
  return facts([...own, ...data.more.map((column) => [column, data.shared[row[at[column]]]])]);
};
const ofEntry = (key) => {
  const entry = byKey.get(key);
  return entry ? facts(Object.entries(entry).filter(([name]) => name !== "key")) : null;
};
// A plan's own runs are filled in when it is first looked at: ten thousand rows nobody reads would make the page slow.
const OWN = ["gate", "seed", "attempt", "name", "outcome", "score", "step_ms", "bytes"];
const byPlan = new Map();
data.runs.forEach((row) => { const own = byPlan.get(row[at.plan]); if (own) own.push(row); else byPlan.set(row[at.plan], [row]); });
const fill = (plan) => {
  const place = plan.querySelector(".own"), own = byPlan.get(place.dataset.plan);
  if (!own || place.firstChild) return;
  const frame = make("div", null, "scroll"), table = make("table"), head = table.createTHead().insertRow(), rows = table.createTBody();
  frame.tabIndex = 0;
  frame.setAttribute("role", "region");
  frame.setAttribute("aria-label", `Every run of ${place.dataset.plan}`);
  OWN.forEach((column) => { const cell = make("th", names[column] || column, right.has(column) ? "n" : ""); cell.scope = "col"; head.append(cell); });
  for (const row of own) {
    const line = rows.insertRow();
    for (const column of OWN) {
      const cell = filled(column, row);
      if (column === "outcome" && row[at.outcome] !== "completed" && row[at.reason]) cell.append(foreign(`: ${row[at.reason].slice(0, 200)}`));
      line.append(cell);
    }
  }
  place.append(frame);
  frame.append(table);
};
document.querySelectorAll("details.plan").forEach((plan) => plan.addEventListener("toggle", () => fill(plan)));
const ofPlan = (key) => {
  const plan = [...document.querySelectorAll("details.plan")].find((node) => node.dataset.key === key);
  if (!plan) return null;
  fill(plan);
  const copy = plan.querySelector(".record").cloneNode(true);
  copy.querySelectorAll("svg[aria-labelledby]").forEach((svg) => { svg.setAttribute("aria-label", svg.querySelector("title").textContent); svg.removeAttribute("aria-labelledby"); });
  copy.querySelectorAll("[id]").forEach((node) => node.removeAttribute("id"));
  return copy;
};
const ofBase = (name) => {
  const rows = data.runs.filter((row) => row[at.plan] === name);
  return facts([["base", name], ["bundle", rows.length ? data.shared[rows[0][at.bundle]] : ""], ["runs", rows.map((row) => `gate ${row[at.gate]}, seed ${row[at.seed]}: ${row[at.score] ?? row[at.outcome]}`)]]);
};
const open = (key) => {
  const cut = key.indexOf(":"), kind = key.slice(0, cut), name = key.slice(cut + 1);
  const found = kind === "run" ? ofRun(name) : kind === "entry" ? ofEntry(key) : kind === "base" ? ofBase(name) : ofPlan(key);
  if (!found) return;
  dim();
  const title = $("record-title");
  title.replaceChildren(foreign(kind === "entry" ? byKey.get(key).title.slice(0, 200) : name.slice(0, 200)));
  body.replaceChildren(found);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
};
document.addEventListener("click", (event) => {
  if (event.target === dialog) { dialog.close(); return; }
  const found = event.target instanceof Element ? event.target.closest(".card,.link") : null;
  if (found) open(found.dataset.key);
});
document.addEventListener("keydown", (event) => {
  const found = card(event);
  if (found && (event.key === "Enter" || event.key === " ")) { event.preventDefault(); open(found.dataset.key); }
  if (event.key === "Escape") dim();
});

// --- table of runs: some at a time, so that ten thousand are as quick as ten
const PAGE = 100;
const table = $("run-table"), head = table.tHead.insertRow(), rows = table.tBodies[0];
const words = data.runs.map((row) => data.columns.map((_, i) => row[i] ?? "").join(" ").toLowerCase());
let order = data.runs.map((_, i) => i).reverse(), hits = order, shown = 0, sorted = null, up = true;
const draw = (from) => {
  const part = document.createDocumentFragment();
  for (const index of hits.slice(from, from + PAGE)) {
    const row = make("tr");
    for (const column of data.columns) row.append(filled(column, data.runs[index]));
    part.append(row);
  }
  if (from) rows.append(part); else rows.replaceChildren(part);
  shown = Math.min(from + PAGE, hits.length);
  $("more").hidden = shown >= hits.length;
  $("count").textContent = hits.length === data.runs.length ? `${hits.length.toLocaleString("en")} runs` : `${hits.length.toLocaleString("en")} of ${data.runs.length.toLocaleString("en")} runs`;
};
const filter = () => {
  const wanted = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  hits = order.filter((index) => wanted.every((word) => words[index].includes(word)));
  draw(0);
};
const compare = (i) => (a, b) => {
  const x = data.runs[a][i], y = data.runs[b][i];
  if (x === null || y === null) return (x === null) - (y === null);
  return (up ? 1 : -1) * (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y)));
};
data.columns.forEach((column, i) => {
  const cell = make("th", null, right.has(column) ? "n" : ""), button = make("button", names[column] || column);
  button.type = "button";
  cell.scope = "col";
  cell.append(button);
  button.addEventListener("click", () => {
    up = sorted === i ? !up : true;
    sorted = i;
    order = [...order].sort(compare(i));
    [...head.cells].forEach((other) => other.removeAttribute("aria-sort"));
    cell.setAttribute("aria-sort", up ? "ascending" : "descending");
    filter();
  });
  head.append(cell);
});
$("filter").addEventListener("input", filter);
$("more").addEventListener("click", () => draw(shown));
draw(0);

// --- on paper every fold is open
let closed = [];
addEventListener("beforeprint", () => { closed = [...document.querySelectorAll("details.plan:not([open])")]; closed.forEach((node) => { node.open = true; fill(node); }); });
addEventListener("afterprint", () => closed.forEach((node) => { node.open = false; }));
})();
