/** Reads the notation of definition.ts: opcode strings and operand strings. */

export type Prefix = 'none' | 'NP' | '66' | 'F2' | 'F3';

export interface Encoding {
  /** 0: one-byte opcodes, 1: 0F, 2: 0F 38, 3: 0F 3A. */
  readonly map: number;
  readonly opcode: number;
  readonly prefix: Prefix;
  readonly rexW: boolean;
  /** Register in the low three bits of the opcode. */
  readonly plusRegister: boolean;
  /** null: no ModRM; 'r': register; 0..7: extension; 'fixed': the byte in modrmByte. */
  readonly modrm: null | 'r' | 'fixed' | number;
  readonly modrmByte: number;
  /** Immediates in order: ib iw id iz iv cb cd a. */
  readonly immediates: readonly string[];
}

/** A byte as the notation writes it. */
export function hexByte(value: number): string {
  return value.toString(16).toUpperCase().padStart(2, '0');
}

export function parseEncoding(code: string): Encoding {
  const words = code.split(' ');
  let prefix: Prefix = 'none';
  let rexW = false;
  for (;;) {
    const word = words[0]!;
    if (word === 'NP' || word === '66' || word === 'F2' || word === 'F3') prefix = word;
    else if (word === 'REX.W') rexW = true;
    else break;
    words.shift();
  }
  let map = 0;
  if (words[0] === '0F' && words.length > 1 && /^[0-9A-F]{2}/.test(words[1]!)) {
    words.shift();
    map = 1;
    const second: string = words[0]!;
    if (second === '38' || second === '3A') {
      words.shift();
      map = second === '38' ? 2 : 3;
    }
  }
  const first = words.shift()!;
  const plusRegister = first.endsWith('+r');
  const opcode = Number.parseInt(first.slice(0, 2), 16);
  let modrm: Encoding['modrm'] = null;
  let modrmByte = 0;
  const immediates: string[] = [];
  for (const word of words) {
    if (word === '/r') modrm = 'r';
    else if (/^\/[0-7]$/.test(word)) modrm = Number(word[1]);
    else if (/^[0-9A-F]{2}$/.test(word)) {
      modrm = 'fixed';
      modrmByte = Number.parseInt(word, 16);
    } else if (/^(i[bwdzv]|c[bd]|a)$/.test(word)) immediates.push(word);
    else throw new SyntaxError(`encoding '${code}': what is '${word}'?`);
  }
  return { map, opcode, prefix, rexW, plusRegister, modrm, modrmByte, immediates };
}

export interface Operand {
  /** E G Z M R V W U P Q N I J O S, or a fixed register: 'AL', 'CL', 'DX', 'A', or '1'. */
  readonly kind: string;
  /** b w d q v y z x t, or digits: bytes of memory. */
  readonly size: string;
  readonly read: boolean;
  readonly written: boolean;
}

export function parseOperands(text: string | undefined): readonly Operand[] {
  if (text === undefined || text === '') return [];
  return text.split(',').map((word) => {
    const use = word.endsWith('=') ? '=' : word.endsWith('+') ? '+' : '';
    const bare = use === '' ? word : word.slice(0, -1);
    const flags = { read: use !== '=', written: use !== '' };
    if (bare === 'AL' || bare === 'CL') return { kind: bare, size: 'b', ...flags };
    if (bare === 'AX' || bare === 'DX') return { kind: bare, size: 'w', ...flags };
    if (bare === '1') return { kind: bare, size: 'b', ...flags };
    return { kind: bare[0]!, size: bare.slice(1), ...flags };
  });
}

/** Bits of an operand at an operand size of 16, 32 or 64. */
export function operandBits(size: string, operandSize: number): number {
  switch (size) {
    case 'b':
      return 8;
    case 'w':
      return 16;
    case 'd':
      return 32;
    case 'q':
      return 64;
    case 'x':
      return 128;
    case 't':
      return 80;
    case 'v':
      return operandSize;
    case 'y':
      return operandSize === 64 ? 64 : 32;
    case 'z':
      return operandSize === 16 ? 16 : 32;
    case '':
      return 0;
    default:
      return Number(size) * 8;
  }
}
