/** Places for machines that come by an order of the fleet: `aerostat receive` as a process that outlives the agent. */
import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Receiver, StartReceiver } from '../fleet/arrivals.ts';
import { AerostatError } from '../sys/error.ts';
import { ownCommandLine } from '../sys/own-program.ts';

/** A source that was told of the place connects at once. */
const WAIT = '60s';
const START_MS_MAX = 20_000;
const LOOK_MS = 20;
/** Of its log, for a message. */
const SAID_MAX = 500;

export interface ReceiversOptions {
  /** Where it listens, and where sources find it. */
  readonly address: string;
  /** Words of `aerostat receive` for TLS. */
  readonly tls: readonly string[];
}

export function receiversOf({ address, tls }: ReceiversOptions): StartReceiver {
  const host = address.includes(':') ? `[${address}]` : address;
  return async ({ guest, socket, log, memoryMaxBytes }) => {
    mkdirSync(dirname(socket), { recursive: true, mode: 0o700 });
    const words = [
      '--listen',
      `${host}:0`,
      '--name',
      guest,
      '--api',
      socket,
      '--wait',
      WAIT,
      // Guests of a drain wait for it, one after the other, and for the processors that it takes.
      '--warm-up',
      'brief',
      '--json',
      ...tls,
    ];
    // No pipe leads to it: its end would be heard by a machine that runs, when the agent ends.
    const output = openSync(log, 'w', 0o600);
    const [program, ...line] = ownCommandLine('receive', ...words, '--memory-max', String(memoryMaxBytes));
    // Its TLS has a CA of its own, and Node 20 reads what this names at each start, which takes 90 ms of a processor.
    const { NODE_EXTRA_CA_CERTS: _, ...env } = process.env;
    const child = spawn(program, line, { stdio: ['ignore', output, output], detached: true, env });
    closeSync(output);
    child.unref();
    let isOver = false;
    const ended = new Promise<string>(resolve => {
      const over = () => {
        isOver = true;
        resolve(lastOf(log));
      };
      child.once('exit', over);
      child.once('error', over);
    });
    const receiver = { ended, end: () => void child.kill('SIGTERM') };
    for (let waitedMs = 0; ; waitedMs += LOOK_MS) {
      const listening = listeningIn(log);
      if (listening !== undefined) return { ...receiver, address: `tcp:${listening}` } satisfies Receiver;
      if (isOver || waitedMs > START_MS_MAX) {
        receiver.end();
        throw new AerostatError('AEROSTAT_FLEET_REFUSED', lastOf(log) || 'the process says nothing');
      }
      await delay(LOOK_MS);
    }
  };
}

function listeningIn(log: string): string | undefined {
  for (const line of textOf(log).split('\n').slice(0, -1)) {
    try {
      const said = JSON.parse(line) as { event?: unknown; address?: unknown };
      if (said.event === 'listening' && typeof said.address === 'string') return said.address;
    } catch {
      // A line of its log for people.
    }
  }
  return undefined;
}

const lastOf = (log: string): string => textOf(log).trim().slice(-SAID_MAX);

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
