"use strict";
// The page: one image at a time, or a grid of those that the model takes for the same. The server holds all answers;
// what is kept here is only what the screen shows.

const $ = (id) => document.getElementById(id);
const view = { data: null, at: 0, mode: "single", group: null, out: new Set(), batches: [], busy: false };
const clock = { since: null, spent: 0 };

// ---- time: from when an image is on the screen, without the time in which the page is hidden

function startClock() { clock.spent = 0; clock.since = document.hidden ? null : performance.now(); }
function seconds() { return (clock.spent + (clock.since === null ? 0 : performance.now() - clock.since)) / 1000; }
document.addEventListener("visibilitychange", () => {
  if (document.hidden && clock.since !== null) { clock.spent += performance.now() - clock.since; clock.since = null; }
  else if (!document.hidden && clock.since === null) clock.since = performance.now();
});

// ---- the server

async function ask(path, body) {
  const options = body === undefined ? {} :
    { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try { answer = await fetch(path, options); } catch {
    throw new Error("Not saved: the program that keeps the answers has ended. Start it again and open the address that it prints.");
  }
  if (answer.ok) return answer.json();
  const text = await answer.text();
  let detail = text;
  try { detail = JSON.parse(text).detail; } catch { /* plain text */ }
  throw new Error(typeof detail === "string" && detail ? detail : `The program answered ${answer.status}.`);
}

function trouble(error) { $("trouble").textContent = error ? error.message : ""; $("trouble").hidden = !error; }

async function once(work) {
  // A key pressed while an answer is being saved would answer an image that nobody has seen.
  if (view.busy) return;
  view.busy = true;
  try { await work(); trouble(null); } catch (error) { trouble(error); } finally { view.busy = false; }
}

function keep(items, answer, paid) {
  return once(async () => {
    await ask("answers", items.map((item) => ({ image: item.image, answer, seconds: answer === null ? null : paid / items.length })));
    for (const item of items) { item.answer = answer; item.seconds = answer === null ? null : paid / items.length; }
    if (answer !== null) view.batches.push(items);
    say(answer === null ? "taken back" : items.length > 1 ? `${items.length} \u00d7 ${answer}` : answer);
    draw(answer !== null);
  });
}

// ---- facts

const items = () => view.data.items;
const open = () => items().filter((item) => item.answer === null);
const wantedNames = () => view.data.answers.slice(0, -2).map((each) => each.name);
const none = () => view.data.answers[view.data.answers.length - 2].name;
const unsure = () => view.data.answers[view.data.answers.length - 1].name;
const guessOf = (item) => item.wanted < 0.5 ? none() : item.predicted;
const percent = (value) => `${Math.round(value * 100)} %`;

function pace() {
  const paid = items().map((item) => item.seconds).filter((each) => typeof each === "number").sort((a, b) => a - b);
  if (!paid.length) return null;
  const half = paid.length >> 1;
  return { median: paid.length % 2 ? paid[half] : (paid[half - 1] + paid[half]) / 2, sum: paid.reduce((a, b) => a + b, 0) };
}

function duration(total) {
  const whole = Math.round(total);
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

// ---- drawing

function draw(move) {
  const total = items().length, done = total - open().length;
  $("folder").textContent = view.data.folder;
  $("round").textContent = `round ${view.data.round}`;
  $("count").textContent = `${done} of ${total}`;
  document.title = `${done} of ${total} \u00b7 ${view.data.folder}`;
  const bar = document.querySelector(".progress");
  bar.setAttribute("aria-valuemax", total); bar.setAttribute("aria-valuenow", done);
  bar.firstElementChild.style.width = `${total ? 100 * done / total : 100}%`;
  const speed = pace();
  $("pace").textContent = speed ? `${speed.median.toFixed(1)} s per label` : "";
  if (move) {
    if (!open().length) view.mode = "done";
    else if (view.mode === "single") view.at = following(view.at);
  }
  if (view.mode === "grid" && !open().length) view.mode = "done";
  for (const mode of ["single", "grid", "done"]) $(mode).hidden = view.mode !== mode;
  $("footer").hidden = view.mode === "done";
  $("to-grid").hidden = view.mode === "done";
  $("to-grid").setAttribute("aria-pressed", view.mode === "grid");
  ({ single: drawSingle, grid: drawGrid, done: drawDone })[view.mode]();
}

function following(at) {
  const order = [...items().keys()];
  return [...order.slice(at + 1), ...order.slice(0, at + 1)].find((place) => items()[place].answer === null) ?? at;
}

function drawSingle() {
  const item = items()[view.at], photo = $("photo");
  const source = `images/${item.image}?size=large`;
  if (photo.getAttribute("src") !== source) {
    photo.className = "waiting";
    photo.src = source;
    photo.alt = `image ${view.at + 1} of ${items().length}`;
    $("broken").hidden = true;
    clock.since = null;
  }
  const copies = item.copies ? `; stands for ${item.copies} near-${item.copies > 1 ? "copies" : "copy"}` : "";
  $("reason").textContent = item.reason + copies;
  $("border").hidden = !item.border;
  $("name").textContent = item.name;
  $("nearest").hidden = !item.nearest;
  if (item.nearest) {
    $("nearest").querySelector("img").src = `images/${item.nearest.image}?size=small`;
    $("nearest").querySelector("figcaption").textContent = `the most alike so far: ${item.nearest.answer}`;
  }
  const sure = item.wanted < 0.5 ? 1 - item.wanted : item.probability;
  drawAnswers(guessOf(item), sure, percent(sure), item.answer);
  $("selection").hidden = true;
  $("back").disabled = !canGoBack();
  for (let ahead = 1, place = view.at; ahead <= 3; ahead++) { // the next pictures are there when they are wanted
    place = following(place);
    new Image().src = `images/${items()[place].image}?size=large`;
  }
}

function drawAnswers(guess, sure, figure, given) {
  $("answers").classList.toggle("many", view.data.answers.length > 10);
  $("answers").replaceChildren(...view.data.answers.map(({ name, key }) => {
    const button = document.createElement("button"), label = document.createElement("span");
    button.type = "button";
    button.title = name;
    label.textContent = name;
    if (key) { const cap = document.createElement("kbd"); cap.textContent = key; button.append(cap); }
    button.append(label);
    if (name === none() || name === unsure()) button.classList.add("other");
    if (name === given) { button.classList.add("given"); button.setAttribute("aria-pressed", "true"); }
    if (name === guess) {
      button.classList.add("guess");
      button.style.setProperty("--sure", percent(sure));
      const share = document.createElement("small");
      share.textContent = figure;
      button.append(share);
    }
    button.addEventListener("click", () => give(name));
    return button;
  }));
}

function groups() {
  const found = new Map();
  for (const name of [...wantedNames(), none()]) {
    const members = open().filter((item) => guessOf(item) === name);
    if (members.length) found.set(name, members);
  }
  return found;
}

function chosen() { return (groups().get(view.group) ?? []).filter((item) => !view.out.has(item.image)); }

function drawGrid() {
  const all = groups();
  if (!all.has(view.group)) { view.group = all.keys().next().value; startClock(); $("tiles").scrollTop = 0; }
  $("groups").replaceChildren(...[...all].map(([name, members]) => {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("role", "tab");
    button.setAttribute("aria-selected", name === view.group);
    button.textContent = `${name === none() ? "probably none" : name} ${members.length}`;
    button.addEventListener("click", () => { view.group = name; startClock(); draw(); });
    return button;
  }));
  const number = all.get(view.group).length; // few pictures are shown larger
  $("tiles").style.setProperty("--tile", number <= 6 ? "16rem" : number <= 15 ? "12rem" : "9.5rem");
  const focused = document.activeElement?.dataset?.image;
  $("tiles").replaceChildren(...all.get(view.group).map((item) => {
    const tile = document.createElement("button"), picture = document.createElement("img"), sure = document.createElement("small");
    tile.type = "button";
    tile.className = "tile";
    tile.dataset.image = item.image;
    tile.title = `${item.name}: ${item.reason}`;
    tile.setAttribute("aria-pressed", !view.out.has(item.image));
    picture.src = `images/${item.image}?size=small`;
    picture.alt = item.name;
    picture.loading = "lazy";
    sure.textContent = percent(view.group === none() ? 1 - item.wanted : item.probability);
    tile.append(picture, sure);
    tile.addEventListener("click", () => toggle(item, tile));
    return tile;
  }));
  if (focused) $("tiles").querySelector(`[data-image="${focused}"]`)?.focus();
  drawSelection();
}

function drawSelection() {
  const number = chosen().length;
  $("selection").textContent = number ? `${number} chosen: give all of them a class; press an image to leave it out` : "none chosen";
  $("selection").hidden = false;
  drawAnswers(view.group, number / groups().get(view.group).length, `${number}`, null);
  $("back").disabled = !canGoBack();
}

function toggle(item, tile) {
  if (!view.out.delete(item.image)) view.out.add(item.image);
  tile.setAttribute("aria-pressed", !view.out.has(item.image));
  drawSelection();
}

function drawDone() {
  const counts = new Map(view.data.answers.map(({ name }) => [name, 0]));
  for (const item of items()) counts.set(item.answer, counts.get(item.answer) + 1);
  const found = items().length - counts.get(none()) - counts.get(unsure());
  $("done-title").textContent = `Round ${view.data.round} is done`;
  $("done-found").textContent = `${found} of ${items().length} show one of your classes. ` +
    `${Math.round(view.data.expected)} were expected; of as many drawn at random, about ${Math.round(view.data.random)} would.`;
  const most = Math.max(1, ...counts.values());
  $("done-bars").replaceChildren(...[...counts].flatMap(([name, number]) => {
    const label = document.createElement("span"), track = document.createElement("div"), bar = document.createElement("i"), figure = document.createElement("span");
    label.textContent = name;
    figure.textContent = number;
    bar.style.width = `${100 * number / most}%`;
    if (name === none() || name === unsure()) bar.className = "other";
    track.append(bar);
    return [label, track, figure];
  }));
  const speed = pace();
  $("done-pace").textContent = `${(view.before + items().length).toLocaleString("en")} of ${view.data.images.toLocaleString("en")} images are labelled` +
    (speed ? `; ${speed.median.toFixed(1)} s per label in this round, ${duration(speed.sum)} in all.` : ".");
  $("next").disabled = false;
  $("next").firstChild.textContent = "Next batch ";
}

function say(text) {
  const said = $("said");
  said.textContent = text;
  said.classList.remove("shown");
  void said.offsetWidth; // restarts the animation
  said.classList.add("shown");
}

// ---- what a person does

function give(answer) {
  if (view.mode === "grid") {
    const batch = chosen();
    if (batch.length) keep(batch, answer, seconds()).then(startClock);
    return;
  }
  const isShown = !$("photo").classList.contains("waiting") || !$("broken").hidden;
  if (view.mode === "single" && isShown) keep([items()[view.at]], answer, seconds());
}

function canGoBack() { return view.batches.length > 0 || (view.mode === "single" && view.at > 0); }

function back() {
  if (view.mode === "grid") {
    const last = view.batches.at(-1);
    if (last) keep(last, null, 0).then(() => { if (last[0].answer === null) view.batches.pop(); });
    return;
  }
  if (view.mode === "done") { view.mode = "single"; view.at = items().length - 1; draw(); return; }
  const last = view.batches.at(-1);
  if (last && last.length === 1 && last[0] !== items()[view.at]) { view.batches.pop(); view.at = items().indexOf(last[0]); }
  else if (view.at > 0) view.at -= 1;
  draw();
}

function forward() {
  if (view.mode !== "single") return;
  if (view.at < items().length - 1) { view.at += 1; draw(); }
  else if (!open().length) { view.mode = "done"; draw(); }
}

function toGrid() {
  if (view.mode === "grid") { view.mode = "single"; view.at = following(-1); }
  else if (open().length) { view.mode = "grid"; view.out.clear(); startClock(); }
  draw();
}

function nextBatch() {
  once(async () => {
    showRanking();
    await ask("next", { after: view.data.round });
    await ranked();
  }).finally(() => { if (view.mode === "done") drawDone(); });
}

async function ranked() {
  let progress;
  while ((progress = await ask("progress")).ranking) await new Promise((resolve) => setTimeout(resolve, 300));
  if (progress.failure) throw new Error(progress.failure);
  take(await ask("state"));
}

function showRanking() {
  $("next").disabled = true;
  $("next").firstChild.textContent = "Ranking the rest\u2026 ";
}

function take(data) {
  view.data = data;
  view.before = data.labelled - (data.items.length - open().length); // labels of earlier rounds
  view.batches = [];
  view.out.clear();
  view.group = null;
  view.mode = open().length ? "single" : "done";
  view.at = following(-1);
  draw();
}

function findClass() {
  $("find-text").value = "";
  listFound();
  $("find").showModal();
}

function matches() {
  const text = $("find-text").value.toLowerCase();
  const names = view.data.answers.map((each) => each.name);
  const starts = names.filter((name) => name.toLowerCase().startsWith(text));
  return [...starts, ...names.filter((name) => !starts.includes(name) && name.toLowerCase().includes(text))];
}

function listFound() {
  $("found").replaceChildren(...matches().map((name) => {
    const row = document.createElement("li"), button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.addEventListener("click", () => { $("find").close(); give(name); });
    row.append(button);
    return row;
  }));
}

function moveFocus(key) {
  const tiles = [...$("tiles").children], at = tiles.indexOf(document.activeElement);
  const columns = Math.max(1, tiles.filter((tile) => tile.offsetTop === tiles[0].offsetTop).length);
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
  tiles[at < 0 ? 0 : Math.min(tiles.length - 1, Math.max(0, at + step))]?.focus();
}

function gridKey(key) {
  const names = [...groups().keys()];
  if (key.startsWith("Arrow")) moveFocus(key);
  else if (key === "a") {
    const members = groups().get(view.group), isAll = members.every((item) => !view.out.has(item.image));
    for (const item of members) isAll ? view.out.add(item.image) : view.out.delete(item.image);
    draw();
  } else if (key === "[" || key === "]") {
    view.group = names[(names.indexOf(view.group) + (key === "]" ? 1 : names.length - 1)) % names.length];
    startClock();
    draw();
  } else if (key === "Enter") give(view.group);
  else return false;
  return true;
}

function singleKey(key) {
  if (key === "ArrowLeft") back();
  else if (key === "ArrowRight") forward();
  else if (key === "Enter") give(guessOf(items()[view.at]));
  else return false;
  return true;
}

function doneKey(key) {
  if (key === "Enter") nextBatch();
  else if (key === "ArrowLeft") back();
  else return false;
  return true;
}

document.addEventListener("keydown", (event) => {
  if (!view.data || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.repeat && !event.key.startsWith("Arrow")) { event.preventDefault(); return; } // a key held down is one answer
  // Enter on a button that has the focus presses that button, and Space a tile.
  if (event.key === "Enter" && document.activeElement?.matches("header button, #back, #review, .groups button")) return;
  const byKey = view.data.answers.find((each) => each.key && each.key === event.key.toLowerCase());
  let used = true;
  if (event.key === "Backspace") back();
  else if (byKey && view.mode !== "done") give(byKey.name);
  else if (event.key === "g" && view.mode !== "done") toGrid();
  else if (event.key === "h") document.body.classList.toggle("no-hints");
  else if (event.key === "/") findClass();
  else if (event.key === "?") $("help").showModal();
  else used = { single: singleKey, grid: gridKey, done: doneKey }[view.mode](event.key);
  if (used) event.preventDefault();
});

$("photo").addEventListener("load", () => {
  const photo = $("photo");
  photo.style.maxWidth = `${photo.naturalWidth * 10}px`; // small pictures are enlarged, but not to mush
  photo.style.maxHeight = `${photo.naturalHeight * 10}px`;
  photo.className = "";
  startClock();
});
$("photo").addEventListener("error", () => { $("broken").hidden = false; startClock(); });
$("to-grid").addEventListener("click", toGrid);
$("to-help").addEventListener("click", () => $("help").showModal());
$("back").addEventListener("click", back);
$("review").addEventListener("click", back);
$("next").addEventListener("click", nextBatch);
$("find-text").addEventListener("input", listFound);
$("find").querySelector("form").addEventListener("submit", () => { const [first] = matches(); if (first) give(first); });

once(async () => {
  take(await ask("state"));
  if (view.data.ranking) { showRanking(); await ranked(); }
});
