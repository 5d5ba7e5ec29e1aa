// Outlines of where a map reaches a level: marching squares, with the crossings interpolated.

// For each case (bit 1: upper left, 2: upper right, 4: lower right, 8: lower left), pairs of the square's sides
// (0 top, 1 right, 2 bottom, 3 left) that a line joins.
const LINES = [
  [], [3, 0], [0, 1], [3, 1], [1, 2], [3, 0, 1, 2], [0, 2], [3, 2],
  [2, 3], [2, 0], [0, 1, 2, 3], [2, 1], [1, 3], [1, 0], [0, 3], [],
];

/**
 * Line segments of the outlines.
 * @param {Uint8Array} map Row by row.
 * @param {number} columns
 * @param {number} rows
 * @param {number} level What the map must reach to be inside.
 * @returns {number[]} x0, y0, x1, y1 of each segment, in shares of the map's width and height. Outside of the map is 0,
 *   so that a region which touches the border is closed.
 */
export function segments(map, columns, rows, level) {
  const found = [];
  const at = (x, y) => (x < 0 || y < 0 || x >= columns || y >= rows ? 0 : map[y * columns + x]);
  const between = (a, b) => Math.min(Math.max((level - a) / (b - a), 0), 1);
  for (let y = -1; y < rows; y++) {
    for (let x = -1; x < columns; x++) {
      const a = at(x, y), b = at(x + 1, y), c = at(x + 1, y + 1), d = at(x, y + 1);
      const kind = (a >= level) | ((b >= level) << 1) | ((c >= level) << 2) | ((d >= level) << 3);
      if (kind === 0 || kind === 15) continue;
      const sides = [
        () => [x + between(a, b), y],
        () => [x + 1, y + between(b, c)],
        () => [x + between(d, c), y + 1],
        () => [x, y + between(a, d)],
      ];
      for (const side of LINES[kind]) {
        const [px, py] = sides[side]();
        // A value stands for the middle of its cell.
        found.push(Math.min(Math.max((px + 0.5) / columns, 0), 1), Math.min(Math.max((py + 0.5) / rows, 0), 1));
      }
    }
  }
  return found;
}
