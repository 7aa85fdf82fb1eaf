/**
 * The guest's side of the command channel: the script that runs as its first process. It mounts what a
 * system needs, then takes commands, one a line, from a console of its own. The kernel's messages go to
 * another console, so neither can cut into the other. The host's side is channel.ts.
 *
 *     host:   text PIECE         adds to the script that the next run takes
 *             run ID             starts it
 *             kill PID           SIGKILL to all that runs in the command's session
 *             poweroff
 *     guest:  ready              takes a line; also said after every line that was read
 *             ID p PID           the command's session
 *             ID o BASE64        a piece of its output
 *             ID x EXIT_CODE     its end
 *
 * Commands run at once if the host sends several. Output travels in base64, so whatever a command writes,
 * no byte of it can be taken for the protocol. A line is at most 1 KiB, which is what a C library writes
 * to a terminal in one piece: the lines of two commands do not mix.
 *
 * The host sends a line when the last one was read, and lines are shorter than the guest's terminal buffer
 * (4 KiB): once that runs full, User Mode Linux 6.1 forgets to listen to the terminal for good.
 */

/** Console of the command channel and console for people, as the guest's devices. */
export const COMMAND_TERMINAL = '/dev/tty1';
export const SHELL_TERMINAL = '/dev/tty2';
/** Where the guest keeps the balloon's driver. */
export const BALLOON_MODULE = '/lib/modules/virtio_balloon.ko';
/** A tmpfs without a limit of its own, for workloads. */
export const WORK_DIRECTORY = '/mem';

/** Where the guest keeps {@link SERVER_SCRIPT} and {@link COMMAND_SCRIPT}. */
export const SERVER_SCRIPT_PATH = '/lib/server';
export const COMMAND_SCRIPT_PATH = '/lib/command';

const OUTPUT_LINE_CHARACTERS = 960;

/**
 * The first process, /init. It serves commands on `terminal`; `prepare` is a script that runs before that, with
 * /proc, /sys and /dev mounted.
 */
export const initScript = (terminal: string, prepare = ''): string => `#!/bin/sh
export PATH=/bin HOME=/root TERM=linux
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /run
mount -t tmpfs -o size=0 tmpfs ${WORK_DIRECTORY}
hostname guest

# Memory is promised without counting, so that a program can ask for more than is free and find out.
echo 1 >/proc/sys/vm/overcommit_memory
# What serves commands must survive a lack of memory; the commands themselves need not.
echo -1000 >/proc/self/oom_score_adj
${prepare}
exec <>${terminal} >&0 2>&0 4>&0
stty raw -echo
exec setsid -c sh ${SERVER_SCRIPT_PATH}
`;

/** Serves commands. It is process 1, and leads a session on the channel's terminal so that it may have jobs. */
export const SERVER_SCRIPT = `
# The end of a child makes this shell forget what it had read of a line and read on, so lines that come slowly, as
# over a serial port, are collected by a shell without children. It belongs to the terminal's foreground, which
# jobs do not.
mkfifo /run/lines
while read -r line; do echo "$line"; done <&4 >/run/lines &
exec </run/lines
rm /run/lines

# As jobs, commands start with the usual signals; else the shell would have them ignore ^C for good.
set -m

serve() {
  code=$( {
    {
      setsid sh ${COMMAND_SCRIPT_PATH} "$1" "$2" </dev/null 2>&1
      echo $? >&3
    } | base64 -w ${OUTPUT_LINE_CHARACTERS} | sed "s/^/$1 o /" >&4
  } 3>&1 )
  echo "$1 x $code"
}

text=
echo ready
while read -r verb word; do
  echo ready
  case $verb in
    text) text=$text$word ;;
    run)
      serve "$word" "$text" &
      text=
      # Reaps and forgets the jobs that are done.
      jobs >/dev/null
      ;;
    kill) kill -9 -- -"$word" 2>/dev/null ;;
    poweroff) break ;;
  esac
done

# Also when the host's end of the channel is gone: a guest without a host has nothing to live for.
poweroff -f
`;

/**
 * Runs one command: ID and script are its arguments. It leads a session, by which the host can kill all that
 * the command started. The script comes as the inside of $'…', which the shell itself decodes.
 */
export const COMMAND_SCRIPT = `echo "$1 p $$" >&4
exec 3>&- 4>&-
echo 0 >/proc/self/oom_score_adj
cd /root
script=$2
set --
eval "eval \\$'$script'"
`;
