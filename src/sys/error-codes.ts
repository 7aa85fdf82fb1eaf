/**
 * Every error code, once: what it means, what to do about it, the exit code of a command that ends with it, and the HTTP
 * status of a request that is refused with it. `docs/errors.md` is made from this table. The classes that carry the
 * codes lie in the rooms that throw them.
 */

/** What a command ends with. Scripts test these numbers, so a number never changes its meaning. */
export const EXIT = {
  ok: 0,
  failed: 1,
  usage: 2,
  unreachable: 3,
  notReached: 4,
  unknownGuest: 5,
  guestState: 6,
  foundCost: 7,
  foundDanger: 8,
  hungUp: 129,
  interrupted: 130,
  terminated: 143,
} as const;

type ExitName = keyof typeof EXIT;
export type ExitCode = (typeof EXIT)[ExitName];

interface ErrorDeclaration {
  /** One sentence: what happened. */
  readonly meaning: string;
  /** One sentence: what the reader can do. */
  readonly remedy: string;
  /** `failed` where nothing is said. */
  readonly exit?: ExitName;
  /** HTTP status of the API's answer; 500 where nothing is said. */
  readonly status?: number;
}

const REPORT_BUG = 'This is a bug in Aerostat; please report it.';
const SEE_MESSAGE = 'The message says which value is wrong and what would be right.';
const RETRY_MIGRATION =
  'The guest runs on where it was; mend the cause that the message names and migrate again.';

const declarations = {
  // The command line
  AEROSTAT_USAGE: {
    meaning: 'The words of the command line do not fit together.',
    remedy: 'See `--help` of the command.',
    exit: 'usage',
  },
  AEROSTAT_SIZE: {
    meaning: 'A word that should be a size is none.',
    remedy: 'Write sizes as 512M or 7G.',
    exit: 'usage',
  },
  AEROSTAT_DURATION: {
    meaning: 'A word that should be a duration is none.',
    remedy: 'Write durations as 500ms, 5s or 2m.',
    exit: 'usage',
  },
  AEROSTAT_RATE: {
    meaning: 'A word that should be a rate is none.',
    remedy: 'Write rates as 100M or 1G: bytes a second.',
    exit: 'usage',
  },
  AEROSTAT_API_ADDRESS: {
    meaning: 'The address of the API is malformed.',
    remedy: 'Give a path of a Unix socket, or HOST:PORT.',
    exit: 'usage',
  },
  AEROSTAT_CONFIG: {
    meaning: 'The configuration file cannot be read, is malformed, or contradicts itself.',
    remedy:
      'Nothing was changed; the message says what is wrong, with line and column. `aerostat config explain` says what may be set.',
    exit: 'usage',
    status: 409,
  },
  AEROSTAT_FOUND_DANGER: {
    meaning: 'The command `doctor` found something dangerous.',
    remedy: 'Each finding says what to do; `--fail-on` says what counts.',
    exit: 'foundDanger',
  },
  AEROSTAT_FOUND_COST: {
    meaning: 'The command `doctor` found something that costs memory, or that was asked for by `--fail-on`.',
    remedy: 'Each finding says what to do; `--fail-on` says what counts.',
    exit: 'foundCost',
  },
  AEROSTAT_LIBVIRT: {
    meaning: 'A libvirt refused what was asked, or its daemon cannot be reached.',
    remedy: 'See that libvirtd runs, and that the user may use the URI: `virsh -c URI list` says the same.',
    exit: 'unreachable',
  },
  AEROSTAT_LIBVIRT_TIMEOUT: {
    meaning: 'The daemon of libvirt did not answer in time.',
    remedy: 'See whether libvirtd is stopped or overloaded; it is asked again after a while.',
    exit: 'unreachable',
  },
  AEROSTAT_LIBVIRT_ENDED: {
    meaning: 'The process that talks to libvirt ended.',
    remedy: 'It is started again after a while; a reason that repeats is worth a report.',
    exit: 'unreachable',
  },
  AEROSTAT_LIBVIRT_MIGRATION: {
    meaning: 'A libvirt did not move its domain.',
    remedy: 'The message has the reason that libvirt gave, where the domain is, and what to do.',
  },
  AEROSTAT_LIBVIRT_MIGRATION_UNKNOWN: {
    meaning: 'A libvirt went away while it moved a domain; where that runs is not known.',
    remedy: 'Look at both hosts (`virsh -c URI list --all`) before you start it anywhere.',
  },
  AEROSTAT_LIBVIRT_MISSING: {
    meaning: 'The library of libvirt is not on this machine.',
    remedy: 'Install it: libvirt0 of Debian, libvirt-libs of Fedora.',
  },
  AEROSTAT_MONITOR_DIRECTORY: {
    meaning: 'The directory that should hold the monitors of QEMUs is not there or cannot be read.',
    remedy:
      'Name the directory of the sockets, as /var/run/qemu-server of Proxmox, and run as a user who may read it.',
    exit: 'usage',
  },
  AEROSTAT_INTERRUPTED: {
    meaning: 'A signal ended the command.',
    remedy: 'Nothing; the command has put its things in order.',
    exit: 'interrupted',
  },
  AEROSTAT_NOT_REACHED: {
    meaning: 'The target was not reached in time.',
    remedy: 'Look at `aerostat status` and `aerostat stats`; the guest may have no more memory to give.',
    exit: 'notReached',
  },

  // A fleet
  AEROSTAT_FLEET_UNREACHABLE: {
    meaning: 'No server of NATS can be reached, JetStream does not answer, or no agent of the fleet does.',
    remedy: 'Check the servers and credentials; `aerostat fleet status` says which hosts are heard of.',
    exit: 'unreachable',
  },
  AEROSTAT_FLEET_REVISION: {
    meaning: 'Another agent of the fleet has written the same key meanwhile.',
    remedy: 'Nothing; the agent looks again.',
  },
  AEROSTAT_FLEET_REFUSED: {
    meaning: 'The leader of the fleet, or one of its hosts, refused what was asked.',
    remedy: 'The message says why; `aerostat fleet plan` says what stands in the way of moves.',
    exit: 'guestState',
  },
  AEROSTAT_FLEET_NAME: {
    meaning: 'Another agent of the fleet calls its host by the same name.',
    remedy: 'End that agent, or join with another --name.',
  },
  AEROSTAT_FLEET_REPLAY: {
    meaning: 'The audit stream does not lead to the state that the fleet is in.',
    remedy:
      'The lines above say where they differ: guests may have been moved by other means than the fleet.',
  },

  // Steering guests
  AEROSTAT_UNREACHABLE: {
    meaning: 'No daemon answers at the address, or what answers is not Aerostat.',
    remedy: 'Start the daemon, or name its address with --api.',
    exit: 'unreachable',
    status: 502,
  },
  AEROSTAT_UNKNOWN_GUEST: {
    meaning: 'No guest has this name.',
    remedy: '`aerostat status` lists the names.',
    exit: 'unknownGuest',
    status: 404,
  },
  AEROSTAT_HEADERS_TOO_LARGE: {
    meaning: 'The headers of a request are too large.',
    remedy: 'Send fewer, or shorter ones.',
    status: 431,
  },
  AEROSTAT_REQUEST_TIMEOUT: {
    meaning: 'A request did not come to its end in time.',
    remedy: 'Send it again, in one go.',
    status: 408,
  },
  AEROSTAT_SEVERAL: {
    meaning: 'Some of several guests could not be set, each for a reason of its own.',
    remedy: 'The lines above say which, and why; the others were set.',
  },
  AEROSTAT_UNCONFIRMED: {
    meaning: 'The guest says that it cannot spare as much as its balloon should hold.',
    remedy: 'Take less, or confirm it with `--force`, in the API with `"force": true`.',
    exit: 'guestState',
    status: 409,
  },
  AEROSTAT_GUEST_STATE: {
    meaning: 'The guest cannot do this now, or did not answer in time.',
    remedy: 'The message names the state that stands in the way.',
    exit: 'guestState',
    status: 409,
  },
  AEROSTAT_POLICY_OFF: {
    meaning: 'No memory policy looks after the guests there.',
    remedy: 'Start one with `aerostat policy run`, or name the address of its API with --api.',
    exit: 'guestState',
    status: 409,
  },
  AEROSTAT_RECORDING: {
    meaning: 'The file holds no samples that a policy could be replayed over.',
    remedy: 'Record some with `aerostat policy record`, or ask Prometheus for a range of our metrics.',
    exit: 'usage',
  },
  AEROSTAT_TRACE: {
    meaning: 'The file is no trace that policies could be compared on.',
    remedy: 'docs/policy.md says what a trace is; or record one with `aerostat policy record`.',
    exit: 'usage',
  },
  AEROSTAT_OPTIONS: { meaning: 'The options of the daemon contradict each other.', remedy: SEE_MESSAGE },
  AEROSTAT_FEATURE: {
    meaning: 'No feature of the profile has this name.',
    remedy: 'The message lists the names.',
  },
  AEROSTAT_PROFILE: { meaning: 'No profile has this name.', remedy: 'The message lists the names.' },
  AEROSTAT_THREAD_ENDED: {
    meaning: 'A thread of the daemon has ended.',
    remedy: 'Restart the daemon, and report what its log says.',
  },
  AEROSTAT_INTERNAL: {
    meaning: 'The daemon failed at a request.',
    remedy: 'The log of the daemon says why; please report it.',
  },
  AEROSTAT_INVARIANT: { meaning: 'A condition that the code guarantees does not hold.', remedy: REPORT_BUG },

  // The HTTP API
  AEROSTAT_BAD_REQUEST: {
    meaning: 'The request is malformed.',
    remedy: '`errors` of the answer names each field.',
    status: 400,
  },
  AEROSTAT_NOT_FOUND: {
    meaning: 'The API has nothing at this path.',
    remedy: 'See /v1/openapi.json.',
    status: 404,
  },
  AEROSTAT_METHOD: {
    meaning: 'The path does not answer to this method.',
    remedy: 'The header Allow lists the methods.',
    status: 405,
  },
  AEROSTAT_TOO_LARGE: {
    meaning: 'The body of the request is too large.',
    remedy: 'Send a smaller body.',
    status: 413,
  },
  AEROSTAT_MEDIA_TYPE: {
    meaning: 'The body of the request is not JSON.',
    remedy: 'Send it as application/json.',
    status: 415,
  },
  AEROSTAT_UNAUTHORIZED: {
    meaning: 'The request has no token, or a wrong one.',
    remedy: 'Send `Authorization: Bearer TOKEN`; commands take --token-file.',
    status: 401,
  },
  AEROSTAT_ORIGIN: {
    meaning: 'A page of another origin sent the request.',
    remedy: 'Open the page that the daemon serves.',
    status: 403,
  },
  AEROSTAT_READ_ONLY: {
    meaning: 'The token may look and not steer.',
    remedy: 'Use a token that the token file of the daemon does not call read-only.',
    status: 403,
  },
  AEROSTAT_HOST: {
    meaning: 'The Host header names another machine.',
    remedy: 'Use the name or address that the daemon listens at.',
    status: 421,
  },
  AEROSTAT_TIMEOUT: { meaning: 'The daemon did not answer in time.', remedy: 'Ask again.', status: 504 },
  AEROSTAT_TOO_MANY_STREAMS: {
    meaning: 'Too many event streams are open.',
    remedy: 'Close a dashboard, or wait.',
    status: 503,
  },
  AEROSTAT_API_IN_USE: {
    meaning: 'Another program listens at the address of the API.',
    remedy: 'Choose another address with --api, or port with --port.',
  },
  AEROSTAT_API_LISTEN: {
    meaning: 'The API cannot listen at its address.',
    remedy: 'Choose another address with --api.',
  },
  AEROSTAT_API_REMOTE: {
    meaning: 'The API would be reachable from other machines without encryption.',
    remedy: 'Listen on a loopback address, and put a TLS proxy before it.',
  },
  AEROSTAT_API_TOKEN: {
    meaning: 'The token is missing, too weak, or lies in a file that others can read.',
    remedy: SEE_MESSAGE,
  },

  // Sockets of guests, and vhost-user
  AEROSTAT_SOCKET: {
    meaning: 'The socket that was handed over is no Unix stream socket.',
    remedy: 'Hand over a listening or connected Unix stream socket.',
  },
  AEROSTAT_SOCKET_IN_USE: {
    meaning: 'Another program listens on the socket of the guest.',
    remedy: 'End that program, or choose another path.',
  },
  AEROSTAT_SOCKET_PATH: { meaning: 'No socket can be made at the path.', remedy: SEE_MESSAGE },
  AEROSTAT_VHOST_USER: {
    meaning: 'The front-end sent what the protocol does not allow.',
    remedy: 'The connection was closed; look for a newer version of the front-end.',
  },
  AEROSTAT_VHOST_USER_DISCONNECTED: {
    meaning: 'The back-end closed the connection.',
    remedy: 'See the log of the back-end.',
  },
  AEROSTAT_VHOST_USER_REFUSED: {
    meaning: 'The back-end refused a request.',
    remedy: 'See the log of the back-end.',
  },
  AEROSTAT_VHOST_USER_RING: { meaning: 'A ring cannot be set up as asked.', remedy: SEE_MESSAGE },
  AEROSTAT_VHOST_USER_TIMEOUT: {
    meaning: 'The back-end did not answer in time.',
    remedy: 'See whether the back-end still runs.',
  },
  AEROSTAT_VHOST_USER_UNSUPPORTED: {
    meaning: 'The back-end lacks a feature that is needed.',
    remedy: 'Use a back-end that offers the feature in the message.',
  },
  AEROSTAT_DESCRIPTORS_LOST: {
    meaning: 'The kernel could not deliver all descriptors of a message.',
    remedy: 'Raise the limit of open files (`ulimit -n`).',
  },
  AEROSTAT_DESCRIPTORS_STUCK: {
    meaning: 'Descriptors of a former front-end cannot be closed, since their file system does not answer.',
    remedy: 'End the process that serves that file system; front-ends are let in after that.',
  },

  // Guest memory, rings and lists
  AEROSTAT_REGION_ADDRESS: {
    meaning: 'A memory region has an impossible address or size.',
    remedy: 'The front-end is at fault.',
  },
  AEROSTAT_REGION_FILE: {
    meaning: 'The descriptor of a memory region is no file that holds the region.',
    remedy: 'Give the guest memory in a shared file (memfd, tmpfs or hugetlbfs).',
  },
  AEROSTAT_REGION_OVERLAP: { meaning: 'Two memory regions overlap.', remedy: 'The front-end is at fault.' },
  AEROSTAT_MEMORY_ACCESS: {
    meaning: 'An address lies outside guest memory.',
    remedy: 'The guest or its front-end is at fault.',
  },
  AEROSTAT_VIRTQUEUE: {
    meaning: 'The indices or descriptors of a ring make no sense.',
    remedy: 'The ring was stopped until the driver starts anew; the driver is at fault.',
  },
  AEROSTAT_VIRTQUEUE_USAGE: {
    meaning: 'A ring was used in a way that its state does not allow.',
    remedy: 'The calling code is at fault.',
  },
  AEROSTAT_PAGE_LIST: {
    meaning: 'A list of pages is malformed.',
    remedy: 'The buffer was returned unused; the driver is at fault.',
  },
  AEROSTAT_STATISTICS: {
    meaning: 'A buffer of statistics is malformed.',
    remedy: 'The buffer was ignored; the driver is at fault.',
  },
  AEROSTAT_HINT_IDS: {
    meaning: 'All ids of hint sessions are used up.',
    remedy: 'Let the guest reset its device.',
  },
  AEROSTAT_SESSION_STATE: {
    meaning: 'A saved vhost-user session cannot be restored.',
    remedy: 'Have the front-end connect anew.',
  },
  AEROSTAT_KEPT_GUEST: {
    meaning: 'A guest that was kept for the next daemon cannot go on in this one.',
    remedy: 'Have its front-end connect anew; its memory was not touched.',
  },
  AEROSTAT_KEEPER: {
    meaning: 'The keeper of descriptors serves another daemon, or has ended.',
    remedy: 'End the other daemon, or start a keeper (aerostat keep).',
  },
  AEROSTAT_HAND_OVER: {
    status: 409,
    meaning: 'The guests were not handed over to a new daemon; the one that had them serves on.',
    remedy: 'See the message and the log; mend what kept the new one from serving, and ask again.',
  },
  AEROSTAT_DEVICE_STATE: { meaning: 'A saved device cannot be restored.', remedy: RETRY_MIGRATION },

  // The embedded guest and its driver
  AEROSTAT_DRIVER_PROBE: { meaning: 'The balloon driver did not start.', remedy: SEE_MESSAGE },
  AEROSTAT_DRIVER_STATE: { meaning: 'A saved driver cannot be restored.', remedy: RETRY_MIGRATION },
  AEROSTAT_DRIVER_STOPPED: {
    meaning: 'The balloon driver does not run.',
    remedy: 'Its device is gone or broken; connect it to a device again.',
  },
  AEROSTAT_SAVED_GUEST: { meaning: 'A saved guest cannot be restored.', remedy: RETRY_MIGRATION },
  AEROSTAT_GUEST_CONTENT: {
    meaning: 'A page of the guest has other contents than its owner wrote.',
    remedy: 'Memory was lost; please report it.',
  },
  AEROSTAT_GUEST_MEMORY: {
    meaning: 'The guest has less memory than it was told to use.',
    remedy: 'Use less, or deflate the balloon.',
  },
  AEROSTAT_GUEST_OPTIONS: { meaning: 'The guest cannot be made with these options.', remedy: SEE_MESSAGE },
  AEROSTAT_GUEST_COMMAND: {
    meaning: 'The guest refused a command of its console.',
    remedy: '`help` on the console lists the commands.',
  },
  AEROSTAT_GUEST_ENDED: { meaning: 'The guest has ended.', remedy: 'The message shows its last words.' },

  // Machines that move
  AEROSTAT_VM: {
    meaning: 'The machine is in a state in which this cannot be done.',
    remedy: 'Wait until the migration under way is over.',
    status: 409,
  },
  AEROSTAT_VM_STATE: { meaning: 'A saved machine cannot be restored here.', remedy: RETRY_MIGRATION },
  AEROSTAT_MIGRATION_CANCELLED: {
    meaning: 'The migration was cancelled.',
    remedy: 'The guest runs on where it was.',
  },
  AEROSTAT_MIGRATION_FAILED: { meaning: 'The migration failed.', remedy: RETRY_MIGRATION },
  AEROSTAT_MIGRATION_LOST: {
    meaning: 'The command lost sight of the migration.',
    remedy: '`aerostat migrate VM --status` shows how it goes.',
  },
  AEROSTAT_MIGRATION_STREAM: {
    meaning: 'The stream of a migration breaks its rules.',
    remedy: RETRY_MIGRATION,
  },
  AEROSTAT_MIGRATION_UNKNOWN: {
    meaning: 'It is not known whether the destination runs the guest.',
    remedy:
      'The source asks on; `aerostat migrate VM --cancel` calls the guest back once you know that it does not run there.',
  },
  AEROSTAT_SNAPSHOT: {
    meaning: 'A snapshot could not be written.',
    remedy: 'The guest runs on; mend the cause that the message names and take it again.',
  },
  AEROSTAT_SNAPSHOT_CANCELLED: {
    meaning: 'A snapshot was called off.',
    remedy: 'The guest runs on, and nothing of the snapshot is left.',
  },
  AEROSTAT_SNAPSHOT_FILE: {
    meaning: 'A file is no snapshot, or not one that can be restored.',
    remedy: 'Restore another copy of it, or take a new snapshot; the message says what is wrong with it.',
  },
  AEROSTAT_TRANSFER: {
    meaning: 'A connection to the other host could not be made, or broke.',
    remedy: RETRY_MIGRATION,
  },
  AEROSTAT_MIGRATION_ORDER: {
    meaning: 'The order of a migration is malformed, whatever state the guest is in.',
    remedy: 'The message says what there is to choose from.',
    exit: 'usage',
    status: 400,
  },
  AEROSTAT_TRANSFER_ADDRESS: {
    meaning: 'The address of a destination is malformed.',
    remedy: 'Write it as tcp:HOST:PORT.',
    status: 400,
  },
  AEROSTAT_WRITE_TRACKING: {
    meaning: 'The kernel cannot track writes to memory, or does not let this process.',
    remedy: 'Linux 6.7 or newer can; see the message.',
  },
  AEROSTAT_ZSTD: {
    meaning: 'Neither Node nor the host has zstd.',
    remedy: 'Install libzstd1, or leave --compress out.',
  },

  // Peers: QEMU, User Mode Linux, and the programs that they need
  AEROSTAT_MISSING_PEER: {
    meaning: 'A program or file of a peer is missing.',
    remedy: 'The message has the command that installs it.',
  },
  AEROSTAT_UNUSABLE_PEER: {
    meaning: 'A peer is installed and cannot run on this machine.',
    remedy: 'The message says why, and which command installs one that can.',
  },
  AEROSTAT_DRIVER_MODULE: {
    meaning: 'The balloon driver of the repository cannot be built for a kernel, or was not.',
    remedy: 'The message says what is missing, and which command brings it.',
  },
  AEROSTAT_NOT_DEBIAN: {
    meaning: "This machine does not install from Debian's archive, from which peers come.",
    remedy: 'Use the embedded guest, which needs no peer.',
  },
  AEROSTAT_ARCHIVE: {
    meaning: "Debian's archive cannot be reached, or does not have what was asked for.",
    remedy: 'Try again with a connection; what was downloaded is used.',
    exit: 'unreachable',
  },
  AEROSTAT_PEER_INSTALL: {
    meaning: 'A peer was downloaded and cannot be used.',
    remedy: 'The message says why.',
  },
  AEROSTAT_CACHE: {
    meaning: 'No directory for a cache can be written.',
    remedy: 'Set XDG_CACHE_HOME to one that can.',
  },
  AEROSTAT_SPAWN: { meaning: 'A program cannot be started.', remedy: SEE_MESSAGE },
  AEROSTAT_GUEST_BOOT: {
    meaning: 'The Linux guest did not boot.',
    remedy: 'The message shows the last lines of its console.',
  },
  AEROSTAT_SHELL_COMMAND: {
    meaning: 'A command in the shell of the Linux guest failed.',
    remedy: 'The message shows its output.',
  },
  AEROSTAT_GUEST_TIMEOUT: {
    meaning: 'The Linux guest did not answer in time.',
    remedy: 'The message shows the last lines of its console.',
  },
  AEROSTAT_CPIO_PATH: { meaning: 'A path cannot stand in a cpio archive.', remedy: REPORT_BUG },
  AEROSTAT_NOT_CONNECTED: {
    meaning: 'A program that was started did not connect in time.',
    remedy: 'See its output.',
  },
  AEROSTAT_PCI: {
    meaning: 'A PCI function is missing, or is no virtio device.',
    remedy: 'Start QEMU with -device virtio-balloon-pci.',
  },
  AEROSTAT_QEMU_MIGRATION: {
    meaning: 'QEMU did not migrate the guest.',
    remedy: 'The message has the reason that QEMU gave.',
  },
  AEROSTAT_QEMU_PROCESS: {
    meaning: 'QEMU ended, or did not start.',
    remedy: 'The message shows its last words.',
  },
  AEROSTAT_QMP: {
    meaning: 'QEMU refused a command.',
    remedy: 'The message has the reason that QEMU gave.',
    status: 502,
  },
  AEROSTAT_QMP_ANSWER: {
    meaning: 'QEMU answered what its protocol does not allow.',
    remedy: 'Check that the socket is a QMP monitor.',
    status: 502,
  },
  AEROSTAT_QMP_CONNECTION: {
    meaning: 'The monitor of QEMU cannot be reached.',
    remedy: 'Start QEMU with -qmp unix:PATH,server=on,wait=off.',
    exit: 'unreachable',
    status: 502,
  },
  AEROSTAT_QMP_TIMEOUT: {
    meaning: 'The monitor of QEMU did not answer in time.',
    remedy: 'See whether another client holds the monitor, or QEMU is stopped.',
    exit: 'unreachable',
    status: 504,
  },
  AEROSTAT_QTEST: { meaning: 'The qtest protocol was broken.', remedy: 'See the output of QEMU.' },

  // Demonstration, benchmarks, simulations
  AEROSTAT_DEMO: { meaning: 'The demonstration cannot go on.', remedy: SEE_MESSAGE },
  AEROSTAT_BENCH: {
    meaning: 'A benchmark cannot be run, or its result cannot be trusted.',
    remedy: SEE_MESSAGE,
  },
  AEROSTAT_SIM_LOST: {
    meaning: 'A simulation lost memory of its guest.',
    remedy: 'The seed in the message repeats it; please report it.',
  },
  AEROSTAT_SIM_STATE: {
    meaning: 'A simulated guest is in an impossible state.',
    remedy: 'The seed in the message repeats it; please report it.',
  },
  AEROSTAT_SIM_STUCK: {
    meaning: 'A simulation does not go on.',
    remedy: 'The seed in the message repeats it; please report it.',
  },
  AEROSTAT_SIM_VIOLATION: {
    meaning: 'A simulation broke a rule.',
    remedy: 'The seed in the message repeats it; please report it.',
  },
  AEROSTAT_STATES: {
    meaning: 'The explorer found more states than it can keep.',
    remedy: 'Explore a smaller model.',
  },

  // The operating system
  AEROSTAT_SYSTEM: {
    meaning: 'A system call failed.',
    remedy: 'The message names the call and the kernel’s reason.',
  },
  AEROSTAT_CLOSED: { meaning: 'A descriptor was used after it was closed.', remedy: REPORT_BUG },
  AEROSTAT_FILE_END: {
    meaning: 'A file ends before the memory that it should hold.',
    remedy: 'The file was shrunk; restart its guest.',
  },
} satisfies Record<`AEROSTAT_${string}`, ErrorDeclaration>;

export type ErrorCode = keyof typeof declarations;

export const ERRORS: Readonly<Record<ErrorCode, ErrorDeclaration>> = declarations;

/** Whether a text from outside is one of our codes. */
export const isErrorCode = (text: string): text is ErrorCode => Object.hasOwn(declarations, text);
