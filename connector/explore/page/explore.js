/* The page of `semcut explore`.
 *
 * The page shows what `state` says, and `state` is stored in the fragment of the address. To change something, call
 * `navigate` with a change of the state; `show` then updates the page. `show` also runs when the user goes back in the
 * browser or opens a link. A request replaces an earlier request of the same kind: see `runLatest`. Ids are texts,
 * since they go up to 2^63 - 1 and numbers in JavaScript are exact up to 2^53 only.
 */

const SETTING_DELAY = 120; // milliseconds from the last change of a setting to the search
const MAX_K = 100;
const MAX_SHORTLIST = 100_000;
const MAX_UPLOAD = 16 << 20; // bytes, the server's limit
const FIRST_PARTITIONS = 12;
const PAGE_OF_PARTITIONS = 50;
const MEMBERS = 48;
const [MAX_KEY, MAX_DIGITS] = [1000, 19]; // characters of an id
const MAX_WHERE = 10_000; // characters of a filter, the server's limit
const SHOWN_ATTRIBUTES = 6; // of a record; its title has all
const SHOWN_TEXT = 60; // characters of a value
const NO_CUTOFF = -0.01; // the leftmost place of the slider
const INITIAL = {
  view: "search", id: null, image: null, k: 12, cutoff: 0.2, shortlist: 100, ranking: "distance", compare: false,
  only: false, where: null, partition: null, ambiguous: false,
};
const ABSENT = { shortlist: "all", cutoff: "none" }; // in the address, for null
const MARKS = { missed: "missed by the search", extra: "not found by brute force" };
const FAILURES = {
  stats: "The index could not be read",
  search: "The search failed",
  partitions: "The partitions could not be read",
  partition: "The partition could not be read",
};
const DIMMED_ELEMENTS = { search: "view-search", partitions: "partition-list", partition: "partition" };

let state = { ...INITIAL };
let stats = null;
let last = null; // the response that is shown, the settings of its search, and the key of these settings
let allShown = false; // whether all partitions of that answer are listed, not only the first ones
let shownMembers = null; // key of the partition whose records are shown: its number and `ambiguous`
let listed = []; // partitions that have been read
const uploads = []; // images that the user has chosen: { file, url }; `state.image` is the position, from 1
const running = new Map(); // kind of request -> its AbortController
let timer = 0;

/** An error whose message is shown to the user. */
class Failure extends Error {}

const $ = (id) => document.getElementById(id);
let errorSource = ""; // where the shown error comes from: a kind of request, or "input"

function showError(text, source = "input") {
  $("alert").textContent = text;
  errorSource = source;
}

const clamp = (value, least, most) => Math.min(most, Math.max(least, value));
const count = (number) => number.toLocaleString("en");
const counted = (number, one) => `${count(number)} ${one}${number === 1 ? "" : "s"}`;

function milliseconds(spent) {
  const precision = spent < 100 ? { maximumSignificantDigits: 2 } : { maximumFractionDigits: 0 };
  return `${spent.toLocaleString("en", precision)} ms`;
}

function percent(part, whole) {
  const share = whole ? (100 * part) / whole : 0;
  return share > 0 && share < 0.05 ? "under 0.1 %" : `${share.toLocaleString("en", { maximumFractionDigits: 1 })} %`;
}

/** Create an element; children are nodes or texts. */
function node(tag, attributes, ...children) {
  const created = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) created.setAttribute(name, value);
  created.append(...children);
  return created;
}

// Requests

async function request(path, signal, body) {
  const headers = { "content-type": "application/json" };
  const options = body ? { method: "POST", headers, body: JSON.stringify(body), signal } : { signal };
  let [response, content] = [null, null];
  try {
    response = await fetch(path, options);
    content = await response.json();
  } catch (error) {
    if (signal.aborted) throw error;
    if (response === null) throw new Failure("the server does not answer. Is semcut explore still running?");
  }
  signal.throwIfAborted();
  if (response.ok && content !== null) return content;
  if (response.status === 401) throw new Failure("the server requires its token: open /?token=TOKEN once.");
  if (typeof content?.error === "string") throw new Failure(content.error);
  throw new Failure(`the server answered with status ${response.status} and a response that cannot be read.`);
}

/** Start an asynchronous function and abort the running function of the same kind, if there is one. */
async function runLatest(kind, work) {
  running.get(kind)?.abort();
  const controller = new AbortController();
  const isLatest = () => running.get(kind) === controller;
  running.set(kind, controller);
  showBusy();
  try {
    await work(controller.signal);
    if (isLatest()) clearError(kind);
  } catch (error) {
    if (isLatest()) showFailure(kind, error);
  } finally {
    if (isLatest()) running.delete(kind);
    showBusy();
  }
}

/** Abort a request and hide its error: the page already shows what the state says. */
function cancel(kind) {
  running.get(kind)?.abort();
  running.delete(kind);
  clearError(kind);
}

function clearError(kind) {
  if (errorSource === kind) showError("");
  if (kind === "search") $("where-error").textContent = "";
  markStale(kind, false);
}

function showFailure(kind, error) {
  if (!(error instanceof Failure)) console.error(error);
  const reason = error instanceof Failure ? error.message : "the page has a bug; the browser's console has details.";
  if (kind === "search" && state.where !== null && reason.startsWith("where")) {
    if (errorSource === kind) showError("");
    $("where-error").textContent = reason;
  } else showError(`${FAILURES[kind]}: ${reason}`, kind);
  markStale(kind, true);
}

const markStale = (kind, stale) => $(DIMMED_ELEMENTS[kind])?.toggleAttribute("data-stale", stale);
const showBusy = () => (document.body.dataset.busy = String(timer !== 0 || running.size > 0));

// State

function stateToHash() {
  const parts = new URLSearchParams();
  for (const name of Object.keys(INITIAL)) {
    const value = state[name] ?? ABSENT[name] ?? null;
    if (value !== null && value !== false) parts.set(name, value === true ? "1" : String(value));
  }
  return `#${parts}`;
}

/** Read the state from the fragment of an address; missing and invalid values get their initial value. */
function stateFromHash(hash) {
  const given = new URLSearchParams(hash.slice(1));
  const text = (name, pattern) => (pattern.test(given.get(name) ?? "") ? given.get(name) : null);
  const whole = (name, least, most) => {
    const digits = text(name, /^\d{1,6}$/);
    return digits === null ? null : clamp(Number(digits), least, most);
  };
  const k = whole("k", 1, MAX_K) ?? INITIAL.k;
  const cutoff = text("cutoff", /^([01](\.\d{1,9})?|none)$/);
  const file = whole("image", 1, 1e6);
  const shortlist = whole("shortlist", 1, MAX_SHORTLIST) ?? INITIAL.shortlist;
  return {
    view: given.get("view") === "partitions" ? "partitions" : "search",
    id: text("id", /^\d{1,19}$/),
    image: uploads[file - 1] ? file : null, // a reloaded page has no files any more
    k,
    cutoff: cutoff === null ? INITIAL.cutoff : cutoff === "none" ? null : clamp(Number(cutoff), 0, 0.99),
    shortlist: given.get("shortlist") === "all" ? null : shortlist && Math.max(k, shortlist),
    ranking: rankingFrom(given.get("ranking")),
    compare: given.get("compare") === "1" && stats.comparable,
    partition: whole("partition", 0, 10_000),
    ambiguous: given.get("ambiguous") === "1",
    only: given.get("only") === "1",
    where: Object.keys(stats.attributes).length ? given.get("where")?.slice(0, MAX_WHERE).trim() || null : null,
  };
}

/** Write a cutoff; a small one, which a calibration may choose, with all its digits. */
function cutoffText(cutoff) {
  if (cutoff === null) return "none";
  return cutoff > 0 && cutoff < 0.01 ? String(cutoff) : cutoff.toFixed(2);
}

function rankingFrom(given) {
  const possible = ["distance", "relevance", ...(stats.normalised ? ["fused"] : [])];
  return possible.includes(given) ? given : INITIAL.ranking;
}

/** Change the state, the address and the page. With `replace`, the browser's history gets no new entry. */
function navigate(changes, { replace = false } = {}) {
  cancelTimer();
  clearError("input");
  Object.assign(state, changes);
  const hash = stateToHash();
  if (hash !== location.hash) history[replace ? "replaceState" : "pushState"](null, "", hash);
  show();
}

/** Change a setting; the search starts after a short time without further changes. */
function changeSetting(changes) {
  Object.assign(state, changes);
  if (state.shortlist !== null) state.shortlist = Math.max(state.shortlist, state.k);
  showControls();
  cancelTimer();
  timer = setTimeout(() => navigate({}, { replace: true }), SETTING_DELAY);
  showBusy();
}

function cancelTimer() {
  clearTimeout(timer);
  timer = 0;
}

const searchRecord = (id) => navigate({ view: "search", id, image: null });

function show() {
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const selected = tab.dataset.view === state.view;
    tab.setAttribute("aria-selected", String(selected));
    tab.tabIndex = selected ? 0 : -1;
    $(`view-${tab.dataset.view}`).hidden = !selected;
  }
  showControls();
  if (state.view === "search") showSearch();
  else showPartitions();
  showBusy();
}

function showControls() {
  const write = (id, value) => {
    if ($(id).value !== String(value)) $(id).value = value; // writing an equal value would move the cursor
  };
  write("cutoff", state.cutoff ?? NO_CUTOFF);
  $("cutoff-value").textContent = cutoffText(state.cutoff);
  write("k", state.k);
  $("shortlist").min = state.k;
  $("shortlist").disabled = $("shortlist-all").checked = state.shortlist === null;
  if (state.shortlist !== null) write("shortlist", state.shortlist);
  $("ranking").value = state.ranking;
  $("compare").checked = state.compare;
  $("only").checked = state.only;
  if (document.activeElement !== $("where")) write("where", state.where ?? "");
  $("ambiguous").checked = state.ambiguous;
}

// Cards

const picture = (id, size) => pictureAt(`/records/${id}/thumbnail?size=${size}`, size);

function pictureAt(url, size) {
  const created = node("img", { class: "picture", alt: "", loading: "lazy", decoding: "async" });
  created.addEventListener("load", () => {
    created.dataset.small = String(Math.max(created.naturalWidth, created.naturalHeight) < Math.min(65, size));
  });
  created.src = url;
  return created;
}

function probableClass({ name, probability }) {
  const share = node("span", { class: "share", "aria-hidden": "true" });
  share.style.setProperty("--share", clamp(probability, 0, 1));
  const label = node("span", { class: "name", title: name }, name);
  return node("span", { class: "likely" }, " ", label, " ", share, " ", probability.toFixed(2));
}

/** Write the value of an attribute as a filter has it. */
const attributeText = (value) => (Array.isArray(value) ? value.join(", ") : String(value));

/** Show some attributes that are not missing; the title of the element has all of them. */
function attributesOf({ attributes }) {
  const present = Object.entries(attributes).filter(([, value]) => value !== null);
  const shown = present.slice(0, SHOWN_ATTRIBUTES).flatMap(([name, value]) => {
    const text = attributeText(value);
    const short = text.length > SHOWN_TEXT ? `${text.slice(0, SHOWN_TEXT)}…` : text;
    return [" ", node("span", { class: "value" }, node("span", { class: "term" }, name), " ", node("span", {}, short))];
  });
  const more = present.length - SHOWN_ATTRIBUTES;
  if (more > 0) shown.push(" ", node("span", { class: "note" }, `and ${more} more`));
  return { shown, title: present.map(([name, value]) => `${name}: ${attributeText(value)}`).join("\n") };
}

/** Return the id of a record as users know it. */
const nameOf = ({ id, key }) => key ?? id;

function card(record, pictures, ...children) {
  const button = node("button", { type: "button", class: "card", "data-id": record.id, tabindex: "-1" });
  button.title = [`record ${nameOf(record)}`, attributesOf(record).title].filter(Boolean).join("\n");
  button.append(pictures.get(record.id) ?? picture(record.id, 160), ...children);
  return button;
}

function hitCard(hit, query, mark, pictures) {
  const [mostProbable] = hit.record.classes;
  const values = [["distance", hit.distance.toFixed(3)], ["relevance", hit.relevance.toFixed(3)]];
  if (hit.score !== null) values.push(["score", hit.score.toFixed(3)]);
  values.push(["Hamming", String(hit.hamming)]);
  const created = card(hit.record, pictures, node("span", { class: "name" }, mostProbable.name));
  for (const [term, value] of values) {
    created.append(" ", node("span", { class: "value" }, node("span", { class: "term" }, term), " ", value));
  }
  created.append(...attributesOf(hit.record).shown);
  created.dataset.other = String(mostProbable.partition !== query.classes[0].partition);
  if (mark) created.dataset.mark = mark;
  created.dataset.filled = String(hit.filled);
  const notes = [hit.record.id === query.id ? "the query" : null, hit.filled ? "not relevant" : null, MARKS[mark]];
  for (const note of notes) {
    if (note) created.append(" ", node("span", { class: "note" }, note));
  }
  return created;
}

const cardsOf = (grid) => [...grid.querySelectorAll(".card")];

/** Replace the cards of a grid. Its pictures are reused, so that they do not flicker, and the focus is kept. */
function fillGrid(grid, items, make) {
  const pictures = new Map(cardsOf(grid).map((one) => [one.dataset.id, one.querySelector("img")]));
  const cards = items.map((item) => make(item, pictures));
  const focused = grid.contains(document.activeElement) ? document.activeElement.dataset.id : null;
  grid.replaceChildren(...cards.map((one) => node("li", {}, one)));
  if (cards.length) cards[0].tabIndex = 0;
  if (focused !== null) (cards.find((one) => one.dataset.id === focused) ?? cards[0] ?? $("query-title")).focus();
}

/** Make the cards of a grid usable: a click searches; Tab reaches one card, and arrow keys move to the others. */
function addGridControls(grid) {
  grid.addEventListener("click", (event) => {
    const chosen = event.target.closest(".card");
    if (!chosen) return;
    const elsewhere = state.view !== "search";
    searchRecord(chosen.dataset.id);
    if (elsewhere) $("query-title").focus();
  });
  grid.addEventListener("focusin", (event) => {
    for (const one of cardsOf(grid)) one.tabIndex = one === event.target ? 0 : -1;
  });
  grid.addEventListener("keydown", (event) => {
    const cards = cardsOf(grid);
    const here = cards.indexOf(document.activeElement);
    if (here < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
    const columns = cards.filter((one) => one.offsetTop === cards[0].offsetTop).length;
    const targets = {
      ArrowLeft: here - 1, ArrowRight: here + 1, ArrowUp: here - columns, ArrowDown: here + columns,
      Home: 0, End: cards.length - 1,
    };
    if (event.key in targets) event.preventDefault();
    cards[targets[event.key]]?.focus();
  });
}

// Search

const searchKey = ({ id, image, k, cutoff, shortlist, ranking, compare, only, where }) =>
  JSON.stringify([id, image, k, cutoff, shortlist, ranking, compare, only, where]);

function showSearch() {
  if (state.id === null && state.image === null) searchRandom({ replace: true });
  else if (searchKey(state) === last?.key) cancel("search");
  else runLatest("search", search);
}

function searchRandom({ replace = false } = {}) {
  runLatest("search", async (signal) => {
    const seed = Math.floor(Math.random() * 2 ** 31);
    const { records } = await request(`/records?count=1&seed=${seed}`, signal);
    if (!records.length) throw new Failure("the index has no records.");
    navigate({ id: records[0].id, image: null }, { replace });
  });
}

/** Search with the record of an index whose ids are strings; the address has its number. */
function searchWithKey(key) {
  if (key === "") showError("Give the id of a record.");
  else runLatest("search", async (signal) => {
    const { id } = await request(`/record?${new URLSearchParams({ key })}`, signal);
    searchRecord(id);
  });
}

async function search(signal) {
  const settings = { ...state };
  const { id, image, k, cutoff, shortlist, ranking, compare, only, where } = settings;
  const query = image === null ? { id } : { image: await inBase64(uploads[image - 1].file) };
  const limit = cutoff === null ? { no_cutoff: true } : { cutoff };
  const asked = { ...query, ...limit, k, shortlist, ranking, fill: !only, where, compare, explain: true };
  const answer = await request("/search", signal, asked);
  last = { answer, settings, key: searchKey(settings) };
  showAnswer();
  if (answer.version !== stats.version) runLatest("stats", readStats);
}

function inBase64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Failure("the file cannot be read."));
    reader.readAsDataURL(file);
  });
}

function showAnswer() {
  const { answer, settings } = last;
  const { query, hits, compared } = answer;
  showQuery(query, settings);
  $("status").textContent = summary(answer);
  $("comparison").textContent = compared ? comparison(compared, settings) : "";
  const best = compared && new Set(compared.hits.map((hit) => hit.record.id));
  const missing = new Set(compared?.missing);
  const extra = ({ record }) => (best && !best.has(record.id) ? "extra" : null);
  const missed = ({ record }) => (missing.has(record.id) ? "missed" : null);
  fillGrid($("hits"), hits, (hit, pictures) => hitCard(hit, query, extra(hit), pictures));
  fillGrid($("brute"), compared?.hits ?? [], (hit, pictures) => hitCard(hit, query, missed(hit), pictures));
  $("brute-section").hidden = !compared;
  document.querySelector(".grids").dataset.compare = String(Boolean(compared));
  $("key").hidden = !document.querySelector(".grids [data-other=true]");
  $("none").hidden = hits.length > 0;
  const which = settings.where === null ? "No record" : "No record that matches the filter";
  $("none").textContent = `${which} has a relevance above ${cutoffText(settings.cutoff ?? 0)}.`;
  showPruning();
}

function showQuery(query, settings) {
  const { id, uri, classes, attributes } = query;
  const upload = settings.image === null ? null : uploads[settings.image - 1];
  const image = upload ? pictureAt(upload.url, 320) : picture(id, 320);
  image.alt = "Picture of the query";
  const file = upload ? upload.file.name : uri;
  $("query-picture").replaceChildren(image);
  $("query-id").textContent = upload ? "Your image" : `Record ${nameOf(query)}`;
  $("query-file").textContent = file === null ? "no file recorded" : file.split(/[\\/]/).pop();
  $("query-file").title = file ?? "";
  const { shown, title } = attributesOf({ attributes });
  $("query-attributes").replaceChildren(...shown);
  $("query-attributes").title = title;
  $("query-classes").replaceChildren(...classes.map((one) => node("li", {}, probableClass(one))));
  if (document.activeElement !== $("id-field") || $("id-field").value.trim() === "") $("id-field").value = nameOf(query) ?? "";
  document.title = upload ? "your image · semcut" : `record ${nameOf(query)} · semcut`;
}

function summary({ hits, done, partitions }) {
  const scanned = `${count(done.partitions)} of ${counted(partitions.length, "partition")}`;
  const share = percent(done.codes, done.records);
  const work = done.codes === null
    ? `${scanned}, ${counted(done.cells, "cell")}`
    : `${count(done.codes)} of ${counted(done.records, "record")} (${share}) in ${scanned}`;
  const filled = hits.filter((hit) => hit.filled).length;
  const found = filled ? `${count(hits.length - filled)} relevant, ${count(filled)} filled` : `${count(hits.length)} found`;
  return `${found} · scanned ${work} · ${milliseconds(done.milliseconds)}`;
}

function comparison({ hits, same, missing, milliseconds: spent }, settings) {
  let verdict = `Same records in ${same ? "the same" : "another"} order`;
  if (missing.length) {
    const all = settings.shortlist === null;
    const why = all ? "every relevant record was ranked, so none should differ" : "the shortlist left them out";
    verdict = `${missing.length} of ${hits.length} differ: ${why}`;
  }
  return `${verdict} · brute force took ${milliseconds(spent)}`;
}

function showPruning() {
  const { answer: { partitions }, settings } = last;
  const scale = Math.max(1, partitions[0]?.bound ?? 0); // with a prior, relevance can be above 1
  const shown = allShown ? partitions : partitions.slice(0, FIRST_PARTITIONS);
  $("partitions-of-query").style.setProperty("--cutoff", (settings.cutoff ?? 0) / scale);
  $("partitions-of-query").replaceChildren(...shown.map((one) => pruningRow(one, scale)));
  const button = $("partitions-all");
  button.hidden = partitions.length <= FIRST_PARTITIONS;
  button.setAttribute("aria-expanded", String(allShown));
  button.textContent = allShown ? `Show the first ${FIRST_PARTITIONS}` : `Show all ${count(partitions.length)}`;
}

function pruningRow({ partition, name, bound, records, cells, kept_records, kept_cells }, scale) {
  const counts = kept_records !== null; // null: the server does not count records
  const [kept, all] = counts ? [kept_records, records] : [kept_cells, cells];
  const bar = node("span", { class: "bound", "aria-hidden": "true" });
  bar.style.setProperty("--bound", clamp(bound / scale, 0, 1));
  bar.style.setProperty("--share", all ? clamp(kept / all, 0, 1) : 0);
  const link = node("button", { type: "button", class: "name", title: name, "data-partition": partition }, name);
  link.addEventListener("click", () => openPartition(partition));
  const done = kept_cells ? `scanned ${count(kept)} of ${counts ? count(all) : counted(all, "cell")}` : "pruned";
  const text = node("span", {}, `bound ${bound.toFixed(2)} · ${done}`);
  return node("li", { class: "pruned", "data-kept": String(kept_cells > 0) }, link, " ", bar, text);
}

function searchFile(file) {
  if (!file) return;
  if (!stats.images) showError("The network that made this index is not here, so images cannot be queries.");
  else if (!file.size) showError("This file is empty.");
  else if (file.size > MAX_UPLOAD) {
    const size = (file.size / 2 ** 20).toFixed(1);
    showError(`This file has ${size} MiB. At most ${MAX_UPLOAD >> 20} MiB are accepted.`);
  } else {
    uploads.push({ file, url: URL.createObjectURL(file) });
    navigate({ view: "search", id: null, image: uploads.length });
  }
}

// Partitions

function showPartitions() {
  const one = state.partition;
  $("partition-list").hidden = one !== null;
  $("partition").hidden = one === null;
  if (one !== null && shownMembers === `${one} ${state.ambiguous}`) cancel("partition");
  else if (one !== null) showPartition(one, state.ambiguous);
  else if (!listed.length) readPartitions();
}

function openPartition(partition) {
  navigate({ view: "partitions", partition });
  $("partition-title").focus();
}

function closePartition() {
  const { partition } = state;
  navigate({ partition: null });
  (document.querySelector(`#partitions [data-partition="${partition}"]`) ?? $("partitions-title")).focus();
}

function readPartitions() {
  runLatest("partitions", async (signal) => {
    const earlier = listed;
    const before = earlier.length;
    const { total, partitions } = await request(`/partitions?offset=${before}&limit=${PAGE_OF_PARTITIONS}`, signal);
    if (listed !== earlier) return; // the list was reset during the request
    const entries = partitions.map(partitionEntry);
    const focusNext = document.activeElement === $("partitions-more");
    listed = [...listed, ...partitions];
    if (before) $("partitions").append(...entries);
    else $("partitions").replaceChildren(...entries);
    $("partitions-status").textContent = `${count(listed.length)} of ${counted(total, "partition")}, largest first`;
    $("partitions-more").hidden = listed.length >= total || !partitions.length;
    if (focusNext) entries[0]?.firstChild.focus();
  });
}

function partitionEntry({ partition, name, records, cells, confidence, sample }) {
  const certainty = confidence === null ? "" : ` · mean confidence ${confidence.toFixed(2)}`;
  const sizes = `${counted(records, "record")} · ${counted(cells, "cell")}`;
  const facts = node("span", { class: "quiet" }, sizes + certainty);
  const text = node("span", {}, node("strong", {}, name), " ", node("br", {}), facts);
  const pictures = node("span", { class: "samples" }, ...sample.map((id) => picture(id, 64)));
  const button = node("button", { type: "button", "data-partition": partition }, text, pictures);
  button.addEventListener("click", () => openPartition(partition));
  return node("li", {}, button);
}

function showPartition(partition, ambiguous) {
  if ($("partition").dataset.partition !== String(partition)) {
    $("partition-status").textContent = "";
    $("members").replaceChildren();
  }
  $("partition").dataset.partition = partition;
  shownMembers = null;
  $("partition-title").textContent = stats.classes[partition] ?? `partition ${partition}`;
  runLatest("partition", async (signal) => {
    const path = `/partitions/${partition}?limit=${MEMBERS}&ambiguous=${ambiguous}`;
    const { records, total } = await request(path, signal);
    fillGrid($("members"), records, (record, pictures) => card(record, pictures, ...record.classes.map(probableClass)));
    const some = `${count(records.length)} of ${counted(total, "record")}`;
    $("partition-status").textContent = some + (ambiguous ? ", least certain first" : "");
    shownMembers = `${partition} ${ambiguous}`;
  });
}

// Start

async function readStats(signal) {
  stats = await request("/stats", signal);
  const { records, partitions, bits, images, normalised, comparable, cutoff, ranking, shortlist, attributes } = stats;
  INITIAL.cutoff = cutoff;
  INITIAL.shortlist = shortlist;
  INITIAL.ranking = ranking;
  const inUse = `${counted(partitions, "partition")} in use`;
  $("facts").textContent = `${counted(records, "record")} · ${inUse} · ${bits} bits`;
  $("drop").hidden = !images;
  $("no-images").hidden = images;
  const names = Object.entries(attributes).map(([name, type]) => `${name} (${type})`);
  $("where-field").hidden = !names.length;
  $("where-help").textContent = `Such as ${Object.keys(attributes)[0]} is not null. Attributes: ${names.join(", ")}.`;
  $("id-field").maxLength = stats.keys ? MAX_KEY : MAX_DIGITS;
  $("id-field").inputMode = stats.keys ? "text" : "numeric";
  $("ranking").querySelector("[value=fused]").disabled = !normalised;
  $("compare").disabled = !comparable;
  for (const [id, possible] of [["ranking", normalised], ["compare", comparable]]) {
    $(`${id}-reason`).hidden = possible;
    $(id).setAttribute("aria-describedby", possible ? "" : `${id}-reason`); // a screen reader would read hidden text
  }
  listed = []; // the list described another version of the index
  shownMembers = null;
}

async function start(signal) {
  await readStats(signal);
  $("empty").hidden = stats.records > 0;
  if (!stats.records) return;
  listen();
  readAddress();
}

function readAddress() {
  cancelTimer();
  state = stateFromHash(location.hash);
  show();
}

/** Follow a number field while its value is valid; correct the value when the user leaves the field. */
function listenToNumber(id, least, most) {
  const field = $(id);
  field.addEventListener("input", () => {
    const value = Number(field.value);
    if (field.value && Number.isInteger(value) && value >= least() && value <= most) changeSetting({ [id]: value });
  });
  field.addEventListener("change", () => {
    const value = Math.round(Number(field.value));
    changeSetting({ [id]: field.value && Number.isFinite(value) ? clamp(value, least(), most) : state[id] });
  });
}

function listen() {
  $("cutoff").addEventListener("input", () => {
    const value = Number($("cutoff").value);
    changeSetting({ cutoff: value < 0 ? null : value });
  });
  listenToNumber("k", () => 1, MAX_K);
  listenToNumber("shortlist", () => state.k, MAX_SHORTLIST);
  $("shortlist-all").addEventListener("change", () => {
    changeSetting({ shortlist: $("shortlist-all").checked ? null : Number($("shortlist").value) || INITIAL.shortlist || 100 });
  });
  $("ranking").addEventListener("change", () => changeSetting({ ranking: $("ranking").value }));
  $("only").addEventListener("change", () => changeSetting({ only: $("only").checked }));
  $("where").addEventListener("change", () => changeSetting({ where: $("where").value.trim() || null }));
  $("compare").addEventListener("change", () => changeSetting({ compare: $("compare").checked }));
  $("ambiguous").addEventListener("change", () => navigate({ ambiguous: $("ambiguous").checked }, { replace: true }));
  $("random").addEventListener("click", () => searchRandom());
  $("id-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (stats.keys) {
      searchWithKey($("id-field").value);
      return;
    }
    const id = $("id-field").value.trim().replace(/^0+(?=\d)/, "");
    if (/^\d{1,19}$/.test(id)) searchRecord(id);
    else showError("An id is a whole number from 0 to 9223372036854775807.");
  });
  $("partitions-all").addEventListener("click", () => {
    allShown = !allShown;
    showPruning();
  });
  $("partitions-more").addEventListener("click", readPartitions);
  $("partitions-back").addEventListener("click", closePartition);
  for (const id of ["hits", "brute", "members"]) addGridControls($(id));
  window.addEventListener("hashchange", readAddress);
  listenToTabs();
  listenToFiles();
}

function listenToTabs() {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  for (const [place, tab] of tabs.entries()) {
    tab.addEventListener("click", () => navigate({ view: tab.dataset.view }));
    tab.addEventListener("keydown", (event) => {
      const to = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: -1 }[event.key];
      if (to === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      const next = tabs.at(to % tabs.length);
      navigate({ view: next.dataset.view });
      next.focus();
    });
  }
}

/** Accept files dropped anywhere on the page: a browser would open a file that is dropped outside of the drop zone. */
function listenToFiles() {
  $("upload").addEventListener("change", () => {
    searchFile($("upload").files[0]);
    $("upload").value = ""; // so that choosing the same file again is an event, too
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      $("drop").dataset.over = String(kind === "dragover");
      if (kind === "drop") searchFile(event.dataTransfer.files[0]);
    });
  }
}

runLatest("stats", start);
