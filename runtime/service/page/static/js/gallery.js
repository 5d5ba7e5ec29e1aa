// The last anomalies: small images, and each with its map and its record when it is opened.

import { get } from "./api.js";
import { fill, rows, text } from "./dom.js";
import { apart } from "./drawing/digits.js";
import { Stage } from "./stage.js";

const SHOWN = 24;
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const when = (entry, format) => format.format(new Date(entry.captured_at * 1000));
const path = (entry, part) => `/api/gallery/${encodeURIComponent(entry.key)}/${part}`;

export class Gallery {
  constructor() {
    this.list = document.getElementById("gallery");
    this.note = document.getElementById("gallery-note");
    this.entries = [];
    this.revision = null;
    this.detail = new Detail((step) => this.#move(step));
  }

  /** Reads the list anew where it has changed. */
  async refresh(revision) {
    if (revision === this.revision || this.reading) return;
    this.reading = true;
    try {
      const { entries, place } = await get("/api/gallery");
      this.revision = revision;
      this.#show(entries, place);
    } finally {
      this.reading = false;
    }
  }

  #show(entries, place) {
    this.entries = entries;
    this.note.textContent = entries.length
      ? place ? `saved in ${place}` : "in memory, gone with the process; keep them with --snapshots"
      : "none so far";
    // Those that stay keep their elements, and with them the focus.
    const there = new Map([...this.list.children].map((item) => [item.dataset.key, item]));
    const items = entries.slice(0, SHOWN).map((entry) => there.get(entry.key) ?? this.#item(entry));
    items.forEach((item, index) => {
      if (this.list.children[index] !== item) this.list.insertBefore(item, this.list.children[index] ?? null);
    });
    while (this.list.children.length > items.length) this.list.lastChild.remove();
  }

  #item(entry) {
    const item = document.createElement("li");
    item.dataset.key = entry.key;
    const button = document.createElement("button");
    button.type = "button";
    const image = document.createElement("img");
    image.src = path(entry, "thumbnail");
    image.alt = "";
    image.loading = "lazy";
    button.append(
      image,
      text("span", apart(entry.score, entry.threshold)[0], "mark"),
      text("span", when(entry, CLOCK), "time"),
      text("span", `: anomaly${entry.stream ? ` of ${entry.stream}` : ""}`, "visually-hidden"),
    );
    button.addEventListener("click", () => this.detail.open(this.entries.find(({ key }) => key === entry.key) ?? entry, this.entries));
    item.append(button);
    return item;
  }

  #move(step) {
    const at = this.entries.findIndex(({ key }) => key === this.detail.entry.key);
    const next = this.entries[at + step];
    if (next) this.detail.open(next, this.entries);
  }
}

class Detail {
  constructor(move) {
    const find = (id) => document.getElementById(id);
    this.find = find;
    this.dialog = find("anomaly");
    this.stage = new Stage(find("anomaly-stage"));
    this.entry = null;
    find("anomaly-close").addEventListener("click", () => this.dialog.close());
    find("anomaly-newer").addEventListener("click", () => move(-1));
    find("anomaly-older").addEventListener("click", () => move(1));
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    this.dialog.addEventListener("keydown", (event) => {
      if (event.target.matches("input")) return;
      if (event.key === "ArrowLeft") move(-1);
      if (event.key === "ArrowRight") move(1);
    });
    find("anomaly-heatmap").addEventListener("change", (event) => {
      this.stage.heatmap = event.target.checked;
      this.stage.draw();
    });
    find("anomaly-opacity").addEventListener("input", (event) => {
      this.stage.opacity = event.target.value / 100;
      this.stage.draw();
    });
  }

  async open(entry, entries) {
    this.entry = entry;
    const { find } = this;
    find("anomaly-title").textContent = `Anomaly, ${when(entry, FULL)}`;
    const at = entries.findIndex(({ key }) => key === entry.key);
    const [newer, older, close] = ["newer", "older", "close"].map((name) => find(`anomaly-${name}`));
    const focused = document.activeElement;
    newer.disabled = at <= 0;
    older.disabled = at < 0 || at >= entries.length - 1;
    if (!this.dialog.open) this.dialog.showModal();
    // A button that is disabled takes no keys, and the arrows would end with it.
    else if (focused.disabled) [newer, older, close].find((button) => !button.disabled).focus();
    try {
      const [record, jpeg, map] = await Promise.all([
        get(path(entry, "record")),
        fetch(path(entry, "picture")).then((response) => (response.ok ? response.blob() : Promise.reject(new Error("gone")))),
        fetch(path(entry, "map")).then((response) => (response.ok ? response.blob() : null)),
      ]);
      if (this.entry !== entry) return;
      await this.stage.show(record, jpeg, map);
      this.#tell(entry, record, Boolean(map));
    } catch {
      find("anomaly-title").textContent = "This anomaly is no longer saved";
    }
  }

  #tell(entry, record, hasMap) {
    const { find } = this;
    for (const id of ["anomaly-heatmap", "anomaly-opacity"]) find(id).disabled = !hasMap;
    const [score, threshold] = apart(entry.score, entry.threshold, 3);
    find("anomaly-stage").setAttribute("aria-label", `Frame ${record.frame}, score ${score}, ${record.regions.length} regions`);
    fill(find("anomaly-facts"), [
      ["score", score],
      ["threshold", threshold],
      ["looked for", entry.class_name],
      ["frame", record.frame],
      ["source", record.source],
      ["image", record.size.join(" × ")],
    ]);
    rows(find("anomaly-regions"), record.regions.map((region) => [
      region.score === null ? "–" : apart(region.score, record.pixel_threshold, 3)[0], region.x, region.y, region.width, region.height, region.area,
    ]));
    const name = `anomaly-${record.time.replace(/[:.]/g, "-")}`;
    for (const [id, part, ending] of [["image", "picture", "jpg"], ["record", "record", "json"]]) {
      const link = find(`anomaly-${id}`);
      link.href = path(entry, part);
      link.download = `${name}.${ending}`;
    }
  }
}
