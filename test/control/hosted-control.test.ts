import { expect, test } from 'vitest';
import { hostedControl } from '../../src/control/hosted-control.ts';
import { FakeControl, GIB, guestStatus } from '../server/fake-control.ts';

test('a control of guests alone is completed by this process and this host', async () => {
  const fake = new FakeControl(guestStatus('vm1'));
  const control = hostedControl(fake, '1.2.3');
  expect(await control.daemon()).toMatchObject({ version: '1.2.3', pid: process.pid, gcPauseMaxMs: 0 });
  expect((await control.host()).totalBytes).toBeGreaterThan(0);
  expect(await control.guests()).toEqual(await fake.guests());
  expect(await control.guest('vm1')).toEqual(await fake.guest('vm1'));
  expect(await control.samples()).toEqual(await fake.samples());
  expect(await control.map('vm1', { cells: 2 })).toEqual(fake.memoryMap);
  expect(await control.statistics('vm1', { freshMs: 0 })).toMatchObject({ ageMs: 2 });
  await control.change('vm1', { targetBytes: GIB });
  await control.change('vm1', { discard: 'none' });
  await control.change('vm1', { pollIntervalMs: 7 });
  await control.hint('vm1', { action: 'start' });
  expect(fake.calls.slice(-4)).toEqual([
    ['change', 'vm1', { targetBytes: GIB }],
    ['change', 'vm1', { discard: 'none' }],
    ['change', 'vm1', { pollIntervalMs: 7 }],
    ['hint', 'vm1', { action: 'start' }],
  ]);
  const seen: string[] = [];
  const leave = control.subscribe(({ type }) => seen.push(type));
  fake.emit({ type: 'target' });
  leave();
  fake.emit({ type: 'reset' });
  expect(seen).toEqual(['target']);
});
