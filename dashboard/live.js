// The live line: a websocket that comes back by itself, and always says how fresh the page is.

import { api } from './api.js';
import { setServerTime } from './clock.js';

/** The server speaks at least every 5 s. */
const STALE_AFTER_MS = 12_000;
const DEAD_AFTER_MS = 25_000;
const OPEN_WITHIN_MS = 10_000;
const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 30_000;
/** A line that held this long was a good one: the next try comes quickly again. */
const PROVEN_AFTER_MS = 10_000;
/** A server that stands by is asked so often, on the average, whether it leads by now. */
const STANDBY_DELAY_MS = 4_000;

/**
 * States: `connecting`, `live`, `stale` (open but silent), `waiting` (closed, the next try is timed), `standby` (the same,
 * for this server does not lead), `closed`. That the browser says it is offline changes nothing: a server on this very
 * machine is still there.
 */
export class LiveLine {
  state = 'closed';
  /** When the last message came, by the page's own time, which nobody sets back; null before the first. */
  heardAtMs = null;
  /** When the next try begins, by the same time, while `waiting` or `standby`. */
  nextTryAtMs = null;
  #socket = null;
  /** The parts of a snapshot that is not complete yet; null once it is. */
  #parts = [];
  #retry = null;
  #failures = 0;
  #openedAtMs = 0;
  #attempt = 0;
  #handlers;

  /** `handlers`: `onSession`, `onSnapshot` (its parts in order), `onChanges`, `onState`, `onSignedOut`. */
  constructor(handlers) {
    this.#handlers = handlers;
    addEventListener('online', () => this.retryNow());
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden) this.check();
    });
  }

  /** Opens the line; asks first who we are, for a websocket cannot say why it was refused. */
  async open() {
    const stoodBy = this.state === 'standby';
    this.#drop();
    const attempt = this.#attempt;
    // One that goes on standing by says nothing new.
    if (!stoodBy) this.#setState('connecting');
    try {
      const session = await api.session();
      if (attempt !== this.#attempt) return;
      this.#handlers.onSession(session);
      if (!session.leads) {
        this.#tryAgain('standby', STANDBY_DELAY_MS * (0.75 + Math.random() / 2));
        return;
      }
    } catch (error) {
      if (attempt !== this.#attempt) return;
      if (error.status === 401) {
        this.close();
        this.#handlers.onSignedOut();
      } else {
        this.#lost();
      }
      return;
    }
    this.#setState('connecting');
    this.#openSocket();
  }

  /** Closes the line for good, until `open`. */
  close() {
    this.#drop();
    this.#setState('closed');
  }

  retryNow() {
    if (['waiting', 'standby', 'stale'].includes(this.state)) void this.open();
  }

  /** To be called every second: notices silence. */
  check() {
    if (this.#socket === null) return;
    const silentMs = performance.now() - Math.max(this.heardAtMs ?? 0, this.#openedAtMs);
    if (this.state === 'connecting' && silentMs > OPEN_WITHIN_MS) this.#lost();
    else if (silentMs > DEAD_AFTER_MS) this.#lost();
    else if (this.state === 'live' && silentMs > STALE_AFTER_MS) this.#setState('stale');
  }

  #openSocket() {
    const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
    const socket = new WebSocket(`${scheme}://${location.host}/ws`);
    this.#socket = socket;
    this.#parts = [];
    this.#openedAtMs = performance.now();
    socket.addEventListener('message', (event) => {
      if (socket === this.#socket) this.#hear(event.data);
    });
    socket.addEventListener('close', () => {
      if (socket === this.#socket) this.#lost();
    });
  }

  #hear(text) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      this.#lost();
      return;
    }
    this.heardAtMs = performance.now();
    if (message.now) setServerTime(message.now);
    if (message.type !== 'tick') this.#take(message);
    if (this.heardAtMs - this.#openedAtMs > PROVEN_AFTER_MS) this.#failures = 0;
    // Half a snapshot is not shown: what it does not mention yet would seem to be gone.
    if (this.#parts === null) this.#setState('live');
  }

  #take(message) {
    if (this.#parts === null) {
      this.#handlers.onChanges(message);
      return;
    }
    this.#parts.push(message);
    if (!message.complete) return;
    this.#handlers.onSnapshot(this.#parts);
    this.#parts = null;
  }

  #lost() {
    if (this.state === 'closed') return;
    const ceilingMs = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** this.#failures);
    this.#failures = Math.min(this.#failures + 1, 10);
    // Half fixed, half by chance: a restarted server is not met by everybody at once.
    this.#tryAgain('waiting', ceilingMs * (0.5 + Math.random() / 2));
  }

  #tryAgain(state, delayMs) {
    this.#drop();
    this.nextTryAtMs = performance.now() + delayMs;
    this.#retry = setTimeout(() => void this.open(), delayMs);
    this.#setState(state);
  }

  #drop() {
    this.#attempt += 1;
    clearTimeout(this.#retry);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  #setState(state) {
    this.state = state;
    this.#handlers.onState(state);
  }
}

/** How old the page's knowledge is, in milliseconds; null before the first message. */
export function ageMs(line) {
  return line.heardAtMs === null ? null : performance.now() - line.heardAtMs;
}

/** How long it is until the next try, in milliseconds. */
export function untilNextTryMs(line) {
  return Math.max(0, line.nextTryAtMs - performance.now());
}

