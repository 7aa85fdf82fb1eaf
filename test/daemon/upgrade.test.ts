/**
 * A daemon that another process takes the place of while a guest gives pages and takes them back: neither the guest nor its
 * front-end nor a client of the API notices. Where the new process does not come to serve, the old one serves on.
 * How often it is replaced is AEROSTAT_UPGRADES.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Random } from '../../src/guest/random.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { build, program } from '../cli/built.ts';
import { DaemonProcess } from '../support/daemon.ts';
import { TestLoop } from '../support/loop.ts';
import { BusyGuest } from './busy-guest.ts';
import { HandGuest } from './hand-guest.ts';

const UPGRADES_OF_CI = 2;
const UPGRADES = Number(process.env.AEROSTAT_UPGRADES ?? UPGRADES_OF_CI);
const SEED = Number(process.env.AEROSTAT_SEED ?? 1);

/** Far above what a start takes. */
const PATIENCE_MS = 30_000;

let directory: string;
let wrapper: string;
let keeper: ChildProcess;
let daemon: DaemonProcess;
let loop: TestLoop;
let guest: HandGuest;
let busy: BusyGuest;

const dist = (path: string): string => fileURLToPath(new URL(`../../dist/${path}`, import.meta.url));

/** What the daemon is started as anew: the program, after `before`. */
const install = (before = '') =>
  writeFileSync(wrapper, `${before}\nawait import(${JSON.stringify(program)});\n`);

/** The program's modules one by one, of which one does this in the moment at which it says that it serves. */
const insteadOfServing = (what: string) =>
  writeFileSync(
    wrapper,
    `import { Predecessor } from ${JSON.stringify(dist('daemon/predecessor.js'))};
     Predecessor.prototype.serving = async () => { ${what} };
     await import(${JSON.stringify(dist('cli/main.js'))});`,
  );

/** A program that says that it is ready, as far as it is not something else, and then does what is given. */
const pretend = (ready: string, then = '') =>
  writeFileSync(
    wrapper,
    `import { HandOverLink } from ${JSON.stringify(dist('keeping/hand-over.js'))};
     import { OwnedFd } from ${JSON.stringify(dist('sys/fd.js'))};
     import { UnixSocket } from ${JSON.stringify(dist('sys/socket.js'))};
     const link = new HandOverLink(new UnixSocket(new OwnedFd(Number(process.env.AEROSTAT_HAND_OVER))));
     const said = () => link.receive(Infinity);
     await said();
     await said();
     const able = { kind: 'ready', version: '9', stateVersion: 99, guests: ['a', 'b'] };
     await link.send({ ...able, ...${ready} });
     ${then}
     await said();`,
  );

beforeAll(async () => {
  build();
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  wrapper = join(directory, 'aerostat.mjs');
  install();
  const socket = join(directory, 'keeper.sock');
  keeper = spawn(process.execPath, [program, 'keep', socket], { stdio: ['ignore', 'ignore', 'pipe'] });
  // It says so when it listens.
  await once(keeper.stderr!, 'data');
  daemon = await DaemonProcess.start(['a', 'b'], ['--keep', socket], { directory, program: wrapper });
  loop = new TestLoop();
  guest = await HandGuest.connect(daemon.socketOf('a'), { loop, answerMsMax: PATIENCE_MS });
  busy = new BusyGuest(guest, new Random(SEED));
}, 120_000);

afterAll(async () => {
  guest.close();
  loop.close();
  const { pid } = await daemon.control.daemon();
  process.kill(pid, 'SIGTERM');
  await daemon.until(
    () => !isAlive(pid),
    () => daemon.log,
  );
  keeper.kill();
  await once(keeper, 'exit');
  rmSync(directory, { recursive: true, force: true });
});

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

/** Connects to a socket again and again until it is stopped; resolves with what failed. */
function knocking(path: string, everyMs: number): () => Promise<string[]> {
  let stopped = false;
  const failures: string[] = [];
  const work = (async () => {
    while (!stopped) {
      const socket = connect(path);
      await once(socket, 'connect').catch(error => failures.push((error as Error).message));
      socket.destroy();
      await new Promise(resolve => setTimeout(resolve, everyMs));
    }
  })();
  return async () => {
    stopped = true;
    await work;
    return failures;
  };
}

const serves = async () => (await daemon.control.daemon()).pid;

/** The guest goes on, and all that it gave is back at the host. */
async function expectWhole(): Promise<void> {
  const { steps } = busy;
  await expect.poll(() => busy.steps, { timeout: 20_000 }).toBeGreaterThan(steps + 3);
  await busy.stop();
  const status = await daemon.untilGuest('a', ({ pendingBytes }) => pendingBytes === 0);
  expect(status.balloonedBytes).toBe(busy.balloonedPages * PAGE_SIZE);
  expect(status.actualBytes).toBe(busy.balloonedPages * PAGE_SIZE);
  expect(guest.frontend.connected).toBe(true);
  expect(guest.brokenRings).toEqual([]);
  busy.verify();
  expect(guest.residentBytes).toBeLessThanOrEqual(busy.keptBytes);
}

test(
  `a guest goes on while its daemon is replaced ${UPGRADES} times, and its sockets answer all the time (seed ${SEED})`,
  async () => {
    busy.start();
    // Front-ends that come often are kept waiting.
    const stops = [knocking(join(directory, 'api.sock'), 5), knocking(daemon.socketOf('b'), 250)];
    let former = await serves();
    for (let at = 0; at < UPGRADES; at++) {
      const { pid, guests } = await daemon.control.upgrade({ timeoutMs: PATIENCE_MS });
      daemon.replaced = true;
      expect(guests).toBe(2);
      expect(await serves()).toBe(pid);
      expect(pid).not.toBe(former);
      await daemon.until(
        () => !isAlive(former),
        () => daemon.log,
      );
      const { connected, counters } = await daemon.control.guest('a');
      expect({ connected, badRequests: counters.badRequests }, daemon.log).toEqual({
        connected: true,
        badRequests: 0,
      });
      former = pid;
    }
    expect(await Promise.all(stops.map(stop => stop()))).toEqual([[], []]);
    await expectWhole();
    if (UPGRADES > UPGRADES_OF_CI)
      console.info(`${UPGRADES} upgrades: a buffer was out for ${Math.round(busy.stallMsMax)} ms at most`);
  },
  UPGRADES * PATIENCE_MS + 60_000,
);

const failures: [what: string, install: () => void, why: RegExp, timeoutMs?: number][] = [
  ['is missing', () => rmSync(wrapper), /ended with code 1/],
  ['ends at once', () => install('process.exit(3);'), /ended with code 3/],
  [
    'hangs',
    () => install('setInterval(() => {}, 1e6); await new Promise(() => {});'),
    /not answer in time/,
    1500,
  ],
  ['reads an older state version only', () => pretend('{ stateVersion: 0 }'), /up to state version 0/],
  ['does not serve a guest that is there', () => pretend("{ guests: ['a'] }"), /would not serve b/],
  [
    'cannot go on with a guest',
    () => pretend('{}', "await said(); await link.send({ kind: 'failed', message: 'too old for me' });"),
    /too old for me/,
  ],
  [
    'is killed when it has served the guests for a while',
    () =>
      insteadOfServing("await new Promise(r => setTimeout(r, 200)); process.kill(process.pid, 'SIGKILL');"),
    /ended with SIGKILL/,
  ],
];

test.each(failures)(
  'a new process that %s leaves the old one serving',
  async (_, prepare, why, timeoutMs = PATIENCE_MS) => {
    busy.start();
    const former = await serves();
    // Front-ends that come often are kept waiting.
    const stops = [knocking(join(directory, 'api.sock'), 5), knocking(daemon.socketOf('b'), 250)];
    prepare();
    await expect(daemon.control.upgrade({ timeoutMs })).rejects.toThrow(why);
    install();
    expect(await serves()).toBe(former);
    expect(await Promise.all(stops.map(stop => stop()))).toEqual([[], []]);
    await expectWhole();
  },
  120_000,
);
