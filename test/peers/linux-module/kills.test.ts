/**
 * The proposed ABIs in a real Linux kernel whose daemon is killed with -9, or upgraded: the driver of linux/ gives memory, takes
 * it back, answers requests, hints and reports over the channel of each generation, on one guest with a device for each. How
 * often is AEROSTAT_KILLS and AEROSTAT_UPGRADES.
 */
import { expect, test } from 'vitest';
import { driverModule, driverModuleComplaint } from '../../../src/peers/uml/driver-module.ts';
import { UmlGuest } from '../../../src/peers/uml/guest.ts';
import { findUmlKernels } from '../../../src/peers/uml/kernel.ts';
import { KeptDaemon } from '../../support/kept-daemon.ts';
import { describePeer, missingForUml } from '../../support/peers.ts';
import { ENDS_ASKED, type KilledDevice, survivesEnds, workingLinux } from '../front-ends/killed-daemon.ts';

const MIB = 2 ** 20;

/** Each kind of request, hints without DONE, and blocks that are isolated until their buffer is back. */
const DEVICES: readonly KilledDevice[] = [
  { name: 'bitmap', profile: 'page-bitmap', reports: false },
  { name: 'order', profile: 'page-order', reports: false },
  { name: 'chunks', profile: 'page-chunks', reports: false },
  { name: 'sg', profile: 'sg', reports: false },
  { name: 'hinting', profile: 'hinting', reports: true },
];
/** Once while each device does what it has for it. */
const ENDS = ENDS_ASKED ?? { kills: DEVICES.length, upgrades: DEVICES.length };
const PATIENCE_MS = 7_200_000;

const RINGS = ENDS_ASKED === undefined ? ['packed'] : ['packed', 'split'];

const kernels = findUmlKernels();
const kernel = kernels.find(found => found.fault === undefined && driverModuleComplaint(found) === undefined);
const missing = missingForUml() ?? (kernel === undefined ? driverModuleComplaint(kernels[0]) : undefined);

describePeer('the proposed ABIs in a real kernel whose daemon is killed and upgraded', missing, () => {
  test.each(RINGS)(
    'go on with %s rings: requests, hints and reports',
    async rings => {
      const without = rings === 'split' ? ['ring-packed'] : [];
      const balloonModule = await driverModule(kernel!);
      const guests = DEVICES.map(({ name, profile }) => ({ name, profile, without }));
      const kept = await KeptDaemon.start(guests);
      const guest = await UmlGuest.boot({
        memoryBytes: 512 * MIB,
        sockets: DEVICES.map(({ name }) => kept.daemon.socketOf(name)),
        moduleParameters: [`generation=${DEVICES.map(({ profile }) => profile).join(',')}`],
        kernel: { ...kernel!, balloonModule },
      });
      try {
        expect(DEVICES.filter(({ reports }) => reports)).toHaveLength(1);
        const world = { kept, guest: await workingLinux(guest), devices: DEVICES };
        await survivesEnds(`Linux ${kernel!.version}, ${rings} rings`, world, ENDS);
      } finally {
        await guest.shutdown();
        await kept.end();
      }
    },
    PATIENCE_MS,
  );
});
