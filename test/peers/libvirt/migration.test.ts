/**
 * A domain moved between two real libvirtds of this machine, which are two hosts to each other: seen on its way, called back,
 * refused, moved with its balloon's target, and followed over the death of the libvirtd that moves it.
 */
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { EXIT } from '../../../src/cli/usage.ts';
import type { MigrationStatus } from '../../../src/control/migrations.ts';
import { build } from '../../cli/built.ts';
import { run, start } from '../../cli/terminal.ts';
import { describePeer } from '../../support/peers.ts';
import { Libvirtd } from './libvirtd.ts';
import { domain, linux, missingForLinux, WHOLE_BALLOON } from './linux-domain.ts';

// A machine under TCG boots, beside whatever else runs.
vi.setConfig({ testTimeout: 180_000, hookTimeout: 180_000 });

const MIB = 2 ** 20;
/** Slower than any test is done: what is sent at this rate is under way for as long as it has to be. */
const SLOW = ['--bandwidth', '1M'];

describePeer('a domain of libvirt that moves', await missingForLinux(), () => {
  const [here, there] = [new Libvirtd(), new Libvirtd()];
  const aerostat = (words: string, at = here) => run([...words.split(' '), '--libvirt', at.uri], { env: {} });
  const begin = (words: readonly string[], at = here) =>
    start(['migrate', 'linux', ...words, '--libvirt', at.uri], { env: {} });
  const names = async (at: Libvirtd): Promise<string[]> =>
    JSON.parse((await aerostat('status --json', at)).out).guests.map(({ name }: { name: string }) => name);
  /** As a command says that did not begin it. */
  const seen = async (at = here): Promise<MigrationStatus | null> =>
    JSON.parse((await aerostat('migrate linux --status --json', at)).out).migration;
  const state = (at: Libvirtd) => at.virsh('domstate', 'linux').trim();

  beforeAll(async () => {
    build();
    await Promise.all([here.start(), there.start()]);
    here.create(domain('linux', WHOLE_BALLOON, await linux(here.directory)));
  });

  afterAll(async () => {
    await here.end();
    await there.end();
  });

  test('runs', async () => {
    // Its driver is at work when its first statistics have come.
    const stats = async () => JSON.parse((await aerostat('stats linux --json')).out).statistics.totalBytes;
    await expect.poll(stats, { timeout: 120_000, interval: 500 }).toBeGreaterThan(128 * MIB);
  });

  test('stays where its destination is none, and the message says what to do', async () => {
    const itself = await aerostat(`migrate linux ${here.uriForOthers}`);
    expect(itself.err).toMatch(/same host.*linux runs on where it was; name another host/);
    expect(itself.code).not.toBe(EXIT.ok);
    const nowhere = await aerostat('migrate linux qemu+unix:///session?socket=/nowhere/libvirt-sock');
    expect(nowhere.err).toMatch(/nowhere.*linux runs on where it was; the source does not reach the libvirt/);
    const monitor = await aerostat('migrate linux tcp:127.0.0.1:4444');
    expect(monitor.err).toMatch(/write its URI, qemu\+ssh:\/\/HOST\/system/);
    expect(state(here)).toBe('running');
  });

  test('is seen on its way by others, keeps no question waiting, and is called back by an interrupt', async () => {
    const session = begin([there.uriForOthers, ...SLOW]);
    await expect.poll(async () => (await seen())?.state.round ?? 0, { timeout: 60_000 }).toBeGreaterThan(0);
    const first = (await seen())?.state;
    expect(first?.totalBytes).toBeGreaterThan(256 * MIB);
    await expect
      .poll(async () => (await seen())?.state.remainingBytes ?? Infinity, { timeout: 60_000 })
      .toBeLessThan(first?.remainingBytes as number);
    expect(await names(here)).toEqual(['linux']);
    // libvirt itself lets a change wait for half a minute then.
    expect((await aerostat('set linux --balloon 32M --force')).err).toMatch(/on its way to another host/);
    expect((await aerostat(`migrate linux ${there.uriForOthers}`)).err).toMatch(/moving already/);
    session.interrupt();
    expect(await session.ended).not.toBe(EXIT.ok);
    expect(await seen()).toBeNull();
    expect(state(here)).toBe('running');
    expect(await names(there)).toEqual([]);
  });

  test('is called back by another command', async () => {
    const session = begin([there.uriForOthers, ...SLOW]);
    await expect.poll(async () => (await seen())?.state.status, { timeout: 60_000 }).toBe('active');
    expect((await aerostat('migrate linux --cancel')).code).toBe(EXIT.ok);
    expect(await session.ended).not.toBe(EXIT.ok);
    expect(session.stderr.text).toMatch(/cancel.*linux runs on where it was/);
    expect(state(here)).toBe('running');
  });

  test('is followed while its libvirtd stands still, which is said', async () => {
    const session = begin([there.uriForOthers, ...SLOW]);
    await expect.poll(async () => (await seen())?.state.status, { timeout: 60_000 }).toBe('active');
    process.kill(here.pid, 'SIGSTOP');
    try {
      await expect.poll(() => session.stderr.text, { timeout: 60_000 }).toMatch(/still moves is not known/);
    } finally {
      process.kill(here.pid, 'SIGCONT');
    }
    await expect.poll(async () => (await seen())?.state.status, { timeout: 60_000 }).toBe('active');
    session.interrupt();
    expect(await session.ended).not.toBe(EXIT.ok);
    expect(state(here)).toBe('running');
  });

  test('keeps its target and its statistics period, and says how it went', async () => {
    expect((await aerostat('set linux --balloon 64M --poll-interval 3s --wait --timeout 60s')).code).toBe(
      EXIT.ok,
    );
    const { code, out, err } = await aerostat(
      `migrate linux ${there.uriForOthers} --downtime-limit 500ms --json`,
    );
    expect({ code, err }).toEqual({ code: EXIT.ok, err: '' });
    const { summary } = JSON.parse(out);
    expect(summary.downtimeMs).toBeGreaterThan(0);
    expect(summary.bytes).toBeGreaterThan(MIB);
    expect(summary.pages * 4096).toBeLessThanOrEqual(summary.bytes);
    expect(summary.rounds).toBeGreaterThan(0);
    expect(await names(here)).toEqual([]);
    expect(await names(there)).toEqual(['linux']);
    expect(there.virsh('dommemstat', 'linux')).toMatch(/^actual 196608$/m);
    expect(there.virsh('dumpxml', 'linux')).toMatch(/<stats period='3'\/>/);
    // Its driver follows its next target there.
    expect((await aerostat('set linux --balloon 32M --wait --timeout 60s', there)).code).toBe(EXIT.ok);
  });

  test('is not said to be moved when its libvirtd is killed in the middle, and stays', async () => {
    const session = begin([here.uriForOthers, ...SLOW], there);
    await expect.poll(async () => (await seen(there))?.state.status, { timeout: 60_000 }).toBe('active');
    await there.kill();
    await expect.poll(() => session.stderr.text, { timeout: 60_000 }).toMatch(/still moves is not known/);
    await there.start();
    expect(await session.ended).not.toBe(EXIT.ok);
    expect(session.stderr.text).toMatch(/went away while it moved linux .*linux runs on where it was/);
    expect(session.stdout.text).toBe('');
    expect(state(there)).toBe('running');
    // The libvirtd of the destination is about to give up what was to come.
    await expect.poll(() => names(here), { timeout: 60_000 }).toEqual([]);
  });

  test('takes its definition along where that is said', async () => {
    const defined = (at: Libvirtd) => at.virsh('list', '--all', '--persistent', '--name').trim();
    const before = domain('still', "<memballoon model='virtio'/>");
    here.define(before);
    here.virsh('start', 'still');
    expect((await aerostat(`migrate still ${there.uriForOthers}`)).code).toBe(EXIT.ok);
    expect([defined(here), defined(there)]).toEqual(['still', '']);
    here.virsh('undefine', 'still');
    there.virsh('destroy', 'still');
    here.define(before);
    here.virsh('start', 'still');
    const current = () =>
      /<currentMemory unit='KiB'>(\d+)/.exec(here.virsh('dumpxml', '--inactive', 'still'))?.[1];
    expect((await aerostat('set still --balloon 64M --force')).code).toBe(EXIT.ok);
    expect(current()).toBe('262144');
    expect((await aerostat('set still --balloon 64M --force --persist')).code).toBe(EXIT.ok);
    expect(current()).toBe('196608');
    expect((await aerostat(`migrate still ${there.uriForOthers} --persist`)).code).toBe(EXIT.ok);
    expect([defined(here), defined(there)]).toEqual(['', 'still']);
    there.virsh('destroy', 'still');
    // One that is not defined has nothing that could be changed.
    expect((await aerostat('set linux --balloon 32M --persist', there)).err).toMatch(/persistent|transient/);
  });
});
