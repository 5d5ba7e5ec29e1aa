// The heat map's colours, which the server has from the palette of the annotated files. The palette's middle lies at the
// pixel threshold whatever that is, so that the same colour always means the same distance from a region.

import { COLOURS, FROM, FULL } from "./colours.js";

/** Colour at a place of the palette, 0 to 1. */
export const colour = (place) => COLOURS[Math.round(Math.min(Math.max(place, 0), 1) * 255)];

/** Place in the palette of a map value: 0 at 0, 1/2 at the threshold, 1 at 1. */
export function place(value, threshold) {
  const bound = Math.min(Math.max(threshold, 0.001), 0.999);
  return value < bound ? (0.5 * value) / bound : 0.5 + (0.5 * (value - bound)) / (1 - bound);
}

/** Share of its opacity that the heat map has over the image, 0 to 1: nothing where the map is well below the threshold. */
export function cover(value, threshold) {
  const x = Math.min(Math.max((place(value, threshold) - FROM) / (FULL - FROM), 0), 1);
  return x * x * (3 - 2 * x);
}

/** 256 colours with their cover, as the bytes of RGBA pixels, by the map's bytes. */
export function table(threshold) {
  const rows = new Uint8ClampedArray(1024);
  for (let level = 0; level < 256; level++) {
    const value = level / 255;
    rows.set([...colour(place(value, threshold)), 255 * cover(value, threshold)], 4 * level);
  }
  return rows;
}

/** Draws the palette with its mark at the threshold. */
export function drawLegend(canvas, threshold) {
  const { width, height } = canvas;
  const context = canvas.getContext("2d");
  for (let x = 0; x < width; x++) {
    context.fillStyle = `rgb(${colour(place(x / (width - 1), threshold)).join(" ")})`;
    context.fillRect(x, 0, 1, height);
  }
  const mark = Math.round(threshold * (width - 1));
  context.fillStyle = "#000";
  context.fillRect(mark - 2, 0, 5, height);
  context.fillStyle = "#fff";
  context.fillRect(mark - 1, 0, 3, height);
}
