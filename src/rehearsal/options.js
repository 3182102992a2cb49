// What a rehearsal link may ask for. The one list that the form, the meeting page and its help are made from.
//
// A link is /rehearsal/<code>?<option>=<value>&…  — all times are milliseconds, unknown options are refused.

/**
 * Every option: `choices` (a closed list) or `min`/`max` (a whole number), a default, and a sentence for people.
 */
export const OPTIONS = [
  {
    name: 'door', label: 'Getting in', initial: 'open',
    choices: {
      open: 'The lobby opens',
      not_found: 'There is no such meeting',
      sign_in: 'An account is asked for',
      captcha: 'A captcha is in the way',
      blocked: 'This client may not join',
    },
    help: 'Anything but an open lobby ends the attempt before anybody can ask to join.',
  },
  {
    name: 'loadMs', label: 'Page loads for', unit: 'ms', initial: 300, min: 0, max: 600_000,
    help: 'Time until the lobby shows, as on a slow line.',
  },
  {
    name: 'host', label: 'The host', initial: 'admit',
    choices: { admit: 'Lets the guest in', deny: 'Refuses', silent: 'Never answers' },
    help: 'What happens to a request to join.',
  },
  {
    name: 'admitAfterMs', label: 'Host answers after', unit: 'ms', initial: 2_000, min: 0, max: 3_600_000,
    help: 'Time in the waiting room. 0 is an open meeting without one.',
  },
  {
    name: 'guests', label: 'Other participants', initial: 2, min: 0, max: 8,
    help: 'The first is there from the start. With nobody there is no sound either.',
  },
  {
    name: 'guestJoinMs', label: 'One more comes every', unit: 'ms', initial: 1_500, min: 0, max: 3_600_000,
    help: 'Time between two arrivals.',
  },
  {
    name: 'guestStayMs', label: 'Each stays for', unit: 'ms', initial: 0, min: 0, max: 86_400_000,
    help: '0: until the end.',
  },
  {
    name: 'sound', label: 'Sound of the others', initial: 'tone',
    choices: { tone: 'A tone of 440 Hz at −12 dBFS', silent: 'Silence' },
    help: 'The tone sounds in the call only, while somebody else is there.',
  },
  {
    name: 'lengthMs', label: 'The call lasts', unit: 'ms', initial: 60_000, min: 0, max: 86_400_000,
    help: 'Counted from the moment the guest is let in.',
  },
  {
    name: 'end', label: 'How it ends', initial: 'ended',
    choices: {
      ended: 'The host ends the meeting',
      removed: 'The host removes the guest',
      everyone_left: 'Everybody else leaves',
      never: 'Not at all: the guest has to leave',
    },
    help: 'What happens when the call has lasted its time.',
  },
];

/** Rehearsals worth trying first: a name, and what differs from the initial values. */
export const PRESETS = [
  ['A one-minute call', {}],
  ['Refused by the host', { host: 'deny' }],
  ['Kept waiting', { host: 'silent' }],
  ['Removed after 30 s', { lengthMs: 30_000, end: 'removed' }],
  ['Everybody leaves', { guests: 4, lengthMs: 30_000, end: 'everyone_left' }],
  ['A silent call', { sound: 'silent', end: 'never' }],
  ['Wrong code', { door: 'not_found' }],
];

/** The values of all options where a link says nothing. */
export function initialValues() {
  return Object.fromEntries(OPTIONS.map((option) => [option.name, option.initial]));
}

/**
 * Reads a query strictly. Returns `{ values, problems }`; with any problem the meeting must not begin.
 */
export function readOptions(query) {
  const values = initialValues();
  const problems = [];
  const seen = new Set();
  for (const [name, text] of new URLSearchParams(query)) {
    const option = OPTIONS.find((candidate) => candidate.name === name);
    if (!option) {
      problems.push(`There is no option “${name}”. There are: ${OPTIONS.map((known) => known.name).join(', ')}.`);
    } else if (seen.has(name)) {
      problems.push(`“${name}” is given twice.`);
    } else {
      seen.add(name);
      const problem = problemOf(option, text);
      if (problem) problems.push(problem);
      else values[name] = option.choices ? text : Number(text);
    }
  }
  return { values, problems };
}

function problemOf(option, text) {
  if (option.choices) {
    if (Object.hasOwn(option.choices, text)) return null;
    return `“${option.name}” is “${text}”; it must be one of ${Object.keys(option.choices).join(', ')}.`;
  }
  const isNumber = /^\d{1,9}$/.test(text) && Number(text) >= option.min && Number(text) <= option.max;
  if (isNumber) return null;
  const unit = option.unit === 'ms' ? ' milliseconds' : '';
  return `“${option.name}” is “${text}”; it must be a whole number from ${option.min} to ${option.max}${unit}.`;
}

/** The query for some values; what has its initial value is left out. */
export function queryOf(values) {
  const query = new URLSearchParams();
  for (const option of OPTIONS) {
    const value = values[option.name];
    if (value !== undefined && String(value) !== String(option.initial)) query.set(option.name, String(value));
  }
  return query.toString();
}
