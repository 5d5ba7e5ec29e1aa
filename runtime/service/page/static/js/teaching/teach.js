// Teaching: learn from the next frames, say of a frame that it is fine or bad, take that back, save it.

import { get, post } from "../api.js";
import { Tradeoff } from "./tradeoff.js";

const find = (id) => document.getElementById(id);

export class Teach {
  /**
   * @param {() => {stream: string, number: number} | null} shown The live frame that is on the screen.
   * @param {(state: object) => void} take Takes the state that an answer holds.
   * @param {(value: number) => void} tryThreshold Tries a threshold.
   */
  constructor(shown, take, tryThreshold) {
    this.shown = shown;
    this.take = take;
    this.tradeoff = new Tradeoff(find("tradeoff"), tryThreshold);
    this.frozen = false;
    this.key = null;
    this.busy = false;
    for (const label of ["fine", "bad"]) {
      find(`teach-${label}`).addEventListener("click", () => this.#label(label, this.shown(), find("teach-note")));
      find(`anomaly-${label}`).addEventListener("click", () => this.#label(label, { key: find("anomaly").dataset.key }, find("anomaly-note")));
    }
    find("teach-freeze").addEventListener("click", () => (this.frozen ? this.thaw() : this.#freeze()));
    find("teach-learn").addEventListener("click", () => this.#ask(find("teach-said"), "/api/teach/learn", {
      frames: Number(find("teach-frames").value), good: find("teach-good").checked,
    }));
    find("teach-cancel").addEventListener("click", () => this.#ask(find("teach-said"), "/api/teach/cancel"));
    find("teach-undo").addEventListener("click", () => this.#ask(find("teach-said"), "/api/teach/undo"));
    find("teach-save").addEventListener("click", () => {
      const name = find("teach-name").value.trim();
      if (!find("teach-naming").hidden && !name) {
        say(find("teach-said"), "The bundle cannot be written: give a name for a copy of it", "error");
        find("teach-name").focus();
        return;
      }
      this.#ask(find("teach-said"), "/api/teach/save", find("teach-naming").hidden ? {} : { name });
    });
  }

  /** Shows what a new state brings. */
  follow(state) {
    const { teaching } = state;
    this.#lesson(teaching.lesson);
    this.tradeoff.set(state.threshold);
    const key = `${teaching.revision} ${state.class_name} ${state.references} ${state.memory_rows} ${state.memory_saved}`;
    if (key === this.key) return;
    this.key = key;
    this.#refresh().catch((error) => {
      this.key = null; // the next state tries again
      console.warn(error);
    });
  }

  /** Goes on with the live image. */
  thaw() {
    this.frozen = false;
    find("teach-freeze").setAttribute("aria-pressed", "false");
  }

  async #freeze() {
    const frame = this.shown();
    if (!frame) return;
    this.frozen = true;
    find("teach-freeze").setAttribute("aria-pressed", "true");
    try {
      await post("/api/teach/freeze", frame);
    } catch (error) {
      this.thaw();
      say(find("teach-note"), error.message, "error");
    }
  }

  async #label(label, frame, note) {
    if (!frame) return;
    // A refused label leaves the frame where it is, to be tried again.
    if (await this.#ask(note, "/api/teach/label", { label, ...frame }) && note.id === "teach-note") this.thaw();
  }

  /** Whether it was done. */
  async #ask(note, path, values = {}) {
    if (this.busy) return false;
    this.busy = true;
    say(note, "…");
    try {
      const { state, text } = await post(path, values);
      say(note, text, text ? "saved" : "");
      this.take(state);
      return true;
    } catch (error) {
      say(note, error.message, "error");
      return false;
    } finally {
      this.busy = false;
    }
  }

  #lesson(lesson) {
    const going = Boolean(lesson && lesson.going);
    find("teach-progress").hidden = find("teach-cancel").hidden = !going;
    find("teach-learn").disabled = going || !this.takes;
    const text = lesson === null ? "" : going ? `${lesson.taken} of ${lesson.frames} frames of ${lesson.class}` : lesson.message;
    if (going) {
      find("teach-progress").max = lesson.frames;
      find("teach-progress").value = lesson.taken;
    }
    const line = find("teach-lesson");
    if (line.textContent !== text) say(line, text, !going && lesson?.failed ? "error" : "");
  }

  async #refresh() {
    const found = await get("/api/teach");
    this.takes = found.takes_memory;
    const count = found.references.length;
    find("teach-about").textContent = !found.takes_memory
      ? "This bundle takes no reference memory: export it again"
      : !found.learned
        ? `${found.class} is scored zero-shot. Learn it from good frames, and then correct its verdicts.`
        : `${found.class} is compared with ${count} good frames, ${found.fine.length} labelled fine and ${found.bad.length} labelled bad` +
          (found.unsaved ? `; ${found.unsaved} steps are not saved` : "");
    find("teach-undo").disabled = !found.undo;
    find("teach-undo").title = found.undo ? `Takes back: ${found.undo}` : "";
    find("teach-save").disabled = !found.unsaved;
    find("teach-naming").hidden = !(found.needs_name && found.unsaved);
    find("teach-learn").disabled = !found.takes_memory || !find("teach-cancel").hidden;
    this.tradeoff.show(found);
  }
}

function say(note, text, kind = "") {
  note.textContent = text;
  note.dataset.kind = kind;
}
