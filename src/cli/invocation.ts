/** How a person runs this program, for command lines that messages tell them to type: in a clone it is on no PATH. */
import { basename, delimiter, dirname, isAbsolute, relative } from 'node:path';

const NAME = 'aerostat';

/** `script` is the program's file as it was started (`process.argv[1]`). */
export function invocationOf(
  script: string | undefined,
  searchPath: string | undefined,
  cwd: string,
): string {
  if (script === undefined || basename(script) !== NAME || !isAbsolute(script)) return NAME;
  if ((searchPath ?? '').split(delimiter).includes(dirname(script))) return NAME;
  const near = relative(cwd, script);
  if (near.startsWith('..')) return script;
  return near === NAME ? `./${NAME}` : near;
}
