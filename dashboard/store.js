// What the page knows: the last state of every slot, bot and queue, as the server told it.

import { serverNowMs } from './clock.js';
import { isEnded } from './words.js';

/** Ended bots that are kept where nobody asks for more; the server remembers the rest. */
const ENDED_BOTS_MAX = 1000;

export class Store {
  slots = new Map();
  bots = new Map();
  /** Platform → how many bots wait (`length`), and this user's ones among them with their places, first to last. */
  queues = new Map();
  maxSize = 0;
  /** Whether the server has told it all: until then that something is not here says nothing. */
  isKnown = false;
  #number = 0;
  #enteredAt = new Map();
  /** Bots that the live line has spoken of since it opened: nobody knows better. */
  #told = new Set();
  #changed = newChanges();
  #onChange;
  #isScheduled = false;
  #endedMax = ENDED_BOTS_MAX;

  /** `onChange(changes)` is called at most once a frame, with everything that changed since. */
  constructor(onChange) {
    this.#onChange = onChange;
  }

  /**
   * Everything anew, from the parts of a snapshot: what the server no longer mentions is gone, but for bots that have
   * ended.
   */
  replace([snapshot, ...further]) {
    this.isKnown = true;
    this.#number = snapshot.number;
    this.maxSize = snapshot.maxSize ?? this.maxSize;
    const ended = [...this.bots.values()].filter(isEnded);
    for (const name of this.slots.keys()) this.#changed.slots.add(name);
    for (const id of this.bots.keys()) this.#changed.bots.add(id);
    this.slots.clear();
    this.bots.clear();
    this.queues.clear();
    this.#told.clear();
    for (const bot of ended) this.bots.set(bot.id, bot);
    this.#put(snapshot);
    for (const part of further) this.merge(part);
    this.#changed.queues = true;
    this.#schedule();
  }

  /** What changed. A message from before what is known is ignored. */
  merge(changes) {
    if (changes.number < this.#number) return;
    this.#number = changes.number;
    this.maxSize = changes.maxSize ?? this.maxSize;
    for (const name of changes.removed?.slots ?? []) {
      this.slots.delete(name);
      this.#changed.slots.add(name);
    }
    this.#put(changes);
    this.#schedule();
  }

  /**
   * Bots from elsewhere than the live line (ended ones; answers to requests): what is known live wins. How many of them
   * are new.
   */
  addBots(bots, { replaceKnown = false } = {}) {
    const count = bots.filter((bot) => !this.bots.has(bot.id)).length;
    for (const bot of bots) {
      if (replaceKnown || !this.#told.has(bot.id)) this.#putBot(bot);
    }
    this.#forgetOldest();
    this.#schedule();
    return count;
  }

  /** Keeps so many bots beside those that are known: somebody wants to see them. */
  makeRoom(count) {
    this.#endedMax = Math.max(this.#endedMax, this.bots.size + count);
  }

  clear() {
    this.#endedMax = ENDED_BOTS_MAX;
    this.#enteredAt.clear();
    this.bots.clear();
    this.replace([{ number: 0, slots: [], bots: [], queues: [], maxSize: 0 }]);
    this.isKnown = false;
  }

  /** Since when a bot is in its state, as well as it can be known here. */
  stateSince(bot) {
    if (bot.stateChangedAt) return bot.stateChangedAt;
    const byState = {
      SCHEDULED: bot.createdAt, DEPLOYING: bot.deployedAt, IN_CALL: bot.joinedAt,
      // One with a start time may have waited for that before.
      QUEUED: bot.startTime ? null : bot.createdAt,
      RECORDING: bot.joinedAt, DONE: bot.endedAt, FATAL: bot.endedAt,
    };
    const seen = this.#enteredAt.get(bot.id);
    return byState[bot.state] ?? (seen?.state === bot.state ? seen.at : null) ?? bot.joinedAt ?? bot.deployedAt
      ?? bot.createdAt;
  }

  #put({ slots = [], bots = [], queues = [], recordings = [] }) {
    for (const bot of bots) {
      this.#told.add(bot.id);
      this.#putBot(bot);
    }
    for (const { botId, ...recording } of recordings) {
      const bot = this.bots.get(botId);
      if (bot) this.#putBot({ ...bot, ...recording });
    }
    for (const slot of slots) {
      this.#changed.slots.add(slot.name);
      const before = this.slots.get(slot.name);
      for (const id of [before?.botId, slot.botId]) if (id != null) this.#changed.bots.add(id);
      this.slots.set(slot.name, slot);
    }
    for (const { platform, bots: ids, places, known, length } of queues) {
      this.#changed.queues = true;
      const own = new Map(ids.map((id, index) => [id, places[index]]));
      if (length > 0) this.queues.set(platform, { length, known, own });
      else this.queues.delete(platform);
    }
    this.#forgetOldest();
  }

  #putBot(bot) {
    const before = this.bots.get(bot.id);
    if (before && before.state !== bot.state) {
      this.#enteredAt.set(bot.id, { state: bot.state, at: new Date(serverNowMs()).toISOString() });
      this.#changed.moves.push({ bot, from: before.state });
    }
    this.bots.set(bot.id, bot);
    this.#changed.bots.add(bot.id);
    if (bot.slotName) this.#changed.slots.add(bot.slotName);
    this.#changed.queues ||= bot.state === 'QUEUED' || before?.state === 'QUEUED';
  }

  #forgetOldest() {
    if (this.bots.size <= this.#endedMax) return;
    const ended = [...this.bots.values()].filter(isEnded).sort((a, b) => a.id - b.id);
    for (const bot of ended.slice(0, Math.max(0, ended.length - this.#endedMax))) {
      this.bots.delete(bot.id);
      this.#enteredAt.delete(bot.id);
      this.#changed.bots.add(bot.id);
    }
  }

  #schedule() {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    requestAnimationFrame(() => {
      this.#isScheduled = false;
      const changed = this.#changed;
      this.#changed = newChanges();
      this.#onChange(changed);
    });
  }
}

function newChanges() {
  return { slots: new Set(), bots: new Set(), queues: false, moves: [] };
}
