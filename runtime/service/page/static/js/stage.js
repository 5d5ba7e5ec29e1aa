// An image with its map over it. They arrive apart, so that heat map, opacity and outlines are chosen here.

import { OPACITY } from "./drawing/colours.js";
import { segments } from "./drawing/contour.js";
import { apart } from "./drawing/digits.js";
import { table } from "./drawing/palette.js";

const BITS = { colorSpaceConversion: "none", premultiplyAlpha: "none" };

/** What `Stage.put` shows. It takes time, so that an image and all its figures can be shown together. */
export async function decode(record, jpeg, png) {
  const [bitmap, map] = await Promise.all([createImageBitmap(jpeg), png ? levels(png) : null]);
  return { record, bitmap, map };
}

/** A map's bytes out of its PNG. */
async function levels(blob) {
  const bitmap = await createImageBitmap(blob, BITS);
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const pixels = context.getImageData(0, 0, width, height).data;
  const bytes = new Uint8Array(width * height);
  for (let i = 0; i < bytes.length; i++) bytes[i] = pixels[4 * i];
  return { bytes, width, height };
}

export class Stage {
  /** @param {HTMLElement} element Holds a canvas for the image and one for what lies over it. */
  constructor(element) {
    this.element = element;
    this.heatmap = true;
    this.outlines = true;
    this.interest = true; // the region of interest's outlines
    this.opacity = OPACITY;
    this.threshold = null; // what outlines and colours go by; null for the image's own
    this.record = null;
    this.map = null;
    this.image = element.querySelector(".image");
    this.overlay = element.querySelector(".overlay");
    this.layer = new OffscreenCanvas(1, 1);
    new ResizeObserver(() => this.draw()).observe(element);
  }

  /** Shows an image; resolves once it is there. */
  async show(record, jpeg, png) {
    this.put(await decode(record, jpeg, png));
  }

  /** Shows an image that was decoded before. */
  put({ record, bitmap, map }) {
    if (this.image.width !== bitmap.width || this.image.height !== bitmap.height) {
      this.image.width = bitmap.width;
      this.image.height = bitmap.height;
      this.element.parentElement.style.setProperty("--shape", bitmap.width / bitmap.height);
    }
    this.image.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
    this.record = record;
    this.map = map;
    this.draw();
  }

  /** Draws what lies over the image anew. */
  draw() {
    const { overlay, record, map } = this;
    const box = this.image.getBoundingClientRect();
    const scale = Math.min(window.devicePixelRatio || 1, 2);
    const width = Math.max(1, Math.round(box.width * scale));
    const height = Math.max(1, Math.round(box.height * scale));
    if (overlay.width !== width || overlay.height !== height) {
      overlay.width = width;
      overlay.height = height;
    }
    const context = overlay.getContext("2d");
    context.clearRect(0, 0, width, height);
    if (!record) return;
    const threshold = this.threshold ?? record.pixel_threshold;
    if (map && this.heatmap && this.opacity > 0) this.#paint(context, width, height, threshold);
    if (this.interest) this.#interest(context, width, height, scale);
    if (this.outlines) {
      const changed = Math.abs(threshold - record.pixel_threshold) > 1e-6;
      if (map) this.#outline(context, width, height, scale, threshold, changed);
      if (!changed) {
        this.#peaks(context, width, height, scale, map ? threshold : Infinity);
        this.#label(context, width, height, scale);
      }
    }
  }

  #paint(context, width, height, threshold) {
    const { bytes, width: columns, height: rows } = this.map;
    const colours = table(threshold);
    const image = new ImageData(columns, rows);
    for (let i = 0; i < bytes.length; i++) {
      const from = 4 * bytes[i];
      for (let channel = 0; channel < 4; channel++) image.data[4 * i + channel] = colours[from + channel];
    }
    this.layer.width = columns;
    this.layer.height = rows;
    this.layer.getContext("2d").putImageData(image, 0, 0);
    context.globalAlpha = this.opacity;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.layer, 0, 0, width, height);
    context.globalAlpha = 1;
  }

  #outline(context, width, height, scale, threshold, changed) {
    const { bytes, width: columns, height: rows } = this.map;
    const lines = segments(bytes, columns, rows, Math.max(1, Math.round(threshold * 255)));
    const inside = this.#boxes(columns, rows);
    const path = new Path2D();
    for (let i = 0; i < lines.length; i += 4) {
      const [x0, y0, x1, y1] = lines.slice(i, i + 4);
      // What is too small to be a region is left out, unless a threshold is being tried.
      if (!changed && !inside((x0 + x1) / 2, (y0 + y1) / 2)) continue;
      path.moveTo(x0 * width, y0 * height);
      path.lineTo(x1 * width, y1 * height);
    }
    stroke(context, path, scale, changed ? [6, 4] : [], "#fff");
  }

  // An anomaly always has an outline: where the map stays below the threshold, that of its peak's box.
  #peaks(context, width, height, scale, threshold) {
    const [across, down] = this.record.size;
    const path = new Path2D();
    for (const region of this.record.regions) {
      if (region.score >= threshold) continue;
      path.rect((region.x / across) * width, (region.y / down) * height, (region.width / across) * width, (region.height / down) * height);
    }
    stroke(context, path, scale, [], "#fff");
  }

  #boxes(columns, rows) {
    const [width, height] = this.record.size;
    const boxes = this.record.regions.map((region) => [
      region.x / width - 1 / columns,
      region.y / height - 1 / rows,
      (region.x + region.width) / width + 1 / columns,
      (region.y + region.height) / height + 1 / rows,
    ]);
    return (x, y) => boxes.some(([x0, y0, x1, y1]) => x >= x0 && x <= x1 && y >= y0 && y <= y1);
  }

  #interest(context, width, height, scale) {
    const { roi } = this.record;
    if (!roi) return;
    for (const [polygons, dash] of [[roi.keep, []], [roi.ignore, [3, 3]]]) {
      const path = new Path2D();
      for (const polygon of polygons) {
        polygon.forEach(([x, y], corner) => path[corner ? "lineTo" : "moveTo"](x * width, y * height));
        path.closePath();
      }
      stroke(context, path, scale, dash, "#8fd3ff");
    }
  }

  #label(context, width, height, scale) {
    const [full] = [this.record.size];
    const size = 13 * scale;
    context.font = `600 ${size}px system-ui, sans-serif`;
    context.textBaseline = "top";
    for (const region of this.record.regions.slice(0, 3)) {
      const text = region.score === null ? "–" : apart(region.score, this.record.pixel_threshold)[0];
      const wide = context.measureText(text).width + 8 * scale;
      const x = Math.min(Math.max((region.x / full[0]) * width, 0), width - wide);
      const above = (region.y / full[1]) * height - size - 8 * scale;
      const y = above >= 0 ? above : Math.min(((region.y + region.height) / full[1]) * height + 2 * scale, height - size - 6 * scale);
      context.fillStyle = "rgb(12 16 20 / 85%)";
      context.fillRect(x, y, wide, size + 6 * scale);
      context.fillStyle = "#fff";
      context.fillText(text, x + 4 * scale, y + 3 * scale);
    }
  }
}

/** A line that can be seen on anything: light on a dark rim. */
function stroke(context, path, scale, dash, colour) {
  context.lineJoin = context.lineCap = "round";
  context.setLineDash([]);
  context.strokeStyle = "rgb(0 0 0 / 70%)";
  context.lineWidth = 4 * scale;
  context.stroke(path);
  context.setLineDash(dash.map((length) => length * scale));
  context.strokeStyle = colour;
  context.lineWidth = 1.8 * scale;
  context.stroke(path);
  context.setLineDash([]);
}
