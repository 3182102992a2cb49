// The server's time, and everything on the page that counts seconds. One timer serves all of it.

import { setText } from './dom.js';
import { duration } from './words.js';

/** From the page's own time, which nobody sets back, to the server's. */
let offsetMs = performance.timeOrigin;
const counters = new Map();

/** Takes the server's own time from a message, so that a wrong clock on this side does no harm. */
export function setServerTime(now) {
  const serverMs = Date.parse(now);
  if (!Number.isNaN(serverMs)) offsetMs = serverMs - performance.now();
}

export function serverNowMs() {
  return performance.now() + offsetMs;
}

/** Shows in `element` how long ago `since` was, and keeps it counting; null shows nothing. */
export function countFrom(element, since, words = duration) {
  const sinceMs = since === null ? Number.NaN : Date.parse(since);
  if (Number.isNaN(sinceMs)) {
    counters.delete(element);
    setText(element, '');
    return;
  }
  counters.set(element, { sinceMs, words });
  setText(element, words(serverNowMs() - sinceMs));
}

export function stopCounting(element) {
  counters.delete(element);
}

/** Starts counting; `act` is called every second as well. */
export function startClock(act) {
  setInterval(() => {
    if (document.hidden) return;
    const nowMs = serverNowMs();
    for (const [element, { sinceMs, words }] of counters) setText(element, words(nowMs - sinceMs));
    act();
  }, 1000);
}
