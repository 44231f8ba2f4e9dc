/* The page of `semcut explore`.
 *
 * What is shown follows `state`, and `state` is the hash of the address: to change something, change the state with
 * `go`; `show` does the rest, also when the browser goes back or a link is opened. Work of one kind replaces earlier
 * work of that kind: see `latest`. Ids are texts throughout, since they go up to 2^63 - 1 and numbers here to 2^53.
 */

const WAIT = 120; // milliseconds after a change of a setting
const MAX_K = 100;
const MAX_SHORTLIST = 100_000;
const MAX_UPLOAD = 16 << 20; // bytes, the server's limit
const FIRST_PARTITIONS = 12;
const PAGE_OF_PARTITIONS = 50;
const MEMBERS = 48;
const INITIAL = {
  view: "search", id: null, image: null, k: 12, cutoff: 0.2, shortlist: 100, ranking: "distance", compare: false,
  partition: null, ambiguous: false,
};
const MARKS = { missed: "missed by the search", extra: "not in brute force" };
const FAILED = {
  stats: "The index could not be looked at",
  search: "The search was not done",
  partitions: "The partitions could not be read",
  partition: "The partition could not be read",
};
const DIMMED = { search: "view-search", partitions: "partition-list", partition: "partition" };

let state = { ...INITIAL };
let stats = null;
let last = null; // what is shown: an answer, what was asked, and its key
let allShown = false; // whether every partition of that answer is listed
let members = null; // whose members are shown: a partition and `ambiguous`
let listed = []; // partitions that were read
const uploads = []; // images of this page: { file, url }; `state.image` counts them from 1
const running = new Map(); // kind of work -> its AbortController
let timer = 0;

/** An error whose message is for people. */
class Failure extends Error {}

const $ = (id) => document.getElementById(id);
let complainedOf = ""; // the kind of work that failed, or the user's input

function complain(text, of = "input") {
  $("alert").textContent = text;
  complainedOf = of;
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

/** An element; children are nodes or texts. */
function node(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// Requests

async function ask(path, signal, body) {
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
  if (response.status === 401) throw new Failure("the server wants a token: open /?token=TOKEN with the one it has.");
  if (typeof content?.error === "string") throw new Failure(content.error);
  throw new Failure(`the server answered with status ${response.status} and nothing that can be read.`);
}

/** Do work of a kind, in place of what is running of that kind. */
async function latest(kind, work) {
  running.get(kind)?.abort();
  const controller = new AbortController();
  const current = () => running.get(kind) === controller;
  running.set(kind, controller);
  tellBusy();
  try {
    await work(controller.signal);
    if (current()) recover(kind);
  } catch (error) {
    if (current()) fail(kind, error);
  } finally {
    if (current()) running.delete(kind);
    tellBusy();
  }
}

/** What is shown is what is wanted: whatever runs or failed since does not matter. */
function cancel(kind) {
  running.get(kind)?.abort();
  running.delete(kind);
  recover(kind);
}

function recover(kind) {
  if (complainedOf === kind) complain("");
  dim(kind, false);
}

function fail(kind, error) {
  if (!(error instanceof Failure)) console.error(error);
  const reason = error instanceof Failure ? error.message : "the page has a mistake; the browser's console says more.";
  complain(`${FAILED[kind]}: ${reason}`, kind);
  dim(kind, true);
}

const dim = (kind, stale) => $(DIMMED[kind])?.toggleAttribute("data-stale", stale);
const tellBusy = () => (document.body.dataset.busy = String(timer !== 0 || running.size > 0));

// State

function toHash() {
  const parts = new URLSearchParams();
  for (const name of Object.keys(INITIAL)) {
    const value = name === "shortlist" ? (state.shortlist ?? "all") : state[name];
    if (value !== null && value !== false) parts.set(name, value === true ? "1" : String(value));
  }
  return `#${parts}`;
}

/** The state that a hash stands for; what it lacks, or has wrong, is as at first. */
function fromHash(hash) {
  const given = new URLSearchParams(hash.slice(1));
  const text = (name, pattern) => (pattern.test(given.get(name) ?? "") ? given.get(name) : null);
  const whole = (name, least, most) => {
    const digits = text(name, /^\d{1,6}$/);
    return digits === null ? null : clamp(Number(digits), least, most);
  };
  const k = whole("k", 1, MAX_K) ?? INITIAL.k;
  const cutoff = text("cutoff", /^[01](\.\d{1,9})?$/);
  const file = whole("image", 1, 1e6);
  const shortlist = whole("shortlist", 1, MAX_SHORTLIST) ?? INITIAL.shortlist;
  return {
    view: given.get("view") === "partitions" ? "partitions" : "search",
    id: text("id", /^\d{1,19}$/),
    image: uploads[file - 1] ? file : null, // files are gone when the page is loaded again
    k,
    cutoff: cutoff === null ? INITIAL.cutoff : clamp(Math.round(100 * Number(cutoff)) / 100, 0, 0.99),
    shortlist: given.get("shortlist") === "all" ? null : Math.max(k, shortlist),
    ranking: given.get("ranking") === "fused" && stats.normalised ? "fused" : "distance",
    compare: given.get("compare") === "1" && stats.comparable,
    partition: whole("partition", 0, 10_000),
    ambiguous: given.get("ambiguous") === "1",
  };
}

/** Change the state, the address and the page; `replace` makes no step to go back to. */
function go(changes, { replace = false } = {}) {
  settle();
  recover("input");
  Object.assign(state, changes);
  const hash = toHash();
  if (hash !== location.hash) history[replace ? "replaceState" : "pushState"](null, "", hash);
  show();
}

/** Change a setting: the search follows when there are no more changes. */
function set(changes) {
  Object.assign(state, changes);
  if (state.shortlist !== null) state.shortlist = Math.max(state.shortlist, state.k);
  showControls();
  settle();
  timer = setTimeout(() => go({}, { replace: true }), WAIT);
  tellBusy();
}

function settle() {
  clearTimeout(timer);
  timer = 0;
}

const useRecord = (id) => go({ view: "search", id, image: null });

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
  tellBusy();
}

function showControls() {
  const write = (id, value) => {
    if ($(id).value !== String(value)) $(id).value = value; // writing the same would move the cursor
  };
  write("cutoff", state.cutoff);
  $("cutoff-value").textContent = state.cutoff.toFixed(2);
  write("k", state.k);
  $("shortlist").min = state.k;
  $("shortlist").disabled = $("shortlist-all").checked = state.shortlist === null;
  if (state.shortlist !== null) write("shortlist", state.shortlist);
  $("ranking").value = state.ranking;
  $("compare").checked = state.compare;
  $("ambiguous").checked = state.ambiguous;
}

// Cards

const picture = (id, size) => pictureAt(`/records/${id}/thumbnail?size=${size}`, size);

function pictureAt(url, size) {
  const made = node("img", { class: "picture", alt: "", loading: "lazy", decoding: "async" });
  made.addEventListener("load", () => {
    made.dataset.small = String(Math.max(made.naturalWidth, made.naturalHeight) < Math.min(65, size));
  });
  made.src = url;
  return made;
}

function likely({ name, probability }) {
  const share = node("span", { class: "share", "aria-hidden": "true" });
  share.style.setProperty("--share", clamp(probability, 0, 1));
  const label = node("span", { class: "name", title: name }, name);
  return node("span", { class: "likely" }, " ", label, " ", share, " ", probability.toFixed(2));
}

function card(record, drawn, ...children) {
  const button = node("button", { type: "button", class: "card", "data-id": record.id, tabindex: "-1" });
  button.title = `record ${record.id}`;
  button.append(drawn.get(record.id) ?? picture(record.id, 160), ...children);
  return button;
}

function hitCard(hit, query, mark, drawn) {
  const [likeliest] = hit.record.classes;
  const values = [["distance", hit.distance.toFixed(3)], ["relevance", hit.relevance.toFixed(3)]];
  if (hit.score !== null) values.push(["score", hit.score.toFixed(3)]);
  values.push(["Hamming", String(hit.hamming)]);
  const made = card(hit.record, drawn, node("span", { class: "name" }, likeliest.name));
  for (const [term, value] of values) {
    made.append(" ", node("span", { class: "value" }, node("span", { class: "term" }, term), " ", value));
  }
  made.dataset.other = String(likeliest.partition !== query.classes[0].partition);
  if (mark) made.dataset.mark = mark;
  for (const note of [hit.record.id === query.id ? "the query" : null, MARKS[mark]]) {
    if (note) made.append(" ", node("span", { class: "note" }, note));
  }
  return made;
}

const cardsOf = (grid) => [...grid.querySelectorAll(".card")];

/** Put cards into a grid, with the pictures that it has, so that nothing flickers; the focus stays in it. */
function fill(grid, items, make) {
  const drawn = new Map(cardsOf(grid).map((one) => [one.dataset.id, one.querySelector("img")]));
  const cards = items.map((item) => make(item, drawn));
  const focused = grid.contains(document.activeElement) ? document.activeElement.dataset.id : null;
  grid.replaceChildren(...cards.map((one) => node("li", {}, one)));
  if (cards.length) cards[0].tabIndex = 0;
  if (focused !== null) (cards.find((one) => one.dataset.id === focused) ?? cards[0] ?? $("query-title")).focus();
}

/** One card of a grid is reached with Tab, the others from there with arrows. */
function makeGrid(grid) {
  grid.addEventListener("click", (event) => {
    const chosen = event.target.closest(".card");
    if (!chosen) return;
    const elsewhere = state.view !== "search";
    useRecord(chosen.dataset.id);
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
    const moves = {
      ArrowLeft: here - 1, ArrowRight: here + 1, ArrowUp: here - columns, ArrowDown: here + columns,
      Home: 0, End: cards.length - 1,
    };
    if (event.key in moves) event.preventDefault();
    cards[moves[event.key]]?.focus();
  });
}

// Search

const searchKey = ({ id, image, k, cutoff, shortlist, ranking, compare }) =>
  JSON.stringify([id, image, k, cutoff, shortlist, ranking, compare]);

function showSearch() {
  if (state.id === null && state.image === null) takeRandom({ replace: true });
  else if (searchKey(state) === last?.key) cancel("search");
  else latest("search", search);
}

function takeRandom({ replace = false } = {}) {
  latest("search", async (signal) => {
    const seed = Math.floor(Math.random() * 2 ** 31);
    const { records } = await ask(`/records?count=1&seed=${seed}`, signal);
    if (!records.length) throw new Failure("the index has no records.");
    go({ id: records[0].id, image: null }, { replace });
  });
}

async function search(signal) {
  const asked = { ...state };
  const { k, cutoff, shortlist, ranking, compare } = asked;
  const query = asked.image === null ? { id: asked.id } : { image: await inBase64(uploads[asked.image - 1].file) };
  const answer = await ask("/search", signal, { ...query, k, cutoff, shortlist, ranking, compare, explain: true });
  last = { answer, asked, key: searchKey(asked) };
  showAnswer();
  if (answer.version !== stats.version) latest("stats", readStats);
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
  const { answer, asked } = last;
  const { query, hits, compared } = answer;
  showQuery(query, asked);
  $("status").textContent = summary(answer);
  $("comparison").textContent = compared ? comparison(compared, asked) : "";
  const best = compared && new Set(compared.hits.map((hit) => hit.record.id));
  const missing = new Set(compared?.missing);
  const extra = ({ record }) => (best && !best.has(record.id) ? "extra" : null);
  const missed = ({ record }) => (missing.has(record.id) ? "missed" : null);
  fill($("hits"), hits, (hit, drawn) => hitCard(hit, query, extra(hit), drawn));
  fill($("brute"), compared?.hits ?? [], (hit, drawn) => hitCard(hit, query, missed(hit), drawn));
  $("brute-section").hidden = !compared;
  document.querySelector(".grids").dataset.compare = String(Boolean(compared));
  $("key").hidden = !document.querySelector(".grids [data-other=true]");
  $("none").hidden = hits.length > 0;
  $("none").textContent = `No record has a relevance above ${asked.cutoff.toFixed(2)}.`;
  showPruning();
}

function showQuery({ id, uri, classes }, asked) {
  const upload = asked.image === null ? null : uploads[asked.image - 1];
  const drawn = upload ? pictureAt(upload.url, 320) : picture(id, 320);
  drawn.alt = "Picture of the query";
  const file = upload ? upload.file.name : uri;
  $("query-picture").replaceChildren(drawn);
  $("query-id").textContent = upload ? "Your image" : `Record ${id}`;
  $("query-file").textContent = file === null ? "no file recorded" : file.split(/[\\/]/).pop();
  $("query-file").title = file ?? "";
  $("query-classes").replaceChildren(...classes.map((one) => node("li", {}, likely(one))));
  if (document.activeElement !== $("id-field") || $("id-field").value.trim() === "") $("id-field").value = id ?? "";
  document.title = upload ? "your image · semcut" : `record ${id} · semcut`;
}

function summary({ hits, done, partitions }) {
  const scanned = `${count(done.partitions)} of ${counted(partitions.length, "partition")}`;
  const share = percent(done.codes, done.records);
  const work = done.codes === null
    ? `${scanned}, ${counted(done.cells, "cell")}`
    : `${count(done.codes)} of ${counted(done.records, "record")} (${share}) in ${scanned}`;
  return `${count(hits.length)} found · scanned ${work} · ${milliseconds(done.milliseconds)}`;
}

function comparison({ hits, same, missing, milliseconds: spent }, asked) {
  let verdict = `Same records in ${same ? "the same" : "another"} order`;
  if (missing.length) {
    const all = asked.shortlist === null;
    const why = all ? "every relevant record was ranked, so they should not" : "the shortlist left them out";
    verdict = `${missing.length} of ${hits.length} differ: ${why}`;
  }
  return `${verdict} · brute force took ${milliseconds(spent)}`;
}

function showPruning() {
  const { answer: { partitions }, asked } = last;
  const scale = Math.max(1, partitions[0]?.bound ?? 0); // with a prior, relevance can be above 1
  const shown = allShown ? partitions : partitions.slice(0, FIRST_PARTITIONS);
  $("partitions-of-query").style.setProperty("--cutoff", asked.cutoff / scale);
  $("partitions-of-query").replaceChildren(...shown.map((one) => pruned(one, scale)));
  const button = $("partitions-all");
  button.hidden = partitions.length <= FIRST_PARTITIONS;
  button.setAttribute("aria-expanded", String(allShown));
  button.textContent = allShown ? `Show the first ${FIRST_PARTITIONS}` : `Show all ${count(partitions.length)}`;
}

function pruned({ partition, name, bound, records, cells, kept_records, kept_cells }, scale) {
  const counts = kept_records !== null; // some servers do not count records
  const [kept, all] = counts ? [kept_records, records] : [kept_cells, cells];
  const drawn = node("span", { class: "bound", "aria-hidden": "true" });
  drawn.style.setProperty("--bound", clamp(bound / scale, 0, 1));
  drawn.style.setProperty("--share", all ? clamp(kept / all, 0, 1) : 0);
  const link = node("button", { type: "button", class: "name", title: name, "data-partition": partition }, name);
  link.addEventListener("click", () => openPartition(partition));
  const done = kept_cells ? `scanned ${count(kept)} of ${counts ? count(all) : counted(all, "cell")}` : "pruned";
  const text = node("span", {}, `bound ${bound.toFixed(2)} · ${done}`);
  return node("li", { class: "pruned", "data-kept": String(kept_cells > 0) }, link, " ", drawn, text);
}

function useFile(file) {
  if (!file) return;
  if (!stats.images) complain("The network that made this index is not here, so images cannot be searched with.");
  else if (!file.size) complain("This file is empty.");
  else if (file.size > MAX_UPLOAD) {
    const size = (file.size / 2 ** 20).toFixed(1);
    complain(`This file has ${size} MB. At most ${MAX_UPLOAD >> 20} MB can be searched with.`);
  } else {
    uploads.push({ file, url: URL.createObjectURL(file) });
    go({ view: "search", id: null, image: uploads.length });
  }
}

// Partitions

function showPartitions() {
  const one = state.partition;
  $("partition-list").hidden = one !== null;
  $("partition").hidden = one === null;
  if (one !== null && members === `${one} ${state.ambiguous}`) cancel("partition");
  else if (one !== null) showPartition(one, state.ambiguous);
  else if (!listed.length) readPartitions();
}

function openPartition(partition) {
  go({ view: "partitions", partition });
  $("partition-title").focus();
}

function closePartition() {
  const { partition } = state;
  go({ partition: null });
  (document.querySelector(`#partitions [data-partition="${partition}"]`) ?? $("partitions-title")).focus();
}

function readPartitions() {
  latest("partitions", async (signal) => {
    const earlier = listed;
    const before = earlier.length;
    const { total, partitions } = await ask(`/partitions?offset=${before}&limit=${PAGE_OF_PARTITIONS}`, signal);
    if (listed !== earlier) return; // the list was begun anew meanwhile
    const entries = partitions.map(entry);
    const asked = document.activeElement === $("partitions-more");
    listed = [...listed, ...partitions];
    if (before) $("partitions").append(...entries);
    else $("partitions").replaceChildren(...entries);
    $("partitions-status").textContent = `${count(listed.length)} of ${counted(total, "partition")}, the largest first`;
    $("partitions-more").hidden = listed.length >= total || !partitions.length;
    if (asked) entries[0]?.firstChild.focus();
  });
}

function entry({ partition, name, records, cells, confidence, sample }) {
  const sure = confidence === null ? "" : ` · mean confidence ${confidence.toFixed(2)}`;
  const facts = node("span", { class: "quiet" }, `${counted(records, "record")} · ${counted(cells, "cell")}${sure}`);
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
  members = null;
  $("partition-title").textContent = stats.classes[partition] ?? `partition ${partition}`;
  latest("partition", async (signal) => {
    const { records, total } = await ask(`/partitions/${partition}?limit=${MEMBERS}&ambiguous=${ambiguous}`, signal);
    fill($("members"), records, (record, drawn) => card(record, drawn, ...record.classes.map(likely)));
    const some = `${count(records.length)} of ${counted(total, "record")}`;
    $("partition-status").textContent = some + (ambiguous ? ", the least sure first" : "");
    members = `${partition} ${ambiguous}`;
  });
}

// Start

async function readStats(signal) {
  stats = await ask("/stats", signal);
  const { records, partitions, bits, images, normalised, comparable } = stats;
  const inUse = `${counted(partitions, "partition")} in use`;
  $("facts").textContent = `${counted(records, "record")} · ${inUse} · ${bits} bits`;
  $("drop").hidden = !images;
  $("no-images").hidden = images;
  $("ranking").querySelector("[value=fused]").disabled = !normalised;
  $("compare").disabled = !comparable;
  for (const [id, possible] of [["ranking", normalised], ["compare", comparable]]) {
    $(`${id}-reason`).hidden = possible;
    $(id).setAttribute("aria-describedby", possible ? "" : `${id}-reason`); // hidden text would be read out
  }
  listed = []; // of another version of the index
  members = null;
}

async function begin(signal) {
  await readStats(signal);
  $("empty").hidden = stats.records > 0;
  if (!stats.records) return;
  listen();
  follow();
}

function follow() {
  settle();
  state = fromHash(location.hash);
  show();
}

/** A number field: followed while it makes sense, put right when it is left. */
function number(id, least, most) {
  const field = $(id);
  field.addEventListener("input", () => {
    const value = Number(field.value);
    if (field.value && Number.isInteger(value) && value >= least() && value <= most) set({ [id]: value });
  });
  field.addEventListener("change", () => {
    const value = Math.round(Number(field.value));
    set({ [id]: field.value && Number.isFinite(value) ? clamp(value, least(), most) : state[id] });
  });
}

function listen() {
  $("cutoff").addEventListener("input", () => set({ cutoff: Number($("cutoff").value) }));
  number("k", () => 1, MAX_K);
  number("shortlist", () => state.k, MAX_SHORTLIST);
  $("shortlist-all").addEventListener("change", () => {
    set({ shortlist: $("shortlist-all").checked ? null : Number($("shortlist").value) || INITIAL.shortlist });
  });
  $("ranking").addEventListener("change", () => set({ ranking: $("ranking").value }));
  $("compare").addEventListener("change", () => set({ compare: $("compare").checked }));
  $("ambiguous").addEventListener("change", () => go({ ambiguous: $("ambiguous").checked }, { replace: true }));
  $("random").addEventListener("click", () => takeRandom());
  $("id-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const id = $("id-field").value.trim().replace(/^0+(?=\d)/, "");
    if (/^\d{1,19}$/.test(id)) useRecord(id);
    else complain("An id is a whole number from 0 to 9223372036854775807.");
  });
  $("partitions-all").addEventListener("click", () => {
    allShown = !allShown;
    showPruning();
  });
  $("partitions-more").addEventListener("click", readPartitions);
  $("partitions-back").addEventListener("click", closePartition);
  for (const id of ["hits", "brute", "members"]) makeGrid($(id));
  window.addEventListener("hashchange", follow);
  listenToTabs();
  listenToFiles();
}

function listenToTabs() {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  for (const [place, tab] of tabs.entries()) {
    tab.addEventListener("click", () => go({ view: tab.dataset.view }));
    tab.addEventListener("keydown", (event) => {
      const to = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: -1 }[event.key];
      if (to === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      const next = tabs.at(to % tabs.length);
      go({ view: next.dataset.view });
      next.focus();
    });
  }
}

/** Files may be dropped anywhere on the page: a browser would leave it for a file that is dropped beside the zone. */
function listenToFiles() {
  $("upload").addEventListener("change", () => {
    useFile($("upload").files[0]);
    $("upload").value = ""; // so that the same file can be chosen again
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      $("drop").dataset.over = String(kind === "dragover");
      if (kind === "drop") useFile(event.dataTransfer.files[0]);
    });
  }
}

latest("stats", begin);
