/**
 * The bytes of a saved device: what its configuration shows, how its target was given, the newest statistics, and the
 * account of ballooned pages, as runs. What was negotiated and where the rings stand comes with the driver, as ever with vhost-user. What the guest
 * had reported as free is not among it: at the next host nothing of it was discarded, so it is reported there anew.
 *
 * The bytes come from a stranger. They are read as a whole, and only then does anything change.
 */
import { AerostatError } from '../sys/error.ts';
import {
  assertShaped,
  type Fields,
  flag,
  naturalNumber,
  nullable,
  oneOf,
  record,
  type ShapedFields,
  text,
} from '../sys/shape.ts';
import type { BalloonDevice } from './balloon-device.ts';

/** What hosts of before read as well. */
const VERSION = 1;
/** The same with what the guest is to keep; only a device that was given its target like that is saved so. */
const VERSION_WITH_WISH = 2;
/** For another device of the same host, in a process that takes the guest over while its driver runs on. */
const VERSION_HANDED_OVER = 3;
/** The length of the header, le32. */
const LENGTH_BYTES = 4;
/** A header has a dozen numbers and the statistics: under a kilobyte. */
const HEADER_BYTES_MAX = 16_384;
/** A run is its first page frame and its pages, le32 each. */
const RUN_BYTES = 8;
/** 16 TiB: the standard's lists name no page above it, but proposals' lists can. */
const PFN_MAX = 0xffff_ffff;

/** A saved device that cannot go on here. */
export class DeviceStateError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_DEVICE_STATE', `saved device refused: ${message}`);
  }
}

const START = { profile: text(/^.{0,64}$/) };

/** What each version has beside the fields of the device and its parts. */
const VERSIONS = {
  [VERSION]: { version: oneOf([VERSION]), ...START },
  [VERSION_WITH_WISH]: { version: oneOf([VERSION_WITH_WISH]), ...START, wishedMemoryBytes: naturalNumber },
  [VERSION_HANDED_OVER]: {
    version: oneOf([VERSION_HANDED_OVER]),
    ...START,
    wishedMemoryBytes: nullable(naturalNumber),
    begun: flag,
    partial: flag,
    settled: flag,
    actualKnown: flag,
  },
} as const;

/** The header of a device: its own fields, those of its parts, and what its guest is to keep. */
type Header = { [V in keyof typeof VERSIONS]: ShapedFields<(typeof VERSIONS)[V]> }[keyof typeof VERSIONS];

/** @throws DeviceStateError unless `header` is one of `device` */
function assertHeader(device: BalloonDevice, header: unknown): asserts header is Header {
  const { version } = Object(header) as { version?: unknown };
  const own = Object.entries(VERSIONS).find(([number]) => Number(number) === version)?.[1];
  if (own === undefined)
    throw new DeviceStateError(`its version is none of ${Object.keys(VERSIONS).join(', ')}`);
  const fields: Fields = Object.assign({}, own, ...device.saved.map(({ shape }) => shape));
  assertShaped(record(fields), header, fault => {
    throw new DeviceStateError(fault);
  });
}

/**
 * Saves a device whose rings have stopped. `wishedMemoryBytes` is what its guest is to keep, where its target was given
 * as that, else null.
 * @throws DeviceStateError when its balloon has pages whose frame numbers take more than 32 bits, or its guest has lent the
 *   state of its allocator: another device would not know which frames are held
 */
export function saveDevice(device: BalloonDevice, wishedMemoryBytes: number | null = null): Uint8Array {
  return encode(
    device,
    wishedMemoryBytes === null ? { version: VERSION } : { version: VERSION_WITH_WISH, wishedMemoryBytes },
  );
}

/**
 * Saves a device whose rings are suspended, for another one on this host. Its driver does not notice: buffers that the device
 * has not returned are taken again, and {@link loadDevice} discards nothing before the inflate ring starts.
 * @throws DeviceStateError as {@link saveDevice}
 */
export function saveForSuccessor(device: BalloonDevice, wishedMemoryBytes: number | null = null): Uint8Array {
  const { tenure } = device.inflation;
  return encode(device, { version: VERSION_HANDED_OVER, wishedMemoryBytes, ...tenure });
}

function encode(device: BalloonDevice, head: object): Uint8Array {
  if (device.shared.lent) throw new DeviceStateError('its guest has lent its allocator, and cannot move');
  const header = new TextEncoder().encode(
    JSON.stringify({
      ...head,
      profile: device.profile.name,
      ...Object.assign({}, ...device.saved.map(fields => fields.save())),
    }),
  );
  const runs: number[] = [];
  for (const { region, ballooned } of device.accounts.all) {
    ballooned.forEachRun((page, count) => {
      const pfn = region.firstPfn + page;
      if (pfn + count > PFN_MAX + 1) throw new DeviceStateError(`its balloon has pages above ${pfn}`);
      runs.push(pfn, count);
    });
  }
  const bytes = new Uint8Array(LENGTH_BYTES + header.length + runs.length * 4);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, header.length, true);
  bytes.set(header, LENGTH_BYTES);
  const start = LENGTH_BYTES + header.length;
  runs.forEach((number, index) => {
    view.setUint32(start + index * 4, number, true);
  });
  return bytes;
}

/**
 * Lets a fresh device go on where the saved one stopped: after the guest's memory is there, before any ring runs. What
 * the balloon holds is given back to this host before it returns. Returns what the guest is to keep, where its target was
 * given as that, else null.
 * @throws DeviceStateError, having changed nothing
 */
export function loadDevice(device: BalloonDevice, bytes: Uint8Array): number | null {
  const { header, runs } = readSaved(device, bytes);
  let end = 0;
  for (let at = 0; at < runs.length; at += 2) {
    const [pfn, count] = runs.subarray(at, at + 2);
    const region = device.accounts.all.find(
      account =>
        pfn >= account.region.firstPfn && pfn + count <= account.region.firstPfn + account.region.pageCount,
    );
    if (count === 0 || pfn < end || region === undefined) {
      throw new DeviceStateError(`its balloon cannot have ${count} pages from frame ${pfn}`);
    }
    end = pfn + count;
  }
  if (header.version !== VERSION_HANDED_OVER) device.inflation.adopt(runs);
  for (const fields of device.saved) fields.load(header);
  if (header.version === VERSION_HANDED_OVER) device.inflation.takeOver(runs, header);
  return header.version === VERSION ? null : header.wishedMemoryBytes;
}

/**
 * Whether a device may become what was saved, as far as that can be told before the guest's memory is there.
 * @throws DeviceStateError
 */
export function checkSavedDevice(device: BalloonDevice, bytes: Uint8Array): void {
  readSaved(device, bytes);
}

function readSaved(device: BalloonDevice, bytes: Uint8Array): { header: Header; runs: Uint32Array } {
  const { header, runs } = decode(bytes);
  assertHeader(device, header);
  if (header.profile === device.profile.name) return { header, runs };
  throw new DeviceStateError(`it spoke ${header.profile}, and this one speaks ${device.profile.name}`);
}

function decode(bytes: Uint8Array): { header: unknown; runs: Uint32Array } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = bytes.length < LENGTH_BYTES ? HEADER_BYTES_MAX : view.getUint32(0, true);
  const start = LENGTH_BYTES + length;
  if (length > HEADER_BYTES_MAX || start > bytes.length || (bytes.length - start) % RUN_BYTES !== 0) {
    throw new DeviceStateError('it is cut short');
  }
  let header: unknown;
  try {
    header = JSON.parse(
      new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(LENGTH_BYTES, start)),
    );
  } catch {
    throw new DeviceStateError('its header is not JSON');
  }
  const runs = new Uint32Array((bytes.length - start) / 4);
  for (let index = 0; index < runs.length; index++) runs[index] = view.getUint32(start + index * 4, true);
  return { header, runs };
}
