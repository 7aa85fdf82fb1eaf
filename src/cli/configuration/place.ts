/** Which `aerostat.toml` counts. What is in it is `read.ts`'s, which is loaded where there is one. */
import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { Environment } from '../../server/address.ts';

const SYSTEM_PATH = '/etc/aerostat/aerostat.toml';

/** Where a configuration is looked for that no option names; the first that is there counts. */
export function configurationPlaces(env: Environment): readonly string[] {
  const own = env.XDG_CONFIG_HOME || join(env.HOME || homedir(), '.config');
  return [join(own, 'aerostat', 'aerostat.toml'), env.AEROSTAT_SYSTEM_CONFIG || SYSTEM_PATH];
}

/** The file that counts: the one that is named, AEROSTAT_CONFIG's, or the one that is found. */
export function configurationPath(asked: string | undefined, env: Environment): string | undefined {
  return asked ?? (env.AEROSTAT_CONFIG || configurationPlaces(env).find(path => existsSync(path)));
}
