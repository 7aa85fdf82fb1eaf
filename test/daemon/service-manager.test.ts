/**
 * A daemon whose guests a service manager keeps, which stores descriptors as systemd does: killed, ended, and started again with
 * what was stored, and upgraded. The manager is a stand-in: no systemd runs in a test.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Random } from '../../src/guest/random.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { build } from '../cli/built.ts';
import { DaemonProcess } from '../support/daemon.ts';
import { TestLoop } from '../support/loop.ts';
import { ServiceManager } from '../support/service-manager.ts';
import { BusyGuest } from './busy-guest.ts';
import { HandGuest } from './hand-guest.ts';

/** The guest's file, the front-end's socket, its channel for our messages, its memory, and three of each of five rings. */
const DESCRIPTORS = 4 + 3 * 5;

let directory: string;
let manager: ServiceManager;
let serving: NodeJS.Timeout;

beforeAll(() => {
  build();
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  manager = new ServiceManager(join(directory, 'notify.sock'));
  serving = setInterval(() => manager.serve(), 2);
});

afterAll(() => {
  clearInterval(serving);
  manager.close();
  rmSync(directory, { recursive: true, force: true });
});

/** As the unit does, with what is stored as descriptors from 3 on. */
const start = (guests: readonly string[] = ['a'], words: readonly string[] = []) => {
  manager.serve();
  return DaemonProcess.start(guests, words, {
    directory,
    inherits: manager.stored.map(({ fd }) => fd),
    env: {
      ...manager.environment(),
      AEROSTAT_KEEP: 'systemd',
      STATE_DIRECTORY: join(directory, 'state'),
    },
    listens: true,
  });
};

const firstLine = (text: string): string => text.split('\n')[0];

/** Whose the target is of a guest that a policy steers. */
const STEERED = { targetBytes: 4 * 2 ** 20, targetOwner: { by: 'policy', lapsed: false } };

test('a guest goes on while the manager starts its daemon again, and while it is upgraded', async () => {
  let daemon = await start();
  const loop = new TestLoop();
  const guest = await HandGuest.connect(daemon.socketOf('a'), { loop });
  const busy = new BusyGuest(guest, new Random(1));
  busy.start();
  await daemon.control.change('a', {
    targetBytes: STEERED.targetBytes,
    lease: { forMs: 3_600_000, onSilence: 'release' },
    force: true,
  });
  // It is on disk, however slow that is.
  const ofA = join(directory, 'state/guests/a.json');
  await expect.poll(() => existsSync(ofA) && readFileSync(ofA, 'utf8')).toContain('"lease":{');
  const told: string[][] = [];
  for (const signal of ['SIGKILL', 'SIGTERM', 'SIGKILL'] as const) {
    const { steps } = busy;
    await expect.poll(() => busy.steps, { timeout: 20_000 }).toBeGreaterThan(steps + 3);
    await expect
      .poll(() => ({ stored: manager.names.length, told: manager.told.map(firstLine) }))
      .toEqual({ stored: DESCRIPTORS, told: ['READY=1'] });
    await daemon.end(signal);
    manager.serve();
    told.push(manager.told.splice(0));
    daemon = await start();
    // The lease goes on, which is in the state directory alone.
    expect(await daemon.control.guest('a')).toMatchObject({ connected: true, ...STEERED });
  }
  // Each says when it serves, and when it is about to end.
  expect(told.map(lines => lines.map(firstLine))).toEqual([
    ['READY=1'],
    ['READY=1', 'STOPPING=1'],
    ['READY=1'],
  ]);
  const { pid } = await daemon.control.upgrade({ timeoutMs: 30_000 });
  daemon.replaced = true;
  const { steps } = busy;
  await expect.poll(() => busy.steps, { timeout: 20_000 }).toBeGreaterThan(steps + 3);
  await busy.stop();
  const status = await daemon.untilGuest('a', ({ pendingBytes }) => pendingBytes === 0);
  expect(status).toMatchObject({
    connected: true,
    ...STEERED,
    balloonedBytes: busy.balloonedPages * PAGE_SIZE,
    actualBytes: busy.balloonedPages * PAGE_SIZE,
  });
  busy.verify();
  expect(guest.frontend.connected).toBe(true);
  expect(manager.suppressed).toBe(0);
  // The new process is the main one from then on, and the old one does not say that the service ends.
  await expect
    .poll(() => ({ ended: daemon.ended, told: manager.told.slice(1) }))
    .toEqual({ ended: true, told: [`READY=1\nMAINPID=${pid}`] });
  // What the front-end brought goes with it.
  guest.close();
  await daemon.untilGuest('a', ({ connected }) => !connected);
  await expect.poll(() => manager.names).toEqual(['a/0']);
  loop.close();
  process.kill(pid, 'SIGTERM');
  const isGone = () => {
    try {
      return !process.kill(pid, 0);
    } catch {
      return true;
    }
  };
  await daemon.until(isGone, () => daemon.log);
  expect(daemon.log).not.toContain('not taken over');
}, 300_000);

test('a daemon that is started without the store lets go of what is there, and SIGHUP as soon as it answers has it read guests and policy anew (failed before: the policy alone was read, and the manager was not told)', async () => {
  expect(manager.names).toEqual(['a/0']);
  manager.told.splice(0);
  const config = join(directory, 'aerostat.toml');
  const write = (period: string, ...guests: string[]) =>
    writeFileSync(
      config,
      `[device]\npolicy = true\n[policy]\nperiod = "${period}"\n` +
        guests.map(name => `[guests.${name}]\nsocket = "${name}.sock"\n`).join(''),
    );
  write('10s', 'a');
  const daemon = await start([], ['--keep', 'none', '--config', config]);
  await expect.poll(() => manager.names).toEqual([]);
  expect(daemon.log).toContain('a was kept by the service manager, and is let go');
  write('20s', 'a', 'b');
  daemon.child.kill('SIGHUP');
  await expect
    .poll(async () => ({
      told: manager.told.map(text => text.replace(/=\d{6,}$/, '=NUMBER')),
      guests: (await daemon.control.guests()).map(({ name }) => name),
      periodMs: (await daemon.control.policy()).periodMs,
    }))
    .toEqual({
      told: [expect.stringMatching(/^READY=1\nMAINPID=/), 'RELOADING=1\nMONOTONIC_USEC=NUMBER', 'READY=1'],
      guests: ['a', 'b'],
      periodMs: 20_000,
    });
  await daemon.end();
}, 120_000);
