// Small parts that several views show: a state with its mark, a link to a bot.

import { make, setAttribute, setText } from './dom.js';
import { botName, botState } from './words.js';

/** A bot's state: a mark for the eye and the words. */
export function stateMark() {
  const words = make('span');
  const element = make('span', { class: 'state' }, make('span', { class: 'dot', 'aria-hidden': 'true' }), words);
  return {
    element,
    paint(state) {
      const { label, tone } = botState(state);
      setAttribute(element, 'data-tone', tone);
      setAttribute(element, 'data-state', state);
      setText(words, label);
    },
  };
}

/** A button that opens the details of a bot; its clicks are handled by the page. */
export function botLink(attributes = {}) {
  const element = make('button', { type: 'button', class: 'bot-link', ...attributes });
  return {
    element,
    paint(bot) {
      setAttribute(element, 'data-detail', bot.id);
      setText(element, botName(bot));
      setAttribute(element, 'title', botName(bot));
    },
  };
}
