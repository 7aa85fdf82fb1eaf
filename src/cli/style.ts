/** Colours, on a terminal that has them and did not ask for none (https://no-color.org). */
import type { CliContext, Output } from './context.ts';

export type Paint = (text: string) => string;

export interface Style {
  readonly bold: Paint;
  readonly dim: Paint;
  readonly red: Paint;
  readonly green: Paint;
  readonly yellow: Paint;
  readonly blue: Paint;
}

const CODES: Readonly<Record<keyof Style, readonly [on: number, off: number]>> = {
  bold: [1, 22],
  dim: [2, 22],
  red: [31, 39],
  green: [32, 39],
  yellow: [33, 39],
  blue: [34, 39],
};

/** Whether the cursor can be moved about there: on a terminal, unless it says that it is a dumb one. */
export const isScreen = (output: Output, env: CliContext['env']): boolean =>
  output.isTTY === true && env.TERM !== 'dumb';

/**
 * Whether more than ASCII can be shown: not where the locale names another character set than UTF-8 (locale(7)). Where it
 * names none, the terminal decides, and those of today can.
 */
export function isUnicode(env: CliContext['env']): boolean {
  const locale = env.LC_ALL || env.LC_CTYPE || env.LANG || '';
  return locale === '' || /utf-?8/i.test(locale);
}

/** Characters that bars and marks are made of. Those of one bar differ from each other without colours as well. */
export interface Glyphs {
  readonly full: string;
  readonly dense: string;
  readonly medium: string;
  readonly light: string;
  readonly mark: string;
  readonly cursor: string;
  readonly arrows: string;
  readonly falling: string;
  readonly rising: string;
  readonly atLeast: string;
}

export const glyphsOf = (env: CliContext['env']): Glyphs =>
  isUnicode(env)
    ? {
        ...{ full: '█', dense: '▓', medium: '▒', light: '░' },
        ...{ mark: '›', cursor: '█', arrows: '↑↓', falling: '▾', rising: '▴', atLeast: '≥' },
      }
    : {
        ...{ full: '#', dense: '=', medium: '-', light: '.' },
        ...{ mark: '>', cursor: '_', arrows: 'up/down', falling: 'v', rising: '^', atLeast: '>=' },
      };

export function styleOf(output: Output, env: CliContext['env']): Style {
  const colours = isScreen(output, env) && !env.NO_COLOR;
  const paint =
    ([on, off]: readonly [number, number]): Paint =>
    text =>
      colours && text !== '' ? `\u001b[${on}m${text}\u001b[${off}m` : text;
  const style = Object.entries(CODES).map(([name, codes]) => [name, paint(codes)]);
  return Object.fromEntries(style) as unknown as Style;
}
