"use strict";
(() => {
  const { cells, reasons } = JSON.parse(document.getElementById("data").textContent);
  const dialog = document.getElementById("trials");
  const content = dialog.querySelector(".content");
  const heading = document.getElementById("trials-title");
  const SVG = "http://www.w3.org/2000/svg";

  const element = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const drawn = (name, attributes = {}, text = null) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== null) made.textContent = text;
    return made;
  };
  const percent = (share) => (share === null ? "-" : (100 * share).toFixed(2));
  const count = (number) => (number === null ? "-" : String(number));

  // Sorting: descending, ascending, as it was. What is no number stands last.
  const valueOf = (row, column) => {
    const text = row.cells[column].textContent.trim();
    if (column === 0) return text;
    const found = text.match(/[-+]?\d+\.\d+/) || text.match(/[-+]?\d+/);
    return found === null || /^(missing|not )/.test(text) ? null : Number(found[0]);
  };
  const compare = (first, second, sign) => {
    if (first === null || second === null) return (first === null) - (second === null);
    return sign * (typeof first === "string" ? first.localeCompare(second) : first - second);
  };
  for (const table of document.querySelectorAll("main table")) {
    const body = table.tBodies[0];
    const asItWas = [...body.rows];
    const headers = [...table.tHead.rows[0].cells];
    headers.forEach((header, column) => {
      header.querySelector("button").addEventListener("click", () => {
        const first = column === 0 ? "ascending" : "descending";
        const second = column === 0 ? "descending" : "ascending";
        const now = header.getAttribute("aria-sort");
        const next = now === "none" ? first : now === first ? second : "none";
        headers.forEach((each) => each.setAttribute("aria-sort", "none"));
        header.setAttribute("aria-sort", next);
        const sign = next === "ascending" ? 1 : -1;
        const rows = [...asItWas];
        if (next !== "none") rows.sort((a, b) => compare(valueOf(a, column), valueOf(b, column), sign));
        body.append(...rows);
      });
    });
  }

  // Round numbers between two shares, four to eight of them.
  const ticks = (low, high) => {
    const step = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2].find((each) => (high - low) / each <= 8) || 0.25;
    const found = [];
    for (let number = Math.ceil(low / step - 1e-9); number * step <= high + 1e-9; number += 1) found.push(number * step);
    return found;
  };

  // Curves: a line a seed, the chosen one in colour, the mean of all dotted.
  const chart = (cell, quantity, title, chosen, level) => {
    const [width, height, left, right, top, bottom] = [380, 210, 44, 10, 10, 30];
    const lines = cell.trials.map((trial) =>
      trial.rounds.map((round, position) => [round, trial[quantity][position]]).filter((point) => point[1] !== null));
    const points = lines.flat();
    if (points.length === 0) return null;
    const values = points.map((point) => point[1]).concat(level === null ? [] : [level]);
    let [low, high] = [Math.min(...values), Math.max(...values)];
    const room = Math.max(0.01, (high - low) * 0.08);
    [low, high] = [Math.max(0, low - room), Math.min(1, high + room)];
    const last = Math.max(1, ...points.map((point) => point[0]));
    const x = (round) => left + (round / last) * (width - left - right);
    const y = (value) => top + ((high - value) / (high - low)) * (height - top - bottom);
    const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title} over rounds` });
    for (const value of ticks(low, high)) {
      svg.append(drawn("line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }));
      svg.append(drawn("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, String(Math.round(1000 * value) / 10)));
    }
    const every = Math.ceil((last + 1) / 11);
    for (let round = 0; round <= last; round += every) {
      svg.append(drawn("text", { x: x(round), y: height - 12, "text-anchor": "middle" }, String(round)));
    }
    if (level !== null) svg.append(drawn("line", { class: "level", x1: left, x2: width - right, y1: y(level), y2: y(level) }));
    const path = (line) => line.map(([round, value], position) => `${position ? "L" : "M"}${x(round).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    const order = lines.map((_, position) => position).sort((a, b) => (a === chosen) - (b === chosen));
    for (const position of order) {
      const line = drawn("path", { class: position === chosen ? "seed chosen" : "seed", d: path(lines[position]) });
      line.append(drawn("title", {}, `seed ${cell.trials[position].seed}`));
      svg.append(line);
    }
    for (const [round, value] of lines[chosen]) svg.append(drawn("circle", { class: "dot", cx: x(round), cy: y(value), r: 3 }));
    const full = lines.filter((line) => line.length === Math.max(...lines.map((each) => each.length)));
    if (full.length > 1) {
      const mean = full[0].map(([round], position) => [round, full.reduce((sum, line) => sum + line[position][1], 0) / full.length]);
      svg.append(drawn("path", { class: "mean", d: path(mean) }));
    }
    return element("figure", {}, svg, element("figcaption", {}, `${title} in percent, over rounds`));
  };

  const commandOf = (trial) => {
    if (trial.command === null) return element("p", {}, "The settings of this trial are not known here.");
    const code = element("code", {}, trial.command);
    const copy = element("button", { type: "button", class: "copy" }, "Copy");
    copy.addEventListener("click", async () => {
      const range = document.createRange();
      range.selectNodeContents(code);
      const selection = window.getSelection();
      selection.removeAllRanges();
      selection.addRange(range);
      if (navigator.clipboard) {
        await navigator.clipboard.writeText(trial.command).then(() => { copy.textContent = "Copied"; }, () => {});
      }
    });
    return element("div", { class: "command" }, code, copy);
  };

  // The queried images: a row of tiles a query, cut out of the trial's one picture.
  const queriesOf = (trial) => {
    if (trial.why !== undefined) return [element("p", {}, `The queried images are not shown: ${reasons[trial.why]}.`)];
    if (trial.images === undefined) return [];
    const { src, size, width, rounds } = trial.images;
    const isJudged = rounds.some((round) => round[3].length > 0);
    const words = "Framed: OOD, a wasted label." + (isJudged ? " Number: purity, ID minus OOD score." : "");
    const box = element("div", { class: size < 16 ? "queries tiny" : "queries" });
    box.style.setProperty("--picture", `url("${src}")`);
    box.style.setProperty("--columns", width);
    rounds.forEach(([round, asked, ood, purity], row) => {
      const tiles = [...ood].map((digit, column) => {
        const kind = digit === "1" ? "OOD" : "ID";
        const judged = purity.length ? purity[column].toFixed(2) : null;
        const label = `${kind}${judged === null ? "" : `, purity ${judged}`}`;
        const image = element("span", { class: "tile", role: "img", "aria-label": label, title: label });
        image.style.setProperty("--column", column);
        image.style.setProperty("--row", row);
        return element("span", { class: kind === "OOD" ? "query ood" : "query" }, image, ...(judged === null ? [] : [judged]));
      });
      const precision = trial.precision[trial.rounds.indexOf(round)];
      const wanted = precision == null ? "" : `${Math.round(precision * asked)} of ${asked} wanted`;
      const more = asked > ood.length ? `, first ${ood.length}` : "";
      box.append(element("p", {}, element("b", {}, `Query ${round}`), ` ${wanted}${more}`), element("div", { class: "tiles" }, ...tiles));
    });
    const probe = new Image();
    probe.addEventListener("error", () => box.replaceChildren(element("p", {}, "The images lie in the folder queries beside this page, and could not be loaded.")));
    probe.src = src;
    return [element("h3", {}, `What seed ${trial.seed} asked for, most wanted first`), element("p", {}, words), box];
  };

  const COLUMNS = [
    ["AUBC", (trial) => percent(trial.aubc)],
    ["AUBC / n", (trial) => percent(trial.aubc_paper)],
    ["last accuracy", (trial) => percent(trial.last_accuracy)],
    ["mean precision", (trial) => percent(trial.mean_precision)],
    ["labels", (trial) => count(trial.num_labels)],
    ["wasted", (trial) => count(trial.num_wasted)],
    ["seconds", (trial) => (trial.seconds === null ? "-" : trial.seconds.toFixed(1))],
    ["status", (trial) => trial.status],
  ];

  const show = (cell, chosen) => {
    const head = element("tr", {}, ...["seed", ...COLUMNS.map((column) => column[0])].map((text) => element("th", { scope: "col" }, text)));
    const rows = cell.trials.map((trial, position) => {
      const pick = element("button", { type: "button", class: "pick", "aria-pressed": String(position === chosen) }, String(trial.seed));
      pick.addEventListener("click", () => {
        show(cell, position);
        content.querySelectorAll(".pick")[position].focus();
      });
      return element("tr", { "aria-selected": String(position === chosen) }, element("th", { scope: "row" }, pick),
        ...COLUMNS.map((column) => element("td", {}, column[1](trial))));
    });
    const trial = cell.trials[chosen];
    const charts = element("div", { class: "charts" });
    for (const [quantity, title, level] of [["accuracy", "Test accuracy", null], ["precision", "Precision of the query", cell.uniform]]) {
      const made = chart(cell, quantity, title, chosen, level);
      if (made !== null) charts.append(made);
    }
    content.replaceChildren(
      element("div", { class: "scroll" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows))),
      charts);
    if (charts.childElementCount > 0) {
      content.append(element("p", {}, `In colour: seed ${trial.seed}. Grey: the other seeds. Dotted: the mean of the seeds that got furthest. Dashed: 1 - OOD ratio.`));
    }
    if (trial.error !== null) content.append(element("h3", {}, `Why seed ${trial.seed} failed`), element("p", { class: "error" }, trial.error));
    content.append(...queriesOf(trial));
    content.append(element("h3", {}, `Run seed ${trial.seed} again`), commandOf(trial));
  };

  const open = (number) => {
    heading.textContent = cells[number].title;
    show(cells[number], 0);
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  };
  document.querySelector("main").addEventListener("click", (event) => {
    const button = event.target.closest("button[data-cell]");
    if (button !== null) open(Number(button.dataset.cell));
  });
  // What is folded opens for a link to it, and on paper.
  const unfold = (id) => document.querySelector(`#${CSS.escape(id)} > details`)?.setAttribute("open", "");
  document.querySelector("nav").addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (link !== null) unfold(link.hash.slice(1));
  });
  if (location.hash) unfold(location.hash.slice(1));
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => each.setAttribute("open", "")));
  // A running grid's page is written again and again; whoever reads a trial is not disturbed.
  const reload = Number(document.body.dataset.reload);
  if (reload) setInterval(() => { if (!dialog.open) location.reload(); }, 1000 * reload);
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
})();
