// Polygons over the live image: where frames are scored, and what is ignored in them. Each change acts at once.

import { get, post } from "../api.js";

const SVG = "http:" + "//www.w3.org/2000/svg"; // the namespace's name, no address
const STEP = 0.01;
const MOVES = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
const MOST_CORNERS = 200; // of a polygon drawn by hand
const within = (value) => Math.min(Math.max(value, 0), 1);
const round = (value) => Math.round(value * 1e5) / 1e5;

export class Regions {
  /**
   * @param {import("../stage.js").Stage} stage Whose image is drawn on.
   * @param {(state: object) => void} take Learns the state after a change.
   */
  constructor(stage, take) {
    this.stage = stage;
    this.take = take;
    this.find = (id) => document.getElementById(id);
    this.svg = this.find("regions");
    this.shapes = []; // {kind: "keep" | "ignore", corners: [[x, y], ...]}
    this.open = null; // the polygon that is being drawn
    this.chosen = null;
    this.editing = false;
    this.class = null;
    this.find("regions-edit").addEventListener("click", () => (this.editing ? this.#end() : this.#begin()));
    this.find("regions-close").addEventListener("click", () => this.#finish());
    this.find("regions-box").addEventListener("click", () => this.#box());
    this.find("regions-delete").addEventListener("click", () => this.#remove());
    this.find("regions-save").addEventListener("click", () => this.#save());
    this.svg.addEventListener("click", (event) => this.#click(event));
    this.svg.addEventListener("keydown", (event) => event.key === "Escape" && this.#cancel());
  }

  /** The class looked for may be changed elsewhere: its polygons are others. */
  follow(state) {
    if (this.editing && state.class_name !== this.class) this.#begin(state.class_name);
    else this.class = state.class_name;
    this.find("regions-note").hidden = !this.editing && state.promised;
    if (!this.editing) this.find("regions-note").textContent = state.promised ? "" : "Thresholds are of another region";
  }

  async #begin(name = this.class) {
    this.class = name;
    try {
      const { keep, ignore } = await get("/api/region");
      this.shapes = [...keep.map((corners) => ({ kind: "keep", corners })), ...ignore.map((corners) => ({ kind: "ignore", corners }))];
    } catch (error) {
      this.#tell(error.message, "error");
      return;
    }
    this.editing = true;
    this.open = null;
    this.chosen = null;
    this.#tell("Click corners on the image; click the first one, or Close, to finish. Or add a box and move its corners.");
    this.#show();
  }

  #end() {
    this.editing = false;
    this.open = null;
    this.#tell("");
    this.#show();
    this.find("regions-edit").focus();
  }

  #cancel() {
    if (!this.open) return;
    this.open = null;
    this.#show();
  }

  get #kind() {
    return this.find("regions-ignore").checked ? "ignore" : "keep";
  }

  #place(event) {
    const box = this.svg.getBoundingClientRect();
    return [within((event.clientX - box.left) / box.width), within((event.clientY - box.top) / box.height)].map(round);
  }

  #click(event) {
    if (!this.editing || this.dragged) return;
    if (event.target !== this.svg) {
      const number = event.target.dataset.shape;
      if (number !== undefined && !this.open) this.#choose(Number(number));
      if (event.target.dataset.first) this.#finish();
      return;
    }
    if (!this.open) this.open = { kind: this.#kind, corners: [] };
    if (this.open.corners.length < MOST_CORNERS) this.open.corners.push(this.#place(event));
    this.#show();
  }

  #finish() {
    if (!this.open) return;
    if (this.open.corners.length < 3) {
      this.#tell("A polygon has at least 3 corners", "error");
      return;
    }
    this.shapes.push(this.open);
    this.open = null;
    this.chosen = this.shapes.length - 1;
    this.#send();
  }

  #box() {
    const inset = this.#kind === "keep" ? 0.1 : 0.4;
    const [low, high] = [inset, 1 - inset];
    this.shapes.push({ kind: this.#kind, corners: [[low, low], [high, low], [high, high], [low, high]] });
    this.chosen = this.shapes.length - 1;
    this.#send();
  }

  #remove() {
    if (this.chosen === null) return;
    this.shapes.splice(this.chosen, 1);
    this.chosen = null;
    this.#send();
    this.find("regions-edit").focus();
  }

  #choose(number) {
    this.chosen = number;
    this.#show();
  }

  async #send() {
    this.#show();
    const of = (kind) => this.shapes.filter((shape) => shape.kind === kind).map(({ corners }) => corners);
    try {
      const { state, note } = await post("/api/region", { class: this.class, keep: of("keep"), ignore: of("ignore") });
      this.#tell(note || "In use, not saved");
      this.take(state);
    } catch (error) {
      this.#tell(error.message, "error"); // what was drawn stays, to be mended; what is in use stays too
    }
  }

  async #save() {
    try {
      const { state, note, saved } = await post("/api/region/save");
      this.#tell(`Saved in ${saved}${note ? `. ${note}` : ""}`, "saved");
      this.take(state);
    } catch (error) {
      this.#tell(error.message, "error");
    }
  }

  #tell(text, kind = "") {
    const note = this.find("regions-note");
    note.textContent = text;
    note.dataset.kind = kind;
    note.hidden = !text;
  }

  #show() {
    this.stage.interest = !this.editing;
    this.stage.draw();
    this.svg.classList.toggle("editing", this.editing);
    this.find("regions-edit").setAttribute("aria-pressed", this.editing);
    this.find("regions-tools").hidden = !this.editing;
    this.find("regions-close").disabled = !this.open;
    this.find("regions-delete").disabled = this.chosen === null;
    const focused = document.activeElement?.dataset?.corner;
    this.svg.replaceChildren();
    if (!this.editing) return;
    this.shapes.forEach((shape, number) => this.#draw(shape, number));
    if (this.open) this.#draw(this.open, null);
    if (focused) this.svg.querySelector(`[data-corner="${focused}"]`)?.focus();
  }

  #draw(shape, number) {
    const outline = element(number === null ? "polyline" : "polygon", shape.kind);
    outline.setAttribute("points", shape.corners.map(([x, y]) => `${x * 1000},${y * 1000}`).join(" "));
    if (number !== null) outline.dataset.shape = number;
    outline.classList.toggle("chosen", number === this.chosen && number !== null);
    this.svg.append(outline);
    if (number !== null && number !== this.chosen) {
      outline.setAttribute("tabindex", "0");
      outline.setAttribute("role", "button");
      outline.setAttribute("aria-label", `${shape.kind === "keep" ? "Region" : "Ignored area"} ${number + 1}: edit`);
      outline.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        this.#choose(number);
        this.svg.querySelector("[data-corner]")?.focus();
      });
      return;
    }
    shape.corners.forEach((corner, index) => this.#handle(shape, number, corner, index, outline));
  }

  #handle(shape, number, corner, index, outline) {
    const handle = element("rect", "corner");
    const set = ([x, y]) => {
      shape.corners[index] = [round(within(x)), round(within(y))];
      const box = this.svg.getBoundingClientRect();
      const [wide, high] = [14000 / Math.max(box.width, 1), 14000 / Math.max(box.height, 1)];
      for (const [name, value] of [["x", shape.corners[index][0] * 1000 - wide / 2], ["y", shape.corners[index][1] * 1000 - high / 2], ["width", wide], ["height", high]]) handle.setAttribute(name, value);
      outline.setAttribute("points", shape.corners.map(([px, py]) => `${px * 1000},${py * 1000}`).join(" "));
    };
    set(corner);
    handle.dataset.corner = `${number}-${index}`;
    if (number === null && index === 0) handle.dataset.first = "true";
    handle.setAttribute("tabindex", "0");
    handle.setAttribute("role", "button");
    handle.setAttribute("aria-label", `Corner ${index + 1}: arrow keys move it, Delete takes it out`);
    handle.addEventListener("keydown", (event) => {
      const move = MOVES[event.key];
      if (move) set([shape.corners[index][0] + move[0], shape.corners[index][1] + move[1]]);
      else if (event.key === "Delete" && shape.corners.length > 3) shape.corners.splice(index, 1);
      else return;
      event.preventDefault();
      if (number !== null) this.#send();
    });
    handle.addEventListener("pointerdown", (event) => {
      if (number === null) return;
      event.preventDefault();
      handle.setPointerCapture(event.pointerId);
      this.dragged = false;
    });
    handle.addEventListener("pointermove", (event) => {
      if (!handle.hasPointerCapture(event.pointerId)) return;
      this.dragged = true;
      set(this.#place(event));
    });
    handle.addEventListener("pointerup", () => {
      if (!this.dragged) return;
      setTimeout(() => (this.dragged = false)); // after the click that ends a drag
      this.#send();
    });
    this.svg.append(handle);
  }
}

function element(name, kind) {
  const made = document.createElementNS(SVG, name);
  made.setAttribute("class", kind);
  made.setAttribute("vector-effect", "non-scaling-stroke");
  return made;
}
