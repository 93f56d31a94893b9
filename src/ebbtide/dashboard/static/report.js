// The page of `ebbtide report` for a folder, in a frame that may run nothing.

import { el, link } from './dom.js';

/** Shows the report of the folder `name`, or says how to choose one. */
export async function show(root, params) {
  const name = params.get('name');
  if (!name) {
    root.append(
      el('h1', {}, 'Report'),
      el(
        'p',
        {},
        'Open a run or a sweep and choose Report: its question, claims, verdicts, figure and how to make it again.',
      ),
      el('p', {}, link('', {}, 'All runs')),
    );
    return;
  }
  const source = `/report?${new URLSearchParams({ name })}`;
  root.append(
    el('p', { class: 'crumbs' }, link('', {}, 'Runs'), ' / ', link('run', { name }, name), ' / report'),
    el('h1', { class: 'hidden' }, `Report of ${name}`),
    el('iframe', {
      class: 'report',
      src: source,
      sandbox: 'allow-popups',
      title: `Report of ${name}`,
      referrerpolicy: 'no-referrer',
    }),
    el(
      'p',
      { class: 'note' },
      el('a', { href: source, target: '_blank', rel: 'noopener' }, 'Open the report alone'),
      ', to print or to keep it.',
    ),
  );
}
