// The dialog with everything about one bot.

import { api } from './api.js';
import { byId, make, setText } from './dom.js';
import { botName, botState, dateAndTime, duration, endReason, eventName, platformName, time, webAddress } from './words.js';

const EVENTS_MAX = 100;

export class DetailDialog {
  #dialog = byId('detail');
  #store;
  #id = null;
  #asked = 0;

  constructor(store) {
    this.#store = store;
    byId('detail-close').addEventListener('click', () => this.#dialog.close());
    this.#dialog.addEventListener('close', () => { this.#id = null; });
  }

  open(id) {
    this.#id = id;
    byId('detail-events').replaceChildren();
    this.#paint();
    if (!this.#dialog.open) this.#dialog.showModal();
    void this.#fetchEvents();
  }

  close() {
    if (this.#dialog.open) this.#dialog.close();
  }

  /** After something changed: follows the bot that is shown. */
  refresh(changes) {
    if (this.#id === null || !changes.bots.has(this.#id)) return;
    this.#paint();
    void this.#fetchEvents();
  }

  #paint() {
    const bot = this.#store.bots.get(this.#id);
    if (!bot) return;
    setText(byId('detail-heading'), `${botName(bot)} (#${bot.id})`);
    const sentence = bot.endDetail ?? bot.deploymentError;
    byId('detail-sentence').hidden = !sentence;
    setText(byId('detail-sentence'), sentence ?? '');
    const facts = [
      ['State', botState(bot.state).label],
      ['Outcome', bot.endReason && endReason(bot.endReason)],
      ['Platform', platformName(bot.meetingInfo.platform)],
      ['Meeting', link(bot.meetingInfo.meetingUrl)],
      ['Slot', bot.slotName],
      ['Sent', bot.createdAt && dateAndTime(bot.createdAt)],
      ['Starts', bot.startTime && dateAndTime(bot.startTime)],
      ['Leaves at', bot.endTime && dateAndTime(bot.endTime)],
      ['Joined', bot.joinedAt && dateAndTime(bot.joinedAt)],
      ['Ended', bot.endedAt && dateAndTime(bot.endedAt)],
      ['Recording', recording(bot)],
    ];
    byId('detail-facts').replaceChildren(...facts.filter(([, fact]) => fact).map(([name, fact]) =>
      make('div', {}, make('dt', {}, name), make('dd', {}, fact))));
  }

  async #fetchEvents() {
    const id = this.#id;
    this.#asked += 1;
    const asked = this.#asked;
    try {
      const { data, total } = await api.events(id, 1, EVENTS_MAX);
      if (asked !== this.#asked || id !== this.#id) return;
      const events = [...data].sort((a, b) => a.eventTime.localeCompare(b.eventTime) || a.id - b.id);
      byId('detail-events').replaceChildren(...events.map(eventLine));
      setText(byId('detail-events-note'), note(events.length, total));
    } catch (error) {
      if (id === this.#id) setText(byId('detail-events-note'), `The events could not be fetched. ${error.message}`);
    }
  }
}

function note(shown, total) {
  if (shown === 0) return 'Nothing yet.';
  return total > shown ? `${shown} of ${total} events.` : '';
}

function eventLine({ eventType, eventTime, data }) {
  const more = data?.message ?? data?.description ?? data?.participantId ?? data?.sub_code ?? null;
  return make('li', { 'data-event': eventType },
    make('time', { datetime: eventTime, class: 'age' }, time(eventTime)),
    make('span', {}, eventName(eventType), more === null ? null : make('span', { class: 'quiet' }, ` ${String(more)}`)));
}

function link(address) {
  const url = webAddress(address);
  return url ? make('a', { href: url.href, target: '_blank', rel: 'noopener noreferrer' }, address) : address;
}

function recording(bot) {
  if (!bot.recordingEnabled) return 'Off';
  const length = bot.recordingDurationMs ? `, ${duration(bot.recordingDurationMs)}` : '';
  const words = { open: 'Under way', joining: 'Being prepared', ready: `Ready${length}`, failed: bot.joinedAt ? 'Failed' : 'None' };
  return words[bot.recordingState] ?? 'On';
}
