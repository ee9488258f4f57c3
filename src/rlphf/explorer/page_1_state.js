"use strict";

// ---- What was measured ----------------------------------------------------------------------------------------------

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

// ---- What is looked at; the hash of the address keeps it ------------------------------------------------------------

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
