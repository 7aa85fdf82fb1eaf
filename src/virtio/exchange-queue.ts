/**
 * A driver's queue for questions and answers, one at a time: what a program writes that talks to a device and wants
 * neither rings nor status bits. It comes to terms with the device, lays the ring and two buffers into guest memory, and
 * sends. A driver that keeps many buffers under way has `createDriverQueue`.
 */
import type { GuestMemory } from '../memory/guest-memory.ts';
import { SegmentList } from './chain.ts';
import { createDriverQueue } from './create.ts';
import { RING_FEATURES, VERSION_1 } from './features.ts';
import { layoutOf } from './layout.ts';
import { type DriverQueue, type QueueConfig, VirtqueueUsageError } from './queue.ts';
import { DEVICE_STATUS, type VirtioTransport } from './transport.ts';

const { ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK } = DEVICE_STATUS;

export interface ExchangeQueueOptions {
  readonly device: VirtioTransport;
  readonly memory: GuestMemory;
  /** Guest address of the first byte that it may use. */
  readonly address: number;
  /** How long a question, and how long an answer can be. */
  readonly bytesMax: number;
  /** Which queue of the device; the first one when absent. */
  readonly index?: number;
  /** Device features that are taken where they are offered, beside those of rings. */
  readonly features?: bigint;
}

/** Descriptors: a question and its answer are two. */
const SIZE = 2;
const ALIGNMENT = 4096;

const alignedUp = (address: number): number => Math.ceil(address / ALIGNMENT) * ALIGNMENT;

export class ExchangeQueue {
  readonly #options: ExchangeQueueOptions;
  readonly #queue: DriverQueue;
  readonly #index: number;
  readonly #question: number;
  readonly #answer: number;
  readonly #used = { token: 0, written: 0 };
  #busy = false;

  private constructor(options: ExchangeQueueOptions, config: QueueConfig, buffers: number) {
    this.#options = options;
    this.#index = options.index ?? 0;
    this.#queue = createDriverQueue(config);
    this.#question = buffers;
    this.#answer = alignedUp(buffers + options.bytesMax);
  }

  /** Resets the device and sets it up with this one queue. @throws VirtqueueUsageError when it refuses the features */
  static async open(options: ExchangeQueueOptions): Promise<ExchangeQueue> {
    const { device, memory, features: wanted = 0n } = options;
    await device.reset();
    await device.writeStatus(ACKNOWLEDGE | DRIVER);
    const features = (await device.getFeatures()) & (VERSION_1 | RING_FEATURES | wanted);
    await device.setFeatures(features);
    await device.writeStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    if (((await device.readStatus()) & FEATURES_OK) === 0)
      throw new VirtqueueUsageError(`${device.description} refused the features 0x${features.toString(16)}`);
    const descriptorArea = alignedUp(options.address);
    const driverArea = alignedUp(descriptorArea + layoutOf({ size: SIZE, features }).descriptorArea.size);
    const deviceArea = driverArea + ALIGNMENT;
    const config: QueueConfig = { size: SIZE, features, descriptorArea, driverArea, deviceArea };
    const exchange = new ExchangeQueue(options, config, deviceArea + ALIGNMENT);
    exchange.#queue.initialize(memory);
    await device.enableQueue(exchange.#index, config);
    await device.writeStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    return exchange;
  }

  /**
   * Sends a question; resolves with what the device wrote. Rejects with the reason when the device goes away.
   * @throws VirtqueueUsageError while another one is under way, or when the question is too long
   */
  async exchange(question: Uint8Array): Promise<Uint8Array> {
    const { device, memory, bytesMax } = this.#options;
    if (this.#busy) throw new VirtqueueUsageError('an exchange is under way already');
    if (question.length === 0 || question.length > bytesMax)
      throw new VirtqueueUsageError(`a question of ${question.length} bytes; 1 to ${bytesMax} are possible`);
    this.#busy = true;
    memory.write(this.#question, question, 0, question.length);
    const segments = new SegmentList();
    segments.addReadable(this.#question, question.length);
    segments.addWritable(this.#answer, bytesMax);
    const answered = this.#answered();
    this.#queue.requestInterrupts(memory);
    this.#queue.addBuffer(memory, segments, 1);
    if (this.#queue.publish(memory)) device.kick(this.#index);
    const written = await Promise.race([answered, device.ended]);
    if (written instanceof Error) throw written;
    this.#busy = false;
    const answer = new Uint8Array(written);
    memory.read(this.#answer, answer, 0, written);
    return answer;
  }

  #answered(): Promise<number> {
    const { device, memory } = this.#options;
    return new Promise((resolve, reject) => {
      const end = device.onInterrupt(() => {
        try {
          if (!this.#queue.popUsed(memory, this.#used)) return;
          end();
          resolve(this.#used.written);
        } catch (error) {
          // The device wrote nonsense into the ring.
          end();
          reject(error);
        }
      });
    });
  }
}
