// What stands around every chart: title, legend, the place of the chart, and its data as a table.

import { el } from './dom.js';

/** The parts of a chart's figure, and the figure itself as `element`. `onTable` is called when the table opens or
 * closes; `kind` is a class of the chart, `wide` makes the figure take the whole width, `under` stands below the chart,
 * `note` below the title. */
export function chartFrame({ onTable, kind = '', wide = false, note = null, under = null }) {
  const title = el('h3', {});
  const legend = el('div', { class: 'legend' });
  const host = el('div', { class: `plot ${kind}`.trim(), role: 'group', 'aria-roledescription': 'chart' });
  const table = el('details', { class: 'data', ontoggle: onTable }, el('summary', {}, 'Show as table'));
  const caption = el('figcaption', {}, title, note, legend);
  const element = el('figure', { class: wide ? 'panel wide' : 'panel' }, caption, host, under, table);
  return { title, legend, host, table, element };
}
