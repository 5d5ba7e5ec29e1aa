// False alarms against found defects, by threshold: what a threshold costs, and a line to choose it by.

import { moves } from "../drawing/handle.js";

const SVG = "http:" + "//www.w3.org/2000/svg"; // the name of the namespace, no address
const WIDTH = 640, HEIGHT = 220;
const PAD = { left: 44, right: 12, top: 12, bottom: 30 };
const percent = (share) => `${(100 * share).toFixed(1)} %`;

/** Share of good frames to come that a threshold calls anomalous at most: (k + 1) / (n + 1), as the server has it. */
export function falseAlarms(references, threshold) {
  return (references.filter((score) => score >= threshold).length + 1) / (references.length + 1);
}

/** Share of the frames labelled bad that a threshold finds; null without any. */
export function recall(bad, threshold) {
  return bad.length ? bad.filter((score) => score >= threshold).length / bad.length : null;
}

/** What a person reads of a threshold. */
export function reading(threshold, { references, bad }) {
  const found = bad.filter((score) => score >= threshold).length;
  const recalled = bad.length ? `; ${found} of ${bad.length} labelled bad are found` : "";
  return `At ${threshold.toFixed(3)}: up to about ${percent(falseAlarms(references, threshold))} of good frames are called anomalous${recalled}`;
}

export class Tradeoff {
  /**
   * @param {HTMLElement} box Holds the drawing, its slider and a line of text.
   * @param {(value: number) => void} choose Called with every threshold that is tried.
   */
  constructor(box, choose) {
    this.box = box;
    this.svg = box.querySelector("svg");
    this.line = box.querySelector("[role=slider]");
    this.note = box.querySelector(".note");
    this.choose = choose;
    this.data = { references: [], bad: [] };
    this.threshold = 0.5;
    this.dragging = false;
    this.#listen();
  }

  /** Shows a class's scores; without references there is nothing to draw. */
  show(data) {
    this.data = data;
    this.box.hidden = !data.references.length;
    this.draw();
  }

  /** Shows the threshold in use, unless another is being tried. */
  set(threshold) {
    if (this.dragging || threshold === this.threshold) return;
    this.threshold = threshold;
    this.draw();
  }

  draw() {
    if (this.box.hidden) return;
    const { references, bad } = this.data;
    if (!this.dragging) {
      const all = [...references, ...bad, this.threshold];
      this.range = [Math.max(0, Math.min(...all) - 0.05), Math.min(1, Math.max(...all) + 0.05)];
    }
    this.svg.replaceChildren();
    this.#axes();
    this.#curve("false-alarms", [...references].sort((a, b) => a - b), (value) => falseAlarms(references, value));
    if (bad.length) this.#curve("recall", [...bad].sort((a, b) => a - b), (value) => recall(bad, value));
    const at = this.#x(this.threshold);
    this.#add("line", { x1: at, x2: at, y1: PAD.top, y2: HEIGHT - PAD.bottom, class: "chosen" });
    this.line.style.left = `${(100 * at) / WIDTH}%`;
    this.line.setAttribute("aria-valuenow", this.threshold.toFixed(3));
    const text = reading(this.threshold, this.data);
    this.line.setAttribute("aria-valuetext", text);
    this.note.textContent = text;
  }

  #x(value) {
    const [low, high] = this.range;
    const share = Math.min(Math.max((value - low) / (high - low), 0), 1);
    return PAD.left + share * (WIDTH - PAD.left - PAD.right);
  }

  #y(share) {
    return PAD.top + (1 - share) * (HEIGHT - PAD.top - PAD.bottom);
  }

  #add(name, attributes, text = "") {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    this.svg.append(made);
  }

  #axes() {
    for (const share of [0, 0.25, 0.5, 0.75, 1]) {
      const y = this.#y(share);
      this.#add("line", { x1: PAD.left, x2: WIDTH - PAD.right, y1: y, y2: y, class: "grid" });
      this.#add("text", { x: PAD.left - 6, y: y + 4, "text-anchor": "end" }, `${100 * share} %`);
    }
    const [low, high] = this.range;
    for (const part of [0, 0.25, 0.5, 0.75, 1]) {
      const value = low + part * (high - low);
      this.#add("text", { x: this.#x(value), y: HEIGHT - 10, "text-anchor": part === 1 ? "end" : "middle" }, value.toFixed(2));
    }
  }

  // A step after each score: what is at or above the threshold counts.
  #curve(kind, scores, share) {
    const [low, high] = this.range;
    const inside = scores.filter((score) => score > low && score < high);
    let path = `M${this.#x(low)} ${this.#y(share(low))}`;
    for (const score of inside) path += `H${this.#x(score)}V${this.#y(share(score + 1e-9))}`;
    this.#add("path", { d: `${path}H${this.#x(high)}`, class: kind });
  }

  #place(event) {
    const box = this.svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * WIDTH;
    const [low, high] = this.range;
    return low + ((at - PAD.left) / (WIDTH - PAD.left - PAD.right)) * (high - low);
  }

  #listen() {
    moves(this, this.line, {
      at: (event) => Math.min(Math.max(this.#place(event), this.range[0]), this.range[1]),
      ends: () => this.range,
    });
  }
}
