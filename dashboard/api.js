// The server's HTTP interface. Every failure becomes an ApiError that can be shown to a person.

const TIMEOUT_MS = 20_000;

/** A request that did not succeed; `status` 0 means that no answer came. */
export class ApiError extends Error {
  constructor({ status, code, message, id = null, retryAfterS = null }) {
    super(message);
    Object.assign(this, { name: 'ApiError', status, code, id, retryAfterS });
  }
}

export const api = {
  session: () => request('GET', '/api/session'),
  signIn: (apiKey) => request('POST', '/api/session', { body: { apiKey } }),
  signOut: () => request('DELETE', '/api/session'),
  sendBot: (bot, idempotencyKey) =>
    request('POST', '/api/bots', { body: bot, headers: { 'idempotency-key': idempotencyKey } }),
  bots: (page, pageSize) => request('GET', `/api/bots?page=${page}&pageSize=${pageSize}`),
  events: (id, page, pageSize) => request('GET', `/api/bots/${id}/events?page=${page}&pageSize=${pageSize}`),
  leave: (id) => request('POST', `/api/bots/${id}/remove-from-call`),
  cancel: (id) => request('POST', `/api/bots/${id}/cancel`),
  recording: (id) => request('GET', `/api/bots/${id}/recording`),
  queueStats: () => request('GET', '/api/bots/queue/stats'),
};

let onSignedOut = () => {};

/** Calls `act` whenever the server no longer knows who is asking. */
export function whenSignedOut(act) {
  onSignedOut = act;
}

async function request(method, path, { body, headers = {} } = {}) {
  const options = { method, headers: { accept: 'application/json', ...headers }, signal: AbortSignal.timeout(TIMEOUT_MS) };
  if (body !== undefined) {
    options.headers['content-type'] = 'application/json';
    options.body = JSON.stringify(body);
  }
  let response;
  let text;
  try {
    response = await fetch(path, options);
    text = await response.text();
  } catch (cause) {
    throw unanswered(cause);
  }
  if (response.ok) return read(text);
  if (response.status === 401 && path !== '/api/session') onSignedOut();
  throw refusal(response, text);
}

function read(text) {
  if (text === '') return null;
  try {
    return JSON.parse(text);
  } catch {
    throw new ApiError({ status: 200, code: 'unreadable', message: 'The server’s answer could not be read.' });
  }
}

function unanswered(cause) {
  const message = cause.name === 'TimeoutError'
    ? `The server did not answer within ${TIMEOUT_MS / 1000} seconds.`
    : 'The server cannot be reached.';
  return new ApiError({ status: 0, code: 'unreachable', message });
}

function refusal(response, text) {
  let error = null;
  try {
    error = JSON.parse(text)?.error ?? null;
  } catch {
    // Something between us and the server answered: its page is of no use here.
  }
  const retryAfterS = Number.parseInt(response.headers.get('retry-after') ?? '', 10);
  return new ApiError({
    status: response.status,
    code: error?.code ?? `http_${response.status}`,
    message: error?.message ?? `The server answered ${response.status} ${response.statusText}`.trim(),
    id: error?.id ?? null,
    retryAfterS: Number.isNaN(retryAfterS) ? null : retryAfterS,
  });
}
