/** What a daemon loads before its guests are served, for they wait for all of it when it takes them over. */
import { readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { lateLog } from '../../src/cli/late-log.ts';
import type { LogRecord } from '../../src/hosting/options.ts';

const src = fileURLToPath(new URL('../../src', import.meta.url));

/** Packages that a module loads, with all modules that it loads; not what is loaded later. */
function packagesOf(entry: string): string[] {
  const seen = new Set<string>();
  const packages = new Set<string>();
  const walk = (path: string): void => {
    if (seen.has(path)) return;
    seen.add(path);
    const text = readFileSync(path, 'utf8');
    for (const [, name] of text.matchAll(/^(?:import|export)(?! type)[^;']*?from '([^']+)';/gm)) {
      if (name.startsWith('.')) walk(resolve(dirname(path), name));
      else if (!name.startsWith('node:')) packages.add(name);
    }
  };
  walk(join(src, entry));
  return [...packages].sort();
}

test.each(['cli/main.ts', 'cli/commands/device.ts', 'cli/serve.ts', 'daemon/daemon.ts'])(
  '%s loads no package but the parser of words',
  entry => {
    expect(packagesOf(entry).filter(name => name !== 'commander')).toEqual([]);
  },
);

test('guests that are named by words wait for no parser of configurations (failed before: two packages)', () => {
  const text = readFileSync(join(src, 'cli/commands/device.ts'), 'utf8');
  const named = text.indexOf('if (hasSockets) return undefined;');
  expect(named).toBeGreaterThan(0);
  expect(text.indexOf("import('../configuration/read.ts')")).toBeGreaterThan(named);
});

test('what is logged before the log is loaded is written in order as soon as it is, and once', async () => {
  const written: string[] = [];
  let load: (log: (record: LogRecord) => void) => void = () => {};
  const { log, open } = lateLog(() => new Promise(resolve => (load = resolve)));
  const say = (message: string) => log({ level: 'info', message });
  say('a');
  const opened = Promise.all([open(), open()]);
  say('b');
  expect(written).toEqual([]);
  load(({ message }) => written.push(message));
  await opened;
  say('c');
  await open();
  expect(written).toEqual(['a', 'b', 'c']);
});
