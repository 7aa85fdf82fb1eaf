/**
 * What it costs a host to lead a fleet of 1,000 hosts with 50,000 guests: the peak memory of a process that is nothing but
 * an agent, fed with the reports of all hosts each period, beside that of a bare Node that takes the same bytes. The fleet
 * itself is made in this process, which is not counted.
 */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { type Measured, spreadOf } from '../src/bench/report.ts';
import { type ReportedGuest, VERSION } from '../src/fleet/messages.ts';
import { frameOf, SETTINGS } from './leader-frames.ts';
import { NO_PEER, runAsProgram } from './micro.ts';

const HOSTS = 1000;
const GUESTS = 50;
const GIB = 2 ** 30;
/** Until a leader has settled, short hosts are due, and collections of garbage have found their pace. */
const PERIODS = 20;

function reportOf(index: number, period: number): string {
  const memoryBytes = 256 * GIB;
  // A tenth of the hosts is short.
  const needBytes = Math.round(((index % 10 === 0 ? 1.05 : 0.7) * memoryBytes) / GUESTS);
  const guests = Array.from(
    { length: GUESTS },
    (_, at): ReportedGuest => ({
      guest: `vm${index * GUESTS + at}`,
      incarnation: `1700000000000-${1000 + at}`,
      sizeBytes: 16 * GIB,
      residentBytes: Math.round(needBytes * (0.5 + (at % 10) / 20)) + period,
      needBytes,
      minBytes: GIB,
      dirtyBytesPerSecond: (at % 7) * 20e6,
      obstacle: at % 20 === 0 ? 'it has a device of the host' : null,
      moving: null,
      left: [],
    }),
  );
  return JSON.stringify({
    ...{ version: VERSION, host: `host${index}`, agent: `agent-${index}`, periodMs: SETTINGS.periodMs },
    ...{
      program: '0.1.0',
      epoch: 1,
      memoryBytes,
      reserveBytes: 0,
      othersBytes: 0,
      linkBytesPerSecond: 1.25e9,
    },
    ...{ guests, incoming: [], departures: [], outcomes: [], refusals: 0, atMs: 1_700_000_000_000 },
  });
}

interface Said {
  /** As long as the periods are: it says that the process kept up. */
  readonly elapsedMs: number;
  readonly peakBytes: number;
  readonly heapUsed: number;
  readonly ordersGiven?: number;
  readonly hosts?: number;
}

async function run(role: 'bare' | 'leader'): Promise<Said> {
  const program = fileURLToPath(new URL('./leader-process.js', import.meta.url));
  // As the program itself is started.
  const child = spawn(process.execPath, ['--v8-pool-size=1', program, role], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (part: string) => {
    text += part;
  });
  const ended = new Promise<void>(resolve => child.once('exit', () => resolve()));
  const before = performance.now();
  for (let period = 0; period < PERIODS; period++) {
    const dueMs = before + period * SETTINGS.periodMs;
    await new Promise(resolve => setTimeout(resolve, Math.max(0, dueMs - performance.now())));
    for (let index = 0; index < HOSTS; index++) {
      const frame = frameOf(`host${index}`, 1 + period * HOSTS + index, reportOf(index, period));
      if (!child.stdin.write(frame)) await new Promise(resolve => child.stdin.once('drain', resolve));
    }
  }
  await new Promise(resolve => setTimeout(resolve, SETTINGS.periodMs));
  child.stdin.end();
  await ended;
  return { ...(JSON.parse(text) as Omit<Said, 'elapsedMs'>), elapsedMs: performance.now() - before };
}

async function measure(): Promise<Measured> {
  const bare = await run('bare');
  const leader = await run('leader');
  const mib = (bytes: number) => bytes / 2 ** 20;
  const rows = Object.entries({ bare, leader }).map(([name, said]) => ({
    case: name,
    scenario: `${HOSTS} hosts, ${HOSTS * GUESTS} guests, ${PERIODS} periods`,
    peer: NO_PEER,
    elapsedMs: spreadOf([said.elapsedMs]),
    peakMiB: mib(said.peakBytes),
    heapMiB: mib(said.heapUsed),
    orders: said.ordersGiven ?? null,
    hosts: said.hosts ?? null,
  }));
  console.table(
    rows.map(({ case: name, peakMiB, heapMiB, orders, hosts }) => ({
      ...{ case: name, 'peak MiB': peakMiB.toFixed(1), 'heap MiB': heapMiB.toFixed(1) },
      ...{ orders: orders ?? '', hosts: hosts ?? '' },
    })),
  );
  return {
    rows,
    ratios: {
      'leader.peakMiB': mib(leader.peakBytes),
      'leader.aboveBareMiB': mib(leader.peakBytes - bare.peakBytes),
    },
  };
}

await runAsProgram(import.meta.url, 'leader', measure);
