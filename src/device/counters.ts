/**
 * What the device counts. Every figure only ever rises while the device lives, resets and reconnects
 * included, so that rates can be taken from differences.
 */
import { DurationHistogram } from '../sys/durations.ts';

export class DeviceCounters {
  buffers = 0;
  inflateBuffers = 0;
  deflateBuffers = 0;
  reportingBuffers = 0;
  hintBuffers = 0;
  statsBuffers = 0;
  /** From taking a buffer of the inflate or deflate queue to its return; a batch's buffers count alike. */
  readonly acknowledgeTimes = new DurationHistogram();
  listBytes = 0;
  /** Milliseconds spent on turning lists into the account's pages; counted only where decoding is timed. */
  decodeMs = 0;
  pages = 0;
  deflatedPages = 0;
  reportedPages = 0;
  hintedPages = 0;
  notifications = 0;
  kicks = 0;
  badBuffers = 0;
  badPages = 0;
  unknownPages = 0;
  brokenRings = 0;
  resets = 0;
}
