/** What tidy.test.ts lets pass, and why. The lists may only shrink: what is no longer needed fails there as well. */

export type Exceptions = readonly { readonly because: string; readonly what: readonly string[] }[];

/** `FILE NAME`: exported and imported by tests alone. */
export const SEEN_BY_TESTS: Exceptions = [
  {
    because:
      'Machines of real peers that tests start and drive; the product starts their programs in other ways.',
    what: [
      'src/peers/qemu/cloud-kernel.ts KernelName',
      'src/peers/qemu/cloud-kernel.ts privateKernel',
      'src/peers/qemu/cloud-kernel.ts requirePrivateKernel',
      'src/peers/qemu/guest.ts QemuLinuxOptions',
      'src/peers/qemu/guest.ts QemuGuest',
      'src/peers/qemu/programs.ts findQemu',
      'src/peers/qemu/programs.ts missingDefaultQemu',
      'src/peers/qemu/programs.ts missingQemu',
      'src/peers/qemu/programs.ts requireQemu',
      'src/peers/uml/kernel.ts missingForUml',
    ],
  },
  {
    because: "QEMU's monitor as tests of the product steer and watch it from the other side.",
    what: [
      'src/peers/qemu/qmp-commands.ts cont',
      'src/peers/qemu/qmp-commands.ts stop',
      'src/peers/qemu/qmp.ts QMP_LINE_BYTES_MAX',
    ],
  },
  {
    because: 'Readers and writers of what others print, each tested by itself on real text.',
    what: [
      'src/cli/console.ts completed',
      'src/cli/keys.ts keysIn',
      'src/demo/keeper.ts wantedBytes',
      'src/driver/saved-driver.ts decodeDriver',
      'src/peers/debian/sources.ts parseStanzas',
      'src/peers/debian/sources.ts parseLines',
      'src/peers/linux/channel.ts escapeScript',
      'src/peers/linux/channel.ts parseGuestLine',
      'src/peers/process-group.ts processesOfGroup',
      'src/peers/uml/memory-directory.ts mountOptions',
      'src/peers/uml/memory-directory.ts inspectMemoryDirectory',
      'src/qemu/process-memory.ts areasOf',
      'src/qemu/process-memory.ts residentOf',
      'src/server/address.ts runtimeDirectory',
      'src/sys/error.ts errnoName',
    ],
  },
  {
    because: 'Bounds that a test goes up to and beyond; it takes them from where they are declared.',
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
      'src/migration/page-sender.ts STRIPE_PAGES',
      'src/migration/stream/section.ts FLAG_OPTIONAL',
      'src/server/api.ts BODY_BYTES_MAX',
      'src/server/event-stream.ts STREAMS_MAX',
      'src/sys/fd.ts SHORT_WRITE_BYTES_MAX',
      'src/threads/lane-turns.ts REGION_MS',
      'src/threads/lane-turns.ts LANE_MS',
    ],
  },
  {
    because: 'Tables and flags that tests hold against what they describe.',
    what: [
      'src/bench/page/browser.ts CHROMIUM_FLAGS',
      'src/control/guest-state.ts STATE_WORDS',
      'web/src/requests.ts REQUEST_ABIS',
    ],
  },
  {
    because: 'What a process has left behind, counted: tests prove with it that nothing is.',
    what: [
      'src/sys/peer-doorbell.ts ringsWithoutWaiting',
      'src/sys/peer-doorbell.ts ringEventFd',
      'src/sys/shed.ts closingsUnderWay',
    ],
  },
  {
    because: 'Errors that tests expect by their class.',
    what: ['src/cli/rate.ts RateError', 'src/server/token.ts TokenError', 'src/sys/libzstd.ts ZstdError'],
  },
  {
    because: 'Functions that a test calls by themselves, for what cannot be had from outside.',
    what: [
      'src/sim/policy/fairness.ts belowFair',
      'src/migration/stream/compression.ts zstdOfNode',
      'src/migration/stream/compression.ts zstdOfHost',
      'src/sys/fd.ts writeShort',
    ],
  },
  {
    because: 'Rooms that are being cut anew; the list is to be gone through when they are.',
    what: [
      'src/policy/anchors/senpai.ts adjustment',
      'src/policy/anchors/vmware.ts minFree',
      'src/policy/anchors/vmware.ts price',
      'src/sim/policy/run.ts PolicyRun',
    ],
  },
  {
    because: 'Types of what tests build and read.',
    what: [
      'src/bench/peer-process.ts PeerProcessOptions',
      'src/bench/policy/figures.ts dominates',
      'src/bench/scatter-chart.ts frontOf',
      'src/migration/destination-link.ts Reply',
      'src/server/event-parser.ts ParsedEvent',
      'src/sys/error-codes.ts ErrorDeclaration',
      'src/sys/struct.ts Struct',
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
