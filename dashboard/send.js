// The dialog that sends a bot.

import { api } from './api.js';
import { byId, make } from './dom.js';
import { errorLines, tell } from './notices.js';
import { duration, platformName, webAddress } from './words.js';

/** A meeting of a minute: the host answers after 3 s, three guests come. */
const REHEARSAL_QUERY = 'admitAfterMs=3000&guests=3&lengthMs=60000';

const HOSTS = [
  ['google-meet', /^meet\.google\.com$/],
  ['microsoft-teams', /(^|\.)teams\.(microsoft|live)\.com$|^teams\.microsoft\.us$/],
  ['zoom', /(^|\.)zoom\.(us|com|com\.cn)$|(^|\.)zoomgov\.com$/],
];

export class SendDialog {
  #dialog = byId('send');
  #form = byId('send-form');
  #onSent;
  #session = null;
  /** One key for one wish: pressing again after a lost answer does not send a second bot. */
  #wish = null;

  constructor(onSent) {
    this.#onSent = onSent;
    byId('send-bot').addEventListener('click', () => this.open());
    for (const id of ['send-close', 'send-cancel']) byId(id).addEventListener('click', () => this.#dialog.close());
    byId('rehearsal-preset').addEventListener('click', () => this.#fillInRehearsal());
    this.#form.elements.meetingUrl.addEventListener('input', () => this.#guessPlatform());
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault();
      void this.#send();
    });
  }

  /** What may be sent depends on who asks and on what the server offers. */
  setSession(session) {
    this.#session = session;
    byId('rehearse').hidden = !session.rehearsal;
    const select = this.#form.elements.platform;
    const chosen = select.value;
    const platforms = session.platforms.filter((platform) => platform.key !== 'rehearsal' || session.rehearsal);
    select.replaceChildren(...platforms.map(({ key, available }) =>
      make('option', { value: key, disabled: !available }, platformName(key) + (available ? '' : ' (not available here)'))));
    const usable = platforms.filter((platform) => platform.available).map((platform) => platform.key);
    if (usable.includes(chosen)) select.value = chosen;
    else if (usable.length > 0) select.value = usable[0];
  }

  open() {
    this.#showError(null);
    if (!this.#dialog.open) this.#dialog.showModal();
    this.#form.elements.meetingUrl.focus();
  }

  close() {
    if (this.#dialog.open) this.#dialog.close();
  }

  #fillInRehearsal() {
    const { meetingUrl, platform, botDisplayName } = this.#form.elements;
    meetingUrl.value = `${location.origin}/rehearsal/try-${randomText(6)}?${REHEARSAL_QUERY}`;
    platform.value = 'rehearsal';
    if (botDisplayName.value === '') botDisplayName.value = 'Rehearsing bot';
    byId('send-submit').focus();
  }

  #guessPlatform() {
    const url = webAddress(this.#form.elements.meetingUrl.value);
    if (!url) return;
    const isOurs = url.origin === location.origin && url.pathname.startsWith('/rehearsal/');
    const guess = isOurs ? 'rehearsal' : HOSTS.find(([, host]) => host.test(url.hostname))?.[0];
    const option = [...this.#form.elements.platform.options].find((candidate) => candidate.value === guess);
    if (option && !option.disabled) option.selected = true;
  }

  async #send() {
    const wish = JSON.stringify(this.#request());
    if (this.#wish?.text !== wish) this.#wish = { text: wish, key: randomText(32) };
    const submit = byId('send-submit');
    submit.disabled = true;
    this.#showError(null);
    try {
      const bot = await api.sendBot(JSON.parse(wish), this.#wish.key);
      this.#wish = null;
      this.#dialog.close();
      this.#form.elements.meetingUrl.value = '';
      this.#form.elements.endTime.value = '';
      this.#form.elements.password.value = '';
      tell(sentence(bot));
      this.#onSent(bot);
    } catch (error) {
      // A clear refusal ends the wish; no answer, or 503, means that nobody knows whether it was taken.
      if (error.status >= 400 && error.status < 500) this.#wish = null;
      this.#showError(error);
    } finally {
      submit.disabled = false;
    }
  }

  #request() {
    const { platform, meetingUrl, password, botDisplayName, endTime, queueTimeoutMs, recordingEnabled } =
      this.#form.elements;
    const request = {
      meetingInfo: { platform: platform.value, meetingUrl: meetingUrl.value.trim() },
      recordingEnabled: recordingEnabled.checked,
      queueTimeoutMs: Number(queueTimeoutMs.value),
    };
    if (password.value !== '') request.meetingInfo.password = password.value;
    if (botDisplayName.value.trim() !== '') request.botDisplayName = botDisplayName.value.trim();
    if (endTime.value !== '') request.endTime = new Date(endTime.value).toISOString();
    return request;
  }

  #showError(error) {
    const place = byId('send-error');
    place.hidden = error === null;
    place.replaceChildren(...(error === null ? [] : errorLines(error)));
    if (error !== null) place.scrollIntoView({ block: 'nearest' });
  }
}

function sentence(bot) {
  const wait = bot.estimatedWaitMs ? `, for about ${duration(bot.estimatedWaitMs)}` : '';
  if (!bot.queued) return wait ? `Bot ${bot.id} waits for its engine${wait}.` : `Bot ${bot.id} is on its way.`;
  const position = bot.queuePosition ? ` at position ${bot.queuePosition}` : '';
  return `Bot ${bot.id} waits${position}${wait}.`;
}

/** crypto.randomUUID exists on https and localhost only. */
function randomText(length) {
  const alphabet = 'abcdefghijkmnpqrstuvwxyz23456789';
  return [...crypto.getRandomValues(new Uint8Array(length))].map((byte) => alphabet[byte % 32]).join('');
}
