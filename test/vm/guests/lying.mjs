// A guest's thread whose driver lies in the hint queue: about pages in use, pages that are none, pages named before, ids
// that are over or never were; out of turn, and late. What it says about its other queues is true. `?seed=N` names all
// that it does.
import { DriverRing } from '../../../dist/driver/driver-ring.js';
import { Random } from '../../../dist/guest/random.js';

const random = new Random(Number(new URL(import.meta.url).searchParams.get('seed')));
const PAGE = 4096;
/** The kernel's own memory at the bottom, which this guest uses for nothing else. */
const COMMANDS = 16 * PAGE;
const ID_MIN = 0x8000_0000;
const LATE_MS_MAX = 60;
/** A driver numbers its command buffers from 0; this is a block. */
const BLOCK = 3;

const pick = lies => lies[random.below(lies.length)];
const commandOf = (ring, id, length = 4) => {
  const address = COMMANDS + random.below(256) * 8;
  ring.memory.setU32(address, id);
  ring.segments.clear().addReadable(address, length);
};
const blockOf = (ring, address, length) => ring.segments.clear().addWritable(address, length);
const anyPage = ring => random.below(ring.memory.size / PAGE) * PAGE;

const LIES = [
  // Pages in use, or perhaps not: this driver does not look.
  ring => blockOf(ring, anyPage(ring), PAGE),
  ring => blockOf(ring, anyPage(ring), 256 * PAGE),
  ring => blockOf(ring, 0, ring.memory.size),
  // No memory, and no pages.
  ring => blockOf(ring, ring.memory.size + random.below(2 ** 20) * PAGE, 4 * PAGE),
  ring => blockOf(ring, 2 ** 45, PAGE),
  ring => blockOf(ring, anyPage(ring) + 12, PAGE),
  ring => blockOf(ring, anyPage(ring), 100),
  // STOP in the middle, DONE which is not its to say, ids that are over or to come, and no ids at all.
  ring => commandOf(ring, 0),
  ring => commandOf(ring, 1),
  ring => commandOf(ring, ID_MIN + random.below(40)),
  ring => commandOf(ring, random.u32()),
  ring => commandOf(ring, 0, 3),
  ring => commandOf(ring, 0, 8),
];

/** Only what the ring has room for, beside the STOP of a session. */
const addLie = (ring, lie) => {
  if (!ring.hasRoom(4)) return;
  lie(ring);
  add.call(ring, BLOCK);
};

const add = DriverRing.prototype.add;
DriverRing.prototype.add = function (token, table) {
  if (this.role !== 'hint') return add.call(this, token, table);
  // A block may come twice, and something else may come before the truth and behind it.
  const added = add.call(this, token, table);
  if (token === BLOCK && this.hasRoom(4) && random.chance(0.3)) add.call(this, BLOCK);
  while (random.chance(0.5)) addLie(this, pick(LIES));
  return added;
};

const flush = DriverRing.prototype.flush;
DriverRing.prototype.flush = function () {
  const late = this.role === 'hint' && random.chance(0.5);
  if (late) this.world.scheduler.schedule(random.below(LATE_MS_MAX), () => flush.call(this));
  else flush.call(this);
};

await import('../../../dist/vm/guest-worker.module.js');
