// The live connection. Each update is shown before the next one is asked for, so what is shown is never old.

import { loggedIn } from "./api.js";

const STALE_MS = 3000; // the server says something four times a second
const LOST_MS = 10000;

export class Live {
  /**
   * @param {() => object} request What to send next: {stream, images, span}.
   * @param {(update: object) => Promise<void>} show Shows an update.
   * @param {(state: "live" | "stale" | "lost", why: string) => void} tell Learns how the connection is.
   */
  constructor(request, show, tell) {
    this.request = request;
    this.show = show;
    this.tell = tell;
    this.wait = 500;
    this.heard = performance.now();
    this.connect();
    setInterval(() => this.#watch(), 500);
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && !this.socket) this.connect();
    });
  }

  connect() {
    clearTimeout(this.timer);
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/live`);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.heard = performance.now();
    socket.onopen = () => this.#request(socket);
    socket.onmessage = async (event) => {
      this.heard = performance.now();
      this.wait = 500;
      this.tell("live", "");
      this.showing = true;
      try {
        await this.show(parse(event.data));
      } catch (error) {
        console.error(error); // one image that cannot be shown must not end the rest
      }
      this.showing = false;
      this.heard = performance.now(); // while it was shown there was nothing to be heard
      this.#request(socket);
    };
    socket.onclose = (event) => {
      if (this.socket === socket) this.#again(event.reason);
    };
  }

  #request(socket) {
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(this.request()));
  }

  async #again(why) {
    this.socket = null;
    this.tell("lost", why);
    if (!(await loggedIn())) {
      location.assign("/login");
      return;
    }
    this.timer = setTimeout(() => this.connect(), this.wait);
    this.wait = Math.min(this.wait * 2, 5000);
  }

  #watch() {
    const silent = performance.now() - this.heard;
    if (!this.socket || silent < STALE_MS) return;
    this.tell("stale", this.showing ? "This browser cannot keep up" : `Nothing heard for ${Math.round(silent / 1000)} s`);
    if (silent > LOST_MS && !this.showing) {
      const socket = this.socket;
      this.#again("no answer");
      socket.close();
    }
  }
}

/** An update out of its message: the header, the image and the map, where there are any. */
export function parse(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const update = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  if (update.picture) {
    const middle = 4 + length + update.picture.bytes;
    update.jpeg = new Blob([new Uint8Array(buffer, 4 + length, update.picture.bytes)], { type: "image/jpeg" });
    update.map = new Blob([new Uint8Array(buffer, middle)], { type: "image/png" });
  }
  return update;
}
