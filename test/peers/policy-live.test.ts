/**
 * One policy over five real Linux guests of one host that has less memory than they want: three of User Mode Linux and one of
 * QEMU's generic device on our daemon, one of QEMU with QEMU's own balloon behind its monitor. The host's size is a setting.
 * A burst, a policy that is killed, a guest that stands still, a person who sets a target, a reservation, a recording, and in
 * the end silence. Times are counted in the policy's own periods.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import type { GuestPolicy, GuestPolicyDecision, PolicyStatus } from '../../src/control/policy.ts';
import type { LinuxGuest } from '../../src/peers/linux/guest.ts';
import { freeMemory, useMemory } from '../../src/peers/linux/workloads.ts';
import { missingPrograms } from '../../src/peers/programs.ts';
import { queryBalloon } from '../../src/peers/qemu/qmp-commands.ts';
import { UmlGuest } from '../../src/peers/uml/guest.ts';
import { findUmlKernels, umlComplaint } from '../../src/peers/uml/kernel.ts';
import { build } from '../cli/built.ts';
import { run, start } from '../cli/terminal.ts';
import { DaemonProcess } from '../support/daemon.ts';
import { describePeer } from '../support/peers.ts';
import { PolicyProcess } from '../support/policy.ts';
import { bootGenericDevice, GENERIC_DEVICE_SINCE, missingForGenericDevice } from './front-ends/front-ends.ts';
import { checksummedFiles, verifyFiles } from './linux/checked-workloads.ts';
import { requirePrivateKernel } from './qemu/cloud-kernel.ts';
import { requireQemu } from './qemu/installed.ts';
import { QemuGuest } from './qemu/qemu-guest.ts';
import type { VhostUserGuest } from './qemu/vhost-user-guest.ts';

// Emulated processors on a busy machine.
vi.setConfig({ testTimeout: 300_000, hookTimeout: 300_000 });

const MIB = 2 ** 20;
const KERNEL = 'linux-6.12';
const PERIOD_MS = 1000;
/** All five want 1.6 GiB, and hold more than this when the policy comes. */
const HOST_BYTES = 1024 * MIB;
const RESERVE_BYTES = 64 * MIB;
/** What each of the five may have of it where all want the same. */
const PART_BYTES = (HOST_BYTES - RESERVE_BYTES) / 5;
const UML_BYTES = 384 * MIB;
const QEMU_BYTES = 256 * MIB;
const ON_DAEMON = ['a', 'b', 'c', 'd'] as const;
const EMULATED = ['d', 'e'];
/** What a guest that bursts is to have beyond what it uses: the policy's head-room, less what the kernel does meanwhile. */
const HEADROOM_BYTES = 64 * MIB;

const missing =
  umlComplaint(findUmlKernels()) ?? missingPrograms('busybox') ?? missingForGenericDevice(KERNEL);

describePeer('a policy over real guests of all kinds', missing, () => {
  const guests = new Map<string, LinuxGuest>();
  let daemon: DaemonProcess;
  let policy: PolicyProcess;
  let qmpPath: string;

  const guest = (name: string): LinuxGuest => {
    const found = guests.get(name);
    if (found === undefined) throw new Error(`no guest ${name}`);
    return found;
  };
  const each = (act: (guest: LinuxGuest, name: string) => Promise<unknown>) =>
    Promise.all([...guests].map(([name, one]) => act(one, name)));

  async function boot(name: string): Promise<LinuxGuest> {
    if (name === 'e') {
      const machine = { memoryBytes: QEMU_BYTES, deflateOnOom: true, kernel: requirePrivateKernel(KERNEL) };
      const qemu = await QemuGuest.boot({ ...machine, qemu: requireQemu(GENERIC_DEVICE_SINCE) });
      ({ qmpPath } = qemu.qemu);
      return qemu;
    }
    const socket = daemon.socketOf(name);
    return EMULATED.includes(name)
      ? bootGenericDevice(KERNEL, { memoryBytes: QEMU_BYTES, socket })
      : UmlGuest.boot({ memoryBytes: UML_BYTES, sockets: [socket] });
  }

  const settings = (onSilence: 'keep' | 'release') => `[sources]
daemons = ["./api.sock"]
[policy]
period = "${PERIOD_MS}ms"
memory = "${HOST_BYTES / MIB}M"
reserve = "${RESERVE_BYTES / MIB}M"
on-silence = "${onSilence}"
[policy.defaults]
min = "64M"
[guests.e]
qmp = "${qmpPath}"
`;

  beforeAll(async () => {
    build();
    daemon = await DaemonProcess.start(ON_DAEMON, ['--without', 'reporting']);
    const boots = await Promise.allSettled(
      [...ON_DAEMON, 'e'].map(async name => guests.set(name, await boot(name))),
    );
    for (const one of boots) if (one.status === 'rejected') throw one.reason;
    await each((one, name) => checksummedFiles(one, (EMULATED.includes(name) ? 4 : 16) * MIB));
    // They use little of their memory and have touched most of it: nothing of that is with the host.
    await each(async (one, name) => {
      await useMemory(one, (EMULATED.includes(name) ? 32 : 256) * MIB);
      await freeMemory(one);
    });
    policy = new PolicyProcess(daemon.directory, settings('keep'));
    await policy.start();
  });

  afterAll(async () => {
    await policy?.end();
    await each(async one => {
      await one.kill();
      await one.exited;
    });
    await daemon?.stop();
  });

  const decisionOf = ({ guests }: PolicyStatus, name: string): GuestPolicyDecision | null =>
    guests.find(one => one.name === name)?.decision ?? null;
  const has = (decision: GuestPolicyDecision | null): number =>
    (decision?.memoryBytes ?? 0) - (decision?.actualBytes ?? 0);
  /** What these are to keep in the end. */
  const want = (status: PolicyStatus, ...names: string[]): number =>
    names.reduce((sum, name) => sum + (decisionOf(status, name)?.wantBytes ?? 0), 0);
  const haveTogether = ({ guests }: PolicyStatus): number =>
    guests.reduce((sum, { decision }) => sum + has(decision), 0);
  const cli = (...words: string[]) =>
    run(words, {
      env: {
        XDG_RUNTIME_DIR: daemon.directory,
        AEROSTAT_RUN_DIR: daemon.directory,
        AEROSTAT_API: join(daemon.directory, 'api.sock'),
        AEROSTAT_POLICY_API: policy.api,
      },
    });

  /** The guest uses so much more; returns after how many periods, from when the policy saw it, it had room again. */
  async function burst(name: string, bytes: number): Promise<number> {
    const used = decisionOf(await policy.control.policy(), name)?.usedBytes ?? 0;
    const work = useMemory(guest(name), bytes);
    const seen = await policy.until(status => (decisionOf(status, name)?.usedBytes ?? 0) >= used + bytes / 2);
    const got = await policy.until(status => {
      const decision = decisionOf(status, name);
      return has(decision) >= (decision?.usedBytes ?? 0) + HEADROOM_BYTES;
    });
    await work;
    const apartMs = (decisionOf(got, name)?.timeMs ?? 0) - (decisionOf(seen, name)?.timeMs ?? 0);
    // A policy that is starved decides late, one that is woken often: either way two of its turns are enough.
    return Math.min(Math.ceil(apartMs / PERIOD_MS), got.decisions - seen.decisions);
  }

  test('takes what lies idle, for a reservation too, until all fit the host', async () => {
    // A lack of less than 16 MiB is not worth a move to the policy; a need may have some of the reserve.
    const hasItsNeed = ({ decision }: GuestPolicy): boolean =>
      has(decision) >= (decision?.nowBytes ?? Number.POSITIVE_INFINITY) - 24 * MIB;
    await policy.until(
      status =>
        status.guests.length === guests.size &&
        // Less than all have: of a guest that the policy sees later than the others they may keep its part for a while, as
        // long as the host has memory.
        haveTogether(status) < 3 * UML_BYTES + 2 * QEMU_BYTES - HOST_BYTES / 4 &&
        (status.budget?.availableBytes ?? 0) >= RESERVE_BYTES / 2 &&
        status.guests.every(hasItsNeed),
    );
    const { code, out } = await cli('policy', 'reserve', '64M', '--for', 'next');
    expect([code, out]).toEqual([0, '64M reserved for next: free\n']);
    const free = RESERVE_BYTES + 64 * MIB;
    await policy.until(({ budget }) => (budget?.availableBytes ?? 0) >= free);
    expect((await cli('policy', 'release', 'next')).code).toBe(0);
  });

  test('gives it to a guest that bursts in two periods, goes on after kill -9, and leaves a person’s target alone', async () => {
    const before = await policy.control.policy();
    // A little less than the part that each has by then, or is on its way to.
    const held = (decisionOf(before, 'b')?.memoryBytes ?? 0) - PART_BYTES + 8 * MIB;
    expect((await cli('set', 'b', '--balloon', String(held), '--force')).code).toBe(0);
    await policy.until(({ guests }) => guests.some(({ name, mode }) => name === 'b' && mode === 'hold'));
    const first = await burst('a', 88 * MIB);

    await policy.end();
    const targets = async () => (await daemon.control.guests()).map(({ targetBytes }) => targetBytes);
    const left = await targets();
    const owners = async () => (await daemon.control.guests()).map(({ targetOwner }) => targetOwner);
    const lapsed = (name: string) => (name === 'b' ? ['person', false] : ['policy', true]);
    await expect
      .poll(async () => (await owners()).map(owner => [owner?.by, owner?.lapsed]), { timeout: 60_000 })
      .toEqual(ON_DAEMON.map(lapsed));
    expect((await cli('policy', 'status')).out).toMatch(/^SILENT; .*\n.*answers no more; .*\(keep\)\n/);
    expect((await cli('status')).err).toMatch(/set the targets of a, c, d is silent/);
    expect((await cli('status', '--qmp', `e=${qmpPath}`)).err).toMatch(/set the targets of e is silent/);
    expect(await targets()).toEqual(left);

    await policy.start();
    const again = await policy.control.policy();
    expect(again.guests.find(({ name }) => name === 'b')?.mode).toBe('hold');
    // Nothing is taken from the guest for which memory was fetched before.
    expect((await targets())[0]).toBeLessThanOrEqual((left[0] ?? 0) + 16 * MIB);
    expect((await daemon.control.guest('b')).targetBytes).toBe(held);

    // The guest that stands still holds up no other, and loses nothing by it.
    const { pid } = guest('d') as VhostUserGuest;
    process.kill(pid, 'SIGSTOP');
    let second: number;
    try {
      second = await burst('a', 64 * MIB);
    } finally {
      process.kill(pid, 'SIGCONT');
    }
    expect(Math.min(first, second)).toBeLessThanOrEqual(2);
    const after = await policy.control.policy();
    expect(want(after, 'a') - want(before, 'a')).toBeGreaterThanOrEqual(64 * MIB);
    expect(want(after, 'c', 'd', 'e')).toBeLessThanOrEqual(3 * PART_BYTES - 16 * MIB);
    await policy.until(status => (decisionOf(status, 'd')?.statisticsAgeMs ?? 1e9) <= 2 * PERIOD_MS);

    expect((await daemon.control.guest('b')).targetBytes).toBe(held);
    expect((await cli('policy', 'resume', 'b')).code).toBe(0);
    await expect.poll(async () => (await owners())[1]?.by, { timeout: 60_000 }).toBe('policy');
  });

  test('is recorded and replayed', async () => {
    const path = join(daemon.directory, 'night.jsonl');
    const env = { XDG_RUNTIME_DIR: daemon.directory, XDG_STATE_HOME: daemon.directory };
    const api = join(daemon.directory, 'api.sock');
    const recording = start(['policy', 'record', path, api], { env });
    const lines = () => {
      try {
        return readFileSync(path, 'utf8').split('\n').length - 1;
      } catch {
        return 0;
      }
    };
    await expect.poll(lines, { timeout: 60_000 }).toBeGreaterThanOrEqual(2);
    recording.interrupt();
    await recording.ended;
    const { code, out } = await cli('policy', 'replay', path, '--json');
    expect(code).toBe(0);
    expect(JSON.parse(out).samples).toBeGreaterThanOrEqual(2);
  });

  test('releases all targets when it is killed and its settings say so, also of the guest that only QEMU knows', async () => {
    policy.configure(settings('release'));
    expect((await cli('policy', 'reload')).code).toBe(0);
    await policy.until(({ onSilence, decisions }) => onSilence === 'release' && decisions > 0);
    // Orders carry the rule: those in force are renewed with it.
    const { decisions } = await policy.control.policy();
    await policy.until(status => status.decisions > decisions + 1);
    await policy.end();
    const free = async () => (await daemon.control.guests()).map(({ targetBytes }) => targetBytes);
    await expect.poll(free, { timeout: 60_000 }).toEqual(ON_DAEMON.map(() => 0));
    // The guard has the second monitor; QEMU is asked at its first.
    const { qmp, memoryBytes } = guest('e') as QemuGuest;
    await expect.poll(() => queryBalloon(qmp), { timeout: 60_000 }).toBe(memoryBytes);
    const said = async () => (await cli('policy', 'status')).out;
    await expect.poll(said, { timeout: 60_000 }).toMatch(/^e: all memory is its own again$/m);
  });

  test('has killed nothing, and every guest has what it had', async () => {
    await each(verifyFiles);
    const kills = await each(async one => (await one.vmstat()).oom_kill);
    expect(kills).toEqual(kills.map(() => 0));
  });
});
