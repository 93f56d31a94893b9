// One run, live: what is known of it, its curves, heads over training, its verdict and its commands.

import { Curves } from './curves.js';
import { el, setText } from './dom.js';
import { details, head } from './facts.js';
import { heads } from './heads.js';

/** Shows the run `name` of the address. */
export async function show(root, params, api) {
  const name = params.get('name');
  if (!name) {
    root.append(el('h1', {}, 'No run is named'), el('p', {}, el('a', { href: '#/' }, 'All runs')));
    return;
  }
  const tell = head(root, name);
  const missing = el('p', { class: 'problem', role: 'alert', hidden: true });
  root.append(missing);
  const reading = el('p', { class: 'note', role: 'status' }, 'Reading the run \u2026');
  const body = el('div', {});
  root.append(reading, body);
  let parts = null;
  api.follow(
    '/api/run',
    { name },
    (about) => {
      missing.hidden = true;
      reading.remove();
      if (about.kind === 'sweep') {
        location.replace(`#/sweep?${new URLSearchParams({ name })}`);
        return;
      }
      tell(about);
      if (!parts) {
        const curves = about.evaluators?.length ? new Curves(body, params, name, api) : null;
        parts = { curves, heads: heads(body, name, api), details: details(body) };
      }
      parts.curves?.learn(about);
      parts.heads(about);
      parts.details(about);
    },
    (error) => {
      reading.remove();
      missing.hidden = false;
      setText(missing, error.message);
    },
  );
}
