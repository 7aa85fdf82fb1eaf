/**
 * `aerostat/testing`: what tests of devices and drivers are made of. A {@link HandQueue} is both sides of one queue, moved
 * by hand; a {@link BackendConversation} says messages of vhost-user to a device, without a socket; `heapMemory` is guest
 * memory that needs no file. None of it belongs to any test runner.
 */
export { AerostatError, type ErrorCode, InvariantError, SystemError } from '../sys/error.ts';
export { BackendConversation, type Complaint, type Said } from './conversation.ts';
export {
  type GuestBuffer,
  HandQueue,
  type HandQueueOptions,
  type Returned,
  type TestedDevice,
} from './hand-queue.ts';
export { heapMemory, placer } from './heap-memory.ts';
