/** Two guests of one thread, one of which would have all of it: whatever it does, the other has its part. */
import { MessageChannel } from 'node:worker_threads';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { GuestHost } from '../../src/hosting/guest-host.ts';
import type { GuestHostWorld } from '../../src/hosting/guest-world.ts';
import { ThreadTurns } from '../../src/hosting/thread-turns.ts';
import { closeAll, openDescriptorCount } from '../../src/sys/fd.ts';
import { UnixSocket } from '../../src/sys/socket.ts';
import { CONTROL_WORDS, DiscardLink } from '../../src/threads/discard-link.ts';
import { FLAG_VERSION, FRONTEND_REQUEST, HEADER } from '../../src/vhost-user/protocol.ts';
import { HandGuest } from '../daemon/hand-guest.ts';
import { TestLoop } from '../support/loop.ts';
import { simulatedClock } from '../support/simulated-clock.ts';
import { payloads } from '../vhost-user/conversation.ts';

let openBefore: number;
let loop: TestLoop;
let discards: MessageChannel;
let world: GuestHostWorld;
const ends: (() => void | Promise<void>)[] = [];

beforeEach(() => {
  openBefore = openDescriptorCount();
  loop = new TestLoop();
  discards = new MessageChannel();
  world = {
    reactor: loop.reactor,
    turns: new ThreadTurns(),
    discards: new DiscardLink(
      new SharedArrayBuffer(CONTROL_WORDS * 4),
      discards.port1,
      loop.reactor.wakeFd.number,
    ),
    emit: () => {},
    log: () => {},
  };
});

afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
  discards.port1.close();
  loop.close();
  expect(openDescriptorCount()).toBe(openBefore);
});

async function open(name: string): Promise<{ host: GuestHost; guest: HandGuest; socket: UnixSocket }> {
  const [ours, theirs] = UnixSocket.pair();
  const options = {
    name,
    targetBytes: 0,
    profile: 'virtio',
    discard: 'none',
    without: [],
    pollIntervalMs: 0,
  } as const;
  const host = new GuestHost(options, { fd: ours.fd.release(), listening: false }, world);
  const guest = await HandGuest.connect(theirs, { loop });
  ends.push(() => {
    guest.close();
    closeAll([theirs.fd]);
    return host.close();
  });
  return { host, guest, socket: theirs };
}

/** What a step of the greedy guest takes, and a turn of the loop itself. */
const COST_MS = 0.3;
const TURN_MS = 0.01;

describe('a guest that waits for each of its buffers has half of the thread beside one', () => {
  /** The share of the time that the greedy one takes when `begin` has set it on. */
  async function share(begin: (greedy: Awaited<ReturnType<typeof open>>, costly: () => void) => void) {
    const greedy = await open('greedy');
    const { host, guest } = await open('waits');
    let served = 0;
    host.device.serveQueue = index => {
      served++;
      guest.frontend.kick(index);
      return false;
    };
    guest.frontend.kick(0);
    await loop.settle();
    const clock = simulatedClock();
    const startedMs = clock.nowMs;
    let usedMs = 0;
    begin(greedy, () => {
      clock.pass(COST_MS);
      usedMs += COST_MS;
    });
    const before = served;
    while (clock.nowMs - startedMs < 100) {
      loop.reactor.turn(0);
      clock.pass(TURN_MS);
    }
    const tookMs = clock.nowMs - startedMs;
    vi.restoreAllMocks();
    expect(usedMs).toBeGreaterThan(0);
    expect(served - before).toBeGreaterThan(10);
    return usedMs / tookMs;
  }

  test('whose ring is never at its end', async () => {
    const used = await share(({ host, guest }, costly) => {
      host.device.serveQueue = () => {
        costly();
        return true;
      };
      guest.frontend.kick(0);
    });
    expect(used).toBeLessThan(0.5);
  });

  test('that kicks without end', async () => {
    const used = await share(({ host, guest }, costly) => {
      host.device.serveQueue = index => {
        costly();
        guest.frontend.kick(index);
        return false;
      };
      guest.frontend.kick(0);
    });
    expect(used).toBeLessThan(0.5);
  });

  test('whose every message is costly', async () => {
    const used = await share(({ host, socket }, costly) => {
      host.device.writeConfig = costly;
      const payload = payloads.config(4, 4, new Uint8Array(4));
      const header = { request: FRONTEND_REQUEST.SET_CONFIG, flags: FLAG_VERSION, size: payload.length };
      const message = Uint8Array.of(...HEADER.encode(header), ...payload);
      // More than there is time for.
      for (let count = 0; count < 1000; count++) socket.send(message);
    });
    expect(used).toBeLessThan(0.5);
  });

  test('whose ring is never at its end, whatever is asked about it', async () => {
    const used = await share(({ host }, costly) => {
      const ask = (): void => {
        host.loop.charge(performance.now());
        loop.reactor.schedule(0, ask);
      };
      ask();
      host.device.serveQueue = () => {
        costly();
        return true;
      };
      host.rings.serve(0);
    });
    expect(used).toBeLessThan(0.5);
  });
});
