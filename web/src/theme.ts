/** Light or dark, as the machine has it or as the person chose, and the colours of the moment for canvases. */
import { Store } from './store.ts';

export const THEMES = ['auto', 'light', 'dark'] as const;
type Theme = (typeof THEMES)[number];

const KEY = 'aerostat-theme';
const darkMachine = matchMedia('(prefers-color-scheme: dark)');

const stored = (): Theme => THEMES.find(theme => theme === localStorage.getItem(KEY)) ?? 'auto';

/** The chosen theme, and a number that changes whenever colours do. */
export const theme = new Store({ choice: stored(), edition: 0 });

function apply(choice: Theme): void {
  if (choice === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = choice;
  theme.set({ choice, edition: theme.value.edition + 1 });
}

export function startTheme(): void {
  apply(stored());
  darkMachine.addEventListener('change', () => apply(theme.value.choice));
}

export function chooseTheme(choice: Theme): void {
  localStorage.setItem(KEY, choice);
  apply(choice);
}

const probe = document.createElement('i');
probe.hidden = true;

/** The colour that a custom property of style.css has now, as `rgb(…)`. */
export function colour(name: string): string {
  if (!probe.isConnected) document.body.append(probe);
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

/** The same as red, green and blue, 0 to 255. */
export function rgb(name: string): [red: number, green: number, blue: number] {
  const [red = 0, green = 0, blue = 0] = (colour(name).match(/[\d.]+/g) ?? []).map(Number);
  return [red, green, blue];
}
