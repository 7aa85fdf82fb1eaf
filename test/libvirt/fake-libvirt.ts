/** A libvirt of which a test says what domains it has, and what becomes of those that move. */
import type { LibvirtAsker } from '../../src/libvirt/connection.ts';
import type { LibvirtQuestion } from '../../src/libvirt/questions.ts';
import { type Deferred, deferred } from '../../src/sys/deferred.ts';
import { AerostatError } from '../../src/sys/error.ts';
import type { DomainJob, DomainPlace } from '../../src/sys/libvirt.ts';
import type { LibvirtEvent } from '../../src/sys/libvirt-events.ts';

const KIB_OF_GIB = 2 ** 20;

export const WHOLE = `<domain><metadata><x:memballoon model='none'/></metadata><devices><disk/>
  <memballoon model='virtio' autodeflate='on' freePageReporting='on'>
    <stats period='5'/><alias name='balloon0'/>
  </memballoon></devices></domain>`;
export const PLAIN = `<domain><devices><memballoon model='virtio'/></devices></domain>`;
export const NONE = `<domain><devices><memballoon model='none'/></devices></domain>`;

interface FakeDomain {
  readonly uuid: string;
  readonly id: number;
  readonly xml: string;
  readonly numbers: Record<string, number>;
}

export class FakeLibvirt implements LibvirtAsker {
  readonly uri: string = 'test:///default';
  readonly domains = new Map<string, FakeDomain>();
  readonly asked: LibvirtQuestion[] = [];
  /** Other libvirts, by their URIs. */
  readonly others = new Map<string, FakeLibvirt>();
  failure: AerostatError | undefined;
  /** By the UUID of the domain. */
  readonly jobs = new Map<string, DomainJob>();
  readonly completed = new Map<string, DomainJob>();
  readonly places = new Map<string, Omit<DomainPlace, 'job'>>();
  /** The call of a migration that is under way. */
  moving: Deferred<undefined> | undefined;
  /** What libvirt says at once to a migration. */
  refusal: AerostatError | undefined;
  /** How many of its processes are open. */
  opened = 0;
  #started = 0;

  start(name: string, xml = WHOLE): Record<string, number> {
    const numbers = { 'state.state': 1, 'balloon.maximum': KIB_OF_GIB, 'balloon.current': KIB_OF_GIB };
    this.domains.set(name, { uuid: `uuid-of-${name}`, id: ++this.#started, xml, numbers });
    return numbers;
  }

  readonly ask = async (question: LibvirtQuestion): Promise<never> => {
    this.asked.push(question);
    if (this.failure !== undefined) throw this.failure;
    return this.#answer(question) as never;
  };

  another({ uri = this.uri }: { uri?: string }): LibvirtAsker {
    const other = uri === this.uri ? this : this.others.get(uri);
    if (other === undefined) {
      const refused = async () =>
        Promise.reject(new AerostatError('AEROSTAT_LIBVIRT', `nothing is at ${uri}`));
      return { uri, ask: refused, another: this.another, listen: () => {}, close: () => {} };
    }
    other.opened++;
    let isOpen = true;
    const close = () => {
      if (isOpen) other.opened--;
      isOpen = false;
    };
    return { uri, ask: other.ask, another: this.another, listen: () => {}, close };
  }

  /** Tells the control what happens, if it listens. */
  tell: (event: LibvirtEvent) => void = () => {};

  readonly listen = (hear: (event: LibvirtEvent) => void): void => {
    this.tell = hear;
  };

  close(): void {}

  /** The process or the libvirtd that moves a domain is lost. */
  lose(error: AerostatError): void {
    this.failure = error;
    this.moving?.reject(error);
  }

  #answer(question: LibvirtQuestion): unknown {
    if (question.ask === 'domains') {
      return [...this.domains].map(([name, { uuid, id, numbers }]) => ({
        name,
        uuid,
        id,
        numbers: { ...numbers },
      }));
    }
    if (question.ask === 'jobs') {
      return Object.fromEntries(
        question.uuids.flatMap(uuid => (this.jobs.has(uuid) ? [[uuid, this.jobs.get(uuid)]] : [])),
      );
    }
    if (question.ask === 'migrate') {
      if (this.refusal !== undefined) throw this.refusal;
      this.moving = deferred<undefined>();
      return this.moving.promise;
    }
    const domain = [...this.domains.values()].find(({ uuid }) => uuid === question.uuid);
    if (question.ask === 'place') {
      if (domain === undefined) return null;
      const job = this.jobs.get(domain.uuid) ?? null;
      return { state: 1, reason: 1, ...this.places.get(domain.uuid), job };
    }
    if (domain === undefined) throw new AerostatError('AEROSTAT_LIBVIRT', 'no domain');
    switch (question.ask) {
      case 'definition':
        return domain.xml;
      case 'completedJob':
        return this.completed.get(domain.uuid) ?? null;
      case 'setMemory':
        domain.numbers['balloon.current'] = question.kib;
        return undefined;
      case 'setStatisticsPeriod':
        domain.numbers['balloon.last-update'] = 1_800_000_000;
        domain.numbers['balloon.usable'] = KIB_OF_GIB / 2;
        domain.numbers['balloon.available'] = KIB_OF_GIB;
        return undefined;
      case 'abortJob':
        this.jobs.delete(domain.uuid);
        this.moving?.reject(
          new AerostatError('AEROSTAT_LIBVIRT_MIGRATION', 'libvirt cannot move it: canceled by client'),
        );
        return undefined;
      case 'setDowntime':
      case 'startPostcopy':
        return undefined;
    }
  }
}

/** What libvirt says of a migration that is under way. */
export const movingJob = (numbers: Readonly<Record<string, number>> = {}): DomainJob => ({
  underWay: true,
  isMigration: true,
  numbers: {
    operation: 5,
    time_elapsed: 1000,
    memory_total: 2 ** 30,
    memory_processed: 2 ** 28,
    memory_remaining: 3 * 2 ** 28,
    memory_bps: 2 ** 20,
    memory_iteration: 1,
    memory_dirty_rate: 100,
    memory_page_size: 4096,
    ...numbers,
  },
});
