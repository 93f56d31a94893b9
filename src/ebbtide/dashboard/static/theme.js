// Light or dark: as the system says, unless the reader chose one. Loaded before the page is drawn, so it never flashes.
'use strict';
(() => {
  const KEY = 'ebbtide-theme';
  const stored = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null;
    }
  };
  const system = matchMedia('(prefers-color-scheme: dark)');
  const apply = () => {
    const chosen = stored();
    const dark = chosen ? chosen === 'dark' : system.matches;
    document.documentElement.dataset.theme = dark ? 'dark' : 'light';
    dispatchEvent(new Event('themechange'));
  };
  const label = (button) => {
    const dark = document.documentElement.dataset.theme === 'dark';
    button.textContent = dark ? 'Light' : 'Dark';
    button.setAttribute('aria-label', `Use ${dark ? 'light' : 'dark'} colours`);
  };
  apply();
  system.addEventListener('change', apply);
  addEventListener('DOMContentLoaded', () => {
    const button = document.getElementById('theme');
    label(button);
    addEventListener('themechange', () => label(button));
    button.addEventListener('click', () => {
      const next = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark';
      try {
        localStorage.setItem(KEY, next);
      } catch {
        /* storage may be forbidden: the choice then lasts no longer */
      }
      document.documentElement.dataset.theme = next;
      dispatchEvent(new Event('themechange'));
    });
  });
})();
