// Who waits for a slot, platform by platform.

import { api } from './api.js';
import { countFrom, serverNowMs, stopCounting } from './clock.js';
import { byId, KeyedList, make, setText } from './dom.js';
import { botLink } from './marks.js';
import { duration, platformName } from './words.js';

const STATS_EVERY_MS = 15_000;

export class QueueView {
  #store;
  #groups;
  #stats = null;
  #askedAtMs = 0;

  constructor(store) {
    this.#store = store;
    this.#groups = new KeyedList(byId('queue-groups'), (platform) => this.#makeGroup(platform), () => {});
  }

  paint() {
    const platforms = [...this.#store.queues.keys()].sort();
    this.#groups.sync(platforms, () => false);
    let length = 0;
    for (const platform of platforms) {
      const waiting = this.#store.queues.get(platform);
      length += waiting.length;
      this.#groups.part(platform).list.sync(waiting);
    }
    setText(byId('queue-length'), length);
    byId('no-queue').hidden = length > 0;
    this.paintWaits();
  }

  /** The waiting times, which only the server knows over all users; asked for now and then, and not without need. */
  async refreshStats() {
    if (document.hidden || Date.now() - this.#askedAtMs < STATS_EVERY_MS) return;
    this.#askedAtMs = Date.now();
    try {
      this.#stats = await api.queueStats();
    } catch {
      this.#stats = null;
    }
    this.paintWaits();
  }

  forget() {
    this.#stats = null;
    this.#askedAtMs = 0;
  }

  paintWaits() {
    const waiting = [...this.#store.queues.values()].flat();
    const known = waiting.map((id) => this.#store.bots.get(id)?.createdAt).filter(Boolean);
    if (waiting.length > 0 && this.#stats?.oldestQueuedAt) known.push(this.#stats.oldestQueuedAt);
    const oldestMs = Math.min(...known.map(Date.parse));
    setText(byId('queue-oldest'), Number.isFinite(oldestMs) ? duration(serverNowMs() - oldestMs) : '–');
    const averageMs = this.#stats?.avgWaitMs ?? 0;
    setText(byId('queue-average'), averageMs > 0 ? duration(averageMs) : '–');
  }

  #makeGroup(platform) {
    const places = make('ol', { class: 'places' });
    const element = make('section', { class: 'group' },
      make('div', { class: 'group-head' }, make('h3', {}, platformName(platform))), places);
    return { element, list: new KeyedList(places, makePlace, (place, id) => this.#paintPlace(place, id)) };
  }

  #paintPlace(place, id) {
    const bot = this.#store.bots.get(id);
    place.bot.element.hidden = bot === undefined;
    place.other.hidden = bot !== undefined;
    place.cancel.hidden = bot === undefined;
    if (bot) place.bot.paint(bot);
    countFrom(place.age, bot?.createdAt ?? null);
  }
}

function makePlace(id) {
  const place = {
    bot: botLink(),
    other: make('span', { class: 'quiet' }, 'Somebody else’s bot'),
    age: make('span', { class: 'age' }),
    cancel: make('button', {
      type: 'button', class: 'link', 'data-cancel': id, 'data-testid': `queue-cancel-${id}`, 'aria-label': `Cancel bot ${id}`,
    }, 'Cancel'),
  };
  place.element = make('li', { 'data-testid': `queued-${id}` }, place.bot.element, place.other, place.age, place.cancel);
  place.forget = () => stopCounting(place.age);
  return place;
}
