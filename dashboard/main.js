// The dashboard: who is signed in, the live line, and the views that show what it says.

import { api, whenSignedOut } from './api.js';
import { BotsView } from './bots.js';
import { startClock } from './clock.js';
import { DetailDialog } from './detail.js';
import { byId, setAttribute, setText } from './dom.js';
import { ageMs, LiveLine, untilNextTryMs } from './live.js';
import { announce, complain, errorLines, tell } from './notices.js';
import { QueueView } from './queue.js';
import { SendDialog } from './send.js';
import { SlotsView } from './slots.js';
import { Store } from './store.js';
import { botName, botState, duration, endReason, webAddress } from './words.js';

let wasSignedIn = false;
const store = new Store(paint);
const slots = new SlotsView(store);
const queue = new QueueView(store);
const bots = new BotsView(store, (error, what) => complain(what, error));
const detail = new DetailDialog(store);
const send = new SendDialog((bot) => {
  store.addBots([bot]);
  requestAnimationFrame(() => requestAnimationFrame(() => bots.reveal(bot.id)));
});
const line = new LiveLine({
  onSession,
  onSnapshot: (parts) => {
    store.replace(parts);
    void queue.refreshStats();
    void bots.fetchRecent();
  },
  onChanges: (changes) => store.merge(changes),
  onState: paintConnection,
  onSignedOut: () => showDoor(wasSignedIn ? 'Your session has ended. Please sign in again.' : null),
});

function paint(changes) {
  slots.paint(withBotsOf(changes));
  if (changes.queues) queue.paint();
  bots.paint(changes);
  detail.refresh(changes);
  announceMoves(changes.moves);
}

/** A tile shows its bot too: what changed for the bot changed for the tile. */
function withBotsOf(changes) {
  for (const slot of store.slots.values()) {
    if (slot.botId !== null && changes.bots.has(slot.botId)) changes.slots.add(slot.name);
  }
  return changes;
}

function announceMoves(moves) {
  for (const { bot } of moves.slice(-3)) {
    const why = bot.endReason ? `. ${endReason(bot.endReason)}` : '';
    announce(`${botName(bot)}, bot ${bot.id}: ${botState(bot.state).label}${why}`);
  }
}

// ---- who is here ---------------------------------------------------------------------------------------------------

function onSession(session) {
  wasSignedIn = true;
  setText(byId('user-name'), session.userName);
  send.setSession(session);
  show('board');
}

function showDoor(note) {
  wasSignedIn = false;
  line.close();
  send.close();
  detail.close();
  store.clear();
  queue.forget();
  bots.forget();
  byId('sign-in-note').hidden = note === null;
  setText(byId('sign-in-note'), note ?? '');
  show('door');
  byId('api-key').focus();
}

function show(view) {
  for (const id of ['opening', 'door', 'board']) byId(id).hidden = id !== view;
}

byId('sign-in').addEventListener('submit', async (event) => {
  event.preventDefault();
  const input = byId('api-key');
  const button = event.submitter ?? event.target.querySelector('button');
  button.disabled = true;
  showSignInError([]);
  try {
    await api.signIn(input.value.trim());
    input.value = '';
    void line.open();
  } catch (error) {
    showSignInError(error.status === 401 ? ['This key is not known here. Is it complete?'] : errorLines(error));
    input.select();
  } finally {
    button.disabled = false;
  }
});

function showSignInError(lines) {
  const place = byId('sign-in-error');
  place.hidden = lines.length === 0;
  place.replaceChildren(...lines);
  setAttribute(byId('api-key'), 'aria-invalid', lines.length > 0 ? 'true' : null);
}

byId('sign-out').addEventListener('click', async () => {
  try {
    await api.signOut();
    showDoor('You are signed out.');
  } catch (error) {
    complain('You could not be signed out', error);
  }
});

whenSignedOut(() => showDoor('Your session has ended. Please sign in again.'));

// ---- how fresh it is -----------------------------------------------------------------------------------------------

function paintConnection(state) {
  const place = byId('connection');
  setAttribute(place, 'data-state', state);
  const words = {
    connecting: line.heardAtMs === null ? 'Connecting…' : 'Reconnecting…',
    live: 'Live',
    stale: 'Stale',
    waiting: navigator.onLine === false ? 'Offline' : 'Reconnecting…',
    standby: 'This server stands by',
    closed: 'Not connected',
  };
  setText(byId('connection-text'), words[state]);
  setAttribute(byId('board'), 'data-fresh', state === 'live' ? 'yes' : 'no');
  byId('reconnect').hidden = !['waiting', 'standby', 'stale'].includes(state);
  if (state === 'waiting' && line.heardAtMs === null && !byId('opening').hidden) {
    setText(byId('opening-text'), 'The server cannot be reached. Trying again…');
  }
  paintAge();
}

function paintAge() {
  const age = ageMs(line);
  const isLive = line.state === 'live' || line.state === 'closed';
  let text = '';
  if (!isLive && age !== null) text = `last news ${duration(age)} ago`;
  if (line.state === 'waiting' || line.state === 'standby') text += `${text ? ', ' : ''}next try in ${duration(untilNextTryMs(line))}`;
  setText(byId('connection-age'), text);
}

byId('reconnect').addEventListener('click', () => line.retryNow());

startClock(() => {
  line.check();
  paintAge();
  queue.paintWaits();
  if (line.state === 'live') void queue.refreshStats();
});

// ---- what a person does with a bot ---------------------------------------------------------------------------------

document.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button) return;
  const { detail: shown, leave, cancel, recording } = button.dataset;
  if (shown) detail.open(Number(shown));
  else if (leave) void act(button, () => api.leave(leave), `Bot ${leave} could not be asked to leave`, `Bot ${leave} is leaving.`);
  else if (cancel) void act(button, () => api.cancel(cancel), `Bot ${cancel} could not be cancelled`, `Bot ${cancel} is cancelled.`);
  else if (recording) void openRecording(recording);
});

async function act(button, request, failure, success) {
  // Not `disabled`: a disabled button would lose the focus.
  if (button.getAttribute('aria-busy') === 'true') return;
  button.setAttribute('aria-busy', 'true');
  try {
    const bot = await request();
    store.addBots([bot], { replaceKnown: line.state !== 'live' });
    tell(success);
  } catch (error) {
    complain(failure, error);
  } finally {
    button.removeAttribute('aria-busy');
  }
}

async function openRecording(id) {
  // The tab is opened by the press itself; browsers refuse one that comes later.
  const tab = window.open('about:blank', '_blank');
  if (tab) tab.opener = null;
  try {
    const { recordingUrl } = await api.recording(id);
    const url = webAddress(recordingUrl);
    if (!url) throw new Error('the link of the recording is none');
    if (tab) tab.location.replace(url.href);
    else location.assign(url.href);
  } catch (error) {
    tab?.close();
    complain(`The recording of bot ${id} cannot be opened`, error);
  }
}

void line.open();
