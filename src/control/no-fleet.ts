/** A program that looks at no fleet. */
import { NO_FLEET } from './fleet.ts';
import type { HostHandlers } from './operations.ts';

export const noFleet: HostHandlers<'fleet'> = { fleet: async () => NO_FLEET };
