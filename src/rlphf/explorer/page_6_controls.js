// ---- Switches and keys ----------------------------------------------------------------------------------------------

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
    parts.push(make("fieldset", { className: "switch" }, make("legend", { textContent: "Answers for" }), choices));
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

// ---- The whole page -------------------------------------------------------------------------------------------------

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
  const relative = data.judge === "rules"
    ? "normal percentiles of the rules’ scores among VB’s answers"
    : `chances, by the judge ${data.judge}, to be chosen over VB’s answer`;
  const judges = new Set([data.judge, data.user_judge].filter((judge) => judge !== null));
  const said = [...judges].map((judge) => (judge === "oracle" ? "the oracle’s, from 0 to 1" : relative));
  const whose = judges.size > 1 ? "Scores of answers to combinations, and to users, are " : "Scores are ";
  const scores = said.length ? `${whose}${said.join("; and ")}.` : "Nothing was scored.";
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
