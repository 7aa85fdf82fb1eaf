/** What tidy.test.ts lets pass, and why. The lists may only shrink: what is no longer needed fails there as well. */

export type Exceptions = readonly { readonly because: string; readonly what: readonly string[] }[];

/** `FILE NAME`: exported and imported by tests alone. */
export const SEEN_BY_TESTS: Exceptions = [
  {
    because:
      "What Linux guests are made of: QEMU's, which only tests start, as well as the product's (test/peers/qemu/boot.ts).",
    what: [
      'src/peers/linux/initramfs.ts packInitramfs',
      'src/peers/qemu/cloud-kernel.ts moduleName',
      'src/peers/qemu/cloud-kernel.ts readModule',
    ],
  },
  {
    because:
      'Bounds that a test goes up to and beyond. It takes them from where they are declared, so that it keeps meeting them.',
    what: [
      'src/balloon/formats/sg.ts EXTENT_BYTES_MAX',
      'src/control/judgement.ts TOLERANCE_BYTES',
      'src/device/inflation.ts PENDING_BYTES_MAX',
      'src/hosting/target-watch.ts STUCK_MS',
      'src/hosting/target-watch.ts SWINGS_MAX',
      'src/hosting/target-watch.ts SWING_WINDOW_MS',
      'src/hosting/target-watch.ts RETRY_MS_MIN',
      'src/hosting/target-watch.ts RETRY_MS_MAX',
      'src/hosting/thread-turns.ts ACTIVE_MS',
      'src/hosting/thread-turns.ts SPAN_MS',
      'src/hosting/thread-turns.ts DEALT_OUT',
      'src/hosting/thread-turns.ts REST_MS_MAX',
      'src/memory/patient-discarder.ts PATIENCE_MS',
      'src/memory/discard-claims.ts DENSE_RUN_BYTES',
      'src/peers/qemu/qmp.ts QMP_LINE_BYTES_MAX',
      'src/server/api.ts BODY_BYTES_MAX',
      'src/server/event-stream.ts STREAMS_MAX',
      'src/sys/fd.ts SHORT_WRITE_BYTES_MAX',
      'src/threads/lane-turns.ts REGION_MS',
      'src/threads/lane-turns.ts LANE_MS',
    ],
  },
  {
    because:
      'Pure parts of one file, each held by itself to texts of real programs or to figures that are known beforehand.',
    what: [
      'src/bench/policy/figures.ts dominates',
      'src/bench/scatter-chart.ts frontOf',
      'src/cli/console.ts completed',
      'src/cli/keys.ts keysIn',
      'src/demo/keeper.ts wantedBytes',
      'src/driver/saved-driver.ts decodeDriver',
      'src/peers/debian/sources.ts parseStanzas',
      'src/peers/debian/sources.ts parseLines',
      'src/peers/linux/channel.ts escapeScript',
      'src/peers/linux/channel.ts parseGuestLine',
      'src/peers/uml/memory-directory.ts mountOptions',
      'src/peers/uml/memory-directory.ts inspectMemoryDirectory',
      'src/policy/anchors/senpai.ts adjustment',
      'src/policy/anchors/vmware.ts minFree',
      'src/policy/anchors/vmware.ts price',
      'src/qemu/process-memory.ts areasOf',
      'src/qemu/process-memory.ts residentOf',
      'src/sim/policy/fairness.ts belowFair',
    ],
  },
  {
    because: 'A type that the compiler names in the declarations of what is exported.',
    what: ['src/sys/struct.ts Struct'],
  },
  {
    because: 'Tables and flags that tests hold against what they describe.',
    what: ['src/bench/page/browser.ts CHROMIUM_FLAGS', 'web/src/requests.ts REQUEST_ABIS'],
  },
  {
    because: 'What a process has left behind, counted: tests prove with it that nothing is.',
    what: [
      'src/peers/process-group.ts processesOfGroup',
      'src/sys/peer-doorbell.ts ringsWithoutWaiting',
      'src/sys/peer-doorbell.ts ringEventFd',
      'src/sys/shed.ts closingsUnderWay',
    ],
  },
  {
    because: 'One of two ways to the same end, of which this machine takes one: tests take both.',
    what: [
      'src/migration/stream/compression.ts zstdOfNode',
      'src/migration/stream/compression.ts zstdOfHost',
      'src/sys/fd.ts writeShort',
    ],
  },
];

/** `FILE NAME` */
export const LONG_FUNCTIONS: Exceptions = [];

/** `FILE` */
export const LONG_FILES: Exceptions = [
  {
    because: 'A table: one entry after the other, to be read where one looks something up.',
    what: ['src/server/schemas/answers.ts', 'src/sys/error-codes.ts'],
  },
];

/** `FILE` */
export const LONG_LINES: Exceptions = [];
