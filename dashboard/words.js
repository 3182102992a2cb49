// Words for people: states, steps, reasons, durations.

const PLATFORMS = {
  'google-meet': 'Google Meet',
  'microsoft-teams': 'Microsoft Teams',
  'zoom': 'Zoom',
  'rehearsal': 'Rehearsal',
};

const SLOT_STATUS = { idle: 'Idle', deploying: 'Deploying', busy: 'Busy', error: 'Error' };

const SLOT_STEPS = {
  preparing: 'Being prepared',
  prepared: 'Prepared',
  unprepared: 'Not prepared',
  removing: 'Being emptied',
  lingering: 'Not emptied',
  pulling: 'Fetching image',
  resuming: 'Fetching image',
  starting: 'Starting',
  retrying: 'Trying again',
  restarting: 'Starting again',
  running: 'Running',
  leaving: 'Leaving',
  stopping: 'Clearing up',
  waiting: 'Recovering',
};

/** `tone` is the colour family; the words say the same, so that colour is never needed. */
const BOT_STATES = {
  SCHEDULED: { label: 'Scheduled', tone: 'calm', phase: 'waiting' },
  QUEUED: { label: 'In the queue', tone: 'calm', phase: 'waiting' },
  DEPLOYING: { label: 'Starting', tone: 'warm', phase: 'waiting' },
  JOINING_CALL: { label: 'Joining', tone: 'warm', phase: 'meeting' },
  IN_WAITING_ROOM: { label: 'Waiting room', tone: 'warm', phase: 'meeting' },
  IN_CALL: { label: 'In the call', tone: 'live', phase: 'meeting' },
  RECORDING: { label: 'Recording', tone: 'live', phase: 'meeting' },
  LEAVING: { label: 'Leaving', tone: 'calm', phase: 'leaving' },
  DONE: { label: 'Done', tone: 'good', phase: 'ended' },
  FATAL: { label: 'Failed', tone: 'bad', phase: 'ended' },
};

const END_REASONS = {
  meeting_ended: 'The meeting ended',
  everyone_left: 'Everybody else left',
  left_by_request: 'Left when asked to',
  waiting_room_timeout: 'Nobody let it in',
  nobody_joined: 'Nobody else came',
  inactivity: 'Nothing was heard for long',
  end_time: 'Its end time came',
  max_duration: 'Reached the longest stay allowed',
  removed: 'The host removed it',
  cancelled: 'Cancelled',
  queue_timeout: 'No slot became free in time',
  start_missed: 'Its start was missed',
  denied: 'The host refused it',
  meeting_not_found: 'There is no such meeting',
  sign_in_required: 'The meeting asks for an account',
  captcha: 'A captcha stood in the way',
  join_blocked: 'The platform refused it',
  deploy_failed: 'It could not be started',
  heartbeat_lost: 'It fell silent',
  crashed: 'It crashed',
  upload_failed: 'The recording could not be uploaded',
  internal: 'Something went wrong inside',
};

const EVENTS = {
  PARTICIPANT_JOIN: 'Somebody came in',
  PARTICIPANT_LEAVE: 'Somebody left',
  LOG: 'Note',
  USER_REMOVED_FROM_CALL: 'Asked to leave',
  USER_CANCELLED_DEPLOYMENT: 'Cancelled',
  SIGN_IN_REQUIRED: 'The meeting asks for an account',
  CAPTCHA_DETECTED: 'A captcha stood in the way',
  MEETING_NOT_FOUND: 'There is no such meeting',
  MEETING_ENDED: 'The meeting ended',
  PERMISSION_DENIED: 'The host refused it',
  JOIN_BLOCKED: 'The platform refused it',
  RESTARTING: 'Starting again',
};

export const SLOT_STATUSES = Object.keys(SLOT_STATUS);
export const platformName = (key) => PLATFORMS[key] ?? key;
export const slotStatus = (status) => SLOT_STATUS[status] ?? status;
export const slotStep = (step) => SLOT_STEPS[step] ?? step ?? '';
export const botState = (state) => BOT_STATES[state] ?? { label: plain(state), tone: 'calm', phase: 'meeting' };
export const endReason = (reason) => END_REASONS[reason] ?? plain(reason);
export const eventName = (type) => EVENTS[type] ?? (BOT_STATES[type]?.label ?? plain(type));
export const botName = (bot) => bot.botDisplayName || `Bot ${bot.id}`;
export const isEnded = (bot) => botState(bot.state).phase === 'ended';

/** A code this page does not know yet, made readable. */
function plain(code) {
  const text = String(code ?? '').toLowerCase().replaceAll('_', ' ');
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** `8 s`, `3 min 05 s`, `2 h 10 min`, `4 d 3 h`. */
export function duration(ms) {
  const { days, hours, minutes, seconds } = split(ms);
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${two(minutes)} min`;
  if (minutes > 0) return `${minutes} min ${two(seconds)} s`;
  return `${seconds} s`;
}

/** How long ago, or `in 8 s` for what is still to come. */
export const untilOrSince = (ms) => (ms < 0 ? `in ${duration(-ms)}` : duration(ms));

/** The same for narrow places: `8 s`, `3:05`, `2 h 10`, `4 d 3 h`. */
export function shortDuration(ms) {
  const { days, hours, minutes, seconds } = split(ms);
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${two(minutes)}`;
  if (minutes > 0) return `${minutes}:${two(seconds)}`;
  return `${seconds} s`;
}

function split(ms) {
  const total = Math.max(0, Math.floor(ms / 1000));
  return {
    days: Math.floor(total / 86_400), hours: Math.floor(total / 3600) % 24, minutes: Math.floor(total / 60) % 60,
    seconds: total % 60,
  };
}

const two = (value) => String(value).padStart(2, '0');
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
const timeOfDay = new Intl.DateTimeFormat(undefined, { timeStyle: 'medium' });

export const dateAndTime = (iso) => moment.format(new Date(iso));
export const time = (iso) => timeOfDay.format(new Date(iso));

/** A meeting's address without what nobody reads: `meet.google.com/abc-defg-hij`; one of this server by its path. */
export function shortLink(address) {
  const url = webAddress(address);
  if (!url) return address;
  const path = url.pathname.replace(/\/$/, '');
  return url.host === location.host ? path : `${url.host}${path}`;
}

/** The address as a URL if it is one of the web, else null: only such a one may become a link. */
export function webAddress(address) {
  try {
    const url = new URL(address);
    return ['http:', 'https:'].includes(url.protocol) ? url : null;
  } catch {
    return null;
  }
}
