/** What a command leaves when its process ends in the middle of it. */
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { CliContext, Output } from '../../src/cli/context.ts';
import { targetBar } from '../../src/cli/progress.ts';
import { inScratch } from '../../src/cli/scratch.ts';
import { Screen } from '../../src/cli/screen.ts';
import { GIB, guestStatus } from '../server/fake-control.ts';
import { Captured } from './terminal.ts';

const NEVER = new Promise<never>(() => {});

/** What `begin` wants to be done when the process ends. */
function atExit(begin: () => void): readonly ((code: number) => void)[] {
  const before = process.listeners('exit');
  begin();
  return process.listeners('exit').filter(listener => !before.includes(listener));
}

function endProcess(wishes: ReturnType<typeof atExit>): void {
  for (const wish of wishes) {
    wish(0);
    process.removeListener('exit', wish);
  }
}

test('a directory is gone when its command is over, however it ended', async () => {
  let path = '';
  const over = inScratch('test', async directory => {
    path = directory;
    writeFileSync(join(directory, 'file'), '');
    throw new Error('it failed');
  });
  expect(existsSync(path)).toBe(true);
  await expect(over).rejects.toThrow('it failed');
  expect(existsSync(path)).toBe(false);
});

test('a directory is gone when the process ends before its command', () => {
  let path = '';
  const wishes = atExit(() => {
    void inScratch('test', directory => {
      path = directory;
      return NEVER;
    });
  });
  expect(existsSync(path)).toBe(true);
  endProcess(wishes);
  expect(existsSync(path)).toBe(false);
});

test('a screen is left, and its cursor shown, when the process ends before its command', () => {
  const terminal = new Captured(80);
  endProcess(
    atExit(() => {
      new Screen(terminal as unknown as Output);
    }),
  );
  expect(terminal.text).toMatch(/\[\?25l.*\[\?25h.*\[\?1049l/s);
});

test('a bar gives the cursor back when the process ends before its command', async () => {
  const terminal = new Captured(80);
  const bar = await targetBar({ stderr: terminal as unknown as Output, env: {} } as CliContext, 'vm1', GIB);
  endProcess(atExit(() => bar.update(guestStatus('vm1', { actualBytes: 0 }))));
  expect(terminal.text).toMatch(/\[\?25l.*\[\?25h/s);
});

test('nothing is left to be done at the end of the process once a command is over', async () => {
  const before = process.listenerCount('exit');
  await inScratch('test', async () => {});
  const stderr = new Captured(80) as unknown as Output;
  new Screen(stderr).close();
  const bar = await targetBar({ stderr, env: {} } as CliContext, 'vm1', GIB);
  bar.update(guestStatus('vm1', { actualBytes: 0 }));
  bar.stop();
  expect(process.listenerCount('exit')).toBe(before);
});
