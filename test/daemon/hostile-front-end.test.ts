/**
 * Front-ends that break the protocol, at one daemon: each has its request refused or is hung up on, is counted and
 * mentioned in the log, leaves no descriptor behind in the daemon, and the guest next door goes on.
 */
import { readdirSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { closeAll, createEventFd, type OwnedFd } from '../../src/sys/fd.ts';
import { createMemfd } from '../../src/sys/file.ts';
import { DESCRIPTORS_MAX } from '../../src/sys/socket.ts';
import {
  CONFIG_HEADER,
  FLAG_REPLY,
  FRONTEND_REQUEST,
  HEADER,
  PAYLOAD_BYTES_MAX,
} from '../../src/vhost-user/protocol.ts';
import { build } from '../cli/built.ts';
import { DaemonProcess } from '../support/daemon.ts';
import { TestLoop } from '../support/loop.ts';
import { payloads } from '../vhost-user/conversation.ts';
import { FIRST_PAGE, HandGuest } from './hand-guest.ts';
import { complaintsOf, NEIGHBOUR, Neighbour } from './neighbour.ts';
import { RawFrontEnd, regionMessage } from './raw-front-end.ts';

interface Breach {
  readonly title: string;
  readonly commit: (frontEnd: RawFrontEnd) => Promise<void>;
  readonly log: RegExp;
  /** The daemon cannot follow the stream of bytes any further, and hangs up. */
  readonly fatal?: boolean;
}

/** A request that is refused, after which the conversation goes on. */
const refused =
  (...words: Parameters<RawFrontEnd['accepts']>) =>
  async (frontEnd: RawFrontEnd): Promise<void> => {
    expect(await frontEnd.accepts(...words)).toBe(false);
  };

/** The same, with descriptors that exist for that long. */
async function refusedWith(
  frontEnd: RawFrontEnd,
  request: Parameters<RawFrontEnd['accepts']>[0],
  payload: Uint8Array,
  fds: readonly OwnedFd[],
): Promise<void> {
  try {
    expect(await frontEnd.accepts(request, payload, fds)).toBe(false);
  } finally {
    closeAll(fds);
  }
}

const BREACHES: readonly Breach[] = [
  {
    title: 'an unknown request',
    commit: refused(99),
    log: /request 99 is unknown/,
  },
  {
    title: 'a request that this device does not have',
    commit: refused('VRING_KICK', new Uint8Array(8)),
    log: /VRING_KICK is not supported/,
  },
  {
    title: 'a request that is too short',
    commit: refused('SET_VRING_NUM', new Uint8Array(4)),
    log: /SET_VRING_NUM has 4 bytes of payload instead of 8/,
  },
  {
    title: 'a request that is too long',
    commit: refused('SET_FEATURES', new Uint8Array(PAYLOAD_BYTES_MAX)),
    log: /SET_FEATURES has 4096 bytes of payload/,
  },
  {
    title: 'features that were not offered',
    commit: refused('SET_FEATURES', payloads.u64(1n << 63n)),
    log: /which were not offered/,
  },
  {
    title: 'an answer to nothing',
    commit: async frontEnd => frontEnd.say('SET_OWNER', undefined, [], FLAG_REPLY),
    log: /SET_OWNER came as a reply/,
  },
  {
    title: 'a region without its descriptor',
    commit: async frontEnd => refused('ADD_MEM_REG', regionMessage(frontEnd.region))(frontEnd),
    log: /0 descriptors instead of one/,
  },
  {
    title: 'a table of regions without descriptors',
    commit: async frontEnd => refused('SET_MEM_TABLE', payloads.table([frontEnd.region]))(frontEnd),
    log: /SET_MEM_TABLE/,
  },
  {
    title: 'a table with more descriptors than regions',
    commit: async frontEnd =>
      refusedWith(frontEnd, 'SET_MEM_TABLE', payloads.table([frontEnd.region]), [
        frontEnd.file.duplicate(),
        frontEnd.file.duplicate(),
      ]),
    log: /SET_MEM_TABLE/,
  },
  {
    title: 'a table that announces more regions than it has',
    commit: async frontEnd =>
      refusedWith(frontEnd, 'SET_MEM_TABLE', payloads.table([frontEnd.region], 8), [
        frontEnd.file.duplicate(),
      ]),
    log: /SET_MEM_TABLE announces 8 regions/,
  },
  {
    title: 'descriptors where there are to be none',
    commit: async frontEnd =>
      refusedWith(frontEnd, 'SET_VRING_NUM', payloads.state(0, 64), [createEventFd()]),
    log: /SET_VRING_NUM brought 1 descriptors/,
  },
  {
    title: 'as many descriptors as a message can carry',
    commit: async frontEnd =>
      refusedWith(
        frontEnd,
        'SET_VRING_KICK',
        payloads.u64(0),
        Array.from({ length: DESCRIPTORS_MAX }, () => createEventFd()),
      ),
    log: /SET_VRING_KICK brought 253 descriptors/,
  },
  {
    title: 'two regions over each other',
    commit: async frontEnd => {
      expect(await frontEnd.accepts('ADD_MEM_REG', regionMessage(frontEnd.region), [frontEnd.file])).toBe(
        true,
      );
      const { size, userAddress, ...rest } = frontEnd.region;
      const shifted = { ...rest, size, userAddress: userAddress + size, guestAddress: size - PAGE_SIZE };
      await refusedWith(frontEnd, 'ADD_MEM_REG', regionMessage(shifted), [frontEnd.file.duplicate()]);
    },
    log: /overlap/,
  },
  {
    title: 'a table of regions over each other',
    commit: async frontEnd =>
      refusedWith(frontEnd, 'SET_MEM_TABLE', payloads.table([frontEnd.region, frontEnd.region]), [
        frontEnd.file.duplicate(),
        frontEnd.file.duplicate(),
      ]),
    log: /overlap/,
  },
  {
    title: 'a region larger than its file',
    commit: async frontEnd => {
      const region = { ...frontEnd.region, size: 2 * frontEnd.region.size };
      await refusedWith(frontEnd, 'ADD_MEM_REG', regionMessage(region), [frontEnd.file.duplicate()]);
    },
    log: /memory region refused/,
  },
  {
    title: 'a region at the end of all addresses',
    commit: async frontEnd => {
      const region = { ...frontEnd.region, guestAddress: 2 ** 63 };
      await refusedWith(frontEnd, 'ADD_MEM_REG', regionMessage(region), [frontEnd.file.duplicate()]);
    },
    log: /region/,
  },
  {
    title: 'memory that is no file',
    commit: async frontEnd =>
      refusedWith(frontEnd, 'ADD_MEM_REG', regionMessage(frontEnd.region), [createEventFd()]),
    log: /not a regular file/,
  },
  {
    title: 'a region to remove that is not there',
    commit: async frontEnd => refused('REM_MEM_REG', regionMessage(frontEnd.region))(frontEnd),
    log: /REM_MEM_REG/,
  },
  {
    title: 'a ring that the device does not have',
    commit: refused('SET_VRING_NUM', payloads.state(1000, 64)),
    log: /ring 1000 does not exist/,
  },
  {
    title: 'a kick that is no doorbell',
    commit: async frontEnd => {
      expect(await frontEnd.accepts('ADD_MEM_REG', regionMessage(frontEnd.region), [frontEnd.file])).toBe(
        true,
      );
      const config = { size: 8, features: 0n, descriptorArea: 0, driverArea: 0x1000, deviceArea: 0x2000 };
      const file = createMemfd({ name: 'no-doorbell', size: 0 });
      expect(await frontEnd.accepts('SET_VRING_NUM', payloads.state(0, config.size))).toBe(true);
      expect(await frontEnd.accepts('SET_VRING_ADDR', payloads.addresses(config, 0))).toBe(true);
      expect(await frontEnd.accepts('SET_VRING_ENABLE', payloads.state(0, 1))).toBe(true);
      await refusedWith(frontEnd, 'SET_VRING_KICK', payloads.u64(0), [file]);
    },
    log: /doorbell/,
  },
  {
    title: 'a ring of three entries',
    commit: async frontEnd => {
      expect(await frontEnd.accepts('ADD_MEM_REG', regionMessage(frontEnd.region), [frontEnd.file])).toBe(
        true,
      );
      const config = { size: 8, features: 0n, descriptorArea: 0, driverArea: 0x1000, deviceArea: 0x2000 };
      const kick = createEventFd();
      frontEnd.say('SET_VRING_NUM', payloads.state(0, 3));
      frontEnd.say('SET_VRING_ADDR', payloads.addresses(config, 0));
      frontEnd.say('SET_VRING_KICK', payloads.u64(0), [kick]);
      frontEnd.say('SET_VRING_ENABLE', payloads.state(0, 1));
      await frontEnd.ask('GET_QUEUE_NUM');
      kick.close();
    },
    log: /not a power of two/,
  },
  {
    title: 'configuration far beyond its end',
    commit: async frontEnd => {
      // The protocol's "no" to a question is an answer of size 0.
      const answer = await frontEnd.ask('GET_CONFIG', payloads.config(250, 100));
      expect(CONFIG_HEADER.read(answer).size).toBe(0);
      expect(await frontEnd.accepts('SET_CONFIG', payloads.config(0, 100, new Uint8Array(4)))).toBe(false);
    },
    log: /SET_CONFIG of 100 bytes|GET_CONFIG of 100 bytes/,
  },
  {
    title: 'a message of another version',
    commit: async frontEnd => frontEnd.sayRaw({ request: FRONTEND_REQUEST.SET_OWNER, flags: 2, size: 0 }),
    log: /protocol version 2/,
    fatal: true,
  },
  {
    title: 'a message of 4 GiB',
    commit: async frontEnd =>
      frontEnd.sayRaw({ request: FRONTEND_REQUEST.SET_MEM_TABLE, size: 2 ** 32 - 1 }, new Uint8Array(100)),
    log: /announces 4294967295 bytes/,
    fatal: true,
  },
  {
    title: 'descriptors in the middle of a message',
    commit: async frontEnd => {
      const request = FRONTEND_REQUEST.SET_VRING_KICK;
      const bytes = new Uint8Array(HEADER.size + 8);
      HEADER.write(new DataView(bytes.buffer), 0, { request, flags: 1, size: 8 });
      const kick = createEventFd();
      frontEnd.socket.send(bytes.subarray(0, HEADER.size));
      frontEnd.socket.send(bytes.subarray(HEADER.size), [kick]);
      kick.close();
    },
    log: /in the middle of a message/,
    fatal: true,
  },
  {
    title: 'questions without end, and reads no answer',
    commit: async frontEnd => {
      const question = HEADER.encode({ request: FRONTEND_REQUEST.GET_FEATURES, flags: 1, size: 0 });
      const many = new Uint8Array(question.length * 4096);
      for (let at = 0; at < many.length; at += question.length) many.set(question, at);
      await frontEnd.loop.turnUntil(() => {
        try {
          frontEnd.socket.send(many);
          return false;
        } catch {
          return true;
        }
      });
    },
    log: /does not read what it asked for/,
    fatal: true,
  },
];

const nameOf = (breach: Breach): string => `guest${BREACHES.indexOf(breach)}`;

describe('a front-end that sends', () => {
  let loop: TestLoop;
  let daemon: DaemonProcess;
  let neighbour: Neighbour;

  beforeAll(async () => {
    build();
    loop = new TestLoop();
    daemon = await DaemonProcess.start([NEIGHBOUR, ...BREACHES.map(nameOf)]);
    neighbour = await Neighbour.connect(daemon, loop);
  });

  afterAll(async () => {
    neighbour?.close();
    await daemon?.stop();
    loop.close();
  });

  const descriptorsOfDaemon = (): number => readdirSync(`/proc/${daemon.child.pid}/fd`).length;

  test.each(BREACHES)('$title', async breach => {
    const { commit, log, fatal = false } = breach;
    const name = nameOf(breach);
    const before = descriptorsOfDaemon();
    const frontEnd = new RawFrontEnd(daemon.socketOf(name), loop);
    try {
      await frontEnd.negotiate();
      await neighbour.livesThrough(() => commit(frontEnd));
      if (fatal) await frontEnd.dropped();
      else expect((await frontEnd.ask('GET_QUEUE_NUM')).byteLength).toBe(8);
      const { counters, lastError } = await daemon.untilGuest(name, ({ lastError }) => lastError !== null);
      expect(counters.badRequests).toBeGreaterThan(0);
      expect(lastError).toMatch(log);
      await daemon.until(
        () => complaintsOf(daemon, name).length > 0,
        () => 'nothing in the log',
      );
      expect(complaintsOf(daemon, name).filter(line => log.test(line))).not.toEqual([]);
    } finally {
      frontEnd.close();
    }
    await daemon.untilGuest(name, ({ connected }) => !connected);
    await daemon.until(
      () => descriptorsOfDaemon() <= before,
      () => `${descriptorsOfDaemon()} descriptors in the daemon, ${before} before`,
    );
    const next = await HandGuest.connect(daemon.socketOf(name), { loop });
    await next.inflate(FIRST_PAGE, 10);
    expect((await daemon.control.guest(name)).balloonedBytes).toBe(10 * PAGE_SIZE);
    next.close();
  });
});
