/** `aerostat policy` against a fake daemon that has a policy: what people see of it, what is asked, and how it ends. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { parseAddress } from '../../src/server/address.ts';
import { type ApiServer, serveApi } from '../../src/server/listen.ts';
import { FakeControl, GIB, guestStatus } from '../server/fake-control.ts';
import { guestPolicy, policyStatus } from '../server/fake-policy.ts';
import { run } from './terminal.ts';

let directory: string;
let control: FakeControl;
let server: ApiServer;
let env: Record<string, string>;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  control = new FakeControl(guestStatus('web'), guestStatus('db'));
  control.memoryPolicy.status = policyStatus(['web', 'db']);
  const api = join(directory, 'policy.sock');
  server = await serveApi(control, { version: '0', address: parseAddress(api) });
  env = { AEROSTAT_POLICY_API: api, XDG_RUNTIME_DIR: directory };
});

afterEach(async () => {
  await server.close();
  rmSync(directory, { recursive: true });
});

describe('aerostat policy', () => {
  test('status says how it is, the host, and each guest', async () => {
    const { code, out } = await run(['policy', 'status'], { env });
    expect(code).toBe(0);
    expect(out).toContain('running; decided 700ms ago, every 2s; 56 targets set');
    expect(out).toContain('The guests may keep 56G of 64G');
    expect(out).toContain('2G reserved for vm9: free');
    expect(out).toMatch(/^web +auto +4G +1\.5G +1\.75G +2\.5G +2G +surplus +step/m);
    const json = await run(['policy', 'status', '--json'], { env });
    expect(JSON.parse(json.out)).toEqual(control.memoryPolicy.status);
  });

  test('the policy that the environment names is asked, whatever daemon it names', async () => {
    const both = { ...env, AEROSTAT_API: join(directory, 'daemon.sock') };
    expect((await run(['policy', 'status'], { env: both })).out).toContain('running;');
    const asked = await run(['policy', 'status', '--api', both.AEROSTAT_API], { env: both });
    expect(asked.code).toBe(3);
  });

  test('status of one that was killed says that it is silent, and what became of its targets', async () => {
    await server.close();
    const policies = join(directory, 'aerostat', 'policies');
    mkdirSync(policies, { recursive: true });
    const guests = [
      { name: 'web', monitor: '/run/web.qmp', targetBytes: 0, released: true },
      { name: 'db', monitor: null, targetBytes: GIB, released: false },
    ];
    const beat = { version: 1, pid: 4_000_000, api: env.AEROSTAT_POLICY_API, atMs: 0, wallMs: 0, guests };
    const rest = { periodMs: 2000, onSilence: 'release', dryRun: false, decisions: 7, moves: 3 };
    writeFileSync(join(policies, 'policy-4000000.beat'), JSON.stringify({ ...beat, ...rest }));
    const { code, out } = await run(['policy', 'status'], { env });
    expect(code).toBe(0);
    expect(out).toMatch(/^SILENT; decided .* ago, every 2s; 3 targets set\nprocess 4000000 answers no more/);
    expect(out).toContain('web: all memory is its own again\ndb: was told to give 1G\n');
    const json = JSON.parse((await run(['policy', 'status', '--json'], { env })).out);
    expect(json).toMatchObject({ state: 'silent', decisions: 7, onSilence: 'release' });
    server = await serveApi(control, { version: '0', address: parseAddress(env.AEROSTAT_POLICY_API) });
  });

  test('status of a host without one says so, and what else is asked is refused with 6', async () => {
    control.memoryPolicy.status = { ...control.memoryPolicy.status, state: 'off' };
    expect((await run(['policy', 'status'], { env })).out).toContain('no memory policy runs here');
    const { code, err } = await run(['policy', 'explain', 'web'], { env });
    expect(code).toBe(6);
    expect(err).toContain('aerostat policy run');
  });

  test('explain says why, and names the figures', async () => {
    const { out } = await run(['policy', 'explain', 'web'], { env });
    expect(out).toContain('web keeps 2.5G of 4G');
    expect(out).toMatch(/bound by +surplus/);
    const { code } = await run(['policy', 'explain', 'absent'], { env });
    expect(code).toBe(5);
  });

  test('hold, resume and set change one guest', async () => {
    await run(['policy', 'hold', 'web'], { env });
    await run(['policy', 'resume', 'web'], { env });
    const set = await run(['policy', 'set', 'db', '--min', '512M', '--max', 'default', '--shares', '2000'], {
      env,
    });
    expect(set.err).toBe('');
    expect(control.calls).toEqual([
      ['changeGuestPolicy', 'web', { mode: 'hold' }],
      ['resumePolicy', 'web', undefined],
      ['changeGuestPolicy', 'db', { minBytes: 0.5 * GIB, maxBytes: null, shares: 2000 }],
    ]);
    expect((await run(['policy', 'set', 'db'], { env })).code).toBe(2);
    expect((await run(['policy', 'set', 'db', '--shares', '0'], { env })).code).toBe(2);
  });

  test('reserve waits until the memory is free, or ends with 4', async () => {
    const there = await run(['policy', 'reserve', '4G', '--for', 'new'], { env });
    expect([there.code, there.out]).toEqual([0, '4G reserved for new: free\n']);
    control.memoryPolicy.ready = false;
    const late = await run(['policy', 'reserve', '4G', '--for', 'new', '--timeout', '0'], { env });
    expect(late.code).toBe(4);
    expect(late.err).toContain('policy release new');
    const look = await run(['policy', 'reserve', '4G', '--for', 'new', '--no-wait'], { env });
    expect(look.out).toBe('4G reserved for new: 4G missing\n');
    expect((await run(['policy', 'release', 'new'], { env })).code).toBe(0);
  });

  test('dry-run and reload change the policy', async () => {
    expect((await run(['policy', 'dry-run', 'on'], { env })).out).toContain('nothing is moved');
    expect((await run(['policy', 'dry-run', 'maybe'], { env })).code).toBe(2);
    expect((await run(['policy', 'reload'], { env })).out).toContain('/etc/aerostat/policy.toml is in force');
  });

  test('a guest that cannot be asked is listed with the reason', async () => {
    const guests = [guestPolicy('web', { decision: null, error: 'the daemon is gone' })];
    control.memoryPolicy.status = policyStatus([], { guests });
    expect((await run(['policy', 'status'], { env })).out).toMatch(/^web +auto .* the daemon is gone$/m);
  });

  test('run refuses a file with errors, with their places, before it opens anything', async () => {
    const path = join(directory, 'policy.toml');
    writeFileSync(path, 'speed = 3\n[guests.web]\nmin = "lots"\n');
    const { code, err } = await run(['policy', 'run', '--config', path], { env });
    expect(code).toBe(2);
    expect(err).toContain(`${path}:1:1: speed: there is no such setting`);
    expect(err).toContain(`${path}:3:1: guests.web.min:`);
  });
});

describe('aerostat policy replay', () => {
  const sampleAt = (index: number) => ({
    wallMs: 1_700_000_000_000 + index * 2000,
    sample: {
      atMs: 1000 + index * 2000,
      host: { totalBytes: 4 * GIB, availableBytes: 0.2 * GIB, freeBytes: 0, reservedBytes: 0 },
      guests: ['a', 'b'].map(name => ({
        name,
        memoryBytes: 2 * GIB,
        targetBytes: 0,
        actualBytes: 0,
        givenBytes: 0,
        residentBytes: 1.8 * GIB,
        epoch: 1,
        statistics: {
          availableBytes: 1.5 * GIB,
          freeBytes: GIB,
          cacheBytes: 0,
          swapInBytes: 0,
          swapOutBytes: 0,
          majorFaults: 0,
          minorFaults: index,
          oomKills: 0,
          allocationStalls: 0,
          balloonedBytes: 0,
        },
      })),
    },
  });

  test('says what it would have done over recorded samples', async () => {
    const path = join(directory, 'night.jsonl');
    const lines = Array.from({ length: 60 }, (_, index) => JSON.stringify(sampleAt(index)));
    // The end of a recording may be cut off.
    writeFileSync(path, `${lines.join('\n')}\n{"wallMs": 17`);
    const { code, out } = await run(['policy', 'replay', path]);
    expect(code).toBe(0);
    expect(out).toMatch(/^60 samples of 1m 58s: \d+ targets$/m);
    expect(out).toMatch(/least available at the host: 205M as it was/);
    expect(out).toContain('a 2G -> ');
    const { moves } = JSON.parse((await run(['policy', 'replay', path, '--json'])).out);
    expect(moves.length).toBeGreaterThan(0);
  });

  test('takes what Prometheus answers', async () => {
    const values = (value: number) =>
      Array.from({ length: 40 }, (_, index) => [1_700_000_000 + index * 15, String(value + index)]);
    const series = (name: string, value: number, labels: object = {}) => ({
      metric: { __name__: name, ...labels },
      values: values(value),
    });
    const result = [
      series('aerostat_host_memory_bytes', 4 * GIB),
      series('aerostat_host_memory_available_bytes', 0.1 * GIB),
      ...['a', 'b'].flatMap(guest => [
        series('aerostat_guest_memory_bytes', 2 * GIB, { guest }),
        series('aerostat_guest_resident_bytes', 1.8 * GIB, { guest }),
        series('aerostat_guest_statistics_available_bytes', 1.5 * GIB, { guest }),
        series('aerostat_guest_page_faults_total', 10, { guest, kind: 'minor' }),
      ]),
    ];
    const path = join(directory, 'range.json');
    writeFileSync(path, JSON.stringify({ status: 'success', data: { resultType: 'matrix', result } }));
    const { out } = await run(['policy', 'replay', path]);
    expect(out).toMatch(/^40 samples of 9m 45s: [1-9]\d* targets$/m);
  });

  test('refuses a file that holds neither', async () => {
    const path = join(directory, 'what.txt');
    writeFileSync(path, 'hello\nworld\nagain\n');
    const { code, err } = await run(['policy', 'replay', path]);
    expect(code).toBe(2);
    expect(err).toContain(`${path}:1: neither a sample`);
    expect(readFileSync(path, 'utf8')).toContain('hello');
  });
});
