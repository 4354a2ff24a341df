// Lakeward's status page: asks the daemon every second and draws what it says.
//
// Whatever comes from the daemon holds names and values of somebody's database, so it is only ever
// set as text (textContent, value, an encoded fragment of a link), never as markup.
"use strict";

const EVERY = 1000;        // milliseconds between two questions
const PATIENCE = 8000;     // an answer that takes longer is none
const REORDER = 4000;      // rows sorted by what changes all the time move no more often
const URGENCY = ["stopped", "gap", "snapshot", "staged", "paused", "live", "dropped"];
const KINDS = { postgres: "PostgreSQL", mysql: "MySQL, MariaDB", mongodb: "MongoDB" };

// ---- the look: before the body is drawn, so that nothing flashes ---------------------------------

const THEMES = ["auto", "light", "dark"];
const theme = {
  read() { try { return localStorage.getItem("theme") || "auto"; } catch { return "auto"; } },
  set(name) {
    if (name === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    try { localStorage.setItem("theme", name); } catch { /* it lasts as long as the page */ }
  },
};
theme.set(THEMES.includes(theme.read()) ? theme.read() : "auto");

// ---- numbers and times as people read them -------------------------------------------------------

const grouped = new Intl.NumberFormat("en-US");
const NOTHING = "–";
const count = (n) => (n == null ? NOTHING : grouped.format(n));
const rate = (n) => (n == null ? NOTHING : n > 0 && n < 9.95 ? n.toFixed(1) : grouped.format(Math.round(n)));
const plural = (n, one, many) => `${count(n)} ${n === 1 ? one : many}`;

function size(bytes) {
  if (bytes == null) return NOTHING;
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (bytes >= 999.5 && unit < units.length - 1) { bytes /= 1000; unit += 1; }
  return `${unit > 0 && bytes < 9.95 ? bytes.toFixed(1) : Math.round(bytes)} ${units[unit]}`;
}

function span(ms) {
  if (ms == null) return NOTHING;
  const s = ms / 1000;
  if (s < 9.95) return `${s < 0.05 ? 0 : s.toFixed(1)} s`;
  if (s < 120) return `${Math.round(s)} s`;
  if (s < 7200) return `${Math.floor(s / 60)} min ${Math.floor(s) % 60} s`;
  if (s < 172800) return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
  return `${Math.floor(s / 86400)} days`;
}

const short = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : span(ms));

/** The same without what nobody needs of something long ago. */
function age(ms) {
  const s = Math.max(Math.floor(ms / 1000), 0);
  return s < 120 ? `${s} s` : s < 7200 ? `${Math.floor(s / 60)} min` : s < 172800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} days`;
}

const ago = (ms, now) => (ms == null ? NOTHING : `${age(now - ms)} ago`);
const clock = (ms) => new Date(ms).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

// ---- small tools for the document ----------------------------------------------------------------

const $ = (id) => document.getElementById(id);
const put = (node, text) => { if (node.textContent !== text) node.textContent = text; return node; };
const mark = (node, name, value) => { if (node.getAttribute(name) !== value) node.setAttribute(name, value); };

// Said aloud, for on a phone a table is laid out as cards, and would no longer be taken for one.
const ROLES = { table: "table", thead: "rowgroup", tbody: "rowgroup", tr: "row", th: "columnheader", td: "cell" };

function make(tag, className = "", ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (ROLES[tag]) node.setAttribute("role", ROLES[tag]);
  node.append(...children);
  return node;
}

function draw(tag, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

const state = (node, word, more = "") => {
  put(node, word);
  const name = `state is-${word} ${more}`.trim();
  if (node.className !== name) node.className = name;
  return node;
};

/** Brings the children of `parent` into the order of `wanted`, moving no more than it must. */
function arrange(parent, wanted) {
  const keep = new Set(wanted);
  for (const child of [...parent.children]) if (!keep.has(child)) child.remove();
  wanted.forEach((node, at) => { if (parent.children[at] !== node) parent.insertBefore(node, parent.children[at] ?? null); });
}

/** A list of terms: `facts(dl, [[term, text, remark], …])`; what has no text is left out. */
function facts(list, items) {
  const shown = items.filter(([, text]) => text != null);
  while (list.children.length > shown.length) list.lastChild.remove();
  shown.forEach(([term, text, remark], at) => {
    const pair = list.children[at] ?? list.appendChild(make("div", "", make("dt"), make("dd", "", make("span"), " ", make("small"))));
    const [head, body] = pair.children;
    put(head, term);
    put(body.firstChild, text);
    put(body.lastChild, remark ?? "");
  });
}

function spark(svg, numbers) {
  const key = numbers.join();
  if (svg.dataset.key === key) return;
  svg.dataset.key = key;
  const most = Math.max(...numbers, 1);
  const point = (n, at) => `${((at + 30 - numbers.length) * 118 / 29).toFixed(1)} ${(21 - (19 * n) / most).toFixed(1)}`;
  const line = numbers.map(point).join("L");
  const first = ((30 - numbers.length) * 118 / 29).toFixed(1);
  svg.children[0].setAttribute("d", numbers.length ? `M${first} 22L${line}L118 22Z` : "");
  svg.children[1].setAttribute("d", numbers.length ? `M${line}` : "");
}

const newSpark = () => {
  const svg = draw("svg", { class: "spark", viewBox: "0 0 118 22", "aria-hidden": "true" });
  svg.append(draw("path", { class: "fill" }), draw("path", { class: "edge" }));
  return svg;
};

/** What a snapshot has read: a bar where its end is known, and words. */
function reading(node, table) {
  const of = table.snapshot;
  node.hidden = !of;
  if (!of) return;
  if (!node.children.length) node.append(make("progress"), make("span"));
  const [bar, words] = node.children;
  bar.hidden = of.total == null || of.rows === 0;
  if (of.total != null) { bar.max = of.total; bar.value = of.rows; mark(bar, "aria-label", "Rows read"); }
  const parts = [];
  if (of.rows === 0 && of.keys === 0) parts.push(of.total == null ? "waits to be read" : `about ${plural(of.total, "row", "rows")} wait to be read`);
  else if (of.total != null) parts.push(`${Math.floor((100 * of.rows) / of.total)} %`, `${count(of.rows)} of about ${count(of.total)} rows`);
  else if (of.rows > 0) parts.push(`${plural(of.rows, "row", "rows")} read`);
  if (of.keys > 0) parts.push(`${plural(of.keys, "row", "rows")} to read again`);
  if (table.rows_per_s > 0) parts.push(`${rate(table.rows_per_s)} rows/s`);
  if (of.left_s != null) parts.push(`about ${age(of.left_s * 1000)} left`);
  put(words, parts.join(" · "));
}

/** An error in two parts: what happened, and what to do about it. */
function trouble(node, problem, now, mild) {
  node.hidden = !problem;
  if (!problem) return;
  node.className = mild ? "trouble mild" : "trouble";
  if (!node.children.length) node.append(make("p", "what"), make("p", "do"), make("p", "when num"));
  const [what, todo, when] = node.children;
  put(what, problem.what);
  put(todo, problem.remedy ? `What to do: ${problem.remedy}` : "");
  todo.hidden = !problem.remedy;
  const next = problem.retry_ms == null ? "" : problem.retry_ms > now ? `; tried again in ${age(problem.retry_ms - now)}` : "; being tried again";
  put(when, `${ago(problem.at_ms, now)}${next}`);
}

const link = (source, table) => `#/${encodeURIComponent(source)}/${encodeURIComponent(table)}`;

/** A table's name, its schema less loud; the schema ends at the first dot that is not escaped. */
function parts(name) {
  const found = /^((?:[^.\\]|\\.)*\.)(.*)$/s.exec(name);
  return found ? [found[1], found[2]] : ["", name];
}

// ---- the overview --------------------------------------------------------------------------------

const COLUMNS = [
  { key: "name", head: "Table", cell: "name left", up: true, of: (t) => t.name },
  { key: "state", head: "State", cell: "c-state left", up: true, of: (t) => URGENCY.indexOf(t.state) },
  { key: "lag", head: "Lag", cell: "c-lag", of: (t) => t.lag_ms, text: (t) => span(t.lag_ms) },
  { key: "changes", head: "Changes/s", cell: "c-changes", of: (t) => t.changes_per_s, text: (t) => rate(t.changes_per_s) },
  { key: "spark", head: "Last 2 min", cell: "c-spark", of: (t) => t.changes },
  { key: "rows", head: "Rows", cell: "c-rows", of: (t) => t.rows, text: (t) => count(t.rows) },
  { key: "size", head: "Size", cell: "c-size", of: (t) => t.bytes, text: (t) => size(t.bytes) },
  { key: "files", head: "Files", cell: "c-files", of: (t) => t.files, text: (t) => count(t.files) },
  { key: "amp", head: "Write ×", cell: "c-amp", of: (t) => t.amplification, text: (t) => (t.amplification == null ? NOTHING : rate(t.amplification)), title: "Bytes written for each byte of rows that came" },
  { key: "commit", head: "Last commit", cell: "c-commit", of: (t) => t.commit_ms },
];
const VOLATILE = ["lag", "changes", "spark", "commit"];

const view = { sort: "state", up: true, filter: "", only: "all", data: null, moved: 0, order: "" };
const sections = new Map();

function newSection(source) {
  const head = make("tr");
  for (const column of COLUMNS) {
    const button = make("button", "", column.head);
    button.type = "button";
    if (column.title) button.title = column.title;
    button.addEventListener("click", () => sortBy(column));
    const cell = make("th", column.cell.replace("name ", ""), button);
    cell.scope = "col";
    cell.dataset.key = column.key;
    head.append(cell);
  }
  const caption = make("caption", "sr");
  const table = make("table", "", caption, make("thead", "", head));
  const title = make("span"), kind = make("span", "kind"), standing = make("span");
  const list = make("dl", "facts"), problem = make("div", "trouble");
  const places = make("dl", "mono");
  const positions = make("details", "places", make("summary", "", "Positions in the log"), places);
  const root = make("section", "source", make("header", "", make("h2", "", title, kind, standing), list), problem, positions, table);
  problem.setAttribute("role", "alert");
  put(title, source.name);
  put(caption, `Tables of ${source.name}`);
  return { root, kind, standing, list, problem, places, positions, table, head, rows: new Map() };
}

function newRow(source, table) {
  const cells = {}, row = make("tr");
  for (const column of COLUMNS) {
    const first = column.key === "name";
    const cell = make(first ? "th" : "td", column.cell);
    if (first) mark(cell, "role", "rowheader"); else if (column.key !== "state") cell.dataset.label = column.head;
    cells[column.key] = cell;
    row.append(cell);
  }
  const [schema, name] = parts(table.name);
  const anchor = make("a", "", make("span", "", schema), name);
  anchor.href = link(source, table.name);
  cells.name.append(anchor);
  cells.name.title = table.name;
  const word = make("span");
  cells.state.append(word);
  const chart = newSpark();
  cells.spark.append(chart);
  const when = make("span"), version = make("span", "rest");
  cells.commit.append(when, " ", version);
  const why = make("div", "why"), progress = make("div", "reading");
  const cell = make("td", "", why, progress);
  cell.colSpan = 6;  // As many as are never hidden: one that spans more would make columns of its own.
  const note = make("tr", "note", cell);
  return { body: make("tbody", "table", row, note), cells, word, chart, when, version, why, progress, note };
}

// What of a table is durable, and not seen by readers.
function waits(table) {
  if (table.state === "paused") return `${plural(table.staged, "change waits", "changes wait")} for lakeward resume`;
  if (!table.staged) return "";
  return `${plural(table.staged, "change is", "changes are")} durable and not merged yet; readers see an earlier position`;
}

function fillRow(row, table, now) {
  state(row.word, table.state);
  for (const { key, text } of COLUMNS) {
    if (!text) continue;
    const shown = text(table);
    put(row.cells[key], shown);
    row.cells[key].classList.toggle("zero", shown === NOTHING || shown === "0");
  }
  spark(row.chart, table.spark);
  put(row.when, ago(table.commit_ms, now));
  put(row.version, table.version == null ? "" : `v${table.version}`);
  row.body.classList.toggle("lost", isLost(table));
  row.note.hidden = !table.reason && !table.snapshot && !table.staged && table.state !== "paused";
  const why = table.reason ?? waits(table);
  put(row.why, why);
  row.why.hidden = !why;
  reading(row.progress, table);
}

function fillSection(section, source, tables, now) {
  put(section.kind, KINDS[source.kind] ?? source.kind);
  state(section.standing, source.state, "pill");
  facts(section.list, [
    ["Lag", span(source.lag_ms), source.lag_bytes == null ? "" : `${size(source.lag_bytes)} of log`],
    ["Log kept", source.log_retained_bytes == null ? null : size(source.log_retained_bytes), "by the server, for Lakeward"],
    ["Log reaches back", source.log_window_s == null ? null : span(source.log_window_s * 1000), "before what is durable"],
    ["Changes/s", rate(source.changes_per_s)],
    ["Rows/s", source.rows_per_s > 0 ? rate(source.rows_per_s) : null],
    ["Epoch", source.epoch > 0 ? count(source.epoch) : NOTHING, source.flushed_ms == null ? "" : `${ago(source.flushed_ms, now)}, took ${short(source.flush_took_ms)}`],
    ["Restarts", source.restarts > 0 ? count(source.restarts) : null],
  ]);
  trouble(section.problem, source.problem, now, source.state === "retrying");
  section.positions.hidden = !source.read;
  if (section.positions.open) {
    if (!section.places.children.length) section.places.append(make("dt", "", "read"), make("dd"), make("dt", "", "durable"), make("dd"));
    put(section.places.children[1], source.read);
    put(section.places.children[3], source.durable || NOTHING);
  }
  for (const cell of section.head.children) {
    if (cell.dataset.key === view.sort) mark(cell, "aria-sort", view.up ? "ascending" : "descending");
    else cell.removeAttribute("aria-sort");
  }
  const known = new Set(source.tables.map((t) => t.name));
  for (const name of [...section.rows.keys()]) if (!known.has(name)) section.rows.delete(name);
  for (const table of tables) {
    if (!section.rows.has(table.name)) section.rows.set(table.name, newRow(source.name, table));
    fillRow(section.rows.get(table.name), table, now);
  }
}

function sortBy(column) {
  const same = view.sort === column.key;
  view.up = same ? !view.up : !!column.up;
  view.sort = column.key;
  view.moved = 0;
  redraw();
}

function sorted(tables) {
  const { of } = COLUMNS.find((column) => column.key === view.sort);
  const way = view.up ? 1 : -1;
  return [...tables].sort((a, b) => {
    const [x, y] = [of(a), of(b)];
    if (x == null || y == null) return (x == null) - (y == null) || a.name.localeCompare(b.name);
    const found = typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
    return way * found || a.name.localeCompare(b.name, undefined, { numeric: true });
  });
}

const isDown = (source) => source.state === "failed" || source.state === "retrying";
const isLost = (table) => table.state === "stopped" || table.state === "gap";
const matches = (source, table) =>
  (view.only === "all" || table.state === view.only) &&
  view.filter.split(/\s+/).every((word) => `${source.name} ${table.name}`.toLowerCase().includes(word));

function summarise(data, tables) {
  const down = data.sources.filter(isDown).length, lost = tables.filter(isLost).length;
  const busy = tables.filter((t) => t.state === "snapshot").length;
  const starting = data.sources.filter((s) => s.state === "starting").length;
  const wrong = [];
  if (down) wrong.push(`${plural(down, "source", "sources")} can’t be followed`);
  if (lost) wrong.push(`${plural(lost, "table needs", "tables need")} attention`);
  let words = tables.length === 1 ? "The table is live" : `All ${count(tables.length)} tables are live`;
  if (wrong.length) words = wrong.join(", ");
  else if (!data.sources.length) words = "No source is configured";
  else if (starting) words = "Starting";
  else if (!tables.length) words = "No table matches the configuration yet";
  else if (busy) words = `${plural(busy, "table is", "tables are")} being read, ${count(tables.length - busy)} live`;
  put($("summary"), words);
  document.title = wrong.length ? `(!) ${words} – Lakeward` : "Lakeward";
  const lags = data.sources.map((s) => s.lag_ms).filter((ms) => ms != null);
  const sum = (of) => tables.reduce((all, table) => all + (of(table) ?? 0), 0);
  facts($("figures"), [
    ["Greatest lag", lags.length ? span(Math.max(...lags)) : NOTHING],
    ["Changes a second", rate(data.sources.reduce((all, s) => all + s.changes_per_s, 0))],
    ["Tables", count(tables.length)],
    ["Rows in the lake", count(sum((t) => t.rows))],
    ["Data files", count(sum((t) => t.files)), size(sum((t) => t.bytes))],
  ]);
}

function chips(tables) {
  const words = ["all", ...URGENCY.filter((word) => word === view.only || tables.some((t) => t.state === word))];
  const bar = $("chips");
  const wanted = words.map((word) => {
    let chip = bar.querySelector(`[data-word="${word}"]`);
    if (!chip) {
      chip = make("button", "", make("span", `dot is-${word}`), word, make("b"));
      chip.type = "button";
      chip.dataset.word = word;
      chip.addEventListener("click", () => { view.only = view.only === word ? "all" : word; view.moved = 0; redraw(); });
    }
    mark(chip, "aria-pressed", String(view.only === word));
    put(chip.lastChild, count(word === "all" ? tables.length : tables.filter((t) => t.state === word).length));
    return chip;
  });
  arrange(bar, wanted);
}

function overview(data) {
  const tables = data.sources.flatMap((source) => source.tables);
  summarise(data, tables);
  chips(tables);
  const urgency = (source) => (isDown(source) ? 0 : source.tables.some(isLost) ? 1 : 2);
  const sources = [...data.sources].sort((a, b) => urgency(a) - urgency(b) || a.name.localeCompare(b.name));
  const narrowed = view.filter !== "" || view.only !== "all";
  // Rows may move when somebody asked for it, when a table is in another state, or now and then.
  const order = [view.sort, view.up, view.filter, view.only, ...tables.map((t) => t.name + t.state)].join("\n");
  const move = order !== view.order || !VOLATILE.includes(view.sort) || data.now_ms - view.moved > REORDER;
  if (move) [view.order, view.moved] = [order, data.now_ms];
  const roots = [];
  for (const source of sources) {
    if (!sections.has(source.name)) sections.set(source.name, newSection(source));
    const section = sections.get(source.name), shown = source.tables.filter((table) => matches(source, table));
    fillSection(section, source, shown, data.now_ms);
    section.table.hidden = shown.length === 0;
    if (move) arrange(section.table, [...[...section.table.children].slice(0, 2), ...sorted(shown).map((t) => section.rows.get(t.name).body)]);
    if (shown.length || !narrowed) roots.push(section.root);
  }
  arrange($("sources"), roots);
  $("none").hidden = !narrowed || roots.length > 0;
  put($("version"), `v${data.version}`);
  put($("uptime"), `up for ${age(data.now_ms - data.started_ms)}`);
}

const redraw = () => { if (view.data) overview(view.data); };

// ---- the page of a table -------------------------------------------------------------------------

const MINUTES = 5;
let detail = null;

function newDetail(source, name) {
  const [schema, short] = parts(name);
  const back = make("a", "crumb", "← All tables"), word = make("span"), path = make("p", "path mono");
  back.href = "#/";
  const title = make("h1", "", make("span", "", make("span", "schema", `${source} / ${schema}`), short), word);
  const why = make("div", "trouble"), progress = make("div", "reading"), cards = make("dl", "cards");
  const chart = draw("svg", { role: "img", "aria-label": "Changes a second and lag of the last five minutes" });
  const said = make("figcaption", "");
  const figure = make("figure", "charts", chart, said);
  const head = make("tr", "", ...["Epoch", "Version", "Time", "Rows in", "Rows out", "Took"].map((text) => make("th", "", text)));
  for (const cell of head.children) cell.scope = "col";
  const commits = make("tbody"), none = make("p", "none", "None since the daemon started.");
  const list = make("div", "commits", make("table", "", make("caption", "sr", "Recent commits"), make("thead", "", head), commits), none);
  list.tabIndex = 0;
  const page = { source, name, word, path, why, progress, cards, chart, said, commits, none, at: null };
  chart.addEventListener("pointermove", (event) => { page.at = event.offsetX; if (page.data) charts(page, page.data); });
  chart.addEventListener("pointerleave", () => { page.at = null; if (page.data) charts(page, page.data); });
  $("detail").replaceChildren(back, title, path, make("div", "sheet", why, progress, cards),
    make("div", "sheet", make("h2", "", `The last ${MINUTES} minutes`), figure), make("div", "sheet", make("h2", "", "Recent commits"), list));
  return page;
}

function fillDetail(page, of) {
  page.data = of;
  document.title = `${of.name} – Lakeward`;
  state(page.word, of.state, "pill");
  put(page.path, of.path);
  const down = of.source_state === "following" ? null : `The source is not being followed: ${of.source_state}.`;
  const what = of.reason ?? down;
  trouble(page.why, what && { what, at_ms: of.since_ms, retry_ms: null }, of.now_ms, !isLost(of));
  reading(page.progress, of);
  facts(page.cards, [
    ["Lag", span(of.lag_ms)],
    ["Changes/s", rate(of.changes_per_s), `${count(of.changes)} since the start`],
    ["Rows", count(of.rows)],
    ["Size", size(of.bytes), of.files == null ? "" : plural(of.files, "file", "files")],
    ["Write amplification", of.amplification == null ? NOTHING : `× ${rate(of.amplification)}`, `${size(of.new_bytes)} new, ${size(of.copied_bytes)} copied`],
    ["Last commit", ago(of.commit_ms, of.now_ms), of.version == null ? "" : `version ${count(of.version)}`],
    ["Verified", of.verified && { equal: "equal", different: `${plural(of.verified.differences, "difference", "differences")}${of.verified.more ? " or more" : ""}`, skipped: "not compared" }[of.verified.outcome], of.verified && `${ago(of.verified.at_ms, of.now_ms)}${of.verified.reason ? `: ${of.verified.reason}` : of.verified.repaired ? ", repaired" : ""}`],
    ["Staged", of.staged > 0 ? count(of.staged) : null, "durable, not merged yet"],
    ["In this state", age(of.now_ms - of.since_ms)],
  ]);
  arrange(page.commits, of.commits.map((commit) => {
    const key = `${commit.epoch} ${commit.version}`;
    const row = page.commits.querySelector(`[data-key="${key}"]`) ?? make("tr", "", ...Array.from({ length: 6 }, () => make("td")));
    row.dataset.key = key;
    [count(commit.epoch), count(commit.version), `${clock(commit.at_ms)} (${ago(commit.at_ms, of.now_ms)})`, count(commit.rows_in), count(commit.rows_out), short(commit.took_ms)]
      .forEach((text, at) => put(row.children[at], text));
    return row;
  }));
  page.none.hidden = of.commits.length > 0;
  page.commits.parentNode.hidden = !of.commits.length;
  charts(page, of);
}

/** A round number not below `most`: the top of an axis. */
function ceiling(most) {
  const step = 10 ** Math.floor(Math.log10(Math.max(most, 1)));
  return [1, 2, 5, 10].map((n) => n * step).find((n) => n >= most);
}

/** Two panels, one above the other, with one axis of time that ends now. */
function charts(page, { history: { every_ms: every, changes, rows, lag_ms: lag }, now_ms: now, lag_ms: known }) {
  const width = Math.max(page.chart.clientWidth, 240), slots = (MINUTES * 60000) / every, left = 52, high = 96, gap = 44;
  const step = (width - left) / slots, x = (at, length) => width - (length - at) * step;
  const rates = changes.map((n) => (n * 1000) / every), reads = rows.map((n) => (n * 1000) / every);
  const nodes = [];
  const panel = (y, title, most, text) => {
    nodes.push(draw("text", { class: "title", x: 0, y: y - 10 }));
    put(nodes.at(-1), title);
    for (const part of [0, 0.5, 1]) {
      nodes.push(draw("line", { class: "grid", x1: left, x2: width, y1: y + high * (1 - part), y2: y + high * (1 - part) }));
      nodes.push(put(draw("text", { x: left - 8, y: y + high * (1 - part) + 4, "text-anchor": "end" }), text(most * part)));
    }
  };
  const most = ceiling(Math.max(...rates, ...reads, 1)), worst = ceiling(Math.max(...lag, 1000) / 1000) * 1000;
  panel(24, reads.some((n) => n > 0) ? "Changes and rows read, a second" : "Changes a second", most, (n) => (n >= 10000 ? `${n / 1000} k` : String(n)));
  const bars = (numbers, name) => numbers.forEach((n, at) => {
    const tall = (high * n) / most;
    if (n > 0) nodes.push(draw("rect", { class: name, x: x(at, numbers.length), y: 24 + high - Math.max(tall, 1), width: step < 4 ? step : step - 0.8, height: Math.max(tall, 1) }));
  });
  bars(reads, "bar rows");
  bars(rates, "bar");
  const floor = 24 + high + gap;
  panel(floor, "Lag", worst, (ms) => (ms >= 120000 ? `${ms / 60000} min` : `${ms / 1000} s`));
  const curve = lag.map((ms, at) => `${(x(at, lag.length) + step / 2).toFixed(1)} ${(floor + high - (high * ms) / worst).toFixed(1)}`);
  if (curve.length) {
    const ends = curve.map((point) => point.split(" ")[0]);
    nodes.push(draw("path", { class: "under", d: `M${ends[0]} ${floor + high}L${curve.join("L")}L${ends.at(-1)} ${floor + high}Z` }), draw("path", { class: "curve", d: `M${curve.join("L")}` }));
  }
  for (let minute = 0; minute <= MINUTES; minute += 1) {
    const words = minute === MINUTES ? "now" : `−${MINUTES - minute} min`;
    nodes.push(put(draw("text", { x: left + ((width - left) * minute) / MINUTES, y: floor + high + 20, "text-anchor": minute === MINUTES ? "end" : minute ? "middle" : "start" }), words));
  }
  const back = page.at == null || page.at < left ? null : Math.floor((width - page.at) / step), at = changes.length - 1 - (back ?? 0);
  if (back != null) nodes.push(draw("line", { class: "hair", x1: page.at, x2: page.at, y1: 24, y2: floor + high }));
  put(page.said, `${clock(now - (back ?? 0) * every)}: ${rate(rates[at] ?? 0)} changes/s, ${reads[at] > 0 ? `${rate(reads[at])} rows/s read, ` : ""}${known == null ? "" : `lag ${span(lag[at] ?? 0)}`}`.replace(/, $/, ""));
  mark(page.chart, "height", String(floor + high + 28));
  page.chart.replaceChildren(...nodes);
}

// ---- asking, every second ------------------------------------------------------------------------

const route = () => location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map((part) => { try { return decodeURIComponent(part); } catch { return part; } });
let waiting = 0, turn = 0, heard = null;

function beat(on, words) {
  $("beat").className = on ? "beat on" : "beat off";
  put($("beat-text"), words);
}

async function ask() {
  clearTimeout(waiting);
  const mine = ++turn, [source, table] = route(), one = table !== undefined;
  try {
    const path = one ? `/api/tables/${encodeURIComponent(source)}/${encodeURIComponent(table)}` : "/api/status";
    const answer = await fetch(path, { signal: AbortSignal.timeout(PATIENCE), cache: "no-store" });
    if (!answer.ok && !(one && answer.status === 404)) throw new Error(String(answer.status));
    const data = await answer.json();
    if (mine !== turn) return;
    // Shown first: a chart is as wide as its place.
    $("overview").hidden = one;
    $("detail").hidden = !one;
    if (!one) overview(view.data = data);
    else if (!answer.ok) { detail = newDetail(source, table); trouble(detail.why, { what: "There is no such table here.", at_ms: Date.now() }, Date.now()); }
    else fillDetail(detail?.source === source && detail.name === table ? detail : (detail = newDetail(source, table)), data);
    heard = Date.now();
    beat(true, "live");
  } catch (error) {
    if (mine !== turn) return;
    beat(false, heard ? `no answer; as of ${clock(heard)}` : "the daemon does not answer");
    if (!(error instanceof TypeError || error instanceof DOMException)) console.error(error);
  }
  waiting = setTimeout(ask, document.hidden ? 10 * EVERY : EVERY);
}

addEventListener("DOMContentLoaded", () => {
  const button = $("theme"), name = () => put(button, theme.read().replace(/^./, (first) => first.toUpperCase()));
  name();
  button.addEventListener("click", () => { theme.set(THEMES[(THEMES.indexOf(theme.read()) + 1) % 3]); name(); });
  const filter = $("filter");
  filter.addEventListener("input", () => { view.filter = filter.value.trim().toLowerCase(); view.moved = 0; redraw(); });
  $("skip").addEventListener("click", (event) => { event.preventDefault(); $("main").focus(); });
  addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== filter && !$("overview").hidden) { event.preventDefault(); filter.focus(); }
    if (event.key === "Escape" && document.activeElement === filter) { filter.value = ""; filter.dispatchEvent(new Event("input")); }
  });
  addEventListener("hashchange", () => { scrollTo(0, 0); ask(); });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
  ask();
});
