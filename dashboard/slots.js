// The slots as tiles, a group for each platform, and the numbers of the pool.

import { countFrom, stopCounting } from './clock.js';
import { byId, KeyedList, make, setAttribute, setText } from './dom.js';
import { botLink, stateMark } from './marks.js';
import { platformName, shortDuration, slotStatus, slotStep, SLOT_STATUSES } from './words.js';

/** From here on tiles are small and the wall scrolls by itself. */
const DENSE_FROM = 49;

export class SlotsView {
  #store;
  #groups;
  #numbers = new Map();

  constructor(store) {
    this.#store = store;
    this.#groups = new KeyedList(byId('slot-groups'), (platform) => this.#makeGroup(platform), () => {});
    for (const status of [...SLOT_STATUSES, 'unbuilt']) this.#numbers.set(status, makeNumber(status));
  }

  paint(changes) {
    const platforms = byPlatform(this.#store.slots.values());
    const names = [...platforms.keys()].sort();
    this.#groups.sync(names, () => false);
    for (const platform of names) this.#paintGroup(platform, platforms.get(platform), changes);
    byId('no-slots').hidden = this.#store.slots.size > 0 || !this.#store.isKnown;
    setAttribute(byId('slot-groups'), 'data-dense', this.#store.slots.size >= DENSE_FROM);
    setAttribute(byId('slot-groups'), 'tabindex', this.#store.slots.size >= DENSE_FROM ? 0 : null);
    this.#paintNumbers();
  }

  #makeGroup(platform) {
    const heading = make('h3', {}, platformName(platform));
    const count = make('span', { class: 'quiet' });
    const tiles = make('ul', { class: 'tiles', 'aria-label': `${platformName(platform)} slots` });
    const element = make('section', { class: 'group' }, make('div', { class: 'group-head' }, heading, count), tiles);
    return { element, count, list: new KeyedList(tiles, makeTile, (tile, name) => this.#paintTile(tile, name)) };
  }

  #paintGroup(platform, slots, changes) {
    const { count, list } = this.#groups.part(platform);
    const taken = slots.filter((slot) => slot.status === 'busy' || slot.status === 'deploying').length;
    setText(count, `${taken} of ${slots.length} in use`);
    list.sync(slots.map((slot) => slot.name).sort(), (name) => changes.slots.has(name));
  }

  #paintTile(tile, name) {
    const slot = this.#store.slots.get(name);
    const bot = slot.botId === null ? undefined : this.#store.bots.get(slot.botId);
    setAttribute(tile.element, 'data-status', slot.status);
    setAttribute(tile.element, 'data-step', slot.step);
    setAttribute(tile.element, 'data-recording', bot?.state === 'RECORDING');
    setText(tile.status, slotStatus(slot.status));
    tile.bot.element.hidden = bot === undefined;
    if (bot) tile.bot.paint(bot);
    setText(tile.words, bot ? '' : wordsWithoutBot(slot));
    tile.words.hidden = bot !== undefined;
    tile.state.element.hidden = bot === undefined || slot.status !== 'busy' || slot.step === 'stopping';
    if (bot) tile.state.paint(bot.state);
    setText(tile.step, tile.state.element.hidden ? slotStep(slot.step) : '');
    setAttribute(tile.element, 'title', slot.errorMessage);
    setText(tile.error, slot.errorMessage ?? '');
    countFrom(tile.age, bot && !tile.state.element.hidden ? this.#store.stateSince(bot) : slot.changedAt,
      shortDuration);
  }

  #paintNumbers() {
    const counts = Object.fromEntries(SLOT_STATUSES.map((status) => [status, 0]));
    for (const slot of this.#store.slots.values()) counts[slot.status] = (counts[slot.status] ?? 0) + 1;
    const total = this.#store.slots.size;
    counts.unbuilt = Math.max(0, this.#store.maxSize - total);
    for (const [status, { value, part }] of this.#numbers) {
      setText(value, counts[status]);
      if (part.style.flexGrow !== String(counts[status])) part.style.flexGrow = String(counts[status]);
      part.hidden = counts[status] === 0;
    }
    const size = `${total} of at most ${Math.max(total, this.#store.maxSize)}`;
    setText(byId('pool-size'), this.#store.isKnown ? size : '');
  }
}

function makeNumber(status) {
  const value = make('span', { 'data-testid': `pool-${status}` }, '0');
  const label = status === 'unbuilt' ? 'Not built yet' : slotStatus(status);
  const swatch = make('span', { class: 'swatch', 'data-status': status, 'aria-hidden': 'true' });
  const part = make('span', { 'data-status': status });
  byId('pool-numbers').append(make('div', {}, make('dt', {}, label), make('dd', {}, swatch, value)));
  byId('pool-bar').append(part);
  return { value, part };
}

function makeTile(name) {
  const tile = {
    status: make('span', { class: 'tile-status' }),
    bot: botLink(),
    words: make('span', { class: 'tile-words' }),
    state: stateMark(),
    step: make('span', { class: 'tile-step' }),
    age: make('span', { class: 'age' }),
    error: make('p', { class: 'unseen' }),
  };
  tile.element = make('li', { class: 'tile', 'data-testid': `slot-${name}` },
    make('div', { class: 'tile-head' }, tileName(name), tile.status),
    make('div', { class: 'tile-body' }, tile.bot.element, tile.words),
    make('div', { class: 'tile-foot' }, tile.state.element, tile.step, tile.age),
    tile.error);
  tile.forget = () => stopCounting(tile.age);
  return tile;
}

/** `pool-zoom-003` under the heading Zoom: the number is what tells tiles apart. */
function tileName(name) {
  const number = name.slice(name.lastIndexOf('-') + 1);
  const rest = make('span', { class: 'unseen' }, name.slice(0, name.length - number.length));
  return make('span', { class: 'tile-name', title: name }, rest, number);
}

function wordsWithoutBot(slot) {
  if (slot.othersBot) return 'Somebody else’s bot';
  if (slot.botId !== null) return `Bot ${slot.botId}`;
  if (slot.status === 'idle') return 'Free';
  if (slot.status === 'error') return slot.errorMessage ?? 'Recovering';
  return '–';
}

function byPlatform(slots) {
  const groups = new Map();
  for (const slot of slots) {
    if (!groups.has(slot.platform)) groups.set(slot.platform, []);
    groups.get(slot.platform).push(slot);
  }
  return groups;
}

