// Questions to the server. Answers carry an ETag; asked again, an unchanged answer costs the server almost nothing.

const known = new Map();
const MOST_KNOWN = 256;
const PERIOD = 2000;
const LONGEST_PERIOD = 15000;

/** The address of a question; arrays become repeated parameters. */
export function question(path, params = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of params instanceof URLSearchParams ? params : Object.entries(params)) {
    for (const one of [value].flat()) if (one != null) query.append(name, one);
  }
  const words = query.toString();
  return words ? `${path}?${words}` : path;
}

/** An answer that is an error, with the server's line and the HTTP status (0: no answer). */
export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function fetchAnswer(url, signal) {
  const before = known.get(url);
  let answer;
  try {
    answer = await fetch(url, { signal, cache: 'no-store', headers: before ? { 'If-None-Match': before.etag } : {} });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ApiError('The server does not answer. Is `ebbtide dashboard` still running?', 0);
  }
  if (answer.status === 304 && before) return { data: before.data, fresh: false };
  let data = null;
  try {
    data = await answer.json();
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ApiError(`The server's answer cannot be read (${answer.status}).`, answer.status);
  }
  if (!answer.ok) throw new ApiError(data?.error || `The server answered with ${answer.status}.`, answer.status);
  known.delete(url);
  if (answer.headers.get('ETag')) known.set(url, { etag: answer.headers.get('ETag'), data });
  if (known.size > MOST_KNOWN) known.delete(known.keys().next().value);
  return { data, fresh: true };
}

/** Resolves after some milliseconds, and at once when the page becomes visible again; never while it is hidden. */
function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const done = () => {
      if (document.hidden && !signal.aborted) return; // visibilitychange calls again
      clearTimeout(timer);
      document.removeEventListener('visibilitychange', done);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    document.addEventListener('visibilitychange', done);
    signal.addEventListener('abort', done, { once: true });
  });
}

/** The questions of one view: they end when the view is left. */
export class Api {
  constructor(told = () => {}) {
    this.told = told; // is told of every answer (null) and of every failure (its message)
    this.left = new AbortController();
  }

  /** One answer. Raises `ApiError`. */
  async get(path, params) {
    const { data } = await fetchAnswer(question(path, params), this.left.signal);
    return data;
  }

  /** Asks every two seconds while the page is visible. `onData(data)` is called for news only, and may return the
   * milliseconds until the next question; `onError(error)` once for each failure. Returns a function that ends it. */
  follow(path, params, onData, onError = () => {}) {
    const own = new AbortController();
    this.left.signal.addEventListener('abort', () => own.abort(), { once: true });
    this.#ask(question(path, params), own.signal, onData, onError);
    return () => own.abort();
  }

  async #ask(url, signal, onData, onError) {
    let first = true;
    let failures = 0;
    while (!signal.aborted) {
      let wait = PERIOD;
      try {
        const { data, fresh } = await fetchAnswer(url, signal);
        if (signal.aborted) return;
        this.told(null);
        if (fresh || first || failures) wait = onData(data) ?? PERIOD;
        first = false;
        failures = 0;
      } catch (error) {
        if (signal.aborted || error.name === 'AbortError') return;
        if (!(error instanceof ApiError)) throw error;
        failures += 1;
        wait = Math.min(PERIOD * 2 ** (failures - 1), LONGEST_PERIOD);
        if (error.status === 0) this.told(error.message);
        onError(error);
      }
      await pause(wait, signal);
    }
  }

  /** Ends all questions. */
  close() {
    this.left.abort();
  }
}
