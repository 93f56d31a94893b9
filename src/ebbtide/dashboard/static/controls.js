// Controls of a view. Each keeps its element while its options stay, so that focus survives updates.

import { el } from './dom.js';

let counter = 0;

/** A row of choices of which one holds. `set(value)` changes it from outside. */
export function choice(words, options, value, onChange) {
  const name = `choice-${(counter += 1)}`;
  const inputs = options.map(([own, label]) => {
    const input = el('input', {
      type: 'radio',
      name,
      value: own,
      checked: own === value,
      onchange: () => onChange(own),
    });
    return [input, el('label', {}, input, el('span', {}, label))];
  });
  const element = el('fieldset', { class: 'choice' }, el('legend', {}, words), ...inputs.map((one) => one[1]));
  return {
    element,
    set: (now) =>
      inputs.forEach(([input]) => {
        input.checked = input.value === now;
      }),
  };
}

/** A list from which one entry is chosen; `fill(options, value)` changes its entries. Options: [value, words]. */
export function select(words, options, value, onChange) {
  const id = `select-${(counter += 1)}`;
  const input = el('select', { id, onchange: () => onChange(input.value) });
  let state = '';
  const fill = (fresh, now) => {
    const next = JSON.stringify(fresh);
    if (next !== state) input.replaceChildren(...fresh.map(([own, label]) => el('option', { value: own }, label)));
    state = next;
    input.value = now;
  };
  fill(options, value);
  return { element: el('div', { class: 'select' }, el('label', { for: id }, words), input), fill };
}

/** A box that opens to a list of which several hold; `fill(options, chosen)` changes its entries. */
export function several(words, onChange) {
  const list = el('div', { class: 'options' });
  const title = el('summary', {}, words);
  const element = el('details', { class: 'several' }, title, list);
  let chosen = new Set();
  let state = '';
  element.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape' || !element.open) return;
    element.open = false;
    title.focus();
    event.stopPropagation();
  });
  const outside = (event) => {
    if (!element.isConnected) document.removeEventListener('click', outside);
    else if (!element.contains(event.target)) element.open = false;
  };
  document.addEventListener('click', outside);
  const count = (of) => {
    title.textContent = `${words}: ${chosen.size} of ${of}`;
  };
  const fill = (options, now) => {
    chosen = new Set(now);
    count(options.length);
    const next = JSON.stringify([options, now]);
    if (next === state) return;
    state = next;
    if (list.contains(document.activeElement)) return; // the reader is choosing: the boxes say so already
    list.replaceChildren(
      ...options.map(([own, label]) => {
        const input = el('input', {
          type: 'checkbox',
          value: own,
          checked: chosen.has(own),
          onchange: () => {
            if (input.checked) chosen.add(own);
            else chosen.delete(own);
            onChange(options.map((one) => one[0]).filter((one) => chosen.has(one)));
          },
        });
        return el('label', {}, input, label);
      }),
    );
  };
  return { element, fill };
}

/** A box that is on or off. */
export function toggle(words, value, onChange) {
  const input = el('input', { type: 'checkbox', checked: value, onchange: () => onChange(input.checked) });
  return {
    element: el('label', { class: 'toggle' }, input, words),
    set: (now) => {
      input.checked = now;
    },
  };
}

/** Controls in a row; on a narrow screen they open from a line, so that the first chart is in sight. */
export function toolbar(words, ...controls) {
  const row = el(
    'div',
    { class: 'toolbar', role: 'group', 'aria-label': words },
    ...controls.map((one) => one.element),
  );
  const open = matchMedia('(min-width: 46.01rem)').matches;
  return el('details', { class: 'tools', open }, el('summary', {}, words), row);
}

/** A button that can be pressed when there is something to undo. */
export function undo(words, onClick) {
  const element = el('button', { type: 'button', class: 'undo', disabled: true, onclick: onClick }, words);
  return {
    element,
    set: (useful) => {
      element.disabled = !useful;
    },
  };
}
