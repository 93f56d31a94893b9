// Names of folders: the runs behind them, and short words for them.

import { last } from './text.js';

/** The shortest ends of names that still tell them apart. */
export function shortNames(names) {
  const ends = names.map(last);
  return new Set(ends).size === names.length ? ends : names;
}

/** The runs behind names: a sweep stands for the runs of its tasks. */
export async function runsOf(names, api, wanting) {
  const found = [];
  for (const name of names) {
    try {
      const about = await api.get('/api/run', { name });
      if (about.kind !== 'sweep') {
        found.push(name);
        continue;
      }
      const { rows } = await api.get('/api/sweep', { name });
      found.push(...rows.map((row) => row.run).filter(Boolean));
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      wanting.push(`${name}: ${error.message}`);
    }
  }
  return [...new Set(found)];
}
