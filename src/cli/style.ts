/** Colours, where somebody looks: on a terminal that has them and did not ask for none (https://no-color.org). */
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

export function styleOf(output: Output, env: CliContext['env']): Style {
  const colours = output.isTTY === true && !env.NO_COLOR && env.TERM !== 'dumb';
  const paint =
    ([on, off]: readonly [number, number]): Paint =>
    text =>
      colours && text !== '' ? `\u001b[${on}m${text}\u001b[${off}m` : text;
  const style = Object.entries(CODES).map(([name, codes]) => [name, paint(codes)]);
  return Object.fromEntries(style) as unknown as Style;
}
