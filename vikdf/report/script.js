"use strict";
// What a reader may choose. Without it the page still shows everything but the matrix of tests.
const one = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

function made(name, attributes = {}, ...inside) { // an element; texts are texts, never markup
  const svg = ["svg", "line", "title"].includes(name);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...inside);
  return node;
}

const remembered = { // a browser may keep nothing of a file: then the choice lasts as long as the page
  get() { try { return localStorage.getItem("vikdf-theme"); } catch { return null; } },
  set(value) { try { localStorage.setItem("vikdf-theme", value); } catch { /* nothing is kept */ } },
};

function theme() {
  const root = document.documentElement, button = one("#theme");
  if (["dark", "light"].includes(remembered.get())) root.dataset.theme = remembered.get();
  button.hidden = false;
  button.addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    remembered.set(root.dataset.theme);
  });
}

function navigation() { // the section that is read is marked, and its link is in sight
  const links = new Map(all("nav a").map(link => [link.hash.slice(1), link]));
  let current = null;
  const watch = new IntersectionObserver(seen => {
    for (const entry of seen.filter(entry => entry.isIntersecting)) {
      current?.removeAttribute("aria-current");
      current = links.get(entry.target.id);
      if (!current) continue;
      current.setAttribute("aria-current", "true");
      const list = one("nav ul");
      list.scrollLeft = current.offsetLeft - list.offsetLeft - list.clientWidth / 2 + current.clientWidth / 2;
    }
  }, { rootMargin: "-20% 0px -75% 0px" });
  all("main > section").forEach(section => watch.observe(section));
}

function sortable(table) {
  all("thead th", table).forEach((head, column) => {
    if (head.classList.contains("reported")) return;
    const button = made("button", { type: "button" }, ...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const number = head.classList.contains("number");
      const up = head.ariaSort ? head.ariaSort !== "ascending" : !number || head.title !== "";
      all("thead th", table).forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      all("tbody", table).forEach(body => sortRows(body, column, up, number));
    });
  });
}

function sortRows(body, column, up, number) { // rows without a value stay last
  const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent.replaceAll(",", "");
  const rows = all("tr:not(.heading)", body).map(row => ({ row, value: value(row) }));
  const lacking = each => each.value.trim() === "" || (number && Number.isNaN(Number(each.value)));
  rows.sort((a, b) => {
    if (lacking(a) || lacking(b)) return lacking(a) - lacking(b);
    return (up ? 1 : -1) * (Number.isNaN(Number(a.value)) ? a.value.localeCompare(b.value) : a.value - b.value);
  });
  body.append(...rows.map(each => each.row));
}

const digits = (value, task) => value.toFixed(task === "probe" ? 3 : 2).replace("-", "−");
const chance = p => (p < 0.001 ? "< .001" : p.toFixed(3).replace(/^0/, "")); // no more digits than it has meaning

function comparison() {
  const data = JSON.parse(one("#compare-data").textContent); // a task each
  const [tasks, metrics, controls] = ["#chance-task", "#chance-metric", "#chance-controls"].map(name => one(name));
  if (!tasks) return;
  const task = () => data[tasks.value], metric = () => task().metrics[metrics.value];
  const draw = () => matrix(one(".matrix"), task(), metric(), controls.checked);
  const fill = () => {
    const before = metrics.selectedOptions[0]?.textContent;
    metrics.replaceChildren(...task().metrics.map((each, place) => made("option", { value: place }, each.title)));
    const same = task().metrics.findIndex(each => each.title === before);
    metrics.value = same >= 0 ? same : Math.max(0, task().metrics.findIndex(each => ["bleu1", "color_accuracy_all_heldout"].includes(each.name)));
    draw();
  };
  tasks.append(...data.map((each, place) => made("option", { value: place }, each.title)));
  tasks.value = Math.max(0, data.findIndex(each => each.name === "image_chat"));
  tasks.addEventListener("change", fill);
  metrics.addEventListener("change", draw);
  controls.addEventListener("change", draw);
  fill();
}

function matrix(table, task, metric, controls) { // rows by rank; columns are the same rows by their numbers
  const places = metric.rows.map((_, place) => place).filter(place => controls || !metric.rows[place][7]);
  places.sort((a, b) => (metric.lower ? 1 : -1) * (metric.rows[a][2] - metric.rows[b][2]));
  const tests = new Map();
  for (const [a, b, difference, ...chances] of metric.pairs) {
    tests.set(`${a} ${b}`, [difference, ...chances]);
    tests.set(`${b} ${a}`, [-difference, ...chances]);
  }
  const ends = places.flatMap(place => metric.rows[place].slice(2, 7)).filter(value => value !== null);
  const scale = [Math.min(...ends), Math.max(...ends)];
  const heads = ["system", "value", "interval"].map((name, column) => made("th", { scope: "col", class: ["left", "number", ""][column] }, name));
  heads.push(...places.map((_, rank) => made("th", { scope: "col" }, String(rank + 1))));
  const lines = places.map((place, rank) => {
    const [system, amount, value, , , , , control] = metric.rows[place];
    const name = made("th", { scope: "row" }, made("span", { class: "rank" }, String(rank + 1)), `${system} `, made("span", { class: `data ${amount}` }, amount));
    const line = made("tr", control ? { class: "control" } : {}, name, made("td", { class: "number" }, digits(value, task.name)), made("td", {}, span(metric.rows[place], scale, task.name)));
    line.append(...places.map(other => pair(metric, task, place, other, tests.get(`${place} ${other}`))));
    return line;
  });
  table.replaceChildren(made("caption", { class: "hidden" }, `${task.title}, ${metric.title}`), made("thead", {}, made("tr", {}, ...heads)), made("tbody", {}, ...lines));
  table.dataset.metric = metric.name;
  one(".pair:not(.self)", table)?.setAttribute("tabindex", "0");
  tell(`${task.title}, ${metric.title}${metric.lower ? " (lower is better)" : ""}: choose a pair.`, false);
}

function tell(text, chosen) { // below the matrix; once a pair is chosen, at the window's lower edge while the matrix is there
  one("#chance-told").textContent = text;
  one("#chance-told").classList.toggle("chosen", chosen);
}

function span([, , value, low, high, tLow, tHigh], [least, most], task) { // a dot and its lines, on one scale for all rows
  const place = number => String(4 + 192 * (most > least ? (number - least) / (most - least) : 0.5));
  const line = (from, to, y, width) => made("line", { x1: place(from), x2: place(to), y1: y, y2: y, stroke: "currentColor", "stroke-width": width, "vector-effect": "non-scaling-stroke" });
  const drawn = made("svg", { viewBox: "0 0 200 24", preserveAspectRatio: "none", role: "img" });
  const told = low === null ? "no interval" : `${digits(low, task)} to ${digits(high, task)}`;
  drawn.append(made("title", {}, told + (tLow === null ? "" : `; over seeds ${digits(tLow, task)} to ${digits(tHigh, task)}`)));
  if (tLow !== null) drawn.append(line(tLow, tHigh, 18, 1));
  if (low !== null) drawn.append(line(low, high, 12, 3));
  const dot = line(value, value, 12, 9); // a line of no length with round ends: a dot that stays round
  dot.setAttribute("stroke", "var(--accent)");
  dot.setAttribute("stroke-linecap", "round");
  drawn.append(dot);
  return drawn;
}

function pair(metric, task, row, column, test) {
  if (row === column || !test) return made("td", { class: "pair self" }, row === column ? "" : "–");
  const [difference, p, holm, sure] = test, [a, b] = [metric.rows[row], metric.rows[column]];
  const better = (metric.lower ? -difference : difference) > 0;
  const sign = !sure ? "·" : better ? "▲" : "▼";
  const told = `${a[0]} (${a[1]}) ${digits(a[2], task.name)} against ${b[0]} (${b[1]}) ${digits(b[2], task.name)}: ` +
    `${difference > 0 ? "+" : ""}${digits(difference, task.name)}, p ${chance(p)}, corrected ${chance(holm)}. ` +
    (sure ? `The first is ${better ? "better" : "worse"}, by more than chance.` : "This may be chance.");
  return made("td", { class: `pair ${sure ? (better ? "better" : "worse") : ""}`, tabindex: "-1", "aria-label": told, "data-told": told }, sign);
}

function matrixKeys() { // one stop of the tab key; the arrows move within
  const table = one(".matrix");
  if (!table) return;
  const reach = cell => {
    all(".pair[tabindex='0']", table).forEach(other => other.setAttribute("tabindex", "-1"));
    cell.setAttribute("tabindex", "0");
    tell(cell.dataset.told, true);
  };
  const moves = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
  table.addEventListener("focusin", event => { if (event.target.dataset.told) reach(event.target); });
  table.addEventListener("mouseover", event => { if (event.target.dataset.told) tell(event.target.dataset.told, true); });
  table.addEventListener("click", event => { if (event.target.dataset.told) event.target.focus(); });
  table.addEventListener("keydown", event => {
    const move = moves[event.key];
    if (!move || !event.target.dataset.told) return;
    event.preventDefault();
    let [row, column] = [event.target.parentNode.sectionRowIndex, event.target.cellIndex];
    do { // over the diagonal, where there is no pair
      [row, column] = [row + move[0], column + move[1]];
    } while (table.tBodies[0].rows[row]?.cells[column]?.matches(".pair.self"));
    table.tBodies[0].rows[row]?.cells[column]?.focus();
  });
}

function answers() {
  const find = one("#find");
  if (!find) return;
  const [task, amount, more] = [one("#answers-task"), one("#answers-data"), one("#more")];
  const texts = new Map(all(".item").map(item => [item, item.textContent.toLowerCase()]));
  const step = matchMedia("(max-width: 640px)").matches ? 5 : 12;
  let room = step;
  const show = () => {
    const words = find.value.trim().toLowerCase(), systems = new Set(all("[name=system]:checked").map(box => box.value));
    all(".item dl > [data-system]").forEach(line => {
      line.hidden = !systems.has(line.dataset.system) || (amount.value !== "" && line.dataset.data !== amount.value && line.closest(".item").dataset.task === "image_chat");
    });
    const found = [...texts.keys()].filter(item => (!task.value || item.dataset.task === task.value) && texts.get(item).includes(words));
    const shown = new Set(found.slice(0, room));
    for (const item of texts.keys()) item.hidden = !shown.has(item);
    more.hidden = found.length <= room;
    one("#answers-told").textContent = `${shown.size} of ${found.length} items${words ? ` with “${find.value.trim()}”` : ""}`;
    mark(words, shown);
  };
  const anew = () => { room = step; show(); };
  find.addEventListener("input", anew);
  [task, amount, ...all("[name=system]")].forEach(field => field.addEventListener("change", anew));
  more.addEventListener("click", () => { room += step; show(); });
  if ([...amount.options].some(option => option.value === "zero")) amount.value = "zero";
  show();
}

function mark(words, items) { // what was searched for stands out; the text itself stays as it is
  if (!window.Highlight) return;
  CSS.highlights.delete("found");
  const ranges = [];
  for (const item of words ? items : []) {
    const walk = document.createTreeWalker(item, NodeFilter.SHOW_TEXT);
    for (let node = walk.nextNode(); node; node = walk.nextNode()) {
      const text = node.data.toLowerCase();
      if (text.length !== node.data.length) continue; // letters that grow when made small: their places would be wrong
      for (let at = text.indexOf(words); at >= 0; at = text.indexOf(words, at + words.length)) {
        const range = new Range();
        range.setStart(node, at);
        range.setEnd(node, at + words.length);
        ranges.push(range);
      }
    }
  }
  if (ranges.length) CSS.highlights.set("found", new Highlight(...ranges));
}

theme();
navigation();
all(".sortable").forEach(sortable);
comparison();
matrixKeys();
answers();
