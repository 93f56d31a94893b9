// Curves of the server as groups: what one run (or one value of an axis) shows of one measure.

/** The finite numbers of a list, sorted. */
export const finite = (values) => values.filter((v) => v != null && Number.isFinite(v)).sort((a, b) => a - b);

/** The median of a list; null where no number is finite. */
export function median(values) {
  const sorted = finite(values);
  if (!sorted.length) return null;
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** The mean of the finite numbers of a list; null where there is none. */
export function mean(values) {
  const all = finite(values);
  return all.length ? all.reduce((a, b) => a + b, 0) / all.length : null;
}

/** A group: the curve `curve` of an answer of /api/curves against sequences or steps. */
export function groupOf(data, curve, style, { unit = 'sequences', centre = 'median', ...more } = {}) {
  const found = data.curves[curve];
  const centred = centre === 'mean' ? found.mean : (found.median ?? found.mean);
  return {
    key: curve,
    ...style,
    x: unit === 'steps' ? data.steps : data.sequences,
    members: found.members,
    bands: found.bands,
    centre: centred,
    centreWord: centre,
    low: centre === 'mean' ? null : found.low,
    high: centre === 'mean' ? null : found.high,
    n: found.n,
    total: data.members,
    diverged: data.diverged ?? [],
    chance: found.chance,
    unit: found.unit ?? '',
    ...more,
  };
}

/** Whether an answer of /api/curves holds every evaluation. */
export const isWhole = (data) => !data?.kept || /^every/.test(data.kept);

/** Whether a group has an interval anywhere. */
export const hasInterval = (group) => Boolean(group.low?.some((v) => v != null));

/** Number of members in a legend: `N = 12`, with those that diverged. */
export function countWords(group) {
  const lost = group.diverged?.length ?? 0;
  return `N = ${group.total}${lost ? `, ${lost} diverged` : ''}`;
}

/** What a legend says of the lines of groups: thin, thick and bands. */
export function linesWords(groups) {
  const of = (group) => [
    group.bands && !group.members ? 'bands: half and nine tenths of the members' : 'thin: members',
    `thick: ${group.centreWord}${hasInterval(group) ? ' with its 95 % interval' : ''}`,
  ];
  return [...new Set(groups.flatMap((group) => of(group)))].join('; ');
}

/** The index of the entry of a sorted list that is nearest to a value; -1 for an empty list. */
export function nearest(xs, value) {
  let low = 0;
  let high = xs.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] < value) low = middle;
    else high = middle;
  }
  return high < 0 ? -1 : Math.abs(xs[low] - value) <= Math.abs(xs[high] - value) ? low : high;
}

/** The index of the last entry that is a number; -1 where there is none. */
export function lastFinite(values) {
  let i = (values?.length ?? 0) - 1;
  while (i >= 0 && (values[i] == null || !Number.isFinite(values[i]))) i -= 1;
  return i;
}

/** Lowest and highest of all that a group draws; with `log` of what is above 0. */
export function extent(groups, log) {
  let [low, high] = [Infinity, -Infinity];
  for (const group of groups) {
    for (const ys of [
      ...(group.members ?? []),
      ...Object.values(group.bands ?? {}),
      group.centre,
      group.low,
      group.high,
    ]) {
      for (const v of ys ?? []) {
        if (v != null && (!log || v > 0)) {
          if (v < low) low = v;
          if (v > high) high = v;
        }
      }
    }
  }
  return [low, high];
}
