/**
 * The default initramfs: BusyBox, the kernel's Hyper-V and guest modules, and an init that anybody may replace. Byte-reproducible.
 *
 * `--run` speaks over the second UART (ttyS1), which is raw and binary-safe:
 *   to the host   `o N\n` + N bytes of standard output, `e N\n` + N bytes of standard error, `a\n` (send more input),
 *                 `x STATUS\n` (the command has ended)
 *   to the guest  `N\n` + N bytes of standard input, `0\n` at its end
 */
import { sha256, type Cache } from './cache.ts';
import { readDeb } from './deb.ts';
import { MODE, writeCpio, type CpioEntry } from './cpio.ts';
import { UserError } from './errors.ts';
import { loadOrder, type KernelModule } from './modules.ts';
import { WANTED_MODULES } from './kernel.ts';
import { Unpacked } from './unpacked.ts';

export interface InitramfsParts {
  readonly busybox: Uint8Array;
  readonly modules: ReadonlyMap<string, KernelModule>;
  /** Shell command of --run. */
  readonly command?: string;
  readonly extra: readonly { readonly path: string; readonly data: Uint8Array; readonly mode: number }[];
}

const unpackedBusybox = new Unpacked<Uint8Array>('busybox-1');

export async function busyboxFromDeb(bytes: Uint8Array, where: string, cache: Cache): Promise<Uint8Array> {
  const hash = sha256(bytes);
  const kept = unpackedBusybox.kept(cache, hash);
  if (kept !== undefined) return kept;
  const [file] = await readDeb(bytes, where, (path) => path === 'bin/busybox' || path === 'usr/bin/busybox');
  if (file === undefined) throw new UserError(`${where} holds no busybox: give the busybox-static package`);
  unpackedBusybox.keep(cache, hash, file.data);
  return file.data;
}

/** An interactive shell does not wait for the first process, which waits for the shell. */
const SHELL = ['poweroff', 'halt', 'reboot']
  .map((name) => `${name}() { busybox ${name} -f "$@"; }\n`)
  .join('');

/** What BusyBox's poweroff, halt and reboot send to the first process. */
const SIGNALS = `trap 'busybox poweroff -f' USR2
trap 'busybox halt -f' USR1
trap 'busybox reboot -f' TERM
`;

const INIT = `#!/bin/busybox sh
# The first process of the default initramfs. An ordinary program: replace it with --initrd or --add FILE:/init.
bb=/bin/busybox
$bb mkdir -p /proc /sys /dev /run /tmp /root
$bb mount -t proc proc /proc
$bb mount -t sysfs sys /sys
$bb mount -t devtmpfs dev /dev 2>/dev/null
$bb mkdir -p /dev/pts
$bb mount -t devpts devpts /dev/pts
$bb mount -t tmpfs run /run
$bb --install -s /bin
${SIGNALS}export PATH=/bin:/sbin HOME=/root TERM=\${TERM:-linux} PS1='vitrine:\\w# '
. /vitrine/coldplug
[ -d /sys/kernel/config ] && mount -t configfs config /sys/kernel/config 2>/dev/null
cd /root
[ -e /vitrine/command ] && exec sh /vitrine/run
echo
echo "Vitrine: BusyBox shell on $(uname -r). 'poweroff' ends it."
ENV=/etc/shell setsid cttyhack sh
poweroff -f
`;

/** Loads what the devices in /sys ask for by `modalias`, as udev does; twice, because hv_vmbus brings a bus of its own. */
const COLDPLUG = (cases: string): string => `load() {
  for module; do
    [ -e /sys/module/$module ] || insmod /vitrine/modules.d/$module.ko 2>/dev/null
  done
}
plug() {
${cases}}
for round in 1 2; do
  for alias in $(cat /sys/bus/*/devices/*/modalias /sys/devices/system/cpu/modalias 2>/dev/null); do plug "$alias"; done
done
`;

/** Patterns that a shell's \`case\` takes as they are. */
const PLAIN_PATTERN = /^[\w:,.*?+[\]-]+$/;

function coldplug(modules: InitramfsParts['modules']): {
  readonly script: string;
  readonly used: KernelModule[];
} {
  const used = new Set<KernelModule>();
  let cases = '';
  for (const { name, asksFor } of WANTED_MODULES) {
    const aliases = (modules.get(name)?.aliases ?? []).filter((alias) => PLAIN_PATTERN.test(alias));
    if (aliases.length === 0) continue;
    const order = loadOrder(modules, [...asksFor, name]);
    order.forEach((module) => used.add(module));
    const names = order.map((module) => module.name).join(' ');
    cases += `  case $1 in ${aliases.join('|')}) load ${names} ;; esac\n`;
  }
  return { script: COLDPLUG(cases === '' ? '  :\n' : cases), used: [...used] };
}

const RUN = `# Runs /vitrine/command with its standard streams on the second UART.
${SIGNALS}stty -F /dev/ttyS1 raw -echo
exec 8<>/dev/ttyS1
# One writer at a time: creating a folder is atomic.
lock() { until mkdir /run/lock 2>/dev/null; do sleep 0.01; done; }
unlock() { rmdir /run/lock; }
send() { # tag: standard input in frames
  while :; do
    dd bs=32768 count=1 of=/run/frame.$1 2>/dev/null
    n=$(stat -c %s /run/frame.$1)
    [ "$n" = 0 ] && break
    lock; { echo "$1 $n"; cat /run/frame.$1; } >&8; unlock
  done
}
receive() {
  while :; do
    lock; echo a >&8; unlock
    read -r n <&8
    [ "$n" = 0 ] && break
    dd bs="$n" count=1 iflag=fullblock <&8 2>/dev/null || break
  done
}
mkfifo /run/in /run/out /run/err
send o < /run/out & out=$!
send e < /run/err & err=$!
receive > /run/in & in=$!
sh /vitrine/command < /run/in > /run/out 2> /run/err
status=$?
wait $out $err
kill $in 2>/dev/null; rmdir /run/lock 2>/dev/null
lock; echo "x $status" >&8; unlock
sleep 1
poweroff -f
`;

export function buildInitramfs(parts: InitramfsParts): Uint8Array {
  const text = (value: string): Uint8Array => new TextEncoder().encode(value);
  const { script, used } = coldplug(parts.modules);
  const entries: CpioEntry[] = [
    ...['bin', 'dev', 'etc', 'vitrine', 'vitrine/modules.d'].map((path): CpioEntry => ({
      path,
      mode: MODE.directory,
    })),
    { path: 'dev/console', mode: MODE.character, device: { major: 5, minor: 1 } },
    { path: 'bin/busybox', mode: MODE.program, data: parts.busybox },
    { path: 'init', mode: MODE.program, data: text(INIT) },
    { path: 'etc/passwd', mode: MODE.file, data: text('root::0:0:root:/root:/bin/sh\n') },
    { path: 'etc/shell', mode: MODE.file, data: text(SHELL) },
    { path: 'etc/group', mode: MODE.file, data: text('root:x:0:\n') },
    { path: 'vitrine/coldplug', mode: MODE.file, data: text(script) },
    { path: 'vitrine/run', mode: MODE.file, data: text(RUN) },
    ...used.map(({ name, data }): CpioEntry => ({
      path: `vitrine/modules.d/${name}.ko`,
      mode: MODE.file,
      data,
    })),
  ];
  if (parts.command !== undefined)
    entries.push({ path: 'vitrine/command', mode: MODE.file, data: text(`${parts.command}\n`) });
  const known = new Set(entries.map(({ path }) => path));
  for (const { path, data, mode } of parts.extra) {
    const clean = path.replace(/^\/+/, '');
    const folders = clean.split('/').slice(0, -1);
    for (let depth = 1; depth <= folders.length; depth++) {
      const folder = folders.slice(0, depth).join('/');
      if (!known.has(folder)) entries.push({ path: folder, mode: MODE.directory });
      known.add(folder);
    }
    const existing = entries.findIndex((entry) => entry.path === clean);
    if (existing >= 0) entries.splice(existing, 1);
    entries.push({ path: clean, mode: 0o100000 | mode, data });
    known.add(clean);
  }
  return writeCpio(entries);
}
