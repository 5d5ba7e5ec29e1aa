// A threshold that is moved on a drawing: by mouse, touch and keys.

const STEP = 0.005;
const KEYS = {
  ArrowUp: STEP, ArrowRight: STEP, ArrowDown: -STEP, ArrowLeft: -STEP, PageUp: 10 * STEP, PageDown: -10 * STEP,
};

/** A threshold as it is sent and shown: three decimals. */
export const tidy = (value) => Math.round(Math.min(Math.max(value, 0), 1) * 1000) / 1000;

/**
 * Lets a handle move its drawing's threshold.
 *
 * @param {{threshold: number, dragging: boolean, draw: () => void, choose: (value: number) => void}} drawing
 * @param {HTMLElement | SVGElement} handle
 * @param {object} how
 * @param {(event: PointerEvent) => void} [how.grab] Called when it is taken.
 * @param {(event: PointerEvent) => number} how.at The value under the pointer.
 * @param {() => [number, number]} how.ends Where Home and End lead.
 * @param {number} [how.fine] Share of a key's step while Shift is held.
 */
export function moves(drawing, handle, { grab = () => {}, at, ends, fine = 1 }) {
  const set = (value) => {
    const next = tidy(value);
    if (next === drawing.threshold) return;
    drawing.threshold = next;
    drawing.draw();
    drawing.choose(next);
  };
  handle.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    event.preventDefault();
    handle.focus({ preventScroll: true });
    handle.setPointerCapture(event.pointerId);
    drawing.dragging = true;
    grab(event);
  });
  handle.addEventListener("pointermove", (event) => {
    if (drawing.dragging) set(at(event));
  });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
    handle.addEventListener(end, () => {
      drawing.dragging = false;
      drawing.draw();
    });
  }
  handle.addEventListener("keydown", (event) => {
    const step = KEYS[event.key];
    if (step) set(drawing.threshold + step * (event.shiftKey ? fine : 1));
    else if (event.key === "Home") set(ends()[0]);
    else if (event.key === "End") set(ends()[1]);
    else return;
    event.preventDefault();
  });
}
