/**
 * What the device counts whatever queue it is of; parts have counters of their own beside these. Every figure only ever
 * rises while the device lives, resets and reconnects included, so that rates can be taken from differences.
 */
export class DeviceCounters {
  buffers = 0;
  listBytes = 0;
  notifications = 0;
  kicks = 0;
  badBuffers = 0;
  badPages = 0;
  brokenRings = 0;
  resets = 0;
}
