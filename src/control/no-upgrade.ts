/** What no other process can take the place of: a program that is no daemon, or none that was started to be replaced. */
import { AerostatError } from '../sys/error.ts';
import type { HostHandlers } from './operations.ts';

export const noUpgrade: HostHandlers<'upgrade'> = {
  upgrade: async () => {
    throw new AerostatError(
      'AEROSTAT_HAND_OVER',
      'what answers here is not "aerostat device", and cannot be upgraded while it runs; end it and start it anew',
    );
  },
};
