"use strict";
// What a rater does: shows one dialogue at a time, keeps each rating at once, gives them as a file.
// Every text of a dialogue goes in through textContent: nothing that a stranger wrote is read as HTML.
const sheet = JSON.parse(document.getElementById("sheet").textContent);
const names = sheet.criteria.map((each) => each.name);
const place = "ratings-" + sheet.digest; // where this browser keeps them
const count = sheet.dialogues.length;
const at = (id) => document.getElementById(id);
let ratings = {}; // "<dialogue from 1>-<letter>-<criterion>" -> 1 to 5
let shown = 0; // of the dialogues, from 0
let unsaved = false; // ratings that this browser does not keep

function make(tag, properties, ...inside) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...inside);
  return made;
}

// ---- the ratings

function keysOf(index) {
  const found = [];
  sheet.dialogues[index].answers.forEach((_, answer) => {
    for (const name of names) found.push(`${index + 1}-${sheet.letters[answer]}-${name}`);
  });
  return found;
}

const everyKey = sheet.dialogues.flatMap((_, index) => keysOf(index));
const doneIn = (keys) => keys.filter((key) => key in ratings).length;
const unfinished = (index) => doneIn(keysOf(index)) < keysOf(index).length;

function accept(told) { // only what this sheet asks for, whatever the place held
  const found = {};
  for (const key of everyKey) if (sheet.scale.includes(told?.[key])) found[key] = told[key];
  return found;
}

function remember() {
  try {
    localStorage.setItem(place, JSON.stringify(ratings));
    unsaved = false;
  } catch {
    unsaved = true;
    warn("This browser does not keep your ratings: save them as a file before you close the page, and load the file to go on.");
  }
}

function recall() {
  try {
    ratings = accept(JSON.parse(localStorage.getItem(place)));
  } catch {
    ratings = {};
  }
}

function warn(text) {
  at("warning").textContent = text;
  at("warning").hidden = !text;
}

// ---- the page

function turn(text, tag, name) {
  const made = make(tag, { className: name, dir: "auto", textContent: text });
  if (!text.trim()) made.replaceChildren(make("span", { className: "nothing", textContent: "(an empty text)" }));
  return made;
}

function picture(address) { // a press makes it large, and small again
  const made = make("button", { type: "button", className: "picture", ariaExpanded: "false" }, make("img", { src: address, alt: "the picture of this dialogue" }));
  made.addEventListener("click", () => { made.ariaExpanded = String(made.ariaExpanded !== "true"); });
  return made;
}

function line(key, criterion) {
  const choices = sheet.scale.map((value) => {
    const input = make("input", { type: "radio", name: key, value, checked: ratings[key] === value });
    if (value === sheet.scale[0]) input.setAttribute("aria-label", `${value}: ${criterion.low}`);
    if (value === sheet.scale.at(-1)) input.setAttribute("aria-label", `${value}: ${criterion.high}`);
    input.addEventListener("change", () => rate(key, value));
    return make("label", {}, input, make("span", { textContent: value }));
  });
  const asked = make("legend", {}, make("b", { textContent: criterion.name }), " " + criterion.question);
  const ends = make("div", { className: "ends" }, make("span", { textContent: criterion.low }), make("span", { textContent: criterion.high }));
  ends.setAttribute("aria-hidden", "true");
  return make("fieldset", { id: key }, asked, make("div", { className: "scale" }, ...choices), ends);
}

function show(index, moved = true) {
  shown = Math.min(Math.max(index, 0), count - 1);
  const one = sheet.dialogues[shown];
  const title = make("h2", { textContent: `Dialogue ${shown + 1} of ${count}` });
  const turns = make("ol", { className: "turns" }, ...one.context.map((text) => turn(text, "li", "")));
  const answers = one.answers.map((text, number) => {
    const letter = sheet.letters[number];
    const lines = sheet.criteria.map((each) => line(`${shown + 1}-${letter}-${each.name}`, each));
    const made = make("section", { className: "answer" }, make("h3", { textContent: `Answer ${letter}` }), turn(text, "p", "text"), ...lines);
    made.setAttribute("aria-label", `Answer ${letter}`);
    return made;
  });
  const seen = one.picture ? [picture(one.picture)] : [];
  const said = make("div", { id: "said", className: seen.length ? "pictured" : "" }, title, ...seen, turns);
  at("dialogue").replaceChildren(said, ...answers);
  if (said.scrollHeight > said.clientHeight) { // a long one: its last turn, which is answered, in sight; keys can scroll it
    Object.assign(said, { tabIndex: 0, role: "region", ariaLabel: "what was said", scrollTop: said.scrollHeight });
  }
  tell();
  if (moved) {
    at("dialogue").focus({ preventScroll: true });
    at("dialogue").scrollIntoView(); // below the header: scroll-margin in page.css
  }
}

function tell() {
  const done = doneIn(everyKey);
  at("progress").textContent = `${done} of ${everyKey.length} ratings`;
  at("bar").value = done / everyKey.length;
  at("back").disabled = shown === 0;
  at("next").disabled = shown === count - 1;
  at("open").disabled = done === everyKey.length;
  at("end").textContent = done === everyKey.length
    ? "All ratings are there. Save them and send the file back. Thank you!"
    : `${everyKey.length - done} ratings are missing. You may save what there is, to go on elsewhere.`;
  [...at("jumps").children].forEach((button, index) => {
    const some = doneIn(keysOf(index));
    button.className = unfinished(index) ? (some ? "begun" : "") : "done";
    button.setAttribute("aria-label", `Dialogue ${index + 1}: ${some} of ${keysOf(index).length} ratings`);
    button.setAttribute("aria-current", index === shown);
  });
}

function rate(key, value) {
  ratings[key] = value;
  remember();
  tell();
}

// ---- keys: a digit rates the line that has the focus, or the first open one

function focusOn(key) {
  const line = at(key);
  const radio = line.querySelector("input:checked") ?? line.querySelector("input");
  radio.focus({ preventScroll: true });
  line.scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return; // a key held down rates one line
  const keys = keysOf(shown);
  const here = document.activeElement?.closest?.("fieldset")?.id;
  const value = Number(event.key);
  if (event.key.trim() && sheet.scale.includes(value)) {
    const key = here ?? keys.find((each) => !(each in ratings));
    if (!key) return;
    event.preventDefault();
    at(key).querySelectorAll("input")[sheet.scale.indexOf(value)].checked = true;
    rate(key, value);
    const following = keys[keys.indexOf(key) + 1];
    if (following) focusOn(following);
    else (at("next").disabled ? at("save") : at("next")).focus();
  } else if (event.key === "Backspace") {
    event.preventDefault();
    const before = here ? keys[keys.indexOf(here) - 1] : keys.at(-1);
    if (before) focusOn(before);
  }
});

// ---- files

function give(name, kind, text) {
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: kind })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  unsaved = false;
}

function table() { // a row an answer; null where there is no rating
  return sheet.dialogues.flatMap((one, index) => one.answers.map((_, answer) => {
    const row = { dialogue: index + 1, answer: sheet.letters[answer] };
    for (const name of names) row[name] = ratings[`${row.dialogue}-${row.answer}-${name}`] ?? null;
    return row;
  }));
}

function fileName(kind) {
  const part = doneIn(everyKey) < everyKey.length ? "-unfinished" : "";
  return `ratings-${sheet.rater}-${sheet.digest.slice(0, 8)}${part}.${kind}`;
}

at("save").addEventListener("click", () => {
  const told = { sheet: sheet.digest, rater: sheet.rater, ratings: table() };
  give(fileName("json"), "application/json", JSON.stringify(told, null, 1) + "\n");
});

at("csv").addEventListener("click", () => {
  const columns = ["sheet", "rater", "dialogue", "answer", ...names];
  const rows = table().map((row) => ({ sheet: sheet.digest, rater: sheet.rater, ...row }));
  const lines = rows.map((row) => columns.map((name) => row[name] ?? "").join(","));
  give(fileName("csv"), "text/csv", [columns.join(","), ...lines].join("\r\n") + "\r\n");
});

at("load").addEventListener("change", async (event) => {
  const file = event.target.files[0];
  if (!file) return;
  event.target.value = "";
  try {
    const told = JSON.parse(await file.text());
    if (told.sheet !== sheet.digest) throw new Error("it belongs to another sheet");
    const found = {};
    for (const row of told.ratings) for (const name of names) found[`${row.dialogue}-${row.answer}-${name}`] = row[name];
    const loaded = accept(found);
    const others = Object.keys(loaded).filter((line) => line in ratings && ratings[line] !== loaded[line]).length;
    if (others && !confirm(`${file.name} rates ${others} lines otherwise than this page does now. Take the file's ratings?`)) return;
    ratings = { ...ratings, ...loaded };
    warn("");
    remember();
    show(shown);
  } catch (error) {
    const why = error.constructor === Error ? error.message : "it is not what Save ratings gave";
    warn(`${file.name} could not be loaded: ${why}`);
  }
});

// ---- start

at("back").addEventListener("click", () => show(shown - 1));
at("next").addEventListener("click", () => show(shown + 1));
at("open").addEventListener("click", () => {
  const later = sheet.dialogues.findIndex((_, index) => index > shown && unfinished(index));
  show(later >= 0 ? later : sheet.dialogues.findIndex((_, index) => unfinished(index)));
});
window.addEventListener("storage", (event) => { // the same sheet in another tab
  if (event.key !== place) return;
  recall();
  show(shown, false);
});
window.addEventListener("beforeunload", (event) => {
  if (unsaved) event.preventDefault();
});

at("jumps").append(...sheet.dialogues.map((_, index) => {
  const button = make("button", { type: "button", textContent: index + 1 });
  button.addEventListener("click", () => show(index));
  return button;
}));
recall();
if (doneIn(everyKey)) at("about").open = false;
const first = sheet.dialogues.findIndex((_, index) => unfinished(index));
show(first >= 0 ? first : count - 1, false);
