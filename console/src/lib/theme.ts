import { effect, signal } from '@preact/signals';

export type Theme = 'system' | 'light' | 'dark';
const KEY = 'tollgate.theme';
const THEMES: readonly Theme[] = ['system', 'light', 'dark'];

/** The choice of the operator; `system` follows the browser. */
export const theme = signal<Theme>(stored());

const prefersDark = matchMedia('(prefers-color-scheme: dark)');
const systemIsDark = signal(prefersDark.matches);
prefersDark.addEventListener('change', ({ matches }) => {
  systemIsDark.value = matches;
});

/** Applies the theme to the document, now and at each change. */
export function applyTheme(): void {
  effect(() => {
    document.documentElement.dataset.theme = isDark() ? 'dark' : 'light';
  });
}

export function isDark(): boolean {
  return theme.value === 'dark' || (theme.value === 'system' && systemIsDark.value);
}

export function nextTheme(): void {
  const next = THEMES[(THEMES.indexOf(theme.value) + 1) % THEMES.length] ?? 'system';
  theme.value = next;
  try {
    localStorage.setItem(KEY, next);
  } catch {
    // The browser forbids storage: the theme applies until the page is closed.
  }
}

function stored(): Theme {
  try {
    return THEMES.find((value) => value === localStorage.getItem(KEY)) ?? 'system';
  } catch {
    return 'system';
  }
}
