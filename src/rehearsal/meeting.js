// A meeting client, played by the page itself: lobby, waiting room, call, end.
//
// The marks that a bot may go by (all else may change): [data-view] of the section without `hidden`, [data-ending] of
// the end, [data-participant-id] of tiles ([data-self] is the bot's own), aria-labels of the buttons, [data-action=join].
// Buttons and the name act on trusted input only, as real meeting pages do.

import { readOptions } from '/rehearsal/options.js';
import { startClock } from '/rehearsal/clock.js';
import { Tone } from '/rehearsal/tone.js';

const NAMES = ['Ada', 'Grace', 'Edsger', 'Barbara', 'Alan', 'Radia', 'Dennis', 'Hedy'];
const ENDINGS = {
  'ended': ['The meeting has ended', 'The host ended the meeting for everyone.'],
  'removed': ['You’ve been removed from the meeting', 'The host removed you.'],
  'denied': ['You can’t join this call', 'Someone in the call denied your request to join.'],
  'not-found': ['Check your meeting code', 'There is no meeting with this code.'],
  'sign-in': ['Sign in', 'This meeting asks for an account.'],
  'captcha': ['Are you a person?', 'Type the characters you see. (There are none: this page plays a captcha.)'],
  'blocked': ['You can’t join this meeting', 'It does not accept this kind of client.'],
  'left': ['You left the meeting', 'The rehearsal is over.'],
};

const byId = (id) => document.getElementById(id);
const { values: options, problems } = readOptions(location.search);
const tone = new Tone();
const timers = new Set();
let others = 0;
let stopClock = null;

/** Does something later, unless the meeting is over by then. */
function later(delayMs, act) {
  const timer = setTimeout(() => {
    timers.delete(timer);
    act();
  }, delayMs);
  timers.add(timer);
}

function show(view) {
  for (const section of document.querySelectorAll('[data-view]')) section.hidden = section.dataset.view !== view;
}

/** Calls `act` for presses that a person (or a bot with real input) made. */
function onPress(element, act) {
  element.addEventListener('click', (event) => {
    if (event.isTrusted) act();
  });
}

function end(ending) {
  for (const timer of timers) clearTimeout(timer);
  timers.clear();
  stopClock?.();
  tone.stop();
  const [title, text] = ENDINGS[ending];
  byId('end-title').textContent = title;
  byId('end-text').textContent = text;
  document.querySelector('[data-view="end"]').dataset.ending = ending;
  document.title = title;
  show('end');
}

// ---- lobby ---------------------------------------------------------------------------------------------------------

function openLobby() {
  if (options.door !== 'open') {
    end(options.door.replace('_', '-'));
    return;
  }
  byId('problems').hidden = problems.length === 0;
  byId('problem-list').replaceChildren(...problems.map((problem) => {
    const item = document.createElement('li');
    item.textContent = problem;
    return item;
  }));
  show('lobby');
}

function initials(name) {
  const words = name.trim().split(/\s+/).filter(Boolean);
  return words.slice(0, 2).map((word) => [...word][0].toUpperCase()).join('') || '?';
}

function setUpLobby() {
  const [name, join] = [byId('name'), byId('join')];
  name.addEventListener('input', (event) => {
    if (!event.isTrusted) return;
    join.disabled = name.value.trim() === '' || problems.length > 0;
    byId('preview-initials').textContent = initials(name.value);
  });
  for (const [id, thing] of [['microphone', 'microphone'], ['camera', 'camera']]) {
    const button = byId(id);
    onPress(button, () => {
      const isOn = button.getAttribute('aria-pressed') !== 'true';
      button.setAttribute('aria-pressed', String(isOn));
      button.setAttribute('aria-label', `Turn ${isOn ? 'off' : 'on'} ${thing}`);
      if (id === 'camera') byId('preview-note').textContent = isOn ? 'Camera is on' : 'Camera is off';
    });
  }
  byId('entry').addEventListener('submit', (event) => event.preventDefault());
  onPress(join, () => {
    tone.unlock();
    ask();
  });
  for (const button of document.querySelectorAll('[data-action="leave"]')) onPress(button, () => end('left'));
}

// ---- waiting room --------------------------------------------------------------------------------------------------

function ask() {
  if (options.host === 'admit' && options.admitAfterMs === 0) {
    enterCall();
    return;
  }
  show('waiting');
  if (options.host === 'admit') later(options.admitAfterMs, enterCall);
  if (options.host === 'deny') later(options.admitAfterMs, () => end('denied'));
}

// ---- call ----------------------------------------------------------------------------------------------------------

function enterCall() {
  const ownName = byId('name').value.trim();
  byId('tiles').replaceChildren(tile('self', ownName, 0, true));
  const [mic, camera] = ['microphone', 'camera'].map((id) => byId(id).getAttribute('aria-pressed') === 'true');
  byId('toolbar-note').textContent = `Microphone ${mic ? 'on' : 'off'} · Camera ${camera ? 'on' : 'off'}`;
  show('call');
  stopClock = startClock(byId('clock'));
  others = 0;
  countPeople();
  for (let index = 0; index < options.guests; index += 1) {
    if (index === 0) guestComes(index);
    else later(index * options.guestJoinMs, () => guestComes(index));
  }
  if (options.end !== 'never') later(options.lengthMs, finishCall);
}

function finishCall() {
  if (options.end !== 'everyone_left') {
    end(options.end);
    return;
  }
  for (const timer of timers) clearTimeout(timer);
  timers.clear();
  for (let index = 0; index < options.guests; index += 1) guestGoes(index);
}

function guestComes(index) {
  byId('tiles').append(tile(`guest-${index + 1}`, NAMES[index], index + 1, false));
  others += 1;
  countPeople();
  if (options.guestStayMs > 0) later(options.guestStayMs, () => guestGoes(index));
}

function guestGoes(index) {
  const gone = document.querySelector(`[data-participant-id="guest-${index + 1}"]`);
  if (!gone) return;
  gone.remove();
  others -= 1;
  countPeople();
}

function countPeople() {
  const people = others + 1;
  byId('count').textContent = people === 1 ? 'You’re the only one here' : `${people} in the call`;
  byId('tiles').dataset.size = people > 6 ? 'small' : people > 3 ? 'medium' : 'large';
  const isHeard = others > 0 && options.sound === 'tone';
  if (isHeard) tone.start();
  else tone.pause();
  byId('sound-note').textContent = isHeard ? '440 Hz · −12 dBFS' : 'Silence';
}

function tile(id, name, hue, isSelf) {
  const item = document.createElement('li');
  item.className = `tile hue-${hue}`;
  item.dataset.participantId = id;
  if (isSelf) item.dataset.self = '';
  const face = document.createElement('div');
  face.className = 'face';
  face.textContent = initials(name);
  const label = document.createElement('p');
  label.className = 'tile-name';
  label.textContent = isSelf ? `${name} (you)` : name;
  item.append(face, label);
  return item;
}

for (const code of document.querySelectorAll('[data-code]')) {
  code.textContent = decodeURIComponent(location.pathname.split('/').pop() ?? '');
}
setUpLobby();
later(options.loadMs, openLobby);
