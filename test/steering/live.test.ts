/**
 * A policy over embedded guests on a real daemon, in a process of its own that is killed in the middle: memory that a burst
 * needs comes from guests that are idle, and a person's target holds. The host's size is the test's, its guests are real.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startGuestProcess } from '../../src/cli/processes.ts';
import type { Control } from '../../src/control/operations.ts';
import type { GuestProcess } from '../../src/embedded/guest-process.ts';
import { parseAddress } from '../../src/server/address.ts';
import { remoteControl } from '../../src/server/client.ts';
import { DaemonProcess } from '../support/daemon.ts';

const MIB = 2 ** 20;
const NAMES = ['a', 'b', 'c'] as const;
const GUEST_BYTES = 256 * MIB;
const HOST_BYTES = 512 * MIB;
const PROGRAM = fileURLToPath(new URL('policy-process.mjs', import.meta.url));
const patience = { timeout: 60_000, interval: 50 };

let daemon: DaemonProcess;
let guests: GuestProcess[];
let policy: ChildProcess;
let steered: Control;
let complaints = '';

async function startPolicy(): Promise<void> {
  const { directory } = daemon;
  const words = [join(directory, 'api.sock'), directory, join(directory, 'policy.sock'), String(HOST_BYTES)];
  policy = spawn(process.execPath, [PROGRAM, ...words], { stdio: ['ignore', 'pipe', 'pipe'] });
  policy.stderr?.setEncoding('utf8').on('data', text => {
    complaints += text;
  });
  if (policy.stdout === null) throw new Error('it has an output');
  await once(policy.stdout, 'data');
}

async function kill(): Promise<void> {
  if (policy.exitCode !== null || policy.signalCode !== null) return;
  policy.kill('SIGKILL');
  await once(policy, 'exit');
}

beforeAll(async () => {
  daemon = await DaemonProcess.start(NAMES, ['--without', 'reporting']);
  steered = remoteControl(parseAddress(join(daemon.directory, 'policy.sock')));
  guests = await Promise.all(
    NAMES.map(name => startGuestProcess({ socketPath: daemon.socketOf(name), memoryBytes: GUEST_BYTES })),
  );
  // They report no free pages: all of their memory is with them, though they use little of it.
  await Promise.all(guests.map(guest => guest.tell({ do: 'touch' })));
  await startPolicy();
}, 60_000);

afterAll(async () => {
  await kill();
  await Promise.all(guests.map(guest => guest.close()));
  await daemon.stop();
  expect(complaints).toBe('');
});

const keeps = async (): Promise<number[]> =>
  (await daemon.control.guests()).map(({ actualBytes }) => GUEST_BYTES - (actualBytes ?? 0));
const held = async (): Promise<number> =>
  (await daemon.control.guests()).reduce((sum, { residentBytes }) => sum + (residentBytes ?? 0), 0);

test('a burst gets memory that lies idle elsewhere, also after the policy was killed, and a person’s target holds', async () => {
  await expect.poll(held, patience).toBeLessThanOrEqual(HOST_BYTES - 64 * MIB);
  expect(Math.min(...(await keeps()))).toBeGreaterThanOrEqual(96 * MIB);

  await kill();
  const lapsed = async () => (await daemon.control.guests()).map(({ targetOwner }) => targetOwner?.lapsed);
  await expect.poll(lapsed, patience).toContain(true);
  await startPolicy();
  await expect.poll(lapsed, patience).not.toContain(true);

  const room = async () => (await keeps())[0];
  for (let used = 16 * MIB; used <= 144 * MIB; used += 16 * MIB) {
    await guests[0].tell({ do: 'use', bytes: 16 * MIB });
    await expect.poll(room, patience).toBeGreaterThanOrEqual(used + 32 * MIB);
  }
  await expect.poll(held, patience).toBeLessThanOrEqual(HOST_BYTES - 32 * MIB);

  await daemon.control.change('b', { targetBytes: 32 * MIB, force: true });
  await expect.poll(async () => (await steered.guestPolicy('b')).mode, patience).toBe('hold');
  expect((await daemon.control.guest('b')).targetBytes).toBe(32 * MIB);
  await steered.resumePolicy('b');
  const owner = async () => (await daemon.control.guest('b')).targetOwner?.by;
  await expect.poll(owner, patience).toBe('policy');

  const status = await steered.policy();
  expect(status).toMatchObject({ state: 'running', settingsError: null });
  expect(status.guests.map(({ oomKills }) => oomKills)).toEqual([0, 0, 0]);
  for (const guest of guests) expect(await guest.tell({ do: 'verify' })).toBeDefined();
}, 180_000);
