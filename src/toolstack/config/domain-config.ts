/**
 * What the keys of xl.cfg(5) mean for us: from settings to a domain's configuration.
 *
 * Keys of Xen's that cannot have an effect here are accepted with a warning, as are keys that nobody knows. Keys
 * without which the domain would be another one than is asked for (a fully virtualised one, one with hardware of the
 * host's) are errors.
 *
 * Kernels and RAM disks that come with Xenolith are named "xenolith:NAME" where a file's name would stand.
 */
import { resolve } from 'node:path';
import type { Action, DomainConfig } from '../api/model.ts';
import { ACTIONS, NAME_PATTERN } from '../api/names.ts';
import { parseDiskSpec } from '../devices/disk-spec.ts';
import { parseShareSpec, shareText } from '../devices/share-spec.ts';
import { KERNEL_NAMES } from '../images/index.ts';
import { parseForward } from '../net/forward-spec.ts';
import { parseVifSpec } from '../net/vif-spec.ts';
import { diskText, withAbsoluteFiles } from './device-text.ts';
import { at, type ConfigError, configError, type Place } from './error.ts';
import { numberOf, parseSettings, type Settings, type Value } from './syntax.ts';

/** In front of the names of what comes with Xenolith. */
export const OWN_PREFIX = 'xenolith:';
export const OWN_RAMDISK = `${OWN_PREFIX}shell`;

/** What a domain gets that does not say: MiB. */
const DEFAULT_MEMORY = 256;
const MAX_MIB = 2 ** 22;
const MAX_VCPUS = 128;

/** Keys of Xen's that have no effect here. */
const WITHOUT_EFFECT = new Set([
  ...['seclabel', 'init_seclabel', 'pool', 'cap', 'cpus_soft', 'nomigrate', 'driver_domain', 'claim_mode'],
  ...['max_grant_frames', 'max_maptrack_frames', 'max_grant_version', 'passthrough', 'tsc_mode', 'vnuma'],
  ...['xend_suspend_evtchn_compat', 'on_soft_reset', 'vfb', 'vkb', 'vdispl', 'vsnd', 'channel', 'vtpm'],
  ...['usbctrl', 'usbdev', 'vuart', 'localtime', 'rtc_timeoffset', 'e820_host', 'timer_mode', 'device_tree'],
  ...[
    'bootloader_args',
    'videoram',
    'blkdev_start',
    'viridian',
    'nestedhvm',
    'hap',
    'acpi',
    'apic',
    'pae',
    'boot',
  ],
  ...['sdl', 'vnc', 'vnclisten', 'vncpasswd', 'keymap', 'serial', 'usb', 'usbdevice', 'device_model_version'],
  ...['suppress_spurious_page_faults', 'vcpu_affinity_locked', 'latency', 'slice', 'period', 'extratime'],
]);

/** Keys of Xen's that would have to have an effect. */
const IMPOSSIBLE: Readonly<Record<string, string>> = {
  bootloader:
    'there are no boot loaders on the host’s side; name kernel and ramdisk, or say firmware="pvgrub64"',
  pci: 'there is no hardware of the host’s to give away',
  dtdev: 'there is no hardware of the host’s to give away',
  irqs: 'there is no hardware of the host’s to give away',
  ioports: 'there is no hardware of the host’s to give away',
  iomem: 'there is no hardware of the host’s to give away',
  rdm: 'there is no hardware of the host’s to give away',
};

/** What was read, and what the user should know about it. */
export interface ReadConfig {
  readonly config: DomainConfig;
  /** One line each, with its place. */
  readonly warnings: readonly string[];
}

export interface ConfigSource {
  readonly text: string;
  /** Its name in messages. */
  readonly name: string;
}

/**
 * Reads a domain's configuration. Later sources go over earlier ones.
 * @param folder that relative names of files start from
 * @throws ConfigError
 */
export function readDomainConfig(sources: readonly ConfigSource[], folder: string): ReadConfig {
  const settings: Settings = new Map();
  for (const { text, name } of sources) parseSettings(text, name, settings);
  return new Reader(settings, { source: sources[0]?.name ?? '<none>', line: 1 }, folder).read();
}

class Reader {
  private readonly settings: Settings;
  /** Where a key that is missing is missing. */
  private readonly start: Place;
  private readonly folder: string;
  private readonly warnings: string[] = [];
  private readonly known = new Set<string>();

  constructor(settings: Settings, start: Place, folder: string) {
    this.settings = settings;
    this.start = start;
    this.folder = folder;
  }

  read(): ReadConfig {
    this.checkType();
    const memory = this.number('memory', 1, MAX_MIB);
    const maxmem = this.number('maxmem', 1, MAX_MIB);
    const start = memory ?? maxmem ?? DEFAULT_MEMORY;
    if (maxmem !== null && maxmem < start) throw this.error('maxmem', `is less than memory (${start})`);
    const { vcpus, maxVcpus } = this.vcpus();
    const config: DomainConfig = {
      name: this.name(),
      uuid: this.uuid(),
      ...this.images(),
      memory: start << 10,
      maxMemory: (maxmem ?? start) << 10,
      vcpus,
      maxVcpus,
      cpus: this.cpus(),
      weight: this.number('cpu_weight', 1, 65535) ?? 256,
      onPoweroff: this.action('on_poweroff', 'destroy'),
      onReboot: this.action('on_reboot', 'restart'),
      onCrash: this.action('on_crash', 'destroy'),
      onWatchdog: this.action('on_watchdog', 'destroy'),
      disks: this.specs('disk', (text) => {
        const spec = parseDiskSpec(text);
        return { ...spec, text: diskText(withAbsoluteFiles(spec, this.folder)) };
      }),
      vifs: this.specs('vif', parseVifSpec),
      forwards: this.specs('xenolith_forward', parseForward),
      p9: this.specs('p9', (text) => {
        const spec = parseShareSpec(text);
        return { ...spec, text: shareText(spec, this.folder) };
      }),
    };
    this.checkRest();
    return { config, warnings: this.warnings };
  }

  private name(): string {
    const name = this.string('name');
    if (name === null) throw configError(this.start, 'name', 'is missing: a domain must have one');
    if (!new RegExp(NAME_PATTERN).test(name)) {
      throw this.error(
        'name',
        `${JSON.stringify(name)} cannot be a domain's name (letters, digits and _.:@+-)`,
      );
    }
    return name;
  }

  private uuid(): string | null {
    const uuid = this.string('uuid');
    if (uuid === null) return null;
    const digits = uuid.replaceAll('-', '').toLowerCase();
    if (!/^[0-9a-f]{32}$/.test(digits)) throw this.error('uuid', `${JSON.stringify(uuid)} is not a UUID`);
    return digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
  }

  private checkType(): void {
    const type = this.string('type') ?? 'pv';
    if (type !== 'pv') throw this.error('type', `"${type}": only "pv" domains run here`);
    const builder = this.string('builder') ?? 'generic';
    if (builder !== 'generic' && builder !== 'linux')
      throw this.error('builder', `"${builder}": only paravirtual domains run here`);
  }

  private images(): Pick<DomainConfig, 'kernel' | 'ramdisk' | 'cmdline'> {
    const firmware = this.string('firmware');
    if (firmware !== null && firmware !== 'pvgrub64')
      throw this.error('firmware', `"${firmware}": only "pvgrub64" runs here`);
    const named = this.string('kernel');
    if (named === null && firmware === null)
      throw configError(this.start, 'kernel', `is missing: a file, or "${OWN_PREFIX}debian"`);
    const kernel = firmware === null ? named! : `${OWN_PREFIX}grub`;
    const ramdisk = this.string('ramdisk');
    if (kernel.startsWith(OWN_PREFIX) && !KERNEL_NAMES.some((name) => kernel === OWN_PREFIX + name)) {
      throw this.error(
        'kernel',
        `"${kernel}": choose one of ${KERNEL_NAMES.map((name) => OWN_PREFIX + name).join(', ')}`,
      );
    }
    if (ramdisk?.startsWith(OWN_PREFIX) && ramdisk !== OWN_RAMDISK)
      throw this.error('ramdisk', `"${ramdisk}": the only one is ${OWN_RAMDISK}`);
    return {
      kernel: this.file('kernel', kernel),
      ramdisk: ramdisk === null || ramdisk === '' ? null : this.file('ramdisk', ramdisk),
      cmdline: this.cmdline(),
    };
  }

  private cmdline(): string {
    const cmdline = this.string('cmdline');
    const root = this.string('root');
    const extra = this.string('extra');
    if (cmdline !== null) {
      for (const key of ['root', 'extra'])
        if (this.settings.has(key)) this.warn(key, 'ignored, because there is a cmdline');
      return cmdline;
    }
    return [...(root === null ? [] : [`root=${root}`]), ...(extra === null ? [] : [extra])].join(' ');
  }

  private file(key: string, name: string): string {
    if (name === '') throw this.error(key, 'needs the name of a file');
    return name.startsWith(OWN_PREFIX) ? name : resolve(this.folder, name);
  }

  private vcpus(): { vcpus: number; maxVcpus: number } {
    const vcpus = this.number('vcpus', 1, MAX_VCPUS);
    const max = this.number('maxvcpus', 1, MAX_VCPUS);
    if (vcpus !== null && max !== null && max < vcpus)
      throw this.error('maxvcpus', `is less than vcpus (${vcpus})`);
    return { vcpus: vcpus ?? max ?? 1, maxVcpus: max ?? vcpus ?? 1 };
  }

  private cpus(): DomainConfig['cpus'] {
    const value = this.take('cpus');
    if (value === null) return null;
    const check = (item: Value): string => {
      if (item.kind === 'list') throw configError(item, 'cpus', 'is a list in a list');
      if (!/^[\s\d,^-]*$/.test(item.text.replaceAll(/\ball\b|\bnodes?:/g, '')) || item.text.trim() === '')
        throw configError(
          item,
          'cpus',
          `${JSON.stringify(item.text)} is not a list of CPUs (example: "0-3,5,^1")`,
        );
      return item.text;
    };
    return value.kind === 'list' ? value.items.map(check) : check(value);
  }

  private action(key: string, otherwise: Action): Action {
    const text = this.string(key);
    if (text === null) return otherwise;
    const action = ACTIONS.find((each) => each === text);
    if (!action) throw this.error(key, `"${text}": choose one of ${ACTIONS.join(', ')}`);
    return action;
  }

  /** Keys that nobody asked for. */
  private checkRest(): void {
    for (const [key, value] of this.settings) {
      if (this.known.has(key)) continue;
      const impossible = IMPOSSIBLE[key];
      if (impossible !== undefined && !(value.kind === 'list' && value.items.length === 0))
        throw configError(value, key, impossible);
      this.warn(
        key,
        WITHOUT_EFFECT.has(key) || impossible !== undefined ? 'has no effect here' : 'unknown key, ignored',
      );
    }
  }

  private take(key: string): Value | null {
    this.known.add(key);
    return this.settings.get(key) ?? null;
  }

  private string(key: string): string | null {
    const value = this.take(key);
    if (value?.kind === 'list') throw configError(value, key, 'must be a string, not a list');
    return value?.text ?? null;
  }

  private number(key: string, least: number, most: number): number | null {
    const value = this.take(key);
    if (value === null) return null;
    const number = value.kind === 'list' ? null : numberOf(value);
    if (number === null) throw configError(value, key, 'must be a number');
    if (number < least || number > most) {
      throw configError(value, key, `${number} is out of range (${least} to ${most})`);
    }
    return number;
  }

  /** A list of strings, each with a syntax of its own, which is checked here where its place is known. */
  private specs(key: string, parse: (text: string) => unknown): string[] {
    const value = this.take(key);
    if (value === null) return [];
    // xl takes a single string for a list of one.
    const items = value.kind === 'list' ? value.items : [value];
    return items.map((item) => {
      if (item.kind === 'list') throw configError(item, key, 'must be a list of strings');
      // The place says which one it is.
      const plain = (message: string) => message.replace(`${key} "${item.text}": `, '');
      try {
        const parsed = parse(item.text) as { warnings?: readonly string[]; text?: string };
        for (const warning of parsed.warnings ?? [])
          this.warnings.push(`${at(item)}: ${key}: ${plain(warning)}`);
        return parsed.text ?? item.text;
      } catch (error) {
        throw configError(item, key, plain((error as Error).message));
      }
    });
  }

  private error(key: string, what: string): ConfigError {
    return configError(this.settings.get(key) ?? this.start, key, what);
  }

  private warn(key: string, what: string): void {
    this.warnings.push(`${at(this.settings.get(key)!)}: ${key}: ${what}`);
  }
}
