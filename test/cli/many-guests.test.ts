/** A file that names 70 guests of one daemon, and one that names many daemons: what that costs the daemons. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { parseAddress } from '../../src/server/address.ts';
import { remoteControl } from '../../src/server/client.ts';
import { type ApiServer, serveApi } from '../../src/server/listen.ts';
import { FakeControl, guestStatus } from '../server/fake-control.ts';
import { guestsToml } from './guests-toml.ts';
import { run, start } from './terminal.ts';

const NAMES = Array.from({ length: 70 }, (_, index) => `vm${index}`);

let directory: string;
let server: ApiServer;
let control: FakeControl;
/** What servers of this process are asked. */
let asked: string[];
let warnings: string[];

const heard = (message: unknown): void => {
  asked.push((message as { request: IncomingMessage }).request.url ?? '');
};
const warned = ({ name }: Error): void => {
  warnings.push(name);
};

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  control = new FakeControl(...NAMES.map(name => guestStatus(name)));
  const address = parseAddress(join(directory, 'api.sock'));
  server = await serveApi(control, { version: '0.1.0', address });
  asked = [];
  warnings = [];
  subscribe('http.server.request.start', heard);
  process.on('warning', warned);
});

afterEach(async () => {
  unsubscribe('http.server.request.start', heard);
  process.off('warning', warned);
  await server.close();
  rmSync(directory, { recursive: true });
});

function fileOf(guests: Parameters<typeof guestsToml>[0]): string {
  const path = join(directory, 'aerostat.toml');
  writeFileSync(path, guestsToml(guests));
  return path;
}

test('the status of 70 guests of one daemon is one request to it', async () => {
  const file = fileOf(NAMES.map(name => ({ name, api: './api.sock' })));
  const { code, out } = await run(['status', '--json', '--config', file]);
  expect(code).toBe(0);
  expect(JSON.parse(out).guests).toHaveLength(70);
  expect(asked).toEqual(['/v1/guests']);
});

test('a page of 70 guests of one daemon takes one of its streams, and leaves the others to others', async () => {
  const file = fileOf(NAMES.map(name => ({ name, api: './api.sock' })));
  const session = start(['dashboard', '--config', file]);
  try {
    await expect.poll(() => session.stdout.text).toContain('#token=');
    await expect.poll(() => control.listeners.size).toBeGreaterThan(0);
    // Another one who looks: before, all 64 streams were taken, and this was refused over and over.
    const other = remoteControl(parseAddress(join(directory, 'api.sock')));
    const events: string[] = [];
    const leave = other.subscribe(({ guest }) => events.push(guest));
    await expect
      .poll(() => {
        control.emit({ type: 'target', guest: 'vm3' });
        return events.length;
      })
      .toBeGreaterThan(0);
    leave();
    expect(asked.filter(url => url === '/v1/events')).toHaveLength(2);
  } finally {
    session.interrupt();
    await session.ended;
  }
  expect(warnings).toEqual([]);
});

test('a file that names many daemons is no cause for warnings of leaks', async () => {
  // There is no daemon at those addresses: each client is made all the same.
  const file = fileOf(NAMES.map(name => ({ name, api: `./${name}.sock` })));
  const { out } = await run(['status', '--json', '--config', file]);
  expect(JSON.parse(out).guests.filter(({ lastError }: { lastError: string }) => lastError)).toHaveLength(70);
  // Warnings are emitted in the next turn.
  await new Promise(resolve => setImmediate(resolve));
  expect(warnings).toEqual([]);
});
