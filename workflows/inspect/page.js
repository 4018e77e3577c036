"use strict";
// Draws the groups of the step. All text goes in as text; a rollout's tokens are drawn when it is opened.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byRow = new Map(data.rollouts.map((rollout) => [rollout.row, rollout]));
  const details = new Map(data.details.map((detail) => [detail.row, detail]));
  const [shading, route, beta] = ["shading", "route", "beta"].map((id) => document.getElementById(id));
  const own = data.routes[0];
  const DIVERGENCES = {
    loss: { divergence: "divergence (of the loss, before the first update)" },
    two_buckets: { two_bucket_divergence: "lower bound of the divergence, over two buckets" },
  };
  const SHADINGS = {
    weight: "weight, for this route and beta",
    trained_weight: "trained weight",
    ...DIVERGENCES[data.divergence],
    advantage: "advantage",
    student_entropy: "student entropy",
    teacher_entropy: "teacher entropy",
    importance: "importance weight",
  };

  const make = (name, text = "", className = "") => {
    const element = document.createElement(name);
    element.textContent = text;
    if (className) element.className = className;
    return element;
  };
  const option = (select, value, text) => {
    const element = make("option", text);
    element.value = value;
    select.append(element);
  };
  const short = (value) => value === null || value === undefined ? "-" : String(Number(value.toPrecision(4)));

  Object.entries(SHADINGS).forEach(([value, text]) => option(shading, value, text));
  data.routes.forEach((name) => option(route, name, name === own ? `${name} (the run's)` : name));
  beta.max = data.betas.length - 1;
  beta.value = data.betas.indexOf(data.settings.beta);

  const valuesOf = (row) => shading.value === "weight"
    ? recompute.weights(data, byRow.get(row), details.get(row), route.value, Number(beta.value))
    : details.get(row).signals[shading.value] || null;

  function largest() {
    let found = 0;
    for (const row of details.keys()) {
      for (const value of valuesOf(row) || []) found = Math.max(found, Math.abs(value || 0));
    }
    return found;
  }

  const colour = (value, most) => {
    const share = most > 0 ? Math.round(70 * Math.abs(value) / most) : 0;
    return `color-mix(in srgb, var(${value < 0 ? "--c0" : "--c2"}) ${share}%, transparent)`;
  };

  function shade(item, most) {
    const row = Number(item.dataset.row);
    const values = valuesOf(row);
    item.querySelectorAll(".tokens span").forEach((token, place) => {
      const value = values ? values[place] : null;
      token.style.backgroundColor = value ? colour(value, most) : "";
      token.dataset.value = value === null || value === undefined ? "" : value;
    });
  }

  function tag(item) {
    const rollout = byRow.get(Number(item.dataset.row));
    const branch = recompute.branch(data, rollout, route.value);
    const label = item.querySelector(".tag");
    const changed = branch !== rollout.branch;
    label.textContent = branch;
    label.className = `tag ${branch}${changed ? " changed" : ""}`;
    item.dataset.branch = branch;
    const unknown = branch === "distilled" && !rollout.sums ? " The run's teacher was not asked: no weights." : "";
    item.querySelector(".why").textContent = changed
      ? `Route ${route.value} makes it ${branch}; in the run it was ${rollout.branch}: ${rollout.why}.${unknown}`
      : `${rollout.branch}: ${rollout.why}.`;
  }

  function update() {
    document.getElementById("beta-value").textContent = data.betas[beta.value];
    const found = recompute.change(data, route.value);
    const parts = [`Route ${route.value}: ${found.distilled} of the batch's ${data.rollouts.length} rollouts distilled`];
    if (route.value !== own) parts.push(`${found.more} that the run did not distil, ${found.fewer} fewer of those it did`);
    if (found.unknown) parts.push(`the teacher was not asked about ${found.unknown} of them`);
    document.getElementById("change").textContent = `${parts.join("; ")}.`;
    const most = largest();
    const sides = shading.value === "advantage" ? [-most, 0, most] : [0, most / 2, most];
    document.getElementById("scale").style.background = `linear-gradient(to right, ${sides.map((side) => colour(side, most)).join(", ")})`;
    document.getElementById("about").textContent = most > 0
      ? `${short(sides[0])} to ${short(most)}, ${SHADINGS[shading.value]}`
      : `No token here has a ${SHADINGS[shading.value]} other than 0.`;
    document.querySelectorAll(".rollout").forEach((item) => { tag(item); shade(item, most); });
  }

  function block(name, text) {
    const part = make("div");
    const body = make("pre", text);
    body.tabIndex = 0;
    part.append(make("h4", name), body);
    return part;
  }

  function open(item) {
    if (item.dataset.drawn) return;
    item.dataset.drawn = "1";
    const row = Number(item.dataset.row), rollout = byRow.get(row), detail = details.get(row);
    const response = make("pre", "", "tokens");
    response.tabIndex = 0;
    detail.pieces.forEach((piece, place) => {
      const token = make("span", piece, detail.mask[place] ? "" : "masked");
      token.dataset.place = place;
      response.append(token);
    });
    const own = make("div");
    own.append(make("h4", "Response, shaded"), response);
    const texts = make("div", "", "texts");
    texts.append(own);
    if (detail.prompt !== null) texts.append(block("The teacher's prompt", data.teacher_prompts[detail.prompt]));
    // Nobody is shown anything whose teacher was not asked, though there was something to show.
    const asked = detail.prompt !== null, sibling = details.get(rollout.sibling_row);
    if (asked && sibling) texts.append(block(`Shown: rollout ${rollout.sibling} of the group`, sibling.pieces.join("")));
    else if (asked && detail.shown_text) texts.append(block(`Shown: ${rollout.provider}`, detail.shown_text));
    item.append(texts);
    shade(item, largest());
  }

  const list = document.getElementById("groups");
  data.groups.forEach((group, number) => {
    const section = make("section", "", "group");
    section.append(make("h2", `Group ${number + 1}`), make("p", group.uid, "dim"));
    if (group.question !== null) section.append(block("The student's prompt", group.question));
    group.rows.forEach((row) => {
      const rollout = byRow.get(row);
      const item = make("details", "", "rollout");
      item.dataset.row = row;
      const summary = make("summary");
      const verdict = rollout.correct === null ? "not counted" : rollout.correct ? "correct" : "incorrect";
      const number = `rollout ${rollout.session}${rollout.output ? `, output ${rollout.output}` : ""}`;
      summary.append(make("span", "", "tag"), make("span", verdict, "verdict"), make("span", `score ${short(rollout.score)}`, "score"),
        make("span", `${number}, ${rollout.tokens} tokens, advantage ${short(rollout.advantage)}`, "dim"));
      item.append(summary, make("p", "", "why dim"));
      item.addEventListener("toggle", () => { if (item.open) open(item); });
      section.append(item);
    });
    list.append(section);
  });

  function read(event) {
    const token = event.target.closest(".tokens span");
    if (!token) return;
    const row = Number(token.closest(".rollout").dataset.row), place = Number(token.dataset.place);
    const detail = details.get(row);
    const weights = recompute.weights(data, byRow.get(row), detail, route.value, Number(beta.value));
    const numbers = Object.entries(detail.signals).map(([name, values]) => `${name.replaceAll("_", " ")} ${short(values[place])}`);
    const text = JSON.stringify(detail.pieces[place]);
    document.getElementById("readout").textContent = detail.mask[place]
      ? `token ${place}, id ${detail.ids[place]}, ${text}: weight ${short(weights ? weights[place] : null)}, ${numbers.join(", ")}`
      : `token ${place}, id ${detail.ids[place]}, ${text}: not trained on`;
  }

  list.addEventListener("mouseover", read);
  list.addEventListener("click", read);
  [shading, route, beta].forEach((control) => control.addEventListener("input", update));
  document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
  update();
  const first = document.querySelector(".rollout[data-branch=distilled]") || document.querySelector(".rollout");
  if (first) first.open = true;
})();
