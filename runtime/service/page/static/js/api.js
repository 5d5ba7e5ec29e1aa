// What the page asks the server to change. Each change carries a proof that only this page can have read.

let session = null;

async function readSession() {
  const response = await fetch("/api/session", { cache: "no-store" });
  session = response.ok ? await response.json() : null;
  return response;
}

/** Whether there is a session, as far as the page knows: a server that is away is not asked in vain. */
export async function loggedIn() {
  try {
    return (await readSession()).status !== 401;
  } catch {
    return true;
  }
}

/** Whether a token is in use, and so whether one can log out. */
export const hasToken = () => Boolean(session && session.token);

/**
 * Asks for a change.
 * @throws {Error} with the server's own words.
 */
export const post = async (path, values = {}) => (await posted(path, values)).json();

/** Likewise, with the answer as it is. */
export async function posted(path, values = {}) {
  for (const last of [false, true]) {
    if (!session) await readSession();
    const response = await fetch(path, {
      method: "POST",
      headers: { "content-type": "application/json", "x-kanoclip-proof": session ? session.proof : "" },
      body: JSON.stringify(values),
    });
    if (response.ok) return response;
    const answer = await response.json().catch(() => ({}));
    if (response.status === 403 && !last) {
      session = null; // the server was started anew since the page was loaded
      continue;
    }
    if (response.status === 401) location.assign("/login");
    throw new Error(answer.error || `the server answered ${response.status}`);
  }
}

export async function get(path) {
  const response = await fetch(path, { cache: "no-store" });
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  return response.json();
}

/** Sends only the newest of changes that come faster than they are answered, and never two at a time. */
export class Latest {
  constructor(send) {
    this.send = send;
    this.waiting = null;
    this.busy = false;
  }

  async push(values) {
    this.waiting = { ...this.waiting, ...values };
    if (this.busy) return;
    this.busy = true;
    try {
      while (this.waiting) {
        const next = this.waiting;
        this.waiting = null;
        await this.send(next);
      }
    } finally {
      this.busy = false;
    }
  }
}
