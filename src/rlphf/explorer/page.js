"use strict";

// ---- 1. What was measured -------------------------------------------------------------------------------------------

const parsed = (id) => JSON.parse(document.getElementById(id).textContent);
const data = parsed("content");
const byId = (id) => document.getElementById(id);

for (const cell of [...data.cells, ...data.user_cells]) {
  cell.row = new Map(cell.prompts.map((prompt, row) => [prompt, row]));
  cell.cut = new Set(cell.cut);
}
const cellOf = new Map(data.cells.map((cell) => [`${cell.method} ${cell.combination}`, cell]));
const userCellOf = new Map(data.user_cells.map((cell) => [`${cell.method} ${cell.user}`, cell]));
const users = new Map(data.users.map((user) => [user.id, user]));
const answered = new Set(data.user_cells.map((cell) => cell.user));
const promptNumber = new Map(data.prompts.map((prompt, number) => [prompt.id, number]));
const samples = Math.max(1, ...[...data.cells, ...data.user_cells].map((cell) => cell.samples));
const firstUser = Math.min(...answered);
// A run may have answered combinations, users, or both.
const hasCombinations = data.methods.length > 0;
const hasBoth = hasCombinations && answered.size > 0;

const labelOf = (method) => data.labels[method] ?? method;
const preferenceLabel = (name) => data.preferences[name].label;
const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
const number = (value) => value.toFixed(2);

// ---- 2. What is looked at; the hash of the address keeps it ----------------------------------------------------------

const state = {};

function start() {
  const front = data.recipes.find((recipe) => recipe.kind === "front");
  const weighs = (axis) => axis.preferences.some((name) => front.weights[name] !== undefined);
  Object.assign(state, {
    view: "answers",
    combination: data.axes.map((axis) => axis.preferences[0]),
    user: hasCombinations ? null : firstUser,
    prompt: 0,
    sample: 0,
    search: "",
    spread: 0,
    without: new Set(),
    // Per axis: whether it takes part, its two ends, and the share of the second.
    weights: data.axes.map((axis) => ({
      on: !front || weighs(axis),
      ends: [axis.preferences[0], axis.preferences[axis.preferences.length - 1]].map((name, end) => axis.preferences[end] ?? name),
      share: front ? 0.5 : 0,
    })),
  });
}

function hash() {
  const written = new URLSearchParams();
  if (state.view !== "answers") written.set("view", state.view);
  if (state.user === null) written.set("for", state.combination.join("-"));
  else written.set("user", state.user);
  written.set("prompt", data.prompts[state.prompt]?.id ?? "");
  if (state.sample) written.set("response", state.sample + 1);
  if (state.search) written.set("search", state.search);
  if (state.spread) written.set("spread", state.spread);
  if (state.without.size) written.set("without", [...state.without].join(" "));
  if (state.view === "soups") {
    written.set("weights", state.weights.map((w) => (w.on ? `${w.ends[0]}~${w.ends[1]}~${w.share}` : "off")).join(" "));
  }
  return `#${written}`;
}

// Whatever the address holds that is not known here is passed over.
function readHash() {
  start();
  const given = new URLSearchParams(location.hash.slice(1));
  if (["answers", "soups", "curves"].includes(given.get("view"))) state.view = given.get("view");
  const chosen = (given.get("for") ?? "").split("-");
  state.combination = data.axes.map((axis, i) => (axis.preferences.includes(chosen[i]) ? chosen[i] : state.combination[i]));
  const user = Number(given.get("user"));
  if (answered.has(user)) state.user = user;
  state.prompt = promptNumber.get(given.get("prompt")) ?? 0;
  const sample = Number(given.get("response")) - 1;
  if (Number.isInteger(sample) && sample >= 0 && sample < samples) state.sample = sample;
  state.search = given.get("search") ?? "";
  const spread = Number(given.get("spread"));
  if (spread >= 0 && spread <= 1) state.spread = spread;
  const known = new Set([...data.methods, ...data.user_methods]);
  state.without = new Set((given.get("without") ?? "").split(" ").filter((name) => known.has(name)));
  (given.get("weights") ?? "").split(" ").forEach((text, i) => {
    const [first, second, share] = text.split("~");
    const of = data.axes[i]?.preferences ?? [];
    if (text === "off" && state.weights[i]) state.weights[i].on = false;
    else if (of.includes(first) && of.includes(second) && Number(share) >= 0 && Number(share) <= 1) {
      state.weights[i] = { on: true, ends: [first, second], share: Number(share) };
    }
  });
}

function change(changes) {
  Object.assign(state, changes);
  show();
  history.replaceState(null, "", hash());
}

// ---- 3. Making elements: texts are set as texts, so that no answer can be markup --------------------------------------

function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in element && key !== "list" && key !== "form") element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

function radios(name, options, chosen, picked) {
  const choices = options.map(([value, label]) => {
    const input = make("input", { type: "radio", name, value, checked: value === chosen });
    input.addEventListener("change", () => picked(value));
    return make("label", {}, input, make("span", { textContent: label }));
  });
  return make("div", { className: "choices" }, ...choices);
}

// ---- 4. Answers and their scores --------------------------------------------------------------------------------------

const methods = () => (state.user === null ? data.methods : data.user_methods);
const shown = () => methods().filter((name) => !state.without.has(name));
const combination = () => state.combination.join("-");

// The cell of a method that asks nothing serves all combinations.
function cellFor(method) {
  if (state.user !== null) return userCellOf.get(`${method} ${state.user}`);
  return cellOf.get(`${method} ${combination()}`) ?? cellOf.get(`${method} `);
}

// What a cell is scored by: criteria with their weights in the mean. A user's own score is a mean already.
function criteriaOf(cell, weights) {
  if (cell.user !== undefined && cell.scores.score) return { own: cell.scores.score, parts: [] };
  const parts = Object.entries(weights).filter(([name, weight]) => weight !== 0 && cell.scores[name]);
  return { own: null, parts };
}

function meanAt(cell, weights, place) {
  const { own, parts } = criteriaOf(cell, weights);
  if (own) return own[place];
  const total = sum(parts.map(([, weight]) => weight));
  return total ? sum(parts.map(([name, weight]) => weight * cell.scores[name][place])) / total : null;
}

function meanOverSamples(cell, weights, prompt) {
  const first = cell.row.get(prompt) * cell.samples;
  const means = Array.from({ length: cell.samples }, (_, i) => meanAt(cell, weights, first + i));
  return means.includes(null) ? null : sum(means) / means.length;
}

const asked = () => Object.fromEntries(state.combination.map((name) => [name, 1]));

// How far apart the shown methods' mean scores of a prompt are; null where fewer than two have one.
function spreadOf(prompt) {
  const weights = asked();
  const found = shown()
    .map(cellFor)
    .filter((cell) => cell?.row.has(prompt))
    .map((cell) => meanOverSamples(cell, weights, prompt))
    .filter((mean) => mean !== null);
  return found.length > 1 ? Math.max(...found) - Math.min(...found) : null;
}

function bar(name, value, kind) {
  const width = make("i");
  width.style.width = `${100 * Math.min(1, Math.max(0, value))}%`;
  const track = make("div", { className: "bar", ariaHidden: "true" }, width);
  const cells = [make("td", {}, track), make("td", { textContent: number(value) })];
  return make("tr", { className: kind }, make("th", { scope: "row", textContent: name }), ...cells);
}

function scoreTable(cell, weights, place, title) {
  const { own, parts } = criteriaOf(cell, weights);
  const rows = parts.map(([name]) => bar(preferenceLabel(name), cell.scores[name][place], "preference"));
  const mean = meanAt(cell, weights, place);
  if (mean !== null) rows.push(bar(own ? "user’s score" : "mean", mean, "mean"));
  if (cell.scores.helpfulness) rows.push(bar("helpfulness", cell.scores.helpfulness[place], "helpfulness"));
  if (!rows.length) return make("p", { className: "weights", textContent: "Not judged." });
  const caption = make("caption", { className: "hidden-text", textContent: `Scores of ${title}` });
  return make("table", { className: "scores" }, caption, make("tbody", {}, ...rows));
}

function card(cell, weights, title, tag, detail = null) {
  const row = cell.row.get(state.prompt);
  const place = row * cell.samples + Math.min(state.sample, cell.samples - 1);
  const text = data.texts[cell.texts[place]];
  const tokens = `${cell.tokens[place]} ${cell.tokens[place] === 1 ? "token" : "tokens"}`;
  const size = make("span", { className: "size", textContent: tokens });
  if (cell.cut.has(place)) size.append(make("span", { className: "cut", textContent: ", cut off" }));
  const heading = make("header", {}, make("h3", { textContent: title }));
  if (tag) heading.append(make("span", { className: "tag", textContent: tag }));
  heading.append(size);
  const said = text.trim()
    ? make("p", { className: "said", textContent: text })
    : make("p", { className: "said nothing", textContent: "says nothing" });
  const about = detail === null ? null : make("p", { className: "weights", textContent: detail });
  return make("article", { className: "card" }, heading, about, scoreTable(cell, weights, place, title), said);
}

// ---- 5. The list of prompts -------------------------------------------------------------------------------------------

let listed = [];
let listKey = "";

function candidates() {
  const cells = state.view === "soups" ? data.recipes.map(recipeCell) : methods().map(cellFor);
  const found = new Set(cells.flatMap((cell) => (cell ? cell.prompts : [])));
  return [...found].sort((a, b) => a - b);
}

function showList() {
  const key = JSON.stringify([state.view === "soups", state.user, state.combination, state.search, state.spread, [...state.without]]);
  if (key !== listKey) {
    listKey = key;
    const words = state.search.toLowerCase();
    const comparing = state.view !== "soups";
    const all = candidates();
    const spreads = new Map(all.map((prompt) => [prompt, comparing ? spreadOf(prompt) : null]));
    listed = all.filter((prompt) => data.prompts[prompt].prompt.toLowerCase().includes(words));
    if (comparing && state.spread) listed = listed.filter((prompt) => (spreads.get(prompt) ?? 0) >= state.spread);
    byId("count").textContent = listed.length === all.length ? `${all.length}` : `${listed.length} of ${all.length}`;
    byId("list").replaceChildren(
      ...listed.map((prompt) => {
        const gap = spreads.get(prompt);
        const told = gap === null ? null : make("span", { className: "gap", title: "Spread of the methods’ mean scores", textContent: number(gap) });
        const button = make("button", { type: "button" }, make("span", { textContent: data.prompts[prompt].prompt }), told);
        button.addEventListener("click", () => change({ prompt }));
        return make("li", { "data-prompt": prompt }, button);
      }),
    );
  }
  if (!listed.includes(state.prompt) && listed.length) state.prompt = listed[0];
  for (const item of byId("list").children) {
    const current = Number(item.dataset.prompt) === state.prompt;
    const button = item.firstChild;
    if (current && !button.ariaCurrent) reveal(item);
    if (current) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
}

// Scrolls the list alone: `scrollIntoView` would also make the item the place that Tab goes on from. Items out of sight have an
// assumed height (content-visibility), so what comes into sight is measured once more.
function reveal(item, again = true) {
  const list = byId("list");
  const [inner, outer] = [item, list].map((element) => element.getBoundingClientRect());
  list.scrollTop += Math.min(0, inner.top - outer.top) + Math.max(0, inner.bottom - outer.bottom);
  if (again) requestAnimationFrame(() => reveal(item, false));
}

function move(by) {
  const place = listed.indexOf(state.prompt) + by;
  if (place < 0 || place >= listed.length) return;
  const inside = byId("list").contains(document.activeElement);
  change({ prompt: listed[place] });
  if (inside) byId("list").querySelector("[aria-current]").focus();
}

// ---- 6. Answers side by side ------------------------------------------------------------------------------------------

function showAsked() {
  const place = byId("asked");
  if (state.user === null) {
    const prompts = state.combination.map((name) => data.preferences[name].prompt).join(" ");
    place.replaceChildren("Behind the question stands, for methods that are told: ", make("q", { textContent: prompts }));
    return;
  }
  const user = users.get(state.user);
  const weights = Object.entries(user.weights).map(([name, weight]) => `${preferenceLabel(name)} ${number(weight)}`);
  const parts = [`User ${user.id}, ${user.group}${weights.length ? `; weighs ${weights.join(", ")}` : ""}.`];
  if (user.text) parts.push(" Says: ", make("q", { textContent: user.text }));
  place.replaceChildren(...parts);
}

function showQuestion() {
  const prompt = data.prompts[state.prompt];
  byId("topic").textContent = prompt.topic ?? "";
  byId("prompt").textContent = prompt.prompt;
  const place = listed.indexOf(state.prompt);
  byId("previous").disabled = place <= 0;
  byId("next").disabled = place >= listed.length - 1;
}

function showAnswers() {
  const weights = asked();
  const cells = shown()
    .map((method) => [method, cellFor(method)])
    .filter(([, cell]) => cell?.row.has(state.prompt));
  const means = cells.map(([, cell]) => meanAt(cell, weights, cell.row.get(state.prompt) * cell.samples + Math.min(state.sample, cell.samples - 1)));
  const best = Math.max(...means.map((mean) => mean ?? -1));
  const cards = cells.map(([method, cell], i) => card(cell, weights, labelOf(method), means.length > 1 && means[i] === best ? "highest" : ""));
  if (!cards.length) cards.push(make("p", { className: "none", textContent: "No method is shown; tick one above." }));
  byId("cards").replaceChildren(...cards);
}

// ---- 7. Soups ---------------------------------------------------------------------------------------------------------

const recipeCell = (recipe) => (recipe.kind === "user" ? data.user_cells : data.cells)[recipe.cell];
const described = (weights) =>
  Object.entries(weights)
    .filter(([, weight]) => weight !== 0)
    .map(([name, weight]) => `${preferenceLabel(name)} ${number(weight)}`)
    .join(", ");

function wanted() {
  const taking = state.weights.filter((axis) => axis.on);
  const weights = {};
  for (const { ends, share } of taking) {
    weights[ends[0]] = (weights[ends[0]] ?? 0) + (1 - share) / taking.length;
    weights[ends[1]] = (weights[ends[1]] ?? 0) + share / taking.length;
  }
  return weights;
}

function distance(a, b) {
  const names = new Set([...Object.keys(a), ...Object.keys(b)]);
  return Math.sqrt(sum([...names].map((name) => ((a[name] ?? 0) - (b[name] ?? 0)) ** 2)));
}

function nearest() {
  const target = wanted();
  return data.recipes
    .filter((recipe) => recipeCell(recipe).row.has(state.prompt))
    .map((recipe) => ({ recipe, away: distance(target, recipe.weights) }))
    .sort((a, b) => a.away - b.away)
    .slice(0, 3);
}

function recipeTitle(recipe) {
  if (recipe.kind === "user") return `User ${recipe.name}’s soup`;
  if (recipe.kind === "front") return "On the front";
  return recipe.name.split("-").join(" ");
}

function showSoups() {
  const found = nearest();
  const place = byId("nearest");
  const weights = described(wanted());
  if (!weights) place.textContent = "No axis takes part; tick one above.";
  else if (!found.length) place.textContent = "No soup was decoded.";
  else {
    const [first] = found;
    const how = first.away < 0.005 ? "decoded at just these weights" : `${number(first.away)} away from what you set`;
    place.replaceChildren("You set ", make("strong", { textContent: weights }), ". Nearest decoded recipe: ",
      make("strong", { textContent: described(first.recipe.weights) }), `, ${how}.`);
  }
  const cards = (weights ? found : []).map(({ recipe, away }, i) =>
    card(recipeCell(recipe), recipe.weights, recipeTitle(recipe), i ? "" : "nearest", `${described(recipe.weights)}; distance ${number(away)}`),
  );
  byId("cards").replaceChildren(...cards);
}

function buildSliders() {
  const sliders = data.axes.map((axis, i) => {
    const chosen = () => state.weights[i];
    const set = (changes) => change({ weights: state.weights.map((old, j) => (j === i ? { ...old, ...changes } : old)) });
    const on = make("input", { type: "checkbox", id: `on-${i}` });
    on.addEventListener("change", () => set({ on: on.checked }));
    const range = make("input", { type: "range", id: `share-${i}`, min: "0", max: "1", step: "0.05" });
    range.addEventListener("input", () => set({ share: Number(range.value), on: true }));
    const ends = [0, 1].map((end) => {
      if (axis.preferences.length <= 2) return make("span");
      const options = axis.preferences.map((name) => make("option", { value: name, textContent: preferenceLabel(name) }));
      const select = make("select", { ariaLabel: `${axis.axis}, ${end ? "second" : "first"} preference` }, ...options);
      select.addEventListener("change", () => set({ ends: chosen().ends.map((old, j) => (j === end ? select.value : old)) }));
      return make("span", {}, select, make("output"));
    });
    const title = make("label", { htmlFor: `on-${i}` }, on, ` ${axis.axis}`);
    const slider = make("div", { className: "slider" }, title, range, make("div", { className: "ends" }, ...ends));
    slider.update = () => {
      const { on: takes, ends: names, share } = chosen();
      on.checked = takes;
      range.value = share;
      range.setAttribute("aria-label", `${axis.axis}: share of ${preferenceLabel(names[1])}`);
      range.setAttribute("aria-valuetext", `${preferenceLabel(names[0])} ${number(1 - share)}, ${preferenceLabel(names[1])} ${number(share)}`);
      slider.classList.toggle("off", !takes);
      ends.forEach((place, end) => {
        const part = number(end ? share : 1 - share);
        if (!place.firstElementChild) place.textContent = `${preferenceLabel(names[end])} ${part}`;
        else {
          place.firstElementChild.value = names[end];
          place.lastElementChild.textContent = ` ${part}`;
        }
      });
    };
    return slider;
  });
  byId("sliders").replaceChildren(...sliders);
}

// ---- 8. Charts, by Vega, which runs when the first one is wanted ------------------------------------------------------

const specs = parsed("chart-specs");
const dark = matchMedia("(prefers-color-scheme: dark)");
const GROUPS = { front: "Scores along the front", expertise: "Expertise", informativeness: "Informativeness", style: "Style", other: "Policies of all preferences" };

function theme() {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const font = getComputedStyle(document.body).fontFamily;
  const text = { labelColor: colour("soft"), titleColor: colour("ink"), labelFont: font, titleFont: font, labelFontSize: 12, titleFontSize: 12, titleFontWeight: 400 };
  return {
    background: "transparent",
    view: { stroke: null },
    axis: { ...text, gridColor: colour("rule"), domainColor: colour("edge"), tickColor: colour("edge") },
    legend: text,
  };
}

function showCharts() {
  const key = `${state.view} ${dark.matches}`;
  if (byId("charts").dataset.drawn === key) return;
  byId("charts").dataset.drawn = key;
  if (!window.vegaEmbed) document.head.append(make("script", { textContent: parsed("vega") }));
  const wantedGroups = state.view === "soups" ? ["front"] : Object.keys(GROUPS).filter((name) => name !== "front");
  const groups = wantedGroups
    .map((name) => [name, specs.filter((chart) => chart.group === name)])
    .filter(([, found]) => found.length)
    .map(([name, found]) => {
      const places = found.map(() => make("figure", { className: "chart" }));
      const title = make("h2", { textContent: GROUPS[name] });
      const group = make("section", { className: "group" }, title, make("div", { className: "pair" }, ...places));
      return { group, draw: () => found.forEach((chart, i) => draw(places[i], chart.spec)) };
    });
  if (!groups.length && state.view === "curves") byId("charts").replaceChildren(make("p", { className: "none", textContent: "No policy logged its training." }));
  else byId("charts").replaceChildren(...groups.map(({ group }) => group));
  groups.forEach(({ draw: drawn }) => drawn());
}

function draw(place, spec) {
  const tooltip = { theme: dark.matches ? "dark" : "light" };
  window.vegaEmbed(place, spec, { actions: false, renderer: "svg", config: theme(), tooltip }).catch((error) => {
    place.textContent = `The chart cannot be drawn: ${error.message}`;
  });
}

// ---- 9. Switches and keys ---------------------------------------------------------------------------------------------

function showSwitches() {
  const key = `${state.user} ${combination()}`;
  const place = byId("switches");
  if (place.dataset.key === key) return;
  const focused = document.activeElement?.closest?.("#switches") ? [document.activeElement.name, document.activeElement.id] : null;
  place.dataset.key = key;
  const parts = [];
  if (hasBoth) {
    const who = [["combination", "a combination"], ["user", "a user"]];
    const pick = (value) => change({ user: value === "user" ? firstUser : null, prompt: state.prompt });
    const choices = radios("who", who, state.user === null ? "combination" : "user", pick);
    parts.push(make("fieldset", { className: "switch" }, make("legend", { textContent: "Asked by" }), choices));
  }
  if (state.user === null) {
    data.axes.forEach((axis, i) => {
      const options = axis.preferences.map((name) => [name, preferenceLabel(name)]);
      const pick = (value) => change({ combination: state.combination.map((old, j) => (j === i ? value : old)) });
      const choices = radios(axis.axis, options, state.combination[i], pick);
      parts.push(make("fieldset", { className: "switch" }, make("legend", { textContent: axis.axis }), choices));
    });
  } else {
    const name = (user) => (user.kind.split("-").every((id) => data.preferences[id]) ? user.kind.split("-").map(preferenceLabel).join(", ") : user.kind);
    const options = data.users
      .filter((user) => answered.has(user.id))
      .map((user) => make("option", { value: user.id, selected: user.id === state.user, textContent: `${user.id}: ${name(user)} (${user.group})` }));
    const select = make("select", { id: "user" }, ...options);
    select.addEventListener("change", () => change({ user: Number(select.value) }));
    parts.push(make("div", { className: "field" }, make("label", { htmlFor: "user", textContent: "User" }), select));
  }
  place.replaceChildren(...parts);
  if (focused) (place.querySelector(focused[1] ? `#${focused[1]}` : `input[name="${focused[0]}"]:checked`) ?? place.querySelector("input:checked")).focus();
}

function showMethods() {
  const place = byId("methods");
  const key = methods().join(" ");
  if (place.dataset.key !== key) {
    place.dataset.key = key;
    const boxes = methods().map((method) => {
      const box = make("input", { type: "checkbox", value: method });
      box.addEventListener("change", () => {
        const without = new Set(state.without);
        if (box.checked) without.delete(method);
        else without.add(method);
        change({ without });
      });
      return make("label", {}, box, ` ${labelOf(method)}`);
    });
    place.replaceChildren(place.querySelector("legend"), ...boxes);
  }
  for (const box of place.querySelectorAll("input")) box.checked = !state.without.has(box.value);
}

function typing(target) {
  return target.matches?.("select, textarea, input:not([type=radio], [type=checkbox], [type=range])");
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target) || state.view === "curves") return;
  const arrows = event.target.matches?.("input[type=radio], input[type=range]");
  const inList = byId("list").contains(event.target);
  const keys = { j: 1, k: -1, ...(arrows ? {} : { ArrowRight: 1, ArrowLeft: -1 }), ...(inList ? { ArrowDown: 1, ArrowUp: -1 } : {}) };
  if (event.key in keys) move(keys[event.key]);
  else if (event.key === "/") byId("search").focus();
  else if (/^[1-9]$/.test(event.key) && Number(event.key) <= samples) change({ sample: Number(event.key) - 1 });
  else return;
  event.preventDefault();
}

// ---- 10. The whole page -----------------------------------------------------------------------------------------------

function show() {
  const reading = state.view !== "curves";
  for (const link of document.querySelectorAll(".views a")) {
    if (link.dataset.view === state.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  byId("prompts").hidden = !reading;
  document.querySelector(".layout").classList.toggle("wide", !reading);
  byId("answers-controls").hidden = state.view !== "answers";
  byId("disagree").hidden = byId("methods").hidden = state.view !== "answers";
  byId("soups-controls").hidden = state.view !== "soups";
  byId("reading").hidden = !reading;
  byId("charts-view").hidden = state.view === "answers";
  byId("search").value = state.search;
  byId("spread").value = state.spread;
  byId("spread-value").textContent = number(state.spread);
  for (const input of byId("samples").querySelectorAll("input")) input.checked = Number(input.value) === state.sample;
  if (reading) {
    showSwitches();
    showAsked();
    showMethods();
    for (const slider of byId("sliders").children) slider.update();
    showList();
    if (!listed.length) {
      byId("prompt").textContent = byId("topic").textContent = "";
      byId("cards").replaceChildren(make("p", { className: "none", textContent: "No prompt is left; search for less, or lower the disagreement." }));
    } else {
      showQuestion();
      if (state.view === "soups") showSoups();
      else showAnswers();
    }
  }
  if (state.view !== "answers") showCharts();
}

function build() {
  const chances = `chances, by the judge ${data.judge}, to be chosen over VB’s answer`;
  const scores = data.judge === null ? "Nothing was scored." : `Scores are ${data.judge === "oracle" ? "the oracle’s, from 0 to 1" : chances}.`;
  byId("experiment").textContent = data.experiment;
  byId("facts").textContent = `Seed ${data.seed}. ${data.prompts.length} ${data.split} prompts, ${samples} ${samples === 1 ? "response" : "responses"} of each method. ${scores}`;
  byId("samples").append(radios("sample", Array.from({ length: samples }, (_, i) => [i, `${i + 1}`]), 0, (sample) => change({ sample })));
  byId("samples").hidden = samples === 1;
  document.querySelector("[data-view=soups]").hidden = !data.recipes.length;
  document.querySelector("[data-view=curves]").hidden = !hasCombinations;
  for (const link of document.querySelectorAll(".views a")) {
    link.href = `#view=${link.dataset.view}`;
    link.addEventListener("click", (event) => {
      event.preventDefault();
      change({ view: link.dataset.view });
    });
  }
  byId("skip").addEventListener("click", (event) => {
    event.preventDefault();
    byId("main").focus();
  });
  buildSliders();
  byId("search").addEventListener("input", (event) => change({ search: event.target.value }));
  byId("spread").addEventListener("input", (event) => change({ spread: Number(event.target.value) }));
  byId("previous").addEventListener("click", () => move(-1));
  byId("next").addEventListener("click", () => move(1));
  document.addEventListener("keydown", pressed);
  dark.addEventListener("change", show);
  addEventListener("hashchange", () => {
    readHash();
    show();
  });
}

readHash();
build();
show();
