// Elements made without HTML text, so that nothing read from a folder can become markup.

const SVG = 'http://www.w3.org/2000/svg';

/** Sets attributes: `on...` are listeners, `class` and others attributes; false, null and undefined are left out. */
function dress(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value == null) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? '' : value);
  }
  return node;
}

/** An HTML element with attributes and children; children that are not nodes become text. */
export function el(tag, attributes = {}, ...children) {
  const node = dress(document.createElement(tag), attributes);
  node.append(...children.flat().filter((one) => one != null && one !== false));
  return node;
}

/** An SVG element. */
export function svg(tag, attributes = {}, ...children) {
  const node = dress(document.createElementNS(SVG, tag), attributes);
  node.append(...children);
  return node;
}

/** Replaces the children of a node where they differ in text, so that an update without news changes nothing. */
export function refill(node, ...children) {
  const fresh = el('div', {}, ...children);
  if (fresh.innerHTML !== node.innerHTML) node.replaceChildren(...fresh.childNodes);
}

/** Sets the text of a node when it differs. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A link to a view of this page. */
export function link(view, params, ...children) {
  return el('a', { href: address(view, params) }, ...children);
}

/** The address of a view; arrays become repeated parameters. */
export function address(view, params = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    for (const one of [value].flat()) if (one != null && one !== '') query.append(name, one);
  }
  const words = query.toString();
  return `#/${view}${words ? `?${words}` : ''}`;
}

/** A command in monospace with a button that copies it. */
export function command(text) {
  const said = el('span', { class: 'copied', role: 'status' });
  const code = el('code', { tabindex: 0 }, text);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      said.textContent = 'copied';
    } catch {
      // not allowed here: the reader can copy what is now selected
      getSelection().selectAllChildren(code);
      said.textContent = 'selected';
    }
    setTimeout(() => {
      said.textContent = '';
    }, 2000);
  };
  return el('div', { class: 'command' }, code, el('button', { type: 'button', onclick: copy }, 'Copy'), said);
}
