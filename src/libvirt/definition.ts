/** What the definition of a domain says of its balloon: the XML that libvirt itself writes, never a person's own. */

export interface BalloonDefinition {
  readonly hasBalloon: boolean;
  /** What the device offers; whether the guest's driver took it is not told. */
  readonly features: readonly string[];
  /** Seconds; 0 where statistics are not asked for. */
  readonly statisticsPeriod: number;
}

/** QEMU's device has statistics in any case. */
const ALWAYS = 'stats-vq';

export function balloonIn(xml: string): BalloonDefinition {
  // The metadata of other programs may hold any elements, before the devices.
  const devices = xml.slice(Math.max(0, xml.indexOf('<devices>')));
  const [element, attributes, body = ''] =
    /<memballoon\b([^>]*?)(?:\/>|>([\s\S]*?)<\/memballoon>)/.exec(devices) ?? [];
  if (element === undefined || attributeOf(attributes, 'model') === 'none') {
    return { hasBalloon: false, features: [], statisticsPeriod: 0 };
  }
  const features = [ALWAYS];
  if (attributeOf(attributes, 'autodeflate') === 'on') features.push('deflate-on-oom');
  if (attributeOf(attributes, 'freePageReporting') === 'on') features.push('page-reporting');
  const period = Number(/<stats\b[^>]*\bperiod='(\d+)'/.exec(body)?.[1] ?? 0);
  return { hasBalloon: true, features, statisticsPeriod: period };
}

const attributeOf = (attributes: string, name: string): string | undefined =>
  new RegExp(`\\b${name}='([^']*)'`).exec(attributes)?.[1];
