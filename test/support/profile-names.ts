/**
 * The profiles that the kernel on the buddy allocator speaks each in a way of its own. It cannot lend that allocator, so
 * that of `shared` it has what it has of `virtio`; guests that can are in test/driver/shared-frames.test.ts and
 * test/embedded/shared.test.ts.
 */
import { PROFILE_NAMES } from '../../src/balloon/profiles.ts';

export const EMBEDDED_PROFILES = PROFILE_NAMES.filter(name => name !== 'shared');
