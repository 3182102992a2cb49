// The table of bots.

import { api } from './api.js';
import { countFrom, stopCounting } from './clock.js';
import { byId, KeyedList, make, setAttribute, setText } from './dom.js';
import { botLink, stateMark } from './marks.js';
import {
  botState, dateAndTime, duration, endReason, isEnded, platformName, shortLink, untilOrSince,
} from './words.js';

const ROWS_AT_FIRST = 100;
const ROWS_MORE = 100;

const FILTERS = {
  all: { shows: () => true, none: 'No bots yet. Send one to a meeting.' },
  active: { shows: (bot) => !isEnded(bot), none: 'No bot is under way.' },
  ended: { shows: isEnded, none: 'No bot has ended yet.' },
  failed: { shows: (bot) => bot.state === 'FATAL', none: 'No bot has failed.' },
};

export class BotsView {
  #store;
  #rows;
  #filter = 'all';
  #search = '';
  #limit = ROWS_AT_FIRST;
  #hasOlder = true;
  /** The next page to ask for. */
  #olderPage = 2;
  #onError;

  /** `onError(error, what)` shows what could not be done. */
  constructor(store, onError) {
    this.#store = store;
    this.#onError = onError;
    this.#rows = new KeyedList(byId('bot-rows'), makeRow, (row, id) => this.#paintRow(row, id));
    byId('bot-filter').addEventListener('change', (event) => {
      this.#filter = event.target.value;
      this.#limit = ROWS_AT_FIRST;
      this.paint();
    });
    byId('bot-search').addEventListener('input', (event) => {
      this.#search = event.target.value.trim().toLowerCase();
      this.paint();
    });
    byId('more-bots').addEventListener('click', () => void this.#showMore());
  }

  paint(changes = null) {
    const { shows, none } = FILTERS[this.#filter];
    const found = [...this.#store.bots.values()].filter((bot) => shows(bot) && this.#matches(bot));
    // Newest first, whatever they do: a row that jumps away under the pointer ends the wrong meeting.
    const ids = found.map((bot) => bot.id).sort((a, b) => b - a);
    const focused = document.activeElement;
    const focusedRow = focused?.closest?.('#bot-rows .row') ?? null;
    this.#rows.sync(ids.slice(0, this.#limit), changes ? (id) => changes.bots.has(id) : () => false);
    keepFocus(focused, focusedRow);
    byId('no-bots').hidden = ids.length > 0 || !this.#store.isKnown;
    byId('bot-table').hidden = ids.length === 0;
    setText(byId('no-bots'), this.#search && this.#store.bots.size > 0 ? 'No bot matches.' : none);
    byId('more-bots').hidden = ids.length <= this.#limit && !(this.#hasOlder && this.#store.bots.size >= ROWS_AT_FIRST);
  }

  /** Brings a bot's row into sight, for one that was just sent. */
  reveal(id) {
    const row = this.#rows.part(id);
    if (!row) return;
    row.element.scrollIntoView({ block: 'nearest' });
    row.element.classList.add('fresh');
    setTimeout(() => row.element.classList.remove('fresh'), 2500);
  }

  /** The live line speaks of bots that are under way, and of those that ended since the server began. */
  async fetchRecent() {
    try {
      const { data, hasNextPage } = await api.bots(1, ROWS_MORE);
      this.#store.addBots(data);
      this.#hasOlder = hasNextPage;
      // Pages have moved on since: what is known of them is passed over quickly.
      this.#olderPage = 2;
    } catch (error) {
      this.#onError(error, 'Your earlier bots could not be fetched');
    }
  }

  /** Begins anew, for whoever comes next. */
  forget() {
    this.#limit = ROWS_AT_FIRST;
    this.#hasOlder = true;
    this.#olderPage = 2;
  }

  async #showMore() {
    this.#limit += ROWS_MORE;
    const hidden = this.#store.bots.size <= this.#limit;
    this.paint();
    if (!hidden || !this.#hasOlder) return;
    const button = byId('more-bots');
    button.disabled = true;
    try {
      this.#store.makeRoom(ROWS_MORE);
      let brought = 0;
      // Pages hold what is known already first; go on until something is new.
      while (this.#hasOlder && brought === 0) {
        const { data, hasNextPage } = await api.bots(this.#olderPage, ROWS_MORE);
        brought = this.#store.addBots(data);
        this.#hasOlder = hasNextPage;
        this.#olderPage += 1;
      }
    } catch (error) {
      this.#onError(error, 'Older bots could not be fetched');
    } finally {
      button.disabled = false;
      this.paint();
    }
  }

  #matches(bot) {
    if (this.#search === '') return true;
    const { platform, meetingUrl } = bot.meetingInfo;
    const text = [`#${bot.id}`, bot.botDisplayName, platformName(platform), meetingUrl, bot.slotName].join(' ');
    return text.toLowerCase().includes(this.#search);
  }

  #paintRow(row, id) {
    const bot = this.#store.bots.get(id);
    setAttribute(row.element, 'data-state', bot.state);
    row.name.paint(bot);
    setText(row.meeting, `${platformName(bot.meetingInfo.platform)} · ${shortLink(bot.meetingInfo.meetingUrl)}`);
    setAttribute(row.meeting, 'title', bot.meetingInfo.meetingUrl);
    row.state.paint(bot.state);
    const isScheduled = bot.state === 'SCHEDULED';
    countFrom(row.age, isScheduled ? bot.startTime : this.#store.stateSince(bot), untilOrSince);
    setAttribute(row.age, 'title', isScheduled ? `Starts ${dateAndTime(bot.startTime)}` : null);
    setText(row.slot, bot.slotName ?? '–');
    setAttribute(row.slot.parentElement, 'data-empty', !bot.slotName);
    setText(row.outcome, bot.endReason ? endReason(bot.endReason) : '–');
    setAttribute(row.outcome.parentElement, 'data-empty', !bot.endReason);
    setAttribute(row.outcome, 'title', bot.endDetail ?? bot.deploymentError);
    paintActions(row, bot);
  }
}

function makeRow(id) {
  const action = (name, label, text) => make('button', {
    type: 'button', class: 'secondary small', [`data-${name}`]: id, 'data-testid': `${name}-${id}`, 'aria-label': label,
  }, text);
  const row = {
    name: botLink({ 'data-testid': `detail-${id}` }),
    meeting: make('span', { class: 'meeting quiet' }),
    state: stateMark(),
    age: make('span', { class: 'age' }),
    slot: make('span', { class: 'slot-name' }),
    outcome: make('span'),
    cancel: action('cancel', `Cancel bot ${id}`, 'Cancel'),
    leave: action('leave', `Let bot ${id} leave`, 'Leave'),
    recording: action('recording', `Recording of bot ${id}`, 'Recording'),
    note: make('span', { class: 'quiet note', 'data-testid': `recording-state-${id}` }),
  };
  const cell = (label, ...children) => make('span', { role: 'cell', 'data-label': label }, ...children);
  row.element = make('div', { class: 'row', role: 'row', 'data-testid': `bot-${id}` },
    cell('Bot', make('span', { class: 'number' }, `#${id}`), make('span', { class: 'named' }, row.name.element, row.meeting)),
    cell('State', row.state.element),
    cell('Since', row.age),
    cell('Slot', row.slot),
    cell('Outcome', row.outcome),
    cell('Actions', row.note, row.cancel, row.leave, row.recording));
  row.forget = () => stopCounting(row.age);
  return row;
}

function paintActions(row, bot) {
  const { phase } = botState(bot.state);
  row.cancel.hidden = phase !== 'waiting';
  row.leave.hidden = phase !== 'meeting' && phase !== 'leaving';
  row.leave.disabled = phase === 'leaving';
  setText(row.leave, phase === 'leaving' ? 'Leaving…' : 'Leave');
  row.recording.hidden = bot.recordingState !== 'ready';
  const length = bot.recordingDurationMs === null || bot.recordingDurationMs === undefined
    ? '' : ` ${duration(bot.recordingDurationMs)}`;
  setText(row.recording, `Recording${length}`);
  setAttribute(row.recording, 'aria-label', `Recording${length} of bot ${bot.id}`);
  setText(row.note, recordingNote(bot, phase));
  setAttribute(row.element, 'data-recording-state', bot.recordingState);
}

function recordingNote(bot, phase) {
  // A bot that was never in the meeting has nothing to record: no failure of the recording.
  if (bot.recordingState === 'failed') return bot.joinedAt ? 'Recording failed' : '';
  if (phase !== 'ended') return '';
  if (bot.recordingState === 'open' || bot.recordingState === 'joining') return 'Preparing the recording…';
  return '';
}

/** The pressed button may have left with the state it belonged to: the bot's name in the same row takes its place. */
function keepFocus(focused, row) {
  if (row === null || (focused.isConnected && !focused.hidden && !focused.disabled)) return;
  if (row.isConnected) row.querySelector('.bot-link').focus();
  else byId('bots-heading').focus();
}
