// Messages to the person: notices at the edge of the page, and words for those who listen to it.

import { byId, make } from './dom.js';

const GOOD_FOR_MS = 6000;
const BAD_FOR_MS = 15_000;
const NOTICES_MAX = 4;

/** Says that something went well. */
export function tell(text) {
  show(make('p', {}, text), 'good', GOOD_FOR_MS);
}

/** Says what failed: `what` is the plain sentence, `error` an ApiError (or a fault of this page). */
export function complain(what, error) {
  show(make('div', {}, make('p', {}, make('strong', {}, `${what}.`)), ...errorLines(error)), 'bad', BAD_FOR_MS);
}

/** An error as paragraphs: the sentence, when to try again, and the id that the server's log knows it by. */
export function errorLines(error) {
  if (error.name !== 'ApiError') console.error(error);
  const lines = [make('p', {}, error.name === 'ApiError' ? error.message : 'This page made a mistake.')];
  if (error.retryAfterS) lines.push(make('p', {}, `Please try again in ${error.retryAfterS} s.`));
  if (error.id) {
    lines.push(make('p', { class: 'error-id' }, 'Error ', make('code', { 'data-testid': 'error-id' }, error.id),
      error.code ? ` (${error.code})` : ''));
  }
  return lines;
}

/** For screen readers only. */
export function announce(text) {
  const place = byId('announcer');
  place.append(make('p', {}, text));
  while (place.childElementCount > 3) place.firstElementChild.remove();
}

function show(content, kind, forMs) {
  const shelf = byId('notices');
  const close = make('button', { type: 'button', class: 'icon-button', 'aria-label': 'Dismiss' }, '×');
  const notice = make('div', {
    class: 'notice', 'data-kind': kind, 'data-testid': `notice-${kind}`, role: kind === 'bad' ? 'alert' : 'status',
  }, content, close);
  const gone = () => {
    clearTimeout(timer);
    notice.remove();
    if (shelf.childElementCount === 0) shelf.hidePopover?.();
  };
  let timer = setTimeout(gone, forMs);
  close.addEventListener('click', gone);
  // Whoever is reading it keeps it.
  notice.addEventListener('pointerenter', () => clearTimeout(timer));
  notice.addEventListener('pointerleave', () => { timer = setTimeout(gone, GOOD_FOR_MS); });
  shelf.append(notice);
  while (shelf.childElementCount > NOTICES_MAX) shelf.firstElementChild.remove();
  raise(shelf);
}

/** Shows the shelf above everything else, open dialogs included. */
function raise(shelf) {
  if (!shelf.showPopover) return;
  if (shelf.matches(':popover-open')) shelf.hidePopover();
  shelf.showPopover();
}
