// The marks of transience: each member's ICL peak, half-fall and crossover, their medians, and the phases between them.

import { median, nearest } from './groups.js';
import { short } from './text.js';

const KINDS = [
  { name: 'peak', words: 'ICL peak', up: true, dash: [5, 4], colour: '#0072B2' },
  { name: 'half_fall', words: 'half-fall', up: false, dash: [2, 3], colour: '#D55E00' },
  { name: 'crossover', words: 'crossover', up: false, dash: [8, 3, 2, 3], colour: '#009E73' },
];

/** Marks of a run for panels: {name, words, at, dash, colour, up, points}. `points` lie on the members' ICL curves and
 * are given with `group`, the group of ICL. `factor`: sequences of one unit of the x axis. */
export function marksOf(data, { factor = 1, group = null } = {}) {
  const marks = data.marks ?? {};
  return KINDS.filter((kind) => marks[kind.name]?.some((v) => v != null)).map((kind) => {
    const own = marks[kind.name].map((v) => (v == null ? null : v / factor));
    const there = own.filter((v) => v != null);
    const known = marks.median?.[kind.name];
    const at = known != null ? known / factor : median(own);
    const count = there.length < data.members ? ` (${there.length} of ${data.members})` : '';
    const points =
      kind.name !== 'crossover' && group?.members
        ? own.map((x, m) => (x == null ? null : { x, y: valueAt(group, m, x) })).filter((one) => one?.y != null)
        : [];
    return { ...kind, at, words: `${kind.words} ${short(at)}${count}`, points };
  });
}

function valueAt(group, member, x) {
  const i = nearest(group.x, x);
  return i < 0 ? null : group.members[member][i];
}

/** Phases between the medians of the marks: until the peak, until the half-fall, and after it. */
export function phasesOf(marks, end) {
  const at = (name) => marks.find((mark) => mark.name === name)?.at;
  const [peak, half] = [at('peak'), at('half_fall')];
  if (peak == null || end == null || peak >= end) return [];
  const later = half ?? end;
  const phases = [
    { from: 0, to: peak, word: 'ICL rises', alpha: 0.03 },
    { from: peak, to: later, word: 'ICL falls', alpha: 0.075 },
  ];
  return half == null ? phases : [...phases, { from: half, to: end, word: 'below half', alpha: 0.03 }];
}
