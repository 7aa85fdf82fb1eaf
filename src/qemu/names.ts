/** What hypervisors call guests, statistics and features, and what we call them. */
import { noStatistics, type StatisticName, type Statistics } from '../balloon/statistics.ts';
import type { QemuGuestStats } from '../peers/qemu/qmp-commands.ts';

/** QEMU's names for the statistics of VIRTIO 1.4, 5.5.6.3. */
const STATISTIC_BY_QEMU_NAME: Readonly<Record<string, StatisticName>> = {
  'stat-swap-in': 'swapInBytes',
  'stat-swap-out': 'swapOutBytes',
  'stat-major-faults': 'majorFaults',
  'stat-minor-faults': 'minorFaults',
  'stat-free-memory': 'freeBytes',
  'stat-total-memory': 'totalBytes',
  'stat-available-memory': 'availableBytes',
  'stat-disk-caches': 'cacheBytes',
  'stat-htlb-pgalloc': 'hugetlbAllocations',
  'stat-htlb-pgfail': 'hugetlbFailures',
  'stat-oom-kills': 'oomKills',
  'stat-alloc-stalls': 'allocationStalls',
  'stat-async-scans': 'asyncScannedPages',
  'stat-direct-scans': 'directScannedPages',
  'stat-async-reclaims': 'asyncReclaimedPages',
  'stat-direct-reclaims': 'directReclaimedPages',
};

/** Features that QEMU calls something else than the specification. */
const RENAMED_FEATURES: Readonly<Record<string, string>> = {
  VIRTIO_BALLOON_F_REPORTING: 'page-reporting',
  VIRTIO_F_IOMMU_PLATFORM: 'access-platform',
};

/** `VIRTIO_BALLOON_F_STATS_VQ` is `stats-vq`, `VIRTIO_RING_F_EVENT_IDX` is `ring-event-idx`. */
export function featureName(name: string): string {
  const known = RENAMED_FEATURES[name];
  if (known !== undefined) return known;
  const bare = name.replace(/^VIRTIO_(?:BALLOON_F_|F_)?/, '').replace(/^RING_F_/, 'RING_');
  return bare.toLowerCase().replaceAll('_', '-');
}

/** A guest's name has so many letters at most. */
export const NAME_LENGTH_MAX = 64;

/** What a hypervisor or a file calls a guest, as a guest's name may be here: letters, digits, dots and dashes. */
export function cleanedName(name: string): string {
  const plain = name.replaceAll(/[^A-Za-z0-9._-]/g, '-').slice(0, NAME_LENGTH_MAX);
  return /^[A-Za-z0-9]/.test(plain) ? plain : `vm${plain}`.slice(0, NAME_LENGTH_MAX);
}

export function statisticsOf({ values }: QemuGuestStats): Statistics {
  const statistics = noStatistics();
  for (const [name, value] of values) {
    const known = STATISTIC_BY_QEMU_NAME[name];
    if (known !== undefined) statistics[known] = value;
  }
  return statistics;
}
