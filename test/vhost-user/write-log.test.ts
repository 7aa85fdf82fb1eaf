/**
 * A front-end that moves its guest and has the back-end log what it writes into guest memory: which pages are in the log,
 * when, and what is refused as a log. Rings go on while the log is switched.
 */
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { OwnedFd } from '../../src/sys/fd.ts';
import { createMemfd, readAt, writeAt } from '../../src/sys/file.ts';
import {
  F_LOG_ALL,
  F_PROTOCOL_FEATURES,
  LOG_AREA,
  PROTOCOL_FEATURE,
  VRING_ADDRESSES,
  VRING_FLAG_LOG,
} from '../../src/vhost-user/protocol.ts';
import { FdCollector } from '../../src/vhost-user/saved-fds.ts';
import { RING_PACKED, VERSION_1 } from '../../src/virtio/features.ts';
import { type Conversation, conversations, MIB, payloads, type TestRing, wasRung } from './conversation.ts';

const converse = conversations();

/** A bit for each of the 256 pages of a conversation's memory. */
const LOG_BYTES = MIB / PAGE_SIZE / 8;

/** A log as QEMU makes it: a memfd of just the size that it needs. */
class TestLog {
  readonly fd: OwnedFd;

  constructor(bytes = LOG_BYTES) {
    this.fd = createMemfd({ name: 'vhost-log', size: bytes });
  }

  offer(talk: Conversation, area: { size?: number; offset?: number } = {}): bigint {
    const payload = LOG_AREA.encode({ size: LOG_BYTES, offset: 0, ...area });
    return talk.ask('SET_LOG_BASE', payload, { fds: [this.fd.duplicate()] });
  }

  /** Pages that were logged since the last call. */
  take(): number[] {
    const bytes = new Uint8Array(LOG_BYTES);
    readAt(this.fd, 0, bytes, 0, LOG_BYTES);
    writeAt(this.fd, 0, new Uint8Array(LOG_BYTES), 0, LOG_BYTES);
    return [...bytes].flatMap((byte, at) =>
      Array.from({ length: 8 }, (_, bit) => at * 8 + bit).filter(page => (byte & (1 << (page % 8))) !== 0),
    );
  }
}

const setLogging = (talk: Conversation, features: bigint, on: boolean): void =>
  void talk.say('SET_FEATURES', payloads.u64(features | F_PROTOCOL_FEATURES | (on ? F_LOG_ALL : 0n)));

function serve(talk: Conversation, ring: TestRing): void {
  ring.offer();
  talk.device.serveQueue(0);
  expect(ring.collect()).toBe(1);
}

describe('while a front-end moves its guest', () => {
  it.each([
    ['split', VERSION_1, 'deviceArea'],
    ['packed', VERSION_1 | RING_PACKED, 'descriptorArea'],
  ] as const)(
    'what is written into a %s ring is in the log, and the ring goes on',
    (_, features, written) => {
      const talk = converse();
      const ring = talk.start(features);
      const log = new TestLog();
      expect(talk.ask('GET_FEATURES') & F_LOG_ALL).toBe(F_LOG_ALL);
      expect(log.offer(talk)).toBe(0n);
      serve(talk, ring);
      expect(log.take()).toEqual([]);

      setLogging(talk, features, true);
      serve(talk, ring);
      const pages = log.take();
      expect(pages).toContain(ring.config[written] / PAGE_SIZE);
      // What the driver writes is the front-end's to log.
      expect(pages).not.toContain(ring.config.driverArea / PAGE_SIZE);

      setLogging(talk, features, false);
      serve(talk, ring);
      expect(log.take()).toEqual([]);
      // Nothing began anew: neither the driver nor the ring did.
      expect(talk.device.takeCalls()).toEqual([]);
      expect(talk.refused).toEqual([]);
      log.fd.close();
    },
  );

  it('a ring is logged by its own flag as well', () => {
    const talk = converse();
    const ring = talk.start();
    const log = new TestLog();
    log.offer(talk);
    const addresses = payloads.addresses(ring.config, 0);
    const view = new DataView(addresses.buffer);
    view.setUint32(VRING_ADDRESSES.offset.flags, VRING_FLAG_LOG, true);
    talk.say('SET_VRING_ADDR', addresses);
    serve(talk, ring);
    expect(log.take()).toContain(ring.config.deviceArea / PAGE_SIZE);
    talk.say('SET_VRING_ADDR', payloads.addresses(ring.config, 0));
    serve(talk, ring);
    expect(log.take()).toEqual([]);
    expect(talk.device.takeCalls()).toEqual([]);
    log.fd.close();
  });

  it('a new log takes the place of the one before, and the doorbell says when there is news', async () => {
    const talk = converse();
    const ring = talk.start();
    const [first, second] = [new TestLog(), new TestLog()];
    first.offer(talk);
    setLogging(talk, VERSION_1, true);
    second.offer(talk);
    talk.say('SET_LOG_FD', undefined, { fds: [ring.error.duplicate()] });
    serve(talk, ring);
    expect(first.take()).toEqual([]);
    expect(await wasRung(talk.loop, ring.error)).toBe(true);
    // Nothing that was not known before.
    serve(talk, ring);
    expect(await wasRung(talk.loop, ring.error)).toBe(false);
    expect(second.take()).toContain(ring.config.deviceArea / PAGE_SIZE);
    first.fd.close();
    second.fd.close();
  });

  it('pages beyond the end of the log are not written anywhere', () => {
    const talk = converse();
    const ring = talk.start();
    const log = new TestLog();
    // Eight bytes: 64 pages.
    expect(log.offer(talk, { size: 8 })).toBe(0n);
    setLogging(talk, VERSION_1, true);
    const { memory } = talk.session;
    memory.setU32(63 * PAGE_SIZE, 1);
    memory.write(64 * PAGE_SIZE - 1, new Uint8Array(2 * PAGE_SIZE));
    memory.setU32(200 * PAGE_SIZE, 1);
    expect(log.take()).toEqual([63]);
    serve(talk, ring);
    log.fd.close();
  });

  it('a write over several pages is logged in all of them', () => {
    const talk = converse();
    talk.start();
    const log = new TestLog();
    log.offer(talk);
    setLogging(talk, VERSION_1, true);
    const { memory } = talk.session;
    memory.write(5 * PAGE_SIZE - 1, new Uint8Array(PAGE_SIZE + 2));
    memory.fill(9 * PAGE_SIZE, 1, PAGE_SIZE);
    memory.setU16(11 * PAGE_SIZE, 1);
    memory.setU64(12 * PAGE_SIZE, 1);
    memory.atomicStoreU16(13 * PAGE_SIZE + 2, 1);
    expect(log.take()).toEqual([4, 5, 6, 9, 11, 12, 13]);
    log.fd.close();
  });

  it('a session of another process goes on with the log, its doorbell and what is logged (failed before: refused)', async () => {
    const former = converse();
    const ring = former.start();
    const log = new TestLog();
    log.offer(former);
    former.say('SET_LOG_FD', undefined, { fds: [ring.error.duplicate()] });
    setLogging(former, VERSION_1, true);
    former.session.suspend();
    const saved = former.session.save(undefined);
    const { session, device, refused, loop } = converse();
    session.load(saved);
    session.resume();
    log.take();
    ring.offer();
    device.serveQueue(0);
    expect(ring.collect()).toBe(1);
    expect(log.take()).toContain(ring.config.deviceArea / PAGE_SIZE);
    expect(await wasRung(loop, ring.error)).toBe(true);
    expect(refused).toEqual([]);
    log.fd.close();
  });

  it('a ring that ran when its process ended counts as written, for that may have been before its log', () => {
    const former = converse();
    const ring = former.start();
    const log = new TestLog();
    log.offer(former);
    setLogging(former, VERSION_1, true);
    const fds = new FdCollector();
    const bytes = former.session.record(undefined, {
      note: fd => fds.note(fd),
      get count() {
        return fds.fds.length;
      },
    });
    log.take();
    converse().session.load({ bytes, fds: fds.fds });
    expect(log.take()).toContain(ring.config.deviceArea / PAGE_SIZE);
    log.fd.close();
  });

  it('the next front-end has none of it', () => {
    const talk = converse();
    talk.start();
    const log = new TestLog();
    log.offer(talk);
    setLogging(talk, VERSION_1, true);
    talk.say('SET_OWNER');
    talk.handOver();
    talk.session.memory.setU32(PAGE_SIZE, 1);
    expect(log.take()).toEqual([]);
    log.fd.close();
  });
});

describe('what is refused as a log is answered, and the one before stays:', () => {
  it.each([
    ['no bytes', { size: 0 }],
    ['no whole words', { size: 12 }],
    ['more than its file has', { size: LOG_BYTES + 8 }],
    ['more than the largest guest needs', { size: 2 ** 40 }],
    ['an offset within a page', { offset: 512 }],
    ['an offset that is no number of ours', { offset: 2 ** 62 }],
  ])('%s', (_, area) => {
    const talk = converse();
    const ring = talk.start();
    const log = new TestLog();
    log.offer(talk);
    setLogging(talk, VERSION_1, true);
    const other = new TestLog();
    expect(other.offer(talk, area)).toBe(1n);
    expect(talk.refused).toHaveLength(1);
    serve(talk, ring);
    expect(log.take()).not.toEqual([]);
    log.fd.close();
    other.fd.close();
  });

  it('what is no file of memory, or can be shrunk under our hands', () => {
    const talk = converse();
    const ring = talk.start();
    const payload = LOG_AREA.encode({ size: LOG_BYTES, offset: 0 });
    expect(talk.ask('SET_LOG_BASE', payload, { fds: [ring.kick.duplicate()] })).toBe(1n);
    expect(talk.ask('SET_LOG_BASE', payload)).toBe(1n);
    const directory = mkdtempSync('/dev/shm/aerostat-test-');
    const file = openSync(join(directory, 'log'), 'w+');
    ftruncateSync(file, LOG_BYTES);
    expect(
      talk.ask('SET_LOG_BASE', payload, { fds: [new OwnedFd(openSync(join(directory, 'log'), 'r+'))] }),
    ).toBe(1n);
    expect(talk.refused.at(-1)?.message).toMatch(/can be shrunk; a memfd that takes seals cannot/);
    closeSync(file);
    rmSync(directory, { recursive: true });
    // And one that was taken cannot be shrunk any more.
    const log = new TestLog();
    expect(log.offer(talk)).toBe(0n);
    expect(() => ftruncateSync(log.fd.number, 0)).toThrow('EPERM');
    log.fd.close();
  });

  it('a doorbell that is none', () => {
    const talk = converse();
    talk.start();
    const file = createMemfd({ name: 'no doorbell', size: PAGE_SIZE });
    expect(talk.accepts('SET_LOG_FD', undefined, [file])).toBe(false);
    expect(talk.ask('GET_PROTOCOL_FEATURES') & PROTOCOL_FEATURE.LOG_SHMFD).toBe(PROTOCOL_FEATURE.LOG_SHMFD);
  });
});
