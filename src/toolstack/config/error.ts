/** A domain's configuration is wrong; the message is one line and says where: "guest.cfg:3: memory: ...". */
export class ConfigError extends Error {}

/** Where something stands: a file (or what stands for one) and a line of it, from 1. */
export interface Place {
  readonly source: string;
  readonly line: number;
}

/** @param key what it is about, if that is known */
export function configError(place: Place, key: string | null, what: string): ConfigError {
  return new ConfigError(`${at(place)}: ${key === null ? '' : `${key}: `}${what}`);
}

export function at({ source, line }: Place): string {
  return `${source}:${line}`;
}
