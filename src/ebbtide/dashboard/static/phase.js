// The phase diagram of a sweep: a scalar over two axes as a table of coloured cells.

import { el } from './dom.js';
import { mean } from './groups.js';
import { diverging, inkOn, viridis } from './palette.js';
import { field, number, plural } from './text.js';

const SHARES = ['icl', 'iwl', 'ciwl', 'flip'];

/** Numbers by size, other values in their order. */
export const sorted = (values) =>
  values.every((v) => typeof v === 'number') ? [...values].sort((a, b) => a - b) : values;

/** The diagram of `scalar` over the axes `x` and `y` as elements; a cell is a mean over members, and says how many. */
export function phaseDiagram({ rows, axes, x, y, scalar }) {
  const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
  const [across, up] = [sorted(axes[x]), [...sorted(axes[y])].reverse()];
  const cells = up.map((v) =>
    across.map((u) => {
      const own = rows.filter((row) => same(row.axes[x], u) && same(row.axes[y], v));
      const values = own.map((row) => row.scalars[scalar]).filter((one) => one != null);
      return { value: mean(values), n: values.length, of: own.length };
    }),
  );
  const all = cells
    .flat()
    .map((cell) => cell.value)
    .filter((v) => v != null);
  let [low, high] = all.length ? [Math.min(...all), Math.max(...all)] : [0, 1];
  const signed = scalar === 'transience';
  if (signed)
    [low, high] = [-Math.max(Math.abs(low), Math.abs(high), 1e-9), Math.max(Math.abs(low), Math.abs(high), 1e-9)];
  else if (SHARES.includes(scalar.split('_')[0]) && !scalar.endsWith('_sequences')) [low, high] = [0, 1];
  const colour = (v) => (signed ? diverging : viridis)(high > low ? (v - low) / (high - low) : 0.5);
  const others = Object.keys(axes).filter((one) => one !== x && one !== y && axes[one].length > 1);
  const body = up.map((v, i) =>
    el(
      'tr',
      {},
      el('th', { scope: 'row' }, field(v)),
      ...cells[i].map(({ value, n, of }) => {
        const words = value == null ? (of ? 'no value' : 'none') : number(value);
        const cell = el(
          'td',
          { class: value == null ? 'missing' : false },
          el('span', { class: 'value' }, words),
          el('span', { class: 'n' }, `N = ${n}${of > n ? ` of ${of}` : ''}`),
        );
        if (value != null) {
          cell.style.background = colour(value);
          cell.style.color = inkOn(colour(value));
        }
        return cell;
      }),
    ),
  );
  const bar = el('canvas', { width: 100, height: 6, 'aria-hidden': 'true' });
  const ink = bar.getContext('2d');
  for (let i = 0; i < 100; i += 1) {
    ink.fillStyle = colour(low + ((high - low) * i) / 99);
    ink.fillRect(i, 0, 1, 6);
  }
  const over = others.length ? ` Averaged over ${others.join(', ')}.` : '';
  return [
    el(
      'p',
      { class: 'note' },
      'Each cell is the mean over its members; N counts those with a value. Hatched: not trained yet, or diverged.',
      `${over} ${plural(rows.length, 'member')} in all.`,
    ),
    el(
      'div',
      { class: 'timescale' },
      el('span', {}, number(low)),
      bar,
      el('span', {}, `${number(high)} (${scalar.replaceAll('_', ' ')})`),
    ),
    el(
      'div',
      { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Phase diagram' },
      el(
        'table',
        { class: 'phase' },
        el('caption', {}, `${scalar.replaceAll('_', ' ')} by ${y} (rows) and ${x} (columns)`),
        el('thead', {}, el('tr', {}, el('td', {}), ...across.map((u) => el('th', { scope: 'col' }, field(u))))),
        el('tbody', {}, ...body),
      ),
    ),
  ];
}
