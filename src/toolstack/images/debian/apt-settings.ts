/**
 * How this machine gets Debian's packages, for a system that is to get them in the same way: the sources of Debian
 * itself (not those of others), and what apt is told about the way there.
 */
import { ImageError } from '../error.ts';
import { runTool } from '../tool.ts';

export interface AptSettings {
  /** The release that this machine has, as its sources name it: a code name, or "stable". */
  readonly suite: string;
  /** Lines of a sources.list, for that release alone. */
  readonly sources: readonly string[];
  /** Lines of an apt.conf. */
  readonly options: readonly string[];
  /** Proxies that only this machine itself can reach. */
  readonly unreachable: readonly string[];
}

/** What a guest needs to be told as well: the way to the archive, not how this machine treats its packages. */
const CARRIED =
  /^Acquire::(https?|ftp)::(Proxy(::[^:]+)?|Timeout)$|^Acquire::(Check-Valid-Until|Check-Date)$/i;
const FORMAT = '$(REPO_URI) $(RELEASE) $(COMPONENT)';

/** @throws ImageError: apt is not here, or has no sources of Debian's */
export async function aptSettings(env: Readonly<NodeJS.ProcessEnv> = process.env): Promise<AptSettings> {
  const targets = await runTool('apt-get', [
    'indextargets',
    ...['--format', FORMAT, 'Created-By: Packages', 'Origin: Debian', 'Label: Debian'],
  ]);
  const security = await runTool('apt-get', [
    'indextargets',
    ...['--format', FORMAT, 'Created-By: Packages', 'Origin: Debian', 'Label: Debian-Security'],
  ]);
  const config = await runTool('apt-config', ['dump', '--format', '%F %v%n']);
  return { ...readSources(targets.output + security.output), ...readOptions(config.output, env) };
}

/**
 * @param targets lines of "URI release component", those of the archive proper first
 * @throws ImageError
 */
export function readSources(targets: string): Pick<AptSettings, 'suite' | 'sources'> {
  const lines = targets.split('\n').flatMap((line) => {
    const [uri, release, component] = line.trim().split(' ');
    return uri && release && component ? [{ uri, release, component }] : [];
  });
  const suite = lines.find(({ release }) => /^[a-z]+$/.test(release))?.release;
  if (!suite)
    throw new ImageError("apt has no lists of Debian's packages, run: apt-get update (sources: /etc/apt)");
  const bySource = new Map<string, string[]>();
  for (const { uri, release, component } of lines) {
    if (release !== suite && !release.startsWith(`${suite}-`) && !release.startsWith(`${suite}/`)) continue;
    const source = `deb ${uri} ${release}`;
    const components = bySource.get(source) ?? [];
    if (!components.includes(component)) components.push(component);
    bySource.set(source, components);
  }
  return { suite, sources: [...bySource].map(([source, components]) => [source, ...components].join(' ')) };
}

/** @param dump lines of "key value" */
export function readOptions(
  dump: string,
  env: Readonly<NodeJS.ProcessEnv>,
): Pick<AptSettings, 'options' | 'unreachable'> {
  const values = new Map<string, string>();
  for (const scheme of ['http', 'https']) {
    const proxy = env[`${scheme}_proxy`];
    if (proxy) values.set(`Acquire::${scheme}::Proxy`, proxy);
  }
  for (const line of dump.split('\n')) {
    const [, key, value] = /^(\S+) (.*)$/.exec(line) ?? [];
    if (key && value && CARRIED.test(key)) values.set(key, value);
  }
  const options: string[] = [];
  const unreachable: string[] = [];
  for (const [key, value] of values) {
    // A value is a string in an apt.conf: nothing in it may end it.
    if (/["\\\n]/.test(value)) continue;
    if (/::Proxy/i.test(key) && /^\w+:\/\/([^/@]*@)?(localhost|127\.|\[::1\])/.test(value))
      unreachable.push(value);
    else options.push(`${key} "${value}";`);
  }
  return { options, unreachable };
}
