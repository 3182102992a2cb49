// Who waits for a slot, platform by platform.

import { api } from './api.js';
import { countFrom, serverNowMs, stopCounting } from './clock.js';
import { byId, KeyedList, make, setText } from './dom.js';
import { botLink } from './marks.js';
import { duration, platformName } from './words.js';

const STATS_EVERY_MS = 15_000;
/** Own bots that are listed behind the places that the server tells of a line; the rest is a number. */
const BEHIND_MAX = 100;

export class QueueView {
  #store;
  #groups;
  #stats = null;
  #askedAtMs = -Infinity;

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
      const group = this.#groups.part(platform);
      const behind = this.#behind(platform, waiting);
      group.list.sync([...waiting.own.keys(), ...behind.slice(0, BEHIND_MAX)]);
      setText(group.others, others(waiting.length, waiting.own.size + behind.length));
      const unlisted = behind.length - BEHIND_MAX;
      setText(group.more, unlisted > 0 ? `and ${unlisted} more of yours` : '');
    }
    setText(byId('queue-length'), this.#store.isKnown ? length : '–');
    byId('no-queue').hidden = length > 0 || !this.#store.isKnown;
    this.paintWaits();
  }

  /** The waiting times, which only the server knows over all users; asked for now and then, and not without need. */
  async refreshStats() {
    if (document.hidden || performance.now() - this.#askedAtMs < STATS_EVERY_MS) return;
    this.#askedAtMs = performance.now();
    try {
      this.#stats = await api.queueStats();
    } catch {
      this.#stats = null;
    }
    this.paintWaits();
  }

  forget() {
    this.#stats = null;
    this.#askedAtMs = -Infinity;
  }

  paintWaits() {
    const waiting = [...this.#store.queues.values()];
    const known = waiting.flatMap(({ own }) => [...own.keys()]).map((id) => this.#store.bots.get(id)).filter(Boolean)
      .map((bot) => this.#store.stateSince(bot));
    if (waiting.length > 0 && this.#stats?.oldestQueuedAt) known.push(this.#stats.oldestQueuedAt);
    const oldestMs = Math.min(...known.map(Date.parse));
    setText(byId('queue-oldest'), Number.isFinite(oldestMs) ? duration(serverNowMs() - oldestMs) : '–');
    const averageMs = this.#stats?.avgWaitMs ?? 0;
    setText(byId('queue-average'), averageMs > 0 ? duration(averageMs) : '–');
  }

  /** Own bots that stand behind the places that the server tells of a long line. */
  #behind(platform, { length, known, own }) {
    if (length <= known) return [];
    const waits = (bot) => bot.state === 'QUEUED' && bot.meetingInfo.platform === platform && !own.has(bot.id);
    return [...this.#store.bots.values()].filter(waits).map((bot) => bot.id).sort((a, b) => a - b);
  }

  #makeGroup(platform) {
    const places = make('ol', { class: 'places' });
    const others = make('span', { class: 'quiet', 'data-testid': `queue-others-${platform}` });
    const more = make('p', { class: 'quiet', 'data-testid': `queue-more-${platform}` });
    const element = make('section', { class: 'group' },
      make('div', { class: 'group-head' }, make('h3', {}, platformName(platform)), others), places, more);
    const paint = (place, id) => {
      const { own, known } = this.#store.queues.get(platform);
      this.#paintPlace(place, id, own.get(id) ?? `> ${known}`);
    };
    return { element, others, more, list: new KeyedList(places, makePlace, paint) };
  }

  #paintPlace(place, id, number) {
    const bot = this.#store.bots.get(id);
    setText(place.number, number);
    if (bot) place.bot.paint(bot);
    countFrom(place.age, bot ? this.#store.stateSince(bot) : null);
  }
}

/** How many of a line are somebody else's. */
function others(length, own) {
  // A bot may have left the line since its length was told.
  const count = Math.max(0, length - own);
  if (count === 0) return '';
  if (own === 0) return count === 1 ? 'somebody else’s bot' : `${count} bots, none of them yours`;
  return count === 1 ? 'and one more, somebody else’s' : `and ${count} more, not yours`;
}

function makePlace(id) {
  const place = {
    number: make('span', { class: 'place' }),
    bot: botLink(),
    age: make('span', { class: 'age' }),
    cancel: make('button', {
      type: 'button', class: 'link', 'data-cancel': id, 'data-testid': `queue-cancel-${id}`, 'aria-label': `Cancel bot ${id}`,
    }, 'Cancel'),
  };
  place.element = make('li', { 'data-testid': `queued-${id}` }, place.number, place.bot.element, place.age, place.cancel);
  place.forget = () => stopCounting(place.age);
  return place;
}
