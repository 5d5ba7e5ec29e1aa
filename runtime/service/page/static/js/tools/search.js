// Search in the gallery by time, score and source; a selection of it goes out as a dataset.

import { get, posted } from "../api.js";
import { text } from "../dom.js";
import { apart } from "../drawing/digits.js";

const MOST = 500;
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "medium" });

export class Search {
  constructor() {
    this.find = (id) => document.getElementById(id);
    const { find } = this;
    this.dialog = find("search");
    this.page = 0;
    this.entries = [];
    this.selected = new Map(); // key -> label, or null where it is not marked yet
    find("search-open").addEventListener("click", () => {
      this.dialog.showModal();
      this.#search(0);
    });
    find("search-close").addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    find("search-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#search(0);
    });
    find("search-newer").addEventListener("click", () => this.#search(this.page - 1));
    find("search-older").addEventListener("click", () => this.#search(this.page + 1));
    find("search-all").addEventListener("click", () => this.#select(this.entries.map(({ key }) => key)));
    find("search-none").addEventListener("click", () => {
      this.selected.clear();
      this.#show();
    });
    find("export-kind").addEventListener("change", () => (find("export-named").hidden = this.#good));
    find("export-mark").addEventListener("click", () => this.#mark());
    find("export-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#export();
    });
  }

  /** The sources to choose from. */
  follow(sources) {
    const names = sources.length > 1 ? sources.map(({ name }) => name) : [];
    if (names.join("\n") === this.names) return;
    this.names = names.join("\n");
    const all = text("option", "all");
    all.value = "";
    this.find("search-source").replaceChildren(all, ...names.map((name) => text("option", name)));
    this.find("search-sources").hidden = !names.length;
  }

  get #good() {
    return this.find("export-kind").value === "good";
  }

  #query(page) {
    const { find } = this;
    const query = new URLSearchParams({ page });
    for (const [name, id] of [["after", "search-after"], ["before", "search-before"]]) {
      const at = new Date(find(id).value).getTime();
      if (!Number.isNaN(at)) query.set(name, at / 1000);
    }
    for (const name of ["low", "high"]) if (find(`search-${name}`).value !== "") query.set(name, find(`search-${name}`).value);
    if (find("search-source").value) query.set("source", find("search-source").value);
    return query;
  }

  async #search(page) {
    const { find } = this;
    try {
      const found = await get(`/api/search?${this.#query(page)}`);
      this.page = found.page;
      this.entries = found.entries;
      find("search-note").textContent = found.total
        ? `${found.total} found, page ${found.page + 1} of ${found.pages}`
        : "nothing found";
      find("search-newer").disabled = page <= 0;
      find("search-older").disabled = page + 1 >= found.pages;
      this.#show();
    } catch (error) {
      find("search-note").textContent = error.message;
    }
  }

  #show() {
    this.find("search-found").replaceChildren(...this.entries.map((entry) => this.#item(entry)));
    this.#count();
  }

  #item(entry) {
    const item = document.createElement("li");
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = this.selected.has(entry.key);
    const image = document.createElement("img");
    image.src = `/api/gallery/${encodeURIComponent(entry.key)}/thumbnail`;
    image.alt = "";
    image.loading = "lazy";
    const as = text("span", this.selected.get(entry.key) ?? "", "as");
    as.hidden = !as.textContent;
    label.append(
      box,
      image,
      text("span", apart(entry.score, entry.threshold)[0], "mark"),
      text("span", FULL.format(new Date(entry.captured_at * 1000)), "time"),
      as,
    );
    box.addEventListener("change", () => {
      if (box.checked) this.#select([entry.key]);
      else this.selected.delete(entry.key);
      this.#show();
      [...this.find("search-found").querySelectorAll("input")][this.entries.indexOf(entry)]?.focus();
    });
    item.append(label);
    return item;
  }

  #select(keys) {
    for (const key of keys) if (this.selected.size < MOST && !this.selected.has(key)) this.selected.set(key, null);
    this.#show();
  }

  #mark() {
    const label = this.#good ? "good" : this.find("export-label").value.trim() || "defect";
    for (const [key, before] of this.selected) if (before === null) this.selected.set(key, label);
    this.#show();
  }

  #count() {
    const marked = [...this.selected.values()].filter((label) => label !== null).length;
    this.find("export-go").disabled = !marked;
    this.find("export-mark").disabled = marked === this.selected.size;
    this.find("export-note").textContent = this.selected.size ? `${this.selected.size} selected, ${marked} marked` : "";
  }

  async #export() {
    const images = [...this.selected].filter(([, label]) => label !== null).map(([key, label]) => ({ key, label }));
    const note = this.find("export-note");
    note.textContent = "is being made";
    try {
      const answer = await posted("/api/export", { images });
      const url = URL.createObjectURL(await answer.blob());
      const link = document.createElement("a");
      link.href = url;
      link.download = /filename="([^"]+)"/.exec(answer.headers.get("content-disposition"))?.[1] ?? "anomalies.zip";
      link.click();
      setTimeout(() => URL.revokeObjectURL(url), 60000);
      const gone = Number(answer.headers.get("x-kanoclip-left-out"));
      note.textContent = `${images.length - gone} images exported${gone ? `, ${gone} are no longer in the gallery` : ""}. They carry no masks: what the model finds is no ground truth.`;
    } catch (error) {
      note.textContent = error.message;
    }
  }
}
