// Numbers, times and states as words.

export const NONE = '\u2013';
const LARGE = [
  [1e9, 'G'],
  [1e6, 'M'],
  [1e3, 'k'],
];

/** A count with k, M or G and at most `digits` significant digits: 2.56M, 128k, 1,024 -> 1.02k. */
export function short(value, digits = 3) {
  if (value == null || !Number.isFinite(value)) return NONE;
  for (const [size, letter] of LARGE) {
    if (Math.abs(value) >= size * 0.9995) return `${Number((value / size).toPrecision(digits))}${letter}`;
  }
  return String(Number(value.toPrecision(digits)));
}

/** A whole number with commas. */
export const exact = (value) => (value == null ? NONE : Math.round(value).toLocaleString('en-US'));

/** A measured value with three digits: 0.904, 12.3, 4.1e-5. */
export function number(value) {
  if (value == null || !Number.isFinite(value)) return NONE;
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  return size < 10 ? value.toFixed(3) : String(Number(value.toPrecision(4)));
}

/** A value of a spec's field as it is written in a spec. */
export function field(value) {
  if (value === null || value === undefined) return 'none';
  if (typeof value === 'number') return String(Number(value.toPrecision(6)));
  return typeof value === 'string' ? value : JSON.stringify(value);
}

/** A span of time: 40 s, 3 min 20 s, 2 h 5 min, 3 d 4 h. */
export function span(seconds) {
  if (seconds == null || !Number.isFinite(seconds)) return NONE;
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min${s < 600 && s % 60 ? ` ${s % 60} s` : ''}`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** How long ago a moment was, given in seconds since 1970. */
export function ago(moment) {
  if (moment == null) return NONE;
  const past = Date.now() / 1000 - moment;
  if (past < 5) return 'now';
  if (past < 90) return `${Math.round(past)} s ago`;
  if (past < 5400) return `${Math.round(past / 60)} min ago`;
  if (past < 129600) return `${Math.round(past / 3600)} h ago`;
  return new Date(moment * 1000).toISOString().slice(0, 10);
}

/** `1 member`, `4 members`. */
export const plural = (count, word) => `${exact(count)} ${word}${count === 1 ? '' : 's'}`;

/** A name without the folders before it. */
export const last = (name) => name.slice(name.lastIndexOf('/') + 1);
