// A guest's thread whose hints are late: its driver shows the device what it added to the hint queue only after a
// while, ids and blocks in their order, as if the queue were served slowly. All else is as it is installed.
import { DriverRing } from '../../../dist/driver/driver-ring.js';

/** Long enough for a round of a migration to end meanwhile. */
const LATE_MS = 60;

const flush = DriverRing.prototype.flush;
DriverRing.prototype.flush = function () {
  if (this.role === 'hint') this.world.scheduler.schedule(LATE_MS, () => flush.call(this));
  else flush.call(this);
};

await import('../../../dist/vm/guest-worker.module.js');
