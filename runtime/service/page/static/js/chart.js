// Scores over time, with the threshold as a line that can be moved: by mouse, touch and keys.

import { moves } from "./drawing/handle.js";

const PAD = { top: 10, right: 78, bottom: 22, left: 34 };
const SPANS = { 60: ["minute", [-60, -45, -30, -15, 0]], 600: ["ten minutes", [-600, -450, -300, -150, 0]], 3600: ["hour", [-3600, -2700, -1800, -900, 0]] };
const BUCKETS = 300;

export class Chart {
  /**
   * @param {HTMLElement} element Holds a canvas and the slider.
   * @param {(value: number) => void} choose Called with every threshold that is tried.
   */
  constructor(element, choose) {
    this.element = element;
    this.canvas = element.querySelector("canvas");
    this.slider = element.querySelector("[role=slider]");
    this.choose = choose;
    this.span = 60;
    this.fit = false;
    this.rows = [];
    this.clock = 0;
    this.range = [0, 1];
    this.threshold = null;
    this.dragging = false;
    new ResizeObserver(() => this.draw()).observe(element);
    matchMedia("(prefers-color-scheme: light)").addEventListener("change", () => this.draw());
    this.#listen();
  }

  /** Takes scores: all from bucket number `from` on. */
  take({ span, from, rows }, clock) {
    if (span !== this.span) return;
    this.clock = clock;
    const oldest = Math.floor(clock / (span / BUCKETS)) - BUCKETS;
    this.rows = this.rows.filter(([key]) => key < from && key > oldest).concat(rows);
    this.draw();
  }

  /** Forgets all scores: another source or span is looked at. */
  clear(span = this.span) {
    this.span = span;
    this.rows = [];
    this.draw();
  }

  /** Shows the threshold in use, unless another is just being tried. */
  set(threshold) {
    if (this.dragging || threshold === this.threshold) return;
    this.threshold = threshold;
    this.draw();
  }

  get busy() {
    return this.dragging;
  }

  /** What a screen reader hears. */
  summary() {
    if (!this.rows.length) return `No scores in the last ${SPANS[this.span][0]}`;
    const highest = Math.max(...this.rows.map((row) => row[2]));
    const anomalous = this.rows.filter((row) => row[3]).length;
    return `Scores of the last ${SPANS[this.span][0]}: now ${this.rows.at(-1)[2].toFixed(3)}, highest ${highest.toFixed(3)}, ` +
      (anomalous ? `anomalous in ${anomalous} of ${this.rows.length} moments` : "none anomalous");
  }

  draw() {
    const { width, height } = this.element.getBoundingClientRect();
    if (!width || !height) return;
    const scale = Math.min(window.devicePixelRatio || 1, 2);
    const { canvas } = this;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    if (!this.dragging) this.range = this.#range();
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    const style = getComputedStyle(this.element);
    const ink = (name) => style.getPropertyValue(name);
    const plot = { x0: PAD.left, x1: width - PAD.right, y0: PAD.top, y1: height - PAD.bottom };
    this.plot = plot;
    const y = (value) => plot.y1 - ((value - this.range[0]) / (this.range[1] - this.range[0])) * (plot.y1 - plot.y0);
    this.#axes(context, plot, y, ink);
    this.#scores(context, plot, y, ink);
    this.#place(y, plot);
  }

  #range() {
    const values = this.rows.flatMap((row) => [row[1], row[2]]);
    if (!this.fit || !values.length) return [0, 1];
    if (this.threshold !== null) values.push(this.threshold);
    const low = Math.min(...values), high = Math.max(...values);
    const room = Math.max((high - low) * 0.15, 0.01);
    return [Math.max(0, low - room), Math.min(1, high + room)];
  }

  #axes(context, plot, y, ink) {
    context.font = "11px system-ui, sans-serif";
    context.fillStyle = ink("--muted");
    context.strokeStyle = ink("--rule");
    context.lineWidth = 1;
    context.textAlign = "right";
    context.textBaseline = "middle";
    const [low, high] = this.range;
    const step = [0.005, 0.01, 0.02, 0.05, 0.1, 0.25].find((size) => (high - low) / size <= 5) ?? 0.25;
    for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + 1e-9; value += step) {
      const at = Math.round(y(value)) + 0.5;
      context.beginPath();
      context.moveTo(plot.x0, at);
      context.lineTo(plot.x1, at);
      context.stroke();
      context.fillText(value.toFixed(step < 0.01 ? 3 : 2), plot.x0 - 6, at);
    }
    context.textBaseline = "top";
    for (const back of SPANS[this.span][1]) {
      const at = plot.x1 + (back / this.span) * (plot.x1 - plot.x0);
      context.textAlign = back === 0 ? "right" : back === -this.span ? "left" : "center";
      context.fillText(back === 0 ? "now" : this.span === 60 ? `${-back} s` : `${-back / 60} min`, at, plot.y1 + 7);
    }
  }

  #scores(context, plot, y, ink) {
    const each = this.span / BUCKETS;
    const now = this.clock / each;
    const x = (key) => plot.x1 - ((now - key - 0.5) / BUCKETS) * (plot.x1 - plot.x0);
    const wide = Math.max((plot.x1 - plot.x0) / BUCKETS, 1);
    context.save();
    context.beginPath();
    context.rect(plot.x0, plot.y0 - 4, plot.x1 - plot.x0, plot.y1 - plot.y0 + 8);
    context.clip();
    context.fillStyle = ink("--trace-soft");
    for (const [key, low, high] of this.rows) context.fillRect(x(key) - wide / 2, y(high), wide, Math.max(y(low) - y(high), 0));
    context.strokeStyle = ink("--trace");
    context.lineWidth = 1.6;
    context.lineJoin = "round";
    context.beginPath();
    let before = null;
    for (const [key, , high] of this.rows) {
      // A gap of more than three seconds, or three buckets, is one: nothing was scored.
      const joined = before !== null && (key - before) * each <= Math.max(3, 3 * each);
      context[joined ? "lineTo" : "moveTo"](x(key), y(high));
      if (!joined) context.lineTo(x(key) + 0.1, y(high));
      before = key;
    }
    context.stroke();
    context.fillStyle = ink("--alarm");
    for (const [key, , high, anomalous] of this.rows) {
      if (!anomalous) continue;
      const px = x(key), py = y(high);
      context.beginPath();
      context.moveTo(px, py - 4.5);
      context.lineTo(px + 4, py + 3);
      context.lineTo(px - 4, py + 3);
      context.fill();
    }
    context.restore();
  }

  #place(y, plot) {
    const { slider, threshold } = this;
    slider.hidden = threshold === null;
    if (threshold === null) return;
    const at = Math.min(Math.max(y(threshold), plot.y0), plot.y1);
    slider.style.top = `${at}px`;
    slider.style.left = `${plot.x0}px`;
    slider.setAttribute("aria-valuenow", threshold.toFixed(3));
    slider.setAttribute("aria-valuetext", threshold.toFixed(3));
    slider.querySelector("#threshold-value").textContent = threshold.toFixed(3);
  }

  #listen() {
    const { slider } = this;
    let offset = 0;
    moves(this, slider, {
      grab: (event) => {
        offset = event.clientY - this.element.getBoundingClientRect().top - parseFloat(slider.style.top);
      },
      at: (event) => {
        const at = event.clientY - this.element.getBoundingClientRect().top - offset;
        const share = (this.plot.y1 - at) / (this.plot.y1 - this.plot.y0);
        return this.range[0] + share * (this.range[1] - this.range[0]);
      },
      ends: () => [0, 1],
      fine: 0.2,
    });
  }
}
