// Counts by shift as a table, and by hour as bars.

import { get } from "../api.js";
import { rows, text } from "../dom.js";

const EVERY_MS = 10000;
const count = new Intl.NumberFormat("en-GB").format;
const share = ({ anomalous, frames }) => (frames ? `${((100 * anomalous) / frames).toFixed(1)} %` : "–");

export class Shifts {
  constructor() {
    this.bars = document.getElementById("shifts-bars");
    this.note = document.getElementById("shifts-note");
    this.read = -Infinity;
  }

  /** Reads the counts anew, now and then. */
  async refresh() {
    if (performance.now() - this.read < EVERY_MS) return;
    this.read = performance.now();
    const { plan, zone, shifts, hours } = await get("/api/shifts");
    this.note.textContent = `they begin at ${plan.replaceAll(",", ", ")} (${zone})`;
    rows(document.getElementById("shifts-table"), shifts.flatMap((shift) => shift.sources.map((source, index) => [
      index ? "" : `${shift.label}${shift.now ? ", now" : ""}`, source.name, count(source.frames), count(source.anomalous), share(source), count(source.alarms), count(source.skipped),
    ])));
    const most = Math.max(1, ...hours.map(({ frames }) => frames));
    this.bars.replaceChildren(...hours.map((hour) => {
      const item = document.createElement("li");
      const column = text("span", "", "column");
      const part = text("span", "", "part");
      column.style.height = `${(100 * hour.frames) / most}px`;
      part.style.height = `${hour.frames ? (100 * hour.anomalous) / hour.frames : 0}%`;
      column.append(part);
      item.append(text("span", `${hour.frames} frames, anomalous:`, "visually-hidden"), text("span", count(hour.anomalous)), column, text("span", hour.label));
      return item;
    }));
  }
}
