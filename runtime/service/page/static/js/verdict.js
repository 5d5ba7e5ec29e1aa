// The verdict, to be read from across the hall, and never older than it says.

import { apart } from "./drawing/digits.js";

const HOLD_S = 1.5; // an anomaly of one frame in fifty stays long enough to be seen,
const HOLD_FROM_FPS = 4; // but where each frame is another part, the verdict is that of the part in the image
const SILENT_S = 3;
const WORDS = {
  wait: "Waiting", normal: "Normal", anomaly: "Anomaly", paused: "Paused", untrained: "Untrained", ended: "Ended",
  silent: "No image", lost: "No connection",
};
const SIGNS = { wait: "wait", normal: "normal", anomaly: "anomaly", paused: "paused", untrained: "wait", ended: "wait", silent: "lost", lost: "lost" };

/** Seconds or minutes, for a person. */
export function ago(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/** A source's verdict and its reason: [verdict, why]. */
export function decide(state, source) {
  const { frames, age_s: age, alarm_age_s: since } = source;
  const last = since === null ? "No anomaly so far" : `Last anomaly ${ago(since)} ago`;
  if (state.paused) return ["paused", "Frames go by unscored"];
  if (state.ended && frames) return ["ended", `The source has come to its end. ${last}`];
  if (source.away) return ["silent", source.away];
  if (!frames) return ["wait", "No frame yet"];
  if (age > Math.max(SILENT_S, source.fps ? 10 / source.fps : 0)) return ["silent", `The last frame is ${ago(age)} old`];
  if (!state.trained) return ["untrained", "Verdicts mean nothing"];
  if (source.alarm) return ["anomaly", "Score at or above the threshold"];
  if (since !== null && since < HOLD_S && source.fps >= HOLD_FROM_FPS) return ["anomaly", `${ago(since)} ago, normal since`];
  return ["normal", last];
}

export class Verdict {
  constructor(element) {
    this.element = element;
    this.find = (id) => document.getElementById(id);
    this.announced = null;
    this.announcedAt = -Infinity;
  }

  show(state, source, named) {
    const [verdict, why] = decide(state, source);
    this.set(verdict, named ? `${source.label}: ${why}` : why);
    const number = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits));
    const stale = verdict === "silent" || verdict === "wait" || verdict === "paused";
    const scored = !stale && typeof source.score === "number";
    const [score, threshold] = scored ? apart(source.score, state.threshold, 3) : ["–", number(state.threshold, 3)];
    this.find("verdict-score").textContent = score;
    this.find("verdict-threshold").textContent = threshold;
    this.find("verdict-fps").textContent = stale ? "–" : number(source.fps, 1);
  }

  /** Nothing is known: what was shown last must not look like the state now. */
  lost(why) {
    this.set("lost", why || "The page cannot reach kanoclip-run");
    for (const id of ["verdict-score", "verdict-fps"]) this.find(id).textContent = "–";
  }

  set(verdict, why) {
    if (this.element.dataset.verdict !== verdict) {
      this.element.dataset.verdict = verdict;
      this.find("verdict-word").textContent = WORDS[verdict];
      this.find("verdict-sign").setAttribute("href", `#sign-${SIGNS[verdict]}`);
      document.title = `${WORDS[verdict]} · KAnoCLIP edge`;
    }
    if (this.find("verdict-why").textContent !== why) this.find("verdict-why").textContent = why;
    this.#announce(verdict);
  }

  // A screen reader announces another verdict, though not more often than every three seconds.
  #announce(verdict) {
    const now = performance.now();
    if (verdict === this.announced || now - this.announcedAt < 3000) return;
    this.announced = verdict;
    this.announcedAt = now;
    this.find("announce").textContent = WORDS[verdict];
  }
}
