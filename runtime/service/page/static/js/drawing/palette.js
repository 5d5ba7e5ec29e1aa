// The heat map's colours: matplotlib's inferno (CC0), even to the eye and clear to the colour-blind. Its middle lies at the
// pixel threshold whatever that is, so that the same colour always means the same distance from a region.

const STOPS =
  "000004 040312 0b0724 150b37 210c4a 2f0a5b 3d0965 4a0c6b 57106e 64156e 71196e 7d1e6d 8a226a 972766 a32c61 b0315b " +
  "bc3754 c63d4d d04545 da4e3c e35933 eb6429 f1711f f67e14 f98c0a fb9b06 fcaa0f fbba1f f9c932 f5d949 f2e865 f3f586 fcffa4";

const STEPS = STOPS.split(" ").map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));

/** Colour at a place of the palette, 0 to 1. */
export function colour(place) {
  const at = Math.min(Math.max(place, 0), 1) * (STEPS.length - 1);
  const low = Math.min(Math.floor(at), STEPS.length - 2);
  return STEPS[low].map((value, channel) => value + (STEPS[low + 1][channel] - value) * (at - low));
}

/** Place in the palette of a map value: 0 at 0, 1/2 at the threshold, 1 at 1. */
export function place(value, threshold) {
  const bound = Math.min(Math.max(threshold, 0.001), 0.999);
  return value < bound ? (0.5 * value) / bound : 0.5 + (0.5 * (value - bound)) / (1 - bound);
}

/** The heat map's opacity over the image, 0 to 1: nothing below half the threshold, all of it from there on. */
export function cover(value, threshold) {
  const from = 0.25;
  const x = Math.min(Math.max((place(value, threshold) - from) / (0.5 - from), 0), 1);
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
