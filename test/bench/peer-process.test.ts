/** That a bench and its processes part without harm, whichever of them goes first. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { PeerProcess } from '../../src/bench/peer-process.ts';
import { build, program } from '../cli/built.ts';

build();

const SIDE = new URL('../dist/bench/peer-side.js', pathToFileURL(program)).href;
type Said = { readonly kind: 'here' | 'done' } | { readonly kind: 'failed'; readonly message: string };

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

/** A process that runs `script`, in which both functions of peer-side.ts are known. */
function peerOf(
  script: string,
  options?: ConstructorParameters<typeof PeerProcess>[1],
): PeerProcess<string, Said> {
  const path = join(directory, 'peer.mjs');
  writeFileSync(path, `import { tellBench, whenLetGo } from ${JSON.stringify(SIDE)};\n${script}`);
  return new PeerProcess(pathToFileURL(path), options);
}

/** For a script: leaves a word behind that {@link written} finds. */
const WRITE = `
  import { writeFileSync } from 'node:fs';
  const write = word => writeFileSync(new URL('word', import.meta.url), word);`;

const written = (): string => readFileSync(join(directory, 'word'), 'utf8');

const until = async (met: () => boolean) => {
  while (!met()) await new Promise(resolve => setTimeout(resolve, 5));
};

function runs({ pid }: PeerProcess<string, Said>): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

test('what a process says is heard in turn, and it ends when it is let go', async () => {
  const peer = peerOf(`
    process.on('message', word => tellBench({ kind: word }));
    tellBench({ kind: 'here' });
    whenLetGo(() => process.exit());`);
  await peer.hear('here');
  peer.send('done');
  peer.send('here');
  await peer.hear('done');
  await expect(peer.hear('done')).rejects.toMatchObject({ code: 'AEROSTAT_BENCH' });
  await peer.end();
  expect(runs(peer)).toBe(false);
  await peer.end();
});

test('a process that is let go before it listens hears of it when it does', async () => {
  const peer = peerOf(`
    ${WRITE}
    await new Promise(resolve => setTimeout(resolve, 200));
    setInterval(() => {}, 1000);
    whenLetGo(() => {
      write('let go');
      process.exit();
    });`);
  await peer.end();
  expect(written()).toBe('let go');
});

test('a process may speak to a bench that is gone', async () => {
  const peer = peerOf(`
    ${WRITE}
    whenLetGo(() => {
      tellBench({ kind: 'done' });
      setTimeout(() => write('unharmed'), 50);
    });
    tellBench({ kind: 'here' });`);
  await peer.hear('here');
  await peer.end();
  expect(written()).toBe('unharmed');
});

test('what is told to a process that is gone does no harm; its answer is missed', async () => {
  const peer = peerOf("tellBench({ kind: 'failed', message: 'no memory' });");
  await until(() => !runs(peer));
  peer.send('done');
  await expect(peer.hear('done')).rejects.toThrow('no memory');
  await expect(peer.hear('done')).rejects.toThrow('it ended before it had done');
});

test('an interrupt ends the waiting for a process that says nothing', async () => {
  const stop = new AbortController();
  const peer = peerOf('whenLetGo(() => process.exit()); setInterval(() => {}, 1000);', {
    signal: stop.signal,
  });
  const heard = peer.hear('done');
  stop.abort(new Error('enough'));
  await expect(heard).rejects.toThrow('enough');
  await expect(peer.hear('done')).rejects.toThrow('enough');
  await peer.end();
  expect(runs(peer)).toBe(false);
});
