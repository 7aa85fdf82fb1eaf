/**
 * What a real libvirtd tells of itself: domains that start, end, crash and are ballooned by the hand of another are seen long
 * before the next look, which is an hour away here. libvirtd is killed and started again in the middle.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import { LIBVIRT_COMMAND_LINE } from '../../../src/cli/processes.ts';
import type { GuestEvent } from '../../../src/control/contract.ts';
import { LibvirtConnection } from '../../../src/libvirt/connection.ts';
import { LibvirtControl } from '../../../src/libvirt/libvirt-control.ts';
import { build } from '../../cli/built.ts';
import { describePeer } from '../../support/peers.ts';
import { Libvirtd } from './libvirtd.ts';
import { domain, linux, missingForLinux, WHOLE_BALLOON } from './linux-domain.ts';

// A machine under TCG starts, beside whatever else runs.
vi.setConfig({ testTimeout: 180_000, hookTimeout: 180_000 });

const MIB = 2 ** 20;
const PERIOD_MS = 3_600_000;
const PATIENCE = { timeout: 60_000 } as const;

describePeer('events of libvirt', await missingForLinux(), () => {
  const libvirtd = new Libvirtd();
  const opened: LibvirtControl[] = [];

  beforeAll(async () => {
    build();
    await libvirtd.start();
    libvirtd.create(domain('first', WHOLE_BALLOON, await linux(libvirtd.directory)));
  });

  afterEach(() => {
    for (const control of opened.splice(0)) control.close();
  });

  afterAll(() => libvirtd.end());

  async function world() {
    const connection = new LibvirtConnection({ uri: libvirtd.uri, commandLine: LIBVIRT_COMMAND_LINE });
    const control = new LibvirtControl(connection, { pollMs: PERIOD_MS });
    opened.push(control);
    await control.reached();
    const events: GuestEvent[] = [];
    control.subscribe(event => events.push(event));
    const seen = () => events.map(({ guest, type }) => `${guest} ${type}`);
    return { control, events, seen };
  }

  test('tell of domains that start, stand still, go on, crash and end, without a look of ours', async () => {
    const { events, seen } = await world();
    const states = () => events.filter(({ type }) => type === 'state').length;
    libvirtd.create(domain('second', "<memballoon model='virtio'/>"));
    await expect.poll(seen, PATIENCE).toContain('second connected');
    libvirtd.virsh('suspend', 'second');
    await expect.poll(states, PATIENCE).toBe(1);
    libvirtd.virsh('resume', 'second');
    await expect.poll(states, PATIENCE).toBe(2);
    libvirtd.virsh('reset', 'second');
    libvirtd.virsh('destroy', 'second');
    await expect.poll(seen, PATIENCE).toContain('second disconnected');
    libvirtd.create(domain('third', "<memballoon model='none'/>"));
    await expect.poll(seen, PATIENCE).toContain('third connected');
    process.kill(qemuOf('third'), 'SIGKILL');
    await expect.poll(seen, PATIENCE).toContain('third disconnected');
  });

  test('tell when a guest has followed its target, and when another set it', async () => {
    const { control, events, seen } = await world();
    const stats = async () => (await control.statistics('first')).statistics.totalBytes;
    await expect.poll(stats, { ...PATIENCE, interval: 500 }).toBeGreaterThan(128 * MIB);
    await control.change('first', { memoryBytes: 224 * MIB, force: true });
    await expect.poll(seen, PATIENCE).toContain('first target-reached');
    libvirtd.virsh('setmem', 'first', '160M', '--live');
    await expect.poll(() => events.filter(({ detail }) => detail.by === 'another'), PATIENCE).toHaveLength(1);
  });

  test('go on when libvirtd was killed and has come back', async () => {
    const { control, seen } = await world();
    await libvirtd.kill();
    // The connection that breaks is told of as well.
    await expect.poll(seen, PATIENCE).toContain('first disconnected');
    await libvirtd.start();
    await expect.poll(async () => (await control.guests())[0].lastError, PATIENCE).toBeNull();
    libvirtd.create(domain('fourth', "<memballoon model='virtio'/>"));
    await expect.poll(seen, PATIENCE).toContain('fourth connected');
    libvirtd.virsh('destroy', 'fourth');
    await expect.poll(seen, PATIENCE).toContain('fourth disconnected');
  });

  /** Of a domain's QEMU. */
  const qemuOf = (name: string): number =>
    Number(readFileSync(join(libvirtd.directory, `run/libvirt/qemu/run/${name}.pid`), 'latin1'));
});
