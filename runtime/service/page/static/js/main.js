// The page: what comes in goes to the parts that show it, what is chosen goes to the server.

import { Latest, hasToken, loggedIn, post } from "./api.js";
import { Chart } from "./chart.js";
import { tidy } from "./drawing/handle.js";
import { text } from "./dom.js";
import { Gallery } from "./gallery.js";
import { showHealth, showSources } from "./health.js";
import { Live } from "./live.js";
import { OPACITY } from "./drawing/colours.js";
import { apart } from "./drawing/digits.js";
import { drawLegend } from "./drawing/palette.js";
import { Stage, decode } from "./stage.js";
import { Teach } from "./teaching/teach.js";
import { Regions } from "./tools/regions.js";
import { Search } from "./tools/search.js";
import { Shifts } from "./tools/shifts.js";
import { Sources } from "./tools/sources.js";
import { Verdict, decide } from "./verdict.js";

const find = (id) => document.getElementById(id);
const stage = new Stage(find("stage"));
const verdict = new Verdict(find("verdict"));
const gallery = new Gallery();
const chart = new Chart(find("chart"), (value) => tryThresholds({ image: value }));
const search = new Search();
const shifts = new Shifts();
const members = new Sources((next) => take(next));
const regions = new Regions(stage, (next) => take(next));
const teach = new Teach(
  () => stage.record && { stream: stage.record.stream, number: stage.record.number },
  (next) => take(next),
  (value) => tryThresholds({ image: value }),
);
let stream = null; // the source that is looked at
let state = null;
let sources = [];
let seen = 0; // changes that the server has answered: a state from before them is old
let spoken = 0;

function saying(promise) {
  return promise.catch((error) => {
    find("saved").textContent = error.message;
    find("saved").dataset.kind = "error";
  });
}

const changes = new Latest(async (values) => {
  await saying(post("/api/thresholds", values).then((answer) => {
    take(answer.state, true);
  }));
});

function tryThresholds(values) {
  find("saved").textContent = "";
  if ("image" in values) find("threshold-number").value = values.image;
  if ("pixel" in values) showPixel(values.pixel);
  changes.push(values);
}

function showPixel(value) {
  stage.threshold = value;
  stage.draw();
  drawLegend(find("legend"), value);
  find("pixel").value = value;
  if (document.activeElement !== find("pixel-number")) find("pixel-number").value = tidy(value);
}

/** Shows the thresholds in use, unless they are old, or others are being tried at this moment. */
function take(next, answered = false) {
  if (next.changes < seen) return;
  seen = next.changes;
  const before = state;
  state = next;
  find("bundle").textContent = state.bundle;
  find("backend").textContent = state.backend;
  find("untrained").hidden = state.trained;
  regions.follow(state);
  teach.follow(state);
  if (!before) for (const control of document.querySelectorAll(".decision :disabled")) control.disabled = false;
  if (!before || before.classes.join() !== state.classes.join()) {
    find("class").replaceChildren(...state.classes.map((name) => text("option", name)));
  }
  if (document.activeElement !== find("class")) find("class").value = state.class_name;
  find("pause").setAttribute("aria-pressed", state.paused);
  find("pause-text").textContent = state.paused ? "Resume" : "Pause";
  find("pause-sign").setAttribute("href", state.paused ? "#sign-resume" : "#sign-pause");
  if (chart.busy || changes.waiting || (changes.busy && !answered)) return;
  chart.set(state.threshold);
  if (document.activeElement !== find("threshold-number")) find("threshold-number").value = tidy(state.threshold);
  showPixel(state.pixel_threshold);
  const changed = state.kept !== null;
  find("undo").hidden = !changed;
  find("save").dataset.changed = changed;
  if (changed && !find("saved").textContent) {
    find("saved").dataset.kind = "changed";
    find("saved").textContent = `In use, not saved. Before: ${state.kept.map((value) => tidy(value)).join(" and ")}`;
  } else if (!changed && find("saved").dataset.kind === "changed") {
    find("saved").textContent = "";
    find("saved").dataset.kind = "";
  }
}

async function show(update) {
  const decoded = update.picture && await decode(update.picture, update.jpeg, update.map);
  // From here on nothing is waited for: image, verdict and figures change together.
  sources = update.sources;
  if (!sources.some((source) => source.stream === stream)) stream = sources[0].stream;
  const source = sources.find((each) => each.stream === stream);
  take(update.state);
  search.follow(sources);
  members.follow(sources);
  shifts.refresh().catch(console.error);
  verdict.show(state, source, sources.length > 1);
  showTabs();
  chart.take(update.scores, update.clock);
  if (update.health) {
    showHealth(update.health, state);
    showSources(sources);
    find("scores").setAttribute("aria-label", chart.summary());
  }
  gallery.refresh(update.gallery).catch(console.error);
  const [now, why] = decide(state, source);
  find("stale").hidden = !["silent", "paused", "ended"].includes(now);
  find("stale").textContent = why;
  find("stage").classList.toggle("old", now === "silent" || now === "paused");
  if (decoded && update.picture.stream === stream && !teach.frozen) showImage(decoded);
}

function showImage(decoded) {
  const shown = decoded.record;
  if (!changes.busy) stage.threshold = null;
  stage.put(decoded);
  const verdictOf = shown.is_anomalous ? "anomalous" : "normal";
  find("about").textContent = `Frame ${shown.frame} of ${shown.source} · ${shown.size.join(" × ")} · ` +
    `${new Date(shown.captured_at * 1000).toLocaleTimeString()} · ${shown.regions.length} region${shown.regions.length === 1 ? "" : "s"}`;
  if (performance.now() - spoken > 1000) {
    spoken = performance.now();
    find("stage").setAttribute("aria-label", `Frame ${shown.frame}, ${verdictOf}, score ${apart(shown.score ?? 0, shown.threshold ?? 0, 3)[0]}, ${shown.regions.length} regions`);
  }
}

function showTabs() {
  const group = find("sources");
  group.hidden = sources.length < 2;
  if (group.hidden) return;
  if (group.children.length !== sources.length) {
    group.replaceChildren(...sources.map(() => {
      const button = text("button", "");
      button.type = "button";
      button.append(text("span", "", "dot"), text("span", "", "name"), text("span", "", "visually-hidden"));
      button.addEventListener("click", () => look(button.dataset.stream));
      return button;
    }));
  }
  sources.forEach((source, index) => {
    const button = group.children[index];
    const [now] = decide(state, source);
    button.dataset.stream = source.stream;
    button.dataset.verdict = now;
    button.setAttribute("aria-pressed", source.stream === stream);
    button.children[1].textContent = button.title = source.label;
    button.children[2].textContent = `, ${now}`;
  });
}

function look(next) {
  if (next === stream) return;
  stream = next;
  teach.thaw();
  chart.clear();
  showTabs();
}

new Live(
  () => ({ stream: stream ?? "", pictures: !document.hidden, span: chart.span }),
  show,
  (link, why) => {
    find("link").dataset.link = link;
    find("link-text").textContent = { live: "live", stale: "stalled", lost: "no connection" }[link];
    if (link === "live") return;
    seen = 0; // who answers next may count anew
    verdict.lost(why);
    find("stale").hidden = false;
    find("stale").textContent = "No connection: this image is old";
    find("stage").classList.add("old");
  },
);

loggedIn().then(() => {
  find("logout").hidden = !hasToken();
});
find("logout").addEventListener("click", () => post("/logout").then(() => location.assign("/login"), () => location.assign("/login")));

find("wall").addEventListener("click", () => {
  const wall = document.body.classList.toggle("wall");
  find("wall").setAttribute("aria-pressed", wall);
  if (wall) document.documentElement.requestFullscreen?.().catch(() => {});
  else if (document.fullscreenElement) document.exitFullscreen();
});
document.addEventListener("fullscreenchange", () => {
  if (document.fullscreenElement) return;
  document.body.classList.remove("wall");
  find("wall").setAttribute("aria-pressed", "false");
});

for (const [id, option] of [["heatmap", "heatmap"], ["outlines", "outlines"]]) {
  find(id).addEventListener("change", (event) => {
    stage[option] = event.target.checked;
    stage.draw();
  });
}
find("opacity").value = find("anomaly-opacity").value = 100 * OPACITY;
find("opacity").addEventListener("input", (event) => {
  stage.opacity = event.target.value / 100;
  stage.draw();
});

for (const button of document.querySelectorAll("[data-span]")) {
  button.addEventListener("click", () => {
    chart.clear(Number(button.dataset.span));
    for (const other of document.querySelectorAll("[data-span]")) other.setAttribute("aria-pressed", other === button);
  });
}
find("fit").addEventListener("click", () => {
  chart.fit = !chart.fit;
  find("fit").setAttribute("aria-pressed", chart.fit);
  chart.draw();
});

function typed(input, name) {
  input.addEventListener("change", () => {
    if (input.value === "" || !input.checkValidity()) {
      const value = Number(input.value);
      if (input.value === "" || !(value >= 0 && value <= 1)) {
        input.value = tidy(name === "image" ? state.threshold : state.pixel_threshold);
        return;
      }
    }
    const value = tidy(Number(input.value));
    if (name === "image") chart.set(value);
    tryThresholds({ [name]: value });
  });
}
typed(find("threshold-number"), "image");
typed(find("pixel-number"), "pixel");
find("pixel").addEventListener("input", (event) => tryThresholds({ pixel: tidy(Number(event.target.value)) }));

find("save").addEventListener("click", () => saying(post("/api/thresholds/save").then(({ state: next, saved }) => {
  find("saved").dataset.kind = "saved";
  find("saved").textContent = `Saved in ${saved}`;
  take(next);
})));
find("undo").addEventListener("click", () => {
  if (!state.kept) return;
  const [image, pixel] = state.kept;
  chart.set(image);
  saying(post("/api/thresholds", { image, pixel }).then(({ state: next }) => {
    take(next);
    find("save").focus();
  }));
});
find("class").addEventListener("change", (event) => {
  find("saved").textContent = "";
  saying(post("/api/class", { name: event.target.value }).then(({ state: next }) => take(next)));
});
find("pause").addEventListener("click", () => saying(post("/api/paused", { paused: !state.paused }).then(({ state: next }) => take(next))));
