import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { processesOfGroup } from '../../../src/peers/process-group.ts';
import { UmlGuest, type UmlGuestOptions } from '../../../src/peers/uml/guest.ts';
import { killMarked, processesMarked, startOwner } from '../../support/owner.ts';
import { describeLinux } from '../../support/peers.ts';

const MIB = 2 ** 20;
const GUEST_SOURCE = fileURLToPath(new URL('../../../src/peers/uml/guest.ts', import.meta.url));
const SMALL = { memoryBytes: 128 * MIB };
/** What a group has beside the program's own processes. */
const GUARD = 1;
/** A command in a guest takes a second and more where the host has much else to do. */
const POLL = { timeout: 60_000 } as const;

describeLinux('a Linux guest', kernel => {
  let scratch: string;
  const guests: UmlGuest[] = [];

  async function boot(options: Partial<UmlGuestOptions> = {}): Promise<UmlGuest> {
    const guest = await UmlGuest.boot({ ...SMALL, kernel, ...options });
    guests.push(guest);
    return guest;
  }

  beforeEach(() => {
    scratch = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
    vi.stubEnv('TMPDIR', scratch);
  });

  afterEach(async () => {
    for (const guest of guests) guest.kill();
    await Promise.all(guests.splice(0).map(guest => guest.exited));
    vi.unstubAllEnvs();
    rmSync(scratch, { recursive: true, force: true });
  });

  describe('that runs', () => {
    let guest: UmlGuest;
    beforeAll(async () => {
      guest = await UmlGuest.boot({ ...SMALL, kernel });
    });
    afterAll(() => guest.shutdown());

    /** How many processes of the guest's have this in their command line. */
    const running = (pattern: string) => guest.check(`ps | grep -c "${pattern}" || true`);

    it('tells a command’s exit code and output, standard error included', async () => {
      expect(await guest.run('echo out; echo err >&2; exit 3')).toMatchObject({
        exitCode: 3,
        output: 'out\nerr\n',
      });
      expect((await guest.run('kill -9 $$')).exitCode).toBe(137);
      expect((await guest.run('if')).exitCode).toBe(2);
    });

    it('takes scripts of several lines, in any script', async () => {
      expect(await guest.check('for word in "a  b" \'c\\n\' "é$((6 * 7))"\ndo echo "$word"\ndone')).toBe(
        'a  b\nc\\n\né42\n',
      );
    });

    it('takes scripts longer than its terminal’s buffer', async () => {
      const text = 'x'.repeat(20_000);
      expect(await guest.check(`echo ${text}`)).toBe(`${text}\n`);
    });

    it('passes large output with any bytes unharmed', async () => {
      const script = 'head -c 3000000 /dev/urandom >/tmp/x; cat /tmp/x';
      const { bytes } = await guest.run(script);
      expect(bytes.length).toBe(3_000_000);
      const sum = execFileSync('md5sum', { input: bytes, encoding: 'utf8' }).slice(0, 32);
      expect(await guest.check('md5sum </tmp/x')).toContain(sum);
      expect((await guest.run("printf '1 x 0\\n\\0\\r\\n\\377ready'")).bytes).toEqual(
        Buffer.from('1 x 0\n\0\r\n\xffready', 'latin1'),
      );
    });

    it('runs commands at the same time, each with its own output', async () => {
      const started = Array.from({ length: 12 }, (_, n) => guest.check(`sleep 0.2; seq ${n} 500`));
      const outputs = await Promise.all(started);
      outputs.forEach((output, n) => {
        expect(output.split('\n').length).toBe(500 - n + 2);
      });
    });

    it('kills a command that takes too long, with all that it started, and goes on', async () => {
      const late = guest.run('sleep 777 & sleep 777', { timeoutMs: 500 });
      await expect(late).rejects.toMatchObject({ code: 'AEROSTAT_GUEST_TIMEOUT' });
      await expect.poll(() => running('[s]leep 777'), POLL).toBe('0\n');
    });

    it('tells when a command that must succeed does not', async () => {
      await expect(guest.check('echo because; exit 4')).rejects.toMatchObject({
        code: 'AEROSTAT_SHELL_COMMAND',
        exitCode: 4,
        output: 'because\n',
      });
    });

    it('tells of its memory in bytes, of its events, and what its kernel says', async () => {
      const { MemTotal, MemFree } = await guest.meminfo();
      expect(MemTotal).toBeLessThan(SMALL.memoryBytes);
      expect(MemFree).toBeLessThan(MemTotal!);
      expect(MemFree! % 4096).toBe(0);
      expect(await guest.vmstat()).toMatchObject({ balloon_inflate: 0, balloon_deflate: 0 });
      expect(await guest.kernelLog()).toContain('Linux version');
      expect(guest.consoleTail).toContain('Run /init as init process');
    });

    it('loads, removes and loads again the balloon driver', async () => {
      await guest.unloadBalloonDriver();
      expect(await guest.check('lsmod')).not.toContain('virtio_balloon');
      await guest.loadBalloonDriver(0);
      expect(await guest.check('lsmod')).toContain('virtio_balloon');
      await expect(guest.loadBalloonDriver(0)).rejects.toMatchObject({ code: 'AEROSTAT_GUEST_BOOT' });
    });

    it('gives a person a shell with job control', async () => {
      const stdin = new PassThrough();
      const stdout = new PassThrough();
      let shown = '';
      stdout.on('data', chunk => {
        shown += chunk;
      });
      const shell = guest.attachConsole(stdin, stdout);
      stdin.write('echo sum $((40 + 2))\nsleep 888\n');
      await expect.poll(() => shown, POLL).toContain('sum 42');
      await expect.poll(() => running('[s]leep 888'), POLL).toBe('1\n');
      stdin.write('\x03'); // ^C, which ends the sleep and not the shell.
      await expect.poll(() => running('[s]leep 888'), POLL).toBe('0\n');
      stdin.write('exit 6\n');
      expect(await shell).toBe(6);
    });

    it('ends the shell at the end of its input', async () => {
      const stdin = new PassThrough();
      const shell = guest.attachConsole(stdin, new PassThrough().resume());
      stdin.end('cd /tmp\n');
      expect(await shell).toBe(0);
    });
  });

  it('leaves nothing behind when it is shut down', async () => {
    const guest = await boot();
    expect(readdirSync(scratch)).toEqual([]);
    expect(processesOfGroup(guest.pid).length).toBeGreaterThan(GUARD + 1);
    const late = guest.run('sleep 1000');
    late.catch(() => {});
    await Promise.all([guest.shutdown(), guest.shutdown()]);
    await guest.shutdown();
    expect(await guest.exited).toEqual({ code: 0, signal: null, panic: undefined });
    expect(processesOfGroup(guest.pid)).toEqual([]);
    expect(readdirSync(scratch)).toEqual([]);
    await expect(late).rejects.toThrow('the guest was shut down');
    await expect(guest.run('true')).rejects.toMatchObject({ code: 'AEROSTAT_GUEST_ENDED' });
  });

  it('is gone with all its processes when it is killed', async () => {
    const guest = await boot();
    const running = guest.run('sleep 1000 & sleep 1000');
    await guest.check('true');
    guest.kill();
    await expect(running).rejects.toThrow('the guest was killed by SIGKILL');
    expect(await guest.exited).toMatchObject({ signal: 'SIGKILL' });
    expect(processesOfGroup(guest.pid)).toEqual([]);
  });

  it('tells of its kernel’s panic', async () => {
    const guest = await boot();
    await expect(guest.run('echo c >/proc/sysrq-trigger; sleep 100')).rejects.toMatchObject({
      code: 'AEROSTAT_GUEST_ENDED',
      message: expect.stringMatching(
        /^the guest panicked: .*sysrq triggered crash\nFrom its console:.*Trigger a crash/s,
      ),
    });
    expect((await guest.exited).panic).toContain('sysrq triggered crash');
    expect(processesOfGroup(guest.pid)).toEqual([]);
  });

  it('boots beside another', async () => {
    const [first, second] = await Promise.all([boot(), boot({ balloonDriver: false })]);
    await first.check('echo first >/tmp/name');
    expect((await second.run('cat /tmp/name')).exitCode).toBe(1);
    expect(await second.check('lsmod')).not.toContain('virtio_balloon');
    await first.shutdown();
    expect(await second.check('echo still here')).toBe('still here\n');
  });

  it('passes arguments to its kernel', async () => {
    const guest = await boot({ kernelArguments: ['page_reporting.page_reporting_order=3'] });
    expect(await guest.check('cat /sys/module/page_reporting/parameters/page_reporting_order')).toBe('3\n');
  });

  it('does not boot without its device’s socket, nor without a device behind it', async () => {
    const socket = join(scratch, 'device.sock');
    await expect(boot({ sockets: [socket] })).rejects.toThrow(/start its device first: aerostat device/);
    await expect(boot({ sockets: ['/tmp/a:b'] })).rejects.toThrow(/no blank, colon or quote/);
    const server = createServer(connection => connection.destroy()).listen(socket);
    await once(server, 'listening');
    try {
      await expect(boot({ sockets: [socket] })).rejects.toMatchObject({
        code: 'AEROSTAT_GUEST_BOOT',
        // Linux 6.1: "probe of virtio-uml.0 failed"; 7.2: "virtio-uml.0: probe with driver virtio-uml failed".
        message: expect.stringMatching(/took 0 of 1 balloon devices.*virtio-uml\.0.* failed/s),
      });
    } finally {
      server.close();
    }
    expect(readdirSync(scratch)).toEqual([]);
  });

  it('tells of a panic at boot', async () => {
    await expect(boot({ kernelArguments: ['rdinit=/bin/false'] })).rejects.toMatchObject({
      code: 'AEROSTAT_GUEST_BOOT',
      // One sentence: what its kernel was at before is told with --verbose.
      message: expect.stringMatching(
        /^the guest did not boot: its kernel panicked \(Attempted to kill init.*\); `aerostat peers` shows .*$/,
      ),
    });
    expect(readdirSync(scratch)).toEqual([]);
  });

  it('does not boot with nonsensical memory, or when told to stop', async () => {
    await expect(boot({ memoryBytes: 1000 })).rejects.toThrow(/128 MiB or more/);
    await expect(boot({ tmpdir: '/nowhere' })).rejects.toThrow(/no place for/);
    await expect(boot({ bootTimeoutMs: 1 })).rejects.toThrow(/did not boot in 1 ms/);
    await expect(boot({ signal: AbortSignal.abort(new Error('stop')) })).rejects.toThrow('stop');
    const stop = new AbortController();
    const booting = boot({ signal: stop.signal });
    setTimeout(() => stop.abort(new Error('stop')), 100);
    await expect(booting).rejects.toThrow('stop');
    expect(readdirSync(scratch)).toEqual([]);
  });

  it('ends with the process that booted it, even one that is killed', async () => {
    const script = `
      const { UmlGuest } = await load(${JSON.stringify(GUEST_SOURCE)});
      const guest = await UmlGuest.boot(${JSON.stringify({ ...SMALL, kernel })});
      process.stdout.write(guest.pid + '\\n');
      if (process.argv[1] === 'throw') throw new Error('unexpected');
      setInterval(() => {}, 1000);`;
    for (const end of ['throw', 'SIGKILL'] as const) {
      const owner = startOwner(script, scratch, end);
      // Its end may be told before what it wrote.
      const ended = once(owner, 'exit');
      const [line] = await once(owner.stdout, 'data');
      const pid = Number(line);
      expect(pid).toBeGreaterThan(0);
      if (end === 'SIGKILL') owner.kill(end);
      await ended;
      await expect.poll(() => processesOfGroup(pid), POLL).toEqual([]);
    }
  });

  // Its first process does not listen to us, as none does while a guest boots: this one never ends by itself.
  it.each([
    ['when its kernel is started', 1],
    ['when its programs run', GUARD + 2],
  ] as const)('ends with an owner that is killed while it boots, %s', async (_, processes) => {
    const options = { ...SMALL, kernel, kernelArguments: ['rdinit=/bin/init'] };
    const owner = startOwner(
      `const { UmlGuest } = await load(${JSON.stringify(GUEST_SOURCE)});
       await UmlGuest.boot(${JSON.stringify(options)});`,
      scratch,
    );
    const group = () => processesMarked(scratch).find(pid => processesOfGroup(pid).includes(pid));
    try {
      await expect.poll(group, POLL).toBeDefined();
      const leader = group()!;
      await expect.poll(() => processesOfGroup(leader).length, POLL).toBeGreaterThanOrEqual(processes);
      owner.kill('SIGKILL');
      await once(owner, 'exit');
      await expect.poll(() => processesOfGroup(leader), POLL).toEqual([]);
      await expect.poll(() => processesMarked(scratch), POLL).toEqual([]);
      expect(readdirSync(scratch).filter(name => name.startsWith('aerostat-uml-'))).toEqual([]);
    } finally {
      owner.kill('SIGKILL');
      killMarked(scratch);
    }
  });
});
