// Sources that join the run, leave it, or are called something else on the page.

import { post } from "../api.js";
import { text } from "../dom.js";

export class Sources {
  /** @param {(state: object) => void} take Learns the state after a change. */
  constructor(take) {
    this.take = take;
    this.find = (id) => document.getElementById(id);
    const { find } = this;
    this.dialog = find("sources-dialog");
    this.shown = "";
    find("sources-open").addEventListener("click", () => this.dialog.showModal());
    find("sources-close").addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    find("sources-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#add();
    });
  }

  /** Shows what there is; fields stay while nothing changes, and with them what is being typed. */
  follow(sources) {
    const now = JSON.stringify(sources.map(({ name, label }) => [name, label]));
    if (now === this.shown) return;
    this.shown = now;
    this.find("sources-list").replaceChildren(...sources.map((source) => this.#row(source, sources.length)));
  }

  #row(source, count) {
    const row = document.createElement("li");
    const field = document.createElement("input");
    field.type = "text";
    field.maxLength = 60;
    field.value = source.label === source.name ? "" : source.label;
    field.placeholder = source.name;
    field.setAttribute("aria-label", `Name on this page of ${source.name}`);
    field.addEventListener("change", () => this.#send("/api/sources/label", { name: source.name, label: field.value }, "renamed"));
    const remove = text("button", "Remove");
    remove.type = "button";
    remove.disabled = count < 2;
    remove.setAttribute("aria-label", `Remove ${source.name}`);
    remove.addEventListener("click", () => this.#send("/api/sources/remove", { name: source.name }, "removed"));
    row.append(text("span", source.name, "name"), field, remove);
    return row;
  }

  async #add() {
    const { find } = this;
    find("sources-add").disabled = true;
    find("sources-note").textContent = "is being opened";
    const values = { source: find("sources-address").value, name: find("sources-name").value };
    if (await this.#send("/api/sources", values, "added, until the run ends; name it in the line's file for good")) {
      find("sources-address").value = ""; // it may hold a password
      find("sources-name").value = "";
    }
    find("sources-add").disabled = false;
  }

  async #send(path, values, done) {
    try {
      const { state, name } = await post(path, values);
      this.find("sources-note").textContent = `${name ?? values.name} ${done}`;
      this.take(state);
      return true;
    } catch (error) {
      this.find("sources-note").textContent = error.message;
      return false;
    }
  }
}
